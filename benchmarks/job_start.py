#!/usr/bin/env python3
# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What cluster_train adds to a job, against bare sbatch with srun: a script that does nothing, on two nodes.

    .venv/bin/python benchmarks/job_start.py [ROUNDS]

Boots a cluster of three containers of its own and takes it down again. Both ways are waited for with `scontrol` ten times a second. The
environment is a bare venv: what a framework takes to start is not measured.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY / "collections")]

from trainyard.containers import Lab  # noqa: E402 - the path above comes first
from trainyard.paths import CHECKOUT  # noqa: E402

SHARED = "/srv/shared"
BARE = "sbatch --parsable -N2 --ntasks-per-node=1 --output=/dev/null --wrap 'srun true'"
OURS = "cluster_train --framework keras --config nothing.py --num-nodes 2 | sed -n 's/^Job \\([0-9]*\\) .*/\\1/p'"
WAIT = "while scontrol -o show job $job | grep -qE 'JobState=(PENDING|RUNNING|COMPLETING|CONFIGURING)'; do sleep 0.1; done"


def inventory(lab: Lab, folder: Path) -> Path:
    """Describe the cluster, and return the file that does."""
    groups = {"slurm_controller": {"hosts": {"head": None}}, "slurm_compute": {"hosts": {"node1": None, "node2": None}}}
    every = {"ansible_user": "admin", "ansible_ssh_common_args": f"-F {lab.ssh_config}"}
    hosts = {name: {"names_and_time_address": lab.address(name)} for name in lab.nodes}
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"vars": every, "hosts": hosts, "children": {"cluster": {"children": groups}}}}))
    return path


def once(lab: Lab, command: str) -> float:
    """Run a job to its end, and return the seconds from its submission."""
    started = time.monotonic()
    said = lab.execute("head", ["bash", "-ec", f"cd {SHARED}; job=$({command}); {WAIT}; scontrol -o show job $job"])
    seconds = time.monotonic() - started
    if "JobState=COMPLETED " not in said:
        sys.exit(f"the job did not end well: {said}")
    return seconds


def main() -> None:
    """Measure in turn and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        shared = folder / "shared"
        shared.mkdir()
        (shared / "nothing.py").touch()
        lab = Lab(f"job-start-{CHECKOUT}", ["head", "node1", "node2"], folder / "lab", shared={shared: SHARED}, say=lambda _text: None)
        try:
            lab.up()
            words = [str(BIN / "ansible-playbook"), "playbooks/cluster.yml", "-i", str(inventory(lab, folder))]
            environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
            subprocess.run(words, cwd=REPOSITORY, env=environment, check=True, stdout=subprocess.DEVNULL)
            for node in ("node1", "node2"):
                lab.execute(node, ["python3", "-m", "venv", "--without-pip", "/opt/trainyard/envs/keras"])
            ways = {"sbatch": BARE, "cluster_train": OURS}
            took: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(rounds):
                for name, command in ways.items():
                    took[name].append(once(lab, command))
                print("   ".join(f"{name} {seconds[-1]:5.2f} s" for name, seconds in took.items()), flush=True)
        finally:
            lab.down()
    bare, ours = (statistics.median(seconds) for seconds in took.values())
    print(f"median: sbatch {bare:.2f} s, cluster_train {ours:.2f} s: {ours - bare:.2f} s more, {ours / bare:.2f} times")


if __name__ == "__main__":
    main()
