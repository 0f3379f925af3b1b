# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Python packages of an old interpreter, put into a root file system while it is built, by the last pip that knew that interpreter.

Neither uv nor a pip of today installs for Python 2.7, so a lock for it names pip, setuptools and wheel, too. These three are wheels for any
Python: the node's own fetches them, and from then on the old one works, inside the root, which is all that it can write to. Some old
packages were published as source archives only. They are built in there, by what is locked, and never on the node itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._package_lock import Pin, PythonEnvError, parse_lock
from ansible_collections.trainyard.core.plugins.module_utils._package_sources import (
    NO_INDEX,
    index_problem,
    places,
    refused_index,
    surroundings,
    without_credentials,
    wrong_checksums,
)
from ansible_collections.trainyard.core.plugins.module_utils._python_env import explain, sources_by_name

TOOLS = ("pip", "setuptools", "wheel")
WORK = "tmp/trainyard"
"""Folder in the root that is there during the installation only."""
BUNDLE, HOUSE = "/run/authorities.pem", "/run/wheelhouse"
"""Where the node's certificates and its wheelhouse are seen in the root; /run there is none of the root's own files."""


@dataclass(frozen=True)
class Sources:
    """Where packages come from.

    Attributes:
        owner: what the names of the variables begin with that messages name.
        index_url: '' for pip's own default, 'none' for no index at all.
        wheelhouse: folder or URL with wheels and source archives, '' for none.
    """

    owner: str = "framework_env"
    index_url: str = ""
    wheelhouse: str = ""

    def problem(self, locks: Mapping[str, Sequence[str]]) -> str:
        """Return why packages cannot be had from here as far as that shows before anything is fetched, '' where it does not.

        Args:
            locks: by version of Python, texts of locks.
        """
        if not any(locks.values()):
            return ""
        if self.wheelhouse.startswith("/") and not os.path.isdir(self.wheelhouse):
            return f"{self.owner}_wheelhouse: {self.wheelhouse} is no folder on this node."
        silent = index_problem(self.index_url) if self.index_url not in ("", NO_INDEX) else ""
        if silent:
            url = without_credentials(self.index_url)
            return refused_index(f"{self.owner}_index_url: {url}", silent)
        for python, texts in locks.items():
            pins = {pin.name + pin.version: pin for text in texts for pin in parse_lock(text).values()} if self.index_url else {}
            wrong = wrong_checksums(list(pins.values()), python, self.wheelhouse, self.index_url)
            if wrong:
                ways = sources_by_name(self.owner)
                return f"Wrong checksum: {'; '.join(wrong)}. Put the right files there, or choose another source by {ways}."
        return ""


def install(root: Path, python: str, lock: str, sources: Sources) -> None:
    """Install what a lock says into a root, for the interpreter of that name in it.

    Raises:
        PythonEnvError: it could not be; the text says why, and what helps.
    """
    pins = parse_lock(lock)
    missing = [name for name in TOOLS if name not in pins]
    if missing:
        raise PythonEnvError(f"requirements: {' and '.join(missing)} is missing, which installs the others.")
    work = root / WORK
    host_files.make_folders(work)
    own = work / "own"
    _run([sys.executable, "-I", "-m", "venv", str(own)], surroundings(), sources)
    tools = _write(work / "tools.txt", [pins[name] for name in TOOLS])
    fetch = [str(own / "bin" / "python"), "-I", "-m", "pip", "download", "--quiet", "--no-cache-dir", "--no-deps", "--require-hashes"]
    _run(
        [*fetch, "--only-binary", ":all:", "--dest", str(work), "--requirement", str(tools)],
        {**surroundings(), **places(sources.index_url, sources.wheelhouse)},
        sources,
    )
    shutil.rmtree(own)
    pip = next(work.glob("pip-*.whl")).name
    step = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-deps", "--require-hashes"]
    offline = {"PYTHONPATH": f"/{WORK}/{pip}", **places(NO_INDEX, f"/{WORK}")}
    run_inside(root, [*step, "--requirement", f"/{WORK}/tools.txt"], sources, offline)
    others = [pin for name, pin in pins.items() if name not in TOOLS]
    if others:
        _write(work / "lock.txt", others)
        run_inside(root, [*step, "--no-build-isolation", "--requirement", f"/{WORK}/lock.txt"], sources)
    for entry in (root / "tmp").iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def run_inside(root: Path, words: Sequence[str], sources: Sources, environment: Mapping[str, str] | None = None) -> str:
    """Run a command in a root that is being built, as root, with the node's network, and return what it printed."""
    whole = surroundings()
    bound = ["--bind", str(root), "/", "--dev-bind", "/dev", "/dev", "--bind", "/proc", "/proc", "--tmpfs", "/run"]
    for name in ("hosts", "resolv.conf"):
        bound += ["--ro-bind-try", os.path.realpath(f"/etc/{name}"), f"/etc/{name}"]
    if "PIP_CERT" in whole:
        bound += ["--ro-bind", os.path.realpath(whole["PIP_CERT"]), BUNDLE]
        whole.update(SSL_CERT_FILE=BUNDLE, PIP_CERT=BUNDLE)
    house = sources.wheelhouse
    if house.startswith("/"):
        bound += ["--ro-bind", os.path.realpath(house), HOUSE]
        house = HOUSE
    whole.update(places(sources.index_url, house) if environment is None else environment)
    whole.update(PATH="/usr/local/bin:/usr/bin:/bin", HOME="/tmp", PIP_NO_PYTHON_VERSION_WARNING="1")
    return _run(["bwrap", *bound, "--chdir", "/", "--die-with-parent", "--", *words], whole, sources)


def _run(words: Sequence[str], environment: Mapping[str, str], sources: Sources) -> str:
    done = subprocess.run(
        list(words), env=dict(environment), cwd="/", umask=0o022, text=True, errors="replace", check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode:
        raise PythonEnvError(explain(done.stdout, sources.owner, sources.index_url, sources.wheelhouse))
    return done.stdout


def _write(path: Path, pins: Sequence[Pin]) -> Path:
    path.write_text("".join(pin.line + "\n" for pin in pins), encoding="utf-8")
    return path
