# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Whether a machine may be a node of a cluster: release, clock, disk, and whether another cluster has it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils._host import reported

CLOCK_SECONDS = 60
"""How far two clocks may be apart: munge refuses what is five minutes old, and certificates and logs want less."""
FREE_BYTES = 2 * 2**30
"""What Slurm, its logs and the base take with room to spare; what the frameworks take is checked by their own role."""


@dataclass(frozen=True)
class Machine:
    """A machine as it is.

    Attributes:
        os: distribution and version, such as ``debian 12``.
        architecture: of its processor.
        host: its own short host name.
        clock: its time, in seconds since 1970.
        free: path -> free bytes there.
        gpus: their names.
        slurm: the controller that its Slurm obeys; empty without one.
        munge: a fingerprint of its munge key; empty without one.
    """

    os: str
    architecture: str
    host: str
    clock: int
    free: Mapping[str, int]
    gpus: Sequence[str] = field(default_factory=tuple)
    slurm: str = ""
    munge: str = ""


def machine(result: Mapping[str, Any]) -> Machine:
    """Return the machine that the module admission_info reports; its texts are made printable.

    Raises:
        ValueError: something is missing or of another kind.
    """
    try:
        texts = {key: _line(result[key]) for key in ("os", "architecture", "host", "slurm", "munge")}
        free = {_line(path): int(count) for path, count in result["free"].items()}
        gpus = [_line(name) for name in result["gpus"]]
        return Machine(clock=int(result["clock"]), free=free, gpus=gpus, **texts)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it does not report its {error}") from error


def _line(text: object) -> str:
    """Return a text as one line without control characters."""
    return " ".join(reported.printable(text, 100).split())


def release(name: str, node: Machine, controller: Machine) -> list[str]:
    """Return the refusal of a machine with another system than the controller's."""
    if (node.os, node.architecture) == (controller.os, controller.architecture):
        return []
    return [
        f"{name} is {node.os} ({node.architecture}), and the cluster's controller {controller.os} ({controller.architecture}): their "
        f"Slurms would differ. Install {controller.os} on {name}."
    ]


def clock(name: str, node: Machine, controller: Machine) -> list[str]:
    """Return the refusal of a machine whose clock is off."""
    apart = node.clock - controller.clock
    if abs(apart) <= CLOCK_SECONDS:
        return []
    return [
        f"The clock of {name} is {abs(apart)} seconds {'ahead of' if apart > 0 else 'behind'} the controller's, and {CLOCK_SECONDS} are "
        "allowed. Have it ask a time server there (sudo systemctl restart chrony, or systemd-timesyncd), or set it by hand: sudo date "
        "--set=TIME"
    ]


def disk(name: str, node: Machine) -> list[str]:
    """Return the refusal of a machine without room."""
    full = [f"{path} ({free / 2**30:.1f} GiB free)" for path, free in node.free.items() if free < FREE_BYTES]
    if not full:
        return []
    return [f"The disk of {name} is full at {', '.join(full)}; {FREE_BYTES / 2**30:.0f} GiB are needed. Make room there."]


def other_cluster(name: str, node: Machine, controller: Machine) -> list[str]:
    """Return the refusal of a machine that is a node of another cluster."""
    if not node.slurm or node.munge == controller.munge:
        return []
    return [
        f"{name} is a node of another cluster: its Slurm obeys {node.slurm}, and its munge key is not the one of {controller.host}. "
        "Take it out there first (./trainyard remove-node NAME --undo, with that cluster's inventory). Where that cluster is no more, "
        f"remove what names it on {name}: /etc/slurm/slurm.conf, --conf-server in /etc/default/slurmd or "
        "/etc/systemd/system/slurmd.service.d."
    ]


def in_a_run(name: str, node: Machine, controller: Machine) -> list[str]:
    """Return one sentence for each reason why a run refuses a node before anything changes.

    A clock that is off is set by the run itself (role names_and_time). Room is asked of machines that have no Slurm yet: a node at work
    may be nearly full. A node of this controller gets its key again where either of them was installed anew.
    """
    found = release(name, node, controller)
    found += [] if node.slurm else disk(name, node)
    ours = node.slurm.partition(":")[0].partition(".")[0] == controller.host
    return found + ([] if ours else other_cluster(name, node, controller))
