"""GPUs in Slurm with NVML's autodetection, on Debian 13, whose archive has the plugin for it.

There is no GPU: tests/nvml_stand_in.c answers in place of NVIDIA's library, and a script in place of nvidia-smi. Slurm and its plugin are
real.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support import Play, ansible_playbook
from trainyard.containers import Image, Lab
from trainyard.paths import CHECKOUT, REPOSITORY
from trainyard.system import install

pytestmark = pytest.mark.nodes

LIBRARY = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"
PLUGIN = "slurm-wlm-nvml-plugin"
# What gpu_info asks for, and the list that the health check counts.
SMI = """#!/bin/sh
count=$(cat /etc/stand-in-gpus)
[ "$count" -gt 0 ] || { echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."; exit 9; }
each() { i=0; while [ $i -lt $count ]; do "$1"; i=$((i + 1)); done; }
line() { echo "GPU $i: NVIDIA A100-SXM4-40GB (UUID: GPU-$i)"; }
gpu() { echo "<gpu id='00000000:0$((i + 1)):00.0'><product_name>NVIDIA A100-SXM4-40GB</product_name></gpu>"; }
case $1 in
-L) each line ;;
*) echo "<?xml version='1.0' ?><nvidia_smi_log><driver_version>580.65.06</driver_version>"; each gpu; echo "</nvidia_smi_log>" ;;
esac
"""


class Node:
    """One node that schedules and computes, and its inventory."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.inventory = lab, folder / "hosts.yml"
        every = {"ansible_user": "admin", "ansible_ssh_common_args": f"-F {lab.ssh_config}"}
        groups = {"slurm_controller": {"hosts": {"head": None}}, "slurm_compute": {"hosts": {"head": None}}}
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": every, "children": {"cluster": {"children": groups}}}}))

    def shell(self, script: str, *, check: bool = True) -> str:
        """Run a script as root."""
        return self.lab.execute("head", ["bash", "-ec", script], check=check).strip()

    def attempt(self, *words: str) -> Play:
        """Make a cluster of it, or try to."""
        return ansible_playbook(REPOSITORY / "playbooks" / "cluster.yml", self.inventory, ["--tags", "names_and_time,slurm", *words])

    def run(self) -> Play:
        """Make a cluster of it."""
        done = self.attempt()
        assert done.status == 0, done.failures() or done.text[-3000:]
        return done

    def gpus(self, count: int) -> None:
        """Have as many GPUs answer, and Slurm's daemon look anew."""
        self.shell(f"echo {count} > /etc/stand-in-gpus; systemctl restart slurmd 2>/dev/null || true")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with two GPUs, as far as can be asked, and the plugin of the distribution."""
    install({"gcc": "gcc"})
    folder = tmp_path_factory.mktemp("nvml")
    library = folder / Path(LIBRARY).name
    source = REPOSITORY / "tests" / "nvml_stand_in.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", str(library), str(source)], check=True)
    lab = Lab(
        f"test-slurm-gpus-{CHECKOUT}",
        ["head"],
        tmp_path_factory.mktemp("lab"),
        image=Image("trixie"),
        mounts={folder: "/mnt"},
        say=lambda _text: None,
    )
    lab.down()
    lab.up()
    try:
        found = Node(lab, tmp_path_factory.mktemp("inventory"))
        found.gpus(2)
        found.shell(f"cp /mnt/{library.name} {LIBRARY}; cat > /usr/bin/nvidia-smi << 'END'\n{SMI}END\nchmod +x /usr/bin/nvidia-smi")
        found.shell("sed -i 's/ main$/ main contrib/' /etc/apt/sources.list; apt-get -q update")
        found.shell(f"DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends {PLUGIN}")
        found.run()
        yield found
    finally:
        lab.down()


def test_nvml_says_which_cores_are_near_a_gpu(node: Node) -> None:
    assert "AutoDetect=nvml" in node.shell("cat /etc/slurm/gres.conf")
    assert node.shell("sinfo -h -o '%t %G'") == "idle gpu:a100-sxm4-40gb:2(S:0)"
    assert "Autodetect=nvml" in node.shell("slurmd -C")
    assert node.run().changed == {"head": 0}


def test_each_job_has_a_gpu_of_its_own(node: Node) -> None:
    words = "--gpus=1 -n1 --mem=10 --wrap 'echo $CUDA_VISIBLE_DEVICES; sleep 3'"
    node.shell(f"cd /tmp; for i in 1 2; do sbatch --quiet --output=/tmp/gpu-$i {words}; done")
    node.shell("timeout 60 sh -c 'while squeue -h | grep -q .; do sleep 0.5; done'")
    assert node.shell("sort /tmp/gpu-1 /tmp/gpu-2").split() == ["0", "1"]
    refused = node.shell("cd /tmp; sbatch --gpus=3 --wrap true 2>&1", check=False)
    assert "Requested node configuration is not available" in refused


def test_a_job_keeps_its_gpu(node: Node) -> None:
    """Other GPUs of a node are refused while a job there has one; a job without any does not stand against them."""
    before, other = node.shell("sha256sum /etc/slurm/*.conf"), ("-e", '{"slurm_gpus": ["a100-sxm4-40gb"]}')
    job = node.shell("cd /tmp; sbatch --parsable --output=/dev/null --gpus=1 -n1 --mem=10 --wrap 'sleep 300'")
    node.shell(f"timeout 60 sh -c 'until squeue -h -j {job} -o %T | grep -q RUNNING; do sleep 0.5; done'")
    refused = node.attempt(*other)
    said = "the GPUs of head would change from gpu:a100-sxm4-40gb:2 to gpu:a100-sxm4-40gb:1, and the job"
    assert f"slurm_gpus: {said} {job} (root, running)" in refused.failures()
    assert node.shell("sha256sum /etc/slurm/*.conf") == before
    node.shell(f"scancel {job}; cd /tmp; sbatch --output=/dev/null -n1 --mem=10 --wrap 'sleep 300'")
    allowed = node.attempt("--check", *other)
    assert allowed.status == 0, allowed.failures()
    node.shell("scancel --user=root; timeout 60 sh -c 'while squeue -h | grep -q .; do sleep 0.5; done'")


@pytest.mark.parametrize("left", [1, 0])
def test_a_gpu_that_is_gone_drains_the_node_and_the_daemon_stays_up(node: Node, left: int) -> None:
    node.gpus(left)
    if not left:
        node.shell(f"mv {LIBRARY} /root/ && systemctl restart slurmd")
    node.shell("timeout 60 sh -c 'until sinfo -h -o %t | grep -q drain; do sleep 0.5; done'")
    assert node.shell("sinfo -h -o '%E'") == f"{left} of 2 GPUs answer (nvidia-smi -L)"
    assert node.shell("systemctl is-active slurmd") == "active"
    assert node.run().changed == {"head": 0}
    if not left:
        node.shell(f"mv /root/{Path(LIBRARY).name} {LIBRARY}")
    node.gpus(2)
    node.shell("scontrol update NodeName=head State=RESUME; timeout 60 sh -c 'until sinfo -h -o %t | grep -q idle; do sleep 0.5; done'")


def test_without_the_plugin_the_daemon_starts_after_the_next_run(node: Node) -> None:
    node.shell(f"dpkg --remove --force-depends {PLUGIN} >/dev/null; systemctl restart slurmd 2>/dev/null || true")
    assert node.shell("systemctl is-active slurmd", check=False) != "active", "Slurm demands what its configuration names"
    node.run()
    assert "AutoDetect" not in node.shell("cat /etc/slurm/gres.conf")
    assert node.shell("sinfo -h -o '%t %G'") == "idle gpu:a100-sxm4-40gb:2"
    assert node.shell("cd /tmp; srun --gpus=1 sh -c 'echo $CUDA_VISIBLE_DEVICES'") == "0"
