#!/usr/bin/python3
"""Keeps a folder of apt-cacher-ng within a size, and its file system from filling up. Written by Trainyard (role package_cache).

apt-cacher-ng has no limit of its own: whoever may ask it can have it fetch more than the disk holds. Every few seconds this looks at what
there is, and removes what was used longest ago. A file that is removed while it is fetched or sent takes up space until the daemon
closes it. Where such files hold much, the daemon is ended, and systemd starts it again. So the folder holds at most its size, and what
arrives between two looks.

usage: package-cache-guard FOLDER MAX_SIZE MIN_FREE
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PAUSE = 2.0  # seconds between two looks
AT_LEAST = 60.0  # seconds after which it looks although nothing on the file system seems to have changed
NOTICED = 1024 * 1024  # bytes
TARGET = 0.9  # part of the size that is left after something had to go
ENTRY = 16 * 1024  # what a file counts at least, as many bytes as file systems have for each inode: small files would use these up
UNITS = {"M": 1024**2, "G": 1024**3, "T": 1024**4}
DAEMON = "apt-cacher-ng"


def size(text: str) -> int:
    """Return a size such as 20G in bytes."""
    return int(text[:-1]) * UNITS[text[-1]]


@dataclass
class Entry:
    """A package with what the daemon wrote down about it.

    Attributes:
        used: when it was last read or written, seconds.
        size: bytes on disk.
        paths: its files.
    """

    used: float
    size: int
    paths: list[Path]


def entries(folder: Path) -> list[Entry]:
    """Return what the folder has, what was used longest ago first."""
    found: dict[str, Entry] = {}
    for path in folder.rglob("*"):
        with suppress(OSError):  # gone meanwhile
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                continue
            entry = found.setdefault(str(path).removesuffix(".head"), Entry(0.0, 0, []))
            entry.used = max(entry.used, status.st_mtime, status.st_atime)
            entry.size += max(status.st_blocks * 512, ENTRY)
            entry.paths.append(path)
    return sorted(found.values(), key=lambda entry: entry.used)


def daemons(name: str = DAEMON) -> Iterator[int]:
    """Yield the process IDs of this account's processes of a name."""
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if each.stat().st_uid == os.getuid() and (each / "comm").read_text().strip() == name:
                yield int(each.name)


def held(folder: Path, pid: int) -> int:
    """Return how many bytes of removed files of the folder a process still holds."""
    total = 0
    with suppress(OSError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                target = str(path.readlink())
                if target.startswith(f"{folder}/") and target.endswith(" (deleted)"):
                    total += path.stat().st_blocks * 512
    return total


def free(folder: Path) -> int:
    """Return how many bytes of the file system are left for ordinary accounts."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def remove(entry: Entry) -> int:
    """Remove an entry and return how many bytes it had."""
    for path in entry.paths:
        with suppress(OSError):
            path.unlink()
    return entry.size


def look(folder: Path, most: int, least_free: int) -> int:
    """Remove what is too much, end a daemon that holds too much of what was removed, and return how many bytes went."""
    there = entries(folder)
    used = sum(entry.size for entry in there)
    ghosts = {pid: held(folder, pid) for pid in daemons()}
    excess = 0
    if used + sum(ghosts.values()) > most:
        excess = used + sum(ghosts.values()) - int(most * TARGET)
    excess = max(excess, least_free - free(folder))
    gone = 0
    for entry in there:
        if gone >= excess:
            break
        gone += remove(entry)
    if gone:
        print(f"removed {gone >> 20} MiB of {used >> 20}", flush=True)
    for pid in ghosts:
        ghost = held(folder, pid)
        if ghost > most * (1 - TARGET):
            print(f"ended {DAEMON}, which held {ghost >> 20} MiB of removed files", flush=True)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    return gone


def main(folder: Path, most: int, least_free: int) -> None:
    """Look for ever."""
    before, then = 0, float("-inf")
    while True:
        now = free(folder)
        if abs(now - before) >= NOTICED or time.monotonic() - then >= AT_LEAST:
            look(folder, most, least_free)
            before, then = free(folder), time.monotonic()
        time.sleep(PAUSE)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), size(sys.argv[2]), size(sys.argv[3]))
