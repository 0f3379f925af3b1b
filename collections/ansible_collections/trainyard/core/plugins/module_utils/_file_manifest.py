# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Whether any file in a folder has changed, without reading the files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path


def manifest(root: Path, leave_out: Callable[[str], bool]) -> str:
    """Return a digest of a folder's files: their paths, kinds, sizes and times.

    Args:
        root: the folder.
        leave_out: says of a path below it, such as /bin/x, whether it is not looked at.
    """
    digest = hashlib.sha256()
    cut = len(str(root))
    for folder, names, files in os.walk(root):
        names.sort()
        for name in sorted(files):
            path = f"{folder}/{name}"
            if leave_out(path[cut:]):
                continue
            state = os.lstat(path)
            line = f"{path[cut:]}\0{state.st_mode}\0{state.st_size}\0{state.st_mtime_ns}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
