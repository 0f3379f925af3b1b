# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A sweep whose folder the nodes do not see: srun carries the script's folder there and the output back, while the command waits."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import asked, folders, job, packing, single
from .errors import NOT_BEGUN, RefusedError
from .runs import Run, Sweep, content, reason
from .text import printable

SEEN, UNSEEN = "seen", "not seen"
AT_ONCE = 64
"""Runs that are under way at a time where nobody says how many; each has a process here."""
MOST_NAMED = 5
PATIENCE = 10.0
"""Seconds that a run has to end when it is told to."""


def needed(sweep: Sweep, run: Path, queue: str) -> bool:
    """Whether a node of the queue does not see the sweep's folder; where none is free to answer, it counts as seen."""
    wanted = hashlib.sha256(folders.read(sweep.folder / job.RUNS)).hexdigest()
    return asked.a_node(run, queue, ["sees", str(sweep.name / job.RUNS), wanted]) == [UNSEEN]


def sees(path: Path, wanted: str) -> int:
    """Print whether this node sees a file of the user's own with a content."""
    try:
        with folders.opened(path.parent) as place:
            same = hashlib.sha256(folders.read(place / path.name)).hexdigest() == wanted
    except (OSError, RefusedError):
        same = False
    print(f"{asked.MARK}{SEEN if same else UNSEEN}")
    return 0


def carry(sweep: Sweep, left: Sequence[int], script: Path, python: str, run: Path, resources: Sequence[str], most: int) -> None:
    """Ship the script's folder and run what is left; return when all runs have ended.

    Args:
        sweep: the folder.
        left: numbers of the runs.
        script: the script.
        python: what runs it on the node.
        run: the script through which Slurm starts the parts on the nodes.
        resources: what a run takes, in srun's words.
        most: runs at a time; 0 for as many as fit.

    Raises:
        RefusedError: the folder cannot be shipped.
        KeyboardInterrupt: somebody pressed Ctrl-C; all runs have ended.
    """
    print("The nodes do not see this folder: the script's folder is shipped, and this command waits for the runs.", file=sys.stderr)
    archive = sweep.folder / "workspace.tar"
    archive.unlink(missing_ok=True)
    try:
        part = packing.scan("workspace", script.parent, job.is_results)
        for line in part.lines():
            print(printable(line), file=sys.stderr, flush=True)
        job.packed(sweep.folder, [part])
    except OSError as error:
        archive.unlink(missing_ok=True)
        raise RefusedError(f"sweep: {error.filename or script.parent} cannot be shipped: {error.strerror}.") from error
    command = ["srun", "--quiet", "--nodes=1", "--ntasks=1", "--chdir=/", f"--job-name=sweep-{script.stem}", *resources]
    carrier = Carrier(sweep, [*command, str(run), "sweep-shipped"], script, python, archive)
    try:
        with ThreadPoolExecutor(max_workers=min(most or AT_ONCE, len(left))) as pool:
            try:
                list(pool.map(carrier.one, left))
            except BaseException:
                carrier.stop()
                raise
    finally:
        archive.unlink(missing_ok=True)


class Carrier:
    """Runs of a sweep that srun carries.

    Args:
        sweep: the folder.
        command: srun and its words.
        script: the script.
        python: what runs it on the node.
        archive: the script's folder, packed.
    """

    def __init__(self, sweep: Sweep, command: Sequence[str], script: Path, python: str, archive: Path) -> None:
        self.sweep, self.command, self.script, self.python, self.archive = sweep, command, script, python, archive
        self.content = content(script, python)
        self._stopped = False
        self._lock = threading.Lock()
        self._under_way: set[subprocess.Popen[bytes]] = set()

    def one(self, number: int) -> None:
        """Carry one run, and note how it ended."""
        if self._stopped:
            return
        run: Run = self.sweep.runs[number]
        with open(self.archive, "rb") as archive, open(self.sweep.begin(run), "wb") as log:
            with self._lock:
                if self._stopped:
                    return
                words = single.words(self.python, self.script.name, run)
                # In a session of its own: Ctrl-C is for this command, which then ends all of them.
                process = subprocess.Popen(
                    [*self.command, *words], stdin=archive, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
                )
                self._under_way.add(process)
            status = process.wait()
            with self._lock:
                self._under_way.discard(process)
        why = "" if not status else ("stopped" if self._stopped else reason("FAILED", f"{status if status > 0 else 128 - status}:0"))
        self.sweep.end(run, why, self.content)

    def stop(self) -> None:
        """Begin no more runs, and end those under way."""
        with self._lock:
            self._stopped = True
            under_way = list(self._under_way)
        # srun hands SIGUSR1 on, and after SIGTERM kills what is on the node at once, which could not remove its files there.
        for sign in (signal.SIGUSR1, signal.SIGTERM):
            end = time.monotonic() + PATIENCE
            for process in under_way:
                process.send_signal(sign)
            for process in under_way:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, end - time.monotonic()))


def one(words: Sequence[str]) -> int:
    """Be a run's node: unpack what comes, run the script there, name what it wrote beside itself, and return its exit status."""
    with single.scratch() as scratch:
        workspace = scratch / "workspace"
        workspace.mkdir(mode=0o700)
        if subprocess.run(["tar", "--extract", "--no-same-owner", f"--directory={workspace}"], check=False).returncode:
            print(f"{os.uname().nodename}: the script's folder could not be unpacked; tar's message is above.", flush=True)
            return NOT_BEGUN
        before = _files(workspace)
        status = single.run(words, None, scratch, workspace)
        written = [path for path, when in _files(workspace).items() if before.get(path) != when]
        if written:
            names = ", ".join(written[:MOST_NAMED]) + (f" and {len(written) - MOST_NAMED} more" if len(written) > MOST_NAMED else "")
            print(f"{os.uname().nodename}: what the script wrote here does not come back: {names}", flush=True)
    return status


def _files(folder: Path) -> dict[str, int]:
    """Return path -> time of the last change of each file, but for what Python keeps for itself."""
    found = {}
    for place, below, files in os.walk(folder):
        below[:] = [name for name in below if name != "__pycache__"]
        for name in files:
            path = Path(place, name)
            found[str(path.relative_to(folder))] = path.lstat().st_mtime_ns
    return found
