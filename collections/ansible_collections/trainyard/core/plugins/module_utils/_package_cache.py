# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Who may use the cache of packages: a block in ``/etc/hosts.allow``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DAEMON = "apt-cacher-ng"
BEGIN = "# BEGIN Trainyard (role package_cache)"
END = "# END Trainyard (role package_cache)"


def renewed(text: str, nodes: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the file's text with a block that lets these nodes ask the daemon, and nobody else.

    The block is first in the file, since the first line that fits counts. It names this one daemon. Others, such as sshd, go on as ever.

    Args:
        text: the file as it is.
        nodes: name in the inventory -> ``address``, and whether it was ``seen``. One that this run has not seen keeps the address that an
            earlier run wrote. Without nodes the block goes.
    """
    inside, others = _split(text)
    before = {line.removeprefix("# "): inside[at + 1] for at, line in enumerate(inside[:-1]) if line.startswith("# ")}
    lines = []
    for name, node in nodes.items():
        if node["address"] and (node["seen"] or name not in before):
            lines += [f"# {name}", f"{DAEMON}: {_written(str(node['address']))} : ALLOW"]
        elif name in before:
            lines += [f"# {name}", before[name]]
    block = [BEGIN, *lines, f"{DAEMON}: ALL : DENY", END] if nodes else []
    return "".join(f"{line}\n" for line in [*block, *others])


def _written(address: str) -> str:
    """Return an address as ``hosts_access`` has it."""
    return f"[{address}]" if ":" in address else address


def _split(text: str) -> tuple[list[str], list[str]]:
    """Return the block's lines, and all others; of a block whose end is lost only what begins it is taken."""
    lines = text.splitlines()
    if BEGIN not in lines:
        return [], lines
    first = lines.index(BEGIN)
    if END not in lines[first:]:
        return [], lines[:first] + lines[first + 1 :]
    last = lines.index(END, first)
    return lines[first + 1 : last], lines[:first] + lines[last + 1 :]
