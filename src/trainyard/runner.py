"""Ansible, run by ansible-runner. The only file that imports it."""

from __future__ import annotations

import json
import locale
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from ansible_runner.interface import init_runner

from trainyard.paths import REPOSITORY

Event = Mapping[str, Any]

extra_vars: tuple[str, ...] = ()
"""What the user gave as ``--extra-vars``; every program of Ansible gets it."""
CONFIG = REPOSITORY / "ansible.cfg"
REPORT = "trainyard.core.report"
HOST_KEY_CHECKING = "ANSIBLE_HOST_KEY_CHECKING"


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
    return _run(
        on_event,
        environment,
        playbook=playbook,
        inventory=str(inventory.resolve()),
        cmdline=_quoted([*words, *extra_words()]),
    )


def module(inventory: Path, hosts: Sequence[str], name: str, arguments: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Run one module as root on hosts, and return what each said; a host that was not reached says ``unreachable``.

    Raises:
        KeyboardInterrupt: Ctrl-C or a termination signal ended it.
    """
    said: dict[str, Mapping[str, Any]] = {}

    def event(happened: Event) -> None:
        data = happened.get("event_data") or {}
        if happened.get("event") in {"runner_on_ok", "runner_on_failed", "runner_on_unreachable"}:
            said[str(data.get("host"))] = {**(data.get("res") or {}), "unreachable": happened["event"] == "runner_on_unreachable"}

    outcome = _run(
        event,
        {"TRAINYARD_REPORT_JSON": "", "TRAINYARD_REPORT_HTML": ""},
        module=name,
        module_args=json.dumps(dict(arguments)),
        host_pattern=",".join(hosts),
        inventory=str(inventory.resolve()),
        cmdline=_quoted(["--become", *extra_words()]),
    )
    if outcome.interrupted:
        raise KeyboardInterrupt
    silent = {"unreachable": True, "msg": outcome.output.strip()[-1500:]}
    return {host: said.get(host, silent) for host in hosts}


def settings() -> dict[str, str]:
    """Return the environment variables for Ansible's programs, stated here whatever the user's shell has.

    Without ANSIBLE_CONFIG Ansible looks for its file in the current folder, and passes over one in a folder that others may write.
    """
    callbacks = [name for name in os.environ.get("ANSIBLE_CALLBACKS_ENABLED", "").split(",") if name.strip() not in {"", REPORT}]
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return {
        **({} if _speaks_utf8() else {"LC_ALL": "C.UTF-8"}),
        **({} if colours else {"ANSIBLE_NOCOLOR": "true", "ANSIBLE_FORCE_COLOR": "false"}),
        "ANSIBLE_CONFIG": str(CONFIG),
        "ANSIBLE_CALLBACKS_ENABLED": ",".join([REPORT, *callbacks]),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def _speaks_utf8() -> bool:
    """Return whether the locale of the shell is installed and uses UTF-8, without which Ansible does not start."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, "")
        return locale.nl_langinfo(locale.CODESET).upper() == "UTF-8"
    except locale.Error:
        return False
    finally:
        locale.setlocale(locale.LC_ALL, before)


def _run(on_event: Callable[[Event], None], environment: Mapping[str, str], **what: Any) -> Outcome:
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
            result = init_runner(
                private_data_dir=private,
                project_dir=str(REPOSITORY),
                **what,
                envvars={**settings(), **environment},
                fact_cache_type="memory",  # as outside; a file would hold facts of every node
                quiet=True,
                event_handler=handle,
                cancel_callback=lambda: stopped,
                settings={"suppress_ansible_output": True},
            )
            if HOST_KEY_CHECKING not in os.environ:
                # ansible-runner switches the check off where the environment says nothing of it, and would hand passwords to whoever
                # answers at a node's address. ansible.cfg decides.
                result.config.env.pop(HOST_KEY_CHECKING, None)
            result.run()
            output = result.stdout.read() if result.stdout else ""
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return Outcome(status=result.rc if result.rc is not None else 1, interrupted=stopped, output=output)


def extra_words() -> list[str]:
    """Return the words that hand the user's variables on."""
    return [word for given in extra_vars for word in ("--extra-vars", given)]


def _quoted(words: Sequence[str]) -> str:
    """Join words so that ansible-runner's own splitting yields them again."""
    return " ".join("'" + word.replace("'", "'\"'\"'") + "'" for word in words)
