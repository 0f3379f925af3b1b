# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What the tools make is readable by its owner alone; what runs in a job has the umask that its submitter has."""

from __future__ import annotations

import os

VARIABLE = "TRAINYARD_UMASK"


def private() -> None:
    """Make files of this process private, and remember the umask for what it runs, here and on the nodes."""
    before = os.umask(0o077)
    os.environ.setdefault(VARIABLE, f"{before:03o}")


def users() -> int:
    """Return the submitter's umask; a private one where Slurm did not bring it along."""
    words = os.environ.get(VARIABLE, "")
    return int(words, 8) & 0o777 if words.isdecimal() and not set(words) - set("01234567") else 0o077
