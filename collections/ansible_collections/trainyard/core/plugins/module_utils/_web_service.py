# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""What is wrong with the wishes for a web service that guards itself by TLS and a password."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _password as passwords
from ansible_collections.trainyard.core.plugins.module_utils import _tls as tls

USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
KERNEL = re.compile(r"[a-z0-9][a-z0-9._-]*")
LAB_NAME = re.compile(r"[\w .,:()+&-]{1,255}")  # it is in a unit, an HTTP header and a page
VAULT = "$ANSIBLE_VAULT"


def problems(wishes: Mapping[str, Any], role: str) -> list[str]:
    """Return one sentence for each thing that could not be done or would not be safe.

    Args:
        wishes: the role's variables without their prefix: password, listen, port, tls_certificate, tls_key (paths on the
            controller), lab_name, and where the role has them user, login, environments, default_environment, environment_folders,
            hidden_environments.
        role: prefix of the variables, for the sentences.
    """
    listen, port = str(wishes["listen"]), int(wishes["port"])
    found = [
        _listen_problem(listen, role),
        "" if 1024 <= port <= 65535 else f"{role}_port is {port}: an unprivileged service can have 1024 to 65535.",
        _password_problem(wishes["password"], role),
        *_certificate_problems(str(wishes["tls_certificate"] or ""), str(wishes["tls_key"] or ""), role),
    ]
    if "user" in wishes:
        found.append(_user_problem(str(wishes["user"]), wishes.get("uid"), role))
    if "login" in wishes and (not wishes["login"] or ":" in str(wishes["login"])):
        found.append(f"{role}_login is '{wishes['login']}': it needs at least one character and no colon.")
    if "lab_name" in wishes and not LAB_NAME.fullmatch(str(wishes["lab_name"])):
        found.append(f"{role}_lab_name is '{wishes['lab_name']}'. A lab's name has 1 to 255 letters, digits, spaces and . , : ( ) + & - _.")
    default, names = str(wishes.get("default_environment") or ""), [str(item["name"]) for item in wishes.get("environments") or []]
    if default and default not in names:
        found.append(f"{role}_default_environment: '{default}' is not in {role}_environments. Known: {', '.join(names) or 'none'}.")
    found += _environment_problems(wishes.get("environments") or [], role)
    for variable in ("environment_folders", "hidden_environments"):
        found += [
            f"{role}_{variable}: '{path}' is no absolute path: it must start with /."
            for path in wishes.get(variable) or []
            if not os.path.isabs(str(path))
        ]
    return [problem for problem in found if problem]


def _listen_problem(listen: str, role: str) -> str:
    try:
        ipaddress.ip_address(listen)
    except ValueError:
        if listen != "localhost":
            return f"{role}_listen is '{listen}', which is no IP address. Say 127.0.0.1 for this node alone, 0.0.0.0 for the network."
    return ""


def _password_problem(password: Any, role: str) -> str:
    variable = f"{role}_password"
    if not isinstance(password, str):
        return f"{variable} is no text. Put it in quotes: without them YAML makes numbers, dates and lists of what looks like one."
    if not password.strip():
        return (
            f"{variable} is not set. Set it, best in an encrypted file "
            f"(ansible-vault create inventory/YOURS/group_vars/all/vault.yml); there is no default password."
        )
    if password != password.strip() or "\n" in password:
        return (
            f"{variable} begins or ends with a space, or holds a line break, which login pages take off. "
            "A file that was read by a lookup may end with one."
        )
    weak = passwords.weakness(password)
    if weak:
        return (
            f"{variable} is too weak: {weak}. Everybody who can log in to the node reaches the service, on loopback as well. "
            f"Choose a password that has {passwords.RULE}."
        )
    return ""


def _certificate_problems(certificate: str, key: str, role: str) -> list[str]:
    given = {f"{role}_tls_certificate": certificate, f"{role}_tls_key": key}
    if not any(given.values()):
        return []  # self-made
    missing = [name for name, path in given.items() if not path]
    if missing:
        there = next(name for name, path in given.items() if path)
        return [f"{there} is set and {missing[0]} is not. Set both, or neither for a self-made certificate."]
    texts = []
    for name, path in given.items():
        try:
            with open(os.path.expanduser(path), encoding="utf-8") as file:
                texts.append(file.read())
        except (OSError, UnicodeDecodeError) as error:
            return [f"{name} is {path}, a file on the controller that cannot be read: {getattr(error, 'strerror', 'it is no text')}."]
    if any(text.startswith(VAULT) for text in texts):
        return []  # decrypted on its way to the node, and looked at there before anything is replaced
    try:
        tls.inspect(*texts)
    except tls.TlsError as error:
        return [f"{role}_tls_certificate and {role}_tls_key cannot be used: {error}."]
    return []


def _user_problem(user: str, uid: Any, role: str) -> str:
    if user == "root" or str(uid) == "0":
        return f"{role}_user is {user}, the superuser. Name an ordinary account, or leave it at {role}, which is made where it is missing."
    if not USER.fullmatch(user):
        return f"{role}_user is '{user}', which is no name for an account: small letters, digits, - and _."
    return ""


def _environment_problems(environments: Sequence[Mapping[str, Any]], role: str) -> list[str]:
    names = [str(item["name"]) for item in environments]
    found = [f"{role}_environments names {name} twice." for name in sorted(set(names)) if names.count(name) > 1]
    for name in names:
        if not KERNEL.fullmatch(name):
            found.append(f"{role}_environments: '{name}' is no name for a kernel: small letters, digits, dots, - and _.")
    for item in environments:
        if not os.path.isabs(str(item["path"])):
            found.append(f"{role}_environments: the path of {item['name']} is '{item['path']}', it must start with /.")
    return found
