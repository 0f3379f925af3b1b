#!/usr/bin/env python3
# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""How long making environments takes, against `pip install` of the same locks on the same machine.

    .venv/bin/python benchmarks/environment_creation.py [ENVIRONMENT ...] [--wheelhouse FOLDER] [--target 4]

Both begin with nothing: no cache, no environment; ours makes the installer too. Both end with the same packages, modules
compiled (pip does that by default), for the environments of a node one after another; pip may use its cache from the
second one on. Prints seconds and their ratio, for the first environment alone and for all; exit status 1 where the ratio
over all is below the target.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "collections"))

from ansible_collections.trainyard.core.plugins.module_utils import _python_env as core  # noqa: E402 - the path above comes first
from ansible_collections.trainyard.core.plugins.module_utils._package_lock import parse_lock  # noqa: E402

CATALOG = REPOSITORY / "roles" / "catalog"


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that a piece of work takes."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def by_pip(folder: Path, name: str, lock: str, python: str, wheelhouse: str) -> None:
    """Make an environment with venv and pip."""
    (folder / f"{name}.txt").write_text("".join(pin.line + "\n" for pin in parse_lock(lock).values()))
    subprocess.run([python, "-m", "venv", str(folder / name)], check=True)
    links = ["--find-links", wheelhouse] if wheelhouse else []
    command = [str(folder / name / "bin" / "python"), "-I", "-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:"]
    environment = {
        **os.environ,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_CACHE_DIR": str(folder / "cache"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    environment.pop("PIP_FIND_LINKS", None)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([*command, *links, "-r", str(folder / f"{name}.txt")], check=True, env=environment)


def main() -> int:
    """Run the benchmark and return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    catalogue = {
        key: value for path in (CATALOG / "vars" / "main").glob("*.yml") for key, value in yaml.safe_load(path.read_text()).items()
    }
    parser.add_argument("environments", nargs="*", default=catalogue["catalog_default_environments"])
    parser.add_argument("--wheelhouse", default=os.environ.get("PIP_FIND_LINKS", ""), help="folder with further wheels (PIP_FIND_LINKS)")
    parser.add_argument("--target", type=float, default=4.0, help="ratio that is to be reached")
    parser.add_argument("--python", default="/usr/bin/python3")
    parser.add_argument("--folder", default=None, help="where to work, on a disk with 15 GB free")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trainyard-benchmark-", dir=options.folder) as work:
        ours, theirs = Path(work) / "ours", Path(work) / "pip"
        theirs.mkdir()
        settings = core.Settings(
            path=str(ours),
            owner="benchmark",
            python=options.python,
            wheelhouse=options.wheelhouse,
            installer_requirements=(CATALOG / "files" / "locks" / "installer.txt").read_text(),
        )
        envs = core.Environments(settings)
        python = envs.python_version()
        locks = {
            name: (CATALOG / "files" / "locks" / f"{name}-cpu-cp{python.replace('.', '')}-{os.uname().machine}.txt").read_text()
            for name in options.environments
        }
        rows = []
        for name, lock in locks.items():
            wish = core.Wanted(name, lock)
            make = partial(envs.apply, [wish], dry=False)
            mine = timed(make)
            pip = timed(partial(by_pip, theirs, name, lock, options.python, options.wheelhouse))
            again = timed(make)
            rows.append((name, mine, pip))
            print(
                f"{name:12} ours {mine:6.1f} s   pip {pip:6.1f} s   {pip / mine:5.1f} times faster   (again, nothing to do: {again:.2f} s)",
                flush=True,
            )
    mine, pip = sum(row[1] for row in rows), sum(row[2] for row in rows)
    print(f"{'all':12} ours {mine:6.1f} s   pip {pip:6.1f} s   {pip / mine:5.1f} times faster   (wanted: {options.target:g})")
    return 0 if pip / mine >= options.target else 1


if __name__ == "__main__":
    sys.exit(main())
