# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""The file of sudo that makes admins: pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable

PATH = "/etc/sudoers.d/trainyard"
HEAD = "# Written by Trainyard (base_users, admin: true); changes are lost.\n"
_LINE = re.compile(r'"([A-Za-z0-9_.-]+)" ALL=\(ALL:ALL\) NOPASSWD: ALL\Z')


def text(names: Iterable[str]) -> str:
    """Return the file for these admins; '' for none. In quotes, a name in capitals is not taken for an alias."""
    lines = [f'"{name}" ALL=(ALL:ALL) NOPASSWD: ALL\n' for name in dict.fromkeys(names)]
    return HEAD + "".join(lines) if lines else ""


def names(content: str) -> list[str]:
    """Return the admins that a file of ours makes."""
    return [match.group(1) for match in map(_LINE.match, content.splitlines()) if match]
