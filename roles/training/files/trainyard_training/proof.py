# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The proof of the nodes of an allocation: they meet over the network, then train together what both have a framework for.

They meet as a job's nodes do: they come to a host where the proof was started, with a token that Slurm carries to them. There the first
node tells the others where it waits for them, in a meeting of its own with the same token, in which more than a packet goes both ways.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import batch, cluster, job, launchers, submit
from .known import environments
from .meeting import CHUNK, Host, LostError, Meeting
from .network import route_to
from .options import FRAMEWORKS
from .text import printable

PATIENCE = 60.0
"""Seconds that nodes wait for each other."""
PASSES = 30
"""Passes over the digits, which every sample needs fewer of."""
ACCURACY = 0.95
MOST_SAID = 1 << 16
"""Bytes that are shown of what the nodes print."""


def main(run: Path, settings: dict[str, str], as_json: bool = False) -> int:
    """Prove the nodes of the allocation that this runs in; return 0 when they are proven.

    With ``as_json`` the last line that a proof without an error prints is its result, in JSON: the ``environment``, none where the nodes
    have none in common, and what it proved.

    Raises:
        RefusedError: this runs in no allocation.
    """
    here = cluster.allocation(os.environ)
    names = batch.node_names()
    host = Host(names, secrets.token_hex(16), {}, None)
    status, present = asyncio.run(_met(host, run, cluster.addresses(names)))
    if status:
        return status
    for name in names:
        print(f"{name} has met {' '.join(other for other in names if other != name)}", flush=True)
    common = set.intersection(*(_environments(told) for told in present))
    framework = next((name for name in FRAMEWORKS if name in common), None)
    if not framework:
        print(f"{' and '.join(names)} have no framework in common ({', '.join(FRAMEWORKS)}): they have met, and trained nothing.")
        if as_json:
            print(json.dumps({"environment": "", "nodes": []}))
        return 0
    return train(framework, here.nodes, sorted(names), run, settings, as_json)


def _environments(told: Mapping[str, Any]) -> set[str]:
    found = told.get("environments")
    return {name for name in found if isinstance(name, str)} if isinstance(found, list) else set()


async def _met(host: Host, run: Path, places: Sequence[str]) -> tuple[int, list[dict[str, Any]]]:
    """Let the nodes meet; return an exit status, and what they said of themselves."""
    agents = await batch.agents_of(host, run, ["meet"], places, 1)
    said = asyncio.create_task(_said(agents))
    present = await host.run(PATIENCE)
    try:
        printed = await asyncio.wait_for(asyncio.shield(said), PATIENCE)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            agents.terminate()
        printed = await said
    problem = host.failed or host.problem
    for line in [*printed.splitlines(), *host.remarks(), *([problem] if problem else [])]:
        print(printable(line), flush=True)
    return (agents.returncode or 1 if problem or agents.returncode or not present else 0), present


async def _said(agents: asyncio.subprocess.Process) -> str:
    """Wait for the agents' end, and return the beginning of what they printed."""
    assert agents.stdout
    kept = b""
    while chunk := await agents.stdout.read(CHUNK):
        kept += chunk[: MOST_SAID - len(kept)]
    await agents.wait()
    return kept.decode(errors="replace")


def train(framework: str, nodes: int, names: Sequence[str], run: Path, settings: dict[str, str], as_json: bool = False) -> int:
    """Train a framework's sample on all nodes, and return 0 when it is good enough and all took part."""
    words = ["--here", f"--framework={framework}", f"--config={framework}_digits.py", f"--workspace={settings['samples']}"]
    before, began = Path.cwd(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trainyard-proof-") as scratch:
        os.chdir(scratch)
        try:
            status = submit.main([*words, f"--num-nodes={nodes}", f"--num-passes={PASSES}"], "cluster_train", run, settings)
            logs = "".join(path.read_text(errors="replace") for path in Path(scratch).glob(f"*/{job.LOGS}/*.log"))
        finally:
            os.chdir(before)
    if status:
        return status
    said = _result(logs)
    if not _at_least(said.get("accuracy"), ACCURACY) or sorted(map(str, said.get("hosts") or [])) != sorted(names):
        wanted = f"{ACCURACY} and the hosts {', '.join(names)} were wanted"
        print(f"{framework} ended well, but not as it should: {wanted}, and it says {printable(str(said))}")
        return 1
    print(printable(f"{said.get('framework')} trained on {' and '.join(names)} ({said.get('device')}) to {said['accuracy']}."))
    if as_json:
        told = {key: said.get(key, "") for key in ("framework", "version", "device", "accuracy")}
        print(json.dumps({"environment": framework, "nodes": names, "seconds": round(time.monotonic() - began, 1), **told}))
    return 0


def _result(logs: str) -> dict[str, Any]:
    """Return what a sample printed as its result; empty where it is not among what the nodes printed."""
    for line in logs.splitlines():
        if line.startswith("{") and '"accuracy"' in line:
            with contextlib.suppress(ValueError, RecursionError):
                found = json.loads(line)
                if isinstance(found, dict):
                    return found
    return {}


def _at_least(value: object, least: float) -> bool:
    return isinstance(value, int | float) and value >= least


def meet(settings: Mapping[str, str]) -> int:
    """Meet the other nodes of a job step; return 0 when all of them were met."""
    try:
        return asyncio.run(_meet(environments(settings["environments"])))
    except (LostError, OSError, ValueError) as error:
        print(f"{os.uname().nodename}: the meeting {printable(str(error))}", flush=True)
        return 1


async def _meet(here: list[str]) -> int:
    rank, places = int(os.environ["SLURM_NODEID"]), os.environ.pop("TRAINYARD_NODES").split()
    address, _, port = os.environ.pop("TRAINYARD_MEETING").rpartition(":")
    outer = Meeting(address, int(port), os.environ.pop("TRAINYARD_TOKEN"), rank)
    name, own = os.uname().nodename, route_to(places[0] if rank else (places[1:] or ["127.0.0.1"])[0]).address
    inner = Host(places, outer.token, {}, None) if rank == 0 else None
    ports = [await inner.open(own)] if inner else [1]
    line, present = await outer.join({"name": name, "address": own, "ports": ports, "environments": here[:100]})
    try:
        first = launchers.node(present[0], 1)
        waiting = asyncio.create_task(inner.run(PATIENCE)) if inner else None
        status = await met(Meeting(first.address, first.ports[0], outer.token, rank), len(places))
        if waiting:
            await waiting
        await line.say({"status": status})
        await line.hear()
    except (LostError, OSError, ValueError) as error:
        print(f"{name} does not meet the others ({' '.join(places)}): {printable(str(error))}", flush=True)
        status = 1
        await line.say({"status": status})
    finally:
        await line.close()
    return status


async def met(meeting: Meeting, count: int) -> int:
    """Come to a meeting with more than a packet, and hear more than a packet of each; return 0 when all were there.

    A small MTU that nobody is told of lets the first packet through, and no long one.
    """
    payload = " " * min(32768, (1 << 20) // count)
    line, present = await meeting.join({"payload": payload})
    whole = len(present) == count and all(each.get("payload") == payload for each in present)
    await line.say({"status": int(not whole)})
    try:
        await line.hear()
    finally:
        await line.close()
    return int(not whole)
