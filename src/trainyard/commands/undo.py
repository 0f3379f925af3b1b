"""``trainyard undo``: removes everything of Trainyard, or some roles, from nodes."""

from __future__ import annotations

import argparse
import difflib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from rich.text import Text

from trainyard import inventory, playbooks
from trainyard.errors import TrainyardError, UsageError
from trainyard.paths import REPOSITORY
from trainyard.progress import console

UNDO = "playbooks/undo.yml"
NOTHING_TO_UNDO = {"catalog", "plan"}
"""Roles that put nothing on a node."""
JOBS = {"slurm", "training", "framework_env", "shared_storage"}
"""Roles that jobs run with."""
EXAMPLES = """\
examples:
  ./trainyard undo -i inventory/mylab --check                   what would be removed from which nodes; asks nothing, changes nothing
  ./trainyard undo -i inventory/mylab --limit gpu3              everything, from one node
  ./trainyard undo -i inventory/mylab jupyter tensorboard       two roles, from all nodes that have them
  ./trainyard undo -i inventory/mylab --limit gpu3 --yes        without asking, for scripts

Accounts, homes, data, and packages that were there before stay. To take a node out of a cluster as well: ./trainyard remove-node --undo
exit status: 0 when all is removed; 1 when not, or nobody confirmed it; 64 for unusable arguments
"""
STAYS = "What stays: accounts, homes, data and logs, the notebooks, and packages that were there before Trainyard."


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "undo",
        help="remove Trainyard, or some of its roles, from nodes",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    playbooks.add_arguments(verb, tags=False)  # the roles are the tags
    verb.add_argument("roles", metavar="ROLE", nargs="*", help="roles to undo; none means all")
    verb.add_argument("-C", "--check", action="store_true", help="list what would be removed, and change nothing")
    verb.add_argument("-y", "--yes", action="store_true", help="do not ask for confirmation")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show, ask, and undo; return the exit status."""
    listed = inventory.listing(arguments.inventory, arguments.limit)
    found = targets(listed, wanted(arguments.roles))
    if not found:
        raise TrainyardError(f"No node of the inventory has the roles {', '.join(arguments.roles)}. Nothing is to be removed.")
    console.print("Would be removed:" if arguments.check else "To be removed:", highlight=False)
    for role, nodes in found.items():
        console.print(f"  {role} from {', '.join(nodes)}", highlight=False)
    console.print(STAYS, highlight=False)
    if JOBS & set(found) and targets(listed, ["slurm"]):
        console.print("Jobs on these nodes lose what they run with. Wait for them first:", highlight=False)
        console.print(f"  ./trainyard drain -i {shlex.quote(str(arguments.inventory))} --wait NODE", highlight=False, soft_wrap=True)
    if not (arguments.check or arguments.yes):
        confirm()
    options = [*(["--tags", ",".join(found)] if arguments.roles else []), *(["--check"] if arguments.check else [])]
    return playbooks.run(UNDO, arguments.inventory, words=options, **playbooks.common(arguments))


def confirm() -> None:
    """Have a person type yes.

    Raises:
        UsageError: there is no terminal.
        TrainyardError: something else was typed.
    """
    if not sys.stdin.isatty():
        raise UsageError("undo asks for confirmation, and there is no terminal to ask on. Use --yes, or --check to only look.")
    try:
        answer = console.input(Text("Type yes to remove all of this: "))
    except EOFError:
        answer = ""
    if answer.strip() != "yes":
        raise TrainyardError("Not confirmed. Nothing was removed.")


def wanted(names: Sequence[str]) -> list[str]:
    """Return the roles that are meant, in the order in which they are undone.

    Raises:
        UsageError: there is no such role; names the nearest.
    """
    known = list(roles())
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise UsageError(f"'{name}' is not a role that can be undone.{hint} Roles: {', '.join(sorted(known))}")
    return [role for role in known if role in names or not names]


def roles() -> dict[str, list[str]]:
    """Return every role that playbooks/undo.yml undoes, in its order, with the groups that have it."""
    found: dict[str, list[str]] = {}
    folder = (REPOSITORY / UNDO).parent
    for entry in yaml.safe_load((REPOSITORY / UNDO).read_text()):
        for play in yaml.safe_load((folder / entry["ansible.builtin.import_playbook"]).read_text()):
            for role in play.get("roles", []):
                name = role if isinstance(role, str) else role["role"]
                if name not in NOTHING_TO_UNDO:
                    found.setdefault(name, []).append(play["hosts"])
    return found


def targets(listed: Mapping[str, Any], names: Sequence[str]) -> dict[str, list[str]]:
    """Return each role with the nodes that may have it; a role without nodes is left out."""
    groups = roles()
    found = {name: list(dict.fromkeys(node for group in groups[name] for node in inventory.hosts_of(listed, group))) for name in names}
    return {name: nodes for name, nodes in found.items() if nodes}
