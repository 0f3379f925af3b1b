# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The command line of cluster_train, in the words that Paddle's users know, and what of it is refused before anything is submitted."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from .cluster import Allocation, Queue, duration, seconds
from .errors import RefusedError

FRAMEWORKS = ("pytorch", "tensorflow", "keras", "paddle")
STRATEGIES = ("multiworker", "parameter-server")
PRIORITIES = {"high": 0, "normal": 100, "low": 1000}
"""Slurm's nice values: a user may step back behind others, and not push ahead of them."""

EXAMPLES = """
examples:
  Two nodes, four trainers each, of the script train.py in this folder, and follow it:
    cluster_train --framework pytorch --config train.py --num-nodes 2 --trainer-count 4 --watch
  Words after -- go to the script:
    cluster_train --framework keras --config train.py --num-nodes 2 -- --learning-rate 0.01
  In nodes that are yours already, time and again:
    salloc --nodes 2 --cpus-per-task 4
    cluster_train --here --framework pytorch --config train.py --num-nodes 2 --trainer-count 4
  As on the old Paddle clusters:
    paddle cluster_train --config cluster_conf.py --time_limit 00:30:00 --submitter me --num_nodes 2 --job_priority normal \\
      --trainer_count 4 --num_passes 1 --log_period 1000 --dot_period 100 --saving_period 1 --where main \\
      --thirdparty ./thirdparty --job_name it

The script finds in its environment: TRAINYARD_NUM_PASSES, TRAINYARD_LOG_PERIOD, TRAINYARD_DOT_PERIOD, TRAINYARD_SAVING_PERIOD,
TRAINYARD_RANK, TRAINYARD_WORLD_SIZE, TRAINYARD_TRAIN_LIST (its share of the file list train.list, where there is one),
TRAINYARD_CHECKPOINTS (a folder that outlives the job, and that one which starts again finds as it left it), TRAINYARD_TENSORBOARD (where
TensorBoard's service looks) and TRAINYARD_THIRDPARTY.
"""


@dataclass(frozen=True)
class Wish:
    """A job as its submitter wants it.

    Attributes:
        framework: one of `FRAMEWORKS`.
        environment: name of the environment on the nodes.
        config: the script, relative to the workspace.
        workspace: folder that is shipped.
        nodes, trainers: nodes, and trainers on each.
        passes: times that the script is to go through its data.
        limit: seconds that the job may run; None for the queue's own default.
        submitter: free text for the job's comment.
        priority: one of `PRIORITIES`.
        queue: name; '' for the default one.
        name: the job's name.
        thirdparty: folder that is shipped beside the workspace, or None.
        log_period, dot_period, saving_period: handed to the script.
        strategy: one of `STRATEGIES`, for TensorFlow and Keras.
        servers: parameter servers.
        gpus: GPUs for each trainer; None for one where the queue has GPUs.
        cores: cores for each trainer, and with them memory; None for the GPU's share of its node, or one.
        exclusive: whether the nodes are to be the job's alone.
        arguments: words for the script.
    """

    framework: str
    environment: str
    config: str
    workspace: Path
    nodes: int
    trainers: int
    passes: int
    limit: int | None
    submitter: str
    priority: str
    queue: str
    name: str
    thirdparty: Path | None
    log_period: int
    dot_period: int
    saving_period: int
    strategy: str
    servers: int
    gpus: int | None
    cores: int | None
    exclusive: bool
    arguments: tuple[str, ...]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RefusedError(f"{self.prog}: {message}\nAsk for help with: {self.prog} --help")


def parser(program: str, framework: str = "") -> argparse.ArgumentParser:
    """Return the parser; `framework` is the one that need not be named."""
    made = _Parser(
        prog=program,
        description="Train on many nodes at once.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--framework", choices=FRAMEWORKS, default=framework or None, required=not framework, help="what the script is written for"
    )
    made.add_argument("--config", required=True, metavar="FILE", help="the script that every trainer runs")
    made.add_argument("--environment", default="", metavar="NAME", help="environment on the nodes (default: the framework's)")
    made.add_argument("--num-nodes", type=_count, default=1, metavar="N", help="nodes (default: %(default)s)")
    made.add_argument("--trainer-count", type=_count, default=1, metavar="N", help="trainers on each node (default: %(default)s)")
    made.add_argument(
        "--num-passes", type=_count, default=1, metavar="N", help="passes over the data, for the script to read (default: %(default)s)"
    )
    made.add_argument("--time-limit", default="", metavar="HH:MM:SS", help="the job is ended after this time (default: the queue's)")
    made.add_argument("--submitter", default="", metavar="S", help="who to ask about the job; kept as its comment")
    made.add_argument("--job-priority", choices=PRIORITIES, default="normal", help="within the queue (default: %(default)s)")
    made.add_argument("--where", default="", metavar="QUEUE", help="the queue (default: the cluster's default queue)")
    made.add_argument("--job-name", default="", metavar="J", help="also the name of the results' folder (default: the script's)")
    made.add_argument(
        "--workspace", default=".", metavar="DIR", help="shipped to every node, without what .trainyardignore lists (default: .)"
    )
    made.add_argument("--thirdparty", default="", metavar="DIR", help="shipped as well; its before_hook.sh runs on every node first")
    for name, text in (("log", "batches between log lines"), ("dot", "batches between dots"), ("saving", "passes between checkpoints")):
        made.add_argument(
            f"--{name}-period", type=_count, default=1 if name == "saving" else 100, metavar="N", help=f"{text}, for the script to read"
        )
    made.add_argument("--strategy", choices=STRATEGIES, default=STRATEGIES[0], help="of TensorFlow and Keras (default: %(default)s)")
    made.add_argument("--num-servers", type=_count, default=1, metavar="N", help="parameter servers (default: %(default)s)")
    made.add_argument(
        "--gpus-per-trainer", type=_number, default=None, metavar="N", help="GPUs for each (default: 1 where the queue has GPUs)"
    )
    made.add_argument(
        "--cores-per-trainer", type=_count, default=None, metavar="N", help="and memory with them (default: its GPU's share, or 1)"
    )
    made.add_argument("--exclusive", action="store_true", help="nobody else's job on the nodes meanwhile")
    made.add_argument("--watch", action="store_true", help="follow the logs until the job has ended; its exit status is this command's")
    made.add_argument("--here", action="store_true", help="in the allocation that this is typed in (salloc), and wait for it")
    made.add_argument("--dry-run", action="store_true", help="show what would be shipped and submitted, and do neither")
    made.add_argument("arguments", nargs="*", metavar="-- WORD", help="words for the script")
    return made


def parsed(words: Sequence[str], program: str, framework: str = "") -> argparse.Namespace:
    """Read a command line; what follows the first ``--`` is the script's, as it is.

    Raises:
        RefusedError: an option is unknown or its value cannot be used.
    """
    end = words.index("--") if "--" in words else len(words)
    chosen, unknown = parser(program, framework).parse_known_args(with_dashes(words[:end]))
    if unknown:
        raise RefusedError(
            f"{program}: unrecognized arguments: {' '.join(unknown)}\n"
            f"Arguments for the script go after --, such as: {program} ... -- {unknown[0]} ...\nAsk for help with: {program} --help"
        )
    chosen.arguments += words[end + 1 :]
    return chosen


def _number(words: str) -> int:
    if not re.fullmatch(r"\d{1,6}", words):
        raise argparse.ArgumentTypeError(f"{words!r} is no whole number")
    return int(words)


def _count(words: str) -> int:
    if not (number := _number(words)):
        raise argparse.ArgumentTypeError("it has to be 1 or more")
    return number


def with_dashes(words: Sequence[str]) -> list[str]:
    """Write the names of options with dashes, as ``--num_nodes`` means ``--num-nodes``."""
    return [re.sub(r"^--[A-Za-z_]+", lambda name: name[0].replace("_", "-"), word) for word in words]


def script(config: str, workspace: Path) -> Path:
    """Return the script's path; a relative one starts at the workspace or, where there is none, at the present folder.

    Raises:
        RefusedError: it is no file, or lies outside of the workspace.
    """
    places = [workspace / config, Path.cwd() / config]
    found = next((path.resolve() for path in places if path.is_file()), None)
    if not found:
        raise RefusedError(f"--config: there is no file {' and no '.join(dict.fromkeys(map(str, places)))}.")
    if not found.is_relative_to(workspace):
        raise RefusedError(
            f"--config: {found} is not in the workspace {workspace}, which is what the nodes get. Name its folder with --workspace."
        )
    return found


def wish(options: argparse.Namespace) -> Wish:
    """Return the job that options describe.

    Raises:
        RefusedError: a file is missing or a word cannot be used; the option is named.
    """
    workspace = Path(options.workspace).resolve()
    if not workspace.is_dir():
        raise RefusedError(f"--workspace: {workspace} is no folder.")
    inside = script(options.config, workspace)
    thirdparty = Path(options.thirdparty).resolve() if options.thirdparty else None
    if thirdparty and not thirdparty.is_dir():
        raise RefusedError(f"--thirdparty: there is no folder {thirdparty}.")
    name = options.job_name or inside.stem
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name):
        raise RefusedError(
            f"--job-name: {name!r} cannot be a folder's name; right are up to 63 letters, digits, dots, dashes and underscores."
        )
    try:
        limit = seconds(options.time_limit) if options.time_limit else None
    except ValueError:
        raise RefusedError(f"--time-limit: {options.time_limit!r} is no time; right is HH:MM:SS, such as 00:30:00.") from None
    if limit == 0:
        raise RefusedError("--time-limit: no job can end in no time; right is HH:MM:SS, such as 00:30:00.")
    environment = options.environment or options.framework
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", environment):
        raise RefusedError(f"--environment: {environment!r} is no name of an environment.")
    if options.strategy != STRATEGIES[0] and options.framework not in {"tensorflow", "keras"}:
        raise RefusedError(f"--strategy: {options.strategy} is TensorFlow's; {options.framework} has but one way.")
    if options.strategy != STRATEGIES[0] and options.num_nodes * options.trainer_count < 2:
        raise RefusedError("--strategy: parameter-server needs two trainers or more: one leads, the others compute.")
    return Wish(
        framework=options.framework,
        environment=environment,
        config=str(inside.relative_to(workspace)),
        workspace=workspace,
        nodes=options.num_nodes,
        trainers=options.trainer_count,
        passes=options.num_passes,
        limit=limit,
        submitter=options.submitter,
        priority=options.job_priority,
        queue=options.where,
        name=name,
        thirdparty=thirdparty,
        log_period=options.log_period,
        dot_period=options.dot_period,
        saving_period=options.saving_period,
        strategy=options.strategy,
        servers=options.num_servers,
        gpus=options.gpus_per_trainer,
        cores=options.cores_per_trainer,
        exclusive=options.exclusive,
        arguments=tuple(options.arguments),
    )


def fits_here(job: Wish, here: Allocation) -> None:
    """Check a job against the allocation that it is to run in.

    Raises:
        RefusedError: it asks for what the allocation has not, or has decided.
    """
    decided = {"--where": job.queue, "--time-limit": job.limit, "--exclusive": job.exclusive}
    words = [word for word, value in decided.items() if value]
    if words:
        raise RefusedError(f"{words[0]}: --here takes the allocation {here.job} as it is. Leave the one or the other out.")
    if job.nodes != here.nodes:
        raise RefusedError(f"--num-nodes: the allocation {here.job} has {here.nodes}, not {job.nodes}.")
    if job.trainers * (job.cores or 1) > here.cores:
        raise RefusedError(
            f"--trainer-count: the allocation {here.job} has {here.cores} cores on a node, too few for {job.trainers} trainers."
        )
    if job.gpus and job.gpus * job.trainers > here.gpus:
        raise RefusedError(f"--gpus-per-trainer: the allocation {here.job} has {here.gpus} GPUs on a node, not {job.gpus * job.trainers}.")


def fits(job: Wish, queues: Mapping[str, Queue]) -> Queue:
    """Return the queue that a job goes to.

    Raises:
        RefusedError: there is none of that name, or it never could take the job.
    """
    there = "There are: " + "; ".join(map(str, queues.values())) + "." if queues else "There is none that you may use."
    queue = queues.get(job.queue) if job.queue else next((queue for queue in queues.values() if queue.default), None)
    if not queue:
        raise RefusedError(
            f"--where: there is no queue {job.queue}. {there}" if job.queue else f"--where: name a queue; no one is the default. {there}"
        )
    if not queue.open:
        raise RefusedError(f"--where: the queue {queue.name} takes no jobs now. {there}")
    if job.limit is not None and queue.limit is not None and job.limit > queue.limit:
        raise RefusedError(
            f"--time-limit: {duration(job.limit)} is more than the queue {queue.name} allows, {duration(queue.limit)}. {there}"
        )
    if job.nodes > queue.nodes:
        raise RefusedError(f"--num-nodes: the queue {queue.name} has {queue.nodes}, not {job.nodes}. {there}")
    if job.trainers > queue.cores:
        raise RefusedError(
            f"--trainer-count: a node of the queue {queue.name} has {queue.cores} cores, too few for {job.trainers} trainers. {there}"
        )
    if job.cores and job.cores * job.trainers > queue.cores:
        raise RefusedError(
            f"--cores-per-trainer: a node of the queue {queue.name} has {queue.cores} cores, not {job.cores * job.trainers}. {there}"
        )
    if job.gpus and job.gpus * job.trainers > queue.gpus:
        raise RefusedError(
            f"--gpus-per-trainer: a node of the queue {queue.name} has {queue.gpus} GPUs, not {job.gpus * job.trainers}. {there}"
        )
    return queue
