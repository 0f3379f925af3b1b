# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""sweep: a script's parameters times their values, as one array job; what ran already is not run again."""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

from . import cluster, folders, job
from .errors import RefusedError
from .options import _count, _Parser
from .watch import OPEN

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
as accuracy=0.97, accuracy: 0.97 or in a line of JSON.
"""

Run = dict[str, str]


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


def label(run: Run) -> str:
    """Return the name of a run's files, such as ``batchsize16_lr0.1``."""
    return "_".join(f"{name}{re.sub(r'[^A-Za-z0-9.+-]', '-', value)}" for name, value in run.items())


def metric(log: str, name: str) -> float | None:
    """Return the last value of a metric in what a script printed; None where there is none."""
    found = re.findall(rf"(?<![\w-])[\"']?{re.escape(name)}[\"']?\s*[=:]\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)", log)
    return float(found[-1]) if found else None


class Sweep:
    """A folder of runs.

    Attributes:
        folder: holds ``runs.json``, the logs, and ``done_LABEL`` for each run that has done its work.
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

    def open(self) -> list[int]:
        """Return the numbers of the runs that are still to do."""
        return [number for number, run in enumerate(self.runs) if not self.done(run).exists()]

    def table(self, name: str, lowest: bool) -> list[tuple[Run, str, float | None]]:
        """Return (run, state, metric), the best first, those without a metric last."""
        rows = []
        for run in self.runs:
            log = self.log(run)
            state = "done" if self.done(run).exists() else ("not done" if log.exists() else "not begun")
            rows.append((run, state, metric(log.read_text(errors="replace"), name) if log.exists() else None))
        return sorted(rows, key=lambda row: (row[2] is None, 0.0 if row[2] is None else row[2] * (1 if lowest else -1)))


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
    python = f"{settings['environments']}/{chosen.environment}/bin/python" if chosen.environment else "python3"
    folder = Path.cwd() / f"sweep-{script.stem}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass  # of the same command before, or of somebody else
    except OSError as error:
        raise RefusedError(f"sweep: the folder {folder} cannot be made: {error.strerror}. Work in a folder of your own.") from error
    with folders.opened(folder) as place:
        return _main(Sweep(place, combinations(wanted), folder), chosen, script, python, run)


def _main(sweep: Sweep, chosen: argparse.Namespace, script: Path, python: str, run: Path) -> int:
    number = running(sweep.folder)
    left = sweep.open()
    if left and not number:
        number = submit(sweep, chosen, script, python, run, left)
    elif number:
        print(f"The array job {number} of this folder is still on its way; when it has ended, the same command submits what is left.")
    while chosen.watch and number and running(sweep.folder):
        time.sleep(1)
    show(sweep, chosen.metric, chosen.lowest)
    return 1 if chosen.watch and sweep.open() else 0


def running(folder: Path) -> str:
    """Return the number of the folder's array job; '' where it has ended."""
    try:
        number = str(job.read_json(folder / "runs.json")["job"])
    except (OSError, KeyError):
        return ""
    done = subprocess.run(
        ["squeue", "--noheader", f"--jobs={number}", "--format=%T"], capture_output=True, text=True, timeout=60, check=False
    )
    return number if OPEN & set(done.stdout.split()) else ""


def submit(sweep: Sweep, chosen: argparse.Namespace, script: Path, python: str, run: Path, left: Sequence[int]) -> str:
    """Hand the runs that are left to Slurm as one array job, and return its number.

    Raises:
        RefusedError: the queue does not exist, or Slurm says no.
    """
    queues = cluster.queues()
    queue = queues.get(chosen.where) if chosen.where else next((queue for queue in queues.values() if queue.default), None)
    there = "; ".join(map(str, queues.values()))
    if not queue:
        raise RefusedError(f"--where: there is no queue {chosen.where or 'by default; name one'}. There are: {there}.")
    try:
        limit = cluster.seconds(chosen.time_limit) if chosen.time_limit else None
    except ValueError:
        raise RefusedError(f"--time-limit: {chosen.time_limit!r} is no time; right is HH:MM:SS, such as 00:30:00.") from None
    if limit and queue.limit is not None and limit > queue.limit:
        raise RefusedError(f"--time-limit: {cluster.duration(limit)} is more than the queue {queue.name} allows. There are: {there}.")
    most = 1 if chosen.serial else chosen.max_parallel
    gpus = min(1, queue.gpus) if chosen.gpus is None else chosen.gpus
    job.write_json(sweep.folder / "runs.json", {"script": str(script), "python": python, "runs": sweep.runs})
    command = [
        "sbatch",
        "--parsable",
        f"--job-name=sweep-{script.stem}",
        f"--partition={queue.name}",
        f"--array={','.join(map(str, left))}{f'%{most}' if most else ''}",
        f"--cpus-per-task={chosen.cores}",
        f"--chdir={script.parent}",
        "--output=/dev/null",
        *([f"--time={cluster.duration(limit)}"] if limit else []),
        *([f"--gpus={gpus}"] if gpus else []),
        f"--wrap=exec {shlex.quote(str(run))} sweep-run {shlex.quote(str(sweep.name))}",
    ]
    number = cluster.ask(command).strip().split(";")[0]
    job.write_json(sweep.folder / "runs.json", {"script": str(script), "python": python, "runs": sweep.runs, "job": number})
    print(f"Array job {number}: {len(left)} of {len(sweep.runs)} runs in the queue {queue.name}. Logs: {sweep.name}/log_*.txt", flush=True)
    return number


def one(folder: Path, number: int) -> int:
    """Run one combination on a node, and return the script's exit status."""
    with folders.opened(folder) as place:
        told = job.read_json(place / "runs.json")
        sweep = Sweep(place, told["runs"], folder)
        run = sweep.runs[number]
        words = [told["python"], "-u", told["script"], *(f"--{name}={value}" for name, value in run.items())]
        with open(folders.write(sweep.log(run)), "wb") as log:
            status = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
        if status == 0:
            sweep.done(run).touch()
    return status if status >= 0 else 128 - status


def show(sweep: Sweep, name: str, lowest: bool) -> None:
    """Print the runs, the best first, and write the same as table.csv."""
    rows = sweep.table(name, lowest)
    names = list(sweep.runs[0]) if sweep.runs else []
    lines = [["rank", *names, name, "state"]]
    for rank, (run, state, found) in enumerate(rows, start=1):
        lines.append(
            [str(rank) if found is not None else "", *(run[parameter] for parameter in names), "" if found is None else f"{found:g}", state]
        )
    with open(folders.write(sweep.folder / "table.csv"), "w", newline="") as file:
        csv.writer(file).writerows(lines)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True)).rstrip())
    print(
        json.dumps({"done": len(sweep.runs) - len(sweep.open()), "of": len(sweep.runs), "table": str(sweep.name / "table.csv")}),
        file=sys.stderr,
    )
