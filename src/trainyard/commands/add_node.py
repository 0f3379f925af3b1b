"""``trainyard add-node``: brings a machine into a cluster, closed until a job of two nodes has proven it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils._report import what_to_do
from ansible_collections.trainyard.core.plugins.plugin_utils.checks import admission

from trainyard import ansible_options, cluster, host_keys, newcomer, playbooks, runner
from trainyard.cluster import Cluster, Verdict
from trainyard.commands import plan
from trainyard.drafts import draft, replace, show_change
from trainyard.errors import TrainyardError
from trainyard.hosts_file import HostsFile, locate
from trainyard.progress import console

EXAMPLES = """\
examples:
  ./trainyard add-node -i inventory/mylab gpu5 --address 192.0.2.15            into the groups that all compute nodes share
  ./trainyard add-node -i inventory/mylab gpu5 --address 192.0.2.15 --like gpu4   into those of gpu4
  ./trainyard add-node -i inventory/mylab gpu5 --address 192.0.2.15 --check    check and show what would be written; change nothing

The new node and the controller are set up; on the other nodes only the firewall learns its address. Where a step fails, inventory and
cluster are as before; interrupted, the same command goes on. exit status: 0 in the queues; 1 not, and what to do stands there;
2 where wishes clash (see plan); 64 for unusable words
"""
CLOSED = "slurm_closed"
CLUSTER = "playbooks/cluster.yml"
FIREWALL = "playbooks/firewall.yml"
MEMBERS = "cluster"
"""The group whose nodes admit each other."""
CONNECTION = {
    "msg": {
        "host": "{{ ansible_host | default(inventory_hostname) }}",
        "port": "{{ ansible_port | default('') | string }}",
        "words": "{{ ansible_ssh_common_args | default('') }} {{ ansible_ssh_extra_args | default('') }}",
        "host_name": "{{ names_and_time_hostname | default('') }}",
    }
}


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "add-node",
        help="bring a machine into a cluster, and prove it before jobs reach it",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("-i", "--inventory", required=True, type=Path, help="hosts.yml, or the folder with it")
    verb.add_argument("name", metavar="NAME", help="the node's name in the inventory")
    verb.add_argument("--address", required=True, help="by which it is reached")
    verb.add_argument("--user", help="account that logs in there, where it is another than the inventory's")
    verb.add_argument("--key", type=Path, metavar="FILE", help="private key, where it is another than the inventory's")
    verb.add_argument("--like", default="", metavar="NODE", help="take the groups of this node")
    verb.add_argument("--host-key", default="", metavar="SHA256:...", help="fingerprint of its host key, so that nobody is asked")
    verb.add_argument("--check", action="store_true", help="check, show what would be written, and change nothing")
    ansible_options.add(verb, but=("user",))
    verb.add_argument("--deadline", default="5m", metavar="TIME", help="how long the proof waits for a free core of another node (5m)")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check, write, bring up, prove and open; return the exit status."""
    name, inventory = arguments.name, arguments.inventory
    wait = cluster.seconds(arguments.deadline)
    path = locate(inventory)
    before = path.read_text()
    lab = Cluster(inventory)
    own = lab.file.hosts().get(name, {})
    if own.get(CLOSED) is True and own.get("ansible_host") == arguments.address:  # an earlier run of this was cut off, or found no room
        after, before = before, HostsFile(before).without_node(name)
    else:
        said = newcomer.taken(name, arguments.address, lab.file.hosts())
        if said:
            raise TrainyardError(said)
        after = HostsFile(before).with_node(name, lab.file.groups_for(arguments.like), variables(arguments))
    opened = HostsFile(after).with_variable(name, CLOSED)

    with draft(path, after) as tried:
        check(lab, tried, arguments)
        status = show_plan(tried, name)
        if status:
            return status
        show_change(path, before, opened)
        if arguments.check:
            return 0
        replace(path, after)
        try:
            if playbooks.run(playbooks.SITE, inventory, limit=f"{name},{lab.controller}"):
                raise TrainyardError(f"{name} could not be brought up; what failed stands above.")
            admit(inventory, inventory)
            console.print(f"· proving {name} together with another node", highlight=False)
            lab = Cluster(inventory)
            proof = lab.proof(name, wait)
            console.print(proof.output, highlight=False, markup=False, soft_wrap=True)
            if proof.verdict is Verdict.NO_ROOM:
                console.print(
                    f"No other node had a free core within {arguments.deadline}. {name} stays closed and in the inventory. "
                    "Run the same command again when the cluster is less full.",
                    highlight=False,
                    soft_wrap=True,
                )
                return 1
            if proof.verdict is Verdict.FAILED:
                raise TrainyardError(f"The job of two nodes failed on {name}; what it said stands above.")
            tried.write_text(opened)
            if playbooks.run(CLUSTER, tried, limit=lab.controller) or not lab.queues(name):
                raise TrainyardError(f"{name} could not be put into the queues.")
        except TrainyardError as error:
            raise TrainyardError(f"{error}\n{withdraw(inventory, path, before, lab.controller, name)}") from error
        replace(path, opened)
    console.print(f"{name} is proven and stands in the queues {', '.join(lab.queues(name))}.", highlight=False)
    console.print("The other nodes' hosts files learn its name with their next run: ./trainyard apply", highlight=False)
    return 0


def variables(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what stands beside the node in the inventory."""
    given = {"ansible_host": arguments.address, "ansible_user": arguments.user}
    given["ansible_ssh_private_key_file"] = str(arguments.key.resolve()) if arguments.key else None
    return {key: value for key, value in given.items() if value} | {CLOSED: True}


def check(lab: Cluster, tried: Path, arguments: argparse.Namespace) -> None:
    """Refuse a machine that cannot join.

    Raises:
        TrainyardError: it cannot, or it or the controller is not reached.
    """
    name = arguments.name
    connection = runner.module(tried, [name], "ansible.builtin.debug", CONNECTION)[name].get("msg")
    if not isinstance(connection, Mapping):
        raise TrainyardError(f"How {name} is reached cannot be read from the inventory: {connection}")
    words = [*shlex.split(connection["words"]), *(["-p", connection["port"]] if connection["port"] else [])]
    host_keys.make_known(name, words, connection["host"], arguments.host_key)
    known = lab.known
    seen = runner.module(tried, [name, lab.controller], "trainyard.core.admission_info", {})
    for host, told in seen.items():
        if "machine" not in told:
            what = str(told.get("msg") or "no answer").strip()[-1000:]
            raise TrainyardError(f"{host} was not reached, or not as root: {what}\n-> {what_to_do(what, host)}")
    try:
        new, controller = (admission.machine(seen[host]["machine"]) for host in (name, lab.controller))
    except ValueError as error:
        raise TrainyardError(f"{name} or {lab.controller} does not report what it is: {error}") from error
    refused = newcomer.refusals(name, new, controller, known, str(connection.get("host_name") or ""))
    if lab.confined(but=name):
        refused += newcomer.unconfined(
            name, str(runner.module(tried, [name], "trainyard.core.slurm_node_info", {})[name].get("unconfined", ""))
        )
    if refused:
        raise TrainyardError("\n".join([*refused, "Nothing was changed."]))
    for remark in newcomer.remarks(name, new, {node: gpus for node, gpus in lab.gpus().items() if node != name}):
        console.print(remark, style="yellow", highlight=False, soft_wrap=True)


def show_plan(tried: Path, name: str) -> int:
    """Show what `plan` says for the node, and return its exit status; 0 where nothing is planned."""
    if not plan.planned(tried, name):
        console.print(f"Nothing is planned for {name}: it gets what the roles' defaults say.", highlight=False)
        return 0
    return plan.run(argparse.Namespace(inventory=tried, limit=name, offline=False, json=False, all_reasons=False))


def admit(tried: Path, inventory: Path) -> None:
    """Have the firewalls of all nodes admit the nodes of an inventory and no other; running jobs and open connections go on.

    A node that is not reached learns it with its next run, which is said.

    Args:
        tried: the inventory that counts.
        inventory: the one to name to the user.
    """
    nodes = HostsFile(locate(tried).read_text()).all_of(MEMBERS)
    if nodes and playbooks.run(FIREWALL, tried, limit=",".join(nodes)):
        console.print(
            "Not every node's firewall knows which nodes the cluster has now; the output above names them. Once they are reachable: "
            f"./trainyard apply -i {inventory} --playbook {FIREWALL}",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )


def withdraw(inventory: Path, path: Path, before: str, controller: str, name: str) -> str:
    """Take a node that failed out of the inventory and of Slurm again, and say what is so now."""
    replace(path, before)
    failed = playbooks.run(CLUSTER, inventory, limit=controller)
    admit(inventory, inventory)
    if failed:
        return f"The inventory is as before; Slurm is not: ./trainyard apply -i {inventory} --limit {controller} takes {name} out of it."
    return f"The inventory and the cluster are as before. What was installed on {name} stays; mend it and run the same command again."
