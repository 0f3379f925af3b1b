# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What Slurm starts on the first node of a job: it hosts the nodes' meeting, starts one agent on each, and writes down how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import time
from pathlib import Path

from . import job
from .cluster import addresses
from .errors import LOST
from .meeting import Host
from .network import route_to

STARTS = 3
"""Times that a job is started when its nodes lose each other; Slurm does not count nodes that it has given up itself."""
LAST_WORDS = 30.0
"""Seconds that agents have to end what they started."""


def main(folder: Path, run: Path) -> int:
    """Run the job whose folder it is, and return its exit status."""
    wish = job.read_json(folder / job.WISH)
    (folder / job.RESULT).unlink(missing_ok=True)  # of a start before this one
    return asyncio.run(_main(folder, run, int(wish["cores_per_node"])))


async def _main(folder: Path, run: Path, cores: int) -> int:
    started = time.time()
    names = subprocess.run(
        ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]], check=True, capture_output=True, text=True
    ).stdout.split()
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    print(
        f"{time.strftime('%F %T')} job {os.environ['SLURM_JOB_ID']} on {', '.join(names)}{f', start {restarts + 1}' if restarts else ''}",
        flush=True,
    )
    second = addresses(names)[1] if len(names) > 1 else "127.0.0.1"
    address = route_to(second).address
    host = Host(names, secrets.token_hex(16))
    port = await host.open(address)
    meeting = {
        "TRAINYARD_MEETING": f"{address}:{port}",
        "TRAINYARD_TOKEN": host.token,
        "TRAINYARD_SECOND": second,
    }
    agents = await asyncio.create_subprocess_exec(
        "srun",
        f"--nodes={len(names)}",
        f"--ntasks={len(names)}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={cores}",
        "--open-mode=append",
        f"--output={folder}/{job.LOGS}/%N.log",
        str(run),
        "node",
        str(folder),
        env={**os.environ, **meeting},
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _end, agents)
    together = asyncio.create_task(host.run())
    ended = asyncio.create_task(agents.wait())
    await asyncio.wait({together, ended}, return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(ended), LAST_WORDS)
    _end(agents)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(ended), LAST_WORDS)
    together.cancel()
    statuses = {names[rank]: result["status"] for rank, result in sorted(host.results.items())}
    whole = len(statuses) == len(names) and not any(statuses.values())
    status = 0 if whole else (next(filter(None, statuses.values()), 0) or (LOST if host.problem else agents.returncode or 1))
    problem = "" if whole else host.failed or host.problem or f"the nodes' agents ended with status {agents.returncode}"
    if problem:
        print(f"{time.strftime('%F %T')} {problem}", flush=True)
    job.write_json(
        folder / job.RESULT,
        {
            "job": os.environ["SLURM_JOB_ID"],
            "nodes": names,
            "statuses": statuses,
            "status": status,
            "problem": problem,
            "starts": restarts + 1,
            "seconds": round(time.time() - started, 1),
        },
    )
    if status == LOST and restarts + 1 < STARTS:
        print("the job goes back into the queue, and on from its last checkpoint", flush=True)
        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)
    return status


def _end(agents: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        agents.terminate()
