# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Whether a folder or a file may be trusted: it belongs to the user, and nobody else can change it.

What a job's or a sweep's folder says is executed as the user. Names such as ``sweep-train`` and ``train-1`` are easy to guess, and in /tmp
or in a folder of a group anybody may have made them first. So every folder is checked here after it was opened, and every file in it that
decides what runs.
"""

from __future__ import annotations

import contextlib
import functools
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from .errors import NOT_OWN, NOT_SEEN, RefusedError

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""No symbolic link, and no waiting where the name leads to a pipe."""


class NotOwnError(RefusedError):
    """A folder or a file is somebody else's, or others may write there."""

    def __init__(self, message: str) -> None:
        super().__init__(message, NOT_OWN)


def problem(uid: int, gid: int, mode: int, *, root: bool = False) -> str:
    """Return why something of an owner, group and mode cannot be trusted; '' where it can.

    Args:
        uid: number of the owner.
        gid: number of the group.
        mode: type and permissions.
        root: whether it may be root's as well, such as the installed samples.
    """
    if uid != os.geteuid() and not (root and uid == 0):
        return f"it belongs to {_user(uid)}"
    if mode & stat.S_IWOTH:
        return "everybody may write there"
    if mode & stat.S_IWGRP and not _private(uid, gid):
        return f"the group {_group(gid)} may write there"
    return ""


def refusal(path: Path, uid: int, gid: int, mode: int, why: str) -> NotOwnError:
    """Return the error for something that cannot be trusted: what it is, whose, and what to do."""
    own = uid == os.geteuid()
    remedy = f"If that is your own work: chmod -R go-w {path}" if own else "Copy what you need into a folder of your own, and work there."
    return NotOwnError(
        f"{path} is not used, since {why}: others could decide what runs in your name. "
        f"Its owner is {_user(uid)}, its group {_group(gid)}, its mode {stat.S_IMODE(mode):04o}. {remedy}"
    )


def check(path: Path, *, root: bool = False) -> None:
    """Check a folder or a file.

    Raises:
        NotOwnError: it is somebody else's, others may write there, or it is a symbolic link.
        OSError: it is not there.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise NotOwnError(f"{path} is not used, since it is a symbolic link. Name the place that it leads to.")
    _checked(path, found, root=root)


def check_way(path: Path) -> None:
    """Check that not everybody can put something else in a folder's place.

    Folders of a group are trusted as far as their users work in them; without the sticky bit, its members can rename what lies there.

    Raises:
        NotOwnError: everybody can.
    """
    for folder in Path(os.path.realpath(path)).parents:
        try:
            mode = folder.stat().st_mode
        except FileNotFoundError:
            continue  # whoever needs it says so
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise NotOwnError(
                f"{path} is not used, since everybody may rename what is in {folder} (mode {stat.S_IMODE(mode):04o}): others could decide "
                f"what runs in your name. Work elsewhere, or have its owner run: chmod +t {folder}"
            )


@contextlib.contextmanager
def opened(path: Path, *, root: bool = False) -> Iterator[Path]:
    """Open a folder that can be trusted, and yield a path that leads there, even when others rename what is above it.

    The path holds for this process and for those that it starts, until the context ends.

    Raises:
        NotOwnError: it cannot be trusted.
        RefusedError: it is not there.
    """
    try:
        check_way(path)
        descriptor = os.open(path, FOLDER)
    except FileNotFoundError as error:
        raise RefusedError(f"There is no folder {path} on {os.uname().nodename}.", NOT_SEEN) from error
    except NotADirectoryError as error:
        raise NotOwnError(f"{path} is not used, since it is a symbolic link or a file. Remove it, or work elsewhere.") from error
    except OSError as error:
        raise NotOwnError(f"{path} is not used, since it cannot be read: {error.strerror}. Remove it, or work elsewhere.") from error
    try:
        _checked(path, os.fstat(descriptor), root=root)
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)


def read(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        NotOwnError: it cannot be trusted.
        OSError: it is not there or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | FILE)
    except OSError as error:
        raise _link(path, error) from None
    with open(descriptor, "rb") as file:
        _checked(path, os.fstat(descriptor))
        return file.read()


def write(path: Path, *, append: bool = False) -> int:
    """Open a file for writing, and return its descriptor; one that is there already has to be the user's own.

    Raises:
        NotOwnError: it cannot be trusted.
        OSError: it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | FILE | (os.O_APPEND if append else 0), 0o666)
    except OSError as error:
        raise _link(path, error) from None
    try:
        _checked(path, os.fstat(descriptor))
        os.set_blocking(descriptor, True)  # whoever inherits it does not expect anything else
        if not append:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _checked(path: Path, found: os.stat_result, *, root: bool = False) -> None:
    why = problem(found.st_uid, found.st_gid, found.st_mode, root=root)
    if not why and not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        why = "it is neither a file nor a folder"
    if why:
        raise refusal(path, found.st_uid, found.st_gid, found.st_mode, why)


def _link(path: Path, error: OSError) -> OSError | NotOwnError:
    """Return what to raise where a file could not be opened."""
    return NotOwnError(f"{path} is not used, since it is a symbolic link. Remove it.") if path.is_symlink() else error


@functools.lru_cache(maxsize=64)
def _private(uid: int, gid: int) -> bool:
    """Whether a group is the one that a user has to herself, as Debian makes them."""
    try:
        owner, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    return owner.pw_gid == gid and group.gr_name == owner.pw_name and set(group.gr_mem) <= {owner.pw_name}


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
