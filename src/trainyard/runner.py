"""Ansible, run by ansible-runner. The only file that imports it."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import ansible_runner

from trainyard.paths import REPOSITORY

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a playbook ended.

    Attributes:
        status: ansible-playbook's exit status.
        interrupted: whether Ctrl-C or a termination signal ended it.
        output: what ansible-playbook printed.
    """

    status: int
    interrupted: bool
    output: str


def run(
    playbook: str,
    inventory: Path,
    words: Sequence[str],
    on_event: Callable[[Event], None],
    environment: Mapping[str, str],
) -> Outcome:
    """Run a playbook of this repository and hand each of Ansible's events on as it happens.

    ansible-runner's own files, which hold results in full, lie in a private folder that is removed afterwards.
    """
    stopped = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    def handle(event: Event) -> bool:
        on_event(event)
        return False  # not kept on disk

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with tempfile.TemporaryDirectory(prefix="trainyard-run-") as private:
            result = ansible_runner.run(
                private_data_dir=private,
                project_dir=str(REPOSITORY),
                playbook=playbook,
                inventory=str(inventory.resolve()),
                cmdline=_quoted(words),
                envvars={**environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
                quiet=True,
                event_handler=handle,
                cancel_callback=lambda: stopped,
                settings={"suppress_ansible_output": True},
            )
            output = result.stdout.read() if result.stdout else ""
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return Outcome(status=result.rc if result.rc is not None else 1, interrupted=stopped, output=output)


def _quoted(words: Sequence[str]) -> str:
    """Join words so that ansible-runner's own splitting yields them again."""
    return " ".join("'" + word.replace("'", "'\"'\"'") + "'" for word in words)
