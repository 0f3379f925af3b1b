"""Whether a machine may join a cluster, from what it says of itself; and the words of the verbs that need no node."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.plugin_utils.checks.admission import Machine

from trainyard import cli, cluster, host_keys, newcomer
from trainyard.commands import reboot
from trainyard.errors import UsageError

GIB = 2**30
HEAD = Machine("debian 12", "x86_64", "head", 1000, {"/": 50 * GIB}, slurm="head", munge="0a0a")
GPU5 = Machine("debian 12", "x86_64", "gpu5", 1030, {"/": 50 * GIB, "/opt": 50 * GIB}, ["NVIDIA A100", "NVIDIA A100"])
KNOWN = {"gpu1": "gpu1", "old": "g2"}


def test_a_sound_machine_may_join() -> None:
    assert newcomer.refusals("gpu5", GPU5, HEAD, KNOWN) == []
    assert newcomer.refusals("gpu5", GPU5, HEAD, {**KNOWN, "gpu5": "gpu5"}) == [], "an interrupted run had it there already"


@pytest.mark.parametrize(
    "change, said",
    [
        ({"os": "debian 13"}, "gpu5 is debian 13 (x86_64), and the cluster's controller debian 12 (x86_64)"),
        ({"architecture": "aarch64"}, "Install debian 12 on gpu5"),
        ({"clock": 1061}, "The clock of gpu5 is 61 seconds ahead of the controller's, and 60 are allowed"),
        ({"clock": 400}, "The clock of gpu5 is 600 seconds behind the controller's"),
        ({"free": {"/": 50 * GIB, "/var": GIB // 2}}, "The disk of gpu5 is full at /var (0.5 GiB free)"),
        ({"host": "g2"}, "gpu5 calls itself g2, as old does"),
        (
            {"host": "ubuntu"},
            "gpu5 calls itself ubuntu; by its name in the inventory it has to be gpu5. Give it a name of its own there: sudo",
        ),
        ({"host": "head"}, "gpu5 calls itself head, as head does"),
        ({"slurm": "other", "munge": "0b0b"}, "gpu5 is a node of another cluster: its Slurm obeys other"),
        ({"slurm": "head", "munge": "0b0b"}, "its Slurm obeys head, and its munge key is not the one of head."),
    ],
)
def test_what_cannot_join_is_told_what_to_do(change: dict[str, Any], said: str) -> None:
    (refusal,) = newcomer.refusals("gpu5", replace(GPU5, **change), HEAD, KNOWN)
    assert said in refusal


def test_the_host_name_is_the_inventorys() -> None:
    assert newcomer.refusals("gpu5.lab.example", GPU5, HEAD, KNOWN) == []
    assert newcomer.refusals("192.0.2.15", GPU5, HEAD, KNOWN, "gpu5") == []
    (refusal,) = newcomer.refusals("192.0.2.15", GPU5, HEAD, KNOWN)
    assert "'192.0.2.15' is no host name" in refusal


def test_a_key_that_no_slurm_uses_and_a_node_that_was_here_before_are_no_hindrance() -> None:
    for slurm, munge in (("", "0b0b"), ("head", "0a0a")):
        assert newcomer.refusals("gpu5", replace(GPU5, slurm=slurm, munge=munge), HEAD, KNOWN) == []


def test_one_that_cannot_hold_jobs_is_no_match_for_those_that_can() -> None:
    assert newcomer.unconfined("gpu5", "") == []
    assert "on gpu5, which is a container, and" in newcomer.unconfined("gpu5", "is a container")[0]


@pytest.mark.parametrize(
    "gpus, fleet, said",
    [
        ([], {"gpu1": ["a100"]}, "No GPU of gpu5 answers to nvidia-smi so far; the cluster's nodes have a100"),
        (["A100"], {"gpu1": []}, "gpu5 has 1 GPUs (A100), and no other node"),
        (["A100"], {"gpu1": ["a100", "a100"]}, "gpu5 has 1 GPUs, the others 2"),
        (["A100"], {"gpu1": ["a100"]}, ""),
        ([], {"gpu1": []}, ""),
    ],
)
def test_gpus_unlike_the_fleets_are_remarked(gpus: list[str], fleet: dict[str, list[str]], said: str) -> None:
    assert said in "".join(newcomer.remarks("gpu5", replace(GPU5, gpus=gpus), fleet))
    assert bool(newcomer.remarks("gpu5", replace(GPU5, gpus=gpus), fleet)) == bool(said)


def test_names_and_addresses_are_given_once() -> None:
    hosts = {"gpu1": {"ansible_host": "192.0.2.11"}, "192.0.2.12": {}, "gpu3": {"names_and_time_address": "10.0.0.3"}}
    assert "gpu1 is in the inventory already" in newcomer.taken("gpu1", "192.0.2.99", hosts)
    for address, owner in (("192.0.2.11", "gpu1"), ("192.0.2.12", "192.0.2.12"), ("10.0.0.3", "gpu3")):
        assert f"The address {address} is {owner}'s already" in newcomer.taken("gpu5", address, hosts)
    assert newcomer.taken("gpu5", "192.0.2.15", hosts) == ""


def test_durations() -> None:
    assert [cluster.seconds(text) for text in ("90", "90s", "30m", "1h", "2d")] == [90, 90, 1800, 3600, 172800]
    with pytest.raises(UsageError, match="'soon' is no duration such as"):
        cluster.seconds("soon")


def test_known_hosts_are_looked_up_as_ssh_does() -> None:
    assert host_keys.entry_name({"hostname": "192.0.2.1", "port": "22", "hostkeyalias": "none"}, "a") == "192.0.2.1"
    assert host_keys.entry_name({"hostname": "192.0.2.1", "port": "2222"}, "a") == "[192.0.2.1]:2222"
    assert host_keys.entry_name({"hostname": "192.0.2.1", "hostkeyalias": "gpu5"}, "a") == "gpu5"


@pytest.mark.parametrize(
    "said, problem",
    [
        ({"rebooted": True, "drained": False, "hindrances": []}, ""),
        ({"hindrances": ["the job 7 of Slurm runs"]}, "not rebooted, since the job 7 of Slurm runs"),
        ({"unreachable": True, "msg": "no route"}, "no route"),
        ({"failed": True, "msg": "Timed out."}, "Timed out"),
        ({"rebooted": True, "proof": "1 of 2", "warnings": ["health fails after the reboot."]}, "health fails after the reboot"),
        ({"rebooted": True, "drained": True, "warnings": ["Slurm does not answer."]}, "Slurm does not answer"),
        ({"rebooted": False}, "it was not rebooted"),
    ],
)
def test_a_reboot_went_well_only_when_it_says_so(said: dict[str, Any], problem: str) -> None:
    assert reboot.trouble(said) == problem


@pytest.mark.parametrize("verb", ["add-node", "remove-node", "drain", "resume", "reboot"])
def test_help_shows_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([verb, "--help"])
    assert end.value.code == 0
    assert f"./trainyard {verb} -i inventory/mylab" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        cli.main([verb])
    assert end.value.code == 64
