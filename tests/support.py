"""Real nodes for tests: a container with systemd, reached over SSH, and Ansible's results as data."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from trainyard.paths import REPOSITORY

BIN = Path(sys.executable).parent
_FOLDER = tempfile.TemporaryDirectory(prefix="trainyard-test-")
REPORTS = {"TRAINYARD_STATE": _FOLDER.name}
"""Where the command line tool keeps its reports in tests, so that those of the lab, which is tested at the same time, stay."""


@dataclass(frozen=True)
class Play:
    """What ansible-playbook did.

    Attributes:
        status: its exit status.
        results: task name and host -> the task's result, the last one where a name stands twice.
        changed: host -> number of changed tasks.
        text: everything it printed.
    """

    status: int
    results: Mapping[tuple[str, str], Mapping[str, Any]]
    changed: Mapping[str, int]
    text: str

    def failures(self) -> str:
        """Return the messages of all failed results, joined."""
        said = []
        for result in self.results.values():
            if result.get("failed") or result.get("unreachable"):
                said.append(str(result.get("msg", "")))
                said += [str(item.get("msg", "")) for item in result.get("results", []) if item.get("failed")]
        return "\n".join(said)


def ansible_playbook(
    playbook: Path, inventory: Path, words: Sequence[str] = (), environment: Mapping[str, str] | None = None, timeout: float = 600
) -> Play:
    """Run ansible-playbook from the repository's root and return its results."""
    done = subprocess.run(
        [str(BIN / "ansible-playbook"), str(playbook), "-i", str(inventory), *words],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "TRAINYARD_REPORT_JSON": "",
            "TRAINYARD_REPORT_HTML": "",
            "ANSIBLE_DEPRECATION_WARNINGS": "false",
            **(environment or {}),
        },
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    text = done.stdout + done.stderr
    start = done.stdout.find("{\n")
    results: dict[tuple[str, str], Mapping[str, Any]] = {}
    changed: dict[str, int] = {}
    if start >= 0:
        data, _end = json.JSONDecoder().raw_decode(done.stdout[start:])
        for play in data["plays"]:
            for task in play["tasks"]:
                for host, result in task["hosts"].items():
                    results[task["task"]["name"], host] = result
        changed = {host: stats["changed"] for host, stats in data["stats"].items()}
    return Play(done.returncode, results, changed, text)


def tool(inventory: Path, verb: str, *words: str, environment: Mapping[str, str] | None = None, timeout: float = 400) -> tuple[int, str]:
    """Run a verb of the command line tool over an inventory; return its exit status and all that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "trainyard", verb, "-i", str(inventory), *words],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}/src:{REPOSITORY}/collections", **REPORTS, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    print(done.stdout, done.stderr)
    return done.returncode, done.stdout + done.stderr


MODULE_UTILS = "ansible_collections/trainyard/core/plugins/module_utils"


def put_module_utils(execute: Callable[[str, list[str]], object], node: str, *patterns: str) -> None:
    """Put files of the collection's module_utils, and the room `_host` that all use, below /srv in a node, to be driven without Ansible."""
    folder = REPOSITORY / "collections" / MODULE_UTILS
    for path in (found for pattern in (*patterns, "_host/*.py") for found in sorted(folder.glob(pattern))):
        target = f"/srv/{MODULE_UTILS}/{path.relative_to(folder)}"
        text = base64.b64encode(path.read_bytes()).decode()
        execute(node, ["sh", "-ec", f"mkdir -p {Path(target).parent}; echo {text} | base64 -d >{target}"])


class Nodes(Protocol):
    """Nodes that are reached over SSH as the account admin: a lab of containers, or a virtual machine."""

    @property
    def nodes(self) -> Sequence[str]:
        """Return their names."""

    @property
    def ssh_config(self) -> Path:
        """Return the path of the ssh_config that reaches them by name."""


def inventory_of(lab: Nodes, folder: Path, variables: Mapping[str, Any] | None = None) -> Path:
    """Write an inventory that reaches nodes over SSH, and return its path."""
    path = folder / "hosts.yml"
    every = {"ansible_user": "admin", "ansible_ssh_common_args": f"-F {lab.ssh_config}", **(variables or {})}
    path.write_text(yaml.safe_dump({"all": {"hosts": dict.fromkeys(lab.nodes), "vars": every}}))
    return path


def play(
    lab: Nodes, folder: Path, tasks: Sequence[Mapping[str, Any]], words: Sequence[str] = (), timeout: float = 600, **variables: Any
) -> Play:
    """Run tasks as root on nodes, for so many seconds at most."""
    book = folder / "play.yml"
    header = {"hosts": "all", "become": True, "gather_facts": True, "gather_subset": ["!all", "network"], "vars": variables}
    book.write_text(yaml.safe_dump([{**header, "tasks": list(tasks)}], sort_keys=False))
    return ansible_playbook(book, inventory_of(lab, folder), words, timeout=timeout)
