"""JupyterLab and TensorBoard among users who pose as them, stop them, guess their password, or misuse their account."""

from __future__ import annotations

import json
import shlex
import textwrap
import time
from collections.abc import Iterator

import pytest

from tests.security.conftest import PASSWORD, House

pytestmark = pytest.mark.security

PORTS = {"jupyter": 8888, "tensorboard": 6006}
LOOPBACKS = ("127.0.0.1", "::1")
WRITER = "/opt/trainyard/envs/tensorboard/bin/python"

# Logs in to a service as often as it is told, all at once, and prints for each login its status and how long it took, and the certificate's
# fingerprint. With a certificate that nobody signed: what is asked here is who answers, and the fingerprint tells.
CLIENT = """
import base64, concurrent.futures, hashlib, http.client, json, ssl, sys, time, urllib.parse
service, host, port, times, password = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
context = ssl._create_unverified_context()

def ask(method, path, headers, body=None):
    connection = http.client.HTTPSConnection(host, port, timeout=30, context=context)
    connection.request(method, path, body, headers)
    digest = hashlib.sha256(connection.sock.getpeercert(True)).hexdigest().upper()
    answer = connection.getresponse()
    answer.read()
    return answer, ":".join(digest[at:at + 2] for at in range(0, len(digest), 2))

def log_in(_number):
    started = time.monotonic()
    if service == "tensorboard":
        credentials = base64.b64encode(f"lab:{password}".encode()).decode()
        answer, fingerprint = ask("GET", "/data/environment", {"Authorization": "Basic " + credentials})
    else:
        answer, fingerprint = ask("GET", "/login", {})
        key = answer.headers["Set-Cookie"].split("_xsrf=")[1].split(";")[0]
        headers = {"Cookie": "_xsrf=" + key, "Content-Type": "application/x-www-form-urlencoded"}
        answer, fingerprint = ask("POST", "/login", headers, urllib.parse.urlencode({"password": password, "_xsrf": key}))
    return answer.status, round(time.monotonic() - started, 1), fingerprint

with concurrent.futures.ThreadPoolExecutor(times) as threads:
    print(json.dumps(list(threads.map(log_in, range(times)))))
"""
LET_IN = {"jupyter": 302, "tensorboard": 200}

SQUAT = """
import socket, sys
squatter = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
squatter.bind((sys.argv[1], int(sys.argv[2])))
squatter.listen()
"""


def python(program: str, *arguments: object) -> str:
    """Return the command that runs a program."""
    return shlex.join(["python3", "-c", textwrap.dedent(program), *map(str, arguments)])


def log_in(
    house: House, user: str, service: str, password: str = PASSWORD, host: str = "127.0.0.1", times: int = 1
) -> list[tuple[int, float, str]]:
    """Log in to a service as somebody on the node, as through a tunnel, and return status, seconds and fingerprint of each login."""
    status, printed = house.user(user, python(CLIENT, service, host, PORTS[service], times, password))
    assert status == 0, printed
    return [(answer[0], answer[1], answer[2]) for answer in json.loads(printed.splitlines()[-1])]


@pytest.mark.parametrize("host", LOOPBACKS)
@pytest.mark.parametrize("service", PORTS)
def test_who_knows_the_password_gets_in_on_both_loopbacks_and_can_compare_the_fingerprint(house: House, service: str, host: str) -> None:
    ((status, _seconds, fingerprint),) = log_in(house, "alice", service, host=host)
    assert status == LET_IN[service]
    assert house.user("alice", f"cat /etc/trainyard/{service}/fingerprint") == (0, fingerprint)


@pytest.mark.parametrize("service", PORTS)
def test_nobody_can_pose_as_a_service_while_it_runs_is_stopped_or_has_crashed(house: House, service: str) -> None:
    unit = f"trainyard-{service}.service"

    def squat(when: str) -> None:
        for host in LOOPBACKS:
            status, printed = house.user("bob", python(SQUAT, host, PORTS[service]))
            assert (status, printed.splitlines()[-1]) == (1, "OSError: [Errno 98] Address already in use"), f"{when}: {host}"

    squat("while it runs")
    try:
        house.root("head", f"systemctl kill --signal=KILL {unit}")
        squat("after a crash")
        house.root("head", f"systemctl stop {unit}")
        squat("while it is stopped")
        house.root("head", f"systemctl restart {unit}")
        squat("after a restart")
    finally:
        house.root("head", f"systemctl start {unit}")
    assert [answer[0] for answer in log_in(house, "alice", service)] == [LET_IN[service]]


# Puts links to a file of root's where the service's own files are to come, as fast as it can.
PLANT = """
import itertools, os, sys, time
for number in itertools.count():
    time.sleep(0.0005)
    for name in ("password", "tls.pem"):
        beside = f"/run/trainyard-jupyter/{name}.{number}"
        try:
            os.symlink(sys.argv[1], beside)
            os.rename(beside, f"/run/trainyard-jupyter/{name}")
        except OSError:
            pass
"""


def test_the_notebooks_account_changes_no_file_of_roots(house: House) -> None:
    victim = "/etc/trainyard/victim"
    state = f"stat -c '%n %U %G %a %Z' /etc/trainyard/jupyter/* {victim}; stat -c '%U %a' /srv"
    house.root("head", f"echo root > {victim}; chmod 644 {victim}")
    before = house.root("head", state)
    house.root("head", f"(timeout 60 runuser -u jupyter -- {python(PLANT, victim)} & echo $! > /run/plant.pid) >/dev/null 2>&1")
    try:
        house.root("head", "systemctl restart trainyard-jupyter.service")
        assert house.root("head", state) == before
        steps = house.root("head", "systemctl show -P ExecStartPreEx -P ExecStartPostEx -P ExecStopPostEx trainyard-jupyter.service")
        assert "privileged" not in steps, "root does nothing in folders of the account"
    finally:
        house.root("head", f"pkill -P $(cat /run/plant.pid); rm -f /run/plant.pid {victim}; systemctl restart trainyard-jupyter.service")
    assert [answer[0] for answer in log_in(house, "alice", "jupyter")] == [LET_IN["jupyter"]]


def test_a_key_in_the_notebooks_account_opens_no_door(house: House) -> None:
    key = shlex.quote((house.folder / "bob.pub").read_text().strip())
    house.root(
        "head",
        f"runuser -u jupyter -- sh -c 'umask 077; mkdir -p /srv/jupyter/.ssh; echo \"$0\" > /srv/jupyter/.ssh/authorized_keys' {key}",
    )
    its = house.folder / "jupyter"
    its.write_text((house.folder / "bob").read_text())
    its.chmod(0o600)
    try:
        for command, options in (("true", ()), ("sftp", ("-s",)), ("", ("-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22"))):
            entered = house.ssh("jupyter", command, "head", *options)
            assert entered.returncode == 255, entered.stdout + entered.stderr
            assert "Permission denied" in entered.stderr or "Connection closed" in entered.stderr, entered.stderr
    finally:
        its.unlink()
        house.root("head", "rm -rf /srv/jupyter/.ssh")
    assert house.ssh("bob").returncode == 0, "the key is good, for bob"


@pytest.fixture
def littered(house: House) -> Iterator[str]:
    """The log folder, with everything in it that somebody may put there to stop TensorBoard."""
    house.user(
        "bob",
        """
        mkdir /srv/tensorboard/bob && cd /srv/tensorboard/bob
        mkdir fifo zero outside closed loop sparse
        mkfifo fifo/events.out.tfevents.1
        ln -s /dev/zero zero/events.out.tfevents.1
        ln -s / outside/root
        ln -s .. loop/events.out.tfevents.up; ln -s . loop/again; ln -s .. loop/up
        chmod 0 closed
        deep=. ; for each in $(seq 60); do deep=$deep/d; done; mkdir -p $deep; touch $deep/events.out.tfevents.1
        """,
    )
    # A record of 64 GiB, as its length and the length's checksum say, in a file that has them without taking any room.
    claim = "b'\\x00\\x00\\x00\\x00\\x10\\x00\\x00\\x00' + checksum.to_bytes(4, 'little')"
    house.user(
        "bob",
        f'cd /srv/tensorboard/bob/sparse && {WRITER} -c "from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c; '
        f"checksum = masked_crc32c(b'\\x00\\x00\\x00\\x00\\x10\\x00\\x00\\x00'); "
        f"file = open('events.out.tfevents.1', 'wb'); file.write({claim}); file.truncate(2**37)\"",
    )
    yield "/srv/tensorboard/bob"
    house.root("head", "chmod 700 /srv/tensorboard/bob/closed; rm -rf /srv/tensorboard/bob /srv/tensorboard/alice")


def test_what_anybody_puts_into_the_log_folder_stops_nobody(house: House, littered: str) -> None:
    assert house.root("head", f"stat -c %s {littered}/sparse/events.out.tfevents.1") == str(2**37)
    process = house.root("head", "systemctl show -P MainPID trainyard-tensorboard.service")
    write = (
        "from tensorboard.summary import Writer; run = Writer('/srv/tensorboard/alice'); run.add_scalar('loss', 0.25, step=1); run.close()"
    )
    assert house.user("alice", shlex.join([WRITER, "-c", write]))[0] == 0
    ask = f"""
    import base64, ssl, urllib.request
    request = urllib.request.Request("https://127.0.0.1:6006/data/plugin/scalars/scalars?run=alice&tag=loss")
    request.add_header("Authorization", "Basic " + base64.b64encode(b"lab:{PASSWORD}").decode())
    print(urllib.request.urlopen(request, context=ssl._create_unverified_context(), timeout=5).read().decode())
    """
    end = time.monotonic() + 40
    while "0.25" not in (printed := house.user("alice", python(ask))[1]):
        assert time.monotonic() < end, printed
        time.sleep(1)
    assert house.root("head", "systemctl show -P MainPID trainyard-tensorboard.service") == process, "and it was not restarted"


@pytest.mark.parametrize("service", PORTS)
def test_guessing_slows_down_who_guesses_and_nobody_else(house: House, service: str) -> None:
    house.root("head", f"runuser -u bob -- {python(CLIENT, service, '127.0.0.1', PORTS[service], 14, 'guess')} > /tmp/guesses 2>&1 &")
    time.sleep(1)
    ((status, seconds, _),) = log_in(house, "alice", service)
    assert status == LET_IN[service]
    assert seconds < 4
    house.until("head", "test -s /tmp/guesses && echo done || true", "done")
    guesses = json.loads(house.root("head", "cat /tmp/guesses; rm /tmp/guesses"))
    statuses = [guess[0] for guess in guesses]
    assert set(statuses) == {401, 503}, statuses
    assert max(guess[1] for guess in guesses) > 8, "one guess a second"
