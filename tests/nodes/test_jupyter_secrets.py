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

from tests.support import BIN, Play, ansible_playbook, inventory_of, play
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
    named = {name if name == "trainyard_state" else f"{role}_{name}": value for name, value in variables.items()}
    inventory = inventory_of(node, folder, named)
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
        ("jupyter", {"password": "{{ vault_of_nobody }}"}, "'vault_of_nobody' is undefined"),
        ("jupyter", {"password": "Kanarie"}, "jupyter_password is too weak: it has fewer than 12 characters."),
        ("tensorboard", {"listen": "0.0.0.0", "password": "Kanarie"}, "tensorboard_password is too weak: it has fewer than 12 characters."),
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


def steps(node: Lab, folder: Path, module: str, common: dict[str, Any], plan: dict[str, dict[str, Any] | str]) -> dict[str, Any]:
    """Use a module again and again in one run: name -> its options, or what is done to the node in between; return name -> result."""
    tasks: list[dict[str, Any]] = []
    for name, what in plan.items():
        action = {"ansible.builtin.command": {"argv": ["sh", "-c", what]}} if isinstance(what, str) else {module: {**common, **what}}
        checked = {"check_mode": True} if name.startswith("look") else {}
        refused = {"failed_when": False} if name.startswith("refused") else {}
        tasks.append({"name": name, **action, **checked, **refused})
    done = play(node, folder, tasks)
    assert done.status == 0, done.failures()
    return {name: done.results[name, "head"] for name in plan}


def test_a_certificate_is_made_once_and_made_again_when_it_has_to_be(node: Lab, tmp_path: Path, pair: tuple[Path, Path]) -> None:
    path = "/etc/trainyard/try/tls.pem"
    given = {"certificate": pair[0].read_text(), "private_key": pair[1].read_text()}
    plan: dict[str, dict[str, Any] | str] = {
        "look": {},
        "made": {},
        "made already": {},
        "open": f"chmod 644 {path}",
        "closed": {},
        "damage": f"truncate --size=300 {path}",
        "healed": {},
        "named": {"names": ["gpu1", "192.0.2.1"]},
        "named already": {"names": ["gpu1"], "days": 30},
        "renewed": {"names": ["gpu1"], "renew_days": 900},
        "given": given,
        "given already": given,
        "refused": {**given, "private_key": "-----BEGIN PRIVATE KEY-----"},
        "given still": given,
        "given up": {},
    }
    done = steps(node, tmp_path, "trainyard.core.tls_certificate", {"path": path}, plan)
    assert {name: result["reason"] for name, result in done.items() if "reason" in result} == {
        "look": "there is none",
        "made": "there is none",
        "made already": "",
        "closed": "others than root may read it",
        "healed": done["healed"]["reason"],
        "named": "it does not name 192.0.2.1, gpu1",
        "named already": "",
        "renewed": "it expires within 900 days",
        "given": "it is not the one given",
        "given already": "",
        "given still": "",
        "given up": "the one there is not self-made",
    }
    assert all(result["changed"] == bool(result["reason"]) for result in done.values() if "reason" in result)
    assert done["look"]["certificate"] == ""
    assert done["closed"]["fingerprint"] == done["made"]["fingerprint"] != done["healed"]["fingerprint"]
    assert "certificate and private_key cannot be used: " in done["refused"]["msg"]


@pytest.mark.usefixtures("argon2")
def test_a_hash_follows_its_password(node: Lab, tmp_path: Path) -> None:
    path = "/etc/trainyard/try/password"
    first, second = {"password": "first-word"}, {"password": "second-word"}
    made = "python3 -c 'import argon2; print(argon2.PasswordHasher(time_cost={}, memory_cost={}).hash(\"second-word\"))' >" + path
    plan: dict[str, dict[str, Any] | str] = {
        "kept": first,
        "kept already": first,
        "look": second,
        "kept still": first,
        "changed": second,
        "changed already": second,
        "damage": f"echo '$argon2id$rubbish' >{path}",
        "healed": second,
        "healed already": second,
        "weaker": made.format(1, 19456),
        "made stronger": second,
        "stronger": made.format(3, 65536),
        "left strong": second,
    }
    done = steps(node, tmp_path, "trainyard.core.password_hash_file", {"path": path, "python": "/usr/bin/python3"}, plan)
    wrong = "the hash there is not that of the password, or weaker than today's"
    assert {name: result["reason"] for name, result in done.items() if "reason" in result} == {
        "kept": "there is none",
        "kept already": "",
        "look": wrong,
        "kept still": "",
        "changed": wrong,
        "changed already": "",
        "healed": wrong,
        "healed already": "",
        "made stronger": wrong,
        "left strong": "",
    }


def test_a_service_that_crashed_and_waits_to_be_started_again_is_stopped(node: Lab, tmp_path: Path) -> None:
    crash = "printf '[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=1h\n' >/run/systemd/system/crash.service"
    state = "systemctl show --property=SubState crash.service"
    plan: dict[str, dict[str, Any] | str] = {
        "crashed": f"{crash}; systemctl start crash.service; sleep 1; {state}",
        "look": {},
        "stopped": {},
        "stopped already": {},
        "state": state,
    }
    common = {"name": "crash.service", "enabled": True, "state": "stopped"}
    done = steps(node, tmp_path, "trainyard.core.service_current", common, plan)
    assert done["crashed"]["stdout"] == "SubState=auto-restart"
    assert [done[name]["actions"] for name in ("look", "stopped", "stopped already")] == [["stop"], ["stop"], []]
    assert done["state"]["stdout"] == "SubState=dead"


@pytest.mark.usefixtures("argon2")
def test_the_undo_takes_off_what_was_put_there_and_only_that(node: Lab, tmp_path: Path) -> None:
    run(node, tmp_path, "jupyter")  # all of it but a server that runs
    other = "/usr/local/share/jupyter/kernels/other"
    node.execute("head", ["sh", "-c", f"mkdir -p {other}; echo '{{}}' >{other}/kernel.json; echo precious >/srv/jupyter/work.ipynb"])
    undone = run(node, tmp_path, "jupyter", (), trainyard_state="absent")
    assert undone.status == 0, undone.failures()
    left = node.execute("head", ["find", "/etc/trainyard/jupyter", "/etc/systemd/system/trainyard-jupyter.service"], check=False)
    assert left.count("No such file") == 2
    assert node.execute("head", ["getent", "passwd", "jupyter"], check=False) == ""
    assert node.execute("head", ["cat", "/srv/jupyter/work.ipynb"]) == "precious\n"
    assert node.execute("head", ["stat", "-c", "%U %a", "/srv/jupyter"]) == "root 700\n"
    assert node.execute("head", ["cat", f"{other}/kernel.json"]) == "{}\n"
    assert run(node, tmp_path, "jupyter", (), trainyard_state="absent").changed == {"head": 0}


@pytest.mark.usefixtures("argon2")
def test_an_account_that_was_there_is_used_and_left_as_it_was(node: Lab, tmp_path: Path) -> None:
    before = node.execute("head", ["getent", "passwd", "admin"])
    run(node, tmp_path, "jupyter", (), user="admin")
    assert "WorkingDirectory=/home/admin" in node.execute("head", ["cat", "/etc/systemd/system/trainyard-jupyter.service"])
    run(node, tmp_path, "jupyter", (), user="admin", trainyard_state="absent")
    assert node.execute("head", ["getent", "passwd", "admin"]) == before
    assert node.execute("head", ["stat", "-c", "%U", "/home/admin"]) == "admin\n"


def test_nothing_is_left_behind_on_the_node(node: Lab) -> None:
    assert (
        node.execute("head", ["grep", "-rlaF", CANARY, "/etc", "/var", "/tmp", "/run", "/root", "/home", "/srv", "/usr/local"], check=False)
        == ""
    )
    journal = node.execute("head", ["journalctl", "--no-pager"])
    assert "ansible" in journal.lower()
    assert CANARY not in journal
    assert CANARY not in node.execute("head", ["sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ"], check=False)
