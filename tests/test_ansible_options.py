"""Ansible's options on the command line tool: every program of Ansible that a verb runs knows them."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from trainyard import ansible_options, cli, runner
from trainyard.errors import UsageError
from trainyard.paths import REPOSITORY

BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": f"{REPOSITORY}/src:{REPOSITORY}/collections"}


def parsed(*words: str) -> argparse.Namespace:
    return cli.parser().parse_args(["apply", "-i", "inventory/lab", *words])


def test_each_option_reaches_ansible_and_is_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").touch()
    (tmp_path / "pass").touch()
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    tags = ["-t", "base", "--tags", "plan", "--skip-tags", "x"]
    words = ["-vv", "-u", "eve", "--private-key", "key", "--become-password-file", "pass", "--vault-password-file", "pass", "-f", "7"]
    with ansible_options.in_force(parsed(*words, "--vault-id", "lab@pass", *tags, "-e", "a=b c")):
        assert {name: value for name, value in os.environ.items() if before.get(name) != value} == {
            "ANSIBLE_VERBOSITY": "2",
            "ANSIBLE_REMOTE_USER": "eve",
            "ANSIBLE_PRIVATE_KEY_FILE": str(tmp_path / "key"),
            "ANSIBLE_BECOME_PASSWORD_FILE": str(tmp_path / "pass"),
            "ANSIBLE_VAULT_PASSWORD_FILE": str(tmp_path / "pass"),
            "ANSIBLE_VAULT_IDENTITY_LIST": f"lab@{tmp_path / 'pass'}",
            "ANSIBLE_FORKS": "7",
            "ANSIBLE_RUN_TAGS": "base,plan",
            "ANSIBLE_SKIP_TAGS": "x",
        }
        assert runner.extra_words() == ["--extra-vars", "a=b c"]
    assert (dict(os.environ), runner.extra_words()) == (before, [])


@pytest.mark.parametrize("verb", ["apply", "verify", "plan", "add-node", "remove-node", "drain", "resume", "reboot"])
def test_every_verb_that_logs_in_takes_them(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([verb, "--help"])
    text = capsys.readouterr().out
    for option in (
        "-vvv",
        "--ask-become-pass",
        "--ask-vault-pass",
        "--vault-password-file",
        "--vault-id",
        "--private-key",
        "--user",
        "--forks",
        "-e VARS",
    ):
        assert option in text


@pytest.mark.parametrize("option", ["--ask-become-pass", "-k", "-J", "--vault-id=lab@prompt"])
def test_without_a_terminal_a_prompt_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match="no terminal to ask on"), ansible_options.in_force(parsed(option)):
        pass


def test_a_file_that_is_missing_is_refused() -> None:
    with (
        pytest.raises(UsageError, match="--vault-password-file: there is no file nowhere"),
        ansible_options.in_force(parsed("--vault-password-file", "nowhere")),
    ):
        pass


def test_a_vaults_password_is_asked_for_once_and_opens_the_inventory(tmp_path: Path) -> None:
    """`plan` reads the inventory twice, by ansible-inventory and by a playbook; nothing of the password is left on disk or shown."""
    (tmp_path / "pass").write_text("Vault-Canary-77\n")
    (tmp_path / "hosts.yml").write_text("all: {hosts: {one: {ansible_connection: local, plan_os: debian-12}}}\n")
    (tmp_path / "group_vars").mkdir()
    secret = tmp_path / "group_vars" / "all.yml"
    secret.write_text("plan_environments: [pytroch]\n")
    subprocess.run([BIN / "ansible-vault", "encrypt", "--vault-password-file", tmp_path / "pass", secret], check=True, capture_output=True)
    (tmp_path / "pass").unlink()
    child = pexpect.spawn(
        sys.executable,
        ["-m", "trainyard", "plan", "-i", str(tmp_path), "--ask-vault-pass", "--offline"],
        cwd=str(REPOSITORY),
        env=ENVIRONMENT,
        encoding="utf-8",
        timeout=60,
    )
    child.expect("Vault password: ")
    child.sendline("Vault-Canary-77")
    text = child.read()
    assert "pytroch" in text, text  # what was encrypted was read
    assert "Canary" not in text
    assert "Vault password" not in text
