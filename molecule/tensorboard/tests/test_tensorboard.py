"""TensorBoard as people and attackers find it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.web_service import WebService

PASSWORD = "Birnen-im-Brunnen-42"
PYTHON = "/opt/trainyard/envs/tensorboard/bin/python"

# Runs on the node, over TLS that trusts the service's own certificate and nothing else.
CLIENT = """
import base64, json, ssl, sys, urllib.error, urllib.request
credentials, path = sys.argv[1:]
context = ssl.create_default_context(cafile="/etc/trainyard/tensorboard/tls.pem")
request = urllib.request.Request("https://localhost:6006" + path)
if credentials:
    request.add_header("Authorization", "Basic " + base64.b64encode(credentials.encode()).decode())
try:
    answer = urllib.request.urlopen(request, context=context)
    print(json.dumps([answer.status, answer.read().decode()]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, error.headers["WWW-Authenticate"]]))
"""
WRITE = """
from tensorboard.summary import Writer
run = Writer("/srv/tensorboard/molecule")
run.add_scalar("loss", 0.25, step=1)
run.close()
"""
PLAIN_CLIENT = """
import http.client
connection = http.client.HTTPConnection("localhost", 6006, timeout=5)
connection.request("GET", "/")
print(connection.getresponse().status)
"""
SILENT_CROWD = """
import socket, subprocess, sys
crowd = [socket.create_connection(("localhost", 6006)) for _ in range(40)]
sys.exit(subprocess.call(sys.argv[1:]))
"""


def ask(host: Any, credentials: str, path: str) -> tuple[int, str]:
    """Ask the server, on the node."""
    done = host.run("python3 -c %s %s %s", CLIENT, credentials, path)
    assert done.rc == 0, done.stderr
    status, body = json.loads(done.stdout)
    return status, body


class TestService(WebService):
    name = "tensorboard"
    password = PASSWORD
    process = "tensorboard_server.py"
    port = 6006

    def answers(self, host: Any) -> bool:
        return ask(host, f"lab:{PASSWORD}", "/data/environment")[0] == 200

    def test_it_opens_one_port_on_loopback_alone(self, host: Any) -> None:
        pid = self.main_pid(host)
        listening = [line.split()[3] for line in host.check_output("ss -Htlnp").splitlines() if f"pid={pid}," in line or ":6006" in line]
        assert listening == ["127.0.0.1:6006", "[::1]:6006"]
        assert host.check_output("sh -c 'cat /proc/%s/task/*/children'", pid).strip() == ""


@pytest.mark.parametrize(
    "credentials, path",
    [
        ("", "/"),
        ("", "/data/environment"),
        ("", "/index.js"),
        ("", "/data/plugin/scalars/tags"),
        ("lab:", "/data/runs"),
        ("lab:wrong", "/data/runs"),
        (f"root:{PASSWORD}", "/data/runs"),
        (f"lab:{PASSWORD.lower()}", "/data/runs"),
    ],
)
def test_nobody_else_gets_anything(host: Any, credentials: str, path: str) -> None:
    status, challenge = ask(host, credentials, path)
    assert status == 401
    assert challenge.startswith("Basic ")


def test_who_knows_the_password_sees_what_anybody_logged(host: Any) -> None:
    host.check_output("runuser -u nobody -- %s -c %s", PYTHON, WRITE)
    deadline = time.monotonic() + 60
    while "molecule" not in (answer := ask(host, f"lab:{PASSWORD}", "/data/runs"))[1]:
        assert time.monotonic() < deadline, answer
        time.sleep(1)
    status, scalars = ask(host, f"lab:{PASSWORD}", "/data/plugin/scalars/scalars?run=molecule&tag=loss")
    assert status == 200
    assert json.loads(scalars)[0][1:] == [1, 0.25]


def test_its_watchdog_is_fed_and_restarts_it_when_it_hangs(host: Any) -> None:
    unit = "trainyard-tensorboard.service"

    def until(what: str, before: str, seconds: int) -> None:
        deadline = time.monotonic() + seconds
        while host.check_output("systemctl show -P %s %s", what, unit) in {before, "0"}:
            assert time.monotonic() < deadline, what
            time.sleep(1)

    process = host.check_output("systemctl show -P MainPID %s", unit)
    until("WatchdogTimestampMonotonic", host.check_output("systemctl show -P WatchdogTimestampMonotonic %s", unit), 90)
    assert host.check_output("systemctl show -P MainPID %s", unit) == process
    host.check_output("kill -STOP %s", process)
    until("MainPID", process, 240)
    assert ask(host, f"lab:{PASSWORD}", "/data/environment")[0] == 200


def test_plain_http_is_not_answered(host: Any) -> None:
    assert host.run("python3 -c %s", PLAIN_CLIENT).rc != 0


def test_a_client_that_says_nothing_holds_up_nobody(host: Any) -> None:
    started = time.monotonic()
    done = host.run("python3 -c %s python3 -c %s %s /data/environment", SILENT_CROWD, CLIENT, f"lab:{PASSWORD}")
    assert json.loads(done.stdout)[0] == 200
    assert time.monotonic() - started < 10


def test_everybody_may_log_and_nobody_may_take_anothers_run_away(host: Any) -> None:
    folder = host.file("/srv/tensorboard")
    assert (folder.user, folder.mode) == ("root", 0o1777)
