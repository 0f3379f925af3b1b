# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Text of others on somebody's terminal: nothing in it moves the cursor, sets a title or hides what is there."""

from __future__ import annotations

import re
import unicodedata

UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of characters that act instead of being seen: control, format (such as the direction of writing), half pairs, separators."""
ALLOWED = re.compile(r"\x1b\[[0-9;:]{0,64}m|[\t\r\n]")
"""What a log may have on top: colours, tabs, and carriage returns for bars that grow."""


def printable(words: str) -> str:
    """Return words in which what cannot be seen is written as an escape, such as ``\\x1b``."""
    return "".join(_escape(letter) if unicodedata.category(letter) in UNSEEN else letter for letter in words)


def log(words: str) -> str:
    """Return a log's words for the terminal of whoever follows it: colours, tabs and ends of lines stay as they are."""
    shown, end = [], 0
    for allowed in ALLOWED.finditer(words):
        shown += [printable(words[end : allowed.start()]), allowed[0]]
        end = allowed.end()
    return "".join([*shown, printable(words[end:])])


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
