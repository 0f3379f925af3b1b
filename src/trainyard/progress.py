"""Live progress of a playbook: a bar per node on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils._host.reported import printable
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.segment import Segment

from trainyard.paths import STATE


class Terminal(Console):
    """A console for text that nodes and users decide: nothing in it is read as markup, and no control character passes."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is printed, cleaned; rich's own colours and moves of the cursor are no part of the text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


console = Terminal(width=None if sys.stdout.isatty() else 120)

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
        self.verbose = bool(os.environ.get("ANSIBLE_VERBOSITY"))  # Ansible's own output is shown instead of the bars
        self.bars = Bars(
            TextColumn("{task.fields[node]:<12}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:>3.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            disable=self.verbose or not console.is_terminal,
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
        if self.verbose and event.get("stdout"):
            console.print(event["stdout"], highlight=False, markup=False, soft_wrap=True)
        host, task = data.get("host"), _short(data.get("task", ""))
        if kind == "playbook_on_stats":
            self.finished = True
        elif kind == "playbook_on_task_start" and not (console.is_terminal or self.verbose):
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
            if ENDS[kind] in {"failed", "unreachable"} and not (data.get("ignore_errors") or self.verbose):
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
    return [str(warning) for part in parts for warning in part.get("warnings") or []]


def _short(task: str) -> str:
    """Return a task's name as people want to read it; Ansible's own words for checking a role's variables are long."""
    return "Check the variables" if task.startswith("Validating arguments against arg spec") else task
