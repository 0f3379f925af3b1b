# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""sweep: a script's parameters times their values, as one array job; what ran already is not run again."""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from . import cluster, folders, job, known, shipped_runs, single
from .cluster import Queue
from .errors import INTERRUPTED, NOT_SEEN, RefusedError
from .options import _count, _Parser
from .runs import Run, Sweep, content, label, reason

MOST = 1000
"""Runs in a sweep: beyond, it is more likely a slip of the pen than a wish (Slurm's own MaxArraySize is 1001)."""
EXAMPLES = """
examples:
  Six runs of train.py, as many at a time as the queue has room for:
    sweep train.py --lr 0.1,0.01 --batchsize 16:64:16
  One after another, and the table at the end:
    sweep train.py --lr 0.1,0.01 --serial --watch

Values are a list, 0.1,0.01, or a range with its end, START:STOP:STEP. The script gets --lr=0.1 --batchsize=16, as python-fire and
argparse read them. Each run has its log, log_batchsize16_lr0.1.txt. A run has done its work when the script ends with status 0; the
same command again submits those that have not, and shows the table, also as table.csv. The metric is the last that the script prints
as accuracy=0.97, accuracy: 0.97 or in a line of JSON; nan and inf rank last.

Runs that an earlier version of the script has done are not counted without a word: --reuse counts them, --redo runs all again.
Where the nodes do not see the script's folder, it is shipped (but for what .trainyardignore lists), and the command waits for the runs.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of what is not a parameter of the script."""
    made = _Parser(
        prog="sweep",
        description="Run a script with every combination of values.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("script", metavar="SCRIPT", help="a Python script")
    made.add_argument("--environment", default="", metavar="NAME", help="environment on the nodes (default: the python on the PATH)")
    made.add_argument("--where", default="", metavar="QUEUE", help="the queue (default: the cluster's default queue)")
    made.add_argument("--time-limit", default="", metavar="HH:MM:SS", help="for each run (default: the queue's)")
    made.add_argument("--cores", type=_count, default=1, metavar="N", help="for each run (default: %(default)s)")
    made.add_argument("--gpus", type=int, default=None, metavar="N", help="for each run (default: 1 where the queue has GPUs)")
    made.add_argument("--serial", action="store_true", help="one run at a time")
    made.add_argument("--max-parallel", type=_count, default=0, metavar="N", help="runs at a time (default: as many as fit)")
    made.add_argument("--metric", default="accuracy", metavar="NAME", help="rank by it (default: %(default)s)")
    made.add_argument("--lowest", action="store_true", help="the lowest is the best, as of a loss")
    again = made.add_mutually_exclusive_group()
    again.add_argument("--reuse", action="store_true", help="count what an earlier version of the script has done")
    again.add_argument("--redo", action="store_true", help="set the folder aside, and run all again")
    made.add_argument("--watch", action="store_true", help="wait for the runs, then show the table")
    return made


def values(words: str) -> list[str]:
    """Return the values that ``0.1,0.01`` or ``16:64:16`` stands for.

    Raises:
        ValueError: the range has no step, or leads nowhere.
    """
    if re.fullmatch(r"[^,:]+:[^,:]+:[^,:]+", words):
        try:
            start, stop, step = map(Decimal, words.split(":"))
        except InvalidOperation:
            return words.split(",")
        if not step or (stop - start) / step < 0:
            raise ValueError(f"{words} leads nowhere: from {start} to {stop} by {step}")
        return [str(start + number * step) for number in range(min(MOST + 1, int((stop - start) / step) + 1))]
    return words.split(",")


def parameters(words: Sequence[str]) -> dict[str, list[str]]:
    """Return name -> values of what stands for the script's parameters.

    Raises:
        RefusedError: a word is none, or stands twice.
    """
    found: dict[str, list[str]] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, given = word.partition("=")
        if not re.fullmatch(r"--[A-Za-z][\w-]*", name):
            raise RefusedError(f"sweep: {word!r} is no parameter; right is --name VALUES, such as --lr 0.1,0.01.")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise RefusedError(f"sweep: {name} has no values; right is {name} 0.1,0.01 or {name} 16:64:16.")
            given = rest.pop(0)
        if name[2:] in found:
            raise RefusedError(f"sweep: {name} stands there twice.")
        try:
            found[name[2:]] = list(dict.fromkeys(values(given)))
        except ValueError as error:
            raise RefusedError(f"sweep: {name}: {error}.") from None
    return found


def combinations(parameters: Mapping[str, Sequence[str]]) -> list[Run]:
    """Return every combination, names in alphabetical order, the last one changing fastest."""
    names = sorted(parameters)
    return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*(parameters[name] for name in names))]


def main(words: Sequence[str], run: Path, settings: Mapping[str, str]) -> int:
    """Carry out the command and return its exit status: 0 when all runs have done their work, or are on their way."""
    chosen, rest = parser().parse_known_args(words)
    script = Path(chosen.script).resolve()
    if not script.is_file():
        raise RefusedError(f"sweep: there is no file {script}.")
    wanted = parameters(rest)
    count = 1
    for name in wanted:
        count *= len(wanted[name])
    if count > MOST:
        raise RefusedError(f"sweep: these are {count} runs; a sweep has at most {MOST}. Take fewer values, or two sweeps.")
    runs = combinations(wanted)
    if len({label(each) for each in runs}) < len(runs):
        raise RefusedError("sweep: two runs would have the same log, since their values differ in special characters only.")
    environments = Path(settings["environments"])
    python = str(environments / chosen.environment / "bin" / "python") if chosen.environment else "python3"
    folder = Path.cwd() / f"sweep-{script.stem}"
    if chosen.redo:
        set_aside(folder)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass  # of the same command before, or of somebody else
    except OSError as error:
        raise RefusedError(f"sweep: the folder {folder} cannot be made: {error.strerror}. Work in a folder of your own.") from error
    with folders.opened(folder) as place:
        check_script(script)
        return _main(Sweep(place, runs, folder), chosen, script, python, run, environments)


def _main(sweep: Sweep, chosen: argparse.Namespace, script: Path, python: str, run: Path, environments: Path) -> int:
    told, now = _told(sweep.folder), content(script, python)
    number = running(told)
    if number and told["runs"] != sweep.runs:
        raise RefusedError(
            f"sweep: the array job {number} of {sweep.name} is running another grid ({_grid(told['runs'])}). "
            f"Wait until it has ended, end it with scancel {number}, or work in another folder."
        )
    if number:
        print(f"The array job {number} of this folder is still on its way; when it has ended, the same command submits what is left.")
        if told.get("content", now) != now:
            print(f"{script.name} or the environment was changed meanwhile: runs that have not begun take the script as it is now.")
    else:
        settle(sweep, told)
        counted(sweep, now, told, chosen.reuse)
        if left := sweep.open():
            queue = queue_of(chosen)
            if chosen.environment:
                known.check(chosen.environment, environments, run, queue.name)
            write(sweep, script, python, now)
            if shipped_runs.needed(sweep, run, queue.name):
                return _carried(sweep, chosen, script, python, run, queue, left)
            number = submit(sweep, chosen, script, python, run, left, queue)
    try:
        while chosen.watch and running(_told(sweep.folder)):
            time.sleep(1)
    except KeyboardInterrupt:
        print(f"\nThe array job {number} goes on. End it with: scancel {number}", file=sys.stderr)
        return INTERRUPTED
    told = _told(sweep.folder)
    if not running(told):
        settle(sweep, told)
    sweep.show(chosen.metric, chosen.lowest, cluster.tasks(number) if number else {})
    return 1 if chosen.watch and sweep.open() else 0


def _carried(sweep: Sweep, chosen: argparse.Namespace, script: Path, python: str, run: Path, queue: Queue, left: Sequence[int]) -> int:
    status = 0
    try:
        shipped_runs.carry(sweep, left, script, python, run, resources(chosen, queue), 1 if chosen.serial else chosen.max_parallel)
    except KeyboardInterrupt:
        print("\nThe runs that were on their way have ended with this command. The same command runs what is left.", file=sys.stderr)
        status = INTERRUPTED
    sweep.show(chosen.metric, chosen.lowest, {})
    return status or int(bool(sweep.open()))


def _told(folder: Path) -> dict[str, Any]:
    """Return what an earlier command wrote into the folder; empty where there was none."""
    try:
        return job.read_json(folder / job.RUNS)
    except (OSError, ValueError):
        return {}


def _grid(runs: Sequence[Run]) -> str:
    """Describe a grid, such as ``lr=0.1,0.2``."""
    names = dict.fromkeys(name for run in runs for name in run)
    return " ".join(f"{name}={','.join(dict.fromkeys(run.get(name, '') for run in runs))}" for name in names)


def counted(sweep: Sweep, now: str, told: Mapping[str, Any], reuse: bool) -> None:
    """Say what is not run again, and why.

    Args:
        sweep: the folder.
        now: the script's content.
        told: what an earlier command wrote.
        reuse: whether to count what another script has done.

    Raises:
        RefusedError: some runs were done by another version of the script, or another Python.
    """
    old = sweep.outdated(now)
    if old and not reuse:
        raise RefusedError(
            f"sweep: {len(old)} of {len(sweep.runs)} runs in {sweep.name}, such as {label(old[0])}, were done by another version of the "
            f"script or another environment. --reuse counts them as done; --redo sets the folder aside and runs all again."
        )
    for run in old:
        sweep.end(run, "", now)
    done = len(sweep.runs) - len(sweep.open())
    if told and told["runs"] != sweep.runs:
        print(f"Another grid than before ({_grid(told['runs'])}): {done} of {len(sweep.runs)} runs are done already.")
    elif old:
        print(f"{len(old)} runs that another version of the script has done are counted.")


def set_aside(folder: Path) -> None:
    """Rename a sweep's folder, so that nothing in it is lost and the next one begins from nothing.

    Raises:
        RefusedError: its runs are on their way.
    """
    if not folder.exists():
        return
    with folders.opened(folder) as place:
        if number := running(_told(place)):
            raise RefusedError(f"sweep: --redo: the array job {number} of {folder} is on its way. End it first: scancel {number}")
        places = (folder.with_name(f"{folder.name}-{count}") for count in itertools.count(1))
        aside = folder.rename(next(place for place in places if not place.exists()))
    print(f"The earlier runs are in {aside}")


def check_script(script: Path) -> None:
    """Check a script and its folder, from which Python imports before it looks anywhere else.

    Raises:
        NotOwnError: one of them is neither the user's nor root's, or others may write there.
        RefusedError: there is no such script here.
    """
    try:
        folders.check_way(script.parent)
        for path in (script.parent, script):
            folders.check(path, root=True)
    except OSError as error:
        raise RefusedError(f"sweep: {script} cannot be read on {os.uname().nodename}: {error.strerror}.", NOT_SEEN) from error


def running(told: Mapping[str, Any]) -> str:
    """Return the number of the array job that an earlier command submitted; '' where it has ended."""
    number = str(told.get("job", ""))
    return number if number and cluster.tasks(number) else ""


def settle(sweep: Sweep, told: Mapping[str, Any]) -> None:
    """Note why runs of an array job failed that could not do so themselves, as long as Slurm knows."""
    for number, (state, code) in cluster.ended_tasks(str(told.get("job", ""))).items():
        run = told["runs"][number] if number < len(told["runs"]) else None
        why = reason(state, code)
        if run and why and not sweep.done(run).exists() and (state != "FAILED" or not sweep.failed(run).exists()):
            sweep.end(run, why)


def queue_of(chosen: argparse.Namespace) -> Queue:
    """Return the queue that the runs go to.

    Raises:
        RefusedError: it does not exist, or never could take them.
    """
    queues = cluster.queues()
    queue = queues.get(chosen.where) if chosen.where else next((queue for queue in queues.values() if queue.default), None)
    there = "; ".join(map(str, queues.values()))
    if not queue:
        raise RefusedError(f"--where: there is no queue {chosen.where or 'by default; name one'}. There are: {there}.")
    limit = _limit(chosen)
    if limit and queue.limit is not None and limit > queue.limit:
        raise RefusedError(f"--time-limit: {cluster.duration(limit)} is more than the queue {queue.name} allows. There are: {there}.")
    return queue


def _limit(chosen: argparse.Namespace) -> int | None:
    try:
        return cluster.seconds(chosen.time_limit) if chosen.time_limit else None
    except ValueError:
        raise RefusedError(f"--time-limit: {chosen.time_limit!r} is no time; right is HH:MM:SS, such as 00:30:00.") from None


def resources(chosen: argparse.Namespace, queue: Queue) -> list[str]:
    """Return the words that ask Slurm for what a run takes."""
    gpus, limit = min(1, queue.gpus) if chosen.gpus is None else chosen.gpus, _limit(chosen)
    return [
        f"--partition={queue.name}",
        f"--cpus-per-task={chosen.cores}",
        *([f"--time={cluster.duration(limit)}"] if limit else []),
        *([f"--gpus={gpus}"] if gpus else []),
    ]


def write(sweep: Sweep, script: Path, python: str, now: str, **more: str) -> None:
    """Write down what the runs are, for the nodes and for the next command."""
    job.write_json(sweep.folder / job.RUNS, {"script": str(script), "python": python, "content": now, "runs": sweep.runs, **more})


def submit(sweep: Sweep, chosen: argparse.Namespace, script: Path, python: str, run: Path, left: Sequence[int], queue: Queue) -> str:
    """Hand the runs that are left to Slurm as one array job, and return its number.

    Raises:
        RefusedError: Slurm says no.
    """
    most = 1 if chosen.serial else chosen.max_parallel
    command = [
        "sbatch",
        "--parsable",
        f"--job-name=sweep-{script.stem}",
        *resources(chosen, queue),
        f"--array={','.join(map(str, left))}{f'%{most}' if most else ''}",
        f"--chdir={script.parent}",
        "--output=/dev/null",
        f"--wrap=exec {shlex.quote(str(run))} sweep-run {shlex.quote(str(sweep.name))}",
    ]
    number = cluster.ask(command).strip().split(";")[0]
    write(sweep, script, python, content(script, python), job=number)
    print(f"Array job {number}: {len(left)} of {len(sweep.runs)} runs in the queue {queue.name}. Logs: {sweep.name}/log_*.txt", flush=True)
    return number


def one(folder: Path, number: int) -> int:
    """Run one combination on a node that sees the folder, and return the script's exit status."""
    with folders.opened(folder) as place:
        told = job.read_json(place / job.RUNS)
        sweep = Sweep(place, told["runs"], folder)
        run, script = sweep.runs[number], Path(told["script"])
        check_script(script)
        now = content(script, told["python"])
        with open(sweep.begin(run), "wb") as log, single.scratch() as scratch:
            status = single.run(single.words(told["python"], script, run), log, scratch)
        sweep.end(run, str(status) if status else "", now)
    return status
