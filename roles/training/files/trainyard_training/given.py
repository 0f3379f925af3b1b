# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a node gives back goes into the job's folder: results alone, and nothing that leads out of it.

A node that gives is one of the job's, and may still be somebody else's by now. It must not reach what runs when the job starts again, other
nodes' logs, or anything outside of the folder.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePath

from .job import CHECKPOINTS, OUTPUTS

TENSORBOARD = "tensorboard"


def accept(given: Path, folder: Path, *, first: bool) -> int:
    """Move results out of a folder that was just unpacked into the job's folder, and return how many things stay behind.

    Args:
        given: a new folder on the job's file system; nobody else writes there.
        folder: the job's.
        first: whether it comes from the job's first node, whose workspace counts.
    """
    left = 0
    for place, below, files in os.walk(given):
        inside = Path(place).relative_to(given)
        for name in [name for name in below if Path(place, name).is_symlink()]:
            below.remove(name)
            files.append(name)
        for name in list(below):
            if not (_wanted(inside / name, first) and _made(folder / inside / name)):
                below.remove(name)
                left += 1
        left += sum(not _moved(Path(place, name), folder / inside / name, inside / name) for name in files)
    return left


def _wanted(path: PurePath, first: bool) -> bool:
    return path.parts[0] in {CHECKPOINTS, TENSORBOARD, *([OUTPUTS] if first else [])}


def _made(target: Path) -> bool:
    """Make a folder where there is none, and return whether there is one now; a symbolic link is none."""
    try:
        target.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return False
    return stat.S_ISDIR(target.lstat().st_mode)


def _moved(source: Path, target: Path, inside: PurePath) -> bool:
    """Move a file, or a link to something beside or below it, and return whether that was done."""
    mode = source.lstat().st_mode
    if len(inside.parts) < 2:
        return False
    if stat.S_ISLNK(mode):
        leads = source.readlink()
        if leads.is_absolute() or ".." in leads.parts:
            return False
    elif not stat.S_ISREG(mode):
        return False
    else:
        source.chmod(mode & 0o700)
    try:
        source.replace(target)
    except OSError:  # there is a folder of that name
        return False
    return True
