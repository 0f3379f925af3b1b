"""Whoever comes to a rendezvous without its token takes nothing, learns nothing and disturbs nobody; who has it gives results alone."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies
from trainyard_training import given as gifts
from trainyard_training import launchers, meeting, network, proof
from trainyard_training.meeting import Hello, Host, LostError, Meeting

HERE = "127.0.0.1"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("PERIOD", 0.2), ("PATIENCE", 8.0), ("ARRIVAL", 30.0), ("FIRST_LINE", 1.0)):
        monkeypatch.setattr(meeting, name, seconds)


async def job(port: int, names: list[str], token: str = "secret") -> list[str]:
    """Be all nodes of a job that ends well, and return what each heard at the end."""

    async def member(rank: int) -> str:
        line, _nodes = await Meeting(HERE, port, token, rank).join({"name": names[rank]})
        await line.say({"status": 0})
        try:
            return str((await line.hear())["end"])
        finally:
            await line.close()

    return list(await asyncio.gather(*(member(rank) for rank in range(len(names)))))


async def during(host: Host, attack: Callable[[int], Awaitable[Any]]) -> tuple[list[str], Any]:
    """Hold a meeting while somebody attacks its port; return what the nodes heard, and what the attack returned."""
    port = await host.open(HERE)
    running = asyncio.create_task(host.run())
    found = await attack(port)
    said = await job(port, host.names)
    await running
    return said, found


def host_of(*names: str) -> Host:
    return Host(list(names), "secret", {}, None)


@pytest.mark.parametrize("known", [True, False])
def test_a_thousand_idle_connections_keep_no_node_from_coming(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not known:  # the strangers of this test come from this machine, as the nodes do
        monkeypatch.setattr(meeting, "WAITING", {True: 16, False: 16})
        monkeypatch.setattr(meeting, "_plain", lambda _address: "192.0.2.1")
    host = host_of("n0", "n1")
    most = 0

    async def flood(port: int) -> list[Any]:
        nonlocal most
        idle = []
        for number in range(1000):
            idle.append(await asyncio.open_connection(HERE, port))
            if number % 50 == 0:
                await asyncio.sleep(0)
                most = max(most, len(os.listdir("/proc/self/fd")))  # noqa: PTH208
        return idle

    said, idle = asyncio.run(during(host, flood))
    assert said == ["done", "done"]
    assert sum(host.strangers.values()) >= 1000 - sum(meeting.WAITING.values())
    assert len(host.remarks()) == 1
    assert "connections were turned away, since they did not have the job's token" in host.remarks()[0]
    assert len(idle) == 1000


def test_connections_from_elsewhere_do_not_crowd_out_a_nodes_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "FIRST_LINE", 20.0)
    host = host_of("n0")
    address = HERE

    async def slow_node_in_a_crowd() -> bytes:
        nonlocal address
        port = await host.open(HERE)
        running = asyncio.create_task(host.run())
        monkeypatch.setattr(meeting, "_plain", lambda _address: address)
        reader, writer = await asyncio.open_connection(HERE, port)
        await asyncio.sleep(0.2)  # taken, and slow to show its token
        address = "192.0.2.1"
        crowd = [await asyncio.open_connection(HERE, port) for _number in range(300)]
        await asyncio.sleep(0.2)
        writer.write(b'{"token": "secret", "rank": 0, "node": {}}\n')
        heard = await reader.readline() + await reader.readline()
        writer.write(b'{"status": 0}\n')
        await running
        for _reader, each in crowd:
            each.close()
        writer.close()
        return heard

    heard = asyncio.run(slow_node_in_a_crowd())
    assert b'{"nodes": [{}]}' in heard
    assert host.problem == ""
    assert host.strangers["192.0.2.1"] >= 300 - meeting.WAITING[False]


def test_the_first_line_has_seconds_and_a_size() -> None:
    host = host_of("n0")

    async def attack(port: int) -> list[bytes]:
        heard = []
        for words in (b"", b"{", b"x" * 200_000, b"[" * 60_000 + b"\n", b'{"token": "secret", "rank": 1e999, "node": {}}\n'):
            reader, writer = await asyncio.open_connection(HERE, port)
            with contextlib.suppress(ConnectionError):
                writer.write(words)
                await writer.drain()
                heard.append(await asyncio.wait_for(reader.read(), 5))
            writer.close()
        return heard

    said, heard = asyncio.run(during(host, attack))
    assert said == ["done"]
    assert set(heard) == {b""}
    assert (sum(host.strangers.values()), dict(host.troubles)) == (5, {})


def test_nothing_is_logged_for_strangers(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    async def attack(port: int) -> None:
        for _number in range(100):
            _reader, writer = await asyncio.open_connection(HERE, port)
            writer.write(os.urandom(100) + b"\n")
            writer.transport.abort()

    said, _ = asyncio.run(during(host_of("n0"), attack))
    assert said == ["done"]
    assert (caplog.text, capfd.readouterr()) == ("", ("", ""))


def test_a_seat_is_taken_once() -> None:
    host = host_of("n0", "n1")

    async def twice(port: int) -> bytes:
        first = await Meeting(HERE, port, "secret", 1)._come({"node": {"name": "real"}})
        reader, writer = await asyncio.open_connection(HERE, port)
        writer.write(b'{"token": "secret", "rank": 1, "node": {"name": "double"}}\n')
        heard = await reader.read()
        for each in (writer, first[1]):
            each.close()
        return heard

    async def hold() -> bytes:
        port = await host.open(HERE)
        running = asyncio.create_task(host.run())
        heard = await twice(port)
        await running
        return heard

    assert asyncio.run(hold()) == b""
    assert host._here[1][1] == {"name": "real"}


@pytest.mark.parametrize("last", [b'{"status": "0"}', b'{"status": true}', b'{"status": 256}', b'{"end": 1}', b"[1]", b"{" * 9, b"7"])
def test_a_seated_node_that_talks_nonsense_ends_the_job_and_no_more(last: bytes) -> None:
    host = host_of("n0")

    async def nonsense() -> None:
        port = await host.open(HERE)
        running = asyncio.create_task(host.run())
        _reader, writer, _first = await Meeting(HERE, port, "secret", 0)._come({"node": {}})
        writer.write(last + b"\n")
        await running
        writer.close()

    asyncio.run(nonsense())
    assert host.problem in {"n0 sent what is no message", "n0 sent an exit status that is none"}
    assert not host.troubles


def test_a_wrong_token_is_said_to_whoever_has_it() -> None:
    async def come() -> None:
        port = await host_of("n0").open(HERE)
        await Meeting(HERE, port, "other", 0).fetch("job", ["cat"])

    with pytest.raises(LostError, match="turns us away"):
        asyncio.run(come())


def test_where_nothing_is_taken_nothing_can_be_given(tmp_path: Path) -> None:
    async def give() -> int:
        return await Meeting(HERE, await host_of("n0").open(HERE), "secret", 0).give(tmp_path)

    with pytest.raises(LostError, match="turns us away"):
        asyncio.run(give())


# --- what is read from the network -----------------------------------------------------------------------------------

JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(strategies.characters()),
    lambda inner: (
        strategies.lists(inner) | strategies.dictionaries(strategies.sampled_from(["token", "rank", "node", "fetch", "x"]), inner)
    ),
)


@given(strategies.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_line_without_the_token_is_a_hello(line: bytes) -> None:
    assert meeting.hello(line, "secret", 4) is None


@given(rank=JSON, rest=strategies.dictionaries(strategies.sampled_from(["node", "fetch", "give"]), JSON))
def test_with_the_token_a_hello_has_a_rank_and_a_purpose(rank: Any, rest: dict[str, Any]) -> None:
    found = meeting.hello(json.dumps({"token": "secret", "rank": rank, **rest}).encode(), "secret", 4)
    assert found is None or (found.rank in range(4) and (found.node is not None or found.fetch or rest.get("give") is True))


def test_the_three_purposes() -> None:
    def said(**rest: Any) -> Hello | None:
        return meeting.hello(json.dumps({"token": "s", "rank": 1, **rest}).encode(), "s", 2)

    assert said(node={"name": "n"}) == Hello(1, node={"name": "n"})
    assert said(fetch="job") == Hello(1, fetch="job")
    assert said(give=True) == Hello(1)
    assert said() is None


@given(strategies.dictionaries(strategies.sampled_from(["name", "address", "ports"]), JSON))
def test_what_a_node_says_of_itself_is_a_node_or_refused(told: dict[str, Any]) -> None:
    try:
        found = launchers.node(told, 1)
    except ValueError:
        return
    assert found.ports[0] in range(1, 65536)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"name": "a b"}, "is no host name"),
        ({"name": "n\x1b[2J"}, "is no host name"),
        ({"name": "-x"}, "is no host name"),
        ({"address": "n1 --evil"}, "does not appear to be an IPv4 or IPv6 address"),
        ({"address": None}, "is no address"),
        ({"ports": [1]}, "are not 2 ports"),
        ({"ports": [0, 1]}, "are not 2 ports"),
        ({"ports": [1, "2"]}, "are not 2 ports"),
    ],
)
def test_a_node_that_cannot_be_is_refused(change: dict[str, Any], said: str) -> None:
    told = {"name": "n1.lab", "address": "10.0.0.1", "ports": [1, 65535], "more": 1}
    assert launchers.node(told, 2) == launchers.Node("n1.lab", "10.0.0.1", [1, 65535])
    with pytest.raises(ValueError, match=said):
        launchers.node(told | change, 2)


def test_addresses_are_those_that_names_and_interfaces_have() -> None:
    assert "127.0.0.1" in network.addresses(["localhost", "127.0.0.1", "no-such-host.invalid"])
    printed = '[{"ifname":"lo","addr_info":[{"family":"inet","local":"127.0.0.1"}]},{},{"ifname":"e","addr_info":[{"local":"fe80::1"}]}]'
    assert network.parse_addresses(printed) == {"127.0.0.1", "fe80::1"}
    assert [meeting._plain(address) for address in ("::ffff:10.0.0.1", "10.0.0.1", "fe80::1%eth0", "?")] == [
        "10.0.0.1",
        "10.0.0.1",
        "fe80::1",
        "?",
    ]


# --- what a node gives back ------------------------------------------------------------------------------------------


def member(name: str, content: bytes = b"evil", **how: Any) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    for key, value in how.items():
        setattr(entry, key, value)
    return entry, content if entry.isreg() else b""


async def give(port: int, rank: int, members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """Give an archive that no tar would make, and return the host's answer."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for entry, content in members:
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    reader, writer, _first = await Meeting(HERE, port, "secret", rank)._come({"give": True})
    writer.write(archive.getvalue())
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


ATTACKS = {
    "dots": [member("../outside/evil")],
    "absolute": [member("/tmp/trainyard-test-evil")],
    "a link, and through it": [
        member("checkpoints/link", type=tarfile.SYMTYPE, linkname="../../outside"),
        member("checkpoints/link/evil"),
    ],
    "an absolute link": [member("checkpoints/link", type=tarfile.SYMTYPE, linkname="/etc")],
    "a hard link": [member("checkpoints/hard", type=tarfile.LNKTYPE, linkname="../job.json")],
    "what runs when the job starts again": [member("job.json"), member("workspace.tar"), member("./thirdparty.tar"), member("result.json")],
    "other nodes' logs": [member("logs/job.log"), member("logs/n0.log")],
    "a pipe and a device": [
        member("checkpoints/pipe", type=tarfile.FIFOTYPE),
        member("checkpoints/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    ],
    "the folder's own mode": [member(".", type=tarfile.DIRTYPE, mode=0o777), member("checkpoints", type=tarfile.DIRTYPE, mode=0o777)],
    "no archive": [],
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_node_gives_results_and_reaches_nothing_else(tmp_path: Path, name: str) -> None:
    folder, outside = tmp_path / "job-1", tmp_path / "outside"
    outside.mkdir()
    folder.mkdir(mode=0o700)
    for below in ("logs", "checkpoints"):
        (folder / below).mkdir(mode=0o700)
    for file in ("job.json", "workspace.tar", "logs/job.log"):
        (folder / file).write_text("whole")
    before = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    host = Host(["n0", "n1"], "secret", {}, folder)

    async def attack() -> None:
        port = await host.open(HERE)
        await give(port, 0, ATTACKS[name])
        # And again, now that what came first is there.
        await give(port, 1, [member("checkpoints/link/evil"), member("checkpoints/good.pt", b"weights"), member("outputs/a", b"a")])

    asyncio.run(attack())
    added = sorted({str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} - set(before))
    assert added == ["job-1/checkpoints/good.pt", "job-1/checkpoints/link", "job-1/checkpoints/link/evil"]
    assert (folder / "checkpoints" / "link").is_dir()
    assert not (folder / "checkpoints" / "link").is_symlink()
    assert not Path("/tmp/trainyard-test-evil").exists()
    assert {file: (folder / file).read_text() for file in ("job.json", "workspace.tar", "logs/job.log")} == dict.fromkeys(
        ("job.json", "workspace.tar", "logs/job.log"), "whole"
    )
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "checkpoints").stat().st_mode & 0o777 == 0o700


def test_links_beside_the_weights_come_back_and_modes_that_rise_do_not(tmp_path: Path) -> None:
    folder = tmp_path / "job-1"
    folder.mkdir(mode=0o700)
    host = Host(["n0"], "secret", {}, folder)

    async def exchange() -> bytes:
        members = [
            member("checkpoints/step-7.pt", b"weights", mode=0o4755),
            member("outputs/model.pt", b"weights", mode=0o644),
            member("checkpoints/last.pt", type=tarfile.SYMTYPE, linkname="step-7.pt"),
            member("tensorboard/events.1", b"curve"),
        ]
        return await give(await host.open(HERE), 0, members)

    assert json.loads(asyncio.run(exchange())) == {"status": 0}
    assert (folder / "checkpoints" / "last.pt").read_bytes() == b"weights"
    assert (folder / "checkpoints" / "last.pt").is_symlink()
    assert (folder / "checkpoints" / "step-7.pt").stat().st_mode & 0o7777 == 0o700
    assert (folder / "outputs" / "model.pt").stat().st_mode & 0o7777 == 0o600
    assert (folder / "outputs").stat().st_mode & 0o7777 == 0o700
    assert (folder / "tensorboard" / "events.1").read_bytes() == b"curve"
    assert host.remarks() == []


def test_a_node_gives_once(tmp_path: Path) -> None:
    host = Host(["n0"], "secret", {}, tmp_path)

    async def twice() -> None:
        port = await host.open(HERE)
        await give(port, 0, [member("checkpoints/a")])
        await give(port, 0, [member("checkpoints/b")])

    with pytest.raises(LostError, match="turns us away"):
        asyncio.run(twice())
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["a"]


def test_a_node_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "SHARE", 0.0)
    host = Host(["n0"], "secret", {}, tmp_path)

    async def much() -> bytes:
        return await give(await host.open(HERE), 0, [member("checkpoints/a", b"x" * 100_000)])

    assert asyncio.run(much()) == b""
    assert list(tmp_path.iterdir()) == []
    assert host.remarks() == ["on the way, 1 times: n0 gives results back: [Errno 28] No room for it"]


def test_what_tar_complains_of_is_said_once_and_moves_no_cursor(tmp_path: Path) -> None:
    host = Host(["n0"], "secret", {}, tmp_path)

    async def noise() -> bytes:
        reader, writer, _first = await Meeting(HERE, await host.open(HERE), "secret", 0)._come({"give": True})
        writer.write(b"\x1b]0;owned\x07" * 5000)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    assert json.loads(asyncio.run(noise()))["status"] == 2
    said = "\n".join(host.remarks())
    assert "n0 gives results back: tar: This does not look like a tar archive" in said
    assert "\x1b" not in said
    assert len(said) < 10_000


@given(
    strategies.lists(strategies.sampled_from(["checkpoints", "tensorboard", "outputs", "logs", "job.json", "a"]), min_size=1, max_size=4)
)
def test_only_results_are_results(parts: list[str]) -> None:
    assert gifts._wanted(Path(*parts), False) == (parts[0] in {"checkpoints", "tensorboard"})
    assert gifts._wanted(Path(*parts), True) == (parts[0] in {"checkpoints", "tensorboard", "outputs"})


# --- the proof -------------------------------------------------------------------------------------------------------

RUN = """#!{python}
import sys
sys.path.insert(0, {package!r})
{more}
from trainyard_training.commands import main
from pathlib import Path
sys.exit(main(sys.argv[1:], Path(sys.argv[0]), {{"environments": {environments!r}, "samples": "/nowhere", "tensorboard": "", "lock": ""}}))
"""
SRUN = """#!/bin/sh
# A stand-in for srun: both nodes are this machine.
while [ "${1#--}" != "$1" ]; do shift; done
env >"$PROGRAMS/environment"
SLURM_NODEID=0 "$@" & first=$!
SLURM_NODEID=1 "$@"; second=$?
wait $first || exit 1
exit $second
"""


@pytest.fixture
def prove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The proof on two nodes, both of them this machine; Slurm's commands are stand-ins."""
    show = (
        "case $2 in hostnames) printf 'n0\\nn1\\n';; *) printf 'NodeName=n0 NodeAddr=127.0.0.1\\nNodeName=n1 NodeAddr=127.0.0.1\\n';; esac"
    )
    (tmp_path / "environments").mkdir()

    def run(more: str = "") -> int:
        words = {"python": sys.executable, "package": str(Path(proof.__file__).parents[1]), "environments": str(tmp_path / "environments")}
        for name, script in (("scontrol", f"#!/bin/sh\n{show}"), ("srun", SRUN), ("run", RUN.format(**words, more=more))):
            (tmp_path / name).write_text(script)
            (tmp_path / name).chmod(0o755)
        for name, value in (
            ("PATH", f"{tmp_path}:{os.environ['PATH']}"),
            ("PROGRAMS", str(tmp_path)),
            ("SLURM_JOB_ID", "7"),
            ("SLURM_JOB_NUM_NODES", "2"),
            ("SLURM_JOB_CPUS_PER_NODE", "1(x2)"),
            ("SLURM_JOB_NODELIST", "n[0-1]"),
        ):
            monkeypatch.setenv(name, value)
        return proof.main(tmp_path / "run", {"samples": "/nowhere"})

    return run


def test_nodes_prove_themselves_by_meeting(prove: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert prove() == 0
    assert capsys.readouterr().out.splitlines() == [
        "n0 has met n1",
        "n1 has met n0",
        "n0 and n1 have no framework in common (pytorch, tensorflow, keras, paddle): they have met, and trained nothing.",
    ]


def test_programs_read_the_result_from_the_last_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = {"framework": "PyTorch", "version": "2.13.0", "device": "cpu", "accuracy": 0.97}

    def main(_words: object, _program: str, _run: Path, _settings: object) -> int:
        logs = Path.cwd() / "pytorch_digits-1" / "logs"
        logs.mkdir(parents=True)
        (logs / "n0.log").write_text(json.dumps({**told, "hosts": ["n0", "n1"]}) + "\n")
        return 0

    monkeypatch.setattr(proof.submit, "main", main)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert proof.train("pytorch", 2, ["n0", "n1"], tmp_path / "run", {"samples": "/nowhere"}, as_json=True) == 0
    found = json.loads(printed.getvalue().splitlines()[-1])
    assert found.pop("seconds") >= 0
    assert found == {**told, "environment": "pytorch", "nodes": ["n0", "n1"]}


def test_a_node_that_does_not_reach_the_first_is_no_proof(
    prove: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "PATIENCE", 5.0)
    more = (
        "import os\n"
        "from trainyard_training import meeting, proof\n"
        "proof.PATIENCE = meeting.PATIENCE = 3.0\n"
        "if os.environ.get('SLURM_NODEID') == '1':\n"
        "    async def nothing(*_words): raise OSError('no \\x1b[2J way')\n"
        "    proof.met = nothing\n"
    )
    assert prove(more) == 1
    said = capsys.readouterr().out
    assert "does not meet the others (127.0.0.1 127.0.0.1): no \\x1b[2J way" in said
    assert "n1 has failed with status 1" in said
    assert "has met" not in said
    assert "\x1b" not in said


def test_what_nodes_print_is_bounded_and_moves_no_cursor(prove: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert prove("print('\\x1b]0;owned\\x07 n9 has met n8' * 100000)\n") == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert len(said) < 10 * proof.MOST_SAID
    assert "\nn0 has met n1\n" in said


@pytest.mark.parametrize(
    "logs, found",
    [
        ('x\n{"accuracy": 0.97, "hosts": ["a"]}\n', {"accuracy": 0.97, "hosts": ["a"]}),
        ('{"accuracy": \n{"accuracy": 1}', {"accuracy": 1}),
        ('["accuracy"]', {}),
        ('{"accuracy"' + "[" * 100_000, {}),
        ("", {}),
    ],
)
def test_a_result_is_read_from_what_nodes_print(logs: str, found: dict[str, Any]) -> None:
    assert proof._result(logs) == found
    assert proof._at_least(found.get("accuracy"), 0.95) == bool(found)
    assert not proof._at_least("1", 0.95)
