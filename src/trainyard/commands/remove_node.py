"""``trainyard remove-node``: drains a node, waits for its jobs, and takes it out of Slurm and of the inventory."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainyard import ansible_options, cluster, playbooks
from trainyard.cluster import Cluster
from trainyard.commands.add_node import CLUSTER, admit
from trainyard.drafts import draft, replace, show_change
from trainyard.errors import TrainyardError
from trainyard.hosts_file import COMPUTE, HostsFile, locate
from trainyard.progress import console

EXAMPLES = """\
examples:
  ./trainyard remove-node -i inventory/mylab gpu5 --deadline 12h     waits half a day for its jobs, and then says which are left
  ./trainyard remove-node -i inventory/mylab gpu5 --kill-jobs        ends them
  ./trainyard remove-node -i inventory/mylab gpu5 --undo             takes everything of Trainyard off the node as well

exit status: 0 when it is gone; 1 when not, and what to do stands there; 64 for unusable words
"""
UNDO = "playbooks/undo.yml"
REASON = "trainyard removes this node"


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "remove-node",
        help="drain a node and take it out of a cluster and its inventory",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("-i", "--inventory", required=True, type=Path, help="hosts.yml, or the folder with it")
    verb.add_argument("name", metavar="NAME", help="the node's name in the inventory")
    verb.add_argument("--deadline", default="1h", metavar="TIME", help="how long its jobs are waited for (1h)")
    verb.add_argument("--kill-jobs", action="store_true", help="end its jobs rather than wait for them")
    verb.add_argument("--undo", action="store_true", help="undo all roles on the node itself")
    ansible_options.add(verb)
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Drain, wait, undo and take out; return the exit status."""
    name, inventory = arguments.name, arguments.inventory
    wait = cluster.seconds(arguments.deadline)
    path = locate(inventory)
    before = path.read_text()
    lab = Cluster(inventory)
    computes = lab.file.all_of(COMPUTE)
    if name not in computes:
        raise TrainyardError(f"{name} does not compute in this inventory. Nodes that do: {', '.join(computes)}")
    if name == lab.controller:
        raise TrainyardError(f"{name} is the cluster's controller: without it there is no cluster. Take it out of {COMPUTE} by hand.")
    if computes == [name]:
        raise TrainyardError(f"{name} is the last node that computes. To end the cluster: ./trainyard apply -e trainyard_state=absent")
    after = HostsFile(before).without_node(name)
    with draft(path, after) as tried:
        show_change(path, before, after)
        # A queue that names it, say, or a job that waits for it by name. The jobs that run there are waited for below.
        if playbooks.run(
            CLUSTER, tried, words=["--check"], limit=lab.controller, variables={"trainyard_leaving": [lab.known.get(name, name)]}
        ):
            raise TrainyardError(f"The cluster cannot be without {name}; what stands against it stands above. Nothing was changed.")
        if name in lab.known:
            lab.drain(name, REASON)
            if arguments.kill_jobs:
                lab.kill_jobs(name)
            left = lab.wait_for_jobs(name, wait, lambda text: console.print(f"· {text}", highlight=False, markup=False))
            if left:
                raise TrainyardError(
                    f"{name} still has {', '.join(left)} after {arguments.deadline}. It stays drained and in the cluster. Run the same "
                    f"command again to wait on, with --kill-jobs to end them, or give it back: ./trainyard resume -i {inventory} {name}"
                )
        if arguments.undo and playbooks.run(UNDO, inventory, limit=name):
            raise TrainyardError(f"The undo failed on {name}, which stays drained and in the inventory. Mend it, or leave --undo away.")
        if playbooks.run(CLUSTER, tried, limit=lab.controller):
            raise TrainyardError(f"Slurm could not be told; {name} stays drained and in the inventory. Run the same command again.")
        admit(tried, inventory)
        replace(path, after)
    console.print(f"{name} is out of the cluster and of {path}.", highlight=False, soft_wrap=True)
    console.print("The other nodes' hosts files forget its name with their next run: ./trainyard apply", highlight=False)
    variables = path.parent / "host_vars"
    left_over = sorted(variables.glob(f"{name}*")) if variables.is_dir() else []
    if left_over:
        console.print(f"Its variables stay: {', '.join(str(file) for file in left_over)}", highlight=False, soft_wrap=True)
    return 0
