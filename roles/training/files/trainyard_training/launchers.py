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

MODULES = {"pytorch": "torch", "tensorflow": "tensorflow", "keras": "keras", "paddle": "paddle"}
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


def processes(wish: Mapping[str, Any], nodes: Sequence[Node], rank: int, python: str, trainer: str, run_id: str) -> list[Process]:
    """Return what runs on the node with a rank.

    Args:
        wish: the job as its submitter wants it.
        nodes: all nodes, by rank.
        rank: this node's.
        python: the environment's interpreter.
        trainer: path of the script that every trainer goes through.
        run_id: different for each time that the job is started.
    """
    command = [python, trainer, str(wish["config"]), *wish["arguments"]]
    if wish["framework"] == "pytorch":
        return pytorch(wish, nodes, rank, command, run_id)
    if wish["framework"] == "paddle":
        return paddle(wish, nodes, rank, command, run_id)
    return tensorflow(wish, nodes, rank, command)


def pytorch(wish: Mapping[str, Any], nodes: Sequence[Node], rank: int, command: list[str], run_id: str) -> list[Process]:
    """Return PyTorch's processes: each finds its place where torchrun puts it.

    torchrun itself is left out: each of its agents ends when its own trainers have, the store that all need goes with the first node's, and
    those that are a moment later fail or complain at length. Here the store is a process of its own, which ends when the whole job has.
    """
    trainers, first, size = int(wish["trainers"]), nodes[0], len(nodes) * int(wish["trainers"])
    every = {
        "MASTER_ADDR": first.address,
        "MASTER_PORT": str(first.ports[0]),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(trainers),
        "GROUP_RANK": str(rank),
        "GROUP_WORLD_SIZE": str(len(nodes)),
        "ROLE_NAME": "default",
        "ROLE_WORLD_SIZE": str(size),
        "TORCHELASTIC_RUN_ID": run_id,
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
    }
    found = []
    if rank == 0:
        words = [command[0], str(Path(command[1]).with_name("pytorch_store.py")), first.address, every["MASTER_PORT"]]
        found.append(Process("PyTorch's store", words, {"CUDA_VISIBLE_DEVICES": ""}, leads=False))
    for local in range(trainers):
        number = str(rank * trainers + local)
        own = {"RANK": number, "ROLE_RANK": number, "LOCAL_RANK": str(local)}
        found.append(Process(f"rank {number}", command, {**every, **own}))
    return found


def paddle(wish: Mapping[str, Any], nodes: Sequence[Node], rank: int, command: list[str], run_id: str) -> list[Process]:
    """Return PaddlePaddle's processes: each finds its place where ``paddle.distributed.launch`` puts it."""
    trainers, first = int(wish["trainers"]), nodes[0]
    endpoints = [f"{node.address}:{node.ports[1 + local]}" for node in nodes for local in range(trainers)]
    every = {
        "PADDLE_MASTER": f"{first.address}:{first.ports[0]}",
        "PADDLE_JOB_ID": run_id,
        "PADDLE_NNODES": str(len(nodes)),
        "PADDLE_GLOBAL_SIZE": str(len(endpoints)),
        "PADDLE_LOCAL_SIZE": str(trainers),
        "PADDLE_TRAINERS_NUM": str(len(endpoints)),
        "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
        **({} if wish["gpus_per_node"] else {"PADDLE_DISTRI_BACKEND": "gloo"}),
    }
    found = []
    for local in range(trainers):
        number = rank * trainers + local
        own = {
            "PADDLE_TRAINER_ID": str(number),
            "PADDLE_GLOBAL_RANK": str(number),
            "PADDLE_LOCAL_RANK": str(local),
            "PADDLE_RANK_IN_NODE": str(local),
            "PADDLE_CURRENT_ENDPOINT": endpoints[number],
            **({"TRAINYARD_LOCAL_RANK": str(local), "FLAGS_selected_gpus": "0"} if wish["gpus_per_node"] else {}),
        }
        found.append(Process(f"rank {number}", command, {**every, **own}))
    return found


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
