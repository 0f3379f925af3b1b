# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""The modes of users' homes: new ones get the lab's, older ones are reported where they are more open."""

from __future__ import annotations

import json
import os
import pwd
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass

MODE = re.compile(r"0?7[015][015]\Z")
"""The owner may do everything; nobody else may write, or sshd would refuse the keys in it."""
OCTAL = re.compile(r"0?[0-7]{3}\Z")


@dataclass(frozen=True)
class Home:
    """A user's home.

    Attributes:
        user: the user's name.
        path: of the home.
        mode: its permissions.
    """

    user: str
    path: str
    mode: int


def mode_problem(mode: str) -> str:
    """Say why ``base_home_mode`` cannot be the mode of homes; '' when it can."""
    if OCTAL.match(mode) and MODE.match(mode):
        return ""
    if OCTAL.match(mode) and mode[-3] == "7":
        return f"base_home_mode: {mode!r} would let others write into homes; allowed are modes such as '0700', '0750' and '0755'."
    return f"base_home_mode: {mode!r} is not a mode for homes. Write it in quotes, in octal: '0700', '0750' or '0755'."


def place(user: str) -> str:
    """Return where a user's home is, or will be where there is no such account yet."""
    try:
        return pwd.getpwnam(user).pw_dir
    except KeyError:
        return f"/home/{user}"


def found(users: Sequence[str]) -> tuple[list[Home], list[str]]:
    """Return the homes that are there, and the users who have none yet."""
    homes, missing = [], []
    for user in users:
        path = place(user)
        try:
            homes.append(Home(user, path, stat.S_IMODE(os.stat(path).st_mode)))
        except FileNotFoundError:
            missing.append(user)
        except OSError:
            continue  # on a file server that does not answer
    return homes, missing


def too_open(homes: Sequence[Home], mode: int) -> list[Home]:
    """Return the homes that let others do more than a mode does."""
    return [home for home in homes if home.mode & 0o077 & ~mode]


def remark(homes: Sequence[Home], mode: str) -> str:
    """Say which homes are more open than the mode; '' where none is."""
    if not homes:
        return ""
    which = ", ".join(f"{home.path} of {home.user} ({home.mode:04o})" for home in homes)
    return (
        f"base_home_mode is {mode}, and these homes are more open: {which}. They stay as they are. "
        f"To close one, its owner or root runs: chmod {mode} {homes[0].path}"
    )


def close(home: Home, mode: int) -> None:
    """Give a new home its mode.

    Raises:
        OSError: it is not a folder.
    """
    descriptor = os.open(home.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def noted(text: str) -> list[str]:
    """Read the note of users whose homes are yet to come."""
    try:
        users = json.loads(text or "[]")
    except ValueError:
        return []
    return [str(user) for user in users] if isinstance(users, list) else []
