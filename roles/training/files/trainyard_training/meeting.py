# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Where a job's nodes meet: they get what is shipped, tell each other their addresses, notice who has gone silent, and end together.

JSON lines over TCP, spoken only to those that know the job's token, which Slurm carries to the nodes. The host is the job's batch script on
its first node, or the command that waits for the job. A line ``{}`` is a sign of life, from both sides. What is shipped, and what a node
gives back, goes over a connection of its own, as bytes behind the first line.

Everybody on the network can open a connection. One that has not shown the token has seconds to do so. There are few of them at a time, and
the oldest makes room for the next. Connections from elsewhere than the job's nodes cannot crowd out the nodes' own. Strangers are counted,
not logged one by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import ipaddress
import json
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import given
from .errors import NOT_BEGUN
from .failure import is_echo
from .text import printable

PERIOD = 5.0
"""Seconds between signs of life."""
PATIENCE = 60.0
"""Seconds of silence after which the other side counts as lost."""
ARRIVAL = 600.0
"""Seconds within which all nodes have to come: unpacking and the submitter's hook lie before."""

FIRST_LINE = 5.0
"""Seconds within which whoever comes has to show the token."""
WAITING = {True: 256, False: 16}
"""Connections that have not shown the token yet: from the job's nodes, and from anywhere else."""
AT_ONCE = 16
"""Connections that are taken at once; few, so that the first lines of those before are read in between."""
QUEUE = 1024
"""Connections that the kernel holds meanwhile; where it drops one, the node tries again after a second or more."""
TRIES = 5
"""Times that a node comes when it is cut off before the host's first line: strangers may have taken its place."""
MOST_HEARD = 1 << 16
"""Bytes of a line from a node."""
MOST_TOLD = 1 << 22
"""Bytes of a line from the host, which introduces all nodes at once."""
ONE_CAUSE = 1.0
"""Seconds within which nodes that fail have one cause: the first that says so may only have missed another."""
LONGEST_WHY = 1000
"""Letters of what a node says of its failure."""
SHARE = 0.9
"""Of the free room on the disk, what a node may fill when it gives results back."""
COMPLAINT = 4096
"""Bytes that are kept of what tar says."""
CHUNK = 1 << 20

UNTOLD = ("sh", "-c", 'trap "" TERM; exec "$@"', "sh")
"""Words before a command that goes on when Slurm tells all processes of the job to end, which it does more than once."""

Message = Mapping[str, Any]


class LostError(Exception):
    """The other side does not answer any more."""


def message(line: bytes) -> dict[str, Any]:
    """Read a line.

    Raises:
        LostError: it is no message.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise LostError("sent what is no message")
    return found


@dataclass(frozen=True)
class Hello:
    """The first line of a node.

    Attributes:
        rank: the node's.
        node: what it says of itself, to be seated; None where it comes for something else.
        fetch: what it wants to have; '' where it gives results back.
    """

    rank: int
    node: dict[str, Any] | None = None
    fetch: str = ""


def hello(line: bytes, token: str, count: int) -> Hello | None:
    """Read a first line; None where it is none of a job with a token and so many nodes."""
    try:
        words = message(line)
    except LostError:
        return None
    shown, rank = words.get("token"), words.get("rank")
    if not isinstance(shown, str) or not hmac.compare_digest(shown.encode(errors="replace"), token.encode()):
        return None
    if type(rank) is not int or not 0 <= rank < count:
        return None
    if isinstance(words.get("node"), dict):
        return Hello(rank, node=words["node"])
    if isinstance(words.get("fetch"), str) and words["fetch"]:
        return Hello(rank, fetch=words["fetch"])
    return Hello(rank) if words.get("give") is True else None


@dataclass(frozen=True)
class Result:
    """How a node's trainers ended.

    Attributes:
        status: exit status; 0 where they have done their work.
        why: what failed, in words; '' where that was not said.
        stopped: whether they were told to end, as by scancel or a time limit.
    """

    status: int
    why: str = ""
    stopped: bool = False


def status(words: Mapping[str, Any], name: str = "status") -> int:
    """Return an exit status that a node says.

    Raises:
        LostError: it is none.
    """
    found = words.get(name)
    if type(found) is not int or not 0 <= found <= 255:
        raise LostError("sent an exit status that is none")
    return found


def result(words: Mapping[str, Any]) -> Result:
    """Read how a node's trainers ended.

    Raises:
        LostError: that is not said.
    """
    why = words.get("why")
    return Result(status(words), printable(why[:LONGEST_WHY]) if isinstance(why, str) else "", words.get("stopped") is True)


@dataclass(frozen=True)
class Goodbye:
    """The last that a node says.

    Attributes:
        given: exit status of giving results back.
        files: of the workspace that it kept among the results, or the last of many.
        count, size: how many they are, and their bytes.
        left: new or changed files of the workspace that go with the node, or the last of many.
        left_count: how many they are.
        alone: its trainers, where all of them surely made no process group; else 0.
    """

    given: int
    files: list[str]
    count: int
    size: int
    left: list[str]
    left_count: int
    alone: int = 0


def goodbye(words: Mapping[str, Any]) -> Goodbye:
    """Read a node's last words.

    Raises:
        LostError: they are none.
    """
    names = {}
    for key in ("files", "left"):
        found = words.get(key)
        names[key] = [printable(name) for name in found if isinstance(name, str)] if isinstance(found, list) else []
    keys = ("count", "size", "left_count", "alone")
    count, size, left, alone = (found if type(found := words.get(key)) is int and found >= 0 else 0 for key in keys)
    return Goodbye(status(words, "given"), names["files"], count, size, names["left"], left, alone)


class Line:
    """One connection: messages, with signs of life between them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes = b"{}\n") -> None:
        self.reader, self.writer, self._first = reader, writer, first
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
        said, self._first = self._first, b""
        while True:
            if said and (heard := message(said)):
                return heard
            try:
                said = await asyncio.wait_for(self.reader.readline(), PATIENCE)
            except TimeoutError:
                raise LostError(f"said nothing for {PATIENCE:.0f} seconds") from None
            except OSError as error:
                raise LostError(f"is cut off: {error.strerror or error}") from None
            except ValueError:
                raise LostError("sent a line that is too long") from None
            if not said.endswith(b"\n"):
                raise LostError("has gone")

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
        late: name -> what makes such a file when the first node asks for it.
        kept: folder for what nodes give back; None where they may give nothing.
        addresses: from which nodes are known to come; a node that comes from another one is let in as well, if it has the token.
        results: rank -> how the node's trainers ended, in the order in which the nodes said so.
        goodbyes: rank -> the node's last words.
        problem: why the meeting was broken up; '' while it was not.
        stopped: why the job was told to end; '' where it was not.
        strangers: address -> connections from there that did not show the token, or showed it twice.
        troubles: what went wrong on the host's own side -> how often.
    """

    def __init__(self, names: list[str], token: str, shipped: Mapping[str, Path], kept: Path | None) -> None:
        self.names, self.token, self.shipped, self.kept = names, token, shipped, kept
        self.addresses = {"127.0.0.1", "::1"}
        self.problem, self.stopped = "", ""
        self.results: dict[int, Result] = {}
        self.goodbyes: dict[int, Goodbye] = {}
        self.strangers: Counter[str] = Counter()
        self.troubles: Counter[str] = Counter()
        self.late: dict[str, Callable[[], Path]] = {}
        self._here: dict[int, tuple[Line, dict[str, Any]]] = {}
        self._gone: set[int] = set()
        self._making: dict[str, asyncio.Task[Path]] = {}
        self._over = False
        self._gave: set[int] = set()
        self._waiting: dict[bool, dict[asyncio.StreamWriter, None]] = {True: {}, False: {}}
        self._change = asyncio.Condition()

    def allow(self, addresses: Collection[str]) -> None:
        """Know addresses as the nodes'."""
        self.addresses |= set(map(_plain, addresses))

    async def open(self, address: str) -> int:
        """Wait for nodes at an address, and return the port."""
        self.allow([address])
        asyncio.get_running_loop().set_exception_handler(self._trouble)
        there = socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
        self._server = await asyncio.start_server(self._welcome, sock=there, limit=MOST_HEARD, backlog=AT_ONCE)
        there.listen(QUEUE)  # asyncio takes one number for both
        return int(there.getsockname()[1])

    def _trouble(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, asyncio.CancelledError):
            return  # the meeting is over
        what = f"{context['message']}: {error!r}" if error else str(context["message"])
        if what in self.troubles or len(self.troubles) < 8:
            self.troubles[what] += 1

    def remarks(self) -> list[str]:
        """Say how many strangers came, and what went wrong here; empty where nothing did."""
        said = []
        if self.strangers:
            address, most = self.strangers.most_common(1)[0]
            said.append(
                f"{sum(self.strangers.values())} connections were turned away, since they did not have the job's token; "
                f"most came from {printable(address)} ({most})"
            )
        return said + [f"on the way, {count} times: {printable(what)}" for what, count in self.troubles.items()]

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = _plain(str((writer.get_extra_info("peername") or ("?",))[0]))
        known = address in self.addresses
        waiting = self._waiting[known]
        if len(waiting) >= WAITING[known]:
            next(iter(waiting)).transport.abort()
            waiting.pop(next(iter(waiting)))
        waiting[writer] = None
        try:
            said = hello(await asyncio.wait_for(reader.readline(), FIRST_LINE), self.token, len(self.names))
        except (OSError, TimeoutError, ValueError):
            said = None
        finally:
            waiting.pop(writer, None)
        if not said or (said.node is not None and said.rank in self._here):
            self.strangers[address if address in self.strangers or len(self.strangers) < 1000 else "elsewhere"] += 1
            writer.close()
        elif said.node is not None:
            await self._seat(said.rank, said.node, Line(reader, writer))
        else:
            with contextlib.suppress(OSError, TimeoutError):
                await (self._ship(said.fetch, writer) if said.fetch else self._take(said.rank, reader, writer))
            writer.close()

    async def _ship(self, name: str, writer: asyncio.StreamWriter) -> None:
        making = self._making.get(name)
        if not making and name in self.late:
            making = self._making[name] = asyncio.create_task(asyncio.to_thread(self.late[name]))
        while making and not making.done():
            writer.write(b"{}\n")  # a sign of life
            await writer.drain()
            await asyncio.wait([making], timeout=PERIOD)
        path = making.result() if making else self.shipped.get(name)
        writer.write(json.dumps({"bytes": path.stat().st_size if path else None}).encode() + b"\n")
        await writer.drain()
        if path:
            with path.open("rb") as file:
                await asyncio.get_running_loop().sendfile(writer.transport, file)

    async def _take(self, rank: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.kept is None or rank in self._gave:
            return
        self._gave.add(rank)
        writer.write(b"{}\n")
        # A folder of its own: nothing that was unpacked before, such as a link, can lead what is unpacked now elsewhere.
        with tempfile.TemporaryDirectory(prefix=f".given-{rank}-", dir=self.kept, ignore_cleanup_errors=True) as fresh:
            words = [*UNTOLD, "tar", "--extract", "--no-same-owner", "--no-same-permissions", f"--directory={fresh}"]
            tar = await asyncio.create_subprocess_exec(*words, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
            complaint = asyncio.create_task(_beginning(tar.stderr))
            try:
                await pour(reader, tar, int(shutil.disk_usage(self.kept).free * SHARE))
                status = await tar.wait()
            except (OSError, TimeoutError) as error:
                self.troubles[f"{self.names[rank]} gives results back: {error or 'nothing more comes'}"] += 1
                raise
            finally:
                with contextlib.suppress(ProcessLookupError):
                    tar.kill()
                await tar.wait()
            left = await asyncio.to_thread(given.accept, Path(fresh), self.kept, first=rank == 0)
        for line in (await complaint).splitlines():
            self.troubles[f"{self.names[rank]} gives results back: {line}"] += 1
        if left:
            self.troubles[f"{self.names[rank]} gave {left} things that are no results, which were left out"] += 1
        writer.write(json.dumps({"status": status}).encode() + b"\n")
        await writer.drain()

    async def _seat(self, rank: int, node: dict[str, Any], line: Line) -> None:
        self._here[rank] = (line, node)
        if isinstance(node.get("problem"), str):  # it cannot begin
            self.results[rank] = Result(NOT_BEGUN, printable(node["problem"][:LONGEST_WHY]))
        await self._changed()
        try:
            while rank not in self.goodbyes:
                said = await line.hear()
                if isinstance(said.get("bye"), dict):
                    self.goodbyes[rank] = goodbye(said["bye"])
                else:
                    self.results[rank] = result(said)
                await self._changed()
        except LostError as lost:
            if not self._over:
                self.problem = self.problem or f"{self.names[rank]} {lost}"
        self._gone.add(rank)
        await self._changed()

    async def stop(self, why: str) -> None:
        """End the job: its nodes give back what they have."""
        self.stopped = self.stopped or why
        await self._changed()

    async def run(self, arrival: float | None = None) -> list[dict[str, Any]]:
        """Introduce the nodes to each other, wait until all are done or one is lost, and until each has given back what it kept.

        Args:
            arrival: seconds within which all have to come; None for `ARRIVAL`.

        Returns:
            what the nodes said of themselves, by rank; empty where not all came.
        """
        arrival = ARRIVAL if arrival is None else arrival
        present: list[dict[str, Any]] = []
        try:
            await asyncio.wait_for(self._until(lambda: len(self._here) == len(self.names) or self._broken()), arrival)
        except TimeoutError:
            missing = [name for rank, name in enumerate(self.names) if rank not in self._here]
            self.problem = f"{', '.join(missing)} did not come within {arrival:.0f} seconds"
        if not self._broken():
            present = [self._here[rank][1] for rank in range(len(self.names))]
            await self._tell({"nodes": present})
            await self._until(lambda: len(self.results) == len(self.names) or self._broken())
        if self.failed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._until(lambda: len(self.results) == len(self.names)), ONE_CAUSE)
        self._over = True
        await self._tell({"end": self.ended or "done", "stopped": bool(self.stopped)})
        await self._until(lambda: self._gone >= set(self._here))
        for line, _node in list(self._here.values()):
            await line.close()
        self._server.close()
        for writer in [*self._waiting[True], *self._waiting[False]]:
            writer.transport.abort()
        return present

    def _broken(self) -> bool:
        self.stopped = self.stopped or ("told to end" if any(result.stopped for result in self.results.values()) else "")
        return bool(self.problem or self.stopped or self.failed)

    @property
    def ended(self) -> str:
        """Why the nodes did not do their work; '' where they did."""
        return self.stopped or self.failed or self.problem

    @property
    def failed(self) -> str:
        """Which node failed by itself first, and how; '' where none did."""
        failed = [rank for rank, said in self.results.items() if said.status and not said.stopped]
        rank = next((rank for rank in failed if not is_echo(self.results[rank].why)), next(iter(failed), None))
        if rank is None:
            return ""
        said = self.results[rank]
        return f"{self.names[rank]}: {said.why}" if said.why else f"{self.names[rank]} has failed with status {said.status}"

    async def _changed(self) -> None:
        async with self._change:
            self._change.notify_all()

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._change:
            await self._change.wait_for(condition)

    async def _tell(self, message: Message) -> None:
        for line, _node in list(self._here.values()):
            await line.say(message)


def _plain(address: str) -> str:
    """Return an address in the one form in which it is compared: IPv4 that comes over IPv6 is IPv4."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(getattr(found, "ipv4_mapped", None) or found)


async def _beginning(stream: asyncio.StreamReader | None) -> str:
    """Read a stream to its end, and return its beginning."""
    assert stream
    kept = b""
    while chunk := await stream.read(COMPLAINT):
        kept += chunk[: COMPLAINT - len(kept)]
    return kept.decode(errors="replace")


async def pour(reader: asyncio.StreamReader, process: asyncio.subprocess.Process, most: int | None = None) -> int:
    """Hand a process what comes until its end, and return how many bytes that were.

    Args:
        reader: from where.
        process: a process with a pipe to its standard input.
        most: bytes that there is room for; None for all that come.

    Raises:
        TimeoutError: nothing more comes, and no end either.
        OSError: there is no room.
    """
    assert process.stdin
    count = 0
    while chunk := await asyncio.wait_for(reader.read(CHUNK), PATIENCE):
        count += len(chunk)
        if most is not None and count > most:
            raise OSError(errno.ENOSPC, "No room for it")
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

    async def _come(self, words: Message) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        """Connect, show the token, and return the connection and the host's first line."""
        line = json.dumps({"token": self.token, "rank": self.rank, **words}).encode() + b"\n"
        for again in range(TRIES):
            await asyncio.sleep(again / 5)
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection(self.address, self.port, limit=MOST_TOLD), PATIENCE)
            except (OSError, TimeoutError) as error:
                raise LostError(f"cannot be reached at {self.address}:{self.port}: {error or 'no answer'}") from None
            try:
                writer.write(line)
                first = await asyncio.wait_for(reader.readline(), PATIENCE)
            except (OSError, TimeoutError, ValueError):
                first = b""
            if first:
                return reader, writer, first
            writer.close()
        raise LostError(f"turns us away at {self.address}:{self.port}")

    async def fetch(self, name: str, words: Sequence[str]) -> int | None:
        """Hand something that is shipped to a command, and return the command's exit status; None where there is nothing of that name.

        Raises:
            LostError: the host cannot be reached, or hung up half-way.
        """
        reader, writer, first = await self._come({"fetch": name})
        try:
            while not message(first):  # it is still being made
                first = await asyncio.wait_for(reader.readline(), PATIENCE)
            wanted = message(first).get("bytes")
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
        reader, writer, _first = await self._come({"give": True})
        words = [*UNTOLD, "tar", "--create", f"--directory={folder}", "."]
        tar = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL)
        assert tar.stdout
        try:
            while chunk := await tar.stdout.read(CHUNK):
                writer.write(chunk)
                await asyncio.wait_for(writer.drain(), PATIENCE)
            writer.write_eof()
            there = status(message(await asyncio.wait_for(reader.readline(), PATIENCE)))
        except (OSError, ValueError, TimeoutError) as error:
            raise LostError(f"does not take what is kept: {error or 'no answer'}") from None
        finally:
            writer.close()
        return await tar.wait() or there

    async def join(self, node: Message) -> tuple[Line, list[dict[str, Any]]]:
        """Take part, and return the line to the host and what all nodes said of themselves, by rank.

        Raises:
            LostError: the host cannot be reached, or broke the meeting up.
        """
        line = Line(*await self._come({"node": node}))
        try:
            said = await line.hear()
            nodes = said.get("nodes")
            if not isinstance(nodes, list) or not all(isinstance(each, dict) for each in nodes):
                raise LostError(f"broke up: {printable(str(said.get('end')))}")
        except LostError:
            await line.close()
            raise
        return line, nodes
