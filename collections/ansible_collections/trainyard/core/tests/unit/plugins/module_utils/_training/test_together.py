# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Nodes that train together: which queue takes the job, what its end means, and when an earlier proof holds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.module_utils._training import together

NODES = {"node1": {"jax": "j1", "pytorch": "p1"}, "node2": {"pytorch": "p2"}, "node3": {}}
DEMAND = together.Demand("/usr/local/lib/trainyard/training/run", 2, 60)
TOLD = {
    "environment": "pytorch",
    "framework": "PyTorch",
    "version": "2.13.0",
    "device": "cpu",
    "accuracy": 0.97,
    "seconds": 9.1,
    "nodes": ["node1", "node2"],
}
OUTPUT = f"node1 has met node2\n[node1] pass 30 loss=0.01\nPyTorch trained on node1 and node2 (cpu) to 0.97.\n{json.dumps(TOLD)}\n"
GRANTED = "salloc: Granted job allocation 7\nsalloc: Relinquishing job allocation 7\n"


def proof() -> dict[str, Any]:
    return {**together.verdict("pytorch", DEMAND, 0, OUTPUT, GRANTED), "ran_at": "2026-11-29T20:00:00Z"}


@pytest.mark.parametrize(
    "nodes, found",
    [
        (NODES, "pytorch"),
        ({"a": {"paddle": "1", "keras": "1"}, "b": {"paddle": "1", "keras": "1"}}, "keras"),
        ({"a": {"pytorch": "1"}, "b": {"keras": "1"}}, ""),
        ({"a": {"jax": "1"}, "b": {"jax": "1"}}, ""),
        ({}, ""),
    ],
)
def test_the_first_framework_that_enough_nodes_have(nodes: dict[str, dict[str, str]], found: str) -> None:
    assert together.framework(nodes, 2) == found


@pytest.mark.parametrize(
    "listing, found",
    [
        ("main* up 2\nurgent up 1\n", "main"),
        ("urgent up 4\nmain* up 4\n", "main"),
        ("main* up 1\nspare up 3\n", "spare"),
        ("main* down 4\n", ""),
        ("main* up 1\n", ""),
        ("", ""),
    ],
)
def test_the_queue_that_takes_the_job(listing: str, found: str) -> None:
    assert together.queue(listing, 2) == found


def test_a_job_that_trained_is_a_proof() -> None:
    found = proof()
    assert {key: found[key] for key in TOLD} == TOLD
    assert (found["passed"], found["problem"]) == (True, "")


def test_no_room_is_no_failure() -> None:
    found = together.verdict("pytorch", DEMAND, 1, "", "salloc: error: Unable to allocate resources: Requested nodes are busy\n")
    assert found["passed"] is None
    assert found["problem"] == "not run: 2 nodes had no room for a job within 60 seconds"
    assert together.failure_message(found, []) == ""


@pytest.mark.parametrize(
    "returncode, output, errors, said",
    [
        (1, "node1 does not meet the others: timed out\n", GRANTED, "node1 does not meet the others: timed out"),
        (1, "", "salloc: error: Invalid partition name specified\n", "Invalid partition name specified"),
        (0, '{"environment": "", "nodes": []}\n', "", "it printed nothing"),
        (0, "[1]\n", "", "[1]"),
        (127, "", "", "it printed nothing"),
    ],
)
def test_what_is_no_proof_says_what_was_printed_and_what_to_do(returncode: int, output: str, errors: str, said: str) -> None:
    found = together.verdict("pytorch", DEMAND, returncode, output, errors)
    message = together.failure_message(found, found["nodes"])
    assert found["passed"] is False
    assert said in message
    assert "not proven to train" in message  # the words by which the report knows it
    assert "by hand as root on the controller: salloc" in message


def test_a_proof_holds_while_its_nodes_are_as_they_were() -> None:
    text = together.remember(proof(), "programs", NODES)
    recalled = together.recall(text, "programs", NODES)
    assert recalled == {**proof(), "cached": True}
    assert together.recall(text, "programs", {**NODES, "node2": {}}) == recalled  # a node that a limited run left out
    assert together.recall(text, "programs", {**NODES, "node9": {"pytorch": "p9"}}) == recalled  # one more node in the cluster


@pytest.mark.parametrize(
    "programs, nodes",
    [
        ("others", NODES),
        ("programs", {**NODES, "node2": {"pytorch": "another"}}),
        ("programs", {**NODES, "node2": {"jax": "j2"}}),
        ("programs", {"node1": NODES["node1"], "node3": {}}),
    ],
    ids=["other programs", "another environment", "no such environment any more", "a node that left"],
)
def test_a_proof_of_what_has_changed_does_not_hold(programs: str, nodes: dict[str, dict[str, str]]) -> None:
    assert together.recall(together.remember(proof(), "programs", NODES), programs, nodes) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"proof": 1}', '{"proof": {"passed": false}, "fingerprints": {}, "programs": "programs"}']
)
def test_what_is_no_record_of_a_proof_does_not_hold(text: str) -> None:
    assert together.recall(text, "programs", NODES) is None
