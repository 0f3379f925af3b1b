"""What the plan chose reaches the roles: the playbooks as they are, on a real node whose GPU alone is made up.

The node has no GPU, so what it says of its hardware is given as an extra variable, which wins over what the module found: a stand-in
at the very edge. Nothing is installed; check mode shows what would be.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import Play, ansible_playbook, inventory_of
from trainyard.containers import Lab
from trainyard.paths import REPOSITORY

pytestmark = pytest.mark.nodes

ENVIRONMENTS = "framework_env : Have the environments exactly as locked"


def run(node: Lab, folder: Path, playbook: str, device: str = "", group: str = "", driver: str = "", **variables: Any) -> Play:
    """Run one of the playbooks in check mode; ``device`` is the PCI id of the GPU that the node claims to have, beside a driver."""
    authorities = "{{ query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt') }}"
    inventory = inventory_of(node, folder, {"base_users": [], "base_ca_certificates": authorities, **variables})
    if group:
        data = yaml.safe_load(inventory.read_text())
        data["all"]["children"] = {group: {"hosts": {"head": None}}}
        inventory.write_text(yaml.safe_dump(data))
    words = ["--check"]
    if device:
        said = {"pci": [{"device": device, "virtual_function": False}], "nvidia_smi": {"driver_version": driver}, "modules": {}}
        (folder / "said.yml").write_text(yaml.safe_dump({"plan_gpu_info_result": {"gpu_info": {**said, "secure_boot": "disabled"}}}))
        words += ["-e", f"@{folder}/said.yml"]
    return ansible_playbook(REPOSITORY / "playbooks" / playbook, inventory, words)


def variants(done: Play) -> dict[str, str]:
    """Return what would be installed: environment -> variant."""
    wanted = done.results[ENVIRONMENTS, "head"]["invocation"]["module_args"]["environments"]
    return {entry["name"]: entry["about"]["variant"] for entry in wanted}


def test_planned_environments_are_those_that_the_node_gets(node: Lab, tmp_path: Path) -> None:
    done = run(node, tmp_path, "frameworks.yml", "2684", plan_environments=["jax"])
    assert done.status == 0, done.failures()
    assert variants(done) == {"jax": "cu13"}


def test_without_a_gpu_the_same_wishes_come_for_the_cpu(node: Lab, tmp_path: Path) -> None:
    done = run(node, tmp_path, "frameworks.yml", plan_environments=["jax", "tensorflow"])
    assert variants(done) == {"jax": "cpu", "tensorflow": "cpu"}


def test_the_inventory_may_ask_for_another_variant(node: Lab, tmp_path: Path) -> None:
    wishes = ["jax", {"name": "keras", "variant": "cpu"}]
    done = run(node, tmp_path, "frameworks.yml", "2684", plan_environments=["jax", "keras"], framework_env_environments=wishes)
    assert variants(done) == {"jax": "cu13", "keras": "cpu"}


def test_what_fits_and_is_not_locked_is_refused(node: Lab, tmp_path: Path) -> None:
    done = run(node, tmp_path, "preflight.yml", "1db4", plan_environments=["pytorch"])
    assert "plan_environments: pytorch on head comes to torch==" in done.failures()
    assert "which is not locked" in done.failures()


def test_a_gpu_node_for_which_nothing_is_wished_is_refused(node: Lab, tmp_path: Path) -> None:
    done = run(node, tmp_path, "preflight.yml", group="gpu")
    assert "plan_environments: head belongs to the group gpu, and nothing says what its GPUs are for." in done.failures()


def test_the_drivers_role_hears_what_was_planned(node: Lab, tmp_path: Path) -> None:
    wishes = {"plan_environments": ["tensorflow"], "plan_driver_sources": ["distribution"], "cuda_toolkits": []}
    forced = run(node, tmp_path, "gpu.yml", "2684", "gpu", nvidia_driver_force=True, **wishes)
    assert forced.status == 0, forced.failures()
    installed = forced.results["nvidia_driver : Have the driver, and the headers that its modules are built with", "head"]
    assert "nvidia-kernel-dkms" in installed["installed"]
    quiet = run(node, tmp_path, "gpu.yml", "2684", "gpu", **wishes)
    assert "No NVIDIA GPU is on the bus of head, so no driver is installed." in quiet.text
    assert quiet.changed == {"head": 0}


def test_the_role_of_cuda_hears_what_was_planned(node: Lab, tmp_path: Path) -> None:
    wishes = {"plan_environments": ["tensorflow"], "plan_driver_sources": ["distribution"], "cuda_source": "wheels"}
    refused = run(node, tmp_path, "preflight.yml", "2684", "gpu", **wishes)
    assert "cuda_toolkits: there is no CUDA 11.8.0 from wheels" in refused.failures(), "R535 and no vendor's repository leave Debian's"


def test_a_driver_that_will_do_is_left_alone(node: Lab, tmp_path: Path) -> None:
    wishes = {"plan_environments": ["tensorflow"], "nvidia_driver_force": True}
    kept = run(node, tmp_path, "gpu.yml", "2684", "gpu", "580.95.05", **wishes)
    assert "nvidia-smi is not installed" in kept.failures(), "it is judged all the same"
    assert not any("Have the driver" in name for name, _host in kept.results)
    assert kept.changed == {"head": 0}
