"""An admin whose sudo wants a password, and whose inventory has a vault: `./trainyard apply` asks for both once, on the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from tests.support import BIN, REPORTS, inventory_of
from trainyard.containers import Lab
from trainyard.paths import REPOSITORY

pytestmark = pytest.mark.nodes

SUDO, VAULT = "Sudo-Canary-11", "Vault-Canary-77"


@pytest.fixture(scope="module")
def admin(node: Lab) -> Lab:
    node.execute(
        "head", ["sh", "-ec", f"echo 'admin:{SUDO}' | chpasswd; echo 'admin ALL=(ALL) ALL' >/etc/sudoers.d/admin; mkdir -p /etc/trainyard"]
    )
    return node


def inventory(lab: Lab, folder: Path) -> Path:
    """Write an inventory whose list of packages is in a vault."""
    path = inventory_of(lab, folder)
    (folder / "group_vars").mkdir()
    secret = folder / "group_vars" / "all.yml"
    secret.write_text("base_packages: [less]\nbase_groups: [{name: lab}]\n")
    (folder / "pass").write_text(VAULT)
    subprocess.run([BIN / "ansible-vault", "encrypt", "--vault-password-file", folder / "pass", secret], check=True, capture_output=True)
    (folder / "pass").unlink()
    return path


def apply(path: Path, *words: str) -> pexpect.spawn:
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": f"{REPOSITORY}/src:{REPOSITORY}/collections",
        **REPORTS,
    }
    words = ("-m", "trainyard", "apply", "-i", str(path), "--playbook", "playbooks/base.yml", *words)
    return pexpect.spawn(
        sys.executable, list(words), cwd=str(REPOSITORY), env=environment, encoding="utf-8", timeout=300, dimensions=(40, 160)
    )


def test_both_passwords_are_asked_for_once_and_shown_nowhere(admin: Lab, tmp_path: Path) -> None:
    child = apply(inventory(admin, tmp_path), "-K", "--ask-vault-pass")
    child.expect("BECOME password: ")
    child.sendline(SUDO)
    child.expect("Vault password: ")
    child.sendline(VAULT)
    text = child.read()
    child.close()
    assert child.exitstatus == 0, text[-3000:]
    assert "converged" in text
    assert "Canary" not in text
    assert admin.execute("head", ["getent", "group", "lab"]).startswith("lab:")


def test_a_wrong_sudo_password_says_which_option_helps(admin: Lab, tmp_path: Path) -> None:
    child = apply(inventory(admin, tmp_path), "-K", "-J")
    child.expect("BECOME password: ")
    child.sendline("wrong")
    child.expect("Vault password: ")
    child.sendline(VAULT)
    text = child.read()
    child.close()
    assert child.exitstatus == 1, text[-3000:]
    assert "--ask-become-pass" in text


def test_tags_and_verbosity_reach_ansible(admin: Lab, tmp_path: Path) -> None:
    (tmp_path / "sudo").write_text(SUDO)
    (tmp_path / "vault").write_text(VAULT)
    words = ("--become-password-file", str(tmp_path / "sudo"), "--vault-password-file", str(tmp_path / "vault"), "-v")
    child = apply(inventory(admin, tmp_path), *words, "--skip-tags", "base")
    text = child.read()
    child.close()
    assert child.exitstatus == 0, text[-3000:]
    assert "PLAY RECAP" in text
    assert "Have the packages for everybody" not in text
