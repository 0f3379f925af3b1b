"""The script that a newcomer runs first, on a machine with Python and nothing else: it finishes, however often it is ended."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from trainyard.containers import Lab
from trainyard.paths import REPOSITORY

pytestmark = pytest.mark.nodes

BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
RUN = f"cd /root/clone && env PIP_CERT={BUNDLE} SSL_CERT_FILE={BUNDLE} ./trainyard"
ENDED = f"""
setsid sh -c '{RUN} --help' >/tmp/log 2>&1 & group=$!
for i in $(seq 600); do CAUGHT && break; sleep 0.05; done
CAUGHT || {{ echo not caught; cat /tmp/log; }}
kill -KILL -- -$group; pkill -KILL -x dpkg; wait; true
"""


@pytest.fixture(scope="module")
def machine(node: Lab) -> Lab:
    """A bare machine with a clone of this repository."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True).stdout
    clone = subprocess.run(["tar", "--null", "-cf", "-", "-T", "-"], cwd=REPOSITORY, input=tracked, check=True, capture_output=True).stdout
    node.execute("head", ["mkdir", "/root/clone"])
    container = f"trainyard-{node.name}-head"
    subprocess.run(["docker", "exec", "-i", container, "tar", "-xf", "-", "-C", "/root/clone"], input=clone, check=True)
    for path in Path("/usr/local/share/ca-certificates").glob("*.crt"):  # the registries may be behind a proxy that re-signs
        subprocess.run(["docker", "cp", "-q", str(path), f"{container}:/usr/local/share/ca-certificates/"], check=True)
    node.execute("head", ["sh", "-c", "apt-get update -q; apt-get install -qy ca-certificates; update-ca-certificates"])
    assert "No module named" in node.execute("head", ["sh", "-c", "python3 -c 'import ensurepip' 2>&1"], check=False)
    return node


@pytest.mark.parametrize(
    "caught",
    [
        "dpkg-query -W -f '${db:Status-Abbrev}\n' | grep -q '^i[UF]'",  # while dpkg unpacks or configures
        "test -d /root/clone/.venv/lib && test ! -e /root/clone/.venv/bin/uv",  # while the environment is made
        "test -e /root/clone/.venv/bin/uv && test ! -e /root/clone/.venv/.made-from",  # while it is filled
    ],
    ids=["packages", "environment", "requirements"],
)
def test_ended_in_the_middle(machine: Lab, caught: str) -> None:
    said = machine.execute("head", ["bash", "-c", ENDED.replace("CAUGHT", f"( {caught} )")])
    assert "not caught" not in said, said
    assert not machine.execute("head", ["sh", "-c", "ls /root/clone/.venv/.made-from 2>/dev/null"], check=False)


def test_it_finishes_and_is_quick_from_then_on(machine: Lab) -> None:
    assert "usage: trainyard" in machine.execute("head", ["sh", "-c", f"{RUN} --help 2>&1"])
    assert machine.execute("head", ["dpkg", "--audit"]) == ""
    again = machine.execute("head", ["sh", "-c", f"{RUN} --help 2>&1"])
    assert "making .venv" not in again
    assert "installing" not in again


def test_a_program_of_a_package_that_is_half_there_is_not_taken_for_installed(machine: Lab) -> None:
    machine.execute("head", ["sh", "-c", "cd /tmp && apt-get -qq download sl && dpkg --unpack sl_*.deb"])
    install = "from trainyard.system import install; install({'/usr/games/sl': 'sl'})"
    machine.execute("head", ["sh", "-c", f'cd /root/clone && PYTHONPATH=src:collections python3 -c "{install}"'])
    assert machine.execute("head", ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}", "sl"]).startswith("ii")
