"""Whether a machine may join a cluster. Pure; what a run of the whole lab checks as well is in the collection's checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ansible_collections.trainyard.core.plugins.module_utils._host import reported
from ansible_collections.trainyard.core.plugins.plugin_utils.checks import admission
from ansible_collections.trainyard.core.plugins.plugin_utils.checks.admission import Machine


def taken(name: str, address: str, hosts: Mapping[str, Mapping[str, object]]) -> str:
    """Say what of a name and an address another node has; empty where neither is taken.

    Args:
        name: in the inventory.
        address: by which it is reached.
        hosts: the inventory's hosts with the variables that stand beside them.
    """
    if name in hosts:
        return f"{name} is in the inventory already. Choose another name, or take that one out first: ./trainyard remove-node"
    for other, variables in hosts.items():
        if address in {other, variables.get("ansible_host"), variables.get("names_and_time_address"), variables.get("slurm_address")}:
            return f"The address {address} is {other}'s already. Give the new machine's own one."
    return ""


def refusals(name: str, new: Machine, controller: Machine, known: Mapping[str, str], host_name: str = "") -> list[str]:
    """Return one sentence for each reason why a machine cannot join.

    Args:
        name: the name that it is to have.
        new: the machine.
        controller: the one that schedules.
        known: name -> host name of each node that Slurm has.
        host_name: what it has to call itself by the inventory; "" for its name up to the first dot.
    """
    found = [*admission.release(name, new, controller), *admission.clock(name, new, controller), *admission.disk(name, new)]
    twin = next((other for other, host in known.items() if host == new.host and other != name), "")
    host = host_name or ("" if reported.is_address(name) else name.partition(".")[0])
    if not reported.is_host_name(host):
        found.append(f"{reported.shown(name)} is no host name (letters, digits and -), which a cluster's node needs. Choose another.")
    elif new.host != host or twin or host == controller.host:
        other = twin or (controller.host if controller.host in (host, new.host) else "")
        found.append(
            f"{name} calls itself {new.host}{f', as {other} does' if other else ''}; by its name in the inventory it has to be {host}. "
            f"Give it a name of its own there: sudo hostnamectl set-hostname {host}"
        )
    return [*found, *admission.other_cluster(name, new, controller)]


def unconfined(name: str, why: str) -> list[str]:
    """Return the refusal of a machine on which jobs cannot be held in cgroups, for a cluster in which they are.

    Args:
        name: the name that it is to have.
        why: what stands against it, part of a sentence; empty where nothing does.
    """
    if not why:
        return []
    return [
        f"Jobs could not be held in cgroups on {name}, which {why}, and Slurm knows but one way for all nodes: the others would lose their "
        f"limits on memory and cores. Boot {name} with cgroup v2 (systemd.unified_cgroup_hierarchy=1), or add it by hand if that is meant."
    ]


def remarks(name: str, new: Machine, fleet: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what is worth knowing and refuses nothing: GPUs unlike those of the fleet.

    Args:
        name: the name that the machine is to have.
        new: the machine.
        fleet: node -> types of its GPUs, as Slurm has them.
    """
    types = sorted({gpu for gpus in fleet.values() for gpu in gpus})
    counts = sorted({len(gpus) for gpus in fleet.values()})
    if types and not new.gpus:
        return [f"No GPU of {name} answers to nvidia-smi so far; the cluster's nodes have {', '.join(types)}. A driver may be yet to come."]
    if not types and new.gpus and fleet:
        return [f"{name} has {len(new.gpus)} GPUs ({new.gpus[0]}), and no other node of the cluster has any."]
    if new.gpus and len(new.gpus) not in counts:
        return [f"{name} has {len(new.gpus)} GPUs, the others {' or '.join(str(count) for count in counts)}."]
    return []
