"""What users put into their own homes, and what root does there."""

from __future__ import annotations

import pytest

from tests.security.conftest import House

pytestmark = pytest.mark.security

TASK = ("base : Let the lab's users in with their keys", "head")


def test_a_user_gains_and_stops_nothing_by_what_is_in_the_place_of_the_keys(house: House) -> None:
    state = "stat -c '%n %U %G %a' /etc/canary; ls -A /etc/canary"
    house.root("head", "install -d -m 755 /etc/canary")
    before = house.root("head", state)
    keys = {name: house.root("head", f"cat /home/{name}/.ssh/authorized_keys") for name in ("alice", "bob")}
    try:
        assert house.user("bob", "rm -rf .ssh; ln -s /etc/canary .ssh")[0] == 0
        assert house.user("alice", "rm -rf .ssh; mkdir -m 700 .ssh; mkfifo .ssh/authorized_keys")[0] == 0
        done = house.play("playbooks/base.yml", "--limit", "head", "--tags", "base", timeout=200)
        assert done.status == 0, done.failures()
        assert house.root("head", state) == before
        for name in keys:
            assert f"The keys of {name} could not be put into /home/{name}/.ssh/authorized_keys" in str(done.results[TASK])
        for name in keys:
            house.user(name, "rm -rf .ssh")
        done = house.play("playbooks/base.yml", "--limit", "head", "--tags", "base", timeout=200)
        assert done.status == 0, done.failures()
        for name, text in keys.items():
            assert house.root("head", f"cat /home/{name}/.ssh/authorized_keys") == text
            assert house.ssh(name).returncode == 0
    finally:
        house.root("head", "rm -rf /etc/canary")
        for name, text in keys.items():
            house.user(name, f"rm -rf .ssh; mkdir -m 700 .ssh; umask 077; echo '{text}' > .ssh/authorized_keys")
