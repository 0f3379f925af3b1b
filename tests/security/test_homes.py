"""What users put into their own homes, and what root does there."""

from __future__ import annotations

import pytest

from tests.security.conftest import House

pytestmark = pytest.mark.security


@pytest.mark.parametrize("what", ["link to a folder", "link to a file", "FIFO"])
def test_a_user_gains_and_stops_nothing_by_what_is_in_the_place_of_the_keys(house: House, what: str) -> None:
    state = "stat -c '%n %U %G %a' /etc/canary /etc/canary/file; ls -A /etc/canary"
    house.root("head", "install -d -m 755 /etc/canary; echo root > /etc/canary/file; chmod 600 /etc/canary/file")
    before = house.root("head", state)
    keys = house.root("head", "cat /home/bob/.ssh/authorized_keys")
    plant = {
        "link to a folder": "ln -s /etc/canary .ssh",
        "link to a file": "mkdir -m 700 .ssh; ln -s /etc/canary/file .ssh/authorized_keys",
        "FIFO": "mkdir -m 700 .ssh; mkfifo .ssh/authorized_keys",
    }
    try:
        assert house.user("bob", f"rm -rf .ssh; {plant[what]}")[0] == 0
        done = house.play("playbooks/base.yml", "--limit", "head", "--tags", "base", timeout=120)
        assert done.status == 0, done.failures()
        assert house.root("head", state) == before
        assert house.ssh("alice").returncode == 0, "the others are let in"
        warned = str(done.results["base : Let the lab's users in with their keys", "head"])
        assert "The keys of bob could not be put into /home/bob/.ssh/authorized_keys" in warned
        house.user("bob", "rm -rf .ssh")
        done = house.play("playbooks/base.yml", "--limit", "head", "--tags", "base", timeout=120)
        assert done.status == 0, done.failures()
        assert house.root("head", "cat /home/bob/.ssh/authorized_keys") == keys
        assert house.ssh("bob").returncode == 0
    finally:
        house.user("bob", "rm -rf .ssh")
        house.root(
            "head", f"rm -rf /etc/canary; install -d -m 700 -o bob -g bob /home/bob/.ssh; echo '{keys}' > /home/bob/.ssh/authorized_keys"
        )
        house.root("head", "chown bob:bob /home/bob/.ssh/authorized_keys; chmod 600 /home/bob/.ssh/authorized_keys")
