# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""How a job ended, why, and whether it begins again; in result.json and in words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import job
from .errors import LOST, NOT_KEPT, STOPPED
from .failure import amount
from .meeting import Host

STARTS = 3
"""Times that a job is started when its nodes lose each other; Slurm does not count nodes that it has given up itself."""
SLURM_SAYS = re.compile(
    r"\*\*\* (?:JOB|STEP) .*CANCELLED AT \S+?(?: DUE TO ([^*]*?))? \*\*\*"
    r"|(exceeded (?:job |step |virtual )?memory limit|oom[-_ ]kill|out of memory)",
    re.IGNORECASE,
)
"""Slurm's last words on a job: why it was ended, or that memory was short."""
WELL, FAILED, CANCELLED, TIME_LIMIT, MEMORY, LOST_NODES = "", "failed", "cancelled", "time limit", "out of memory", "lost"
BACK = {"preempted": "preemption", "requeued": "requeue", "node failed": "node failure"}
"""Reason -> Slurm's word for it; such a job goes back into the queue by itself."""
STATES = {"TIMEOUT": TIME_LIMIT, "PREEMPTED": "preempted", "NODE_FAIL": "node failed", "OUT_OF_MEMORY": MEMORY, "CANCELLED": CANCELLED}
"""Slurm's states of a job -> reason."""
NAMED = 5
"""Files that are named in words; all that are known stand in result.json."""


@dataclass(frozen=True)
class Ending:
    """A job's end.

    Attributes:
        status: exit status.
        reason: in a word or two; '' where it ended well.
        problem: in a sentence; '' where it ended well.
        again: whether the job begins again.
        by_slurm: whether Slurm sees to that itself.
    """

    status: int
    reason: str = WELL
    problem: str = ""
    again: bool = False
    by_slurm: bool = False


def judge(host: Host, agents: int | None, heard: Sequence[str], state: str, starts: int, *, here: bool) -> Ending:
    """Judge how a job ended.

    Args:
        host: of its meeting, which is over.
        agents: exit status of srun.
        heard: what Slurm's programs said of it.
        state: the job's, as the controller has it now; '' where that is not known.
        starts: how often it was started.
        here: whether somebody waits for it in an allocation of his own; it does not begin again then.
    """
    whole = len(host.results) == len(host.names) and not any(result.status for result in host.results.values())
    said = next((reason for words in heard if (reason := _heard(words))), "")
    reason = STATES.get(state, "") or said
    if reason in BACK and not here:
        return Ending(STOPPED, reason, {"preempted": "a job of a higher priority takes its nodes"}.get(reason, reason), True, True)
    if whole:
        missing = [host.names[rank] for rank in range(len(host.names)) if rank not in host.goodbyes or host.goodbyes[rank].given]
        if missing and not host.stopped:
            return Ending(NOT_KEPT, FAILED, f"what {', '.join(missing)} kept could not be given back")
    elif host.failed and not host.stopped:
        status = next(result.status for result in host.results.values() if result.status)
        return Ending(status, FAILED, host.failed)
    if reason == TIME_LIMIT:
        return Ending(STOPPED, reason, "it reached its time limit")
    if reason == MEMORY:
        return Ending(next((result.status for result in host.results.values() if result.status), 1), reason, "out of memory")
    if reason == CANCELLED or host.stopped:
        return Ending(STOPPED, CANCELLED, "cancelled" if reason == CANCELLED or not host.stopped else host.stopped)
    if whole:
        return Ending(0)
    if host.problem:
        return Ending(LOST, LOST_NODES, host.problem, again=starts < STARTS and not here and state in {"RUNNING", ""})
    return Ending(agents or 1, FAILED, f"the nodes' agents ended with status {agents}")


def _heard(words: str) -> str:
    found = SLURM_SAYS.search(words)
    if not found:
        return ""
    if found[2]:
        return MEMORY
    due = (found[1] or "").lower()
    back = next((reason for reason, word in BACK.items() if word in due), "")
    return back or (TIME_LIMIT if "time limit" in due else CANCELLED)


def told(end: Ending, host: Host, number: str, starts: int, seconds: float) -> dict[str, Any]:
    """Return what stands in result.json."""
    nodes = {host.names[rank]: bye for rank, bye in sorted(host.goodbyes.items())}
    first = host.goodbyes.get(0)
    kept = set(first.files) if first else set()
    left = {name: sorted(set(bye.left) - kept) for name, bye in nodes.items()}
    unnamed = {name: bye.left_count - len(bye.left) for name, bye in nodes.items()}
    return {
        "job": number,
        "nodes": host.names,
        "statuses": {host.names[rank]: result.status for rank, result in sorted(host.results.items())},
        "status": end.status,
        "reason": end.reason,
        "problem": end.problem,
        "starts": starts,
        "seconds": seconds,
        "outputs": {"files": first.count, "bytes": first.size, "named": first.files} if first else {},
        "left": {name: {"files": len(files) + unnamed[name], "named": files} for name, files in left.items() if files},
    }


def block(told: Mapping[str, Any], folder: Path) -> list[str]:
    """Return the lines that say how a job ended.

    Args:
        told: as in result.json.
        folder: the job's, as its submitter knows it.
    """
    number, reason = told["job"], told["reason"]
    how = {WELL: "has ended well", CANCELLED: "was ended", TIME_LIMIT: "was ended", **dict.fromkeys(BACK, "was interrupted")}
    problem = told["problem"]
    lines = [f"Job {number} {how.get(reason, 'has failed')}: {problem or folder}"]
    node = next((name for name in told["nodes"] if problem.startswith(f"{name}: ")), "")
    if reason:
        lines.append(f"  all that was printed: {folder / job.LOGS}/{f'{node}.log' if node else ''}")
    outputs = told.get("outputs") or {}
    if outputs.get("files"):
        kept = f"{_named(outputs['named'], outputs['files'])}, {amount(outputs['bytes'])}"
        lines.append(f"  files that it wrote beside itself: {kept}, in {folder / job.OUTPUTS}")
    for name, left in (told.get("left") or {}).items():
        lines.append(f"  not kept of {name}: {_named(left['named'], left['files'])}")
    return lines


def _named(names: Sequence[str], count: int) -> str:
    shown = ", ".join(names[:NAMED])
    return f"{count} ({shown}{', ...' if count > NAMED else ''})"
