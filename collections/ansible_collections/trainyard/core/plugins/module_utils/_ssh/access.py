# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Why sshd on a node would refuse a user of the lab, and what would be right: pure functions."""

from __future__ import annotations

import datetime
import fnmatch
import posixpath
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.trainyard.core.plugins.module_utils import _sshd
from ansible_collections.trainyard.core.plugins.module_utils._sshd import Account, Effective

RSA_MINIMUM = 1024
"""Shorter ones are refused by every sshd."""
_KIND = re.compile(r"(ssh|ecdsa|sk)-[a-z0-9@.-]+\Z")
_NAMES = {"allowusers": "AllowUsers", "allowgroups": "AllowGroups", "denyusers": "DenyUsers", "denygroups": "DenyGroups"}


@dataclass(frozen=True)
class User:
    """A user as the inventory has her.

    Attributes:
        name: her login name.
        shell: her login shell.
        groups: groups beside her own.
        keys: lines as in ``authorized_keys``.
    """

    name: str
    shell: str = "/bin/bash"
    groups: Sequence[str] = ()
    keys: Sequence[str] = ()


@dataclass(frozen=True)
class Node:
    """What of a node does not depend on the user.

    Attributes:
        today: days since 1970, as the shadow file counts.
        now: the time in UTC, as 20260131120000.
        place: keyword -> which line of sshd's configuration sets it, such as "/etc/ssh/sshd_config.d/10-site.conf line 1".
        shells: the shells of /etc/shells where PAM lets in no others; None where it does not ask.
        packages: packages that will be installed before the users are made.
    """

    today: int
    now: str
    place: Callable[[str], str]
    shells: Collection[str] | None = None
    packages: Collection[str] = ()


@dataclass(frozen=True)
class There:
    """What the node has of a user.

    Attributes:
        account: her account; None where it is yet to be made.
        home: her home, or where it will be.
        shell_runs: whether the shell of the inventory is there and may be executed.
        password_due: whether her password has to be changed at the next login.
        insecure: paths that StrictModes refuses, each with the reason.
        keys_elsewhere: whether one of her keys is in a file that sshd reads, other than the one in her home.
    """

    account: Account | None
    home: str
    shell_runs: bool = True
    password_due: bool = False
    insecure: Sequence[str] = field(default_factory=tuple)
    keys_elsewhere: bool = False


def password_due(shadow: Sequence[str], today: int) -> bool:
    """Return whether a line of the shadow file, split at its colons, demands a new password at the next login."""
    last, longest = (int(shadow[at]) if len(shadow) > at and shadow[at].isdigit() else None for at in (2, 4))
    if last == 0:
        return True
    return last is not None and longest is not None and 0 <= longest < 99999 and today > last + longest


def key_trouble(line: str, rules: Effective, now: str) -> str:
    """Say why sshd would not accept a key of ``authorized_keys`` under these rules; empty where it would."""
    words = line.split()
    at = next((index for index, word in enumerate(words) if _KIND.match(word)), None)
    if at is None or at + 1 >= len(words):
        return "is not a public key"
    kind, options = words[at], " ".join(words[:at])
    if re.search(r"(^|,)cert-authority(,|$)", options):
        return ""
    bits = _sshd.rsa_bits(f"{kind} {words[at + 1]}")
    minimum = max(RSA_MINIMUM, int("".join(rules.get("requiredrsasize", [])) or 0))
    if bits and bits < minimum:
        return (
            f"is an RSA key of {bits} bits, and sshd refuses keys under {minimum} bits here (RequiredRSASize). "
            "Make a new one: ssh-keygen -t ed25519"
        )
    accepted = ",".join(rules.get("pubkeyacceptedalgorithms", rules.get("pubkeyacceptedkeytypes", [])))
    algorithms = ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"] if kind == "ssh-rsa" else [kind]
    if accepted and not any(fnmatch.fnmatchcase(name, pattern) for name in algorithms for pattern in accepted.split(",")):
        return f"is of the type {kind}, which sshd does not accept here (PubkeyAcceptedAlgorithms). Make a new one: ssh-keygen -t ed25519"
    ends = re.search(r'expiry-time="(\d{8,14})Z?"', options)
    if ends and ends[1].ljust(14, "0") < now:
        return f"has expired: its option expiry-time is {ends[1]}"
    return ""


def problems(user: User, there: There, rules: Effective, node: Node) -> tuple[list[str], list[str]]:
    """Say what keeps a user from logging in with her keys.

    Args:
        user: as the inventory has her.
        there: what the node has of her.
        rules: sshd's effective configuration for her.
        node: the rest.

    Returns:
        a sentence or two for each reason; and remarks on keys that are of no use beside others that are.
    """

    def rule(keyword: str) -> str:
        return " ".join(rules.get(keyword, []))

    def at(keyword: str) -> str:
        place = node.place(keyword)
        return f" ({place})" if place else ""

    where = f"base_users: sshd on this node would refuse the user '{user.name}':"
    found = [*_lists(user, there, rules, node), *_shell(user, there, node)]
    troubles = [(number, key_trouble(key, rules, node.now)) for number, key in enumerate(user.keys, 1)]
    refused = [f"entry {number} of keys {trouble}." for number, trouble in troubles if trouble]
    by_password = "yes" in (rule("passwordauthentication"), rule("kbdinteractiveauthentication"))
    by_command = rule("authorizedkeyscommand") not in {"", "none"}
    if user.keys and len(refused) == len(user.keys) and not by_password:
        found += refused
        refused = []
    if user.keys and rule("pubkeyauthentication") == "no" and not by_password:
        found.append(f"PubkeyAuthentication is 'no'{at('pubkeyauthentication')}, and passwords are switched off. Set it to 'yes'.")
    own = posixpath.join(there.home, ".ssh/authorized_keys")
    uid = there.account.uid if there.account else 0
    files = [posixpath.normpath(path) for path in _sshd.key_files(user.name, there.home, uid, rules)]
    if user.keys and own not in files and not (by_password or by_command or there.keys_elsewhere):
        found.append(
            f"AuthorizedKeysFile is '{rule('authorizedkeysfile')}'{at('authorizedkeysfile')}, so the keys in {own} are not read. "
            "Add .ssh/authorized_keys to that line, or remove the line."
        )
    if user.keys and rule("strictmodes") != "no" and there.insecure and not by_password:
        found.append(
            f"StrictModes refuses the keys since others may write to {', '.join(there.insecure)}. "
            f"Correct it on the node: chown {user.name} PATH; chmod go-w PATH"
        )
    found += _account(user, there, rules, node)
    return [f"{where} {reason}" for reason in found], [f"base_users: the user '{user.name}': {remark}" for remark in refused]


def _lists(user: User, there: There, rules: Mapping[str, Sequence[str]], node: Node) -> list[str]:
    """Return what AllowUsers and its kin have against a user."""
    found = []
    groups = list(dict.fromkeys([*(there.account.groups if there.account else [user.name]), *user.groups]))
    for keyword in _sshd.WHO:
        patterns = " ".join(rules.get(keyword, [])).split()
        name, of_groups = _NAMES[keyword], keyword.endswith("groups")
        names = groups if of_groups else [user.name]
        place = node.place(keyword)
        line = f"{name} ({' '.join(patterns)}{f'; {place}' if place else ''})"
        if keyword.startswith("allow") and patterns and not _sshd.listed(patterns, names):
            cure = "Add one of them there, or give the user a group from that line (groups)." if of_groups else f"Add {user.name} there."
            found.append(f"{line} lists {'none of the groups ' + ', '.join(groups) if of_groups else 'other users only'}. {cure}")
        # A denial for some hosts only keeps nobody out of the others.
        elif keyword.startswith("deny") and _sshd.listed([pattern for pattern in patterns if "@" not in pattern], names):
            cure = "Remove the group there, or from the user's groups." if of_groups else f"Remove {user.name} there."
            found.append(f"{line} lists {'a group of the user' if of_groups else 'the user'}. {cure}")
    return found


def _shell(user: User, there: There, node: Node) -> list[str]:
    """Return what is wrong with the shell of a user."""
    name = posixpath.basename(user.shell)
    if name in {"nologin", "false"}:
        return [f"the shell {user.shell} lets nobody in. Set shell to /bin/bash."] if user.keys else []
    if not there.shell_runs and name not in node.packages:
        return [
            f"the shell {user.shell} does not exist, or cannot be executed. Add its package (as a rule {name}) to base_packages, "
            "or set shell to one that is installed, such as /bin/bash."
        ]
    if there.shell_runs and node.shells is not None and user.shell not in node.shells:
        return [
            f"the shell {user.shell} is not in /etc/shells, and PAM (pam_shells) lets in no others. Add it there, or set another shell."
        ]
    return []


def _account(user: User, there: There, rules: Mapping[str, Sequence[str]], node: Node) -> list[str]:
    """Return what is wrong with an account that is there already."""
    account = there.account
    if not account:
        return []
    found = []
    pam = " ".join(rules.get("usepam", [])) != "no"
    if not pam and account.password.startswith("!"):
        found.append(
            f"the account is locked (its password begins with '!'), and without UsePAM sshd lets no locked account in. "
            f"On the node: usermod -p '*' {user.name}, or set UsePAM to 'yes'."
        )
    if account.expires is not None and 0 <= account.expires <= node.today:
        day = datetime.date(1970, 1, 1) + datetime.timedelta(days=account.expires)
        found.append(f"the account expired on {day}. Renew it on the node: chage -E -1 {user.name}")
    if pam and there.password_due:
        found.append(
            "its password has expired, which PAM asks for even after a login with a key. "
            f"On the node: chage -d $(date +%F) -M -1 {user.name}"
        )
    return found
