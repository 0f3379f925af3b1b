"""What keeps a user out although she has a key, and the words for it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.module_utils._ssh import access
from ansible_collections.trainyard.core.plugins.module_utils._sshd import Account, Effective

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJrvGRH1a3gwGQ+tT1L2yusnNqXqvFQuduzeYBZqU5TE bob"
RULES: Effective = {
    "usepam": ["yes"],
    "pubkeyauthentication": ["yes"],
    "passwordauthentication": ["no"],
    "kbdinteractiveauthentication": ["no"],
    "strictmodes": ["yes"],
    "requiredrsasize": ["2048"],
    "pubkeyacceptedalgorithms": ["ssh-ed25519,sk-ssh-ed25519@openssh.com,rsa-sha2-512,rsa-sha2-256"],
    "authorizedkeysfile": [".ssh/authorized_keys .ssh/authorized_keys2"],
}
SITE = "/etc/ssh/sshd_config.d/10-site.conf line 1"


@pytest.fixture(scope="module")
def rsa(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Real RSA keys by size."""
    found = {}
    for bits in (1024, 2048):
        path = tmp_path_factory.mktemp("key") / "id"
        subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", str(bits), "-N", "", "-C", "bob", "-f", str(path)], check=True)
        found[bits] = Path(f"{path}.pub").read_text().strip()
    return found


def said(
    rules: dict[str, list[str]] | None = None,
    account: Account | None = None,
    *,
    shells: list[str] | None = None,
    packages: tuple[str, ...] = (),
    there: dict[str, Any] | None = None,
    **user: Any,
) -> list[str]:
    """Return the problems of the user bob."""
    machine = access.Node(20000, "20261001120000", lambda keyword: SITE if keyword in (rules or {}) else "", shells, packages)
    seen = access.There(account, "/home/bob", **(there or {}))
    return access.problems(access.User("bob", **{"keys": [ED25519], **user}), seen, {**RULES, **(rules or {})}, machine)[0]


def test_a_user_who_gets_in_is_not_complained_of() -> None:
    assert said() == []
    assert said(account=Account("bob", groups=["bob"])) == []
    assert said({"allowgroups": ["sudo lab"]}, groups=["lab"]) == []
    assert said({"allowusers": ["b*@192.0.2.*"]}) == []
    assert said({"denyusers": ["bob@192.0.2.7"]}) == []
    assert said({"authorizedkeysfile": ["/etc/ssh/keys/%u %h/.ssh/authorized_keys"]}) == []
    assert said({"authorizedkeysfile": ["/etc/ssh/keys/%u"]}, there={"keys_elsewhere": True}) == []
    assert said({"authorizedkeysfile": ["none"], "authorizedkeyscommand": ["/usr/bin/sss_ssh_authorizedkeys"]}) == []


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "no such shell": (
        {"shell": "/usr/bin/fish", "there": {"shell_runs": False}},
        "the shell /usr/bin/fish does not exist, or cannot be executed. Add its package (as a rule fish) to base_packages",
    ),
    "nologin": ({"shell": "/usr/sbin/nologin"}, "the shell /usr/sbin/nologin lets nobody in."),
    "pam_shells": ({"shell": "/opt/sh", "shells": ["/bin/bash"]}, "the shell /opt/sh is not in /etc/shells, and PAM (pam_shells)"),
    "AllowGroups": (
        {"rules": {"allowgroups": ["sudo"]}, "groups": ["lab"]},
        f"AllowGroups (sudo; {SITE}) lists none of the groups bob, lab. Add one of them there, or give the user a group from that line",
    ),
    "AllowUsers": ({"rules": {"allowusers": ["admin"]}}, f"AllowUsers (admin; {SITE}) lists other users only. Add bob there."),
    "DenyUsers": ({"rules": {"denyusers": ["bo?"]}}, f"DenyUsers (bo?; {SITE}) lists the user. Remove bob there."),
    "DenyGroups": ({"rules": {"denygroups": ["lab"]}, "groups": ["lab"]}, f"DenyGroups (lab; {SITE}) lists a group of the user."),
    "AuthorizedKeysFile": (
        {"rules": {"authorizedkeysfile": ["/etc/ssh/keys/%u"]}},
        f"AuthorizedKeysFile is '/etc/ssh/keys/%u' ({SITE}), so the keys in /home/bob/.ssh/authorized_keys are not read.",
    ),
    "no public keys": ({"rules": {"pubkeyauthentication": ["no"]}}, f"PubkeyAuthentication is 'no' ({SITE})"),
    "StrictModes": (
        {"there": {"insecure": ["/home/bob (mode 0777)"]}},
        "StrictModes refuses the keys since others may write to /home/bob (mode 0777).",
    ),
    "expired": ({"account": Account("bob", groups=["bob"], expires=1)}, "the account expired on 1970-01-02."),
    "locked": (
        {"rules": {"usepam": ["no"]}, "account": Account("bob", groups=["bob"], password="!x")},
        "the account is locked (its password begins with '!'), and without UsePAM",
    ),
    "password": (
        {"account": Account("bob", groups=["bob"]), "there": {"password_due": True}},
        "its password has expired, which PAM asks for even after a login with a key.",
    ),
    "type": (
        {"keys": ["ecdsa-sha2-nistp256 AAAAE2VjZHNh bob"]},
        "entry 1 of keys is of the type ecdsa-sha2-nistp256, which sshd does not accept here (PubkeyAcceptedAlgorithms).",
    ),
    "key has expired": (
        {"keys": [f'expiry-time="20260930" {ED25519}']},
        "entry 1 of keys has expired: its option expiry-time is 20260930.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_keeps_a_user_out_is_named_with_the_variable_and_the_cure(case: str) -> None:
    given, expected = CASES[case]
    (problem,) = said(given.get("rules"), **{key: value for key, value in given.items() if key != "rules"})
    assert problem.startswith(f"base_users: sshd on this node would refuse the user 'bob': {expected}")


def test_a_shell_that_a_package_will_bring_is_waited_for() -> None:
    assert said(shell="/usr/bin/fish", packages=("fish",), there={"shell_runs": False}) == []


def test_short_rsa_keys_are_refused_as_sshd_refuses_them(rsa: dict[int, str]) -> None:
    assert said(keys=[rsa[2048]]) == []
    (problem,) = said(keys=[rsa[1024]])
    assert "entry 1 of keys is an RSA key of 1024 bits, and sshd refuses keys under 2048 bits here (RequiredRSASize)." in problem
    assert said({"requiredrsasize": ["1024"]}, keys=[rsa[1024]]) == []
    assert "under 3072 bits" in said({"requiredrsasize": ["3072"]}, keys=[rsa[2048]])[0]


def test_a_refused_key_beside_a_good_one_is_a_remark(rsa: dict[int, str]) -> None:
    machine = access.Node(20000, "20261001120000", lambda _keyword: "")
    user = access.User("bob", keys=[rsa[1024], ED25519])
    problems, remarks = access.problems(user, access.There(None, "/home/bob"), RULES, machine)
    assert problems == []
    assert len(remarks) == 1
    assert remarks[0].startswith("base_users: the user 'bob': entry 1 of keys is an RSA key of 1024 bits")


def test_where_passwords_are_let_in_keys_are_not_the_only_way(rsa: dict[int, str]) -> None:
    assert said({"passwordauthentication": ["yes"]}, keys=[rsa[1024]]) == []
    assert len(said({"passwordauthentication": ["yes"], "denyusers": ["bob"]})) == 1


@pytest.mark.parametrize(
    ("line", "due"),
    [
        ("bob:*:20000:0:99999:7:::", False),
        ("bob:*:0:0:99999:7:::", True),
        ("bob:*:19000:0:90:7:::", True),
        ("bob:*:19990:0:90:7:::", False),
        ("bob:*:19000:0:-1:7:::", False),
        ("bob:*::::::", False),
        ("", False),
    ],
)
def test_a_password_is_due_as_the_shadow_file_says(line: str, due: bool) -> None:
    assert access.password_due(line.split(":"), 20000) is due
