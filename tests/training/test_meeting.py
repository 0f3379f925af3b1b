"""Nodes of a job meet over a real loopback connection: they hear of each other, notice who has gone, and end together."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from trainyard_training import meeting
from trainyard_training.meeting import Host, LostError, Meeting

HERE = "127.0.0.1"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("PERIOD", 0.1), ("PATIENCE", 3.0), ("ARRIVAL", 20.0)):  # time for a busy machine
        monkeypatch.setattr(meeting, name, seconds)


async def member(port: int, rank: int, token: str, status: int | None = 0, wait: float = 0) -> Any:
    """Come, work, say how it went and return what the host said last; without a status: go without a word."""
    line, nodes = await Meeting(HERE, port, token, rank).join({"name": f"n{rank}"})
    await asyncio.sleep(wait)
    try:
        if status is None:
            return nodes
        await line.say({"status": status})
        return nodes, (await line.hear())["end"]
    finally:
        await line.close()


async def held(*members: tuple[int | None, float]) -> tuple[Host, list[Any]]:
    host = Host([f"n{rank}" for rank in range(len(members))], "secret", {}, Path())
    port = await host.open(HERE)
    parts = [member(port, rank, "secret", *words) for rank, words in enumerate(members)]
    *said, _ = await asyncio.gather(*parts, host.run(), return_exceptions=True)
    return host, said


def test_all_hear_of_each_other_and_end_when_the_last_is_done() -> None:
    host, said = asyncio.run(held((0, 0), (0, 3.5)))  # longer than anybody's patience with silence
    nodes = [{"name": "n0"}, {"name": "n1"}]
    assert said == [(nodes, "done"), (nodes, "done")]
    assert (host.problem, host.failed) == ("", "")


def test_one_that_fails_ends_all_with_its_name() -> None:
    host, said = asyncio.run(held((0, 2.0), (3, 0)))
    assert host.failed == "n1 has failed with status 3"
    assert said[1][1] == "n1 has failed with status 3"


def test_one_that_goes_is_missed() -> None:
    host, _said = asyncio.run(held((0, 0), (None, 0.1)))
    assert host.problem in {"n1 has gone", "n1 is cut off: Connection reset by peer"}


def test_one_that_falls_silent_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "PATIENCE", 0.6)

    async def silent() -> Host:
        host = Host(["n0"], "secret", {}, Path())
        port = await host.open(HERE)
        _reader, writer = await asyncio.open_connection(HERE, port)
        writer.write(b'{"token": "secret", "rank": 0, "node": {}}\n')
        await host.run()
        writer.close()
        return host

    assert asyncio.run(silent()).problem == "n0 said nothing for 1 seconds"


def test_one_that_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "ARRIVAL", 1.0)

    async def short() -> tuple[Host, Any]:
        host = Host(["n0", "n1"], "secret", {}, Path())
        port = await host.open(HERE)
        said, _ = await asyncio.gather(member(port, 0, "secret"), host.run(), return_exceptions=True)
        return host, said

    host, said = asyncio.run(short())
    assert host.problem == "n1 did not come within 1 seconds"
    assert isinstance(said, LostError)


@pytest.mark.parametrize(
    "hello",
    [
        b'{"token": "other", "rank": 0, "node": {}}\n',
        b'{"token": "other", "rank": 0, "fetch": "job"}\n',
        b'{"token": "other", "rank": 0, "give": true}\n',
        b"[]\n",
        b"x\n",
        b'{"token": "secret", "rank": 5, "node": {}}\n',
    ],
)
def test_strangers_are_turned_away(hello: bytes) -> None:
    async def knock() -> bytes:
        host = Host(["n0"], "secret", {}, Path())
        port = await host.open(HERE)
        reader, writer = await asyncio.open_connection(HERE, port)
        writer.write(hello)
        answer = await reader.read()
        writer.close()
        return answer

    assert asyncio.run(knock()) == b""


def test_nobody_there_is_said() -> None:
    with pytest.raises(LostError, match=r"cannot be reached at 127\.0\.0\.1:1"):
        asyncio.run(Meeting(HERE, 1, "secret", 0).join({}))


def test_what_is_shipped_arrives_whole_and_what_is_kept_comes_back(tmp_path: Path) -> None:
    shipped, kept, there = tmp_path / "workspace.tar", tmp_path / "kept", tmp_path / "there"
    (there / "checkpoints").mkdir(parents=True)
    (there / "checkpoints" / "last.pt").write_bytes(b"weights" * 500_000)
    kept.mkdir()
    shipped.write_bytes(random.Random(1).randbytes(3_000_000))

    async def exchange() -> tuple[int | None, int | None, int]:
        host = Host(["n0"], "secret", {"workspace": shipped}, kept)
        node = Meeting(HERE, await host.open(HERE), "secret", 0)
        copy = ["dd", f"of={tmp_path / 'copy'}", "status=none"]
        return await node.fetch("workspace", copy), await node.fetch("job", copy), await node.give(there)

    assert asyncio.run(exchange()) == (0, None, 0)
    assert (tmp_path / "copy").read_bytes() == shipped.read_bytes()
    assert (kept / "checkpoints" / "last.pt").read_bytes() == b"weights" * 500_000


def test_what_is_kept_comes_back_though_all_processes_are_told_to_end(tmp_path: Path) -> None:
    there, kept, told = tmp_path / "there", tmp_path / "kept", tmp_path / "told"
    (there / "checkpoints").mkdir(parents=True)
    (there / "checkpoints" / "last.pt").write_bytes(b"weights" * 500_000)
    kept.mkdir()
    # In the place of tar: one whose process group gets a SIGTERM, as from Slurm, before it goes on.
    (tmp_path / "tar").write_text(f'#!/bin/sh\nkill -TERM $$ && echo x >> {told}; exec /usr/bin/tar "$@"\n')
    (tmp_path / "tar").chmod(0o755)

    async def exchange() -> int:
        host = Host(["n0"], "secret", {}, kept)
        return await Meeting(HERE, await host.open(HERE), "secret", 0).give(there)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        assert asyncio.run(exchange()) == 0
    assert told.read_text() == "x\nx\n", "the one that packs, and the one that unpacks"
    assert (kept / "checkpoints" / "last.pt").read_bytes() == b"weights" * 500_000


def test_a_command_that_fails_or_a_host_that_hangs_up_is_told(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"x" * 5_000_000)

    async def fetch(words: list[str]) -> int | None:
        host = Host(["n0"], "secret", {"w": tmp_path / "w"}, tmp_path)
        return await Meeting(HERE, await host.open(HERE), "secret", 0).fetch("w", words)

    assert asyncio.run(fetch(["false"])) == 1

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b'{"bytes": 100}\nabc')
        writer.close()

    async def cut() -> int | None:
        server = await asyncio.start_server(half, HERE, 0)
        return await Meeting(HERE, server.sockets[0].getsockname()[1], "secret", 0).fetch("w", ["cat"])

    with pytest.raises(LostError, match="hung up after 3 of 100 bytes of the w"):
        asyncio.run(cut())
