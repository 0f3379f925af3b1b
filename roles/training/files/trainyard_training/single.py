# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""One run of a sweep on a node: the script, with a folder for temporary files that goes when the run ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from . import modes

ENDING = (signal.SIGTERM, signal.SIGUSR1)
"""What ends a run: Slurm's signal, and the one that srun hands on."""


def words(python: str, script: str | Path, run: Mapping[str, str]) -> list[str]:
    """Return the command line of a run."""
    return [python, "-u", str(script), *(f"--{name}={value}" for name, value in run.items())]


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder of this run on the node's own disk, and remove it afterwards."""
    path = Path(tempfile.mkdtemp(prefix=f"trainyard-{os.environ.get('SLURM_JOB_ID', 'run')}-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def run(command: Sequence[str], log: int | IO[bytes] | None, scratch: Path, cwd: Path | None = None) -> int:
    """Run a command, and return its exit status as a shell would; whoever ends this process ends the command.

    Args:
        command: its words.
        log: where its output goes; None for this process' own.
        scratch: holds its temporary files.
        cwd: where it runs; None for the present folder.
    """
    temporary = scratch / "tmp"
    temporary.mkdir(mode=0o700)
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=None if log is None else subprocess.STDOUT,
        umask=modes.users(),
    )
    before = {sign: signal.signal(sign, lambda _number, _frame: process.terminate()) for sign in ENDING}
    try:
        status = process.wait()
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
    return status if status >= 0 else 128 - status
