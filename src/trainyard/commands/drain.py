"""``trainyard drain``: lets no new job start on nodes; those that run go on."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainyard import ansible_options, cluster
from trainyard.cluster import Cluster
from trainyard.errors import TrainyardError
from trainyard.progress import console

EXAMPLES = """\
examples:
  ./trainyard drain -i inventory/mylab gpu3 --reason "a fan rattles"
  ./trainyard drain -i inventory/mylab gpu3 gpu4 --wait --deadline 8h    come back when they have no job any more
"""


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "drain",
        help="let no new job start on nodes",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("-i", "--inventory", required=True, type=Path, help="hosts.yml, or the folder with it")
    verb.add_argument("names", metavar="NAME", nargs="+", help="nodes")
    verb.add_argument("--reason", default="drained by trainyard", help="what sinfo -R shows")
    verb.add_argument("--wait", action="store_true", help="wait until they have no job")
    verb.add_argument("--deadline", default="1h", metavar="TIME", help="how long (1h)")
    ansible_options.add(verb, playbook=False)
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Drain, and perhaps wait; return the exit status."""
    lab, wait = Cluster(arguments.inventory), cluster.seconds(arguments.deadline)
    for name in arguments.names:
        lab.host(name)  # a wrong name is refused before any node is drained
    for name in arguments.names:
        new = lab.drain(name, arguments.reason)
        said = "drained" if new else f"was drained before ({lab.state(name).reason}) and stays so"
        console.print(f"{name}: {said}", highlight=False, markup=False, soft_wrap=True)
    left = {}
    for name in arguments.names if arguments.wait else ():
        left[name] = lab.wait_for_jobs(name, wait, lambda text: console.print(f"· {text}", highlight=False, markup=False))
    late = [f"{name}: {', '.join(jobs)}" for name, jobs in left.items() if jobs]
    if late:
        raise TrainyardError(f"Jobs are left after {arguments.deadline}, and the nodes stay drained. {'; '.join(late)}")
    return 0
