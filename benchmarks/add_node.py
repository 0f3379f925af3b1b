#!/usr/bin/env python3
# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What the second node's environments cost against the first one's: seconds, and bytes from outside the lab's network.

    .venv/bin/python benchmarks/add_node.py [ENVIRONMENT ...]

Boots a cluster of two containers of its own and takes it down again. The head makes its environments from the index, then the other node
fetches them from the head. Both have the base and the distribution's packages already. Bytes are counted by this machine's firewall. What
comes from the wheelhouse (PIP_FIND_LINKS) is on both nodes and is not counted; a cable between the nodes is slower than this machine.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import yaml
from timed_site import REPOSITORY, timed_playbook

sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "src")]

from tests.traffic import counted  # noqa: E402 - the paths above come first
from trainyard.containers import Lab  # noqa: E402
from trainyard.lab import WHEELHOUSE  # noqa: E402
from trainyard.lab import lab as own_lab  # noqa: E402
from trainyard.paths import CHECKOUT  # noqa: E402

NODES = ("head", "node1")


def inventory(lab: Lab, folder: Path, environments: list[str]) -> Path:
    """Describe the cluster, and return the file that does."""
    every = {
        "ansible_user": "admin",
        "ansible_ssh_common_args": f"-F {lab.ssh_config}",
        "base_ca_certificates": "{{ query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt') }}",
        "base_packages": ["rsync", "python3-venv", "libgomp1"],
        "framework_env_environments": environments,
        "framework_env_wheelhouse": WHEELHOUSE,
    }
    groups = {"slurm_controller": {"hosts": {"head": None}}, "slurm_compute": {"hosts": {"node1": None}}}
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"vars": every, "children": {"cluster": {"children": groups}}}}))
    return path


def play(book: str, path: Path, *words: str) -> float:
    """Run a playbook, and return its seconds."""
    seconds, done = timed_playbook(f"playbooks/{book}.yml", path, {}, *words)
    if done.returncode:
        sys.exit(done.stdout[-3000:] + done.stderr)
    return seconds


def main() -> None:
    """Measure in turn and print."""
    environments = sys.argv[1:] or ["tensorflow", "keras", "jax"]
    with tempfile.TemporaryDirectory() as made:
        mounts = {next(iter(own_lab().mounts)): WHEELHOUSE}
        lab = Lab(f"bench-add-node-{CHECKOUT}", NODES, Path(made) / "lab", mounts=mounts, say=lambda _text: None)
        lab.down()
        lab.up()
        try:
            path = inventory(lab, Path(made), environments)
            play("base", path)
            with counted(lab, NODES) as counters:
                first = play("frameworks", path, "--limit", "head")
                bytes_first = counters.read()
                second = play("frameworks", path, "--limit", "head,node1")
                bytes_second = {node: number - bytes_first[node] for node, number in counters.read().items()}
            size = int(lab.execute("head", ["du", "-sm", "--exclude=.cache", "--exclude=.uv", "/opt/trainyard/envs"]).split()[0])
        finally:
            lab.down()
    outside = sum(bytes_second.values())
    print(f"{', '.join(environments)}: {size} MB on the disk")
    print(f"first node    {first:6.1f} s   {bytes_first['head'] / 1e6:8.2f} MB from outside")
    print(f"second node   {second:6.1f} s   {outside / 1e6:8.2f} MB from outside (what the head drew meanwhile counted)")
    print(f"ratio         {second / first:6.2f}     {outside / bytes_first['head']:8.5f}")


if __name__ == "__main__":
    main()
