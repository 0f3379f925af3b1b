"""From wanted names to what a node gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.filter import environments as filters
from ansible_collections.trainyard.core.plugins.module_utils import _environments as environments

CATALOGUE: dict[str, Any] = {
    "jax": {
        "title": "JAX",
        "kind": "framework",
        "proof": "jax",
        "variants": {"cpu": {"device": "cpu", "requirements": ["jax"], "pythons": ["3.11", "3.13"]}},
    },
    "pytorch": {
        "title": "PyTorch",
        "kind": "framework",
        "proof": "pytorch",
        "aliases": ["torch"],
        "variants": {
            "cpu": {
                "device": "cpu",
                "requirements": ["torch"],
                "pythons": ["3.11"],
                "index": "special",
                "index_packages": ["torch"],
                "system_packages": {"Debian": ["libgomp1"]},
            }
        },
    },
    "jupyterlab": {
        "title": "JupyterLab",
        "kind": "service",
        "variants": {"cpu": {"device": "cpu", "requirements": ["jupyterlab"], "pythons": ["3.11"]}},
    },
}
FROZEN: dict[str, Any] = {
    "title": "Caffe",
    "kind": "framework",
    "proof": "caffe",
    "variants": {"cpu": {"device": "cpu", "pythons": ["3.9"], "frozen": {"suite": "bullseye"}}},
}
OLD = {
    "device": "cpu",
    "pythons": ["2.7"],
    "proof": "jax_1",
    "requirements": ["jax"],
    "frozen": {"suite": "bullseye", "python": "python2.7"},
}
FACTS = {"python": {"version": {"major": 3, "minor": 11}}, "architecture": "x86_64", "os_family": "Debian"}


def plan(
    wanted: list[Any], services: list[Any] | None = None, default_for: dict[str, str] | None = None, **kwargs: Any
) -> tuple[list[dict[str, Any]], list[str]]:
    node = environments.Node.of(kwargs.get("facts", FACTS), kwargs.get("python", ""))
    return environments.plan(
        wanted,
        services or [],
        kwargs.get("catalogue", CATALOGUE),
        node,
        kwargs.get("services_node", node),
        variant=kwargs.get("variant", "cpu"),
        path="/envs",
        indexes={"special": "https://index.example/simple"},
        default_for=default_for or {},
        prefix="framework_env_",
    )


def test_a_name_is_filled_up_from_the_catalogue() -> None:
    entries, problems = plan(["pytorch"])
    assert problems == []
    assert entries == [
        {
            "name": "pytorch",
            "state": "present",
            "path": "/envs/pytorch",
            "environment": "pytorch",
            "variant": "cpu",
            "kind": "framework",
            "title": "PyTorch",
            "kernel_title": "PyTorch (CPU)",
            "proof": "pytorch",
            "device": "cpu",
            "aliases": ["torch"],
            "python": "3.11",
            "lock": "pytorch-cpu-cp311-x86_64.txt",
            "index_url": "https://index.example/simple",
            "index_packages": ["torch"],
            "system_packages": ["libgomp1"],
        }
    ]


def test_an_alias_is_its_environment() -> None:
    entries, problems = plan(["torch"], default_for={"alice": "torch"})
    assert (problems, entries[0]["name"]) == ([], "pytorch")


def test_one_environment_under_two_names() -> None:
    entries, problems = plan([{"name": "course", "environment": "jax"}, "jax"])
    assert problems == []
    assert [(entry["name"], entry["title"], entry["lock"]) for entry in entries] == [
        ("course", "JAX (course)", "jax-cpu-cp311-x86_64.txt"),
        ("jax", "JAX", "jax-cpu-cp311-x86_64.txt"),
    ]


def test_an_entry_without_a_variant_gets_the_planned_one() -> None:
    planned = [
        {"name": "pytorch", "environment": "pytorch", "variant": "cu130"},
        {"name": "course", "environment": "jax", "variant": "cu13"},
    ]
    wanted = ["torch", "course", "jax", {"name": "pytorch", "variant": "cpu"}, {"name": "course", "environment": "pytorch"}]
    found = environments.wishes(wanted, "cpu", CATALOGUE, planned)
    assert [(wish.name, wish.environment, wish.variant) for wish in found] == [
        ("pytorch", "pytorch", "cu130"),
        ("course", "jax", "cu13"),
        ("jax", "jax", "cpu"),
        ("pytorch", "pytorch", "cpu"),
        ("course", "pytorch", "cpu"),
    ]


def test_what_is_to_go_needs_no_entry_in_the_catalogue() -> None:
    entries, problems = plan([{"name": "caffe", "state": "absent"}])
    assert problems == []
    assert entries == [{"name": "caffe", "state": "absent", "path": "/envs/caffe"}]


def test_services_come_beside_and_are_of_their_own_kind() -> None:
    entries, problems = plan(["jax"], ["jupyterlab"])
    assert problems == []
    assert [(entry["name"], entry["kind"], entry["proof"]) for entry in entries] == [
        ("jax", "framework", "jax"),
        ("jupyterlab", "service", None),
    ]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (["pytorhc"], "framework_env_environments: 'pytorhc' is not in the catalogue. Did you mean pytorch? Known: jax, pytorch."),
        (["zzz"], "framework_env_environments: 'zzz' is not in the catalogue. Known: jax, pytorch."),
        (["jupyterlab"], "framework_env_environments: 'jupyterlab' is not in the catalogue. Known: jax, pytorch."),
        ([{"name": "jax", "variant": "gpu"}], "framework_env_variant: there is no variant 'gpu' of jax. Known: cpu."),
        ([{"name": "jax", "state": "latest"}], "framework_env_environments: the state of jax is 'latest'; allowed are present and absent."),
        (
            [{"name": "../etc", "environment": "jax"}],
            "framework_env_environments: '../etc' is no name for an environment; letters, digits, '.', '_' and '-' are allowed.",
        ),
        (
            [{"environment": "jax", "name": ".cache"}],
            "framework_env_environments: '.cache' is no name for an environment; letters, digits, '.', '_' and '-' are allowed.",
        ),
        (["jax", "jax"], "framework_env_environments: jax stands there twice."),
    ],
)
def test_what_cannot_be_is_refused_by_name(wanted: list[Any], says: str) -> None:
    assert plan(wanted)[1] == [says]


def test_an_unknown_variant_of_all_is_refused_by_name() -> None:
    assert plan(["jax", "pytorch"], variant="tpu")[1] == ["framework_env_variant: there is no variant 'tpu' of jax, pytorch. Known: cpu."]


def test_services_are_not_concerned_by_the_variant() -> None:
    assert plan([], ["jupyterlab"], variant="tpu")[1] == []


def test_an_unknown_service_is_refused_by_name() -> None:
    assert plan([], ["jupyter"])[1] == [
        "framework_env_services: 'jupyter' is not in the catalogue. Did you mean jupyterlab? Known: jupyterlab."
    ]


def test_another_python_is_refused_with_a_way_out() -> None:
    assert plan(["pytorch"], python="3.13")[1] == [
        "framework_env_environments: pytorch (cpu) is locked for Python 3.11; this node has 3.13. "
        "Take it out of framework_env_environments for this node, have conda bring another Python (framework_env_interpreter: conda and "
        "framework_env_python_version: '3.11'), or have tools/lock_envs.py lock it for 3.13."
    ]


def test_services_stay_on_the_nodes_python_where_conda_brings_another_one() -> None:
    entries, problems = plan(["jax"], ["jupyterlab"], python="3.13", services_node=environments.Node.of(FACTS))
    assert problems == []
    assert [(entry["python"], entry["lock"]) for entry in entries] == [
        ("3.13", "jax-cpu-cp313-x86_64.txt"),
        ("3.11", "jupyterlab-cpu-cp311-x86_64.txt"),
    ]


def test_missing_facts_are_said_to_be_missing() -> None:
    assert plan(["jax"], facts={})[1] == ["The node's Python and processor are not known: run the play with gather_facts: true."]


def test_a_default_has_to_be_among_the_environments() -> None:
    assert plan(["jax"], default_for={"alice": "jaxx"})[1] == [
        "framework_env_default_for: alice is to have 'jaxx', which is not among this node's environments. Did you mean jax? Known: jax."
    ]


def test_available_leaves_out_what_is_not_locked_for_the_nodes_python() -> None:
    names = ["pytorch", "jax"]
    assert environments.available(names, CATALOGUE, environments.Node("3.13", "x86_64", "Debian"), "cpu") == ["jax"]
    assert environments.available(names, CATALOGUE, environments.Node("3.11", "x86_64", "Debian"), "cpu") == names
    assert environments.available(names, CATALOGUE, environments.Node("3.11", "x86_64", "Debian"), "tpu") == names, "to be refused by name"


def test_a_frozen_environment_brings_its_own_python() -> None:
    entries, problems = plan(
        ["caffe", {"name": "old", "environment": "caffe", "state": "absent"}], python="3.13", catalogue={**CATALOGUE, "caffe": FROZEN}
    )
    assert problems == []
    assert [(entry["name"], entry["state"], entry.get("frozen")) for entry in entries] == [
        ("caffe", "present", {"suite": "bullseye"}),
        ("old", "absent", None),
    ]
    assert environments.available(["caffe", "jax"], {**CATALOGUE, "caffe": FROZEN}, environments.Node.of(FACTS, "3.12"), "cpu") == ["caffe"]


CONDA = {"channels": ["defaults"], "packages": ["python=3.6", "caffe=1.0"], "size_mb": 9}


@pytest.mark.parametrize(
    ("name", "requirements", "device", "title"),
    [
        ("pytorch", ["torch==2.13.0+cpu", "tensorboard"], "cpu", "PyTorch 2.13 (CPU)"),
        ("pytorch", ["torch==2.13.1"], "gpu", "PyTorch 2.13.1 (GPU)"),
        ("paper", ["torch[cuda13]==0.10.2"], "cpu", "PyTorch 0.10.2 (CPU), paper"),
        ("pytorch", ["torch"], "cpu", "PyTorch (CPU)"),
        ("pytorch", None, "cpu", "PyTorch (CPU)"),
    ],
)
def test_a_kernel_is_titled_by_version_and_device(name: str, requirements: list[str] | None, device: str, title: str) -> None:
    variant = {"device": device, **({"requirements": requirements} if requirements else {})}
    assert environments.kernel_title(name, "pytorch", "PyTorch", variant) == title


def test_the_default_of_an_account_is_known_by_its_own_name(tmp_path: Path) -> None:
    for name in ("jax", "pytorch"):
        (tmp_path / f"{name}-cpu-cp311-x86_64.txt").write_text(f"{name}==1.0")
    wishes = {"environments": ["jax", "pytorch"], "variant": "cpu", "path": "/envs", "default_for": {"jupyter": "torch", "ann": "jax"}}
    found = filters.environments(wishes, catalogue=CATALOGUE, facts=FACTS, indexes={}, locks=str(tmp_path))
    assert found["problems"] == []
    assert found["defaults"] == {"jupyter": "pytorch", "ann": "jax"}
    assert found["kernels"][1] == {"name": "pytorch", "path": "/envs/pytorch", "title": "PyTorch (CPU)"}


def test_what_comes_by_conda_brings_its_python_and_wants_what_makes_it(tmp_path: Path) -> None:
    caffe = {**FROZEN, "variants": {**FROZEN["variants"], "conda": {"device": "cpu", "pythons": ["3.6"], "conda": CONDA}}}
    tools = {"title": "Tools", "kind": "service", "variants": {"cpu": {"device": "cpu", "pythons": ["3.11"]}}}
    for name in ("jax", "tools"):
        (tmp_path / f"{name}-cpu-cp311-x86_64.txt").write_text(f"{name}==1.0")

    def found(*wanted: Any, services: tuple[str, ...] = ()) -> dict[str, Any]:
        return filters.environments(
            {"environments": list(wanted), "services": services, "variant": "cpu", "path": "/envs"},
            catalogue={**CATALOGUE, "caffe": caffe, "tools": tools},
            facts=FACTS,
            indexes={},
            locks=str(tmp_path),
            conda_services=["tools"],
        )

    said = found("jax", {"name": "caffe", "variant": "conda"})
    about = {"environment": "caffe", "variant": "conda", "kind": "framework", "title": "Caffe", "proof": "caffe", "device": "cpu"}
    assert said["problems"] == []
    assert said["conda"] == [{"name": "caffe", "path": "/envs/caffe", "state": "present", "about": about, **CONDA}]
    assert [entry["name"] for entry in said["environments"]] == ["jax"]
    assert [entry["name"] for entry in said["services"]] == ["tools"]
    assert [entry["name"] for entry in found({"name": "caffe", "variant": "conda"}, services=("tools",))["services"]] == ["tools"]
    assert [kernel["path"] for kernel in said["kernels"]] == ["/envs/jax", "/envs/caffe"]
    assert [proof["proof"] for proof in said["provable"]] == ["jax", "caffe"]
    frozen = found("jax", "caffe")
    assert (frozen["conda"], frozen["services"], len(frozen["frozen"])) == ([], [], 1)
    gone = found({"name": "caffe", "state": "absent"})
    assert [entry["state"] for kind in ("frozen", "conda") for entry in gone[kind]] == ["absent", "absent"], "whichever of them it was"
    assert gone["services"] == []
    planned = {"name": "caffe", "environment": "caffe", "variant": "conda"}
    assert environments.wishes(["caffe"], "cpu", {"caffe": caffe}, [planned])[0].variant == "conda"
    assert environments.available(["caffe", "jax"], {**CATALOGUE, "caffe": caffe}, environments.Node.of(FACTS, "3.12"), "conda") == [
        "caffe"
    ]


def test_the_modules_get_each_its_own(tmp_path: Path) -> None:
    (tmp_path / "jax-cpu-cp311-x86_64.txt").write_text("jax==1.0")
    wishes = {"environments": ["jax", "caffe"], "variant": "cpu", "path": "/envs"}
    found = filters.environments(wishes, catalogue={**CATALOGUE, "caffe": FROZEN}, facts=FACTS, indexes={}, locks=str(tmp_path))
    assert found["problems"] == []
    assert [(entry["name"], entry["requirements"]) for entry in found["environments"]] == [("jax", "jax==1.0")]
    about = {"environment": "caffe", "variant": "cpu", "kind": "framework", "title": "Caffe", "proof": "caffe", "device": "cpu"}
    assert found["frozen"] == [{"name": "caffe", "state": "present", "about": about, "suite": "bullseye"}]
    assert found["services"] == []
    assert [kernel["path"] for kernel in found["kernels"]] == ["/envs/jax", "/envs/caffe"]


def test_a_frozen_environment_has_the_lock_of_its_own_python(tmp_path: Path) -> None:
    catalogue = {"jax": {**CATALOGUE["jax"], "variants": {**CATALOGUE["jax"]["variants"], "cpu-1": OLD}}}
    wishes = {"environments": [{"name": "jax", "variant": "cpu-1"}], "variant": "cpu", "path": "/envs"}
    none = filters.environments(wishes, catalogue=catalogue, facts=FACTS, indexes={}, locks=str(tmp_path))
    assert none["problems"] == [
        "framework_env_environments: jax has no lock for Python 2.7 on x86_64. Make it with tools/lock_envs.py, "
        "or take jax out for this node."
    ]
    (tmp_path / "jax-cpu-1-cp27-x86_64.txt").write_text("jax==0.1")
    found = filters.environments(wishes, catalogue=catalogue, facts=FACTS, indexes={}, locks=str(tmp_path))
    (frozen,) = found["frozen"]
    assert (frozen["requirements"], frozen["python"], found["environments"]) == ("jax==0.1", "python2.7", [])
    assert found["provable"][0]["proof"] == "jax_1"


def test_what_is_to_go_is_shown_to_each_module_that_may_have_made_it(tmp_path: Path) -> None:
    wishes = {"environments": [{"name": "old", "state": "absent"}], "variant": "cpu", "path": "/envs"}
    found = filters.environments(wishes, catalogue=CATALOGUE, facts=FACTS, indexes={}, locks=str(tmp_path))
    assert found["frozen"] == found["environments"] == [{"name": "old", "state": "absent"}]
