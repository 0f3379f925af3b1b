# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a script writes beside itself, as nearly all public code does: new and changed files of the workspace are kept among the results."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST = 10 * 1000**3
"""Bytes that a job keeps of what its script writes into the workspace."""
SHARE = 0.9
"""Of the free room on the disk, what may be filled with it."""
NAMED = 100
"""Files that a node names to the job's host."""
CODE = {".py", ".pyc", ".so", ".sh", ".pth"}
"""Endings of files that may run by being there."""
CACHES = {"__pycache__", ".ipynb_checkpoints"}

State = dict[str, tuple[int, int]]
"""Path below the workspace -> size in bytes and time of the last change in nanoseconds."""


@dataclass
class Kept:
    """What became of new and changed files.

    Attributes:
        files: paths of those that lie among the results.
        size: bytes of them all.
        left: paths of those that do not.
    """

    files: list[str] = field(default_factory=list)
    size: int = 0
    left: list[str] = field(default_factory=list)


def state(workspace: Path) -> State:
    """Return what is in a workspace."""
    return {path: (found.st_size, found.st_mtime_ns) for path, found in _files(workspace)}


def changed(workspace: Path, before: State) -> list[str]:
    """Return the paths of files that are new or changed, the smallest first."""
    now = state(workspace)
    return sorted((path for path in now if now[path] != before.get(path)), key=lambda path: (now[path][0], path))


def keep(workspace: Path, before: State, target: Path, most: int = MOST) -> Kept:
    """Copy new and changed files to a folder that lasts; each is there whole, or as it was before.

    Args:
        workspace: where the script runs.
        before: what was there before it ran.
        target: the folder for them; made where there is something to keep.
        most: bytes for all of them.
    """
    kept = Kept()
    paths = changed(workspace, before)
    if not paths:
        return kept
    target.mkdir(mode=0o700, exist_ok=True)
    room = min(most, int(shutil.disk_usage(target).free * SHARE) + sum(found.st_size for _path, found in _files(target)))
    for path in paths:
        size = _copied(workspace / path, target / path, room - kept.size)
        if size is None:
            kept.left.append(path)
        else:
            kept.files.append(path)
            kept.size += size
    return kept


def listed(workspace: Path, before: State) -> Kept:
    """Return new and changed files of a node that keeps none."""
    return Kept(left=changed(workspace, before))


def told(kept: Kept) -> dict[str, Any]:
    """Return a message about it: a number of names stand for all."""
    return {
        "files": kept.files[-NAMED:],
        "size": kept.size,
        "count": len(kept.files),
        "left": kept.left[-NAMED:],
        "left_count": len(kept.left),
    }


def restore(kept: Path, workspace: Path) -> None:
    """Put what an earlier start of the job kept back into its workspace.

    Code is left out: a node that gave it may be somebody else's by now, and it would run on others in the submitter's name.

    Raises:
        OSError: there is no room for it.
    """
    for path, _found in _files(kept):
        if Path(path).suffix not in CODE and _copied(kept / path, workspace / path, None) is None:
            raise OSError(f"{path} could not be put back into the workspace")


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    for place, below, names in os.walk(folder):
        below[:] = [name for name in below if name not in CACHES]
        for name in names:
            path = Path(place, name)
            with contextlib.suppress(OSError):  # it has gone meanwhile
                found = path.lstat()
                if stat.S_ISREG(found.st_mode):
                    yield str(path.relative_to(folder)), found


def _copied(source: Path, target: Path, room: int | None) -> int | None:
    """Copy a file unless it is there already as it is, and return its size; None where it is not there afterwards."""
    beside = target.with_name(f".{target.name[:200]}.part")
    try:
        found = source.stat()
        if room is not None and found.st_size > room:
            return None
        with contextlib.suppress(FileNotFoundError):
            there = target.lstat()
            if stat.S_ISREG(there.st_mode) and (there.st_size, there.st_mtime_ns) == (found.st_size, found.st_mtime_ns):
                return found.st_size
        for folder in reversed([folder for folder in target.parents if not folder.exists()]):
            folder.mkdir(mode=0o700)
        shutil.copyfile(source, beside, follow_symlinks=False)
        now = source.stat()
        if (now.st_size, now.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
            beside.unlink()  # it is being written
            return None
        beside.chmod(found.st_mode & 0o700)
        os.utime(beside, ns=(found.st_atime_ns, found.st_mtime_ns))
        beside.replace(target)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        return None
    return found.st_size
