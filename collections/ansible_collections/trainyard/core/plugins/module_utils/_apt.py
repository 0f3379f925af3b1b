# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Debian packages: what is installed, which locks are held, what an interrupted dpkg left behind."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

LOCKS = (
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/apt/lists/lock",
    "/var/cache/apt/archives/lock",
)
"""Every lock that apt or dpkg takes; apt's own waiting covers the first one only."""

# dpkg's name for a package: no upper case, no option, no version.
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?\Z")

# How apt says that two sources of one repository trust different keys.
_CLASH = re.compile(r"Conflicting values set for option Signed-By regarding source (?P<url>\S+)")

# How apt and dpkg say that somebody else holds a lock.
_LOCKED = re.compile(r"Could not get lock|Unable to (acquire|lock)|is another process using it|lock-frontend was locked", re.IGNORECASE)


def invalid_names(names: Iterable[str]) -> list[str]:
    """Return those names that cannot be a Debian package's."""
    return [name for name in names if not _NAME.match(name)]


def parse_status(listing: str) -> dict[str, str]:
    """Read ``dpkg-query -W -f '${binary:Package}\\t${db:Status-Abbrev}\\t${Provides}\\n'``: package -> three status letters.

    A package is listed by its plain name and, where dpkg adds one, its name with the architecture.
    """
    found: dict[str, str] = {}
    for line in listing.splitlines():
        name, _tab, status = line.partition("\t")
        if status:
            found[name] = status[:3]
            found.setdefault(name.partition(":")[0], status[:3])
    return found


def is_installed(status: str) -> bool:
    """Whether dpkg's status letters mean unpacked, configured and not broken."""
    return len(status) >= 2 and status[1] == "i" and (len(status) < 3 or status[2] in " ")


def half_done(status: dict[str, str]) -> list[str]:
    """Return the packages that an interrupted dpkg left unpacked, half configured or waiting for triggers, sorted."""
    return sorted(
        {name.partition(":")[0] for name, letters in status.items() if letters[1:2] in {"U", "F", "H", "W", "t"} or letters[2:3] == "R"}
    )


def interrupted(updates: str = "/var/lib/dpkg/updates") -> bool:
    """Whether dpkg was stopped before it wrote down its last steps (apt refuses to work then)."""
    try:
        return any(name.isdigit() for name in os.listdir(updates))
    except FileNotFoundError:
        return False


def advice(output: str) -> str:
    """Return what to do where apt's own words do not say it, as a sentence; '' where they do."""
    clash = _CLASH.search(output)
    if not clash:
        return ""
    url = clash["url"].rstrip("/")
    cure = (
        "apply the play that brings the driver (ansible-playbook playbooks/gpu.yml), which sets the other ones aside"
        if "nvidia" in url
        else "remove all but one of them"
    )
    return (
        f"Several files name {url} with different keys, and apt answers nobody until that ends. See which: grep -rl {url} /etc/apt; {cure}."
    )


def says_locked(output: str) -> bool:
    """Whether the output of apt or dpkg means that another process holds a lock."""
    return bool(_LOCKED.search(output))


def wait_for_locks(
    timeout: float,
    locks: Sequence[str] = LOCKS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Wait up to ``timeout`` seconds until nobody holds any of the locks; return the held one's path, or '' when all are free."""
    deadline = clock() + timeout
    while True:
        held = next((lock for lock in locks if _is_held(lock)), "")
        if not held or clock() >= deadline:
            return held
        sleep(1.0)


def _is_held(path: str) -> bool:
    try:
        with open(path, "r+b") as file:
            # apt and dpkg use record locks (fcntl), which lockf asks for; taken and let go at once.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(file, fcntl.LOCK_UN)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


# --- what needs what --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Package:
    """An installed package, as far as it matters for what can go without it.

    Attributes:
        source: the source package that it was built from.
        provides: names that it also answers to.
        depends: what it needs, one set of alternatives for each need.
    """

    source: str
    provides: frozenset[str]
    depends: frozenset[frozenset[str]]


PACKAGE_FORMAT = "${Package}\\t${db:Status-Abbrev}\\t${source:Package}\\t${Provides}\\t${Pre-Depends}, ${Depends}\\n"
"""For ``dpkg-query --showformat``, to be read by `parse_packages`."""


def _names(words: str) -> frozenset[str]:
    """Return the plain names in one need or in a list of provided names: without versions, architectures and restrictions."""
    return frozenset(filter(None, (re.split(r"[\s:(\[]", word.strip(), maxsplit=1)[0] for word in re.split(r"[|,]", words))))


def parse_packages(listing: str) -> dict[str, Package]:
    """Read what dpkg-query prints with `PACKAGE_FORMAT`: the installed packages by plain name, several architectures taken as one."""
    found: dict[str, Package] = {}
    for line in listing.splitlines():
        name, status, source, provides, depends = (line.split("\t") + [""] * 5)[:5]
        if status[1:2] not in {"i", "U", "F", "H", "W", "t"}:
            continue
        needs = frozenset(filter(None, map(_names, depends.split(","))))
        other = found.get(name, Package(source, frozenset(), frozenset()))
        found[name] = Package(source or name, other.provides | _names(provides), other.depends | needs)
    return found


def of_the_same_source(packages: Mapping[str, Package], names: Iterable[str]) -> set[str]:
    """Return the installed packages that were built from the same source packages as some others."""
    sources = {packages[name].source for name in names if name in packages}
    return {name for name, package in packages.items() if package.source in sources}


def removable(packages: Mapping[str, Package], candidates: Iterable[str], careful: bool = False) -> set[str]:
    """Return those candidates that can go without breaking what stays: every package that is no candidate stays.

    Args:
        packages: what is installed.
        candidates: names of packages nobody asked for by themselves.
        careful: keep also what is one of several alternatives for somebody, whether or not another one is there. Versions are not
            looked at, so that the other one may be too old.
    """
    gone = set(candidates) & set(packages)
    while True:
        there = set(packages) - gone
        answers = there.union(*(packages[name].provides for name in there)) if there else set()
        needed: set[str] = set()
        for name in there:
            for need in packages[name].depends:
                if careful or not need & answers:
                    needed |= {one for one in gone if one in need or packages[one].provides & need}
        if not needed:
            return gone
        gone -= needed


def parse_simulation(output: str) -> tuple[list[str], list[str]]:
    """Read ``apt-get --simulate``: the packages that it would install or upgrade, and those that it would remove."""
    installed = re.findall(r"^Inst (\S+) (?!\[)", output, re.MULTILINE)  # a version in brackets is the one that is there already
    return installed, re.findall(r"^(?:Remv|Purg) (\S+)", output, re.MULTILINE)


def parse_offers(output: str) -> dict[str, tuple[str, list[str]]]:
    """Read ``apt-cache policy``: package -> the version that would be installed, empty for none, and all that are known, newest first."""
    found: dict[str, tuple[str, list[str]]] = {}
    for block in re.split(r"\n(?=\S)", output):
        name = block.partition(":\n")[0].strip()
        candidate = re.search(r"^  Candidate: (?!\(none\))(\S+)", block, re.MULTILINE)
        versions = re.findall(r"^ (?:\*\*\*|   ) (\S+) -?\d+$", block, re.MULTILINE)
        if name:
            found[name] = (candidate.group(1) if candidate else "", versions)
    return found


def parse_candidates(output: str) -> set[str]:
    """Read ``apt-cache policy``: the packages that could be installed."""
    return set(re.findall(r"^(\S+):\n(?:  .*\n)??  Candidate: (?!\(none\))", output, re.MULTILINE))
