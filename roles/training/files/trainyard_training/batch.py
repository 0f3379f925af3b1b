# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What leads a job: it hosts the nodes' meeting, starts one agent on each, keeps their logs, and writes down how it ended.

Slurm starts it on a job's first node; in an allocation that somebody has already, it runs where the command was typed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from . import cluster, ending, folders, job, network, text
from .cluster import addresses, ask
from .meeting import CHUNK, Host

TOLD = "told to end"
stopping: set[asyncio.Task[None]] = set()
"""Kept, since the loop itself does not hold on to tasks."""
LONGEST_LINE = 1 << 20
"""Bytes without an end of line that become a line of their own."""
LAST_WORDS = 30.0
"""Seconds that agents have to end what they started."""


class Logs:
    """A job's logs: ``job.log`` and one for each node; where somebody waits for the job, he sees them too.

    Args:
        folder: for the logs.
        names: the nodes, by rank.
        shown: whether somebody waits for it; else what is said lands in job.log by itself.

    Attributes:
        heard: what Slurm's own programs said of the job's end.
    """

    def __init__(self, folder: Path, names: Sequence[str], *, shown: bool) -> None:
        self.folder, self.names, self.shown = folder, names, shown
        self.heard: list[str] = []
        for name in names:  # one that says nothing has a log, too
            os.close(folders.write(folder / f"{name}.log", append=True))

    def say(self, words: str, log: str = "job") -> None:
        """Write a line into a log."""
        if self.shown:
            print(f"[{log}] {text.log(words)}", flush=True)
        elif log == "job":
            print(words, flush=True)
            return
        with open(folders.write(self.folder / f"{log}.log", append=True), "a") as file:
            file.write(f"{words}\n")

    async def keep(self, printed: asyncio.StreamReader) -> None:
        """Write what srun prints into the logs; it marks each line of a node with the node's rank."""
        rest = b""
        while chunk := await printed.read(CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._keep(line)
            if len(rest) > LONGEST_LINE:
                self._keep(rest)
                rest = b""
        if rest:  # somebody's last words, without an end of line
            self._keep(rest)

    def _keep(self, line: bytes) -> None:
        words, log = line.decode(errors="replace"), "job"
        marked = re.match(r" *(\d{1,9}): ?", words)
        if marked and int(marked[1]) < len(self.names):
            words, log = words[marked.end() :], self.names[int(marked[1])]
        self.say(words, log)
        if ending.SLURM_SAYS.search(words):
            self.heard.append(words)


def main(folder: Path, run: Path, node: str = "", *, here: bool = False) -> int:
    """Run the job whose folder it is, and return its exit status.

    Args:
        folder: made by :func:`job.fill`.
        run: the program that Slurm starts on the nodes.
        node: the only one that sees the folder; '' where others may.
        here: whether somebody waits for it, in an allocation of his own.

    Raises:
        RefusedError: this node does not see the folder, or it is not the user's own.
    """
    if node and node != own_name():
        # Slurm starts a job on its first node, in the order of its own list.
        words = [
            "srun",
            "--overlap",
            "--nodes=1",
            "--ntasks=1",
            "--mem=0",
            f"--nodelist={node}",
            "--chdir=/",
            str(run),
            "batch",
            str(folder),
        ]
        os.execvp(words[0], words)
    with folders.opened(folder) as place, folders.opened(place / job.LOGS):
        if not here:
            _speak_into(place / job.LOGS / "job.log")
        wish = job.read_json(place / job.WISH)
        (place / job.RESULT).unlink(missing_ok=True)  # of a start before this one
        return asyncio.run(_main(folder, place, run, int(wish["cores_per_node"]), here))


def own_name() -> str:
    """Return this node's name as Slurm has it."""
    return os.environ.get("SLURMD_NODENAME", os.uname().nodename.partition(".")[0])


def _speak_into(log: Path) -> None:
    """Let everything that this process and its children print go to the end of a file."""
    descriptor = folders.write(log, append=True)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def node_names() -> list[str]:
    """Return the names of the allocation's nodes, by rank.

    Raises:
        RefusedError: Slurm does not answer.
    """
    return ask(["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]]).split()


async def agents_of(
    host: Host, run: Path, words: Sequence[str], places: Sequence[str], cores: int, own: str = ""
) -> asyncio.subprocess.Process:
    """Open a meeting, and start an agent on each node that comes to it.

    Args:
        host: the meeting's host.
        run: the program that Slurm starts on the nodes.
        words: its arguments.
        places: the nodes' addresses as Slurm has them, by rank.
        cores: for each agent.
        own: this node's name, where it is one of them.
    """
    others = [place for name, place in zip(host.names, places, strict=True) if name != own]
    address = network.route_to((others or ["127.0.0.1"])[0]).address
    host.allow(network.addresses([*places, *host.names]) | network.own_addresses())
    port = await host.open(address)
    # In the environment, which other users cannot see; arguments are everybody's to read.
    meeting = {"TRAINYARD_MEETING": f"{address}:{port}", "TRAINYARD_TOKEN": host.token, "TRAINYARD_NODES": " ".join(places)}
    return await asyncio.create_subprocess_exec(
        "srun",
        f"--nodes={len(places)}",
        f"--ntasks={len(places)}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={cores}",
        "--label",
        "--kill-on-bad-exit=0",  # the others give back what they have
        "--chdir=/",
        str(run),
        *words,
        env={**os.environ, **meeting},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for the host, which asks the nodes to end
    )


async def _main(folder: Path, place: Path, run: Path, cores: int, here: bool) -> int:
    began = time.time()
    names = node_names()
    logs = Logs(place / job.LOGS, names, shown=here)
    number, starts = os.environ["SLURM_JOB_ID"], int(os.environ.get("SLURM_RESTART_COUNT", "0")) + 1
    logs.say(f"{time.strftime('%F %T')} job {number} on {', '.join(names)}{f', start {starts}' if starts > 1 else ''}")
    host = Host(names, secrets.token_hex(16), {"job": place / job.WISH, **job.snapshot(place)}, place)
    if starts > 1:
        host.late[job.KEPT] = partial(job.pack_kept, place)
    agents = await agents_of(host, run, ["node", str(folder)], addresses(names), cores, own_name())
    loop = asyncio.get_running_loop()
    for sign, why in ((signal.SIGTERM, TOLD), (signal.SIGINT, "ended by Ctrl-C")):
        loop.add_signal_handler(sign, _stop, host, why)
    for sign in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):  # meant for the script
        loop.add_signal_handler(sign, lambda: None)
    together = asyncio.create_task(host.run())
    ended = asyncio.create_task(_ended(agents, logs))
    await asyncio.wait({together, ended}, return_when=asyncio.FIRST_COMPLETED)
    if ended.done():
        await asyncio.wait({together}, timeout=LAST_WORDS)  # srun may leave before the nodes have given back what they have
    else:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(ended), LAST_WORDS)
    _end(agents)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(ended), LAST_WORDS)
    together.cancel()
    now = {} if here else cluster.state(number)
    end = ending.judge(host, agents.returncode, logs.heard, now.get("JobState", ""), starts, here=here)
    for remark in host.remarks():
        logs.say(f"{time.strftime('%F %T')} {remark}")
    if end.reason == ending.CANCELLED and (by := cluster.canceller(number)):
        end = dataclasses.replace(end, problem=f"cancelled by {by}")
    if not end.again:
        job.discard(place)
    told = ending.told(end, host, number, starts, round(time.time() - began, 1))
    job.write_json(place / job.RESULT, told)
    for line in ending.block(told, folder):
        logs.say(line)
    if end.again and not end.by_slurm:
        logs.say("the job goes back into the queue, and on from what it has kept")
        done = subprocess.run(["scontrol", "requeue", number], capture_output=True, text=True, check=False)
        if done.returncode:
            logs.say(f"it does not: {(done.stderr or done.stdout).strip()}")
    return end.status


def _stop(host: Host, why: str) -> None:
    stopping.add(asyncio.create_task(host.stop(why)))


async def _ended(agents: asyncio.subprocess.Process, logs: Logs) -> None:
    assert agents.stdout
    await logs.keep(agents.stdout)
    await agents.wait()


def _end(agents: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        agents.terminate()
