"""``trainyard init``: writes an inventory of your own servers from the answers to six questions."""

from __future__ import annotations

import argparse
import getpass
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import yaml
from rich.text import Text

from trainyard import catalog, new_inventory
from trainyard.access import destination, short
from trainyard.errors import TrainyardError, UsageError
from trainyard.new_inventory import AnswerError, Answers
from trainyard.paths import REPOSITORY
from trainyard.progress import console

EXAMPLES = """\
examples:
  ./trainyard init mylab              asks, and writes inventory/mylab in this checkout
  ./trainyard init ~/labs/mylab       writes that folder
  ./trainyard init mylab --example    asks nothing: a copy of inventory/example, to edit by hand

A folder that is there already is never changed. An empty answer takes the default in brackets.
"""
DEFAULT_FRAMEWORKS = "pytorch, tensorflow"
Answer = TypeVar("Answer")


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "init",
        help="write an inventory of your own servers, by six questions",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("name", metavar="NAME", help="of the lab, for a folder in inventory/; or a path, which has a slash")
    verb.add_argument("--example", action="store_true", help="copy inventory/example and ask nothing")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask and write; return the exit status."""
    folder = folder_of(arguments.name)
    if os.path.lexists(folder):
        raise TrainyardError(f"{short(folder)} is there already and is left alone. Choose another name, or edit its files.")
    if arguments.example:
        shutil.copytree(REPOSITORY / "inventory" / "example", folder)
        console.print(f"Written: {short(folder)}, a copy of inventory/example. Enter your own servers and users, beginning with")
        console.print(f"  {short(folder / 'hosts.yml')}", highlight=False, soft_wrap=True)
        return 0
    if not sys.stdin.isatty():
        raise UsageError("init asks questions, and there is no terminal to ask on. With --example it copies inventory/example instead.")
    answers = ask_all()
    write(folder, new_inventory.files(answers, shlex.quote(short(folder))))
    for line in next_steps(folder, answers):
        console.print(line, highlight=False, soft_wrap=True)
    return 0


def folder_of(name: str) -> Path:
    """Return the folder that a name means.

    Raises:
        UsageError: it is neither a name nor a path.
    """
    if "/" in name:
        return Path(name).expanduser().absolute()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(f"'{name}' is not a name for a lab: letters, digits, dots, hyphens and underscores. A path has a slash.")
    return REPOSITORY / "inventory" / name


def ask_all() -> Answers:
    """Ask the six questions."""
    names = frameworks()
    mirrors = list(yaml.safe_load((catalog.ROLE / "vars" / "main" / "mirrors.yml").read_text())["catalog_mirrors"])
    console.print("Six questions. An empty answer takes the default in brackets; Ctrl-C leaves without writing anything.\n")
    servers = ask("Your servers, as name=address, with commas between", "", new_inventory.servers_of)
    gpus = ask("Which of them have NVIDIA GPUs? (all, none, or names)", "none", lambda text: new_inventory.chosen_of(text, servers))
    user = getpass.getuser()
    account = ask("Which account logs in there, with a key and sudo?", "admin" if user == "root" else user, new_inventory.account_of)
    controller = ask(
        "Which one schedules a Slurm cluster? (a name, or none)", "none", lambda text: new_inventory.controller_of(text, servers)
    )
    chosen = ask(f"Which frameworks? ({', '.join(names)})", DEFAULT_FRAMEWORKS, lambda text: new_inventory.frameworks_of(text, names))
    mirror = ask(f"A mirror for packages? (none, {', '.join(mirrors)})", "none", lambda text: new_inventory.mirror_of(text, mirrors))
    return Answers(servers, gpus, account, controller, chosen, mirror)


def frameworks() -> dict[str, list[str]]:
    """Return the catalogue's frameworks with their other names."""
    return {name: data.get("aliases", []) for name, data in catalog.environments().items() if data["kind"] == "framework"}


def ask(question: str, default: str, read: Callable[[str], Answer]) -> Answer:
    """Ask until an answer can be used.

    Raises:
        KeyboardInterrupt: the terminal was closed.
    """
    while True:
        console.print(question, highlight=False)
        try:
            text = console.input(Text(f"  [{default}] > " if default else "  > ")).strip()
        except EOFError as error:
            raise KeyboardInterrupt from error
        try:
            return read(text or default)
        except AnswerError as error:
            console.print(f"  {error}", style="red", highlight=False)


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write the folder in one step; what is made at random later is the owner's alone.

    Raises:
        TrainyardError: it came to be in the meantime.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as made:
        draft = Path(made, "inventory")
        for name, text in files.items():
            path = draft / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        (draft / new_inventory.SECRETS).chmod(0o700)
        if os.path.lexists(folder):  # a rename would replace an empty one
            raise TrainyardError(f"{short(folder)} is there already and is left alone.")
        draft.rename(folder)


def next_steps(folder: Path, answers: Answers) -> list[str]:
    """Return what is to be done now."""
    name = shlex.quote(short(folder))
    logins = [
        f"     ssh {destination(server, {'ansible_host': address, 'ansible_user': answers.account}, folder)}"
        for server, address in answers.servers.items()
    ]
    return [
        f"\nWritten: {name}",
        "Users, mirrors and frameworks are in its group_vars/all/. Next:",
        "  1. Log in to each server once. Answer yes only if the fingerprint is the one",
        "     that the server's console shows:",
        "     ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
        *logins,
        f"  2. ./trainyard apply -i {name} --check    # what would change",
        f"  3. ./trainyard apply -i {name}            # do it",
    ]
