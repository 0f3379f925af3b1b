# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Whether the nodes have an environment, found out before anything is shipped."""

from __future__ import annotations

import difflib
from pathlib import Path

from . import asked
from .errors import RefusedError


def environments(folder: str | Path) -> list[str]:
    """Return the names of the environments on this node."""
    return sorted(path.name for path in Path(folder).glob("[!.]*") if (path / "bin" / "python").exists())


def show(folder: str) -> int:
    """Print the environments of this node, for :func:`check` on another one."""
    for name in environments(folder):
        print(f"{asked.MARK}{name}")
    return 0


def check(name: str, folder: Path, run: Path, queue: str) -> None:
    """Check the name of an environment that somebody typed: one that is not on this machine has to be on a node.

    Where no node is free to answer, the job finds out when it starts.

    Args:
        name: the environment.
        folder: where the environments lie.
        run: the script through which Slurm starts the parts on the nodes.
        queue: where the job goes; '' where it runs in the present allocation.

    Raises:
        RefusedError: neither this machine nor the node that answers has it.
    """
    if name in environments(folder):
        return
    there = asked.a_node(run, queue, ["environments"])
    if there and name not in there:
        near = difflib.get_close_matches(name, there, 1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise RefusedError(f"--environment: the nodes have no environment '{name}'.{hint} They have: {', '.join(there)}.")
