# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Folders that root makes for others, without following what others have put in the way."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager


class FolderError(Exception):
    """Root must not work on a folder; the message says which one and why."""


def who_else(path: str, root: int = 0) -> str:
    """Return the first folder on the way to ``path`` in which others than root could replace what leads there; '' where there is none.

    The way is followed through root's own links. What does not exist yet is in nobody's way. ``path`` itself may belong to anybody.

    Args:
        path: an absolute path.
        root: the number of the user whose folders can be relied upon; another one serves tests.
    """
    place, rest, links = "/", _parts(path), 0
    while rest:
        name = rest.pop(0)
        if name == "..":
            place = os.path.dirname(place)
            continue
        folder = os.stat(place)
        try:
            entry = os.lstat(os.path.join(place, name))
        except FileNotFoundError:
            entry = None
        open_to_others = bool(folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
        sticky = bool(folder.st_mode & stat.S_ISVTX)
        if folder.st_uid not in {0, root} or (open_to_others and not (sticky and entry and entry.st_uid in {0, root})):
            return place
        if entry is None:
            return ""
        if stat.S_ISLNK(entry.st_mode):
            links += 1
            if links > 40:
                raise FolderError(f"{path} leads through links in a circle")
            target = os.readlink(os.path.join(place, name))
            place = "/" if os.path.isabs(target) else place
            rest = _parts(target) + rest
            continue
        place = os.path.join(place, name)
    return ""


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in {"", "."}]


@contextmanager
def opened(path: str) -> Iterator[int]:
    """Give a descriptor of a folder, which is no link.

    Raises:
        FolderError: it is a link or no folder.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise FolderError(f"{path} is a link or a file, not a folder") from None
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def give_content(descriptor: int, user: int, group: int) -> None:
    """Give all that is in a folder to a user; no link is followed. Who could enter meanwhile could put something else in the way."""
    for _path, folders, files, folder in os.fwalk(".", dir_fd=descriptor, follow_symlinks=False):
        for name in [*folders, *files]:
            os.chown(name, user, group, dir_fd=folder, follow_symlinks=False)
