"""What a machine says of itself, and whether it may join a cluster. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.trainyard.core.plugins.module_utils._host import reported

LOOK = """\
. /etc/os-release
echo "os $ID $VERSION_ID"
echo "architecture $(uname -m)"
echo "host $(hostname -s)"
for path in / /var /opt /tmp; do echo "free $(df --output=avail -B1 "$path" | tail -n 1) $path"; done
nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | sed 's/^/gpu /'
for file in /etc/slurm/slurm.conf /etc/default/slurmd /etc/systemd/system/slurmd.service.d/*.conf; do
    sed -n 's/^SlurmctldHost=\\([^( ]*\\).*/slurm \\1/p; s/^[^#].*--conf-server[ =]\\([^" ]*\\).*/slurm \\1/p' "$file" 2>/dev/null
done
[ ! -r /etc/munge/munge.key ] || echo "munge $(sha256sum < /etc/munge/munge.key | cut -c -16)"
echo "clock $(date +%s)"
"""
"""A script that prints what `parsed` reads."""

CLOCK_SECONDS = 60
"""How far two clocks may be apart: munge refuses what is five minutes old, and certificates and logs want less."""
FREE_BYTES = 2 * 2**30
"""What Slurm, its logs and the base take with room to spare; what the frameworks take is checked by their own role."""


@dataclass(frozen=True)
class Machine:
    """A machine as it is.

    Attributes:
        os: distribution and version, such as ``debian 12``.
        architecture: of its processor.
        host: its own short host name.
        clock: its time, in seconds since 1970.
        free: path -> free bytes there.
        gpus: their names.
        slurm: the controller that its Slurm obeys; empty without one.
        munge: a fingerprint of its munge key; empty without one.
    """

    os: str
    architecture: str
    host: str
    clock: int
    free: Mapping[str, int]
    gpus: Sequence[str] = field(default_factory=tuple)
    slurm: str = ""
    munge: str = ""


def parsed(text: str) -> Machine:
    """Read what `LOOK` printed.

    Raises:
        ValueError: something is missing.
    """
    words: dict[str, list[str]] = {}
    for line in reported.printable(text).split("\n"):
        key, _blank, rest = line.partition(" ")
        words.setdefault(key, []).append(rest.strip())
    try:
        free = {path: int(count) for count, path in (line.split() for line in words["free"])}
        return Machine(
            words["os"][0],
            words["architecture"][0],
            words["host"][0],
            int(words["clock"][0]),
            free,
            words.get("gpu", []),
            words.get("slurm", [""])[0],
            words.get("munge", [""])[0],
        )
    except KeyError as error:
        raise ValueError(f"it does not say its {error}") from error


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
    found = []
    if (new.os, new.architecture) != (controller.os, controller.architecture):
        found.append(
            f"{name} is {new.os} ({new.architecture}), and the cluster's controller {controller.os} ({controller.architecture}): their "
            f"Slurms would differ. Install {controller.os} on {name}."
        )
    apart = new.clock - controller.clock
    if abs(apart) > CLOCK_SECONDS:
        words = f"{abs(apart)} seconds {'ahead of' if apart > 0 else 'behind'}"
        found.append(
            f"The clock of {name} is {words} the controller's, and {CLOCK_SECONDS} are allowed. Have it ask a time "
            "server there (sudo systemctl restart chrony, or systemd-timesyncd), or set it by hand: sudo date --set=TIME"
        )
    full = [f"{path} ({free / 2**30:.1f} GiB free)" for path, free in new.free.items() if free < FREE_BYTES]
    if full:
        found.append(f"The disk of {name} is full at {', '.join(full)}; {FREE_BYTES / 2**30:.0f} GiB are needed. Make room there.")
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
    if new.slurm and new.munge != controller.munge:
        found.append(
            f"{name} is a node of another cluster: its Slurm obeys {new.slurm}, and its munge key is not the one of {controller.host}. "
            "Take it out there first (./trainyard remove-node NAME --undo, with that cluster's inventory). Where that cluster is no more, "
            f"remove what names it on {name}: /etc/slurm/slurm.conf, --conf-server in /etc/default/slurmd or "
            "/etc/systemd/system/slurmd.service.d."
        )
    return found


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
