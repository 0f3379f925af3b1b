# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""The file by which a user's SSH keys let in. Everything here runs with that user's rights."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from typing import Any

BLOB = re.compile(r"(?:^|\s)(?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+\s+([A-Za-z0-9+/]{20,}={0,3})(?:\s|$)")
LARGEST = 2**20  # bytes


def blob(line: str) -> str:
    """Return the part of a line that is the key itself, or the whole line where none is found."""
    found = BLOB.search(line)
    return found.group(1) if found else line.strip()


def merged(text: str, keys: Iterable[str]) -> str:
    """Return an ``authorized_keys`` file that holds these lines too; a line with the same key and other options or comment is replaced."""
    lines = text.splitlines()
    for key in keys:
        wanted = key.strip()
        places = [number for number, line in enumerate(lines) if not line.lstrip().startswith("#") and blob(line) == blob(wanted)]
        if not places:
            lines.append(wanted)
            continue
        lines[places[0]] = wanted
        lines = [line for number, line in enumerate(lines) if number not in places[1:]]
    return "".join(line + "\n" for line in lines)


def read(path: str) -> str:
    """Return the text of a file, an empty one where there is none. A FIFO in its place is not waited for.

    Raises:
        OSError: it cannot be read, is no regular file, or is too large.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    with open(descriptor, encoding="utf-8", errors="surrogateescape") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
            raise OSError(f"{path} is no regular file of a sensible size")
        return file.read()


def chmod_own(path: str, mode: int) -> None:
    """Set the permissions of what the user has; a folder of somebody else stays as it is, and sshd judges it."""
    if os.stat(path).st_uid == os.geteuid() and stat.S_IMODE(os.stat(path).st_mode) != mode:
        os.chmod(path, mode)


def ensure(home: str, keys: Iterable[str], look: bool) -> dict[str, Any]:
    """Have these lines in a user's ``authorized_keys``, and return whether it ``changed``, and the text ``before`` and ``after``.

    Args:
        home: the user's home.
        keys: lines.
        look: change nothing.

    Raises:
        OSError: the file cannot be read or written.
    """
    folder = os.path.join(home, ".ssh")
    path = os.path.join(folder, "authorized_keys")
    before = read(path)
    after = merged(before, keys)
    if after == before or look:
        return {"changed": after != before, "before": before, "after": after}
    if not os.path.isdir(folder):
        os.mkdir(folder, 0o700)
    chmod_own(folder, 0o700)
    beside = os.path.join(folder, ".authorized_keys.trainyard")
    if os.path.lexists(beside):
        os.unlink(beside)  # an interrupted run left it
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(after)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    return {"changed": True, "before": before, "after": after}
