"""A user of base_users whom sshd would refuse is refused before anything changes; one that is accepted gets in."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.nodes.ssh_support import Access
from tests.support import Play, ansible_playbook
from trainyard.containers import Lab
from trainyard.paths import REPOSITORY

pytestmark = pytest.mark.nodes

SITE = "/etc/ssh/sshd_config.d/10-site.conf"
MADE = "useradd -m -s /bin/bash bob; "
OWN_KEYS = (
    "mkdir -p /home/bob/.ssh; cp /root/bob.pub /home/bob/.ssh/authorized_keys; chown -R bob: /home/bob/.ssh; chmod 700 /home/bob/.ssh; "
)


@dataclass
class Users:
    """The node, and keys of bob."""

    access: Access
    keys: Path

    def base(self, *words: str, playbook: str = "base", **bob: Any) -> Play:
        """Run a playbook with the user bob."""
        variables = {
            "base_packages": [],
            "base_groups": [{"name": "lab"}],
            "framework_env_environments": [],
            "base_users": [{"name": "bob", "keys": [self.public("ed25519")], **bob}],
        }
        return ansible_playbook(REPOSITORY / f"playbooks/{playbook}.yml", self.access.inventory(variables), words, timeout=300)

    def public(self, kind: str) -> str:
        """Return a public key."""
        return (self.keys / f"{kind}.pub").read_text().strip()

    def gets_in(self, kind: str = "ed25519") -> bool:
        """Say whether bob gets in with a key."""
        return self.access.lets_in("bob", "-o", f"IdentityFile={self.keys / kind}")


@pytest.fixture(scope="module")
def kept(node: Lab, tmp_path_factory: pytest.TempPathFactory) -> Access:
    """The node as it booted, remembered."""
    found = Access(node, tmp_path_factory.mktemp("access"))
    found.keep()
    return found


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of bob: a good one and a weak one."""
    folder = tmp_path_factory.mktemp("keys")
    for name, words in {"ed25519": "-t ed25519", "rsa": "-t rsa -b 1024"}.items():
        subprocess.run(["ssh-keygen", "-q", *words.split(), "-N", "", "-C", "bob", "-f", str(folder / name)], check=True)
    return folder


@pytest.fixture
def users(kept: Access, keys: Path, tmp_path: Path) -> Iterator[Users]:
    """The node as it booted."""
    found = Users(Access(kept.lab, tmp_path), keys)
    kept.root(f"printf '%s\\n%s\\n' '{found.public('ed25519')}' '{found.public('rsa')}' >/root/bob.pub")
    yield found
    kept.reset()


# name -> what the node is, what the inventory says of bob, which key, and the reason.
CASES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "shell": ("", {"shell": "/usr/bin/fish"}, "ed25519", "the shell /usr/bin/fish does not exist"),
    "weak key": (f"echo RequiredRSASize 2048 >{SITE}", {}, "rsa", "entry 1 of keys is an RSA key of 1024 bits, and sshd refuses"),
    "AllowGroups": (f"echo AllowGroups sudo >{SITE}", {"groups": ["lab"]}, "ed25519", f"AllowGroups (sudo; {SITE} line 1) lists none of"),
    "DenyUsers": (f"echo DenyUsers bob >{SITE}", {}, "ed25519", f"DenyUsers (bob; {SITE} line 1) lists the user."),
    "AuthorizedKeysFile": (
        "mkdir -p /etc/ssh/keys; install -m 644 /home/admin/.ssh/authorized_keys /etc/ssh/keys/admin; "
        f"echo AuthorizedKeysFile /etc/ssh/keys/%u >{SITE}",
        {},
        "ed25519",
        f"AuthorizedKeysFile is '/etc/ssh/keys/%u' ({SITE} line 1)",
    ),
    "expired": (MADE + "chage -E 2020-01-01 bob", {}, "ed25519", "the account expired on 2020-01-01."),
    "password due": (MADE + "chage -d 0 bob", {}, "ed25519", "its password has expired"),
    "home open to all": (
        MADE + "chmod 777 /home/bob",
        {},
        "ed25519",
        "StrictModes refuses the keys since others may write to /home/bob (mode 0777)",
    ),
    "key file open to all": (
        MADE + OWN_KEYS + "chmod -R 777 /home/bob/.ssh",
        {},
        "ed25519",
        "StrictModes refuses the keys since others may write to /home/bob/.ssh/authorized_keys (mode 0777), /home/bob/.ssh (mode 0777)",
    ),
    "home of another": (
        MADE + "chown admin /home/bob",
        {},
        "ed25519",
        "StrictModes refuses the keys since others may write to /home/bob (it belongs to the user number",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_who_would_be_refused_by_sshd_is_refused_before_anything_changes(users: Users, case: str) -> None:
    prepare, bob, kind, message = CASES[case]
    users.access.root(prepare or "true")
    users.access.reload()
    seen = "cat /etc/passwd /etc/shadow /etc/group; stat -c '%n %U %G %a' /home/* /opt /opt/* /srv /srv/* 2>/dev/null || true"
    before = users.access.root(seen)
    done = users.base(**bob, keys=[users.public(kind)])
    assert done.status != 0, done.text
    assert f"base_users: sshd on this node would refuse the user 'bob': {message}" in done.failures()
    assert "base_check_logins: false" in done.failures()
    assert users.access.root(seen) == before
    # And that is true: made by hand, he is refused.
    shell, groups = bob.get("shell", "/bin/bash"), ",".join(bob.get("groups", []))
    users.access.root(f"getent group lab >/dev/null || groupadd lab; id bob >/dev/null 2>&1 || useradd -m -s {shell} -G '{groups}' bob")
    if ".ssh" not in prepare:
        users.access.root(OWN_KEYS)
    assert not users.gets_in(kind)


def test_who_is_accepted_gets_in_under_the_hardening_too(users: Users) -> None:
    users.access.root(f"printf 'AllowGroups sudo lab\\nPasswordAuthentication yes\\n' >{SITE}")
    done = users.base(groups=["lab"])
    assert done.status == 0, done.failures() or done.text
    assert users.base(groups=["lab"]).changed == {"head": 0}
    assert users.base(playbook="hardening", groups=["lab"]).status == 0
    assert users.gets_in()
    assert users.base(groups=["lab"]).changed == {"head": 0}


def test_a_group_of_the_users_own_may_write_to_her_home(users: Users) -> None:
    users.access.root(MADE + OWN_KEYS + "chmod g+w /home/bob /home/bob/.ssh /home/bob/.ssh/authorized_keys")
    assert users.gets_in()  # Debian's sshd allows it
    done = users.base()
    assert done.status == 0, done.failures() or done.text
    users.access.root("usermod -aG bob admin")
    assert not users.gets_in()
    assert "/home/bob (mode 0775)" in users.base().failures()


def test_a_shell_of_a_package_that_is_installed_before_is_fine(users: Users) -> None:
    done = users.base("-e", '{"base_packages": ["dash"]}', shell="/usr/bin/dash")
    assert done.status == 0, done.failures() or done.text
    assert users.gets_in()
    # A package's name promised a shell that it does not have: said once it is installed.
    users.access.root("userdel -r bob 2>/dev/null")
    lied = users.base("-e", '{"base_packages": ["dash"]}', shell="/opt/none/dash")
    assert "the shell /opt/none/dash does not exist" in lied.failures()


def test_nodes_to_which_users_are_not_meant_to_log_in_say_so(users: Users) -> None:
    users.access.root(f"echo AllowUsers admin >{SITE}")
    users.access.reload()
    done = users.base("-e", '{"base_check_logins": false}')
    assert done.status == 0, done.failures() or done.text
    assert not users.gets_in()


def test_the_deviation_of_the_inventory_is_asked_not_only_the_files(users: Users) -> None:
    done = users.base("-e", '{"ssh_hardening_config": {"AllowUsers": ["admin"]}}')
    assert "AllowUsers (admin; ssh_hardening_config) lists other users only. Add bob there." in done.failures()
    assert users.access.root("id bob 2>&1", check=False).startswith("id:")
    passwords = users.base("-e", '{"ssh_hardening_enabled": false}', keys=[users.public("rsa")])
    assert passwords.status == 0, passwords.failures() or passwords.text
