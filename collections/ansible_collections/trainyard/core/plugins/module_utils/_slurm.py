# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""What Slurm says of its nodes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# scontrol adds who gave the reason and when.
_REASON = re.compile(r" Reason=(?P<text>.*?)(?: \[[^\[\]]*@[^\[\]]*\])?(?: Comment=.*| Extra=.*)?$")


@dataclass(frozen=True)
class Node:
    """A node as Slurm's controller knows it.

    Attributes:
        name: its name in Slurm.
        host: its host name.
        flags: the parts of its state, such as ``{"IDLE", "DRAIN"}``.
        reason: why it is drained or down; empty without one.
    """

    name: str
    host: str
    flags: frozenset[str]
    reason: str

    @property
    def drains(self) -> bool:
        """Whether no new job may start there."""
        return bool(self.flags & {"DRAIN", "DRAINING", "DRAINED"})


# Debian's defaults for slurmd, and a unit's drop-in, hand the controller's name on as an argument.
_CONTROLLER = re.compile(r"^(?:SlurmctldHost=(?P<named>[^( ]*)|[^#\n].*--conf-server[ =](?P<asked>[^\" \n]*))", re.MULTILINE)


def controller_of(texts: Iterable[str]) -> str:
    """Return the controller that the first of some files of Slurm's configuration names; empty where none does."""
    found = next((match for match in map(_CONTROLLER.search, texts) if match), None)
    return (found["named"] or found["asked"] or "") if found else ""


def unheard(text: str) -> str:
    """Return why the controller does not hear a node, such as ``State=IDLE+NOT_RESPONDING``; empty where it does.

    Args:
        text: what ``scontrol --oneliner show node NAME`` printed.
    """
    state = re.search(r" State=(\S+)", text)
    if not state:
        return "Slurm has no such node"
    silent = state[1].endswith("*") or re.search(r"\*\+|(^|\+)(UNKNOWN|NOT_RESPONDING)\b", state[1])
    return f"State={state[1]}" if silent else ""


def parse_nodes(text: str) -> list[Node]:
    """Read ``scontrol --oneliner show nodes``."""
    found = []
    for line in text.splitlines():
        words = dict(word.partition("=")[::2] for word in line.split())
        if not words.get("NodeName"):
            continue
        reason = _REASON.search(line.rstrip())
        found.append(
            Node(
                name=words["NodeName"],
                host=words.get("NodeHostName", words["NodeName"]),
                flags=frozenset(re.split(r"[+*~#!%$@^-]", words.get("State", ""))) - {""},
                reason=reason["text"].strip() if reason else "",
            )
        )
    return found


def parse_associations(text: str) -> tuple[set[str], set[str]]:
    """Read ``sacctmgr --noheader --parsable2 show associations format=account,user``: the accounts, and the users."""
    pairs = [line.partition("|") for line in text.splitlines() if "|" in line]
    return {account for account, _bar, _user in pairs}, {user for _account, _bar, user in pairs if user}
