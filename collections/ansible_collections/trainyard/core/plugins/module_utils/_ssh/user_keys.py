# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""The file by which a user's SSH keys let in. Everything here runs with that user's rights."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from typing import Any

BLOB = re.compile(r"(?:^|\s)(?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+\s+([A-Za-z0-9+/]{20,}={0,3})(?:\s|$)")
LARGEST = 2**20  # bytes


def blob(line: str) -> str:
    """Return the part of a line that is the key itself, or the whole line where none is found."""
    found = BLOB.search(line)
    return found.group(1) if found else line.strip()


def merged(text: str, keys: Sequence[str], exclusive: bool = False) -> str:
    """Return an ``authorized_keys`` file that holds these lines too, or no other key than these where that is asked for.

    A line with the same key and other options or comment is replaced.
    """
    lines = text.splitlines()
    if exclusive:
        listed = {blob(key) for key in keys}
        lines = [line for line in lines if not line.strip() or line.lstrip().startswith("#") or blob(line) in listed]
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


def ensure(home: str, keys: Sequence[str], look: bool, exclusive: bool = False) -> dict[str, Any]:
    """Have these lines in a user's ``authorized_keys``, and return whether it ``changed``, and the text ``before`` and ``after``.

    Args:
        home: the user's home.
        keys: lines.
        look: change nothing.
        exclusive: remove every other key, in ``authorized_keys2`` too, which sshd reads as well.

    Raises:
        OSError: the file cannot be read or written.
    """
    folder = os.path.join(home, ".ssh")
    path, second = (os.path.join(folder, name) for name in ("authorized_keys", "authorized_keys2"))
    texts = {path: (read(path), merged(read(path), keys, exclusive))}
    if exclusive:
        texts[second] = (read(second), merged(read(second), [], exclusive))
    changes = {name: text for name, (before, text) in texts.items() if text != before}
    if changes and not look:
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o700)
        chmod_own(folder, 0o700)
        for name, text in changes.items():
            replace(name, text)
    before, after = ("".join(both[which] for both in texts.values()) for which in (0, 1))
    return {"changed": bool(changes), "before": before, "after": after}


def replace(path: str, text: str) -> None:
    """Replace a file of the user's in one step."""
    beside = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.trainyard")
    if os.path.lexists(beside):
        os.unlink(beside)  # an interrupted run left it
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
