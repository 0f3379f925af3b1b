"""The port at which a job's nodes meet is open to the network: strangers take nothing there, and disturb nobody."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.security.conftest import OUTSIDER, House

pytestmark = [pytest.mark.security, pytest.mark.usefixtures("open_network")]

RUN = "/usr/local/lib/trainyard/training/run"
ENVIRONMENT = "/opt/trainyard/envs/stand-in"
SCRIPT = """
import os, time
print("begun", flush=True)
end = time.monotonic() + 60
while not os.path.exists("/tmp/go") and time.monotonic() < end:
    time.sleep(0.1)
with open(os.environ["TRAINYARD_CHECKPOINTS"] + "/kept-" + os.environ["TRAINYARD_RANK"], "w") as file:
    file.write("kept")
"""
FLOOD = """
import os, resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (2000, 2000))
held = []
for number in range(1000):
    try:
        held.append(socket.create_connection((sys.argv[1], int(sys.argv[2])), 10))
    except OSError as error:
        print(number, error, flush=True)
        break
print("open", len(held), flush=True)
end = time.monotonic() + 60
while os.path.exists(__file__) and time.monotonic() < end:
    time.sleep(0.1)
"""
KNOCK = r"""
import json, socket, sys
token = "0" * 32
lines = [b"\n", b"{}\n", b"evil\x1b]0;owned\x07" + b" " * 65536 + b".", b"[" * 60000 + b"\n"]
for purpose in ({"fetch": "job"}, {"fetch": "workspace"}, {"give": True}, {"node": {"name": "evil\x1b[2J"}}):
    lines.append(json.dumps({"token": token, "rank": 0, **purpose}).encode() + b"\n")
heard = b""
for line in lines:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as peer:
        peer.settimeout(10)
        try:
            peer.sendall(line)
            heard += peer.recv(1 << 20)
        except ConnectionError:
            pass
print("heard", heard)
"""


def start(house: House, node: str, name: str, script: str) -> subprocess.Popen[str]:
    """Run a script in a node as a user, and go on."""
    container = house.lab._container_name(node)
    words = ["docker", "exec", "-i", container, "runuser", "-l", name, "-c", script]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def port(house: House, node: str) -> int:
    """Return the port of the rendezvous on a node, known by the length of its queue; the system does not say whose it is."""
    end = time.monotonic() + 30
    while not (found := re.search(r"LISTEN +\d+ +1024 +[\d.]+:(\d+) ", house.root(node, "ss -Hltn"))):
        assert time.monotonic() < end, "nobody waits"
        time.sleep(0.2)
    return int(found[1])


@pytest.fixture
def environment(house: House) -> Iterator[None]:
    """A stand-in for an environment, since frameworks have their own tests; and the strangers' programs."""
    for node in ("head", "node1", "node2", OUTSIDER):
        house.root(node, f"mkdir -p {ENVIRONMENT}/bin; ln -sfn /usr/bin/python3 {ENVIRONMENT}/bin/python; rm -f /tmp/go")
        for name, text in (("flood", FLOOD), ("knock", KNOCK)):
            house.root(node, f"cat >/tmp/{name}.py <<'END'\n{text}\nEND")
    yield
    for node in ("head", "node1", "node2", OUTSIDER):
        house.root(
            node,
            f"rm -rf {ENVIRONMENT} /tmp/go /tmp/flood.py /tmp/knock.py; ! id alice 2>/dev/null || runuser -l alice -c 'rm -rf meeting'",
        )


@pytest.mark.usefixtures("environment")
def test_a_running_job_ends_well_while_strangers_open_a_thousand_connections_each(house: House) -> None:
    house.root("node1", f"runuser -l alice -c 'mkdir meeting; cat >meeting/train.py' <<'END'\n{SCRIPT}\nEND")
    words = "cd meeting && cluster_train --framework keras --environment stand-in --config train.py --num-nodes 2 --watch"
    job = start(house, "node1", "alice", words)
    floods: list[subprocess.Popen[str]] = []
    try:
        open_port = port(house, "node1")
        logs = "/home/alice/meeting/train-1/logs"
        house.until("node1", f"cat {logs}/node1.log {logs}/node2.log 2>/dev/null", "begun\nbegun")
        address = house.lab.address("node1")

        # Nobody learns the token, and nobody gets anything without it.
        environ = "for p in $(pgrep -u alice -f 'run node'); do tr '\\0' '\\n' </proc/$p/environ; done"
        token = re.search(r"^TRAINYARD_TOKEN=(\w{32})$", house.user("alice", environ, "node1")[1], re.MULTILINE)
        assert token, "alice herself sees it"
        look = "cat /proc/[0-9]*/{environ,cmdline} 2>/dev/null | tr '\\0' '\\n'; ps auxeww; scontrol show job -dd; scontrol show step"
        for node in ("head", "node1", "node2"):
            _status, seen = house.user("bob", f"{look}; squeue -o %all; sacct -a -l 2>/dev/null; true", node)
            assert "JobId=" in seen
            assert token[1] not in seen
        for node, name in ((OUTSIDER, "root"), ("node1", "bob")):
            assert "heard b''" in house.root(node, f"runuser -u {name} -- python3 /tmp/knock.py {address} {open_port}")

        floods = [
            start(house, node, name, f"python3 /tmp/flood.py {address} {open_port}")
            for node, name in ((OUTSIDER, "root"), ("node1", "bob"), ("node2", "bob"))
        ]
        for flood in floods:
            assert flood.stdout
            assert flood.stdout.readline() == "open 1000\n"
        held = "for p in $(pgrep -u alice -f 'run batch'); do ls /proc/$p/fd; done | wc -l"
        assert 0 < int(house.user("alice", held, "node1")[1]) < 400
        # The other node gives back what it kept over a connection of its own, while the strangers are there.
        for node in ("node1", "node2"):
            house.root(node, "touch /tmp/go")
        printed = job.communicate(timeout=60)[0]
        assert job.returncode == 0, printed
        assert all(flood.poll() is None for flood in floods), "they are still there"
    finally:
        for node in ("node1", "node2", OUTSIDER):
            house.root(node, "rm -f /tmp/flood.py")
        for process in (job, *floods):
            if process.poll() is None and process is job:
                house.until("head", "scancel -u alice; sleep 1; squeue -h", "")  # a job that loses its nodes goes back into the queue
            process.communicate(timeout=60)
    assert json.loads(house.root("node1", "cat /home/alice/meeting/train-1/result.json"))["status"] == 0
    assert house.root("node1", "ls /home/alice/meeting/train-1/checkpoints").split() == ["kept-0", "kept-1"]
    log = house.root("node1", f"cat {logs}/job.log")
    assert len(log) < 2000
    assert len(re.findall("connections were turned away, since they did not have the job's token", log)) == 1
    assert "\x1b" not in log


def test_the_proof_of_nodes_gives_strangers_nothing_and_shows_nothing_of_theirs(house: House) -> None:
    for node in ("node1", OUTSIDER):
        house.root(node, f"cat >/tmp/knock.py <<'END'\n{KNOCK}\nEND")
    # Another step has the nodes' cores for a while, so that the proof waits for its nodes, and strangers find it.
    steps = f"srun -N2 -n2 sleep 5 & sleep 1; {RUN} prove; status=$?; wait; exit $status"
    proof = start(house, "head", "root", f"cd /; salloc -N2 -n2 --cpus-per-task=1 --immediate=60 bash -c '{steps}'")
    try:
        open_port = port(house, "head")
        for node, name in ((OUTSIDER, "root"), ("node1", "bob")):
            assert "heard b''" in house.root(node, f"runuser -u {name} -- python3 /tmp/knock.py {house.lab.address('head')} {open_port}")
    finally:
        printed = proof.communicate(timeout=90)[0]
    assert proof.returncode == 0, printed
    assert "node1 has met node2" in printed
    assert "connections were turned away" in printed
    assert "\x1b" not in printed
    assert "evil" not in printed
    for node in ("node1", OUTSIDER):
        house.root(node, "rm /tmp/knock.py")
