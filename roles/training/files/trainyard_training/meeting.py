# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Where a job's nodes meet: they get what is shipped, tell each other their addresses, notice who has gone silent, and end together.

JSON lines over TCP, spoken only to those that know the job's token, which Slurm carries to the nodes. The host is the job's batch script on
its first node, or the command that waits for the job. A line ``{}`` is a sign of life, from both sides. What is shipped, and what a node
gives back, goes over a connection of its own, as bytes behind the first line.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PERIOD = 5.0
"""Seconds between signs of life."""
PATIENCE = 60.0
"""Seconds of silence after which the other side counts as lost."""
ARRIVAL = 600.0
"""Seconds within which all nodes have to come: unpacking and the submitter's hook lie before."""

CHUNK = 1 << 20

Message = Mapping[str, Any]


class LostError(Exception):
    """The other side does not answer any more."""


class Line:
    """One connection: messages, with signs of life between them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._life = asyncio.create_task(self._live())

    async def _live(self) -> None:
        while True:
            await self.say({})
            await asyncio.sleep(PERIOD)

    async def say(self, message: Message) -> None:
        """Send a message; whether the other side is still there, :meth:`hear` finds out."""
        with contextlib.suppress(OSError):
            self.writer.write(json.dumps(message).encode() + b"\n")
            await self.writer.drain()

    async def hear(self) -> dict[str, Any]:
        """Return the next message.

        Raises:
            LostError: the other side is gone or silent.
        """
        while True:
            try:
                said = await asyncio.wait_for(self.reader.readline(), PATIENCE)
            except TimeoutError:
                raise LostError(f"said nothing for {PATIENCE:.0f} seconds") from None
            except OSError as error:
                raise LostError(f"is cut off: {error.strerror or error}") from None
            if not said.endswith(b"\n"):
                raise LostError("has gone")
            message: dict[str, Any] = json.loads(said)
            if message:
                return message

    async def close(self) -> None:
        """End the connection."""
        self._life.cancel()
        self.writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self.writer.wait_closed()


class Host:
    """The meeting's host.

    Attributes:
        shipped: name -> file that nodes may have.
        kept: folder for what nodes give back.
        results: rank -> what the node said of its end.
        problem: why the meeting was broken up; '' while it was not.
    """

    def __init__(self, names: list[str], token: str, shipped: Mapping[str, Path], kept: Path) -> None:
        self.names, self.token, self.shipped, self.kept = names, token, shipped, kept
        self.problem = ""
        self.results: dict[int, dict[str, Any]] = {}
        self._here: dict[int, tuple[Line, dict[str, Any]]] = {}
        self._change = asyncio.Condition()

    async def open(self, address: str) -> int:
        """Wait for nodes at an address, and return the port."""
        server = await asyncio.start_server(self._welcome, address, 0)
        return int(server.sockets[0].getsockname()[1])

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            hello = json.loads(await asyncio.wait_for(reader.readline(), PATIENCE))
            rank = int(hello["rank"])
            known = hmac.compare_digest(str(hello["token"]), self.token) and 0 <= rank < len(self.names)
        except (ValueError, KeyError, TypeError, OSError, TimeoutError):
            known = False
        if not known or ("node" in hello and rank in self._here):
            writer.close()
        elif "node" in hello:
            await self._seat(rank, hello, Line(reader, writer))
        else:
            with contextlib.suppress(OSError, TimeoutError):
                await (self._ship(str(hello["fetch"]), writer) if "fetch" in hello else self._take(reader, writer))
            writer.close()

    async def _ship(self, name: str, writer: asyncio.StreamWriter) -> None:
        path = self.shipped.get(name)
        writer.write(json.dumps({"bytes": path.stat().st_size if path else None}).encode() + b"\n")
        await writer.drain()
        if path:
            with path.open("rb") as file:
                await asyncio.get_running_loop().sendfile(writer.transport, file)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        words = ["tar", "--extract", "--no-same-owner", f"--directory={self.kept}"]
        tar = await asyncio.create_subprocess_exec(*words, stdin=asyncio.subprocess.PIPE)
        await pour(reader, tar)
        writer.write(json.dumps({"status": await tar.wait()}).encode() + b"\n")
        await writer.drain()

    async def _seat(self, rank: int, hello: dict[str, Any], line: Line) -> None:
        async with self._change:
            self._here[rank] = (line, hello)
            self._change.notify_all()
        try:
            self.results[rank] = await line.hear()
        except LostError as lost:
            self.problem = self.problem or f"{self.names[rank]} {lost}"
        async with self._change:
            self._change.notify_all()

    async def run(self) -> None:
        """Introduce the nodes to each other, wait until all are done or one is lost, and send them home."""
        try:
            await asyncio.wait_for(self._until(lambda: len(self._here) == len(self.names) or bool(self.problem)), ARRIVAL)
        except TimeoutError:
            missing = [name for rank, name in enumerate(self.names) if rank not in self._here]
            self.problem = f"{', '.join(missing)} did not come within {ARRIVAL:.0f} seconds"
        if not self.problem:
            await self._tell({"nodes": [self._here[rank][1]["node"] for rank in range(len(self.names))]})
            await self._until(lambda: len(self.results) == len(self.names) or bool(self.problem or self.failed))
        await self._tell({"end": self.problem or self.failed or "done"})
        for line, _hello in self._here.values():
            await line.close()

    @property
    def failed(self) -> str:
        """Which nodes failed by themselves; '' where none did."""
        return "; ".join(
            f"{self.names[rank]} has failed with status {said['status']}" for rank, said in self.results.items() if said["status"]
        )

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._change:
            await self._change.wait_for(condition)

    async def _tell(self, message: Message) -> None:
        for line, _hello in self._here.values():
            await line.say(message)


async def pour(reader: asyncio.StreamReader, process: asyncio.subprocess.Process) -> int:
    """Hand a process what comes until its end, and return how many bytes that were.

    Raises:
        TimeoutError: nothing more comes, and no end either.
    """
    assert process.stdin
    count = 0
    while chunk := await asyncio.wait_for(reader.read(CHUNK), PATIENCE):
        count += len(chunk)
        with contextlib.suppress(ConnectionError):  # it has ended: its status says why
            process.stdin.write(chunk)
            await process.stdin.drain()
    process.stdin.close()
    return count


@dataclass(frozen=True)
class Meeting:
    """A meeting as a node comes to it.

    Attributes:
        address, port: of its host.
        token: which the host wants to hear.
        rank: this node's.
    """

    address: str
    port: int
    token: str
    rank: int

    async def _come(self, words: Message) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(self.address, self.port), PATIENCE)
            writer.write(json.dumps({"token": self.token, "rank": self.rank, **words}).encode() + b"\n")
            await writer.drain()
        except (OSError, TimeoutError) as error:
            raise LostError(f"cannot be reached at {self.address}:{self.port}: {error or 'no answer'}") from None
        return reader, writer

    async def fetch(self, name: str, words: Sequence[str]) -> int | None:
        """Hand something that is shipped to a command, and return the command's exit status; None where there is nothing of that name.

        Raises:
            LostError: the host cannot be reached, or hung up half-way.
        """
        reader, writer = await self._come({"fetch": name})
        try:
            wanted = json.loads(await asyncio.wait_for(reader.readline(), PATIENCE))["bytes"]
            if wanted is None:
                return None
            process = await asyncio.create_subprocess_exec(*words, stdin=asyncio.subprocess.PIPE)
            count = await pour(reader, process)
            status = await process.wait()
        except (OSError, ValueError, TimeoutError) as error:
            raise LostError(f"does not ship the {name}: {error or 'no answer'}") from None
        finally:
            writer.close()
        if count != wanted:
            raise LostError(f"hung up after {count} of {wanted} bytes of the {name}")
        return status

    async def give(self, folder: Path) -> int:
        """Give a folder's content back, and return the exit status of whoever unpacked it.

        Raises:
            LostError: the host cannot be reached, or hung up half-way.
        """
        reader, writer = await self._come({"give": True})
        tar = await asyncio.create_subprocess_exec(
            "tar", "--create", f"--directory={folder}", ".", stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
        )
        assert tar.stdout
        try:
            while chunk := await tar.stdout.read(CHUNK):
                writer.write(chunk)
                await asyncio.wait_for(writer.drain(), PATIENCE)
            writer.write_eof()
            status = json.loads(await asyncio.wait_for(reader.readline(), PATIENCE))["status"]
        except (OSError, ValueError, TimeoutError) as error:
            raise LostError(f"does not take what is kept: {error or 'no answer'}") from None
        finally:
            writer.close()
        return await tar.wait() or int(status)

    async def join(self, node: Message) -> tuple[Line, list[dict[str, Any]]]:
        """Take part, and return the line to the host and what all nodes said of themselves, by rank.

        Raises:
            LostError: the host cannot be reached, or broke the meeting up.
        """
        line = Line(*await self._come({"node": node}))
        said = await line.hear()
        if "end" in said:
            raise LostError(f"broke up: {said['end']}")
        return line, said["nodes"]
