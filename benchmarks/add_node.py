#!/usr/bin/env python3
# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What the second node of a cluster costs against the first: seconds, and bytes from outside the lab's network.

    .venv/bin/python benchmarks/add_node.py [ENVIRONMENT ...]

Boots two bare containers of its own and takes them down again. `site.yml` makes a cluster of the first, which schedules, computes and keeps
a cache of packages. `./trainyard add-node` brings the second in, to its place in the queues, with the training of both that proves it.
Bytes are counted by this machine's firewall, the head's own in the meantime included. What comes from the wheelhouse (PIP_FIND_LINKS) is
on both nodes and is not counted; both nodes share this machine, on which their network is faster than a cable.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from timed_site import REPOSITORY, timed_site

sys.path[:0] = [str(REPOSITORY / folder) for folder in ("", "src", "collections")]

from tests.traffic import counted  # noqa: E402 - the paths above come first
from trainyard.containers import Lab  # noqa: E402
from trainyard.lab import WHEELHOUSE  # noqa: E402
from trainyard.lab import lab as own_lab  # noqa: E402
from trainyard.paths import CHECKOUT  # noqa: E402

NODES = ("head", "node1")


def inventory(lab: Lab, folder: Path, environments: list[str]) -> Path:
    """Describe the cluster of the head alone, and return the file that does."""
    known = [line.partition(" ") for line in (lab.state / "known_hosts").read_text().splitlines()]
    (folder / "known_hosts").write_text("".join(f"{lab.address(name)} {key}\n" for name, _blank, key in known))
    (folder / "ssh_config").write_text(
        f"Host *\n  IdentityFile {lab.key.resolve()}\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder / 'known_hosts'}\n"
        "  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
    )
    every = {
        "ansible_user": "admin",
        "ansible_ssh_common_args": f"-F {folder / 'ssh_config'}",
        "base_ca_certificates": "{{ query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt') }}",
        "framework_env_environments": environments,
        "framework_env_wheelhouse": WHEELHOUSE,
        "package_cache_enabled": True,
    }
    groups = {
        "slurm_controller": {"hosts": {"head": {"ansible_host": lab.address("head")}}},
        "slurm_compute": {"hosts": {"head": None}},
    }
    path = folder / "hosts.yml"
    # Each value on one line, since add-node edits whole lines.
    path.write_text(yaml.safe_dump({"all": {"vars": every, "children": {"cluster": {"children": groups}}}}, width=1000))
    return path


def add(path: Path, address: str) -> float:
    """Add the second node, and return the seconds that it took."""
    started = time.monotonic()
    words = [str(REPOSITORY / "trainyard"), "add-node", "-i", str(path), "node1", "--address", address]
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(done.stdout[-3000:] + done.stderr)
    return time.monotonic() - started


def main() -> None:
    """Measure in turn and print."""
    environments = sys.argv[1:] or ["keras", "pytorch"]
    with tempfile.TemporaryDirectory() as made:
        mounts = {next(iter(own_lab().mounts)): WHEELHOUSE}
        lab = Lab(f"bench-add-node-{CHECKOUT}", NODES, Path(made) / "lab", mounts=mounts, say=lambda _text: None)
        lab.down()
        lab.up()
        try:
            path = inventory(lab, Path(made), environments)
            with counted(lab, NODES) as counters:
                first, done = timed_site(path, {})
                if done.returncode:
                    sys.exit(done.stdout[-3000:] + done.stderr)
                drawn_first = counters.read()
                second = add(path, lab.address("node1"))
                drawn_second = {node: number - drawn_first[node] for node, number in counters.read().items()}
        finally:
            lab.down()
    print(f"{', '.join(environments)}")
    print(f"first node, by site.yml    {first:6.1f} s   {sum(drawn_first.values()) / 1e6:8.2f} MB from outside")
    print(
        f"second node, by add-node   {second:6.1f} s   {sum(drawn_second.values()) / 1e6:8.2f} MB from outside, "
        f"of them {drawn_second['node1'] / 1e6:.2f} by the node itself"
    )
    print(f"ratio                      {second / first:6.2f}     {sum(drawn_second.values()) / sum(drawn_first.values()):8.5f}")


if __name__ == "__main__":
    main()
