# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Users and groups that cannot be made, or would change what is somebody else's, are refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.plugin_utils.checks import accounts
from ansible_collections.trainyard.core.plugins.plugin_utils.checks.accounts import Node, Request
from hypothesis import given
from hypothesis import strategies as st

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJrvGRH1a3gwGQ+tT1L2yusnNqXqvFQuduzeYBZqU5TE"
HASH = "$6$abcdefgh$" + "x" * 86


def account(uid: int, shell: str = "/bin/bash", password: bool = False, home: str = "/home/x") -> dict[str, Any]:
    return {"uid": uid, "gid": uid, "home": home, "shell": shell, "password": password}


NODE = Node(
    accounts={
        "root": account(0),
        "www-data": account(33, "/usr/sbin/nologin"),
        "nobody": account(65534, "/usr/sbin/nologin"),
        "admin": account(1000),
        "carol": account(1001, "/usr/bin/zsh"),
        "old": account(501),
        "sync": account(4, home="/bin"),
        "toor": account(0),
    },
    groups={"root": 0, "sudo": 27, "users": 100, "www-data": 33, "docker": 998, "admin": 1000, "carol": 1001, "left": 1002},
    homes={"/home/admin": 1000, "/home/carol": 1001, "/home/gone": 1005, "/home/theirs": 1000},
    login="admin",
)


def found(users: Any = (), groups: Any = ({"name": "lab"},), data_group: str = "users", node: Node | None = NODE, **more: Any) -> list[str]:
    users = [{"keys": [KEY], **each} for each in users] if isinstance(users, (list, tuple)) else users
    return accounts.problems(Request(users, groups, data_group, more.pop("packages", []), True, **more), node)


@pytest.mark.parametrize("name", ["alice", "bob.smith", "BSmith", "4all", "_x", "u20231234", "a-b", "x" * 32, "123.", ".bob", "1-2"])
def test_names_that_useradd_takes_on_every_debian_are_taken(name: str) -> None:
    assert found([{"name": name, "uid": 3000}]) == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("20231234", "a name of digits alone, which programs take for a number (chown, id), and useradd refuses from Debian 13 on. Put"),
        (20231234, "such as u20231234"),
        ("-bob", "a name that is not allowed: letters from a to z in either case"),
        ("Über", "not allowed"),
        ("a b", "not allowed"),
        ("a/b", "not allowed"),
        ("..", "not allowed"),
        ("bob$", "not allowed"),
        ("bob\n", "not allowed"),
        ("x" * 33, "32 characters at most"),
        ("root", "is not the lab's to manage"),
    ],
)
def test_other_names_are_refused_with_the_rule(name: Any, says: str) -> None:
    (problem,) = found([{"name": name}], node=None)
    assert problem.startswith("base_users: the user ")
    assert says in problem


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ({"uid": 1000}, "has the uid 1000, which belongs to the account 'admin' on this node."),
        ({"uid": "1000"}, "belongs to the account 'admin'"),
        ({"uid": 33}, "belongs to the account 'www-data'"),
        ({"uid": 500}, "numbers below 1000 are the system's"),
        ({"uid": -1}, "which no system accepts"),
        ({"uid": 4294967295}, "which no system accepts"),
        ({"uid": 65534}, "they stand for nobody"),
        ({"uid": 62000}, "reserved, since systemd gives these to services"),
        ({"uid": "many"}, "is not a number"),
        ({"uid": True}, "is not a number"),
        ({"uid": 1005}, "would own /home/gone, the home of a former account"),
        ({"groups": ["labb"]}, "is to be in the group 'labb', which neither this node nor base_groups has. Did you mean lab? Add it"),
        ({"groups": ["slurm"]}, "is to be in the group 'slurm'"),
        ({"groups": "lab, sudo"}, "has text in groups, which has to be a list"),
        ({"keys": KEY}, 'has text in keys, which has to be a list, even for one entry, such as keys: ["ssh-ed25519 ..."]'),
        ({"comment": "Bob: room 3"}, "has the comment 'Bob: room 3'; a colon"),
        ({"comment": "Bob\nroot:x"}, "a colon or a line break would end it"),
        ({"shell": "zsh"}, "has the shell 'zsh'; a shell is an absolute path"),
        ({"keys": []}, "has no entry in keys, and ssh_hardening switches passwords off"),
        ({"keys": [], "admin": True}, "has no entry in keys"),
        ({"keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}, "entry 1 of keys is a private key"),
        ({"admin": "no"}, "has admin: 'no'. Use true or false, without quotes"),
        ({"password_hash": "hunter2hunter2"}, "a plain password is never accepted"),
        ({"password_hash": "$1$abc$" + "x" * 22}, "not a hash of crypt(3)"),
        ({"password_hash": HASH + "\n"}, "not a hash of crypt(3)"),
        ({"password_hash": ""}, "not a hash of crypt(3)"),
        ({"name": "www-data"}, "is a system account of this node (uid 33)"),
        ({"name": "www-data", "uid": 33}, "is a system account of this node (uid 33)"),
        ({"name": "www-data", "state": "absent"}, "is a system account of this node (uid 33)"),
        ({"name": "sync"}, "is a system account of this node (uid 4)"),
        ({"name": "toor", "uid": 0}, "is a system account of this node (uid 0)"),
        ({"name": "nobody"}, "is a system account of this node (uid 65534)"),
        ({"name": "docker", "uid": 3000}, "this node has a group docker, and no account of that name"),
        ({"name": "carol", "uid": 3001}, "has the uid 1001 on this node, and 3001 in the inventory."),
        ({"name": "admin", "state": "absent"}, "is the account that this run logs in with"),
        ({"name": "theirs"}, "would find the home /home/theirs, which belongs to the account 'admin'. Move it away"),
        ({"name": "gone"}, "which belongs to the number 1005 of a former account. Where it is this user's own, set uid: 1005; otherwise"),
        ({"name": "gone", "uid": 3000}, "would find the home /home/gone"),
    ],
)
def test_a_user_is_refused_by_the_variable_and_the_reason(user: dict[str, Any], says: str) -> None:
    problems = found([{"uid": 3000, "name": "bob", **user}] if "name" not in user else [user])
    assert len(problems) == 1, problems
    assert problems[0].startswith(f"base_users: the user {user.get('name', 'bob')!r} ")
    assert says in problems[0]
    assert "hunter2" not in problems[0]


@pytest.mark.parametrize(
    "user",
    [
        {"uid": 3000},
        {"uid": "3000", "groups": ["lab", "sudo"], "comment": "Bob, room 3", "admin": True},
        {"uid": 3000, "groups": ["carol"]},
        {"uid": 200000},
        {"uid": 3000, "password_hash": HASH},
        {"uid": 3000, "password_hash": "$y$j9T$abcdefghijklmnopqrstu.$" + "y" * 43},
        {"name": "carol"},
        {"name": "carol", "uid": 1001},
        {"name": "old", "uid": 501},
        {"name": "old"},
        {"name": "sync", "uid": 4},
        {"name": "carol", "state": "absent"},
        {"uid": 1005, "name": "gone", "groups": []},
        {"name": "nobody-here", "state": "absent"},
        {"name": "gone", "uid": 1005},
    ],
)
def test_what_works_is_taken(user: dict[str, Any]) -> None:
    assert found([{"name": "bob", **user}]) == []


def test_a_number_that_the_system_could_give_again_is_refused() -> None:
    (problem,) = found([{"name": "bob"}])
    assert "has no uid, and the system could give the number of a former account again, whose home is /home/gone" in problem
    assert found([{"name": "bob"}], node=replace(NODE, homes={})) == []


@pytest.mark.parametrize(
    ("group", "says"),
    [
        ({"name": "lab", "gid": 1000}, "has the gid 1000, which belongs to the group 'admin' on this node"),
        ({"name": "docker", "gid": 3000}, "has the gid 998 on this node, and 3000 in the inventory"),
        ({"name": "GPU users"}, "a name that is not allowed"),
        ({"name": "lab", "gid": 500}, "numbers below 1000 are the system's"),
        ({"name": "lab", "gid": 65000}, "reserved, since systemd"),
        ({"name": "lab", "gid": -3}, "which no system accepts"),
        ({"name": "123"}, "a name of digits alone"),
        ({"name": "bob"}, "has the name of a user of base_users"),
    ],
)
def test_a_group_is_refused_by_the_variable_and_the_reason(group: dict[str, Any], says: str) -> None:
    (problem,) = found([{"name": "bob", "uid": 3000}], groups=[group])
    assert problem.startswith(f"base_groups: the group {group['name']!r} ")
    assert says in problem


def test_groups_that_are_there_stay_as_they_are() -> None:
    assert found(groups=[{"name": "docker"}, {"name": "users", "gid": 100}, {"name": "lab", "gid": 3000}]) == []
    assert found([{"name": "carol"}], groups=[{"name": "carol"}]) == []


def test_a_group_of_a_package_that_is_yet_to_be_installed_is_waited_for() -> None:
    node = replace(NODE, groups={key: gid for key, gid in NODE.groups.items() if key != "docker"})
    user = {"name": "bob", "uid": 3000, "groups": ["docker"]}
    assert found([user], node=node, packages=["docker.io"]) == []
    assert len(found([user], node=node)) == 1


def test_the_data_folders_group_has_to_be_there() -> None:
    assert found(data_group="lab") == []
    (problem,) = found(data_group="labb")
    assert problem.startswith("base_data_group: neither this node nor base_groups has a group 'labb'. Did you mean lab?")


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"users": "alice"}, "base_users: this is text, and has to be a list"),
        ({"groups": {"name": "lab"}}, "base_groups: this is a dictionary, and has to be a list"),
        ({"packages": "[]"}, "base_packages: this is text, and has to be a list, even for one entry, such as base_packages: [tmux, git]."),
        ({"groups": ["lab"]}, "base_groups: entry 1 is not a dictionary with a name"),
        ({"users": None}, "base_users: this is NoneType"),
    ],
)
def test_what_is_no_list_is_refused_once(variables: dict[str, Any], says: str) -> None:
    (problem,) = found(**variables)
    assert says in problem


def test_names_and_numbers_twice_are_refused() -> None:
    twice = found([{"name": "bob", "uid": 3000}, {"name": "bob", "uid": 3000}], node=None)
    assert twice == ["base_users: the user 'bob' is listed twice. Remove one of the entries."]
    (same,) = found([{"name": "ann", "uid": 3000}, {"name": "bob", "uid": "3000"}], node=None)
    assert same == "base_users: the user 'bob' has the uid 3000, which 'ann' has as well."
    (group,) = found(groups=[{"name": "lab", "gid": 3000}, {"name": "gpu", "gid": 3000}], node=None)
    assert group.startswith("base_groups: the group 'gpu' has the gid 3000")


def test_an_admin_whom_sudo_would_ask_for_a_password_is_reported() -> None:
    def said(node: Node = NODE, **user: Any) -> list[str]:
        return accounts.remarks(Request([{"name": "carol", **user}], [], "users"), node)

    assert said(groups=["sudo"])[0].startswith("base_users: sudo asks carol, a member of sudo, for a password, and that account has none.")
    assert said(groups=["lab"]) == said(groups=["sudo"], admin=True) == said(groups=["sudo"], password_hash=HASH) == []
    assert said(replace(NODE, free_groups=["sudo"]), groups=["sudo"]) == []
    assert said(replace(NODE, accounts={"carol": account(1001, password=True)}), groups=["sudo"]) == []


def test_admins_need_a_sudo_that_reads_the_folder() -> None:
    (problem,) = found([{"name": "carol", "admin": True}], node=replace(NODE, sudo_folder=False))
    assert "@includedir /etc/sudoers.d" in problem


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=12), st.lists(st.text(max_size=8), max_size=3))
ENTRIES = st.dictionaries(
    st.sampled_from(["name", "uid", "gid", "comment", "shell", "groups", "keys", "state", "admin", "password_hash"]), VALUES, max_size=8
)


@given(st.lists(ENTRIES, max_size=4), st.lists(ENTRIES, max_size=3), st.text(max_size=8))
def test_whatever_is_written_gets_an_answer_on_one_line(users: list[Any], groups: list[Any], data_group: str) -> None:
    for problem in accounts.problems(Request(users, groups, data_group), NODE):
        assert problem.startswith(("base_users: ", "base_groups: ", "base_data_group: "))
        assert problem.isprintable()


@given(st.text(min_size=1, max_size=34), st.integers())
def test_who_is_taken_changes_nobody_elses_account(name: str, uid: int) -> None:
    if not found([{"name": name, "uid": uid}]):
        there = NODE.accounts.get(name)
        assert there["uid"] == uid if there else uid >= 1000 and uid not in {each["uid"] for each in NODE.accounts.values()}
        assert not set(name) & set(":/,;\n\"'$\\ ")
