"""``trainyard resume``: lets jobs start on nodes again that were drained or down."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainyard import ansible_options
from trainyard.cluster import Cluster
from trainyard.progress import console


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "resume",
        help="let jobs start on nodes again",
        description=__doc__,
        epilog="example: ./trainyard resume -i inventory/mylab gpu3 gpu4",
    )
    verb.add_argument("-i", "--inventory", required=True, type=Path, help="hosts.yml, or the folder with it")
    verb.add_argument("names", metavar="NAME", nargs="+", help="nodes")
    ansible_options.add(verb, playbook=False)
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Resume; return the exit status."""
    lab = Cluster(arguments.inventory)
    for name in arguments.names:
        lab.host(name)  # a wrong name is refused before any node is resumed
    for name in arguments.names:
        reason = lab.state(name).reason
        words = f"takes jobs again (was: {reason})" if lab.resume(name) else "took jobs all along"
        console.print(f"{name}: {words}", highlight=False, markup=False, soft_wrap=True)
    return 0
