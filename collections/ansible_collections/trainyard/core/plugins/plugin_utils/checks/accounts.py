# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with ``base_users`` and ``base_groups``, by themselves and against the accounts that a node has already."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _base
from ansible_collections.trainyard.core.plugins.module_utils._host.reported import printable, shown

_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,31}\Z")
_HASH = re.compile(
    r"\$6\$(rounds=\d+\$)?[^$:\s]{1,16}\$[./A-Za-z0-9]{86}\Z"
    r"|\$5\$(rounds=\d+\$)?[^$:\s]{1,16}\$[./A-Za-z0-9]{43}\Z"
    r"|\$g?y\$[./A-Za-z0-9]+\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}\Z"
    r"|\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}\Z"
)
_RESERVED = ((61184, 65519, "systemd gives these to services for as long as they run"), (65534, 65535, "they stand for nobody"))
_LARGEST = 2**31 - 1
_NO_LOGIN = ("/nologin", "/false")


@dataclass(frozen=True)
class Node:
    """What a node has already, as the module ``account_info`` returns it.

    Attributes:
        accounts: name -> ``uid``, ``gid``, ``home``, ``shell`` and ``password``, whether a password lets her in.
        groups: name -> gid.
        homes: path -> uid of its owner, for the folders in ``/home``.
        lowest: the lowest number of an account for a person (UID_MIN).
        login: the account that this run logs in with.
        sudo_folder: whether sudo reads ``/etc/sudoers.d``; so does one that is yet to be installed.
        free_groups: groups whose members sudo does not ask for a password.
    """

    accounts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    homes: Mapping[str, int] = field(default_factory=dict)
    lowest: int = 1000
    login: str = ""
    sudo_folder: bool = True
    free_groups: Collection[str] = ()


@dataclass(frozen=True)
class Request:
    """The variables of the role ``base`` that concern accounts.

    Attributes:
        users: ``base_users``.
        groups: ``base_groups``.
        data_group: ``base_data_group``.
        packages: ``base_packages`` that may not be installed yet, and may bring groups along.
        keys_only: whether passwords are going to be switched off for logins.
        homes: whether the node has the homes.
    """

    users: Any
    groups: Any
    data_group: str
    packages: Any = ()
    keys_only: bool = False
    homes: bool = True


def list_problem(variable: str, value: Any, example: str) -> str:
    """Say why a value is no list; '' where it is one. Of a text, Ansible would take each letter."""
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return ""
    kind = "text" if isinstance(value, str) else "a dictionary" if isinstance(value, Mapping) else type(value).__name__
    return f"{variable}: this is {kind}, and has to be a list, even for one entry, such as {variable.rpartition(' ')[2]}: {example}."


def problems(request: Request, node: Node | None = None) -> list[str]:
    """Return one or more sentences for each entry that cannot be made, or would change what is somebody else's.

    Args:
        request: the variables.
        node: what the node has; without it the variables are judged by themselves.
    """
    found = [
        list_problem("base_users", request.users, '[{name: alice, keys: ["ssh-ed25519 ..."]}]'),
        list_problem("base_groups", request.groups, "[{name: lab}]"),
        list_problem("base_packages", request.packages, "[tmux, git]"),
    ]
    if any(found):
        return [each for each in found if each]
    for variable, entries in (("base_users", request.users), ("base_groups", request.groups)):
        found += [f"{variable}: entry {at} is not a dictionary with a name, such as {{name: lab}}."
                  for at, each in enumerate(entries, 1) if not isinstance(each, Mapping) or each.get("name") in (None, "")]  # fmt: skip
    if any(found):
        return [each for each in found if each]
    users, groups = _entries(request.users), _entries(request.groups)
    found = [*_twice("base_users", users, "uid"), *_twice("base_groups", groups, "gid")]
    for user in users:
        found += [f"base_users: the user {shown(user['name'])} {reason}" for reason in _user(user, request)]
    for group in groups:
        found += [f"base_groups: the group {shown(group['name'])} {reason}" for reason in _group(group)]
    if node and not found:
        for user in users:
            found += [f"base_users: the user {shown(user['name'])} {reason}" for reason in _user_on(node, user, users)]
            found += [f"base_users: the user {shown(user['name'])} {reason}" for reason in _groups_on(node, user, request, users, groups)]
        for group in groups:
            found += [f"base_groups: the group {shown(group['name'])} {reason}" for reason in _group_on(node, group, users)]
        found += _data_group(node, request, users, groups)
    return found


def remarks(request: Request, node: Node) -> list[str]:
    """Return a sentence for each user whom sudo would ask for a password that she does not have."""
    found = []
    for user in _entries(request.users):
        powerful = [group for group in user.get("groups") or [] if group in ("sudo", "wheel", "admin") and group not in node.free_groups]
        has = user.get("password_hash") or node.accounts.get(str(user["name"]), {}).get("password")
        if powerful and _stays(user) and not user.get("admin") and not has:
            found.append(
                f"base_users: sudo asks {user['name']}, a member of {powerful[0]}, for a password, and that account has none. "
                "Set admin: true for sudo without a password, or password_hash."
            )
    return found


# --- an entry by itself ----------------------------------------------------------------------------------------------


def _entries(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**each, "name": str(each["name"])} for each in entries]


def _stays(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("state", "present") != "absent")


def _twice(variable: str, entries: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """Return names and numbers that several entries have."""
    found, what = [], variable.removeprefix("base_").removesuffix("s")
    names: set[str] = set()
    numbers: dict[Any, str] = {}
    for each in entries:
        name, number = each["name"], _number(each.get(key))
        if name in names:
            found.append(f"{variable}: the {what} {shown(name)} is listed twice. Remove one of the entries.")
        elif number is not None and _stays(each) and numbers.setdefault(number, name) != name:
            found.append(f"{variable}: the {what} {shown(name)} has the {key} {number}, which {numbers[number]!r} has as well.")
        names.add(name)
    return found


def _number(value: Any) -> int | None:
    """Return a number, also where it was written as text; None where it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    return int(value) if isinstance(value, str) and re.match(r"-?\d+\Z", value) else None


def _name_reasons(name: str) -> list[str]:
    """Say what is wrong with the name of an account or a group.

    What is accepted here, useradd and groupadd of Debian 12 and 13 accept as well. Debian 12
    accepts more, such as ``a;b`` and ``a/b``: files of sudo, sshd and Slurm, and paths, read other characters as more than a name.
    """
    if name == "root":
        return ["is not the lab's to manage."]
    if name.isdigit() and name.isascii():
        return [
            "has a name of digits alone, which programs take for a number (chown, id), and useradd refuses from Debian 13 on. "
            f"Put a letter in front, such as u{name}."
        ]
    if not _NAME.match(name) or name in (".", ".."):
        return [
            "has a name that is not allowed: letters from a to z in either case, digits, and . _ -; not - first; 32 characters at most."
        ]
    return []


def _number_reasons(entry: Mapping[str, Any], key: str) -> list[str]:
    value = entry.get(key)
    if value is None:
        return []
    number = _number(value)
    if number is None:
        return [f"has the {key} {shown(value)}, which is not a number. Use a whole number such as 3001."]
    if not 0 <= number <= _LARGEST:
        return [f"has the {key} {number}, which no system accepts. Use a number from 1000 to 60000."]
    reason = next((reason for first, last, reason in _RESERVED if first <= number <= last), "")
    return [f"has the {key} {number}; numbers like it are reserved, since {reason}. Use a number from 1000 to 60000."] if reason else []


def _user(user: Mapping[str, Any], request: Request) -> list[str]:
    """Say what is wrong with an entry of ``base_users`` on any node."""
    name = user["name"]
    found = [*_name_reasons(name), *_number_reasons(user, "uid")]
    if not _stays(user):
        return found
    for key in ("keys", "groups"):
        value = user.get(key)
        if isinstance(value, str) or (value is not None and not isinstance(value, Sequence)):
            example = '["ssh-ed25519 ..."]' if key == "keys" else "[lab]"
            found.append(f"has text in {key}, which has to be a list, even for one entry, such as {key}: {example}.")
    keys = user.get("keys")
    if request.keys_only and not keys:
        found.append(
            f"has no entry in keys, and ssh_hardening switches passwords off, so nobody could log in as {name}. "
            "Add a public key to keys, or set ssh_hardening_enabled: false."
        )
    for at, key in enumerate(keys if isinstance(keys, Sequence) and not isinstance(keys, str) else [], 1):
        problem = _base.key_problem(str(key))
        found += [f"has a wrong key: entry {at} of keys {problem}."] if problem else []
    comment, shell = str(user.get("comment") or ""), str(user.get("shell") or "/bin/bash")
    if ":" in comment or not comment.isprintable():
        found.append(
            f"has the comment {shown(comment)}; a colon or a line break would end it in /etc/passwd. Leave it out, or use a comma."
        )
    if not re.match(r"/[^:\s]*\Z", shell):
        found.append(f"has the shell {shown(shell)}; a shell is an absolute path without blanks or colons, such as /bin/bash.")
    if not isinstance(user.get("admin", False), bool):
        found.append(f"has admin: {shown(user['admin'])}. Use true or false, without quotes.")
    secret = user.get("password_hash")
    if secret is not None and not (isinstance(secret, str) and _HASH.match(secret)):
        found.append(
            "has something in password_hash that is not a hash of crypt(3); a plain password is never accepted. Make one with "
            "`mkpasswd --method=yescrypt` (package whois) or `openssl passwd -6`, and keep it in a vault."
        )
    return found


def _group(group: Mapping[str, Any]) -> list[str]:
    return [*_name_reasons(group["name"]), *_number_reasons(group, "gid")]


# --- against a node --------------------------------------------------------------------------------------------------


def _owner(node: Node, number: int) -> str:
    return next((printable(name) for name, each in node.accounts.items() if each["uid"] == number), "")


def _user_on(node: Node, user: Mapping[str, Any], users: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what an entry of ``base_users`` would do to others on the node, or to an account that the system made."""
    name, number, account = user["name"], _number(user.get("uid")), node.accounts.get(user["name"])
    if account:
        return _existing(node, user, number, account)
    if not _stays(user):
        return []
    found = []
    other = "" if number is None else _owner(node, number)
    if other:
        found.append(f"has the uid {number}, which belongs to the account '{other}' on this node. Give one of them another number.")
    elif number is not None and number < node.lowest:
        found.append(f"has the uid {number}; numbers below {node.lowest} are the system's. Use a number from {node.lowest} to 60000.")
    if name in node.groups:
        found.append(
            f"cannot be made: this node has a group {name}, and no account of that name. Choose another login name; where the group was "
            f"left behind by a former account, remove it on the node: sudo groupdel {name}"
        )
    return [*found, *(_home(node, user, number) if not other else [])]


def _existing(node: Node, user: Mapping[str, Any], number: int | None, account: Mapping[str, Any]) -> list[str]:
    """Say why an account that is there is not this user's. Nothing that files and processes carry is changed."""
    name, uid = user["name"], account["uid"]
    # Older systems gave people lower numbers, and some labs their own admin: she has a shell, and a home of a person or her number here.
    named = str(account["home"]).startswith("/home/") or (number == uid and _stays(user))
    person = uid >= node.lowest or (named and uid != 0 and not str(account["shell"]).endswith(_NO_LOGIN))
    if not person or uid == 65534:
        return [f"is a system account of this node (uid {uid}), and not a person's. Choose another login name."]
    if not _stays(user):
        return ["is the account that this run logs in with, and cannot be removed by it. Remove the entry."] if name == node.login else []
    if number is not None and number != uid:
        return [
            f"has the uid {uid} on this node, and {number} in the inventory. Running processes and files carry the number, so it is not "
            f"changed. Set uid: {uid}. To change it by hand, while {name} is logged out: sudo usermod -u {number} {name}, then chown "
            "the files outside the home."
        ]
    return []


def _home(node: Node, user: Mapping[str, Any], number: int | None) -> list[str]:
    """Say whose files a new account would get, or not get, by its number."""
    home = f"/home/{user['name']}"
    owner = node.homes.get(home)
    if owner is not None and owner != number:
        whose = _owner(node, owner)
        belongs = (
            f"the account '{whose}'. Move it away"
            if whose
            else f"the number {owner} of a former account. " + (f"Where it is this user's own, set uid: {owner}; otherwise move it away")
        )
        return [f"would find the home {home}, which belongs to {belongs} on the node: sudo mv {home} {home}.old"]
    former = {path: uid for path, uid in node.homes.items() if uid >= node.lowest and not _owner(node, uid) and path != home}
    left = sorted(path for path, uid in former.items() if uid == number)
    if left:
        return [
            f"has the uid {number}, and would own {printable(left[0])}, the home of a former account. Give another number, or hand "
            f"that folder over first: sudo chown -R root: {printable(left[0])}"
        ]
    highest = max((each["uid"] for each in node.accounts.values() if node.lowest <= each["uid"] <= 60000), default=node.lowest - 1)
    again = sorted(path for path, uid in former.items() if highest < uid <= 60000)
    if number is None and again:
        return [
            f"has no uid, and the system could give the number of a former account again, whose home is {printable(again[0])}. Set a uid "
            "that nobody had, or hand that folder over first."
        ]
    return []


def _groups_on(
    node: Node, user: Mapping[str, Any], request: Request, users: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Say which groups of a user there are not, and what admins would lack."""
    if not _stays(user):
        return []
    known = _known_groups(node, users, groups)
    found = []
    for group in user.get("groups") or []:
        if group not in known and not _comes_with(str(group), request.packages):
            found.append(
                f"is to be in the group {shown(group)}, which neither this node nor base_groups has.{_nearest(str(group), known)} "
                "Add it to base_groups, or its package to base_packages where a package makes it."
            )
    if user.get("admin") is True and not node.sudo_folder:
        found.append(
            "has admin: true, and /etc/sudoers on this node does not read /etc/sudoers.d. "
            "Add the line @includedir /etc/sudoers.d with visudo."
        )
    return found


def _known_groups(node: Node, users: Iterable[Mapping[str, Any]], groups: Iterable[Mapping[str, Any]]) -> set[str]:
    return {*node.groups, *(group["name"] for group in groups), *(user["name"] for user in users if _stays(user))}


def _comes_with(group: str, packages: Iterable[Any]) -> bool:
    """Return whether a package that is yet to be installed has such a name that it may make the group, as docker.io makes docker."""
    return any(str(package).startswith(group) for package in packages)


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, sorted(known), n=1)
    return f" Did you mean {printable(near[0])}?" if near else ""


def _group_on(node: Node, group: Mapping[str, Any], users: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what an entry of ``base_groups`` would do to others on the node."""
    name, number = group["name"], _number(group.get("gid"))
    there = node.groups.get(name)
    if there is not None:
        if number is None or number == there:
            return []
        return [
            f"has the gid {there} on this node, and {number} in the inventory. Files carry the number, so it is not changed. "
            f"Set gid: {there}. To change it by hand: sudo groupmod -g {number} {name}, then chgrp the files."
        ]
    found = []
    if any(user["name"] == name and _stays(user) and name not in node.accounts for user in users):
        found.append("has the name of a user of base_users, whose own group is called so. Give the group another name.")
    if number is not None:
        other = next((printable(each) for each, gid in node.groups.items() if gid == number), "")
        if other:
            found.append(f"has the gid {number}, which belongs to the group '{other}' on this node. Give one of them another number.")
        elif number < node.lowest:
            found.append(f"has the gid {number}; numbers below {node.lowest} are the system's. Use a number from {node.lowest} to 60000.")
    return found


def _data_group(
    node: Node, request: Request, users: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]]
) -> list[str]:  # fmt: skip
    known = _known_groups(node, users, groups)
    if request.data_group in known or _comes_with(request.data_group, request.packages):
        return []
    return [
        f"base_data_group: neither this node nor base_groups has a group {shown(request.data_group)}."
        f"{_nearest(request.data_group, known)} Add it to base_groups, or set base_data_group to another."
    ]
