# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which part of the package a word starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import USAGE, RefusedError
from .text import printable


def main(words: Sequence[str], run: Path, settings: dict[str, str]) -> int:
    """Start what the first word names, and return its exit status.

    Args:
        words: the name under which the program was called, or a part's name, and its arguments.
        run: the program, which Slurm starts for the parts on the nodes.
        settings: ``environments``, ``samples`` and ``tensorboard``: folders; ``lock``: run-one's lock file.
    """
    name, *rest = words
    # Only what is needed is imported: users wait for --help.
    try:
        if name in {"cluster_train", "paddle"}:
            from . import submit  # noqa: PLC0415

            return submit.paddle(rest, run, settings) if name == "paddle" else submit.main(rest, name, run, settings)
        if name == "sweep":
            from . import sweep  # noqa: PLC0415

            return sweep.main(rest, run, settings)
        if name == "run-one":
            from . import run_one  # noqa: PLC0415

            return run_one.main(rest, Path(settings["lock"]))
        return _on_a_node(name, rest, run, settings)
    except RefusedError as refused:
        # Paths in it may be somebody else's to name.
        lines = "\n".join(printable(line) for line in str(refused).split("\n"))
        print(f"{'' if lines.startswith(name) else f'{name}: '}{lines}", file=sys.stderr)
        return refused.status


def _on_a_node(name: str, rest: Sequence[str], run: Path, settings: dict[str, str]) -> int:
    from . import batch, node, proof, sweep  # noqa: PLC0415

    if name == "batch" and len(rest) == 1:
        return batch.main(Path(rest[0]), run)
    if name == "node" and len(rest) == 1:
        return node.main(Path(rest[0]))
    if name == "sweep-run" and len(rest) == 1:
        return sweep.one(Path(rest[0]), int(os.environ["SLURM_ARRAY_TASK_ID"]))
    if name == "prove" and rest in ([], ["--json"]):
        return proof.main(run, settings, as_json=bool(rest))
    if name == "meet" and not rest:
        return proof.meet(settings)
    raise RefusedError(f"{name}: this program is called as cluster_train, paddle, sweep or run-one.", USAGE)
