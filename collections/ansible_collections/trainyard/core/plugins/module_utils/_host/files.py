# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Files that are replaced in one step, and folders; their modes are the same under any umask.

sudo may set a umask of 027 or 077. What is made here would then be closed to the services and users that it is for.
"""

from __future__ import annotations

import os
from pathlib import Path


def make_folders(path: str | Path, mode: int = 0o755) -> None:
    """Create a folder with a mode, and those above it that are missing with mode 0755; one that exists stays as it is."""
    path = str(path)
    if not path or os.path.isdir(path):
        return
    make_folders(os.path.dirname(path))
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if os.path.isdir(path):  # another run was faster
            return
        raise
    os.chmod(path, mode)


def write(path: str | Path, text: str, mode: int) -> None:
    """Replace a file in one step; after a power cut the old one or the new one is there, and never a part.

    Folders above it that are missing are made with mode 0755.
    """
    folder, name = os.path.split(path)
    make_folders(folder)
    beside = os.path.join(folder, f".{name}.trainyard")  # always the same name: the next run replaces what a killed one left
    with open(beside, "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
