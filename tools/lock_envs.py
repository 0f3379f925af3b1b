#!/usr/bin/env python3
# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Pin every environment of the catalogue, CUDA's wheels, the installer and this repository's own tools to exact, hashed versions.

    .venv/bin/python tools/lock_envs.py                 renew what no longer fits the catalogue; versions that still fit stay
    .venv/bin/python tools/lock_envs.py --upgrade       take the newest versions that fit
    .venv/bin/python tools/lock_envs.py tensorflow      only these environments (or: cuda, installer, repository)
    .venv/bin/python tools/lock_envs.py --check         change nothing, ask nobody; exit status 1 where a lock does not fit

A lock names, for one Python and one architecture, each package's version, the checksums of the wheels that fit (never of
source archives: nothing is built on a node) and the bytes it takes on disk, from which a node's free space is judged
before an installation.

Frozen environments are resolved where they will run: in a root file system of the old release, which is made for that (by root, with
mmdebstrap and bubblewrap), by the last pip that knew its Python. Their locks name source archives where there was never a wheel: these
are built in such a root.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "collections"))

from ansible_collections.trainyard.core.plugins.module_utils import _frozen_packages
from ansible_collections.trainyard.core.plugins.module_utils._package_lock import PythonEnvError

REPOSITORY = Path(__file__).resolve().parent.parent
CATALOG = REPOSITORY / "roles" / "catalog" / "vars" / "main" / "environments.yml"
CUDA_CATALOG = CATALOG.with_name("cuda.yml")
LOCKS = REPOSITORY / "roles" / "catalog" / "files" / "locks"
OWN_LOCK = REPOSITORY / "requirements.lock"
OWN_PROJECT = REPOSITORY / "pyproject.toml"
UV = str(Path(sys.executable).parent / "uv")
# Nodes have glibc 2.31 or newer; a wheel for 2.28 runs on all of them.
PLATFORMS = {"x86_64": "x86_64-manylinux_2_28", "aarch64": "aarch64-manylinux_2_28"}
ENVIRONMENT_ARCHITECTURES = ("x86_64",)
WANTED, WITHOUT = "# wanted: ", "# without: "
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)")


@dataclass(frozen=True)
class Lock:
    """One file to be made: what is wanted, for which Python and architectures."""

    name: str
    title: str
    requirements: tuple[str, ...]
    python: str
    architectures: tuple[str, ...]
    group: str
    outside: bool = False  # some of it is not in the ordinary index
    bare: bool = False  # what it depends on comes from elsewhere
    frozen: Mapping[str, Any] | None = None  # the root file system that it is for
    without: tuple[str, ...] = ()  # packages that something else takes the place of

    @property
    def path(self) -> Path:
        """Return where the lock lies."""
        return LOCKS / f"{self.name}.txt"


def wanted_locks(catalog: Mapping[str, Any]) -> list[Lock]:
    """Return the locks that the catalogue asks for."""
    locks = [Lock("installer", "the installer", (catalog["catalog_installer_requirement"],), "3.9", tuple(PLATFORMS), "installer")]
    for name, environment in catalog["catalog_environments"].items():
        for variant, data in environment["variants"].items():
            if "requirements" not in data:
                continue
            common = catalog["catalog_common_requirements"] if data["common"] else []
            if "frozen" in data:  # where both name a package, the old release of it counts
                own = {Requirement(line).name for line in catalog["catalog_frozen_requirements"]}
                common = [*(line for line in common if line not in own), *catalog["catalog_frozen_requirements"]]
            for python in data["pythons"]:
                for architecture in ENVIRONMENT_ARCHITECTURES:
                    file = f"{name}-{variant}-cp{python.replace('.', '')}-{architecture}"
                    title = f"{name} ({variant}) for Python {python} on {architecture}"
                    lock = Lock(file, title, (*data["requirements"], *common), python, (architecture,), name, "index" in data)
                    locks.append(replace(lock, frozen=data.get("frozen"), without=tuple(data.get("without", []))))
    return locks + cuda_locks(catalog["catalog_cuda_wheels"])


def cuda_locks(wheels: Mapping[str, Any]) -> list[Lock]:
    """Return the locks of CUDA's wheels; they are for any Python."""
    locks = []
    for architecture in ENVIRONMENT_ARCHITECTURES:
        for release, version in wheels["toolkits"].items():
            # Some releases ask for any nvJitLink of their major version; each has its own.
            line = ".".join(release.split(".")[:2])
            requirements = (f"cuda-toolkit[{','.join(wheels['parts'])}]=={version}", f"nvidia-nvjitlink=={line}.*")
            locks.append(
                Lock(f"cuda-{release}-{architecture}", f"CUDA {release} on {architecture}", requirements, "3.11", (architecture,), "cuda")
            )
        for library, title in (("cudnn", "cuDNN"), ("nccl", "NCCL")):
            for release, by_major in wheels[library].items():
                for major, requirement in by_major.items():
                    name, words = f"{library}-{release}-cu{major}-{architecture}", f"{title} {release} for CUDA {major} on {architecture}"
                    locks.append(Lock(name, words, (requirement,), "3.11", (architecture,), "cuda", bare=True))
    return locks


def pins(text: str) -> dict[str, str]:
    """Return the versions a lock pins, by canonical name."""
    return {canonicalize_name(found["name"]): found["version"] for line in text.splitlines() if (found := PIN.match(line))}


def misfits(requirements: Sequence[str], text: str) -> list[str]:
    """Return what in a lock does not fulfil the requirements, empty when all is well."""
    pinned, problems = pins(text), []
    for line in requirements:
        requirement = Requirement(line)
        version = pinned.get(canonicalize_name(requirement.name))
        if version is None:
            problems.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement.name} is {version}, wanted is {line}")
    return problems


def check_lock(lock: Lock) -> list[str]:
    """Return what is wrong with one environment's lock, empty when nothing is."""
    if not lock.path.exists():
        return ["there is no lock"]
    text = lock.path.read_text()
    written = [line.removeprefix(WANTED) for line in text.splitlines() if line.startswith(WANTED)]
    problems = misfits(lock.requirements, text)
    if sorted(written) != sorted(lock.requirements):
        problems.append(f"it was made for other requirements: {', '.join(written) or 'unknown'}")
    without = [line.removeprefix(WITHOUT) for line in text.splitlines() if line.startswith(WITHOUT)]
    if without != list(lock.without):
        problems.append(f"it was made without {', '.join(without) or 'leaving anything out'}")
    problems += [
        f"{line.split()[0]} has no checksum"
        for line in text.splitlines()
        if PIN.match(line) and not re.search(r"--hash=sha256:[0-9a-f]{64}", line)
    ]
    return problems


def own_requirements() -> list[str]:
    """Return what pyproject.toml asks for, the test tools included."""
    project = tomllib.loads(OWN_PROJECT.read_text())
    return [*project["project"]["dependencies"], *project["dependency-groups"]["test"]]


def uv(*arguments: str, **environment: str) -> str:
    """Run uv and return what it printed; a failure ends the program with uv's own words."""
    done = subprocess.run([UV, *arguments], check=False, capture_output=True, text=True, env={**os.environ, **environment}, cwd=REPOSITORY)
    if done.returncode:
        raise SystemExit(f"uv {' '.join(arguments[:2])} failed:\n{done.stderr}")
    return done.stdout


def make(lock: Lock, find_links: str, upgrade: bool) -> str:
    """Return the text of a lock: resolve, keep the versions that the present one pins unless an upgrade is wanted, measure."""
    with tempfile.TemporaryDirectory(prefix="trainyard-lock-") as folder:
        work = Path(folder)
        (work / "in.txt").write_text("\n".join(lock.requirements) + "\n")
        # Elsewhere a folder could offer another build of the same version, such as 2.13.0+cpu for 2.13.0.
        links = ["--find-links", find_links] if find_links and lock.outside else []
        if lock.path.exists() and not upgrade:
            kept = "\n".join(f"{name}=={version}" for name, version in pins(lock.path.read_text()).items())
            (work / "pins.txt").write_text(kept + "\n")  # an output file's pins are preferences to uv, not demands
        hashes: dict[tuple[str, str], set[str]] = {}
        for architecture in lock.architectures:
            # One resolution serves all architectures: from the second on, the first one's pins are preferred.
            target = ["--python-version", lock.python, "--python-platform", PLATFORMS[architecture], "--only-binary", ":all:", *links]
            target += ["--no-deps"] if lock.bare else []
            if lock.without:
                (work / "without.txt").write_text("\n".join(lock.without) + "\n")
                target += ["--excludes", str(work / "without.txt")]
            uv("pip", "compile", "-q", *target, str(work / "in.txt"), "-o", str(work / "pins.txt"))
            uv("pip", "compile", "-q", *target, "-c", str(work / "pins.txt"), str(work / "in.txt"), "-o", str(work / "pylock.toml"))
            for package in tomllib.loads((work / "pylock.toml").read_text())["packages"]:
                wheels = hashes.setdefault((package["name"], package["version"]), set())
                wheels.update(f"--hash=sha256:{wheel['hashes']['sha256']}" for wheel in package["wheels"])
        lines = {f"{name}=={version}": " ".join(sorted(found)) for (name, version), found in sorted(hashes.items())}
        sizes = measure(lines, lock, links, work)
    return text_of(lock, lines, sizes)


def text_of(lock: Lock, lines: Mapping[str, str], sizes: Mapping[str, int]) -> str:
    """Return the text of a lock from its pins with their hashes, and the bytes that each package takes."""
    head = [
        "# Made by tools/lock_envs.py; the number behind a line is the bytes it takes on disk.",
        f"# {lock.title}",
        *(WANTED + requirement for requirement in lock.requirements),
        *(WITHOUT + name for name in lock.without),
    ]
    return "\n".join([*head, *(f"{pin} {found} # {sizes[canonicalize_name(pin.split('==')[0])]}" for pin, found in lines.items())]) + "\n"


def measure(lines: Mapping[str, str], lock: Lock, links: Sequence[str], work: Path) -> dict[str, int]:
    """Install what was locked into a scratch folder and return the bytes each package takes."""
    (work / "lock.txt").write_text("\n".join(f"{pin} {hashes}" for pin, hashes in lines.items()) + "\n")
    target = work / "measured"
    uv(
        *("pip", "install", "-q", "--no-deps", "--require-hashes", "--target", str(target), "--python-version", lock.python),
        *("--python-platform", PLATFORMS[lock.architectures[0]], "--only-binary", ":all:", *links, "-r", str(work / "lock.txt")),
        UV_LINK_MODE="symlink",
    )
    return recorded_sizes(target)


def make_frozen(lock: Lock, frozen: Mapping[str, Any], upgrade: bool) -> str:
    """Return the text of a lock for the Python of an old release: what the last pip for it chooses in a root of that release."""
    if os.geteuid():
        raise SystemExit("A frozen environment is locked in a root file system of its old release, which only root can make.")
    tools = [line for line in lock.requirements if Requirement(line).name in _frozen_packages.TOOLS]
    text = make(Lock("", "", tuple(tools), "3.9", lock.architectures, lock.group, bare=True), "", upgrade=True)
    kept = pins(lock.path.read_text()) if lock.path.exists() and not upgrade else {}
    ranges = {canonicalize_name(requirement.name): requirement.specifier for requirement in map(Requirement, lock.requirements)}
    fitting = [f"{name}=={version}" for name, version in kept.items() if name not in ranges or version in ranges[name]]
    sources = _frozen_packages.Sources()
    with tempfile.TemporaryDirectory(prefix="trainyard-lock-") as folder:
        root = Path(folder) / "root"
        words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(frozen['packages'])}", frozen["suite"], str(root)]
        subprocess.run(words, check=True)
        for name in ("hosts", "resolv.conf"):
            (root / "etc" / name).unlink(missing_ok=True)
            (root / "etc" / name).touch()
        try:
            _frozen_packages.install(root, frozen["python"], text, sources)
            (root / "tmp" / "in.txt").write_text("\n".join(lock.requirements) + "\n")
            (root / "tmp" / "pins.txt").write_text("\n".join(fitting) + "\n")
            fetch = [frozen["python"], "-m", "pip", "download", "--quiet", "--no-cache-dir", "--prefer-binary", "--no-build-isolation"]
            fetch += ["--requirement", "/tmp/in.txt", "--constraint", "/tmp/pins.txt", "--dest", "/tmp/fetched"]
            _frozen_packages.run_inside(root, fetch, sources)
            lines = {}
            for file in sorted((root / "tmp" / "fetched").iterdir()):
                parse = parse_wheel_filename if file.suffix == ".whl" else parse_sdist_filename
                name, version = parse(file.name)[:2]
                lines[f"{name}=={version}"] = f"--hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
            _frozen_packages.install(root, frozen["python"], "\n".join(f"{pin} {digest}" for pin, digest in lines.items()), sources)
        except PythonEnvError as error:
            raise SystemExit(str(error)) from error
        (site,) = (root / "usr" / "local" / "lib").glob("python*/dist-packages")
        return text_of(lock, dict(sorted(lines.items())), recorded_sizes(site))


def recorded_sizes(site: Path) -> dict[str, int]:
    """Return the bytes that each package in a folder takes, by canonical name."""
    sizes: dict[str, int] = {}
    for record in site.glob("*.dist-info/RECORD"):
        name = canonicalize_name(record.parent.name.rsplit("-", 2)[0])
        with record.open(newline="") as rows:
            sizes[name] = sum(int(row[2]) for row in csv.reader(rows) if len(row) == 3 and row[2])
    return sizes


def make_own(upgrade: bool) -> None:
    """Renew requirements.lock."""
    uv(
        *("pip", "compile", "-q", "--universal", "--generate-hashes", "--no-annotate", "--custom-compile-command", "tools/lock_envs.py"),
        *("--python-version", "3.11", "--group", "test", "pyproject.toml", "-o", "requirements.lock"),
        *(["--upgrade"] if upgrade else []),
    )


def problems(locks: Sequence[Lock], groups: Sequence[str]) -> Iterator[str]:
    """Yield a line for everything that is wrong with the locks of these groups (all groups when there are none)."""
    for lock in locks:
        if not groups or lock.group in groups:
            for problem in check_lock(lock):
                yield f"{lock.path.relative_to(REPOSITORY)}: {problem}"
    if not groups:
        known = {lock.path for lock in locks}
        for path in sorted(LOCKS.glob("*.txt")):
            if path not in known:
                yield f"{path.relative_to(REPOSITORY)}: nothing in the catalogue asks for it"
    if not groups or "repository" in groups:
        text = OWN_LOCK.read_text() if OWN_LOCK.exists() else ""
        for problem in misfits(own_requirements(), text):
            yield f"{OWN_LOCK.relative_to(REPOSITORY)}: {problem}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit status."""
    parser = argparse.ArgumentParser(prog="tools/lock_envs.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "groups", nargs="*", metavar="ENVIRONMENT", help="environments of the catalogue, `cuda`, `installer`, `repository`; default: all"
    )
    parser.add_argument("--check", action="store_true", help="change nothing; say which locks do not fit, with exit status 1")
    parser.add_argument("--upgrade", action="store_true", help="renew every lock with the newest versions that fit")
    parser.add_argument(
        "--find-links", default=os.environ.get("PIP_FIND_LINKS", ""), help="folder or page with further wheels (PIP_FIND_LINKS)"
    )
    options = parser.parse_args(arguments)
    try:
        locks = wanted_locks({**yaml.safe_load(CATALOG.read_text()), **yaml.safe_load(CUDA_CATALOG.read_text())})
        known = {lock.group for lock in locks} | {"repository"}
        if unknown := sorted(set(options.groups) - known):
            parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        found = list(problems(locks, options.groups))
    except InvalidRequirement as error:
        raise SystemExit(f"{CATALOG.parent.relative_to(REPOSITORY)}: {error}") from error
    if options.check:
        print("\n".join(found) or "All locks fit.")
        return 1 if found else 0
    LOCKS.mkdir(parents=True, exist_ok=True)
    for lock in locks:
        if options.groups and lock.group not in options.groups:
            continue
        if options.upgrade or options.groups or check_lock(lock):
            print(f"locking {lock.title}", flush=True)
            text = make_frozen(lock, lock.frozen, options.upgrade) if lock.frozen else make(lock, options.find_links, options.upgrade)
            beside = lock.path.with_suffix(".new")
            beside.write_text(text)
            beside.replace(lock.path)
    if not options.groups:
        for path in set(LOCKS.glob("*.txt")) - {lock.path for lock in locks}:
            print(f"removing {path.relative_to(REPOSITORY)}")
            path.unlink()
    if "repository" in options.groups or (not options.groups and (options.upgrade or misfits(own_requirements(), OWN_LOCK.read_text()))):
        print("locking this repository's tools", flush=True)
        make_own(options.upgrade)
    return 0


if __name__ == "__main__":
    sys.exit(main())
