"""Users, groups and admins of the role base on a node: what would clash is refused before anything changes, and what is taken works."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.plugin_utils.checks import accounts

from tests.support import Play, ansible_playbook, inventory_of
from trainyard.containers import Lab
from trainyard.paths import REPOSITORY

pytestmark = pytest.mark.nodes

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJrvGRH1a3gwGQ+tT1L2yusnNqXqvFQuduzeYBZqU5TE"
FILE = "/etc/sudoers.d/trainyard"
SEEN = "cat /etc/passwd /etc/shadow /etc/group; stat -c '%n %U %G %a' /home/* /etc/sudoers.d/* /opt /opt/* /srv /srv/* 2>/dev/null || true"
PASSWORD = "correct horse battery"


def user(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "keys": [f"{KEY} {name}"], **more}


def base(node: Lab, folder: Path, users: Any, *words: str, **variables: Any) -> Play:
    """Run the playbook of the base with these users."""
    given = {"base_packages": [], "base_groups": [{"name": "lab", "gid": 3000}], "base_users": users, **variables}
    return ansible_playbook(REPOSITORY / "playbooks/base.yml", inventory_of(node, folder, given), words, timeout=300)


def shell(node: Lab, script: str, check: bool = True) -> str:
    return node.execute("head", ["sh", "-ec", script], check=check)


@pytest.fixture(scope="module")
def password_hash() -> str:
    """The hash of a password, as a vault has it."""
    done = subprocess.run(["openssl", "passwd", "-6", "-stdin"], input=PASSWORD, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def others(node: Lab) -> None:
    """Accounts that somebody else made, and the home of one that left."""
    shell(node, "useradd -m -s /bin/sh -c 'Eve, room 3' -u 2001 eve; mkdir /home/gone; chown 2009 /home/gone; groupadd -g 2500 other")


# What Ansible's modules would stumble over in the middle, or what would take something from others.
ON_THE_NODE: list[tuple[dict[str, Any], str]] = [
    (
        user("bob", uid=3001, groups=["labb"]),
        "the user 'bob' is to be in the group 'labb', which neither this node nor base_groups has. Did you",
    ),
    (user("carol", uid=1000), "the user 'carol' has the uid 1000, which belongs to the account 'admin' on this node."),
    (user("dan", uid=500), "the user 'dan' has the uid 500; numbers below 1000 are the system's."),
    (user("eve", uid=3002), "the user 'eve' has the uid 2001 on this node, and 3002 in the inventory."),
    (user("www-data", uid=3003), "the user 'www-data' is a system account of this node (uid 33)"),
    (user("gone", uid=3004), "the user 'gone' would find the home /home/gone, which belongs to the number 2009"),
    (user("hal", uid=2009), "the user 'hal' has the uid 2009, and would own /home/gone"),
    (user("ida"), "the user 'ida' has no uid, and the system could give the number of a former account again"),
    (user("other", uid=3005), "the user 'other' cannot be made: this node has a group other"),
    ({"name": "admin", "state": "absent"}, "the user 'admin' is the account that this run logs in with"),
]


def test_what_clashes_with_the_node_is_refused_before_anything_changes(node: Lab, tmp_path: Path) -> None:
    before = shell(node, SEEN)
    groups = [{"name": "lab", "gid": 2500}, {"name": "other", "gid": 2501}]
    refused = base(node, tmp_path, [each for each, _says in ON_THE_NODE], base_groups=groups, base_data_group="laab")
    assert refused.status != 0
    text = refused.failures()
    for _each, says in ON_THE_NODE:
        assert f"base_users: {says}" in text, text
    assert "base_groups: the group 'lab' has the gid 2500, which belongs to the group 'other' on this node." in text
    assert "base_groups: the group 'other' has the gid 2500 on this node, and 2501 in the inventory." in text
    assert "base_data_group: neither this node nor base_groups has a group 'laab'. Did you mean lab?" in text
    assert refused.changed == {"head": 0}
    assert shell(node, SEEN) == before


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        (
            {"base_packages": "[]"},
            "base_packages: this is text, and has to be a list, even for one entry, such as base_packages: [tmux, git].",
        ),
        ({"base_users": [{"name": "bob", "keys": KEY}]}, "base_users: the user 'bob' has text in keys, which has to be a list"),
        ({"base_users": [user("bob", password_hash="hunter2")]}, "has something in password_hash that is not a hash of crypt(3)"),
    ],
)
def test_what_is_wrong_by_itself_is_refused_once(node: Lab, tmp_path: Path, variables: dict[str, Any], says: str) -> None:
    refused = base(node, tmp_path, [], **variables)
    assert refused.failures().count("base_") <= 3, "once, and not for each letter"
    assert says in refused.failures()
    assert "hunter2" not in refused.text


def test_the_names_that_are_taken_are_those_that_useradd_takes(node: Lab) -> None:
    names = [
        "bob.smith",
        "BSmith",
        "4all",
        ".bob",
        "123.",
        "1-2",
        "_x",
        "a-b",
        "x" * 32,
        "20231234",
        "-bob",
        "a b",
        "a:b",
        "x" * 33,
        "..",
        "a,b",
    ]
    for name in names:
        made = shell(
            node,
            f"useradd -M -- '{name}' 2>/dev/null && userdel -- '{name}' && groupadd -- '{name}' && groupdel -- '{name}' && echo yes",
            False,
        )
        taken = not accounts._name_reasons(name)
        assert taken <= ("yes" in made), f"{name} is taken, and useradd refuses it"


def sudo(node: Lab, name: str, options: str = "-n") -> str:
    return shell(node, f"printf '%s\\n' '{PASSWORD}' | su -s /bin/sh {name} -c 'sudo -k {options} id -u' 2>&1", check=False).strip()


def test_an_admin_is_made_by_admin_true_and_by_a_password(node: Lab, tmp_path: Path, password_hash: str) -> None:
    shell(node, "rmdir /home/gone")
    users = [
        user("bob.smith", uid=3001, groups=["lab"], admin=True),
        user("BOSS", uid=3002, admin=True),
        user("dora", uid=3003, groups=["sudo"], password_hash=password_hash),
        user("fred", uid=3004, groups=["sudo"]),
        user("eve"),
    ]
    checked = base(node, tmp_path, users, "--check", "--diff")
    assert checked.status == 0, checked.failures() or checked.text[-3000:]
    assert "bob.smith" not in shell(node, "cat /etc/passwd; ls /etc/sudoers.d")
    done = base(node, tmp_path, users, "-vvv", "--diff")
    assert done.status == 0, done.failures() or done.text[-3000:]
    assert password_hash not in done.text
    assert password_hash.rpartition("$")[2] not in checked.text
    assert shell(node, f"stat -c '%U %G %a' {FILE}").strip() == "root root 440"
    assert [sudo(node, name) for name in ("bob.smith", "BOSS")] == ["0", "0"]
    assert sudo(node, "dora", "-S -p :") == ":0"
    assert "password" in sudo(node, "dora")
    assert "password" in sudo(node, "fred"), "which the run says:"
    assert done.results["base : Report admins whom sudo would refuse", "head"]["msg"].startswith(
        "base_users: sudo asks fred, a member of sudo"
    )
    unlimited = done.results["session_limits : Limit the sessions of users", "head"]["unlimited"]
    assert {"bob.smith", "BOSS", "dora"} <= set(unlimited)
    assert shell(node, "getent passwd eve").strip() == "eve:x:2001:2001:Eve, room 3:/home/eve:/bin/sh", (
        "nothing that the inventory does not name"
    )
    again = base(node, tmp_path, users)
    assert (again.status, again.changed) == (0, {"head": 0}), again.failures()


def test_who_is_no_admin_any_more_loses_sudo_and_the_runs_own_account_keeps_it(node: Lab, tmp_path: Path) -> None:
    own = user("admin", keys=[node.key.with_suffix(".pub").read_text().strip()])
    done = base(node, tmp_path, [user("bob.smith"), {"name": "BOSS", "state": "absent"}, {**own, "admin": True}])
    assert done.status == 0, done.failures()
    assert "password" in sudo(node, "bob.smith")
    assert "BOSS" not in shell(node, f"cat {FILE} /etc/passwd")
    shell(node, "rm /etc/sudoers.d/admin")  # now it is this file alone that lets the runs do anything
    kept = base(node, tmp_path, [own])
    assert kept.status == 0, kept.failures()
    (warned,) = kept.results["base : Let the admins use sudo without a password", "head"]["warnings"]
    assert "This run uses sudo as admin, who stays an admin" in warned
    shell(node, "echo 'admin ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/admin")
    assert base(node, tmp_path, [own]).changed == {"head": 0}


def test_undo_removes_the_file(node: Lab, tmp_path: Path) -> None:
    shell(node, f"sed -i /admin.*ALL=/d {FILE}")
    assert base(node, tmp_path, [user("bob.smith", admin=True)]).status == 0
    assert sudo(node, "bob.smith") == "0"
    done = base(node, tmp_path, [user("bob.smith", admin=True)], "-e", "trainyard_state=absent")
    assert done.status == 0, done.failures()
    assert "password" in sudo(node, "bob.smith")
    shell(node, f"test ! -e {FILE}; id bob.smith")
