"""The errors that commands raise on purpose."""

from __future__ import annotations


class TrainyardError(Exception):
    """Something the user can mend: the message says what happened and what to do, and is shown without a traceback."""


class UsageError(TrainyardError):
    """Words on the command line that mean nothing; the message names the nearest known ones."""
