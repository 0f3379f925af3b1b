"""The view over a fleet: one wheel set where there can be one, who holds the rest back, and what a plan looks like as data."""

from __future__ import annotations

import json
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import UnknownWordError
from ansible_collections.trainyard.core.plugins.plugin_utils._plan_data import conflict_sentences, explanation_data, fleet_view, plan_data
from resolver_support import CATALOG, ask, machine

MIXED = ("gtx 1080 ti", "tesla p40", "v100", "t4", "a100", "rtx 3090", "rtx 4090", "h100", "b200", "rtx 5090")
SYSTEMS = ("debian-12", "ubuntu-22.04", "ubuntu-24.04")


def test_one_wheel_set_for_all_nodes_where_there_is_one() -> None:
    nodes = [
        machine("ubuntu-24.04", "v100", name="old"),
        machine("ubuntu-24.04", "a100", name="new"),
        machine("debian-12", "a100", name="more"),
    ]
    plan = ask(nodes, "pytorch").plan
    assert plan
    assert len(fleet_view(plan, "pytorch")) == 1
    assert plan.split == ()
    assert [(one.environment, one.nodes) for one in plan.held_back] == [("pytorch", ("old",))]
    assert plan.held_back[0].could_be.cuda > plan.held_back[0].now.cuda
    assert plan.nodes[0].driver
    assert plan.nodes[0].driver.modules == "proprietary"
    assert plan.nodes[1].driver
    assert plan.nodes[1].driver.modules == "open"


def test_nobody_is_held_back_by_an_equal() -> None:
    plan = ask([machine("ubuntu-24.04", "a100", name="a"), machine("ubuntu-24.04", "h100", name="b")], "pytorch").plan
    assert plan
    assert plan.held_back == ()


def test_where_no_set_runs_everywhere_each_kind_gets_its_own_of_one_version_and_it_is_said() -> None:
    plan = ask([machine("ubuntu-24.04", "gtx 1080", name="old"), machine("ubuntu-24.04", "rtx 5090", name="new")], "pytorch").plan
    assert plan
    assert plan.split == ("pytorch",)
    sets = [node.environments[0].wheels for node in plan.nodes]
    assert sets[0].versions == sets[1].versions, "one version, so that scripts behave the same"
    assert sets[0].requirements != sets[1].requirements
    assert all("cannot train across all of them" in " ".join(node.environments[0].warnings) for node in plan.nodes)


def test_nodes_without_a_gpu_get_the_same_version_for_the_cpu() -> None:
    plan = ask([machine("ubuntu-24.04", "v100", name="gpu"), machine("ubuntu-24.04", name="head")], "pytorch").plan
    assert plan
    gpu, head = (node.environments[0].wheels for node in plan.nodes)
    assert (gpu.device, head.device) == ("gpu", "cpu")
    assert gpu.versions == head.versions


def test_an_environment_for_some_nodes_only() -> None:
    nodes = [machine("ubuntu-24.04", "v100", name="old"), machine("ubuntu-24.04", "a100", name="new")]
    plan = ask(nodes, {"frameworks": "pytorch", "nodes": ["new"]}).plan
    assert plan
    assert [len(node.environments) for node in plan.nodes] == [0, 1]
    assert plan.held_back == ()


def test_a_conflict_names_the_nodes_that_have_it_and_the_rest_is_not_blamed() -> None:
    nodes = [
        machine("ubuntu-24.04", "v100", name="old1"),
        machine("ubuntu-24.04", "v100", name="old2"),
        machine("ubuntu-24.04", "a100", name="new"),
    ]
    found = ask(nodes, "pytorch", pins={"cuda": "13.0"})
    assert found.explanation
    assert found.explanation.conflicts[0].nodes == ("old1", "old2")
    sentences = conflict_sentences(found.explanation)
    assert (
        sentences[0].startswith("On old1, old2 these cannot be had together: CUDA 13.0 and the GPUs have a driver.")
        or "CUDA 13.0" in sentences[0]
    )
    assert sentences[-1] == "The nearest that works: give up CUDA 13.0."


def test_two_different_conflicts_are_both_named_and_one_answer_ends_both() -> None:
    nodes = [machine("ubuntu-24.04", "v100", name="old"), machine("ubuntu-24.04", "b200", name="new")]
    found = ask(nodes, "pytorch", pins={"cuda": "13.0", "driver": "535"})
    assert found.explanation
    assert {one.nodes for one in found.explanation.conflicts} == {("old",), ("new",)}
    assert {wish.key for wish in found.explanation.changes} == {("pin", "cuda"), ("pin", "driver")}
    assert found.explanation.plan


def test_answers_are_plain_data_with_a_reason_and_a_source_for_each_choice() -> None:
    plan = ask([machine("ubuntu-24.04", "v100")], "pytorch", "tensorflow").plan
    assert plan
    data = json.loads(json.dumps(plan_data(CATALOG, plan)))
    node = data["nodes"]["node"]
    assert node["driver"]["branch"] == 580
    assert set(node["environments"]) == {"pytorch", "tensorflow"}
    assert node["environments"]["pytorch"]["indexes"]["pytorch-cu126"].endswith("/cu126")
    for word in ("driver R580", "not newer than R580", "CUDA toolkit", "cuDNN", "NCCL"):
        assert any(word in reason["text"] and reason.get("source") for reason in node["reasons"]), word
    assert any(
        reason["text"] == "Python 3.12: the system's own" and reason.get("source") for reason in node["environments"]["pytorch"]["reasons"]
    )
    found = ask([machine("ubuntu-24.04", "v100")], "pytorch", pins={"cuda": "13.0"})
    assert found.explanation
    conflict = json.loads(json.dumps(explanation_data(CATALOG, found.explanation)))
    assert conflict["conflicts"][0]["reasons"][0]["source"]
    assert conflict["nearest"]["plan"]["nodes"]["node"]["driver"]["branch"] == 580


def test_a_hundred_mixed_nodes_need_few_searches() -> None:
    """The time is measured by a benchmark; here a bound that only a wrong turn in the search would pass."""
    nodes = [machine(SYSTEMS[number % 3], MIXED[number % 10], name=f"node{number}") for number in range(100)]
    started = time.process_time()
    plan = ask(nodes, "pytorch", "tensorflow", "keras", "paddle", "jax").plan
    assert plan
    assert len(plan.nodes) == 100
    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    "words,named",
    [
        ({"environments": ["pytroch"]}, "pytorch"),
        ({"pins": {"cudda": "12"}}, "cuda"),
        ({"pins": {"cuda": "12.7"}}, "12.6"),
        ({"pins": {"pytorch": "9.9"}}, "pytorch"),
        ({"pins": {"cuda": "twelve"}}, "neither a version such as 12.6 nor a range"),
        ({"profile": "qingcloud"}, "qingcloud-1.1"),
        ({"profile": "qingcloud-1.1:cuda-9.2"}, "qingcloud-1.1:cuda-9.1"),
        ({"device": "tpu"}, "gpu"),
        ({"driver_policy": "always"}, "newest"),
        ({"driver_modules": "opened"}, "open"),
        ({"driver_sources": ["distro"]}, "distribution"),
        ({"wishes": 1}, "profile"),
        ({"environments": [{"frameworks": "pytorch", "node": "a"}]}, "nodes"),
        ({"environments": [{"frameworks": "pytorch", "nodes": ["nood"]}]}, "node"),
        ({"environments": ["pytorch", "pytorch"]}, "twice"),
    ],
)
def test_words_that_mean_nothing_are_refused_with_the_nearest(words: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ask([machine("debian-12", "a100")], *words.pop("environments", []), **words)  # type: ignore[misc]


@pytest.mark.parametrize(
    "system,gpus,named",
    [("debain-12", [], "debian-12"), ("debian-12", ["a1000x"], "RTX A1000"), ("debian-12", ["GeForce GTX 750 Ti"], "10de:1380")],
)
def test_machines_that_nobody_knows_are_refused_with_the_nearest(system: str, gpus: list[str], named: str) -> None:
    with pytest.raises(UnknownWordError, match=named):
        machine(system, *gpus)


@pytest.mark.parametrize(
    "word,expected",
    [
        ("NVIDIA A100-SXM4-80GB", (8, 0)),
        ("Tesla V100-SXM2-16GB", (7, 0)),
        ("NVIDIA GeForce RTX 4090", (8, 9)),
        ("NVIDIA H100 80GB HBM3", (9, 0)),
        ("NVIDIA RTX A6000", (8, 6)),
        ("Tesla T4", (7, 5)),
        ("tesla k80", (3, 7)),
        ("10DE:1DB4", (7, 0)),
        ("0x1db4", (7, 0)),
        ("sm_86", (8, 6)),
        ("9.0", (9, 0)),
    ],
)
def test_gpus_are_known_by_the_names_that_people_and_nvidia_smi_use(word: str, expected: tuple[int, int]) -> None:
    assert CATALOG.gpu(word).capability == expected


# What the captured reports of nvidia-smi are of; the oldest do not say it themselves.
REPORTS = Path(__file__).parents[3] / "fixtures" / "nvidia_smi"
CAPTURED = {
    "k80_430": "Kepler",
    "p400_418": "Pascal",
    "v100_410": "Volta",
    "v100s_460": "Volta",
    "t4_595": "Turing",
    "a10g_515": "Ampere",
    "a100_mig_535": "Ampere",
    "rtx3090_590": "Ampere",
    "rtx4000ada_595": "Ada",
    "h100_580": "Hopper",
    "gb200_580": "Blackwell",
    "rtxpro6000_590": "Blackwell",
    "rubin_615": "Rubin",
}
BLANKED, NAMELESS = "000000DE", "NVIDIA Graphics Device"


def test_every_captured_report_is_among_them() -> None:
    assert sorted(f"captured_{name}.xml" for name in CAPTURED) == sorted(path.name for path in REPORTS.glob("captured_*.xml"))


@pytest.mark.parametrize("report,title", CAPTURED.items())
def test_gpus_of_real_machines_are_known_by_their_id_and_by_their_name(report: str, title: str) -> None:
    for gpu in ElementTree.parse(REPORTS / f"captured_{report}.xml").getroot().iter("gpu"):
        number, name = gpu.findtext("pci/pci_device_id", ""), gpu.findtext("product_name", "")
        # nvidia-smi's name for it, which is longer than ours for one of them
        assert gpu.findtext("product_architecture", title).removesuffix(" Lovelace") == title
        words = [word for word in (f"10de:{number[:4].lower()}", name) if number != BLANKED or word == name]
        known = [CATALOG.gpu(word) for word in words if word != NAMELESS]
        assert {known_gpu.architecture.title for known_gpu in known} == {title}
        assert len({known_gpu.capability for known_gpu in known}) == 1


def test_the_drivers_name_for_a_gpu_that_it_does_not_know_tells_nothing() -> None:
    with pytest.raises(UnknownWordError):
        CATALOG.gpu(NAMELESS)
