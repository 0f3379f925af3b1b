# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Files that only root may read."""

from __future__ import annotations

import os

from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files

MODE = 0o600


def read(path: str) -> str:
    """Return the text of a file, or an empty string where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def is_private(path: str) -> bool:
    """Return whether a file belongs to this process's user and nobody else may read it; false where there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    return status.st_uid == os.geteuid() and status.st_mode & 0o7777 == MODE


def write(path: str, text: str) -> None:
    """Replace a file in one step; nobody else can read it at any moment, and an interruption leaves the old file or the new one.

    Folders above it that are missing are made with mode 0755.
    """
    folder, name = os.path.split(path)
    host_files.make_folders(folder)
    beside = os.path.join(folder, "." + name + ".new")  # always the same name: the next run replaces what a killed one left
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, MODE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, MODE)
        os.fchown(descriptor, os.geteuid(), os.getegid())
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    os.replace(beside, path)
