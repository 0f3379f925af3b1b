# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A node's trainers: started together, heard line by line, and ended together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import failure
from .errors import LOST, STOPPED
from .launchers import Process
from .meeting import CHUNK, Line
from .text import printable

GRACE = 10.0
"""Seconds between asking a process to end and ending it."""
TAIL = 1 << 16
"""Bytes of a process' last words that are remembered."""
REST = 2.0
"""Seconds in which the rest of what an ended process printed comes."""
ONE_CAUSE = 1.0
"""Seconds within which ends have one cause: Slurm's signal goes to all processes at once, in no order."""


class Trainer:
    """A process whose lines go on to the node's log."""

    def __init__(self, plan: Process, process: asyncio.subprocess.Process) -> None:
        self.plan, self.process, self.said = plan, process, b""
        self._heard = asyncio.create_task(self._hear())
        self.ended = asyncio.create_task(self._end())

    @classmethod
    async def start(cls, plan: Process, environment: Mapping[str, str], workspace: Path, umask: int) -> Trainer:
        """Start a process in a session of its own."""
        return cls(
            plan,
            await asyncio.create_subprocess_exec(
                *plan.command,
                cwd=workspace,
                env={**environment, **plan.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                umask=umask,
            ),
        )

    async def _hear(self) -> None:
        assert self.process.stdout
        rest = b""
        while chunk := await self.process.stdout.read(CHUNK):
            self.said = (self.said + chunk)[-TAIL:]
            whole, newline, rest = (rest + chunk).rpartition(b"\n")
            if len(rest) > CHUNK:
                whole, newline, rest = whole + newline + rest, b"\n", b""
            if newline:
                await asyncio.to_thread(_print, whole + newline)  # whoever reads it may be slow
        if rest:
            await asyncio.to_thread(_print, rest + b"\n")

    async def _end(self) -> int:
        status = await self.process.wait()
        with contextlib.suppress(TimeoutError):  # what it started may hold its output open
            await asyncio.wait_for(asyncio.shield(self._heard), REST)
        return status

    @property
    def status(self) -> int | None:
        """Its exit status, below zero for a signal; None while it runs."""
        return self.ended.result() if self.ended.done() else None

    def why(self) -> str:
        """Say how it failed."""
        assert self.status
        return failure.described(self.plan.name, self.status, self.said.decode(errors="replace"), failure.memory_limit(os.environ))

    def signal(self, number: int) -> None:
        """Send a signal to it and to what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def _print(words: bytes) -> None:
    sys.stdout.buffer.write(words)
    sys.stdout.buffer.flush()


async def run(running: Sequence[Trainer], line: Line, stop: asyncio.Event) -> int:
    """Wait until a node's trainers and those of the other nodes have done their work; end what is left, and return the exit status.

    Args:
        running: the node's.
        line: to the job's host, which is told how they end.
        stop: is set when Slurm wants the job to end; it has told the trainers, too.

    Raises:
        LostError: the host said nothing any more.
    """
    sent_home = asyncio.create_task(line.hear())
    stopped = asyncio.create_task(stop.wait())
    status: int | None = None
    try:
        while True:
            broken = [trainer for trainer in running if trainer.status]
            if broken and status is None:
                await asyncio.wait({stopped, sent_home}, timeout=ONE_CAUSE, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                await line.say({"status": STOPPED, "stopped": True})
                return STOPPED
            if status is None and not sent_home.done():
                if broken:
                    first = next((trainer for trainer in broken if not failure.is_echo(trainer.why())), broken[0])
                    status = _positive(first.status or 0)
                    print(f"{os.uname().nodename}: {first.why()}", flush=True)
                    await line.say({"status": status, "why": first.why()})
                elif all(trainer.status is not None for trainer in running if trainer.plan.leads):
                    status = 0
                    await line.say({"status": status})
            if sent_home.done():
                home = sent_home.result()
                said = home.get("end")
                if home.get("stopped"):
                    await asyncio.wait({stopped}, timeout=ONE_CAUSE)  # Slurm tells this node, too
                if said != "done" and not status:
                    print(f"{os.uname().nodename}: ends, since {printable(str(said))}", flush=True)
                return status if status is not None and (status or said == "done") else LOST
            left = {trainer.ended for trainer in running if trainer.status is None}
            await asyncio.wait({sent_home, stopped, *left}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sent_home.cancel()
        stopped.cancel()
        await end(running, told=stop.is_set())


async def end(running: Sequence[Trainer], *, told: bool) -> None:
    """End processes, gently at first.

    Args:
        running: those that may still run.
        told: whether they have been asked already; a second time would end many that are about to keep their work.
    """
    for number in (0 if told else signal.SIGTERM, signal.SIGKILL):
        left = [trainer for trainer in running if trainer.status is None]
        for trainer in left:
            if number:
                trainer.signal(number)
        if left:
            await asyncio.wait([trainer.ended for trainer in left], timeout=GRACE)
    sys.stdout.flush()


def _positive(status: int) -> int:
    return status if status > 0 else 128 - status
