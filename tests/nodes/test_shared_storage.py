"""Shared folders on a container, which has no NFS of its own: it is refused, before anything changes.

What NFS does is shown in virtual machines: tests/slow/test_shared_storage_in_vms.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import Play, play
from trainyard.containers import Lab

pytestmark = pytest.mark.nodes

MINE = [{"path": "/srv/shared"}]
TRACES = "ls -d /srv/shared /etc/nfs.conf* /etc/exports* /etc/systemd/system/*trainyard* /usr/sbin/exportfs /sbin/mount.nfs /sbin/rpcbind"


def share(node: Lab, folder: Path, *words: str, **variables: Any) -> Play:
    """Apply the role."""
    task = {"name": "role", "ansible.builtin.include_role": {"name": "shared_storage"}}
    return play(node, folder, [task], words, **variables)


@pytest.mark.parametrize("folders", [MINE, [{"path": "/srv/shared", "source": "nas.example:/export"}]], ids=["served", "mounted"])
@pytest.mark.parametrize("words", [(), ("--check",)], ids=["really", "check"])
def test_a_container_is_refused_by_name(node: Lab, tmp_path: Path, folders: list[dict[str, str]], words: tuple[str, ...]) -> None:
    refused = share(node, tmp_path, *words, shared_storage_folders=folders)
    assert "shared_storage_folders: head is a container (docker), and NFS is for its host's kernel to do." in refused.failures()
    assert refused.changed == {"head": 0}
    assert node.execute("head", ["sh", "-c", f"{TRACES} 2> /dev/null"], check=False) == ""


def test_wrong_wishes_are_named(node: Lab, tmp_path: Path) -> None:
    said = share(node, tmp_path, shared_storage_folders=[{"path": "/etc/lab"}]).failures()
    assert "shared_storage_folders: '/etc/lab' cannot be shared." in said
    said = share(node, tmp_path, shared_storage_folders=MINE, shared_storage_server="nas").failures()
    assert "shared_storage_server is 'nas', which is none of the nodes that share: head." in said
    refused = share(node, tmp_path, shared_storage_folders=[{"path": "/srv/shared", "export": "nas:/x"}])
    assert "export" in refused.failures()
    assert "shared_storage_folders" in refused.failures()


def test_what_something_else_shares_is_accepted_and_left_alone(node: Lab, tmp_path: Path) -> None:
    folders = [{"path": "/srv/elsewhere", "external": True}]
    node.execute("head", ["mkdir", "/srv/elsewhere"])
    refused = share(node, tmp_path, shared_storage_folders=folders)
    assert "/srv/elsewhere on head is on the node's own disk" in refused.failures()
    node.execute("head", ["mount", "-t", "tmpfs", "none", "/srv/elsewhere"])  # a stand-in for a file server's
    for words in ((), ("--check",), ("-e", "trainyard_state=absent")):
        done = share(node, tmp_path, *words, shared_storage_folders=folders)
        assert (done.status, done.changed) == (0, {"head": 0}), done.failures()
    assert node.execute("head", ["sh", "-c", f"{TRACES} 2> /dev/null"], check=False) == ""


@pytest.mark.parametrize("state", ["present", "absent"])
def test_without_folders_nothing_is_done(node: Lab, tmp_path: Path, state: str) -> None:
    done = share(node, tmp_path, trainyard_state=state)
    assert (done.status, done.changed) == (0, {"head": 0}), done.failures()
