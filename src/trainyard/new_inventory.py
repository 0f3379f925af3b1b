"""A new inventory from a few answers: each checked by itself, then written out as a folder of short, commented files. Pure."""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import yaml

GROUPS = {"all", "ungrouped", "gpu", "notebooks", "conda", "cluster", "slurm_controller", "slurm_compute", "slurm_submit"}
"""Groups of an inventory, whose names no node may have."""
SECRETS = ".secrets"
"""Folder for what is made at random; hidden, so that Ansible does not read it as hosts."""

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


class AnswerError(ValueError):
    """An answer that cannot be used; the message says why and what could be."""


@dataclass(frozen=True)
class Answers:
    """What an inventory is made of.

    Attributes:
        servers: name -> address; empty where the name itself is the address.
        gpus: the servers with NVIDIA GPUs.
        account: which logs in.
        controller: the server that schedules a Slurm cluster of all servers; empty for no cluster.
        frameworks: environments of the catalogue.
        mirror: of packages; empty for none.
    """

    servers: Mapping[str, str]
    gpus: Sequence[str] = field(default_factory=tuple)
    account: str = "admin"
    controller: str = ""
    frameworks: Sequence[str] = ("pytorch", "tensorflow")
    mirror: str = ""


# -------------------------------------------------------------------------------------------------------------- checking


def servers_of(text: str) -> dict[str, str]:
    """Return the servers of a list such as ``head=192.0.2.10, gpu1=192.0.2.11``.

    Raises:
        AnswerError: an entry is unusable or there is none.
    """
    found: dict[str, str] = {}
    for entry in _words(text):
        name, _equals, address = (part.strip() for part in entry.partition("="))
        if not _NAME.fullmatch(name):
            hint = " Write each server by itself." if "[" in name else ""
            raise AnswerError(f"'{name}' is not a host name: lower-case letters, digits and hyphens, and a letter first.{hint}")
        if name in GROUPS or name == "localhost":
            raise AnswerError(f"'{name}' has a meaning of its own in an inventory. Give the server another name.")
        if name in found:
            raise AnswerError(f"'{name}' is in the list twice.")
        if "=" in entry and not _is_address(address):
            raise AnswerError(f"'{address}' of {name} is not an IP address or a host name.")
        other = next((known for known, place in found.items() if (place or known) == (address or name)), "")
        if other:
            raise AnswerError(f"{other} and {name} have the same address, {address or name}.")
        found[name] = address if address != name else ""
    if not found:
        raise AnswerError("Name at least one server, such as head=192.0.2.10")
    return found


def chosen_of(text: str, servers: Mapping[str, str]) -> tuple[str, ...]:
    """Return which of the servers are named; ``all`` and ``none`` are understood.

    Raises:
        AnswerError: one is not among them.
    """
    if text.strip().lower() in {"all", "none", ""}:
        return tuple(servers) if text.strip().lower() == "all" else ()
    named = [_one_of(word, servers, "server") for word in _words(text)]
    return tuple(name for name in servers if name in named)


def account_of(text: str) -> str:
    """Return the account.

    Raises:
        AnswerError: it is none, or root.
    """
    name = text.strip()
    if name == "root":
        raise AnswerError("Not root, whose login over SSH is closed: an account of your own that may use sudo.")
    if not _ACCOUNT.fullmatch(name):
        raise AnswerError(f"'{name}' is not an account: lower-case letters, digits, - and _, and no digit first.")
    return name


def controller_of(text: str, servers: Mapping[str, str]) -> str:
    """Return the server that schedules; '' for none.

    Raises:
        AnswerError: it is not among the servers, or several are named.
    """
    named = chosen_of("none" if text.strip().lower() == "none" else text, servers)
    if len(named) > 1:
        raise AnswerError("A cluster has one server that schedules. Name one, or none.")
    return named[0] if named else ""


def frameworks_of(text: str, catalogue: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the frameworks that are named.

    Args:
        text: the answer.
        catalogue: name -> its other names.

    Raises:
        AnswerError: one is not in the catalogue, or none is named.
    """
    canonical = {alias: name for name, aliases in catalogue.items() for alias in (name, *aliases)}
    found = tuple(dict.fromkeys(canonical[_one_of(word.lower(), canonical, "framework", shown=catalogue)] for word in _words(text)))
    if not found:
        raise AnswerError("Name at least one framework, such as pytorch")
    return found


def mirror_of(text: str, mirrors: Sequence[str]) -> str:
    """Return the mirror; '' for none.

    Raises:
        AnswerError: there is no such mirror.
    """
    word = text.strip().lower()
    return "" if word in {"", "none"} else _one_of(word, mirrors, "mirror", shown=["none", *mirrors])


def _one_of(word: str, known: Sequence[str] | Mapping[str, object], kind: str, shown: Sequence[str] | Mapping[str, object] = ()) -> str:
    if word not in known:
        near = difflib.get_close_matches(word, list(known), 1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise AnswerError(f"There is no {kind} '{word}'.{hint} Known: {', '.join(shown or known)}")
    return word


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return bool(_HOST.fullmatch(text)) and not re.fullmatch(r"[0-9.]+", text)
    return True


def _words(text: str) -> list[str]:
    """Return the entries of a list with commas or blanks; blanks around = belong to the entry."""
    return re.sub(r"\s*=\s*", "=", text).replace(",", " ").split()


# --------------------------------------------------------------------------------------------------------------- writing


_CONNECTION = """\
---
# An account that logs in with a key and may use sudo; never root. Where sudo asks for a password: ./trainyard apply --ask-become-pass
ansible_user: {account}
"""
_BASE = """\
---
# Where the servers take packages from, Python's among them: tuna, ustc, aliyun, a mirror's URL, or "" for what they use now.
base_package_mirror: {mirror}
framework_env_index_url: {mirror}

# The group that shares the folder /srv/data.
base_groups:
  - {{name: lab}}
base_data_group: lab

# Users with their public keys, which lie in keys/ beside hosts.yml:
# base_users:
#   - name: alice
#     uid: 3001
#     groups: [lab]
#     keys: ["{{{{ lookup('ansible.builtin.file', inventory_dir ~ '/keys/alice.pub') }}}}"]
"""
_PLAN = """\
---
# What every server gets. What fits together, and why: ./trainyard plan -i {shown}
plan_environments: [{frameworks}]

# Read by `plan --offline` alone, which asks no server what it is. Servers that differ have plan_os and plan_gpus in hosts.yml.
plan_os: debian-12
"""
_NOTEBOOKS = """\
---
# Made at random by the first run, in {secrets}/notebook_password beside hosts.yml, where only you can read it.
# Several admins share one by a vault instead: ansible-vault encrypt_string --stdin-name jupyter_password
jupyter_password: "{{{{ lookup('ansible.builtin.password', inventory_dir ~ '/{secrets}/notebook_password', length=24) }}}}"
tensorboard_password: "{{{{ jupyter_password }}}}"
"""


def files(answers: Answers, shown: str) -> dict[str, str]:
    """Return the files of the inventory: path in its folder -> text.

    Args:
        answers: what it is made of.
        shown: the folder, as one types it.
    """
    return {
        "hosts.yml": _hosts(answers, shown),
        "group_vars/all/connection.yml": _CONNECTION.format(account=_scalar(answers.account)),
        "group_vars/all/base.yml": _BASE.format(mirror=answers.mirror or '""'),
        "group_vars/all/plan.yml": _PLAN.format(shown=shown, frameworks=", ".join(map(_scalar, answers.frameworks))),
        "group_vars/all/notebooks.yml": _NOTEBOOKS.format(secrets=SECRETS),
        f"{SECRETS}/.gitignore": "# Passwords are not for a repository.\n*\n",
    }


def _hosts(answers: Answers, shown: str) -> str:
    first = answers.controller or next(iter(answers.servers))
    lines = [
        "---",
        "# The servers, and what each one is for. A server has to be in your own ~/.ssh/known_hosts: log in once by hand and compare",
        f"# its host key. Then: ./trainyard apply -i {shown} --check",
        "all:",
        "  hosts:",
        *(
            f"    {_scalar(name)}:{f' {{ansible_host: {_scalar(address)}}}' if address else ''}"
            for name, address in answers.servers.items()
        ),
        "  children:",
        "    gpu:  # with NVIDIA GPUs: they get the driver",
        *_members(answers.gpus, 6),
        "    notebooks:  # where JupyterLab and TensorBoard run",
        *_members([first], 6),
    ]
    if answers.controller:
        computes = [name for name in answers.servers if name != answers.controller] or [answers.controller]
        lines += [
            "    cluster:  # a server's name here is its host name (hostname -s), or names_and_time_hostname sets it",
            "      children:",
            "        slurm_controller:  # exactly one, which may compute as well",
            *_members([answers.controller], 10),
            "        slurm_compute:",
            *_members(computes, 10),
        ]
    else:
        lines.append("    # cluster:  # for a Slurm cluster, see inventory/example/hosts.yml")
    return "\n".join(lines) + "\n"


def _members(names: Sequence[str], indent: int) -> list[str]:
    return [" " * indent + "hosts:", *(" " * (indent + 2) + f"{_scalar(name)}:" for name in names)] if names else []


def _scalar(text: str) -> str:
    """Return a text as YAML that is read as this text, whatever it looks like."""
    plain = re.fullmatch(r"[A-Za-z0-9._-]+", text) and yaml.safe_load(text) == text
    return text if plain else json.dumps(text)
