# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Patterns in gitignore's syntax. Pure: text in, decisions out. Nodes have no library for it that is the same on all releases."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """One pattern.

    Attributes:
        matches: what a whole path, relative to the folder of the patterns, has to be.
        keeps: whether it begins with ``!``: what it matches is not left out.
        folders_only: whether it ends with ``/``.
    """

    matches: re.Pattern[str]
    keeps: bool
    folders_only: bool


def rules(text: str) -> list[Rule]:
    """Read patterns, one in a line, as git does."""
    found = []
    for line in text.splitlines():
        pattern = re.sub(r"(?<!\\)((?:\\\\)*) +$", r"\1", line)
        if not pattern or pattern.startswith("#"):
            continue
        keeps = pattern.startswith("!")
        pattern = pattern[keeps:]
        folders_only = pattern.endswith("/")
        pattern = pattern.removesuffix("/")
        expression = _expression(pattern)
        if pattern and expression is not None:
            with contextlib.suppress(re.error):  # a range that runs backwards matches nothing
                found.append(Rule(re.compile(expression, re.DOTALL), keeps, folders_only))
    return found


def left_out(path: str, folder: bool, among: Sequence[Rule]) -> bool | None:
    """Whether a path is left out; None where no pattern matches. The last pattern that matches counts.

    What lies in a folder that is left out is left out as well; that is up to whoever walks through the folders.
    """
    last = next((rule for rule in reversed(among) if (folder or not rule.folders_only) and rule.matches.fullmatch(path)), None)
    return not last.keeps if last else None


def _expression(pattern: str) -> str | None:
    """Return a pattern as a regular expression; None where it matches nothing."""
    words = "" if "/" in pattern else "(?:.*/)?"
    rest = pattern.removeprefix("/")
    start = True  # of a part of the path
    while rest:
        if start and (whole := re.match(r"\*\*(/+|$)", rest)):
            words += "(?:.*/)?" if whole[1] else ".+"
            rest = rest[whole.end() :]
            continue
        letter, rest = rest[0], rest[1:]
        start = letter == "/"
        if letter == "*":
            rest = rest.lstrip("*")
            words += "[^/]*"
        elif letter == "?":
            words += "[^/]"
        elif letter == "[":
            choice = re.match(r"([!^]?)((?:\\.|[^\\])(?:\\.|[^\]\\])*)\]", rest)
            if not choice:
                return None
            letters = "".join(part if part == "-" else re.escape(part[-1]) for part in re.findall(r"\\.|.", choice[2], re.DOTALL))
            words += f"(?!/)[{'^' if choice[1] else ''}{letters}]"
            rest = rest[choice.end() :]
        elif letter == "\\":
            if not rest:
                return None
            words += re.escape(rest[0])
            rest = rest[1:]
        else:
            words += re.escape(letter)
    return words
