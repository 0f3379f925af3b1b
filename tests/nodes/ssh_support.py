"""A node whose SSH access is bent in many ways and put straight again between tests."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support import BIN, Play, ansible_playbook
from trainyard.containers import Lab

TASK = "ssh_hardening : Let in keys only, with modern algorithms, and prove that a new login works"
PRISTINE = "etc/ssh etc/default/ssh etc/passwd etc/shadow etc/group etc/gshadow etc/sudoers.d etc/systemd/system home root"


@dataclass
class Access:
    """The node `head` of a lab, and ways to look at its sshd."""

    lab: Lab
    folder: Path

    def root(self, script: str, check: bool = True) -> str:
        """Run a shell script as root in the node, beside SSH."""
        return self.lab.execute("head", ["sh", "-ec", script], check=check)

    def keep(self) -> None:
        """Remember how the node is now."""
        # A host key of 4096 bits takes seconds to make, so most tests find it made; `without_strong_key` takes it away.
        self.root("ssh-keygen -q -t rsa -b 4096 -N '' -f /etc/ssh/ssh_host_rsa_4096_key")
        self.root(f"tar -C / -cpf /var/pristine.tar {PRISTINE}")

    def reset(self) -> None:
        """Put the node back to how it was."""
        self.root(
            "systemctl stop trainyard-ssh-rollback.timer 2>/dev/null || true\n"
            "systemctl stop ssh.socket ssh.service 2>/dev/null\n"
            "rm -rf /etc/ssh/* /etc/sudoers.d/* /etc/systemd/system/* /home/* /root/.ssh /var/lib/trainyard\n"
            "tar -C / -xpf /var/pristine.tar && systemctl daemon-reload\n"
            "systemctl reset-failed ssh.service 2>/dev/null || true\n"
            "systemctl start ssh.service"
        )

    def ssh(self, command: str = "true", user: str = "admin", *options: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Log in anew with the lab's key alone."""
        words = ["ssh", "-F", str(self.lab.ssh_config), "-o", "BatchMode=yes", "-o", "ControlPath=none", "-o", f"User={user}", *options]
        return subprocess.run(
            [*words, "head", command], capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL
        )

    def reload(self) -> None:
        """Reload sshd and wait until it listens again."""
        self.root("touch /run/before; systemctl reload ssh.service; until [ /run/sshd.pid -nt /run/before ]; do sleep 0.05; done")

    def without_strong_key(self) -> None:
        """Make the node what it was before its first hardening."""
        self.root("rm /etc/ssh/ssh_host_rsa_4096_key*")

    def lets_in(self, user: str = "admin", *options: str) -> bool:
        """Say whether a new login works."""
        return self.ssh("true", user, *options).returncode == 0

    def lets_in_by_password(self, user: str, password: str) -> bool:
        """Say whether a new login with a password works."""
        words = ["sshpass", "-e", "ssh", "-F", str(self.lab.ssh_config), "-o", "ControlPath=none", "-o", "PubkeyAuthentication=no"]
        done = subprocess.run(
            [*words, "-o", f"User={user}", "head", "true"],
            env={**os.environ, "SSHPASS": password},
            capture_output=True,
            timeout=30,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return done.returncode == 0

    def offered_methods(self, user: str = "admin") -> str:
        """Return the ways to log in that the live daemon offers."""
        done = self.ssh("true", user, "-o", "PreferredAuthentications=none", "-o", "PubkeyAuthentication=no")
        return done.stderr.rpartition("(")[2].partition(")")[0]

    def effective(self, keyword: str, user: str = "") -> list[str]:
        """Return what `sshd -T` says of a keyword."""
        who = f"-C user={user},host=,addr=192.0.2.1,laddr=192.0.2.2,lport=22,rdomain=" if user else ""
        return [
            line.partition(" ")[2] for line in self.root(f"/usr/sbin/sshd -T {who}").splitlines() if line.startswith(keyword.lower() + " ")
        ]

    def fingerprint(self) -> str:
        """Return what names every file of sshd's configuration with its content and mode."""
        return self.root(
            "cd /etc/ssh && find . -type f | sort | xargs -d '\\n' sha256sum && find . | sort | xargs -d '\\n' stat -c '%n %a %U'"
        )

    def inventory(self, variables: Mapping[str, Any]) -> Path:
        """Write an inventory of the node."""
        path = self.folder / "hosts.yml"
        every = {"ansible_user": "admin", "ansible_ssh_common_args": f"-F {self.lab.ssh_config}", **variables}
        path.write_text(yaml.safe_dump({"all": {"hosts": {"head": {}}, "vars": every}}))
        return path

    def playbook(self) -> Path:
        """Write the play."""
        path = self.folder / "play.yml"
        path.write_text(yaml.safe_dump([{"hosts": "all", "become": True, "gather_facts": False, "roles": ["ssh_hardening"]}]))
        return path

    def harden(self, *words: str, environment: Mapping[str, str] | None = None, **variables: Any) -> Play:
        """Run the role over SSH."""
        return ansible_playbook(self.playbook(), self.inventory(variables), words, environment, timeout=180)

    def play(self, tasks: Sequence[Mapping[str, Any]]) -> Play:
        """Run tasks as root over SSH."""
        path = self.folder / "tasks.yml"
        path.write_text(yaml.safe_dump([{"hosts": "all", "become": True, "gather_facts": False, "tasks": list(tasks)}]))
        return ansible_playbook(path, self.inventory({}), timeout=180)

    def result(self, play: Play) -> Mapping[str, Any]:
        """Return what the role's task said."""
        return play.results[TASK, "head"]

    def audit(self, *words: str) -> Any:
        """Run ssh-audit against the live daemon, and return what it found."""
        command = [str(BIN / "ssh-audit"), "-jj", "--skip-rate-test", *words, self.lab.address("head")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
        return json.loads(done.stdout)
