# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""The proof that nodes of a cluster train together: what is run, what its end means, and when an earlier proof still holds. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.trainyard.core.plugins.module_utils._training_proof import last_object

FRAMEWORKS = ("pytorch", "tensorflow", "keras", "paddle", "jax")
"""What the cluster's tools train on many nodes; the first that all nodes of a job have is taken."""
JOB_MINUTES = 15
"""After which Slurm ends the job."""
NO_ROOM = re.compile(r"Requested nodes are busy|[Tt]imed out|revoked|Immediate execution impossible|Required node not available")
_LAST_LINES = 5

Nodes = Mapping[str, Mapping[str, str]]
"""Name in Slurm -> environment -> fingerprint of the proof that it trains there alone; no environment for a node that was not looked at."""


class Demand(NamedTuple):
    """What is run.

    Attributes:
        program: of the role training, which proves the nodes of an allocation.
        size: how many nodes train together.
        patience: seconds to wait for nodes with room for a job.
    """

    program: str
    size: int
    patience: int


def framework(nodes: Nodes, count: int) -> str:
    """Return the framework that so many of the nodes are known to have; '' where there is none."""
    return next((name for name in FRAMEWORKS if sum(name in environments for environments in nodes.values()) >= count), "")


def queue(listing: str, count: int) -> str:
    """Return the queue for the job: the default one, else the first, of those that are up and have nodes enough; '' where none has.

    Args:
        listing: lines of ``sinfo`` with a queue's name, whether it is up, and its number of nodes. The default queue has a star.
        count: how many nodes the job takes.
    """
    queues = [line.split() for line in listing.splitlines() if len(line.split()) == 3]
    fit = [name for name, up, nodes in queues if up == "up" and nodes.isdigit() and int(nodes) >= count]
    return next((name for name in fit if name.endswith("*")), fit[0] if fit else "").rstrip("*")


def command(demand: Demand, partition: str) -> list[str]:
    """Return the command that waits for nodes and proves them; each framework computes with one core of each."""
    return [
        *("salloc", f"--partition={partition}", f"--nodes={demand.size}", "--ntasks-per-node=1", "--cpus-per-task=1"),
        *(f"--time={JOB_MINUTES}", f"--immediate={demand.patience}", "--chdir=/", "--job-name=trainyard_proof"),
        *(demand.program, "prove", "--json"),
    ]


def unproven(name: str, problem: str = "", remedy: str = "") -> dict[str, Any]:
    """Return the result where nothing has trained: failed with a problem, or merely not run."""
    return {
        "environment": name,
        "framework": name,
        "variant": "",
        "version": "",
        "device": "",
        "device_name": "",
        "expected_device": "",
        "accuracy": None,
        "seconds": None,
        "passed": False if problem else None,
        "problem": problem or "not run",
        "remedy": remedy,
        "ran_at": "",
        "cached": False,
        "nodes": [],
    }


def verdict(name: str, demand: Demand, returncode: int, output: str, errors: str) -> dict[str, Any]:
    """Return the result that the end of the job amounts to.

    Args:
        name: the framework that is expected, for messages.
        demand: what was run.
        returncode: of the command.
        output: what it printed; the last object of JSON is the program's result.
        errors: what it printed as errors.
    """
    if returncode and not output.strip() and NO_ROOM.search(errors):
        return {**unproven(name), "problem": f"not run: {demand.size} nodes had no room for a job within {demand.patience} seconds"}
    found = last_object(output)
    result = unproven(str(found.get("environment") or name))
    result.update({key: str(found[key]) for key in ("framework", "version", "device") if isinstance(found.get(key), str)})
    result.update({key: float(found[key]) for key in ("accuracy", "seconds") if isinstance(found.get(key), (int, float))})
    if isinstance(found.get("nodes"), list):
        result["nodes"] = [str(node) for node in found["nodes"]]
    if not returncode and len(result["nodes"]) == demand.size and result["accuracy"] is not None:
        return {**result, "passed": True, "problem": ""}
    lines = [line.strip() for line in f"{output}\n{errors}".splitlines() if line.strip() and not line.startswith("{")]
    said = "; ".join(lines[-_LAST_LINES:]) or "it printed nothing"
    by_hand = " ".join(command(demand, "QUEUE"))
    return {
        **result,
        "passed": False,
        "problem": f"the training on {demand.size} nodes ended with status {returncode}: {said}",
        "remedy": f"See all of its output by running it by hand as root on the controller: {by_hand}",
    }


def remember(proof: Mapping[str, Any], programs: str, nodes: Nodes) -> str:
    """Return the text of the state file for a proof.

    Args:
        proof: the result.
        programs: digest of the programs and samples that trained.
        nodes: the cluster's.
    """
    fingerprints = {node: nodes.get(node, {}).get(proof["environment"], "") for node in proof["nodes"]}
    return json.dumps({"programs": programs, "fingerprints": fingerprints, "proof": {**proof, "cached": False}}, indent=2) + "\n"


def recall(text: str, programs: str, nodes: Nodes) -> dict[str, Any] | None:
    """Return the proof that a state file holds, if it was passed and nothing that it depends on has changed.

    A node that was not looked at in this run is taken to be as it was; one that left the cluster is not.
    """
    try:
        state = json.loads(text or "")
        proof, fingerprints = state["proof"], state["fingerprints"]
        same = all(
            node in nodes and (not nodes[node] or nodes[node].get(proof["environment"]) == known) for node, known in fingerprints.items()
        )
        if proof["passed"] is True and state["programs"] == programs and fingerprints and same:
            return {**proof, "cached": True}
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def failure_message(proof: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return why the nodes are not proven to train together, and what to do; '' where nothing failed."""
    if proof["passed"] is not False:
        return ""
    which = " and ".join(names) or "the cluster's nodes"
    return f"{proof['environment']} on {which} is not proven to train: {proof['problem']}. {proof['remedy']}".rstrip()
