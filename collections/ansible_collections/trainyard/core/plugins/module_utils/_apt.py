# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Debian packages: what is installed, which locks are held, what an interrupted dpkg left behind."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence

LOCKS = (
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/apt/lists/lock",
    "/var/cache/apt/archives/lock",
)
"""Every lock that apt or dpkg takes; apt's own waiting covers the first one only."""

# dpkg's name for a package: no upper case, no option, no version.
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?\Z")

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
