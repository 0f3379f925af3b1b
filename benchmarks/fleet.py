#!/usr/bin/env python3
# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Measures `site.yml` with nothing to do on fleets of 3, 10 and 30 nodes: a Slurm cluster that grows, without frameworks.

    .venv/bin/python benchmarks/fleet.py [ROUNDS] [SIZE ...]

Boots containers of its own and takes them down again. The first compute node is brought up as any; the others start from a copy of
its disk, as fleets are cloned, so that packages are fetched twice, not thirty times. All containers and the controller share one machine.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import yaml
from docker.errors import ImageNotFound
from timed_site import timed_site

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))
sys.path.insert(0, str(REPOSITORY / "collections"))

from trainyard.containers import Image, Lab  # noqa: E402 - the paths above come first
from trainyard.paths import CHECKOUT  # noqa: E402

NAME = f"fleet-{CHECKOUT}"
CLONE = f"trainyard/fleet:{CHECKOUT}"


class Clone(Image):
    """The image that was made of a node."""

    def ensure(self, *_words: object) -> str:
        """Return its tag."""
        return CLONE


def inventory(lab: Lab, nodes: list[str], folder: Path) -> Path:
    """Describe a cluster of some of the lab's nodes, and return the file that does."""
    every = {"ansible_user": "admin", "ansible_ssh_common_args": f"-F {lab.ssh_config}", "framework_env_environments": []}
    hosts = {name: {"names_and_time_address": lab.address(name)} for name in nodes}
    groups = {"slurm_controller": {"hosts": {"head": None}}, "slurm_compute": {"hosts": dict.fromkeys(nodes[1:])}}
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"vars": every, "hosts": hosts, "children": {"cluster": {"children": groups}}}}))
    return path


def once(path: Path, quiet: int = 0) -> float:
    """Run site.yml and return its seconds; that many nodes must have had nothing to do."""
    with tempfile.TemporaryDirectory(prefix="cp") as connections:  # none is left open by the run before
        seconds, done = timed_site(path, {"ANSIBLE_SSH_CONTROL_PATH_DIR": connections})
    if done.returncode or done.stdout.count("changed=0") < quiet:
        sys.exit(f"site.yml did not end as it should:\n{done.stdout[-3000:]}\n{done.stderr[-1000:]}")
    return seconds


def main() -> None:
    """Grow, measure and print."""
    rounds, *sizes = [int(word) for word in sys.argv[1:]] or [3]
    nodes = ["head", *(f"node{number}" for number in range(1, max(sizes or [30])))]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        lab = Lab(NAME, nodes[:2], folder / "lab", say=lambda _text: None)
        lab.down()
        try:
            lab.up()
            once(inventory(lab, nodes[:2], folder))
            lab.client.containers.get(f"trainyard-{NAME}-node1").commit(*CLONE.split(":"))
            lab.image = Clone()
            smallest = 0.0
            for size in sizes or [3, 10, 30]:
                lab.nodes = nodes[:size]
                lab.up()
                path = inventory(lab, nodes[:size], folder)
                grown = once(path)
                seconds = statistics.median(once(path, size) for _ in range(rounds))
                smallest = smallest or seconds
                print(
                    f"{size:3} nodes: {seconds:6.1f} s with nothing to do (median of {rounds}), {seconds / smallest:.1f} times the first; "
                    f"{grown:.1f} s for the run that brought the new ones in",
                    flush=True,
                )
        finally:
            lab.down()
            with suppress(ImageNotFound):  # it did not get that far
                lab.client.images.remove(CLONE, force=True)


if __name__ == "__main__":
    main()
