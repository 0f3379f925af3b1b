# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Follow a job: its logs as they grow, and how it ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import cluster, ending, folders, job, text
from .cluster import OPEN, WAITING
from .errors import LAUNCH_FAILED, NOT_OWN, NOT_SEEN

PERIOD = 1.0
"""Seconds between two looks."""


class Tails:
    """The logs in a folder, read on from where they were."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.read: dict[Path, int] = {}

    def show(self) -> None:
        """Print the lines that have come, each with its log's name."""
        for path in sorted(self.folder.glob("*.log")):
            with path.open("rb") as file:
                file.seek(self.read.get(path, 0))
                content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            self.read[path] = self.read.get(path, 0) + len(whole)
            for line in whole.decode(errors="replace").split("\n")[:-1]:
                print(f"[{text.printable(path.stem)}] {text.log(line)}", flush=True)


def follow(number: str, folder: Path) -> int:
    """Print a job's logs until it has ended, and return its exit status; Ctrl-C leaves the job alone."""
    with folders.opened(folder) as place:
        return _follow(number, folder, Tails(place / job.LOGS))


def _follow(number: str, folder: Path, tails: Tails) -> int:
    before = ""
    try:
        while True:
            said = cluster.state(number)
            now = said.get("JobState", "")
            if now in WAITING and now != before:
                reason = said.get("Reason", "None")
                print(f"waiting{'' if reason == 'None' else f': {text.printable(reason)}'}", flush=True)
            before = now
            tails.show()
            if now not in OPEN and not cluster.is_ending(number):
                break
            time.sleep(PERIOD)
    except KeyboardInterrupt:
        print(f"\nThe job {number} goes on. End it with: scancel {number}", file=sys.stderr)
        return 130
    tails.show()
    return ended(number, folder, said)


def ended(number: str, folder: Path, said: dict[str, str]) -> int:
    """Say how a job ended, and return the exit status that stands for it."""
    code, _, signal = said.get("ExitCode", "1:0").partition(":")
    state = said.get("JobState", "UNKNOWN")
    status = int(code) or (128 + int(signal) if signal not in {"", "0"} else 0) or (0 if state == "COMPLETED" else 1)
    with folders.opened(folder) as place:
        try:
            told = job.read_json(place / job.RESULT)  # its words stand in job.log, which was shown
        except (OSError, ValueError):
            told = not_begun(number, status, said)
            job.write_json(place / job.RESULT, told)
            print("\n".join(map(text.printable, ending.block(told, folder))), flush=True)
    return int(told["status"]) or status


def not_begun(number: str, status: int, said: Mapping[str, str]) -> dict[str, Any]:
    """Return the result of a job of which nothing of ours ran to its end.

    Args:
        number: the job's.
        status: exit status.
        said: what the controller says of it.
    """
    state, first = said.get("JobState", "UNKNOWN"), said.get("BatchHost", "its first node")
    codes = {
        NOT_SEEN: f"{first} does not see its folder",
        NOT_OWN: f"on {first} its folder, or what is in it, is somebody else's, or others may write there",
        LAUNCH_FAILED: f"Slurm could not start it on {first}: is its user known there? Why it failed stands in the slurmd.log of that node",
    }
    why = {
        ending.TIME_LIMIT: "it reached its time limit",
        ending.CANCELLED: "cancelled before it began",
        "node failed": f"{said.get('NodeList', 'a node')} failed",
    }
    reason = ending.STATES.get(state, ending.FAILED)
    problem = why.get(reason) or codes.get(status) or f"{first} ended it with status {status} ({state})"
    return {"job": number, "nodes": [], "statuses": {}, "status": status, "reason": reason, "problem": problem}
