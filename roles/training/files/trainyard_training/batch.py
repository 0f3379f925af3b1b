# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What leads a job: it hosts the nodes' meeting, starts one agent on each, keeps their logs, and writes down how it ended.

Slurm starts it on a job's first node; in an allocation that somebody has already, it runs where the command was typed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from . import job
from .cluster import addresses
from .errors import LOST
from .meeting import CHUNK, Host
from .network import route_to

STARTS = 3
"""Times that a job is started when its nodes lose each other; Slurm does not count nodes that it has given up itself."""
LAST_WORDS = 30.0
"""Seconds that agents have to end what they started."""


class Logs:
    """A job's logs: ``job.log`` and one for each node; where somebody waits for the job, he sees them too.

    Args:
        folder: for the logs.
        names: the nodes, by rank.
        shown: whether somebody waits for it; else what is said lands in job.log by itself.
    """

    def __init__(self, folder: Path, names: Sequence[str], *, shown: bool) -> None:
        self.folder, self.names, self.shown = folder, names, shown
        for name in names:  # one that says nothing has a log, too
            (folder / f"{name}.log").touch()

    def say(self, words: str, log: str = "job") -> None:
        """Write a line into a log."""
        if self.shown:
            print(f"[{log}] {words}", flush=True)
        elif log == "job":
            print(words, flush=True)
            return
        with (self.folder / f"{log}.log").open("a") as file:
            file.write(f"{words}\n")

    async def keep(self, printed: asyncio.StreamReader) -> None:
        """Write what srun prints into the logs; it marks each line of a node with the node's rank."""
        rest = b""
        while chunk := await printed.read(CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._keep(line)
        if rest:  # somebody's last words, without an end of line
            self._keep(rest)

    def _keep(self, line: bytes) -> None:
        text = line.decode(errors="replace")
        marked = re.match(r" *(\d+): ?", text)
        if marked and int(marked[1]) < len(self.names):
            self.say(text[marked.end() :], self.names[int(marked[1])])
        else:
            self.say(text)


def main(folder: Path, run: Path, *, here: bool = False) -> int:
    """Run the job whose folder it is, and return its exit status.

    Args:
        folder: made by :func:`job.fill`.
        run: the program that Slurm starts on the nodes.
        here: whether somebody waits for it, in an allocation of his own.
    """
    wish = job.read_json(folder / job.WISH)
    (folder / job.RESULT).unlink(missing_ok=True)  # of a start before this one
    return asyncio.run(_main(folder, run, int(wish["cores_per_node"]), here))


async def _main(folder: Path, run: Path, cores: int, here: bool) -> int:
    started = time.time()
    names = subprocess.run(
        ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]], check=True, capture_output=True, text=True
    ).stdout.split()
    logs = Logs(folder / job.LOGS, names, shown=here)
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    again = f", start {restarts + 1}" if restarts else ""
    logs.say(f"{time.strftime('%F %T')} job {os.environ['SLURM_JOB_ID']} on {', '.join(names)}{again}")
    places = addresses(names)
    own = os.environ.get("SLURMD_NODENAME", os.uname().nodename.partition(".")[0])
    address = route_to(next((place for name, place in zip(names, places, strict=True) if name != own), "127.0.0.1")).address
    parts = {name: folder / f"{name}.tar" for name in job.PARTS}
    host = Host(
        names,
        secrets.token_hex(16),
        {"job": folder / job.WISH, **{name: path for name, path in parts.items() if path.exists()}},
        folder,
    )
    port = await host.open(address)
    meeting = {
        "TRAINYARD_MEETING": f"{address}:{port}",
        "TRAINYARD_TOKEN": host.token,
        "TRAINYARD_NODES": " ".join(places),
    }
    agents = await asyncio.create_subprocess_exec(
        "srun",
        f"--nodes={len(names)}",
        f"--ntasks={len(names)}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={cores}",
        "--label",
        "--chdir=/",
        str(run),
        "node",
        str(folder),
        env={**os.environ, **meeting},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _end, agents)
    together = asyncio.create_task(host.run())
    ended = asyncio.create_task(_ended(agents, logs))
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
        logs.say(f"{time.strftime('%F %T')} {problem}")
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
    if status == LOST and restarts + 1 < STARTS and not here:
        logs.say("the job goes back into the queue, and on from its last checkpoint")
        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)
    return status


async def _ended(agents: asyncio.subprocess.Process, logs: Logs) -> None:
    assert agents.stdout
    await logs.keep(agents.stdout)
    await agents.wait()


def _end(agents: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        agents.terminate()
