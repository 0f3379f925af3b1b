# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The proof of the nodes of an allocation: they meet over the network, then train together what both have a framework for."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import cluster, job, submit
from .errors import RefusedError
from .node import environments
from .options import FRAMEWORKS

PATIENCE = 60.0
"""Seconds that nodes wait for each other."""
PASSES = 30
"""Passes over the digits, which every sample needs fewer of."""
ACCURACY = 0.95
PAYLOAD = b" " * 65536
"""More than one packet, and more than what a small MTU lets through unbroken."""


def main(run: Path, settings: dict[str, str]) -> int:
    """Prove the nodes of the allocation that this runs in; return 0 when they are proven.

    Raises:
        RefusedError: this runs in no allocation.
    """
    here = cluster.allocation(os.environ)
    words = ["srun", f"--nodes={here.nodes}", f"--ntasks={here.nodes}", "--ntasks-per-node=1", "--cpus-per-task=1", "--chdir=/"]
    met = subprocess.run([*words, str(run), "meet"], stdout=subprocess.PIPE, text=True, check=False, stdin=subprocess.DEVNULL)
    print(met.stdout, end="", flush=True)
    has = {name: shlex.split(found) for name, found in re.findall(r"^(\S+) has: (.*)$", met.stdout, re.MULTILINE)}
    if met.returncode or len(has) != here.nodes:
        return met.returncode or 1
    common = set.intersection(*(set(found) for found in has.values()))
    framework = next((name for name in FRAMEWORKS if name in common), None)
    if not framework:
        print(f"{' and '.join(has)} have no framework in common ({', '.join(FRAMEWORKS)}): they have met, and trained nothing.")
        return 0
    return train(framework, here.nodes, sorted(has), run, settings)


def train(framework: str, nodes: int, names: Sequence[str], run: Path, settings: dict[str, str]) -> int:
    """Train a framework's sample on all nodes, and return 0 when it is good enough and all took part."""
    words = ["--here", f"--framework={framework}", f"--config={framework}_digits.py", f"--workspace={settings['samples']}"]
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="trainyard-proof-") as scratch:
        os.chdir(scratch)
        try:
            status = submit.main([*words, f"--num-nodes={nodes}", f"--num-passes={PASSES}"], "cluster_train", run, settings)
            logs = "".join(path.read_text() for path in Path(scratch).glob(f"*/{job.LOGS}/*.log"))
        finally:
            os.chdir(before)
    if status:
        return status
    said: dict[str, Any] = next((json.loads(line) for line in logs.splitlines() if line.startswith("{") and '"accuracy"' in line), {})
    if said.get("accuracy", 0) < ACCURACY or sorted(said.get("hosts", [])) != sorted(names):
        print(f"{framework} ended well, but not as it should: {ACCURACY} and the hosts {', '.join(names)} were wanted, and it says {said}")
        return 1
    print(f"{said['framework']} trained on {' and '.join(names)} ({said['device']}) to {said['accuracy']}.")
    return 0


def meet(settings: dict[str, str]) -> int:
    """Meet the other nodes of a job step over TCP, at the address that Slurm has of the first; then say what is here."""
    rank, own = int(os.environ["SLURM_NODEID"]), socket.gethostname().partition(".")[0]
    names = cluster.ask(["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]]).split()
    port = 20000 + int(os.environ["SLURM_JOB_ID"]) % 10000
    try:
        if rank == 0:
            with socket.create_server(("", port)) as server:
                server.settimeout(PATIENCE)
                others = [_talk(server.accept()[0], own) for _ in names[1:]]
        else:
            others = [_talk(_reach(cluster.addresses(names)[0], port), own)]
    except OSError as error:
        raise RefusedError(f"{own} does not meet the others ({', '.join(names)}) over TCP: {error}") from error
    print(f"{own} has met {' '.join(others)}")
    print(f"{own} has: {shlex.join(environments(settings['environments']))}", flush=True)
    return 0


def _reach(address: str, port: int) -> socket.socket:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection((address, port), 5)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def _talk(peer: socket.socket, own: str) -> str:
    with peer:
        peer.settimeout(PATIENCE)
        peer.sendall(own.encode() + PAYLOAD + b".")
        heard = b""
        while not heard.endswith(b"."):
            part = peer.recv(65536)
            if not part:
                raise ConnectionError("the other node hung up")
            heard += part
    return heard[:-1].decode().strip()
