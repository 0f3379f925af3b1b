"""``trainyard apply``: brings the nodes of an inventory to what it describes."""

from __future__ import annotations

import argparse

from trainyard import playbooks


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "apply",
        help="bring the nodes of an inventory to what it describes",
        description=__doc__,
        epilog="example: ./trainyard apply -i inventory/mylab --check --limit gpu1",
    )
    playbooks.add_arguments(verb)
    verb.add_argument("-C", "--check", action="store_true", help="say what would change and change nothing")
    verb.add_argument("-D", "--diff", action="store_true", help="show the changes to files")
    verb.add_argument("--playbook", default=playbooks.SITE, help="another playbook than site.yml, from the repository's root")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the playbook."""
    words = [word for word, given in (("--check", arguments.check), ("--diff", arguments.diff)) if given]
    return playbooks.run(arguments.playbook, arguments.inventory, words=words, **playbooks.common(arguments))
