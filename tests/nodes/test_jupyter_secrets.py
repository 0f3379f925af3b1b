"""Passwords and keys of the web services, looked for in everything that a run prints and leaves behind.

The environment is the node's own /usr with Debian's argon2, which is enough to hash a password and too little to start
JupyterLab: runs end in a failing task, after the secrets were used.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import BIN, Play, ansible_playbook, inventory_of
from trainyard.containers import Lab

pytestmark = pytest.mark.nodes

CANARY = "Kanarienvogel-4711-im-Bergwerk"
ROLES = ("jupyter", "tensorboard")
LOUD = ("-vvv", "--diff")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key, as a computing centre gives them."""
    folder = tmp_path_factory.mktemp("tls")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=head"]
    subprocess.run([*words, "-keyout", folder / "head.key", "-out", folder / "head.pem"], check=True, capture_output=True)
    return folder / "head.pem", folder / "head.key"


@pytest.fixture(scope="module")
def argon2(node: Lab) -> None:
    node.execute(
        "head", ["sh", "-c", "apt-get -qq update && apt-get -qq -y --no-install-recommends install python3-argon2 python-is-python3"]
    )


def run(node: Lab, folder: Path, role: str, words: tuple[str, ...] = LOUD, strategy: str = "", **wishes: Any) -> Play:
    """Apply one of the two roles; ``wishes`` are its variables without their prefix."""
    variables = {"password": CANARY, "environment": "/usr", **wishes}
    book = folder / "play.yml"
    book.write_text(
        yaml.safe_dump([{"hosts": "all", "become": True, "gather_facts": True, "gather_subset": ["!all", "network"], "roles": [role]}])
    )
    inventory = inventory_of(node, folder, {f"{role}_{name}": value for name, value in variables.items()})
    return ansible_playbook(book, inventory, words, {"ANSIBLE_STRATEGY": strategy} if strategy else {})


def assert_silent(done: Play, *secrets: str) -> None:
    """Look for the secrets in all that was printed."""
    assert "TASK" in done.text or '"task"' in done.text
    for secret in (CANARY, *secrets):
        lines = [line for line in done.text.splitlines() if secret in line]
        assert lines == []


@pytest.mark.parametrize("role, strategy", [("jupyter", ""), ("tensorboard", ""), ("jupyter", "linear")])
def test_looking_only(node: Lab, tmp_path: Path, pair: tuple[Path, Path], role: str, strategy: str) -> None:
    given = {"tls_certificate": str(pair[0]), "tls_key": str(pair[1])}
    done = run(node, tmp_path, role, (*LOUD, "--check"), strategy, environment="/not/made/yet", **given)
    assert done.status == 0, done.failures()
    assert done.changed["head"] > 0
    assert_silent(done, *pair[1].read_text().splitlines()[1:-1])


@pytest.mark.parametrize("role, strategy", [("jupyter", ""), ("tensorboard", ""), ("jupyter", "linear")])
@pytest.mark.usefixtures("argon2")
def test_a_run_that_fails_after_the_secrets_were_used(node: Lab, tmp_path: Path, pair: tuple[Path, Path], role: str, strategy: str) -> None:
    given = {"tls_certificate": str(pair[0]), "tls_key": str(pair[1])}
    node.execute("head", ["sh", "-c", f"systemctl stop trainyard-{role}; rm -rf /etc/trainyard/{role}"])
    done = run(node, tmp_path, role, LOUD, strategy, **given)
    assert f"trainyard-{role}.service failed" in done.failures()
    assert node.execute("head", ["cat", f"/etc/trainyard/{role}/password"]).startswith("$argon2id$")
    assert_silent(done, *pair[1].read_text().splitlines()[1:-1], node.execute("head", ["cat", f"/etc/trainyard/{role}/password"]).strip())


@pytest.mark.parametrize("role", ROLES)
def test_a_password_and_a_key_from_a_vault(node: Lab, tmp_path: Path, pair: tuple[Path, Path], role: str) -> None:
    (tmp_path / "vault-password").write_text("opens the vault")
    vault = [str(BIN / "ansible-vault"), "{}", "--vault-password-file", str(tmp_path / "vault-password")]
    encrypted = subprocess.run([*vault[:1], "encrypt_string", *vault[2:], CANARY], check=True, capture_output=True, text=True).stdout
    (tmp_path / "head.key").write_bytes(pair[1].read_bytes())
    subprocess.run([*vault[:1], "encrypt", *vault[2:], str(tmp_path / "head.key")], check=True, capture_output=True)
    (tmp_path / "vaulted.yml").write_text(f"{role}_password: {encrypted}")
    words = (*LOUD, "-e", f"@{tmp_path}/vaulted.yml", *vault[2:])
    given = {"tls_certificate": str(pair[0]), "tls_key": str(tmp_path / "head.key"), "listen": "0.0.0.0"}
    done = run(node, tmp_path, role, (*words, "--check"), password="replaced", environment="/not/made/yet", **given)
    assert done.status == 0, done.failures()
    assert_silent(done, *pair[1].read_text().splitlines()[1:-1])


@pytest.mark.parametrize("role", ROLES)
def test_an_environment_that_is_not_there_is_said(node: Lab, tmp_path: Path, role: str) -> None:
    done = run(node, tmp_path, role, environment="/opt/none")
    assert "There is no /opt/none/bin/python. The environment has to be made before the service that lives in it." in done.failures()
    assert_silent(done)


@pytest.mark.parametrize(
    "role, wishes, says",
    [
        ("tensorboard", {"password": [CANARY]}, "tensorboard_password is no text."),
        ("jupyter", {"password": {"secret": CANARY}}, "jupyter_password is no text."),
        ("jupyter", {"password": CANARY + "\n"}, "jupyter_password begins or ends with a space"),
        ("jupyter", {"password": ""}, "jupyter_password is not set."),
        ("jupyter", {"password": "{{ vault_of_nobody }}"}, "'vault_of_nobody' is undefined"),
        ("jupyter", {"listen": "0.0.0.0", "password": "Kanarie"}, "jupyter_password is too weak for jupyter_listen = 0.0.0.0"),
        ("jupyter", {"port": 80}, "jupyter_port is 80"),
        ("jupyter", {"tls_certificate": "/nowhere.pem"}, "jupyter_tls_certificate is set and jupyter_tls_key is not."),
    ],
)
def test_bad_wishes_are_refused_by_name_without_the_secret(node: Lab, tmp_path: Path, role: str, wishes: dict[str, Any], says: str) -> None:
    done = run(node, tmp_path, role, **wishes)
    assert done.status != 0
    assert says in done.failures()
    assert set(done.changed.values()) == {0}
    assert_silent(done, "Kanarie")


def test_a_key_of_another_certificate_is_refused(node: Lab, tmp_path: Path, pair: tuple[Path, Path]) -> None:
    other = tmp_path / "other.key"
    subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-out", other], check=True, capture_output=True)
    done = run(node, tmp_path, "jupyter", tls_certificate=str(pair[0]), tls_key=str(other))
    assert "jupyter_tls_certificate and jupyter_tls_key cannot be used: the key does not belong to the certificate." in done.failures()
    assert_silent(done, *other.read_text().splitlines()[1:-1])


def test_nothing_is_left_behind_on_the_node(node: Lab) -> None:
    assert (
        node.execute("head", ["grep", "-rlaF", CANARY, "/etc", "/var", "/tmp", "/run", "/root", "/home", "/srv", "/usr/local"], check=False)
        == ""
    )
    journal = node.execute("head", ["journalctl", "--no-pager"])
    assert "ansible" in journal.lower()
    assert CANARY not in journal
    assert CANARY not in node.execute("head", ["sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ"], check=False)
