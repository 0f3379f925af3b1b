"""Ansible's own options on our verbs: named and meant as ansible-playbook has them, for everything that a verb runs.

They are passed on as Ansible's environment variables, since a verb runs several of Ansible's programs. Passwords are asked for once, before
the progress display takes the terminal, and stay in a file in memory that is the user's alone and goes when the verb ends.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from trainyard import runner
from trainyard.errors import UsageError

PROMPTS = {
    "ask_pass": ("SSH password: ", "ANSIBLE_CONNECTION_PASSWORD_FILE"),
    "ask_become_pass": ("BECOME password: ", "ANSIBLE_BECOME_PASSWORD_FILE"),
    "ask_vault_pass": ("Vault password: ", "ANSIBLE_VAULT_PASSWORD_FILE"),
}
"""Option that asks -> its prompt, and the variable that names the file with the answer."""


MEMORY = Path("/dev/shm")
"""A file system in memory, where there is one."""


def add(verb: argparse.ArgumentParser, *, playbook: bool = True, but: Sequence[str] = ()) -> None:
    """Add the options to a verb.

    Args:
        verb: its parser.
        playbook: whether it runs playbooks, which have tags.
        but: options that the verb has itself.
    """
    group = verb.add_argument_group("Ansible's options", "with the meaning that they have for ansible-playbook")
    group.add_argument("-e", "--extra-vars", action="append", default=[], metavar="VARS", help="variables: name=value, JSON or @FILE")
    group.add_argument("-v", "--verbose", action="count", default=0, help="print what Ansible prints; -vvv prints more")
    if "user" not in but:
        group.add_argument(
            "-u", "--user", "--remote-user", dest="remote_user", metavar="NAME", help="log in as this user, where the inventory names none"
        )
    group.add_argument("--private-key", "--key-file", metavar="FILE", help="private key for SSH, where the inventory names none")
    group.add_argument("-k", "--ask-pass", action="store_true", help="ask for the SSH password")
    group.add_argument("-K", "--ask-become-pass", action="store_true", help="ask for sudo's password on the nodes")
    group.add_argument("--become-password-file", "--become-pass-file", metavar="FILE", help="file with sudo's password")
    group.add_argument("-J", "--ask-vault-pass", "--ask-vault-password", action="store_true", help="ask for the vault's password")
    group.add_argument("--vault-password-file", "--vault-pass-file", metavar="FILE", help="file with the vault's password, or a program")
    group.add_argument("--vault-id", action="append", default=[], metavar="LABEL@SOURCE", help="a vault's password: a file, or prompt")
    group.add_argument("-f", "--forks", type=int, metavar="N", help="nodes at a time (30)")
    if playbook:
        group.add_argument("-t", "--tags", action="append", default=[], metavar="TAGS", help="only what has these tags")
        group.add_argument("--skip-tags", action="append", default=[], metavar="TAGS", help="all but what has these tags")


@contextmanager
def in_force(arguments: argparse.Namespace) -> Iterator[None]:
    """Let the options of a verb that has them count for every program of Ansible that runs inside.

    Raises:
        UsageError: a password is to be asked for, and there is no terminal; or a file is not there.
    """
    given = vars(arguments)
    before, extra = dict(os.environ), runner.extra_vars
    with ExitStack() as stack:
        os.environ.update(_variables(given, stack))
        runner.extra_vars = tuple(_extra(word) for word in given.get("extra_vars", ()))
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
            runner.extra_vars = extra


def _variables(given: Mapping[str, object], stack: ExitStack) -> dict[str, str]:
    files = {
        "ANSIBLE_PRIVATE_KEY_FILE": _file(given, "private_key"),
        "ANSIBLE_BECOME_PASSWORD_FILE": _file(given, "become_password_file"),
        "ANSIBLE_VAULT_PASSWORD_FILE": _file(given, "vault_password_file"),
    }
    found = {
        "ANSIBLE_REMOTE_USER": str(given.get("remote_user") or ""),
        "ANSIBLE_FORKS": str(given.get("forks") or ""),
        "ANSIBLE_VERBOSITY": str(given.get("verbose") or ""),
        "ANSIBLE_RUN_TAGS": _joined(given.get("tags")),
        "ANSIBLE_SKIP_TAGS": _joined(given.get("skip_tags")),
        **files,
    }
    for option, (prompt, variable) in PROMPTS.items():
        if given.get(option):
            found[variable] = _asked(option, prompt, stack)
    found["ANSIBLE_VAULT_IDENTITY_LIST"] = ",".join(_vault(str(entry), stack) for entry in _list(given.get("vault_id")))
    return {name: value for name, value in found.items() if value}


def _file(given: Mapping[str, object], option: str) -> str:
    """Return a file's path, from the root: Ansible runs in another folder than the one in which it was named."""
    name = str(given.get(option) or "")
    if not name:
        return ""
    path = Path(name).expanduser().absolute()
    if not path.exists():
        raise UsageError(f"--{option.replace('_', '-')}: there is no file {name}.")
    return str(path)


def _extra(word: str) -> str:
    """Return variables as they were given; the path of a file starts at the root."""
    return f"@{_file({'extra_vars': word[1:]}, 'extra_vars')}" if word.startswith("@") else word


def _vault(entry: str, stack: ExitStack) -> str:
    """Return a vault's identity whose source Ansible can read by itself."""
    label, at, source = entry.rpartition("@")
    if source == "prompt":
        label = label or "default"
        return f"{label}@{_asked('vault_id', f'Vault password ({label}): ', stack)}"
    return f"{label}{at}{_file({'vault_id': source}, 'vault_id')}"


def _asked(option: str, prompt: str, stack: ExitStack) -> str:
    """Ask for a password, and return the path of a file that holds it until the verb ends."""
    if not sys.stdin.isatty():
        instead = {"ask_become_pass": "--become-password-file FILE", "ask_pass": "an SSH key"}.get(option, "--vault-password-file FILE")
        raise UsageError(f"--{option.replace('_', '-')} asks for a password, and there is no terminal to ask on. Use {instead}.")
    return _held(getpass.getpass(prompt), stack)


def _held(secret: str, stack: ExitStack) -> str:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="trainyard-", dir=MEMORY if MEMORY.is_dir() else None))  # mode 0700
    path = Path(folder, "password")
    path.touch(mode=0o600)
    path.write_text(secret + "\n")
    return str(path)


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _joined(value: object) -> str:
    return ",".join(str(each) for each in _list(value))
