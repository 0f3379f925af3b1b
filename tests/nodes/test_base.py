"""The role base by its playbook on a bare node: what check mode says of it, users and keys, a mirror behind the lab's own authority."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.faults import state
from tests.support import Play, ansible_playbook, inventory_of
from trainyard.containers import Lab
from trainyard.paths import REPOSITORY

pytestmark = pytest.mark.nodes

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJrvGRH1a3gwGQ+tT1L2yusnNqXqvFQuduzeYBZqU5TE"
PORT = 8443
# Stands in for a campus mirror that is reached by TLS: it hands on what the system's own source has.
RELAY = f"""
import http.server, ssl, sys, urllib.error, urllib.request
class Mirror(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            with urllib.request.urlopen(sys.argv[1] + self.path) as found:
                status, content = 200, found.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
    def log_message(self, *words): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", {PORT}), Mirror)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tmp/mirror.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def authority(node: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of one's own, for the mirror that answers with it."""
    folder = tmp_path_factory.mktemp("authority")
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*words.split(), "-keyout", "key.pem", "-out", "campus.pem"], cwd=folder, check=True, capture_output=True)
    both = (folder / "key.pem").read_text() + (folder / "campus.pem").read_text()
    url = next(word for word in node.execute("head", ["cat", "/etc/apt/sources.list"]).split() if word.startswith("http"))
    origin = "/".join(url.split("/")[:3])
    node.execute("head", ["sh", "-c", f"cat >/tmp/mirror.pem <<'END'\n{both}END\ncat >/tmp/mirror.py <<'END'\n{RELAY}END\n"])
    node.execute("head", ["sh", "-c", f"setsid python3 /tmp/mirror.py {origin} >/tmp/mirror.log 2>&1 &"])
    return folder / "campus.pem"


@pytest.fixture
def variables(node: Lab, authority: Path) -> dict[str, Any]:
    """What an inventory may well say of a node."""
    own = node.key.with_suffix(".pub").read_text().strip()
    return {
        "base_ca_certificates": [str(authority)],
        "base_package_mirror": f"https://127.0.0.1:{PORT}/debian",
        "base_packages": ["toilet"],
        "base_groups": [{"name": "vision"}],
        "base_users": [
            {"name": "alice", "groups": ["vision"], "keys": [f"{KEY} alice@laptop"]},
            {"name": "bob", "state": "present", "keys": [f"{KEY} bob@laptop"]},
            {"name": "admin", "groups": ["vision"], "keys": [own]},
            {"name": "carol", "state": "absent", "keys": [f"{KEY} carol@laptop"]},
        ],
        "framework_env_environments": [],
    }


def run(node: Lab, folder: Path, playbook: str, variables: dict[str, Any], *words: str) -> Play:
    """Run one of the playbooks as it is."""
    return ansible_playbook(REPOSITORY / playbook, inventory_of(node, folder, variables), words, timeout=900)


def test_check_mode_on_a_bare_node_says_what_would_be_and_does_nothing(node: Lab, tmp_path: Path, variables: dict[str, Any]) -> None:
    before = state.of(node, "head")
    checked = run(node, tmp_path, "site.yml", variables, "--check", "--diff")
    assert checked.status == 0, checked.failures() or checked.text[-3000:]
    keys = checked.results["base : Let the lab's users in with their keys", "head"]["results"]
    assert {each["item"]["name"]: each["changed"] for each in keys} == {"alice": True, "bob": True, "admin": False}
    users = checked.results["base : Have the lab's users", "head"]["results"]
    assert {each["item"]["name"]: each["changed"] for each in users} == {"alice": True, "bob": True, "admin": True, "carol": False}
    changed = [line for line in state.differences(before, state.of(node, "head")) if "/home/admin/." not in line]
    assert changed == [], "but for Ansible's own folder and sudo's note"


def test_it_becomes_so_and_stays_so(node: Lab, tmp_path: Path, variables: dict[str, Any]) -> None:
    done = run(node, tmp_path, "playbooks/base.yml", variables)
    assert done.status == 0, done.failures() or done.text[-3000:]
    for user in ("alice", "bob"):
        assert node.execute("head", ["cat", f"/home/{user}/.ssh/authorized_keys"]).strip() == f"{KEY} {user}@laptop"
        assert node.execute("head", ["stat", "-c", "%U %a", f"/home/{user}/.ssh/authorized_keys"]).strip() == f"{user} 600"
        assert node.execute("head", ["stat", "-c", "%U %a", f"/home/{user}"]).strip() == f"{user} 750"
    assert node.execute("head", ["getent", "group", "vision"]).strip().split(":")[3] == "alice,admin"
    assert "carol" not in node.execute("head", ["cat", "/etc/passwd"])
    again = run(node, tmp_path, "playbooks/base.yml", variables)
    assert (again.status, again.changed) == (0, {"head": 0})
    checked = run(node, tmp_path, "playbooks/base.yml", variables, "--check")
    assert (checked.status, checked.changed) == (0, {"head": 0})


def modes(node: Lab) -> list[str]:
    return node.execute("head", ["stat", "-c", "%a", "/home/admin", "/home/alice", "/home/bob"]).split()


def test_older_homes_are_reported_and_those_of_a_killed_run_are_closed(node: Lab, tmp_path: Path, variables: dict[str, Any]) -> None:
    # bob opened his himself. The run that made alice's was killed before it closed hers, on a system whose own HOME_MODE is 0755.
    note = "echo '[\"alice\"]' >/var/lib/trainyard/new-homes"
    node.execute("head", ["sh", "-c", f"chmod 0755 /home/bob /home/alice; {note}"])
    (admin, *_others) = modes(node)
    done = run(node, tmp_path, "playbooks/base.yml", variables)
    assert (done.status, done.changed) == (0, {"head": 1}), done.failures()
    assert modes(node) == [admin, "750", "755"]
    (warned,) = done.results["base : Check the modes of the homes", "head"]["warnings"]
    assert "/home/bob of bob (0755)" in warned
    assert "/home/alice" not in warned
    node.execute("head", ["sh", "-c", "test ! -e /var/lib/trainyard/new-homes; chmod 0750 /home/bob"])
    again = run(node, tmp_path, "playbooks/base.yml", variables)
    assert (again.status, again.changed) == (0, {"head": 0})


def test_a_home_that_is_made_again_is_new(node: Lab, tmp_path: Path, variables: dict[str, Any]) -> None:
    node.execute("head", ["rm", "-r", "/home/bob"])
    done = run(node, tmp_path, "playbooks/base.yml", variables)
    assert done.status == 0, done.failures()
    assert modes(node)[2] == "750"
    other = {**variables, "base_home_mode": "0711", "base_users": [*variables["base_users"], {"name": "dan", "keys": [f"{KEY} dan"]}]}
    done = run(node, tmp_path, "playbooks/base.yml", other)
    assert done.status == 0, done.failures()
    assert node.execute("head", ["stat", "-c", "%a", "/home/dan"]).strip() == "711"
    refused = run(node, tmp_path, "playbooks/base.yml", {**variables, "base_home_mode": "0777"})
    assert "base_home_mode: '0777' would let others write into homes" in refused.failures()


def test_a_mirror_that_the_labs_own_authority_vouches_for_is_trusted_from_the_first(node: Lab) -> None:
    asked = node.execute("head", ["apt-get", "-qq", "--print-uris", "download", "toilet"])
    assert f"https://127.0.0.1:{PORT}/debian/" in asked
    assert node.execute("head", ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}", "toilet"]).startswith("ii")
