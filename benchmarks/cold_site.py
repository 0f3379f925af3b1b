#!/usr/bin/env python3
"""Measures `site.yml` on three bare nodes against floor.sh, the same installs typed by hand over SSH, in one run on this machine.

usage: .venv/bin/python benchmarks/cold_site.py [ROUNDS]

Boots a lab of its own for each measurement and takes it away again; needs Docker, as `./trainyard up` does.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from timed_site import REPOSITORY, timed_site

sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY / "collections")]

from trainyard.containers import Lab  # noqa: E402 - the paths above come first
from trainyard.lab import INVENTORY, NODES, lab  # noqa: E402

LOCKS = REPOSITORY / "roles" / "catalog" / "files" / "locks"
PROOFS = REPOSITORY / "roles" / "verification" / "files" / "proofs"
ENVIRONMENTS = ("tensorflow", "pytorch", "keras", "paddle", "jax", "jupyterlab", "tensorboard")


def bare(folder: Path) -> Lab:
    """Boot three bare nodes."""
    here = Lab("cold", NODES, folder / "lab", mounts=lab().mounts, say=lambda _text: None)
    here.down()
    here.up()
    return here


def ours(here: Lab, folder: Path) -> float:
    """Run site.yml and return its seconds."""
    variables = {"ansible_user": "admin", "ansible_ssh_common_args": f"-F {here.ssh_config}", "jupyter_password": "cold-benchmark-4711"}
    for path in sorted((INVENTORY / "group_vars" / "all").glob("*.yml")):
        if path.stem not in {"connection", "notebooks"}:
            variables |= yaml.safe_load(path.read_text())
    variables["tensorboard_password"] = variables["jupyter_password"]
    hosts = dict.fromkeys(NODES)
    inventory = folder / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": variables, "children": {"notebooks": {"hosts": hosts}}}}))
    seconds, done = timed_site(inventory, {"TRAINYARD_REPORT_JSON": "", "TRAINYARD_REPORT_HTML": ""})
    if done.returncode:
        sys.exit(done.stdout[-3000:] + done.stderr[-1000:])
    return seconds


def floor(here: Lab, folder: Path) -> float:
    """Copy what floor.sh needs, run it on all nodes at once, and return the seconds of both."""
    stage = folder / "floor"
    shutil.rmtree(stage, ignore_errors=True)
    (stage / "locks").mkdir(parents=True)
    for name in ENVIRONMENTS:
        (lock,) = LOCKS.glob(f"{name}-cpu-cp311-{os.uname().machine}.txt")
        shutil.copy(lock, stage / "locks" / f"{name}.txt")
    shutil.copy(LOCKS / "installer.txt", stage / "locks")
    shutil.copytree(PROOFS, stage / "proofs")
    authorities = Path("/usr/local/share/ca-certificates")
    shutil.copytree(authorities, stage / "ca")
    shutil.copy(REPOSITORY / "benchmarks" / "floor.sh", stage)
    command = "tar -C /tmp -xf - && sudo sh /tmp/floor/floor.sh"
    started = time.monotonic()
    running = []
    for node in NODES:
        pack = subprocess.Popen(["tar", "-C", str(folder), "-cf", "-", "floor"], stdout=subprocess.PIPE)
        running.append(
            subprocess.Popen(
                ["ssh", "-F", str(here.ssh_config), node, command],
                stdin=pack.stdout,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for process in running:
        output, _nothing = process.communicate()
        if process.returncode:
            sys.exit(output[-3000:])
    return time.monotonic() - started


def main() -> None:
    """Measure in turn and print."""
    ratios = []
    for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1):
        seconds = {}
        both = [("floor.sh", floor), ("site.yml", ours)]
        for name, measure in reversed(both) if number % 2 == 0 else both:  # who comes second may find caches on the way filled
            with tempfile.TemporaryDirectory() as folder:
                here = bare(Path(folder))
                try:
                    seconds[name] = measure(here, Path(folder))
                finally:
                    here.down()
        ratios.append(seconds["site.yml"] / seconds["floor.sh"])
        print(f"site.yml {seconds['site.yml']:6.1f} s   floor.sh {seconds['floor.sh']:6.1f} s   ratio {ratios[-1]:.2f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
