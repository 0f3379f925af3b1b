# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Follow a job: its logs as they grow, and how it ends."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from . import cluster, folders, job, text
from .cluster import OPEN, WAITING
from .errors import NOT_OWN, NOT_SEEN

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
            if now not in OPEN:
                break
            time.sleep(PERIOD)
    except KeyboardInterrupt:
        print(f"\nThe job {number} goes on. End it with: scancel {number}", file=sys.stderr)
        return 130
    tails.show()
    return ended(number, folder, said)


def ended(number: str, folder: Path, said: dict[str, str]) -> int:
    """Say how a job ended, and return the exit status that stands for it."""
    state = said.get("JobState", "UNKNOWN")
    code, _, signal = said.get("ExitCode", "1:0").partition(":")
    status = int(code) or (128 + int(signal) if signal not in {"", "0"} else 0) or (0 if state == "COMPLETED" else 1)
    first = text.printable(said.get("BatchHost", "its first node"))
    codes = {
        NOT_SEEN: f"{first} does not see its folder",
        NOT_OWN: f"on {first} its folder, or what is in it, is somebody else's, or others may write there",
    }
    why = {"TIMEOUT": "it reached its time limit", "CANCELLED": "somebody ended it", "NODE_FAIL": "a node failed"}.get(
        state, codes.get(status, f"exit status {status}")
    )
    print(
        f"Job {number} has ended well: {folder}"
        if not status
        else f"Job {number} has failed ({state}: {why}). Its logs: {folder}/{job.LOGS}"
    )
    return status
