# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What of a folder is shipped to the nodes: found and described first, packed afterwards."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import folders, ignored

IGNORE_FILE = ".trainyardignore"
NOISE = [".git/", ".git", "__pycache__/", ".ipynb_checkpoints/", ".venv/"]
"""Never worth a word: history, caches and environments of the submitter's own machine."""
DEFAULTS = [
    *("venv/", ".tox/", ".nox/", "node_modules/", ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".cache/", ".DS_Store"),
    *("/wandb/", "/mlruns/", "/lightning_logs/", "/outputs/", "/multirun/", "/checkpoints/"),
]
"""What else stays at home unless `IGNORE_FILE` says otherwise. Results only at the top: further down the same name may be a package."""
LARGE = 10**9
"""Bytes from which on the largest folders are named."""
NAMED = 3
"""Folders, links and the like that are named in a line."""
PERIOD = 0.2
"""Seconds between two signs of progress."""


@dataclass(frozen=True)
class Part:
    """What of a folder is shipped.

    Attributes:
        name: ``workspace`` or ``thirdparty``.
        source: the folder.
        members: paths below it, folders before what they hold.
        files: how many of them are no folders.
        size: bytes of the files.
        folders: size of each folder at the top.
        left_out: paths that the defaults leave out.
        links: path -> where it leads, of links that lead out of the folder.
        elsewhere: path -> link that takes its place, of a folder that is shipped by itself.
        print: differs wherever something that is shipped does.
    """

    name: str
    source: Path
    members: tuple[str, ...]
    files: int
    size: int
    folders: Counter[str]
    left_out: tuple[str, ...]
    links: dict[str, str]
    elsewhere: dict[str, str]
    print: str

    def lines(self) -> list[str]:
        """Describe it to whoever ships it."""
        most = [f"{name}/ {amount(size)}" for name, size in self.folders.most_common(NAMED) if size] if self.size >= LARGE else []
        where = f": {', '.join(most)}" if most else ""
        found = [f"Ships {self.source}: {self.files} file{'s' * (self.files != 1)}, {amount(self.size)}{where}"]
        if self.left_out:
            found.append(f"Left out: {_some(self.left_out)}. To ship one, write !{self.left_out[0]} into {self.source / IGNORE_FILE}.")
        if self.links:
            leads = _some([f"{path} -> {target}" for path, target in self.links.items()])
            found.append(f"Links that lead out of it: {leads}. Each node needs what they lead to, at the same path.")
        return found


def scan(name: str, source: Path, results: Callable[[Path], bool], other: tuple[str, Path] | None = None) -> Part:
    """Find what of a folder is shipped.

    Args:
        name: ``workspace`` or ``thirdparty``.
        source: the folder.
        results: whether a folder holds results of jobs or sweeps, which are never shipped.
        other: name and folder of what is shipped as well: each node has both next to each other, so one that lies in the other is linked.

    Raises:
        NotOwnError: something that is to be shipped is neither the user's nor root's, or others may write there.
        OSError: something cannot be read.
    """
    folders.check_way(source)
    try:
        own = (source / IGNORE_FILE).read_text(errors="surrogateescape")
    except FileNotFoundError:
        own = ""
    # What somebody named as the third-party folder is shipped, except for caches.
    usual = DEFAULTS if name == "workspace" else []
    said, rules = ignored.rules("\n".join([*NOISE, own])), ignored.rules("\n".join([*NOISE, *usual, own]))
    members, files, size, left_out, links = ["."], 0, 0, [], {}
    tops: Counter[str] = Counter()
    elsewhere: dict[str, str] = {}
    digest = hashlib.sha256()
    _trusted(source, source.stat())
    stack = [""]
    while stack:
        inside = stack.pop()
        below = []
        for entry in sorted(os.scandir(source / inside), key=lambda entry: entry.name):
            path = f"{inside}{entry.name}"
            found = entry.stat(follow_symlinks=False)
            folder, link = stat.S_ISDIR(found.st_mode), stat.S_ISLNK(found.st_mode)
            if not (folder or link or stat.S_ISREG(found.st_mode)) or (folder and results(source / path)):
                continue
            if other and folder and source / path == other[1]:
                elsewhere[path] = os.path.relpath(other[0], f"{name}/{inside}")
                members.append(path)
                digest.update(repr((path, elsewhere[path])).encode())
                continue
            decision = ignored.left_out(path, folder, rules)
            if decision is None and folder and usual and (source / path / "pyvenv.cfg").is_file():
                decision = True
            if decision:
                if not ignored.left_out(path, folder, said):
                    left_out.append(f"{path}{'/' * folder}")
                continue
            members.append(path)
            digest.update(repr((path, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)).encode())
            if link:
                target = leads(source, path)
                if target.startswith("/"):
                    links[path] = target
            else:
                _trusted(source / path, found)
            if folder:
                below.append(f"{path}/")
            else:
                files += 1
                bytes_of = 0 if link else found.st_size
                size += bytes_of
                if "/" in path:
                    tops[path.partition("/")[0]] += bytes_of
        stack += reversed(below)
    return Part(name, source, tuple(members), files, size, tops, tuple(left_out), links, elsewhere, digest.hexdigest())


def leads(source: Path, path: str) -> str:
    """Return what a link is shipped as: relative where it leads to something in the folder, absolute where it leads out of it."""
    link = source / path
    target = os.path.normpath(link.parent / link.readlink())
    return os.path.relpath(target, link.parent) if Path(target).is_relative_to(source) else target


def pack(part: Part, target: Path, show: Callable[[int], None]) -> None:
    """Put what is shipped into a new archive that only its owner reads.

    Args:
        part: found by :func:`scan`.
        target: the archive.
        show: called with the number of bytes that are packed.

    Raises:
        NotOwnError: something became somebody else's meanwhile.
        OSError: something is gone, or there is no room.
    """
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
        for path in part.members:
            if path in part.elsewhere:
                link = tarfile.TarInfo(f"./{path}")
                link.type, link.linkname, link.mode = tarfile.SYMTYPE, part.elsewhere[path], 0o777
                archive.addfile(link)
                continue
            archive.add(part.source / path, arcname=f"./{path}" if path != "." else ".", recursive=False, filter=_kept(part.source, path))
            show(archive.offset)


def _kept(source: Path, path: str) -> Callable[[tarfile.TarInfo], tarfile.TarInfo]:
    def keep(member: tarfile.TarInfo) -> tarfile.TarInfo:
        if member.issym():
            member.linkname = leads(source, path)
        elif why := folders.problem(member.uid, member.gid, member.mode, root=True):
            raise folders.refusal(source / path, member.uid, member.gid, member.mode, why)
        return member

    return keep


def _trusted(path: Path, found: os.stat_result) -> None:
    """Check that a script, a hook or a module is nobody else's: it runs in the user's name."""
    if why := folders.problem(found.st_uid, found.st_gid, found.st_mode, root=True):
        raise folders.refusal(path, found.st_uid, found.st_gid, found.st_mode, why)


class Progress:
    """How much is packed, on a terminal; nothing elsewhere.

    Args:
        total: bytes that are to be packed.
    """

    def __init__(self, total: int) -> None:
        self.total, self.before, self.shown = total, 0, False
        self.next = time.monotonic() + PERIOD

    def show(self, count: int) -> None:
        """Take note of the bytes of the present archive."""
        if time.monotonic() >= self.next and sys.stderr.isatty():
            self.next = time.monotonic() + PERIOD
            packed = min(self.before + count, self.total)
            print(
                f"\rPacked {amount(packed)} of {amount(self.total)} ({100 * packed // max(1, self.total)} %) ",
                end="",
                file=sys.stderr,
                flush=True,
            )
            self.shown = True

    def end(self) -> None:
        """Clear the line."""
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def amount(size: int) -> str:
    """Return bytes as people read them, such as 5.4 GB."""
    count, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if count < 1000:
            break
        count, unit = count / 1000, larger
    return f"{count:.3g} {unit}" if count < 999.5 or unit == "TB" else f"{count:.0f} {unit}"


def _some(words: Sequence[str]) -> str:
    more = len(words) - NAMED
    return ", ".join(words[:NAMED]) + (f" and {more} more" if more > 0 else "")
