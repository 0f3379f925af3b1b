# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""How each framework is started on one node of a job. Pure: words and environments in, words and environments out."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MODULES = {"pytorch": "torch", "tensorflow": "tensorflow", "keras": "keras", "paddle": "paddle", "jax": "jax"}
"""What a private build of a framework is known by."""


@dataclass(frozen=True)
class Node:
    """A node as it told the others.

    Attributes:
        name: its host name.
        address: by which the others reach it.
        ports: free ones, one for each trainer and parameter server, and one more.
    """

    name: str
    address: str
    ports: list[int]


def node(told: Mapping[str, Any], ports: int) -> Node:
    """Read what a node told the others of itself: it becomes a part of command lines and of environments.

    Args:
        told: the message.
        ports: how many it is to have.

    Raises:
        ValueError: it cannot be a node.
    """
    name, address, free = told.get("name"), told.get("address"), told.get("ports")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?", name):
        raise ValueError(f"{name!r:.80} is no host name")
    if not isinstance(address, str):
        raise ValueError(f"{address!r:.80} is no address")
    if not isinstance(free, list) or len(free) != ports or not all(type(port) is int and 0 < port < 65536 for port in free):
        raise ValueError(f"{free!r:.80} are not {ports} ports")
    return Node(name, str(ipaddress.ip_address(address)), free)


@dataclass(frozen=True)
class Process:
    """A process on a node.

    Attributes:
        name: for the log.
        command: its words.
        environment: variables beside the node's.
        leads: whether the job is done when all that lead have ended; the others are then ended.
    """

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    leads: bool = True


def ports_wanted(wish: Mapping[str, Any]) -> int:
    """Return how many free ports a node is to find."""
    return int(wish["trainers"]) + int(wish["servers"]) + 1


def processes(
    wish: Mapping[str, Any], nodes: Sequence[Node], rank: int, python: str, trainer: str, folder: Path, run_id: str
) -> list[Process]:
    """Return what runs on the node with a rank.

    Args:
        wish: the job as its submitter wants it.
        nodes: all nodes, by rank.
        rank: this node's.
        python: the environment's interpreter.
        trainer: path of the script that every trainer goes through.
        folder: where launchers may write logs.
        run_id: different for each time that the job is started.
    """
    # A launcher that reads options of its own takes the script's for them (--log for --log-dir) unless `--` comes before the script.
    script = [trainer, str(wish["config"]), *wish["arguments"]]
    trainers, first = int(wish["trainers"]), nodes[0]
    if wish["framework"] == "pytorch":
        rendezvous = [f"--master-addr={first.address}", f"--master-port={first.ports[0]}"]
        size = [f"--nnodes={len(nodes)}", f"--node-rank={rank}", f"--nproc-per-node={trainers}"]
        return [Process("torchrun", [python, "-m", "torch.distributed.run", *size, *rendezvous, f"--rdzv-id={run_id}", "--", *script])]
    if wish["framework"] == "paddle":
        size = [f"--nnodes={len(nodes)}", f"--rank={rank}", f"--nproc_per_node={trainers}", f"--job_id={run_id}", f"--log_dir={folder}"]
        master = [f"--master={first.address}:{first.ports[0]}"] if len(nodes) > 1 else []
        return [
            Process(
                "launch",
                [python, "-m", "paddle.distributed.launch", *master, *size, "--", *script],
                {"PADDLE_DISTRI_BACKEND": "gloo"} if not wish["gpus_per_node"] else {},
            )
        ]
    if wish["framework"] == "jax":
        return jax(trainers, nodes, rank, [python, *script])
    return tensorflow(wish, nodes, rank, [python, *script])


def jax(trainers: int, nodes: Sequence[Node], rank: int, command: list[str]) -> list[Process]:
    """Return JAX's processes: `jax.distributed.initialize()` reads of each what Slurm would say, had it started them itself.

    Each takes the GPU of its place on the node, of those that it sees.
    """
    first, size = nodes[0], len(nodes) * trainers
    common = {
        "JAX_COORDINATOR_ADDRESS": f"{first.address}:{first.ports[0]}",
        "JAX_COORDINATOR_BIND_ADDRESS": f"{first.address}:{first.ports[0]}",
        "SLURM_NTASKS": str(size),
        "TRAINYARD_WORLD_SIZE": str(size),
    }
    return [
        Process(
            f"trainer {order}",
            command,
            {**common, "SLURM_PROCID": str(order), "SLURM_LOCALID": str(number), "TRAINYARD_RANK": str(order)},
        )
        for number, order in enumerate(range(rank * trainers, (rank + 1) * trainers))
    ]


def tensorflow(wish: Mapping[str, Any], nodes: Sequence[Node], rank: int, command: list[str]) -> list[Process]:
    """Return TensorFlow's processes: each finds its place in TF_CONFIG."""
    trainers = int(wish["trainers"])
    places = [(node, number) for node in range(len(nodes)) for number in range(trainers)]
    addresses = [f"{nodes[node].address}:{nodes[node].ports[number]}" for node, number in places]
    cluster: dict[str, list[str]] = {"worker": addresses}
    roles = [("worker", number) for number in range(len(places))]
    leads = {"worker"}
    if wish["strategy"] == "parameter-server":
        hosts = [(len(nodes) - 1 - server % len(nodes), server) for server in range(int(wish["servers"]))]  # the leading node comes last
        servers = [f"{nodes[node].address}:{nodes[node].ports[trainers + server]}" for node, server in hosts]
        cluster = {"chief": addresses[:1], "worker": addresses[1:], "ps": servers}
        roles = [("chief", 0), *(("worker", number) for number in range(len(places) - 1))]
        places += hosts
        roles += [("ps", server) for server in range(len(servers))]
        leads = {"chief"}
    size = len(nodes) * trainers
    found = []
    for order, ((node, number), (role, index)) in enumerate(zip(places, roles, strict=True)):
        if node == rank:
            place = {"cluster": cluster, "task": {"type": role, "index": index}}
            own = {"TF_CONFIG": json.dumps(place), "TRAINYARD_WORLD_SIZE": str(size)}
            if order < size:
                own["TRAINYARD_RANK"] = str(order)
                if wish["gpus_per_node"]:
                    own["TRAINYARD_LOCAL_RANK"] = str(number)
            else:
                own["CUDA_VISIBLE_DEVICES"] = ""  # a parameter server keeps its parameters in memory
            found.append(Process(f"{role} {index}", command, own, leads=role in leads))
    return found


def private_build(framework: str, thirdparty: Path) -> Path | None:
    """Return the folder for PYTHONPATH in which a shipped build of the framework lies; the one least deep."""
    module = MODULES[framework]
    found = sorted(thirdparty.rglob(f"{module}/__init__.py"), key=lambda path: (len(path.parts), path))
    return found[0].parent.parent if found else None
