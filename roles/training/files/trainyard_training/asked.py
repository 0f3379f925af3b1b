# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A question to a node that is free, before anything is submitted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

PATIENCE = 5
"""Seconds within which a node has to be free to answer."""
MARK = "trainyard: "
"""What a line of an answer begins with; a node's login scripts may print as well."""


def a_node(run: Path, queue: str, question: Sequence[str]) -> list[str] | None:
    """Ask a node, and return the lines of its answer; None where none is free now.

    Args:
        run: the script through which Slurm starts the parts on the nodes.
        queue: the nodes' queue; '' for the present allocation.
        question: the part's name and its arguments.
    """
    words = ["srun", "--quiet", "--nodes=1", "--ntasks=1", "--chdir=/", f"--job-name={question[0]}"]
    environment = dict(os.environ)
    if queue:
        words += [f"--partition={queue}", f"--immediate={PATIENCE}", "--time=1"]
        environment = {key: value for key, value in environment.items() if not key.startswith(("SLURM_", "SRUN_"))}
    else:
        words += ["--overlap"]
    try:
        done = subprocess.run(
            [*words, str(run), *question],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=4 * PATIENCE,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return [line.removeprefix(MARK) for line in done.stdout.splitlines() if line.startswith(MARK)] if not done.returncode else None
