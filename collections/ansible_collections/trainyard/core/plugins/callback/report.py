# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Writes the result of a run as JSON and as a page."""

from __future__ import annotations

DOCUMENTATION = r"""
name: report
type: aggregate
short_description: Writes the result of a run as JSON for machines and as a page for people
version_added: 0.1.0
description:
  - Gathers, for each node, whether it converged, what failed and what to do about it, what the node is and which GPUs it has, and what its
    frameworks proved;
    at the end of the run writes that to two files, each in one step.
  - Only playbooks that lie beside or below C(ansible.cfg) are reported, so that an unrelated playbook does not replace the lab's result.
    Commands without a playbook are not reported.
  - Of a failed task nothing but its message is kept, and not even that where the task has C(no_log).
  - Of a task that changed something its name and those of its items are kept, with C(--diff) also the difference. Only the owner may then
    read the files.
options:
  json:
    description:
      - File for machines; relative to the folder of C(ansible.cfg). Empty for none.
    type: str
    default: .trainyard/report.json
    env:
      - name: TRAINYARD_REPORT_JSON
    ini:
      - section: callback_report
        key: json
  html:
    description:
      - File for people, one page that needs nothing beside it; relative to the folder of C(ansible.cfg). Empty for none.
    type: str
    default: .trainyard/report.html
    env:
      - name: TRAINYARD_REPORT_HTML
    ini:
      - section: callback_report
        key: html
author:
  - Trainyard contributors (@trainyard)
requirements:
  - To be named in C(callbacks_enabled).
"""

import functools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible import constants, context
from ansible.plugins.callback import CallbackBase
from ansible_collections.trainyard.core.plugins.module_utils import _report, _report_page
from ansible_collections.trainyard.core.plugins.module_utils._host.reported import printable


def harmless(method: Callable[..., None]) -> Callable[..., None]:
    """Let an error in here cost the report, said once, and never the run."""

    @functools.wraps(method)
    def guarded(self: CallbackModule, *args: Any, **kwargs: Any) -> None:
        if self.broken:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self.broken = True
            self._display.warning(f"No report is written: {type(error).__name__}: {printable(error, 500)}")

    return guarded


class CallbackModule(CallbackBase):
    """Gathers while the run goes on, and writes at its end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "trainyard.core.report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.broken = False
        self.recorder = _report.Recorder()
        self.playbook = ""
        self.started = time.time()
        self.clocks: dict[tuple[str, str], float] = {}
        self.diffs: dict[tuple[str, str], list[str]] = {}
        self.plays_due: set[str] = set()
        self.all_or_none = False  # whether in this play one node's failure ends the run for all
        self.stopped = False
        self.root = Path(constants.CONFIG_FILE).resolve().parent if constants.CONFIG_FILE else Path.cwd()

    @harmless
    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Note which plays are to come."""
        path = Path(playbook._file_name).resolve()
        if self.root in path.parents:
            self.playbook = str(path.relative_to(self.root))
        self.plays_due |= {play._uuid for play in playbook.get_plays()}

    @harmless
    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Note that a play was come to."""
        self.plays_due.discard(play._uuid)
        self.all_or_none = play.any_errors_fatal is True

    @harmless
    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Start a task's clock."""
        self.clocks[host.get_name(), task._uuid] = time.monotonic()

    @harmless
    def v2_runner_on_ok(self, result: Any) -> None:
        """Keep what a task found out, and whether it changed something."""
        self._ended(result)
        diffs = self.diffs.pop(self._key(result), [])
        if result._result.get("changed"):
            self.recorder.changed(*self._where(result), result._result, "\n".join(diffs))

    @harmless
    def v2_on_file_diff(self, result: Any) -> None:
        """Keep what a change to a file is; Ansible asks for it where --diff does, for each item of a loop, before the task ends."""
        results = result._result.get("results") or [result._result]
        texts = [self._get_diff(each["diff"]) for each in results if each.get("diff") and each.get("changed")]
        self.diffs.setdefault(self._key(result), []).extend(text.strip("\n") for text in texts if text)

    @harmless
    def v2_runner_on_skipped(self, result: Any) -> None:
        """Stop a task's clock."""
        self._ended(result)

    @harmless
    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Keep why a task failed."""
        self._ended(result)
        if not ignore_errors:
            self._failed(result)

    @harmless
    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Keep why a node was not reached."""
        self._ended(result)
        self._failed(result)

    @harmless
    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Write the report."""
        if not self.playbook or not stats.processed:
            return
        report = self._report(stats)
        # What files hold is not for everybody who may read the result.
        mode = 0o600 if any(change["diff"] for node in report["nodes"] for change in node["changes"]) else 0o644
        written = [
            self._write(self.get_option("html"), _report_page.render_html(report), mode),
            self._write(self.get_option("json"), _report.dump(report), mode),
        ]
        self._display.display(_report.summary(report), color=constants.COLOR_OK if report["passed"] else constants.COLOR_ERROR)
        for node in report["nodes"]:
            for failure in node["failures"][:1]:
                self._display.display(f"{node['name']}: {failure['what_to_do']}", color=constants.COLOR_ERROR)
        if any(written):
            self._display.display(f"Report: {' and '.join(filter(None, written))}")

    def _ended(self, result: Any) -> None:
        node, _task = self._key(result)
        began = self.clocks.pop(self._key(result), None)
        if began is not None:
            self.recorder.took(node, time.monotonic() - began)
        self.recorder.seen(node, result._result)

    def _failed(self, result: Any) -> None:
        self.stopped = self.stopped or self.all_or_none or getattr(result._task, "any_errors_fatal", False) is True
        self.recorder.failed(*self._where(result), result._result)

    def _key(self, result: Any) -> tuple[str, str]:
        return result._host.get_name(), result._task._uuid

    def _where(self, result: Any) -> tuple[str, str, str]:
        """Return node, task and role."""
        task = result._task
        return result._host.get_name(), task.name or task.action, task._role.get_name() if task._role else ""

    def _report(self, stats: Any) -> dict[str, Any]:
        now = time.time()
        tags = [tag for tag in context.CLIARGS.get("tags") or () if tag != "all"]
        run = _report.Run(
            started=_stamp(self.started),
            finished=_stamp(now),
            seconds=now - self.started,
            playbook=self.playbook,
            limit=str(context.CLIARGS.get("subset") or ""),
            tags=tags,
            check_mode=bool(context.CLIARGS.get("check")),
            complete=not self.stopped and not self.plays_due,
            lab=_lab(context.CLIARGS.get("inventory") or constants.DEFAULT_HOST_LIST),
        )
        return _report.build(self.recorder, {node: stats.summarize(node) for node in stats.processed}, run)

    def _write(self, name: str, text: str, mode: int) -> str:
        """Put a file in place in one step; return its name as people would write it."""
        if not name:
            return ""
        path = self.root / Path(name).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(beside, mode)
            os.replace(beside, path)
        except BaseException:
            os.unlink(beside)
            raise
        return os.path.relpath(path) if Path.cwd() in path.parents else str(path)


def _lab(inventories: Any) -> str:
    """Return a name for the lab: of the inventory's folder."""
    sources = [source for source in inventories or () if "," not in str(source)]  # a list of hosts has no name
    if not sources:
        return ""
    path = Path(str(sources[0])).resolve()
    return printable(path.name if path.is_dir() else path.parent.name, 60)


def _stamp(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
