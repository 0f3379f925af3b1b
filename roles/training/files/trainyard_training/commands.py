# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which part of the package a word starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from . import modes
from .errors import INTERRUPTED, USAGE, RefusedError
from .text import printable


def main(words: Sequence[str], run: Path, settings: dict[str, str]) -> int:
    """Start what the first word names, and return its exit status.

    Args:
        words: the name under which the program was called, or a part's name, and its arguments.
        run: the program, which Slurm starts for the parts on the nodes.
        settings: ``environments``, ``samples`` and ``tensorboard``: folders; ``shared``: folders that all nodes see, with colons between;
            ``lock``: run-one's lock file.
    """
    name, *rest = words
    if name != "run-one":  # it runs one command, and makes no file of its own
        modes.private()
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
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except RefusedError as refused:
        # Paths in it may be somebody else's to name.
        lines = "\n".join(printable(line) for line in str(refused).split("\n"))
        print(f"{'' if lines.startswith(name) else f'{name}: '}{lines}", file=sys.stderr)
        return refused.status


def _on_a_node(name: str, rest: Sequence[str], run: Path, settings: dict[str, str]) -> int:
    from . import batch, known, node, proof, shipped_runs, sweep  # noqa: PLC0415

    if name == "batch" and len(rest) in {1, 2}:
        return batch.main(Path(rest[0]), run, *rest[1:])
    if name == "environments" and not rest:
        return known.show(settings["environments"])
    if name == "node" and len(rest) == 1:
        return node.main(Path(rest[0]))
    if name == "sweep-run" and len(rest) == 1:
        return sweep.one(Path(rest[0]), int(os.environ["SLURM_ARRAY_TASK_ID"]))
    if name == "sweep-shipped" and rest:
        return shipped_runs.one(rest)
    if name == "sees" and len(rest) == 2:
        return shipped_runs.sees(Path(rest[0]), rest[1])
    if name == "prove" and rest in ([], ["--json"]):
        return proof.main(run, settings, as_json=bool(rest))
    if name == "meet" and not rest:
        return proof.meet(settings)
    raise RefusedError(f"{name}: this program is called as cluster_train, paddle, sweep or run-one.", USAGE)
