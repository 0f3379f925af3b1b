"""``trainyard plan``: what fits the nodes of an inventory: drivers, CUDA, and one wheel set per environment, and why."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils._report import what_to_do
from ansible_collections.trainyard.core.plugins.plugin_utils import _fleet_words as words
from ansible_collections.trainyard.core.plugins.plugin_utils._locked import with_locked_libraries
from ansible_collections.trainyard.core.plugins.plugin_utils._words import answer

from trainyard import ansible_options, answers, catalog, runner
from trainyard import inventory as inventory_files
from trainyard.errors import TrainyardError, UsageError
from trainyard.progress import Progress, console

PLAYBOOK = "playbooks/plan.yml"
EXAMPLES = """\
examples:
  ./trainyard plan -i inventory/mylab               ask the nodes what they are; change nothing
  ./trainyard plan -i inventory/mylab --offline     believe the inventory: plan_os, plan_gpus, plan_driver, plan_kernel
  ./trainyard plan -i inventory/mylab --json | jq .fleet

What is wanted stands in the inventory: plan_environments, plan_pins and others, see roles/plan/README.md.
exit status: 0 with the plan; 1 where a node does not answer; 2 where wishes clash, which is explained; 64 for words that mean nothing
or are missing
"""


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "plan",
        help="what fits the nodes of an inventory, and why",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("-i", "--inventory", required=True, type=Path, help="inventory file or folder")
    verb.add_argument("-l", "--limit", metavar="NODES", help="only these nodes (an Ansible pattern)")
    verb.add_argument("--offline", action="store_true", help="ask no node; the inventory says what each one is")
    answers.add_arguments(verb)
    ansible_options.add(verb, playbook=False)
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Answer, and return the exit status."""
    hosts = inventory_hosts(arguments.inventory, arguments.limit)
    if words.unwished(hosts):
        raise UsageError(words.unwished(hosts))
    hosts = {name: host for name, host in hosts.items() if words.wanted(host)}
    if not hosts:
        raise TrainyardError(
            "The inventory wants nothing planned: set plan_environments, plan_pins or plan_profile (roles/plan/README.md)."
        )
    if not arguments.offline:
        _ask(arguments.inventory, arguments.limit, hosts, quiet=arguments.json)
    rows, locks = with_locked_libraries(catalog.load(), str(catalog.LOCKS)), catalog.locks()
    try:
        found = answer(rows, *words.fleet(rows, hosts, offline=arguments.offline), answers.today(), locks)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return answers.show(rows, found, arguments, locks)


def planned(inventory: Path, limit: str) -> bool:
    """Say whether anything is to be planned for the nodes that are meant."""
    return any(words.wanted(host) for host in inventory_hosts(inventory, limit).values())


def inventory_hosts(inventory: Path, limit: str | None = None) -> dict[str, dict[str, Any]]:
    """Return the variables ``plan_*`` of each host of an inventory, and whether it has to have wishes, as in playbooks.

    Raises:
        TrainyardError: it cannot be read, or it has no host.
    """
    listed = inventory_files.listing(inventory, limit)
    variables, every = listed.get("_meta", {}).get("hostvars", {}), (*words.NAMES, words.EXPECTED)
    members = inventory_files.hosts_of(listed, words.GROUP)
    return {
        name: {words.EXPECTED: name in members, **{key: value for key, value in variables.get(name, {}).items() if key in every}}
        for name in inventory_files.hosts_of(listed)
    }


def _ask(inventory: Path, limit: str | None, hosts: Mapping[str, dict[str, Any]], *, quiet: bool) -> None:
    """Add to each host what it says of itself.

    Raises:
        TrainyardError: one does not answer.
    """

    advice: list[str] = []

    def event(happened: runner.Event) -> None:
        if progress:
            progress.event(happened)
        data = happened.get("event_data") or {}
        if happened.get("event") in {"runner_on_unreachable", "runner_on_failed"} and data.get("host") in hosts:
            advice.append(what_to_do(str((data.get("res") or {}).get("msg", "")), data["host"]))
        if happened.get("event") == "runner_on_ok" and data.get("host") in hosts:
            said = data.get("res") or {}
            facts = {key.removeprefix("ansible_"): value for key, value in (said.get("ansible_facts") or {}).items()}
            hosts[data["host"]].setdefault("ansible_facts", {}).update(facts)
            if "gpu_info" in said:
                hosts[data["host"]]["gpu_info"] = said["gpu_info"]

    command = ["--limit", limit] if limit else []
    with nullcontext() if quiet else Progress(f"{PLAYBOOK} on {inventory}") as progress:
        outcome = runner.run(PLAYBOOK, inventory, command, on_event=event, environment={})
    if outcome.interrupted:
        raise KeyboardInterrupt
    silent = [name for name, host in hosts.items() if "gpu_info" not in host]
    if silent:
        console.print(outcome.output[-3000:], highlight=False, markup=False)
        lines = [f"No answer from {', '.join(silent)}. Log in by hand to see why, or leave nodes out with --limit.", *dict.fromkeys(advice)]
        raise TrainyardError("\n-> ".join(lines))
