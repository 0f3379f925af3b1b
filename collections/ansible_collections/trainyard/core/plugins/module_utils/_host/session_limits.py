# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Limits on login sessions: systemd's drop-ins for the slices of users, and which slices have to be left alone for now."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

HEAD = "# Written by Trainyard (role session_limits)."
UNITS = "/etc/systemd/system"
RUNTIME = "/run/systemd/system"
EVERYBODY = f"{UNITS}/user-.slice.d/50-trainyard.conf"
UNLIMITED = "60-trainyard-unlimited.conf"
RUNNING = "70-trainyard-running.conf"
ADMIN_GROUPS = ("sudo", "admin", "wheel")
CONTROLLERS = ("memory", "pids", "cpu")
NONE = 2**62
"""What counts as no limit: cgroups' version 1 writes the greatest multiple of a page, version 2 ``max``."""
CLOSE = 0.9
"""A session that holds more than this part of a limit could reach it while the limit is being set."""

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_MEMORY = re.compile(r"([0-9]+)([KMGT%]?)\Z")


@dataclass(frozen=True)
class Usage:
    """What the sessions of a user hold, and what binds them so far.

    Attributes:
        memory: bytes that the kernel cannot take back, so without what it only caches.
        tasks: processes and threads.
        memory_limit: bytes; `NONE` or more for no limit.
        tasks_limit: likewise.
    """

    memory: int
    tasks: int
    memory_limit: int
    tasks_limit: int


@dataclass(frozen=True)
class Limits:
    """Limits on all sessions of a user together; ``memory`` as systemd writes it, such as ``16G``, ``50%`` or ``infinity``."""

    memory: str
    tasks: int
    cpu_weight: int

    def bytes(self, total: int) -> int:
        """Return the limit on memory in bytes, on a machine with so many bytes of it."""
        match = _MEMORY.match(self.memory)
        if not match:
            return NONE
        number, unit = int(match.group(1)), match.group(2)
        return total * number // 100 if unit == "%" else number * _UNITS[unit]


def problems(memory: str, tasks: int, cpu_weight: int) -> list[str]:
    """Return one sentence for each variable of the role that no session could live with, or that systemd would not take."""
    role, found = "session_limits", []
    match = _MEMORY.match(memory)
    number, unit = (int(match.group(1)), match.group(2)) if match else (0, "")
    if memory != "infinity" and not match:
        found.append(
            f"{role}_memory: '{memory}' is not an amount of memory. Use bytes such as 16G, a share of the node's such as 50%, or infinity."
        )
    elif unit == "%" and not 5 <= number <= 100:
        found.append(f"{role}_memory: '{memory}' is not between 5% and 100%.")
    elif match and unit != "%" and Limits(memory, 0, 0).bytes(0) < 256 * 2**20:
        found.append(f"{role}_memory: '{memory}' is too little to log in and work with. Use 256M or more.")
    if tasks < 128:
        found.append(f"{role}_tasks: {tasks} processes are too few to log in and work with. Use 128 or more.")
    if not 1 <= cpu_weight <= 10000:
        found.append(f"{role}_cpu_weight: {cpu_weight} is not between 1 and 10000.")
    return found


def limited(limits: Limits) -> str:
    """Return the drop-in for the slices of all users."""
    swap = "infinity" if limits.memory == "infinity" else "0"
    return (
        f"{HEAD} For all sessions of a user together; root and admins have none.\n"
        "# Who reaches the limit of memory must not go on in the swap space, which would slow the machine down for all.\n"
        f"[Slice]\nMemoryMax={limits.memory}\nMemorySwapMax={swap}\nTasksMax={limits.tasks}\nCPUWeight={limits.cpu_weight}\n"
    )


def unlimited(name: str) -> str:
    """Return the drop-in for root or an admin."""
    return (
        f"{HEAD} {name} administers this machine.\n[Slice]\nMemoryMax=infinity\nMemorySwapMax=infinity\nTasksMax=infinity\nCPUWeight=100\n"
    )


def running(usage: Usage) -> str:
    """Return the drop-in that leaves a slice with the limits that it has."""
    memory = "infinity" if usage.memory_limit >= NONE else str(usage.memory_limit)
    tasks = "infinity" if usage.tasks_limit >= NONE else str(usage.tasks_limit)
    note = "What runs holds more than the limit, which would end some of it."
    return f"{HEAD} {note}\n[Slice]\nMemoryMax={memory}\nMemorySwapMax=infinity\nTasksMax={tasks}\n"


def over(usage: Usage, limits: Limits, total: int) -> list[str]:
    """Return which limits would hit what runs now, in words.

    A limit that is in force already is not in doubt: who fills it up does not get rid of it.
    """
    found, memory = [], limits.bytes(total)
    if usage.memory_limit > memory and usage.memory > memory * CLOSE:
        found.append(f"{usage.memory / 2**30:.1f} GiB of memory (limit {memory / 2**30:.1f})")
    if usage.tasks_limit > limits.tasks and usage.tasks > limits.tasks * CLOSE:
        found.append(f"{usage.tasks} processes (limit {limits.tasks})")
    return found


def trusted(rules: str) -> tuple[list[str], list[str]]:
    """Return the users and the groups that sudo lets run everything as root.

    Args:
        rules: what ``cvtsudoers -f json -e`` prints; '' where there is no sudo.
    """
    try:
        specs: Iterable[Mapping[str, Any]] = json.loads(rules).get("User_Specs", []) if rules.strip() else []
    except ValueError:
        return [], []
    users, groups = [], []
    for spec in specs:
        if any(_everything(one) for one in spec.get("Cmnd_Specs", [])):
            who = [one for one in spec.get("User_List", []) if not one.get("negated")]
            users += [str(one["username"]) for one in who if one.get("username", "ALL") != "ALL"]
            groups += [str(one["usergroup"]) for one in who if "usergroup" in one]
    return users, groups


def _everything(spec: Mapping[str, Any]) -> bool:
    as_root = not spec.get("runasusers") or any(who.get("username") in {"ALL", "root"} for who in spec["runasusers"])
    return as_root and any(command.get("command") == "ALL" and not command.get("negated") for command in spec.get("Commands", []))


def wanted(limits: Limits | None, uids: Mapping[str, int], left: Mapping[int, Usage]) -> dict[str, str]:
    """Return the files that are to be there: path -> text.

    Args:
        limits: None to have none.
        uids: the accounts without limits, by name.
        left: the slices that keep the limits that they have, by user ID.
    """
    if limits is None:
        return {}
    files = {f"{RUNTIME}/user-{uid}.slice.d/{RUNNING}": running(usage) for uid, usage in left.items()}
    files.update({f"{UNITS}/user-{uid}.slice.d/{UNLIMITED}": unlimited(name) for name, uid in uids.items()})
    files[EVERYBODY] = limited(limits)
    return files


def parse_slices(text: str) -> dict[int, Mapping[str, str]]:
    """Read what ``systemctl show 'user-*.slice'`` prints: properties by user ID."""
    found: dict[int, Mapping[str, str]] = {}
    for block in text.split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
        match = re.match(r"user-([0-9]+)\.slice\Z", values.get("Id", ""))
        if match:
            found[int(match.group(1))] = values
    return found


def stale(slices: Mapping[int, Mapping[str, str]], files: Collection[str]) -> bool:
    """Say whether systemd knows other drop-ins of ours than there are; where no user is logged in, nobody knows."""
    for uid, values in slices.items():
        mine = {EVERYBODY, f"{UNITS}/user-{uid}.slice.d/{UNLIMITED}", f"{RUNTIME}/user-{uid}.slice.d/{RUNNING}"}
        if values.get("NeedDaemonReload") == "yes" or mine & set(values.get("DropInPaths", "").split()) != mine & set(files):
            return True
    return not slices


def held(stat: str, swapped: str = "") -> int:
    """Return how many bytes of a cgroup the kernel cannot take back, from its ``memory.stat`` in either version."""
    values = {key: int(value) for key, _space, value in (line.partition(" ") for line in stat.splitlines()) if value.isdigit()}
    if "total_rss" in values:
        return values["total_rss"] + values.get("total_shmem", 0) + values.get("total_swap", 0)
    parts = ("anon", "shmem", "slab_unreclaimable", "kernel_stack", "pagetables")
    return sum(values.get(part, 0) for part in parts) + (int(swapped) if swapped.strip().isdigit() else 0)


def limit(text: str) -> int:
    """Read a limit of a cgroup; no number is none."""
    return int(text) if text.strip().isdigit() else NONE
