# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A sweep's folder: its runs, how each of them ended, and the table of them all."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import folders
from .errors import NOT_OWN, NOT_SEEN
from .text import printable

Run = dict[str, str]
REASONS = {NOT_SEEN: "its node does not see the folder", NOT_OWN: "the folder or the script is not the user's own"}
"""What our own exit statuses mean, where the script did not run at all."""
STATES = {"TIMEOUT": "time limit", "CANCELLED": "cancelled", "NODE_FAIL": "its node failed", "OUT_OF_MEMORY": "out of memory"}
"""What Slurm calls an end, and how it is shown."""
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|[-+]?(?:nan|inf(?:inity)?)\b"


def label(run: Run) -> str:
    """Return the name of a run's files, such as ``batchsize16_lr0.1``."""
    return "_".join(f"{name}{re.sub(r'[^A-Za-z0-9.+-]', '-', value)}" for name, value in run.items())


def metric(log: str, name: str) -> float | None:
    """Return the last value of a metric in what a script printed; None where there is none."""
    found = re.findall(rf"(?<![\w-])[\"']?(?:{re.escape(name)})[\"']?\s*[=:]\s*(?i:({NUMBER}))", log)
    return float(found[-1]) if found else None


def content(script: Path, python: str) -> str:
    """Return what differs wherever the script or the Python that runs it does."""
    return hashlib.sha256(python.encode() + b"\0" + script.read_bytes()).hexdigest()


class Sweep:
    """A folder of runs.

    Attributes:
        folder: holds ``runs.json``, the logs, and of each run that has ended either ``done_LABEL`` with the script's content or
            ``failed_LABEL`` with the reason.
        runs: in the order of the array job.
        name: the folder as its user knows it, where `folder` is what :func:`folders.opened` gave.
    """

    def __init__(self, folder: Path, runs: Sequence[Run], name: Path | None = None) -> None:
        self.folder, self.runs, self.name = folder, runs, name or folder

    def log(self, run: Run) -> Path:
        """Return where a run's output goes."""
        return self.folder / f"log_{label(run)}.txt"

    def done(self, run: Run) -> Path:
        """Return the file that says that a run has done its work."""
        return self.folder / f"done_{label(run)}"

    def failed(self, run: Run) -> Path:
        """Return the file that says why a run has not."""
        return self.folder / f"failed_{label(run)}"

    def open(self) -> list[int]:
        """Return the numbers of the runs that are still to do."""
        return [number for number, run in enumerate(self.runs) if not self.done(run).exists()]

    def outdated(self, now: str) -> list[Run]:
        """Return the runs that another script has done; of those of an earlier release nobody knows."""
        return [run for run in self.runs if self.done(run).exists() and folders.read(self.done(run)).decode().strip() not in {"", now}]

    def begin(self, run: Run) -> int:
        """Note that a run begins, and return the descriptor of its log."""
        self.failed(run).unlink(missing_ok=True)
        return folders.write(self.log(run))

    def end(self, run: Run, reason: str, now: str = "") -> None:
        """Note how a run ended.

        Args:
            run: the run.
            reason: why it failed; '' where it has done its work.
            now: the script's content.
        """
        path = self.failed(run) if reason else self.done(run)
        with open(folders.write(path), "w") as file:
            file.write(f"{reason or now}\n")

    def state(self, run: Run, live: str) -> str:
        """Return how a run is.

        Args:
            run: the run.
            live: ``running`` or ``waiting`` where Slurm has it; '' where it has not.
        """
        if self.done(run).exists():
            return "done"
        if live:
            return live
        with contextlib.suppress(OSError):
            return f"failed ({printable(folders.read(self.failed(run)).decode(errors='replace').strip())})"
        return "stopped" if self.log(run).exists() else "not begun"

    def table(self, name: str, lowest: bool, live: Mapping[int, str]) -> list[tuple[Run, str, float | None]]:
        """Return (run, state, metric): the best first, then those that ended in nan or inf, then those without a metric."""
        rows = []
        for number, run in enumerate(self.runs):
            log = self.log(run)
            found = metric(log.read_text(errors="replace"), name) if log.exists() else None
            rows.append((run, self.state(run, live.get(number, "")), found))
        return sorted(rows, key=lambda row: _order(row[2], lowest))

    def show(self, name: str, lowest: bool, live: Mapping[int, str]) -> None:
        """Print the runs, the best first, and write the same as table.csv."""
        names = list(self.runs[0]) if self.runs else []
        lines = [["rank", *names, name, "state"]]
        for rank, (run, state, found) in enumerate(self.table(name, lowest, live), start=1):
            ranked = str(rank) if found is not None and math.isfinite(found) else ""
            lines.append([ranked, *(run[parameter] for parameter in names), "" if found is None else f"{found:g}", state])
        with open(folders.write(self.folder / "table.csv"), "w", newline="") as file:
            csv.writer(file).writerows(lines)
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        for line in lines:
            print("  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True)).rstrip())
        print(
            json.dumps({"done": len(self.runs) - len(self.open()), "of": len(self.runs), "table": str(self.name / "table.csv")}),
            file=sys.stderr,
        )


def _order(found: float | None, lowest: bool) -> tuple[int, float]:
    if found is None:
        return 2, 0.0
    if not math.isfinite(found):
        return 1, 0.0
    return 0, found if lowest else -found


def reason(state: str, exit_code: str) -> str:
    """Return why a run failed, from what Slurm says of it; '' where it did not.

    Args:
        state: such as ``FAILED``.
        exit_code: such as ``1:0``.
    """
    code, _, signal = exit_code.partition(":")
    if state in STATES:
        return STATES[state]
    if state == "COMPLETED" or not (status := int(code or 0) or (128 + int(signal) if signal not in {"", "0"} else 0)):
        return "" if state == "COMPLETED" else "ended by Slurm"
    return f"{status}: {REASONS[status]}" if status in REASONS else str(status)
