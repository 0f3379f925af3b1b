"""``trainyard verify``: trains every framework on every node again and says what works."""

from __future__ import annotations

import argparse

from trainyard import playbooks


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "verify",
        help="train every framework again and say what works",
        description=__doc__,
        epilog="example: ./trainyard verify -i inventory/mylab --json result.json --html result.html",
    )
    playbooks.add_arguments(verb)
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the proofs."""
    return playbooks.run(playbooks.VERIFY, arguments.inventory, variables={"verification_rerun": True}, **playbooks.common(arguments))
