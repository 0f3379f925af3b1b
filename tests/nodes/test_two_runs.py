"""Two runs at once on one node: each ends well or names the other one, and the node is hardened in every case."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.nodes.ssh_support import Access
from tests.nodes.test_ssh_access import DROP_IN, Kill
from tests.support import Play, ansible_playbook
from trainyard.containers import Lab
from trainyard.paths import REPOSITORY

pytestmark = pytest.mark.nodes

LOCK = "/run/trainyard/locks/ssh_hardening"
LINEAR = {"ANSIBLE_STRATEGY": "linear"}


@pytest.fixture(scope="module")
def kept(node: Lab, tmp_path_factory: pytest.TempPathFactory) -> Access:
    """The node as it booted, remembered."""
    found = Access(node, tmp_path_factory.mktemp("access"))
    found.keep()
    return found


@pytest.fixture
def access(kept: Access, tmp_path: Path) -> Iterator[Access]:
    """The node as it booted, before its first hardening."""
    kept.without_strong_key()
    yield Access(kept.lab, tmp_path)
    kept.root(f"rm -f {LOCK}")
    kept.reset()


def both(access: Access) -> list[Play]:
    """Start two runs together, one with each strategy, and return what they did."""
    folders = [access.folder / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    with ThreadPoolExecutor() as pool:
        runs = [
            pool.submit(Access(access.lab, folder).harden, environment=how) for folder, how in zip(folders, (None, LINEAR), strict=True)
        ]
        return [run.result() for run in runs]


def hardened(access: Access) -> None:
    """Assert that the node is hardened, proven, and that nobody holds the lock."""
    access.root(f"test -s {DROP_IN} && test -s /etc/ssh/ssh_host_rsa_4096_key.pub && test ! -e /var/lib/trainyard/ssh_hardening/rollback")
    assert access.effective("passwordauthentication") == ["no"]
    assert access.root(f"cat {LOCK}") == ""
    assert access.lets_in()


@pytest.mark.parametrize("attempt", range(3))
def test_two_runs_on_a_fresh_node_both_converge(access: Access, attempt: int) -> None:
    for done in both(access):
        assert done.status == 0, f"{attempt}: {done.failures() or done.text}"
    hardened(access)
    again = access.harden()
    assert again.changed == {"head": 0}, again.text


def test_a_run_that_was_killed_on_this_machine_is_not_waited_for(access: Access) -> None:
    Kill(access).run()
    assert "process" in access.root(f"cat {LOCK}")
    began = time.monotonic()
    done = access.harden()
    assert done.status == 0, done.text
    assert time.monotonic() - began < 50  # its lock would end by itself after 75 seconds
    hardened(access)


def test_a_run_that_was_killed_elsewhere_keeps_nobody_out_for_long(access: Access) -> None:
    Kill(access).run(ssh_hardening_rollback_seconds=10)
    access.root(f'sed -i \'s/"run": "/&elsewhere/\' {LOCK}')
    done = access.harden()
    assert done.status == 0, done.text
    hardened(access)


def test_a_login_is_not_proven_where_the_drop_in_has_gone_meanwhile(access: Access) -> None:
    # sshd's configuration is made by something else while the new login is being proven: that login takes the drop-in away.
    access.root("printf '%s\\n' '#!/bin/sh' 'sudo rm -f " + DROP_IN + "' >/etc/ssh/sshrc")
    done = access.harden()
    assert done.status != 0, done.text
    assert "sshd's configuration is no longer what was written" in done.failures()
    assert "The old configuration is back." in done.failures()
    access.root("rm /etc/ssh/sshrc")
    assert access.effective("passwordauthentication") == ["yes"]
    assert access.lets_in()


def munge_key(access: Access, name: str) -> Mapping[str, Any]:
    """Run the module that makes the cluster's key, and return its result."""
    folder = access.folder / name
    folder.mkdir(exist_ok=True)
    done = Access(access.lab, folder).play([{"name": "key", "trainyard.core.munge_key": {}}])
    assert done.status == 0, done.failures() or done.text
    return done.results["key", "head"]


def test_two_runs_that_find_no_key_of_the_cluster_agree_on_one(access: Access) -> None:
    access.root("id munge >/dev/null 2>&1 || useradd -r munge; mkdir -p /etc/munge; rm -f /etc/munge/munge.key")
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda name: munge_key(access, name), ["one", "two"]))
    stored = access.root("base64 -w0 /etc/munge/munge.key; rm -r /etc/munge")
    assert [result["key"] for result in results] == [stored, stored]
    assert sorted(result["changed"] for result in results) == [False, True]


def test_a_module_waits_for_another_of_its_kind(access: Access) -> None:
    access.root("id munge >/dev/null 2>&1 || useradd -r munge; mkdir -p /etc/munge /run/trainyard/locks")
    access.root("systemd-run -q --collect --unit holder flock /run/trainyard/locks/munge_key sleep 600")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(munge_key, access, "one")
        time.sleep(8)
        assert not waiting.done()
        assert access.root("test ! -e /etc/munge/munge.key; systemctl stop holder") == ""
        assert waiting.result()["changed"] is True
    access.root("rm -r /etc/munge")


def test_two_runs_that_make_the_same_accounts_both_converge(access: Access) -> None:
    key = (access.lab.key.with_suffix(".pub")).read_text().strip()
    users = [{"name": f"user{number}", "uid": 2000 + number, "groups": ["lab"], "keys": [key]} for number in range(3)]
    variables = {"base_packages": [], "base_groups": [{"name": "lab", "gid": 3001}], "base_users": users}

    def base(name: str) -> Play:
        folder = access.folder / name
        folder.mkdir()
        return ansible_playbook(REPOSITORY / "playbooks/base.yml", Access(access.lab, folder).inventory(variables))

    with ThreadPoolExecutor() as pool:
        for done in pool.map(base, ["one", "two"]):
            assert done.status == 0, done.failures() or done.text
    assert all(access.lets_in(str(user["name"])) for user in users)
