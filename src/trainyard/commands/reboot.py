"""``trainyard reboot``: reboots the nodes of a cluster one after another, each once its jobs have ended."""

from __future__ import annotations

import argparse
from pathlib import Path

from ansible_collections.trainyard.core.plugins.module_utils._report import what_to_do
from ansible_collections.trainyard.core.plugins.module_utils._slurm_conf import PROGRAMS

from trainyard import ansible_options, cluster, runner
from trainyard.cluster import Cluster
from trainyard.errors import TrainyardError
from trainyard.hosts_file import COMPUTE
from trainyard.progress import console

EXAMPLES = """\
examples:
  ./trainyard reboot -i inventory/mylab gpu3                  this one
  ./trainyard reboot -i inventory/mylab --deadline 12h        all that compute, but the controller: one at a time

A node is drained, its jobs are waited for, it reboots, its GPUs have to answer and Slurm has to hear it, and it takes jobs again. One that
somebody had drained before stays drained. Where people are logged in, or a node does not come back sound, the rest is left alone.
"""
REASON = "trainyard reboots this node"


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "reboot",
        help="reboot the nodes of a cluster one after another, without hurting jobs",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("-i", "--inventory", required=True, type=Path, help="hosts.yml, or the folder with it")
    verb.add_argument("names", metavar="NAME", nargs="*", help="nodes; none means all that compute, but the controller")
    verb.add_argument("--deadline", default="1h", metavar="TIME", help="how long each node's jobs are waited for (1h)")
    ansible_options.add(verb, playbook=False)
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Reboot one after another; return the exit status."""
    lab, wait = Cluster(arguments.inventory), cluster.seconds(arguments.deadline)
    names = arguments.names or [name for name in lab.file.all_of(COMPUTE) if name != lab.controller]
    for name in names:
        lab.host(name)  # a wrong name is refused before any node is rebooted
    for number, name in enumerate(names, 1):
        console.print(f"· {name} ({number} of {len(names)}): waiting for its jobs, then rebooting", highlight=False)
        said = runner.module(arguments.inventory, [name], "trainyard.core.node_reboot", wish(wait))[name]
        problem = trouble(said)
        if problem:
            rest = names[number:]
            tail = f" Not touched: {', '.join(rest)}." if rest else ""
            advice = f"\n-> {what_to_do(problem, name)}" if said.get("unreachable") else ""
            raise TrainyardError(
                f"{name}: {problem}.{tail} Fix the cause and run the same command again, with the nodes that are left.{advice}"
            )
        state = lab.state(name)
        console.print(
            f"{name}: rebooted, {f'stays drained ({state.reason})' if state.drains else 'takes jobs'}", highlight=False, markup=False
        )
    return 0


def wish(seconds: int) -> dict[str, object]:
    """Return the arguments of the action that reboots one node."""
    return {
        "only_if_idle": True,
        "account": "{{ ansible_user | default('root') }}",
        "drain_seconds": seconds,
        "proof": [f"{PROGRAMS}/health"],
        "reason": REASON,
        # For machines whose kernel does not tell one boot from the next, such as containers.
        "boot_time_command": "{{ trainyard_boot_time_command | default(omit) }}",
    }


def trouble(said: object) -> str:
    """Return why a node was not rebooted or did not come back sound; empty where all is well."""
    result = said if isinstance(said, dict) else {}
    if result.get("unreachable") or result.get("failed"):
        return str(result.get("msg") or "no answer").strip().rstrip(".")
    if result.get("hindrances"):
        return f"not rebooted, since {'; '.join(result['hindrances'])}"
    if result.get("proof") or result.get("drained"):
        return "; ".join(result.get("warnings") or [str(result.get("proof") or "it stays drained")]).rstrip(".")
    return "" if result.get("rebooted") else "it was not rebooted"
