"""Live progress of a playbook: a bar per node on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from trainyard.paths import STATE

console = Console(width=None if sys.stdout.isatty() else 120)

ENDS = {"runner_on_ok": "ok", "runner_on_failed": "failed", "runner_on_skipped": "skipped", "runner_on_unreachable": "unreachable"}


class Progress:
    """Shows Ansible's events as they come.

    How many tasks a node has is known from the last run of the same playbook on the same inventory; the first time, the bars pulse.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.memory = STATE / "progress.json"
        self.expected: dict[str, int] = self._remembered().get(title, {})
        self.done: dict[str, int] = {}
        self.bars = Bars(
            TextColumn("{task.fields[node]:<12}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:>3.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.rows: dict[str, TaskID] = {}
        self.started = time.monotonic()
        self.last_line = ""
        self.finished = False
        self.warned: set[tuple[str, str]] = set()

    def __enter__(self) -> Progress:
        console.print(f"· {self.title}", highlight=False)
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bars.stop()
        if self.finished:
            self.memory.write_text(json.dumps({**self._remembered(), self.title: self.done}))

    def _remembered(self) -> dict[str, dict[str, int]]:
        try:
            return dict(json.loads(self.memory.read_text()))
        except (OSError, ValueError):
            return {}

    def event(self, event: Mapping[str, Any]) -> None:
        """Take one event of ansible-runner."""
        kind, data = event.get("event", ""), event.get("event_data", {})
        host, task = data.get("host"), _short(data.get("task", ""))
        if kind == "playbook_on_stats":
            self.finished = True
        elif kind == "playbook_on_task_start" and not console.is_terminal:
            line = f"{self._elapsed()}  {data.get('play', '')}: {task}"
            if line != self.last_line:
                console.print(line, highlight=False, markup=False, soft_wrap=True)
            self.last_line = line
        elif kind == "runner_on_start" and host:
            self.bars.update(self._row(host), description=task)
        elif kind in ENDS and host:
            self.done[host] = self.done.get(host, 0) + 1
            self.bars.update(self._row(host), completed=self.done[host])
            for warning in _warnings(data.get("res")):
                if (host, warning) not in self.warned:
                    self.warned.add((host, warning))
                    console.print(f"{self._elapsed()}  {host}: {warning}", highlight=False, markup=False, style="yellow", soft_wrap=True)
            if ENDS[kind] in {"failed", "unreachable"} and not data.get("ignore_errors"):
                console.print(
                    f"{self._elapsed()}  {host}: {ENDS[kind]} at: {task}", highlight=False, markup=False, style="red", soft_wrap=True
                )

    def _row(self, host: str) -> TaskID:
        if host not in self.rows:
            self.rows[host] = self.bars.add_task("", total=self.expected.get(host), node=host)
        return self.rows[host]

    def _elapsed(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        return f"{minutes:d}:{seconds:02d}"


def _warnings(result: object) -> list[str]:
    """Return what a module warned of, in its result or in those of its loop."""
    if not isinstance(result, Mapping):
        return []
    parts = [result, *(part for part in result.get("results") or [] if isinstance(part, Mapping))]
    said = (str(warning) for part in parts for warning in part.get("warnings") or [])
    # A node may be somebody else's by now: nothing that it says moves the cursor of this terminal.
    return ["".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in warning) for warning in said]


def _short(task: str) -> str:
    """Return a task's name as people want to read it; Ansible's own words for checking a role's variables are long."""
    return "Check the variables" if task.startswith("Validating arguments against arg spec") else task
