# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Why a trainer failed, in one sentence: from its exit status, its last words and its memory limit."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from pathlib import Path

from .text import printable

LONGEST = 400
"""Letters of a trainer's last words that are passed on."""
ECHO = re.compile(
    r"(?i)\b(connection (reset|closed|refused|aborted)|broken pipe|socket|peer|gloo|nccl|tcpstore|barrier|unavailable|timed? ?out|"
    r"deadline|heartbeat|coordination service)"
)
"""What trainers say when another one has gone: they did not fail first."""


def last_words(said: str) -> str:
    """Return the exception that ended a program, or else the last line that it printed; '' where it printed nothing.

    Args:
        said: the end of what it printed.
    """
    lines = [line.rpartition("\r")[2].rstrip() for line in said.splitlines()]
    begins = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    for start in reversed(begins):
        # The exception stands behind the frames, which are indented.
        found = next((line for line in lines[start + 1 :] if line and not line[0].isspace()), "")
        if found:
            return printable(found[:LONGEST])
    return printable(next((line.strip() for line in reversed(lines) if line.strip()), "")[:LONGEST])


def described(name: str, status: int, said: str, limit: int | None = None) -> str:
    """Say how a process failed.

    Args:
        name: of the process, such as ``rank 3``.
        status: as `subprocess` has it: below zero for a signal.
        said: the end of what it printed.
        limit: bytes of memory that it might have; None for no limit that is known.
    """
    if status == -signal.SIGKILL:
        return f"{name} was killed, probably out of memory{f' (limit {amount(limit)})' if limit else ''}"
    how = f"has crashed ({_signal(-status)})" if status < 0 else f"has ended with status {status}"
    words = last_words(said)
    return f"{name} {how}{f': {words}' if words else ''}"


def is_echo(why: str) -> bool:
    """Whether a failure sounds like that of a trainer that misses another one."""
    return bool(ECHO.search(why))


def amount(count: int) -> str:
    """Return bytes as people read them, such as ``1.5 GB``."""
    size = float(count)
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"
        size /= 1000
    raise AssertionError


def memory_limit(environment: Mapping[str, str], root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that a job's processes on this node may have; None where nothing says so.

    Args:
        environment: Slurm's variables.
        root: of the file system.
    """
    limits = []
    try:
        place = (root / "proc/self/cgroup").read_text().partition("::")[2].strip().lstrip("/")
        for folder in [Path(place), *Path(place).parents]:
            found = root / "sys/fs/cgroup" / folder / "memory.max"
            if found.is_file() and (words := found.read_text().strip()).isdigit():
                limits.append(int(words))
    except OSError:
        pass  # no cgroups of version 2
    if environment.get("SLURM_MEM_PER_NODE", "0").isdigit():
        limits.append(int(environment.get("SLURM_MEM_PER_NODE", "0")) << 20)
    each, cores = environment.get("SLURM_MEM_PER_CPU", "0"), environment.get("SLURM_CPUS_ON_NODE", "0")
    if each.isdigit() and cores.isdigit():
        limits.append(int(each) * int(cores) << 20)
    return min(filter(None, limits), default=None)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
