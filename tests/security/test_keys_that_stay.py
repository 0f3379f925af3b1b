"""A key that lets somebody in although the inventory does not list it any more."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from tests.security.conftest import House

pytestmark = pytest.mark.security


def lets_in(house: House, user: str, key: str) -> bool:
    """Say whether somebody's key lets her in as another user."""
    words = [
        "ssh",
        "-F",
        str(house.lab.ssh_config),
        "-o",
        "BatchMode=yes",
        "-o",
        f"User={user}",
        "-o",
        f"IdentityFile={house.folder / key}",
    ]
    return subprocess.run([*words, "head", "true"], check=False, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0


def test_keys_that_the_inventory_does_not_list_go_where_that_is_asked_for(house: House) -> None:
    theirs = shlex.quote((house.folder / "alice.pub").read_text().strip())
    for name in ("authorized_keys", "authorized_keys2"):
        house.user("bob", f"echo {theirs} >> ~/.ssh/{name}")
    assert lets_in(house, "bob", "alice")
    done = house.play("playbooks/base.yml", "--limit", "head", base_users_exclusive_keys=True)
    assert done.status == 0, done.failures() or done.text[-3000:]
    assert not lets_in(house, "bob", "alice")
    assert house.ssh("bob", "id -un").stdout.strip() == "bob"
    assert house.ssh("alice", "id -un").stdout.strip() == "alice"
    assert house.ssh("admin", "id -un").stdout.strip() == "admin"
    again = house.play("playbooks/base.yml", "--limit", "head", base_users_exclusive_keys=True)
    assert again.changed["head"] == 0
