# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""The locale of logins, in Debian's /etc/default/locale: set where nobody has set one."""

from __future__ import annotations

import re
from collections.abc import Iterable

MARK = "# Set by Trainyard (role base) where no locale was: "
OURS = re.compile(rf"^{re.escape(MARK)}(?P<line>LANG=.*)\n(?P=line)(\n|\Z)", re.MULTILINE)  # a value that somebody changed is theirs
SETS = re.compile(r"""^[ \t]*(export[ \t]+)?(LANG|LC_ALL)=["']?[^\s"'#]""", re.MULTILINE)


def renewed(text: str, others: Iterable[str], locale: str) -> str:
    """Return the file's new text.

    Args:
        text: the file as it is.
        others: texts of further files that may set a locale.
        locale: such as ``C.UTF-8``; '' takes ours away.
    """
    theirs = OURS.sub("", text)
    if not locale or any(SETS.search(each) for each in (theirs, *others)):
        return theirs
    if theirs and not theirs.endswith("\n"):
        theirs += "\n"
    return f"{theirs}{MARK}LANG={locale}\nLANG={locale}\n"
