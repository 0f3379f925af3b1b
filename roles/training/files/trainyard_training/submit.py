# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""cluster_train: check a wish, put its folder together, hand it to Slurm, and follow it when asked."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from . import batch, cluster, job, known, options, packing, placing, text, watch
from .cluster import Queue
from .errors import USAGE, RefusedError
from .options import PRIORITIES, Wish
from .packing import Part


def main(words: Sequence[str], program: str, run: Path, settings: dict[str, str], framework: str = "") -> int:
    """Carry out the command and return its exit status.

    Args:
        words: the command line.
        program: what users call it.
        run: the script through which Slurm starts the parts on the nodes.
        settings: what the role wrote beside it.
        framework: the one that need not be named.
    """
    chosen = options.parsed(words, program, framework)
    wish = options.wish(chosen)
    if chosen.here:
        allocation = cluster.allocation(os.environ)
        options.fits_here(wish, allocation)
        gpus = min(wish.trainers, allocation.gpus) if wish.gpus is None else wish.gpus * wish.trainers
        parts = checked(wish, chosen, run, settings)
        if chosen.dry_run:
            return 0
        folder = filled(wish, parts, gpus, allocation.cores, settings)
        print(f"In the allocation {allocation.job}; logs and results: {folder}", flush=True)
        try:
            return batch.main(folder, run, here=True)
        finally:
            job.discard(folder)
    queue = options.fits(wish, cluster.queues())
    gpus, cores = gpus_per_node(wish, queue), cores_per_node(wish, queue)
    node = placing.node(Path.cwd(), queue.name, settings["shared"].split(":"))
    parts = checked(wish, chosen, run, settings, queue.name)
    if chosen.dry_run:
        print(shlex.join(command(wish, queue, Path(f"{wish.name}-N"), run, node)))
        return 0
    with contextlib.suppress(RefusedError):
        job.discard_ended(Path.cwd(), cluster.unfinished)
    folder = filled(wish, parts, gpus, cores, settings)
    try:
        number = cluster.ask(command(wish, queue, folder, run, node)).strip().split(";")[0]
    except BaseException:
        shutil.rmtree(folder)
        raise
    job.write_json(folder / job.SUBMITTED, {"job": number})
    print(f"Job {number} in the queue {queue.name}; its logs and results: {folder}", flush=True)
    if chosen.watch:
        return watch.follow(number, folder)
    print(f"Follow it with: tail -F {shlex.quote(str(folder))}/logs/*.log     End it with: scancel {number}")
    return 0


def checked(wish: Wish, chosen: argparse.Namespace, run: Path, settings: dict[str, str], queue: str = "") -> list[Part]:
    """Check what can be wrong with a job before anything is shipped, describe what is shipped, and return it.

    Args:
        wish: the job.
        chosen: the command line.
        run: the script through which Slurm starts the parts on the nodes.
        settings: what the role wrote beside it.
        queue: where the job goes; '' where it runs in the present allocation.

    Raises:
        RefusedError: the nodes have no such environment, or something cannot be shipped.
    """
    if chosen.environment:
        known.check(chosen.environment, Path(settings["environments"]), run, queue)
    try:
        parts = job.parts(wish)
    except OSError as error:
        raise RefusedError(f"{error.filename or wish.workspace} cannot be shipped: {error.strerror}. Nothing was submitted.") from error
    if wish.config not in parts[0].members:
        raise RefusedError(
            f"--config: {wish.config} is left out of what is shipped. "
            f"To ship it, write into {wish.workspace / packing.IGNORE_FILE}: !{wish.config.partition('/')[0]}"
        )
    for line in (line for part in parts for line in part.lines()):
        print(text.printable(line), file=sys.stderr, flush=True)
    return parts


def filled(wish: Wish, parts: Sequence[Part], gpus: int, cores: int, settings: dict[str, str]) -> Path:
    """Return a new folder with all that a job needs.

    Raises:
        RefusedError: the folder or a part of it cannot be made.
    """
    folder = job.new_folder(wish.name, Path.cwd())
    try:
        places = {name: settings[name] for name in ("environments", "tensorboard")}
        job.fill(folder, wish, {"gpus_per_node": gpus, "cores_per_node": cores, **places}, parts)
    except OSError as error:
        shutil.rmtree(folder)
        raise RefusedError(f"{error.filename or folder} cannot be shipped: {error.strerror}. Nothing was submitted.") from error
    except BaseException:  # Ctrl-C, too
        shutil.rmtree(folder)
        raise
    return folder


def gpus_per_node(wish: Wish, queue: Queue) -> int:
    """Return how many GPUs a job takes on each node: one for each trainer where the queue has them, unless it says otherwise."""
    if wish.gpus is not None:
        return wish.gpus * wish.trainers
    return min(wish.trainers, queue.gpus)


def cores_per_node(wish: Wish, queue: Queue) -> int:
    """Return how many cores a job takes on each node: with a GPU its share of them, unless it says otherwise."""
    share = queue.cores // queue.gpus if queue.gpus and gpus_per_node(wish, queue) else 1
    return min(queue.cores, wish.trainers * (wish.cores or max(1, share)))


def command(wish: Wish, queue: Queue, folder: Path, run: Path, node: str = "") -> list[str]:
    """Return the words that submit a job; `node` is one that it must have, since only that one sees its folder."""
    gpus = gpus_per_node(wish, queue)
    words = [
        "sbatch",
        "--parsable",
        f"--job-name={wish.name}",
        f"--partition={queue.name}",
        f"--nodes={wish.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={cores_per_node(wish, queue)}",
        f"--nice={PRIORITIES[wish.priority]}",
        "--requeue",
        # Slurm would write into whatever has this name on the first node. The job opens its log itself, once it has seen whose it is.
        "--chdir=/",
        "--output=/dev/null",
    ]
    if wish.limit is not None:
        words.append(f"--time={cluster.duration(wish.limit)}")
    if wish.submitter:
        words.append(f"--comment={wish.submitter}")
    if gpus:
        words.append(f"--gpus-per-node={gpus}")
    if wish.exclusive:
        words.append("--exclusive")
    if node:
        words.append(f"--nodelist={node}")
    return [*words, f"--wrap=exec {shlex.join([str(run), 'batch', str(folder), *([node] if node else [])])}"]


def paddle(words: Sequence[str], run: Path, settings: dict[str, str]) -> int:
    """The old command line, ``paddle cluster_train ...``; everything else goes to the Paddle of the environment."""
    if words[:1] == ["cluster_train"]:
        return main(words[1:], "paddle cluster_train", run, settings, framework="paddle")
    own = Path(settings["environments"]) / "paddle" / "bin" / "paddle"
    if own.is_file():
        os.execv(own, [str(own), *words])
    raise RefusedError("Usage: paddle cluster_train --config FILE ...     (all of it: paddle cluster_train --help)", USAGE)
