"""What is planned is what the roles can bring, and once it is there, it is planned again: plan, install, plan again."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import yaml
from ansible_collections.trainyard.core.plugins.filter.cuda_choice import cuda_choice
from ansible_collections.trainyard.core.plugins.module_utils import _driver_wishes
from ansible_collections.trainyard.core.plugins.module_utils._cuda_wishes import line
from ansible_collections.trainyard.core.plugins.plugin_utils._fleet_plan import fleet_plan
from ansible_collections.trainyard.core.plugins.plugin_utils._plan_data import plan_data
from jinja2 import Template
from jinja2.nativetypes import NativeEnvironment
from resolver_support import CATALOG, FOLDER, TODAY, ask, machine

ROLES = FOLDER.parents[2]
LOCKS = ROLES / "catalog/files/locks"
CARDS = {  # one of each generation and of each line within one that the rows tell apart
    "fermi": "06c0",
    "kepler-gk10x": "1180",
    "kepler": "102d",
    "maxwell": "17c8",
    "pascal": "15f8",
    "volta": "1db4",
    "turing": "1eb8",
    "ampere": "20f1",
    "ampere 8.6": "2204",
    "ada": "2684",
    "hopper": "2331",
    "blackwell": "2901",
    "blackwell 12.0": "2b85",
}
SYSTEMS = ("debian-11", "debian-12", "debian-13", "ubuntu-22.04", "ubuntu-24.04", "ubuntu-26.04", "rhel-9")
SOURCES = ([], ["distribution"], ["nvidia_repository"], ["runfile"], ["distribution", "nvidia_repository"], ["distribution", "runfile"])
RUNFILE = {"version": "580.95.05", "runfile": "/srv/driver.run", "runfile_sha256": "0" * 64}


@functools.cache
def read(path: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROLES / path).read_text())
    return found


@functools.cache
def template(text: str) -> Template:
    return NativeEnvironment().from_string(text)


DRIVER = {
    **read("nvidia_driver/defaults/main.yml"),
    **read("nvidia_driver/vars/main/state.yml"),
    **read("nvidia_driver/vars/main/platforms.yml"),
}
REPOSITORY = read("catalog/vars/main/repositories.yml")["catalog_vendor_repositories"]["nvidia"]
ENVIRONMENTS = read("catalog/vars/main/environments.yml")["catalog_environments"]


def facts(system: str) -> dict[str, str]:
    name, _dash, release = system.rpartition("-")
    return {
        "distribution": name.title(),
        "distribution_version": release,
        "distribution_major_version": release.partition(".")[0],
        "os_family": "Debian",
        "architecture": "x86_64",
    }


def planned(system: str, device: str, sources: list[str], *, driver: str = "", flavour: str = "", **words: Any) -> dict[str, Any]:
    """Return what the plan says for a node with a GPU, from what the node says of itself, or what is wrong."""
    smi, modules = ({"driver_version": driver}, {"version": driver, "flavour": flavour}) if driver else ({}, {})
    node = {
        "plan_driver_sources": sources,
        "plan_profile": "modern",
        "ansible_facts": facts(system),
        "plan_gpu_info_result": {
            "gpu_info": {"pci": [{"device": device, "virtual_function": False}], "nvidia_smi": smi, "modules": modules}
        },
        **words,
    }
    found = fleet_plan({"node": node}, hosts=["node"], catalogue=str(FOLDER), environments=ENVIRONMENTS, locks=str(LOCKS), month=TODAY)
    return {"problems": found["problems"], **(found["plan"] or {"nodes": {"node": {}}})["nodes"]["node"]}


def role(plan: dict[str, Any], system: str, before: str = "") -> tuple[str, list[str]]:
    """Return the source that the role nvidia_driver takes for a plan, by its own expressions, and why it refuses, by its own function.

    With ``before``, the source that its driver came from on the first run. A runfile's place is in the inventory.
    """
    known = {"nvidia_driver_plan": plan["driver"], "_nvidia_driver_source_before": before}
    for name in (
        "_nvidia_driver_sources",
        "_nvidia_driver_source_planned",
        "_nvidia_driver_kept",
        "nvidia_driver_branch",
        "nvidia_driver_modules",
        "nvidia_driver_source",
    ):
        known[name] = template(DRIVER[name]).render(known)
    source, branch = known["nvidia_driver_source"], known["nvidia_driver_branch"]
    wishes = {
        "branch": branch,
        "modules": known["nvidia_driver_modules"],
        "source": source,
        "reboot": "never",
        "kernels": [],
        "version": "",
        "repository": REPOSITORY,
        **({**RUNFILE, "version": f"{branch}.95.05"} if source == "runfile" else {}),
    }
    if known["_nvidia_driver_kept"]:
        return source, []
    return source, _driver_wishes.problems(wishes, DRIVER["_nvidia_driver_platforms"], facts(system))


def toolkits(plan: dict[str, Any], system: str) -> list[str]:
    """Return why the role cuda refuses a plan, by its own function."""
    wishes = {"toolkits": plan["toolkits"], "source": "", "default": "", "cudnn": "", "nccl": "", "path": "/usr/local"}
    stack, wheels = str(FOLDER / "cuda.yml"), read("catalog/vars/main/cuda.yml")["catalog_cuda_wheels"]
    platforms = read("cuda/vars/main/platforms.yml")["_cuda_platforms"]
    choice = cuda_choice(
        wishes, wheels=wheels, platforms=platforms, stack=stack, facts=facts(system), locks=str(LOCKS), unpacked="/usr/local"
    )
    brought = {one["name"]: (one["about"].get("cudnn", "none"), one["about"].get("nccl", "none")) for one in choice["toolkits"]}
    wanted = {line(one["version"]): (one["cudnn"], one["nccl"]) for one in plan["toolkits"]}
    return [*choice["problems"], *([] if brought == wanted else [f"wanted {wanted}, brought {brought}"])]


def test_every_generation_is_among_the_cards() -> None:
    found = {CATALOG.gpu(f"10de:{device}").architecture.name for device in CARDS.values()}
    assert found >= {kind.name for kind in CATALOG.architectures} - {"rubin"}, "of Rubin, no driver has a version yet"


@pytest.mark.parametrize("system", ["debian-12", "debian-13"])
@pytest.mark.parametrize("card", CARDS)
def test_a_planned_driver_is_refused_by_no_role_and_planned_again_once_it_is_there(card: str, system: str) -> None:
    for sources in SOURCES:
        for modules in ("", "open", "proprietary"):
            for policy in ("if_needed", "newest"):
                words = {"plan_driver_modules": modules, "plan_driver_policy": policy}
                first = planned(system, CARDS[card], sources, **words)
                if first["problems"]:
                    continue
                here = (card, system, sources, words)
                source, problems = role(first, system)
                assert problems == [], here
                assert source in sources or (not sources and source != "runfile"), "nobody would have said which file it is"
                assert toolkits(first, system) == [], here
                driver = first["driver"]
                number = driver["version"] or f"{driver['branch']}.10.01"
                for flavour in (driver["modules"], ""):  # "": the module tells no flavour
                    again = planned(system, CARDS[card], sources, driver=number, flavour=flavour, **words)
                    assert again["driver"]["keep"], here
                    assert {key: again["driver"][key] for key in ("branch", "modules")} == {
                        key: driver[key] for key in ("branch", "modules")
                    }, here
                    assert again["toolkits"] == first["toolkits"], here
                    assert role(again, system, before=source) == (source, []), here


def test_a_toolkit_gets_no_cudnn_where_none_that_can_be_brought_drives_the_gpu() -> None:
    plan = planned("debian-12", CARDS["kepler"], [])
    assert plan["toolkits"] == [{"version": "11.8.0", "cudnn": "none", "nccl": "2.21.5"}]
    words = [reason["text"] for reason in plan["reasons"]]
    assert any("no cuDNN in CUDA 11.8: what can be had (9.10.2, 8.9.6) does not drive Tesla K80" in text for text in words), words
    assert plan["warnings"] == [warning for warning in plan["warnings"] if "cuDNN" not in warning], "nobody asked for it"


def test_a_toolkit_that_cannot_get_the_wanted_cudnn_gets_none_and_it_is_said() -> None:
    plan = planned("debian-12", CARDS["ampere"], [], plan_pins={"cudnn": "9.17"})
    assert plan["toolkits"] == [{"version": "13.0.2", "cudnn": "none", "nccl": "2.32.3"}]
    assert "CUDA toolkit 13.0 gets no cuDNN: 9.17 is asked for, to be had is 9.28.0" in plan["warnings"]


@pytest.mark.parametrize("system", ["debian-12", "debian-13"])
def test_a_toolkit_that_is_asked_for_can_be_brought_or_is_a_conflict(system: str) -> None:
    found = []
    for row in CATALOG.cuda_lines:
        plan = planned(system, CARDS["ampere"], [], plan_pins={"cuda": row.line})
        if plan["problems"]:
            assert f"CUDA {row.line}" in plan["problems"][0]
            continue
        assert toolkits(plan, system) == []
        found.append(row.line)
    assert {"debian-12": "12.9", "debian-13": "12.4"}[system] in found


def test_debians_own_535_stays_proprietary_on_a_gpu_that_could_have_the_open_module() -> None:
    first = planned("debian-12", CARDS["ampere"], ["distribution"])["driver"]
    again = planned("debian-12", CARDS["ampere"], ["distribution"], driver="535.309.01", flavour="proprietary")["driver"]
    assert (first["branch"], first["modules"]) == (again["branch"], again["modules"]) == (535, "proprietary")
    assert again["keep"]
    assert "distribution" in again["sources"]


def test_an_installed_driver_stays_with_the_vendors_source_that_it_came_from_though_that_has_its_branch_no_more() -> None:
    plan = planned("debian-12", CARDS["ampere"], [], driver="535.309.01", flavour="open")
    assert plan["driver"]["sources"] == ["nvidia_repository", "runfile"]
    assert role(plan, "debian-12", before="nvidia_repository") == ("nvidia_repository", [])


def test_a_driver_whose_loaded_module_does_not_drive_the_gpu_is_replaced() -> None:
    found = planned("debian-13", CARDS["blackwell"], [], driver="580.173.02", flavour="proprietary")
    assert (found["driver"]["keep"], found["driver"]["modules"]) == (False, "open")
    never = planned("debian-13", CARDS["blackwell"], [], driver="580.173.02", flavour="proprietary", plan_driver_policy="never")
    assert "is installed with the proprietary kernel module, wanted is open" in " ".join(never["problems"])


@pytest.mark.parametrize("system", ["ubuntu-22.04", "ubuntu-24.04", "ubuntu-26.04"])
@pytest.mark.parametrize("card", CARDS)
def test_a_driver_that_is_planned_from_ubuntu_is_refused_by_no_role(card: str, system: str) -> None:
    for modules in ("", "open", "proprietary"):
        plan = planned(system, CARDS[card], ["distribution"], plan_driver_modules=modules)
        if not plan["problems"]:
            assert role(plan, system) == ("distribution", []), (card, system, modules)


@pytest.mark.parametrize("system", ["debian-12", "debian-13"])
@pytest.mark.parametrize("card", CARDS)
def test_the_locks_of_a_plan_stay_once_its_driver_is_there(card: str, system: str) -> None:
    words = {"plan_environments": ["pytorch", "tensorflow", "keras", "jax", "paddle"], "plan_profile": "", "plan_device": "any"}
    for sources in ([], ["distribution"]):
        first = planned(system, CARDS[card], sources, **words)
        if not first.get("driver"):
            continue
        driver = first["driver"]
        again = planned(system, CARDS[card], sources, driver=driver["version"], flavour=driver["modules"], **words)
        for key in ("problems", "locks", "toolkits"):
            assert again[key] == first[key], (key, sources)
        assert (again["driver"]["branch"], again["driver"]["modules"]) == (driver["branch"], driver["modules"]), sources


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("card", CARDS)
def test_with_the_planned_driver_there_the_same_is_planned_on_every_system(card: str, system: str) -> None:
    for sources in SOURCES:
        for frameworks in (("pytorch", "tensorflow"), ("jax",)):
            first = ask([machine(system, f"10de:{CARDS[card]}")], *frameworks, driver_sources=sources, device="any").plan
            if not first or not first.nodes[0].driver:
                continue
            driver = first.nodes[0].driver
            number = driver.version or f"{driver.branch.branch}.10.01"
            for flavour in (driver.modules, ""):
                node = machine(system, f"10de:{CARDS[card]}", driver=number, flavour=flavour)
                again = ask([node], *frameworks, driver_sources=sources, device="any").plan
                assert again
                before, after = (plan_data(CATALOG, plan)["nodes"]["node"] for plan in (first, again))
                assert after["driver"]["keep"], (card, system, sources)
                for data in (before, after):
                    data["driver"] = {key: data["driver"][key] for key in ("branch", "modules")}
                    data["environments"] = {
                        name: (placed["requirements"], placed["python"], placed["cuda"], placed["cudnn"])
                        for name, placed in data["environments"].items()
                    }
                for key in ("driver", "toolkits", "environments"):
                    assert before[key] == after[key], (card, system, sources)
