# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Files that are replaced in one step."""

from __future__ import annotations

import os


def write(path: str, text: str, mode: int) -> None:
    """Replace a file in one step; after a power cut the old one or the new one is there, and never a part.

    Folders above it that are missing are made with mode 0755.
    """
    folder, name = os.path.split(path)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    beside = os.path.join(folder, f".{name}.trainyard")  # always the same name: the next run replaces what a killed one left
    with open(beside, "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
