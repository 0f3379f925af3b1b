"""``trainyard test``: the project's own tests."""

from __future__ import annotations

import argparse

from trainyard import checks


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "test",
        help="run the project's own tests",
        description=__doc__,
        epilog="Without a word: everything but --faults and --slow. The lab of `up` is used, and brought up where it is not there.",
    )
    which = verb.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="linters, types and unit tests")
    which.add_argument("--nodes", action="store_true", help="what boots single containers, Molecule's scenarios among it")
    which.add_argument("--lab", action="store_true", help="the end-to-end scenario on three nodes")
    which.add_argument("--security", action="store_true", help="a cluster under attack by its users, its network and one of its nodes")
    which.add_argument("--faults", action="store_true", help="the full sweep: the controller killed after every task, one after another")
    which.add_argument(
        "--slow",
        action="store_true",
        help="drivers and shared folders in virtual machines that really boot; CUDA toolkits; Caffe's old system; clusters of nodes",
    )
    which.add_argument("--molecule", metavar="SCENARIO", help="one scenario of Molecule")
    verb.add_argument("--release", choices=checks.RELEASES, help="one release of Debian for --molecule; else all that it is for")
    verb.add_argument("--command", default="test", help="Molecule's command for --molecule, such as converge, verify, login or destroy")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run them."""
    checks.prepare(containers=not arguments.quick)
    if arguments.molecule:
        releases = [arguments.release] if arguments.release else []
        return checks.run([checks.molecule(arguments.molecule, releases, arguments.command.split())])
    if arguments.security:
        return checks.run(checks.security())
    if arguments.faults:
        return checks.run(checks.faults())
    if arguments.slow:
        return checks.run(checks.slow())
    steps = []
    if arguments.lab or not (arguments.quick or arguments.nodes):  # first, since it takes longest
        steps += checks.lab()
    if not (arguments.quick or arguments.nodes or arguments.lab):
        steps += checks.security()
    if arguments.quick or not (arguments.nodes or arguments.lab):
        steps += checks.quick()
    if arguments.nodes or not (arguments.quick or arguments.lab):
        steps += checks.nodes() + checks.sanity()
    everything = not (arguments.quick or arguments.nodes or arguments.lab)
    return checks.run(steps, checks.faults() + checks.slow() if everything else ())
