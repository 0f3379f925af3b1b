"""Shared folders: exports, units, who holds a folder, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _nfs as nfs


def node(address: str, seen: bool = True) -> dict[str, Any]:
    return {"address": address, "names": [], "seen": seen}


NODES = {"head": node("192.0.2.1"), "node1": node("192.0.2.2"), "node2": node("2001:db8::3")}


def granted(text: str) -> dict[str, list[str]]:
    """Return path -> to whom it is exported, as exports(5) reads it."""
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {words[0]: [word for word in words[1:] if not word.startswith("-")] for words in lines}


def test_folders_are_exported_to_the_other_nodes_and_to_nobody_else() -> None:
    text, unknown = nfs.exports("", ["/srv/shared", "/home"], NODES, "head")
    assert granted(text) == {"/srv/shared": ["192.0.2.2", "2001:db8::3"], "/home": ["192.0.2.2", "2001:db8::3"]}
    assert unknown == []
    assert "root_squash" in text
    assert "no_root_squash" not in text
    assert nfs.exports(text, ["/srv/shared", "/home"], NODES, "head")[0] == text


@pytest.mark.parametrize("nodes", [{}, {"head": NODES["head"]}, {"head": NODES["head"], "node3": node("", seen=False)}])
def test_without_a_node_nothing_is_exported_to_the_world(nodes: dict[str, Any]) -> None:
    assert nfs.exports("", ["/srv/shared"], nodes, "head")[0] == ""


def test_a_node_that_this_run_did_not_see_keeps_its_export_and_one_that_is_gone_loses_it() -> None:
    before, _unknown = nfs.exports("", ["/srv/shared"], NODES, "head")
    after, unknown = nfs.exports(
        before, ["/srv/shared"], {"head": NODES["head"], "node1": node("", seen=False), "node3": node("", seen=False)}, "head"
    )
    assert granted(after) == {"/srv/shared": ["192.0.2.2"]}
    assert unknown == ["node3"]
    moved, _unknown = nfs.exports(before, ["/srv/shared"], {"head": NODES["head"], "node1": node("192.0.2.9")}, "head")
    assert granted(moved) == {"/srv/shared": ["192.0.2.9"]}


@pytest.mark.parametrize("path", ["/srv/shared", "/home", "/srv/a-b/c.d_e", "/data/_1"])
def test_units_have_the_names_that_systemd_wants(path: str) -> None:
    known = {"/srv/shared": "srv-shared", "/home": "home", "/srv/a-b/c.d_e": r"srv-a\x2db-c.d_e", "/data/_1": "data-_1"}
    assert nfs.unit(path) == known[path]


def test_what_is_served_and_what_is_mounted() -> None:
    folders: list[dict[str, Any]] = [
        {"path": "/srv/shared", "group": "lab", "options": ["noatime"]},
        {"path": "/home", "source": "nas.example:/x"},
    ]
    nas = {"path": "/home", "source": "nas.example:/x", "options": []}
    assert nfs.here(folders, True, "192.0.2.1") == {"served": [folders[0]], "mounted": [nas], "external": []}
    mine = {"path": "/srv/shared", "source": "[2001:db8::1]:/srv/shared", "options": ["noatime"]}
    assert nfs.here(folders, False, "2001:db8::1") == {"served": [], "mounted": [mine, nas], "external": []}


def test_what_others_share_already_is_set_up_by_one_node() -> None:
    homes = [{"path": "/home", "external": True}]
    assert nfs.here(homes, True, "192.0.2.1") == {"served": [], "mounted": [], "external": []}
    assert nfs.here(homes, False, "192.0.2.1") == {"served": [], "mounted": [], "external": [{"path": "/home"}]}


def test_the_topmost_mount_counts() -> None:
    text = (
        "25 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
        "71 25 0:47 / /srv/a\\040b rw,relatime shared:39 - autofs systemd-1 rw,fd=48,pgrp=1,timeout=0\n"
        "99 71 0:53 / /srv/a\\040b rw,nosuid shared:52 master:3 - nfs4 192.0.2.1:/srv/a rw,vers=4.2,hard\n"
    )
    assert nfs.mounts(text) == {"/": nfs.Mount("/dev/vda1", "ext4"), "/srv/a b": nfs.Mount("192.0.2.1:/srv/a", "nfs4")}


def test_who_holds_a_folder(tmp_path: Path) -> None:
    shared, other = tmp_path / "shared", tmp_path / "shared-not"
    shared.mkdir()
    other.mkdir()
    (shared / "file").write_text("text")
    (other / "file").touch()
    wait = "import sys; sys.stdout.write('.'); sys.stdout.flush(); sys.stdin.read()"
    holds = {
        "cwd": {"cwd": shared},
        "file": {"args": [f"file = open({str(shared / 'file')!r})"]},
        "mapped": {
            "args": [f"import mmap; file = open({str(shared / 'file')!r}, 'rb'); held = mmap.mmap(file.fileno(), 0, prot=1); file.close()"]
        },
        "neither": {"cwd": other, "args": [f"file = open({str(other / 'file')!r})"]},
    }
    running = {
        name: subprocess.Popen(
            [sys.executable, "-c", "; ".join([*how.get("args", []), wait])],  # type: ignore[misc]
            cwd=how.get("cwd"),  # type: ignore[arg-type]
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name, how in holds.items()
    }
    try:
        for process in running.values():
            assert process.stdout
            assert process.stdout.read(1) == b"."
        found = {int(each.rpartition("(")[2].rstrip(")")) for each in nfs.holders(str(shared))}
        assert found == {running[name].pid for name in ("cwd", "file", "mapped")}
        assert os.getpid() not in found
    finally:
        for process in running.values():
            process.communicate()


def look(**found: Any) -> dict[str, Any]:
    kernel = {"release": "6.1.0-1-amd64", "nfs": True, "nfsd": True}
    return {"container": "", "kernel": kernel, "folders": {}, "foreign_server": False, "foreign_rpcbind": False, "ours": [], **found}


def problems(host: str = "node1", *folders: dict[str, Any], seen: dict[str, Any] | None = None, **wishes: Any) -> list[str]:
    wish = {"folders": list(folders) or [{"path": "/srv/shared"}], "server": "head", "users": {}, "groups": {}, "nodes": NODES, **wishes}
    return nfs.problems(wish, wish.pop("nodes"), host, seen or look())


@pytest.mark.parametrize("host", ["head", "node1"])
def test_sound_wishes(host: str) -> None:
    folders = [
        {"path": "/srv/shared", "owner": "root", "group": "lab", "mode": "2775", "options": ["noatime", "nconnect=4"]},
        {"path": "/home"},
        {"path": "/srv/nas", "source": "[2001:db8::9]:/export/lab"},
    ]
    users = {name: [{"name": "ada", "uid": 2000}, {"name": "gone", "state": "absent"}] for name in NODES}
    at = {"/srv/shared": {"kind": "full" if host == "head" else "empty", "holds": "data", "type": ""}}
    assert problems(host, *folders, users=users, seen=look(folders=at)) == []


@pytest.mark.parametrize(
    "folder, said",
    [
        ({"path": "srv"}, "'srv' cannot be shared. Say a folder of its own"),
        ({"path": "/"}, "'/' cannot be shared"),
        ({"path": "/etc/lab"}, "'/etc/lab' cannot be shared"),
        ({"path": "/srv/../etc"}, "cannot be shared"),
        ({"path": "/srv/shared/"}, "cannot be shared"),
        ({"path": "/srv/two words"}, "cannot be shared"),
        (
            {"path": "/srv/x", "source": "nas.example"},
            "the source 'nas.example' is none. Say server and path, such as nas.example:/export",
        ),
        ({"path": "/srv/x", "source": "nas:/x", "mode": "0755"}, "mode is for the server of nas:/x to decide"),
        ({"path": "/srv/x", "mode": 2775}, 'the mode 2775 cannot be read. Put it in quotes, in octal, such as "2775".'),
        ({"path": "/srv/x", "mode": "u=rwx"}, "the mode 'u=rwx' cannot be read"),
        ({"path": "/srv/x", "options": ["soft"]}, "the option soft cannot be set"),
        ({"path": "/srv/x", "options": ["vers=3"]}, "the option vers=3 cannot be set"),
        ({"path": "/srv/x", "options": ["ro,soft"]}, "'ro,soft' is no option of a mount. Say one in each entry"),
    ],
)
def test_folders_that_cannot_be_shared(folder: dict[str, Any], said: str) -> None:
    (problem,) = problems("node1", folder)
    assert problem.startswith("shared_storage_folders: ")
    assert said in problem


def test_folders_that_are_in_each_others_way() -> None:
    assert problems("node1", {"path": "/srv/a"}, {"path": "/srv/a"}) == ["shared_storage_folders: /srv/a stands there twice."]
    (problem,) = problems("node1", {"path": "/srv/a/b"}, {"path": "/srv/a"})
    assert "of /srv/a/b and /srv/a one lies in the other" in problem
    assert problems("node1", {"path": "/srv/a"}, {"path": "/srv/ab"}) == []


@pytest.mark.parametrize(
    "host, wishes, said",
    [
        ("node1", {"server": "nas"}, "shared_storage_server is 'nas', which is none of the nodes that share: head, node1, node2."),
        (
            "node1",
            {"nodes": {**NODES, "head": node("", seen=False)}},
            "shared_storage_server: nobody knows the address of head in this run. Give head shared_storage_address in the inventory, or "
            "name it as well: --limit node1,head",
        ),
        (
            "node1",
            {"nodes": {**NODES, "node1": node("gpu1.example")}},
            "shared_storage_address of node1 is 'gpu1.example': say the IP",
        ),
        ("head", {"nodes": {**NODES, "head": node("0.0.0.0")}}, "shared_storage_address of head is '0.0.0.0': say the IP address"),
        ("head", {"nodes": {**NODES, "head": node("")}}, "shared_storage_address of head is '': say the IP address"),
        (
            "node1",
            {"users": {"head": [{"name": "ada"}]}},
            "base_users: the user 'ada' needs a uid (on head): shared files carry",
        ),
        (
            "node1",
            {"users": {"head": [{"name": "ada", "uid": 2000}], "node1": [{"name": "ada", "uid": 2001}]}},
            "base_users: the user 'ada' has the uid 2000 on head and 2001 on node1; on all nodes of a cluster it has to be the same.",
        ),
        (
            "node1",
            {"groups": {"head": [{"name": "lab"}]}},
            "base_groups: the group 'lab' needs a gid (on head): shared files carry",
        ),
        ("head", {"seen": look(foreign_server=True)}, "shared_storage_server: head has an NFS server already (nfs-kernel-server)"),
        ("node1", {"seen": look(container="docker")}, "node1 is a container (docker), and NFS is for its host's kernel to do."),
        (
            "head",
            {"seen": look(kernel={"release": "6.1.0-1-tiny", "nfs": True, "nfsd": False})},
            "the kernel 6.1.0-1-tiny of head has no NFS server (module nfsd)",
        ),
        (
            "node1",
            {"seen": look(kernel={"release": "6.1.0-1-tiny", "nfs": False, "nfsd": True})},
            "the kernel 6.1.0-1-tiny of node1 has no NFS client (module nfs)",
        ),
    ],
)
def test_nodes_that_cannot_share(host: str, wishes: dict[str, Any], said: str) -> None:
    (problem,) = problems(host, **wishes)
    assert said in problem


@pytest.mark.parametrize(
    "host, place, said",
    [
        (
            "node1",
            {"kind": "full", "holds": "a, b"},
            "/srv/shared on node1 is not empty (a, b), and what lies there would be hidden",
        ),
        ("node1", {"kind": "file", "holds": ""}, "/srv/shared on node1 is no folder."),
        ("node1", {"kind": "link", "holds": "/srv -> /data"}, "/srv/shared on node1 is a link, or lies below one (/srv -> /data)."),
        ("node1", {"kind": "mount", "holds": "/dev/sdb1", "type": "ext4"}, "/srv/shared on node1 has /dev/sdb1 mounted (ext4)"),
        ("head", {"kind": "mount", "holds": "nas:/x", "type": "nfs4"}, "/srv/shared on head has nas:/x mounted (nfs4)"),
        ("head", {"kind": "ours", "holds": "192.0.2.2:/srv/shared", "type": "nfs4"}, "head has /srv/shared from another node (192.0.2.2:"),
    ],
)
def test_places_where_nothing_can_be_shared(host: str, place: dict[str, str], said: str) -> None:
    (problem,) = problems(host, seen=look(folders={"/srv/shared": {"type": "", **place}}))
    assert problem.startswith("shared_storage_")
    assert said in problem


@pytest.mark.parametrize(
    "host, place",
    [
        ("node1", {"kind": "ours", "holds": "192.0.2.1:/srv/shared", "type": "nfs4"}),
        ("node1", {"kind": "absent"}),
        ("head", {"kind": "full", "holds": "a"}),
        ("head", {"kind": "mount", "holds": "/dev/sdb1", "type": "ext4"}),
    ],
)
def test_places_that_are_right(host: str, place: dict[str, str]) -> None:
    assert problems(host, seen=look(folders={"/srv/shared": {"holds": "", "type": "", **place}})) == []


@pytest.mark.parametrize(
    "place", [{"kind": "mount", "holds": "/dev/vdb1", "type": "ext4"}, {"kind": "full", "holds": "a", "type": "lustre"}]
)
def test_what_others_share_already_is_accepted_in_a_container_too(place: dict[str, str]) -> None:
    seen = look(container="docker", kernel={"release": "6.1.0-1-tiny", "nfs": False, "nfsd": False}, folders={"/home": place})
    assert problems("node1", {"path": "/home", "external": True}, seen=seen) == []


@pytest.mark.parametrize(
    "folder, place, said",
    [
        ({}, {"kind": "full", "holds": "ada", "type": "/"}, "/home on node1 is on the node's own disk, so that other nodes do not see"),
        ({}, {"kind": "absent", "holds": "", "type": ""}, "/home on node1 is not a folder. Mount it there"),
        ({}, {"kind": "link", "holds": "/home -> /data", "type": ""}, "Name the folder that it leads to."),
        ({"mode": "0755"}, {"kind": "mount", "holds": "nas:/x", "type": "nfs4"}, "/home: remove mode. With external: true something else"),
    ],
)
def test_what_is_not_shared_by_others_is_refused(folder: dict[str, Any], place: dict[str, str], said: str) -> None:
    (problem,) = problems("node1", {"path": "/home", "external": True, **folder}, seen=look(folders={"/home": place}))
    assert said in problem


def test_the_node_that_sets_up_what_others_share_has_to_be_one_of_them() -> None:
    seen = look(folders={"/home": {"kind": "mount", "holds": "nas:/x", "type": "nfs4"}})
    (problem,) = problems("node1", {"path": "/home", "external": True}, server="haed", seen=seen)
    assert "shared_storage_server is 'haed'" in problem


def test_the_folders_above_a_folder() -> None:
    assert nfs.above("/srv/data/a") == ["/srv/data", "/srv", "/"]
