"""Live progress of a playbook: a line per phase; on a terminal also the task and the nodes that are being waited for."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from ansible_collections.trainyard.core.plugins.module_utils import _report
from ansible_collections.trainyard.core.plugins.module_utils._host.reported import printable
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from trainyard.paths import REPOSITORY


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
TASK_STARTS = {"playbook_on_task_start", "playbook_on_handler_task_start"}
ROOM_FOR_BAR = 64
"""Columns from which on there is a bar beside the numbers."""


class Progress:
    """Shows Ansible's events as they come.

    A phase is a play. Nothing is remembered from earlier runs: a run with --limit, --check or tags has another length.

    Args:
        title: what runs on what.
        phases: how many plays there are, which `phases_of` counts; 0 where nobody knows.
    """

    def __init__(self, title: str, phases: int = 0) -> None:
        self.title = title
        self.phases = phases
        self.verbose = bool(os.environ.get("ANSIBLE_VERBOSITY"))  # Ansible's own output is shown instead
        self.spinner = Spinner("dots")
        self.started = time.monotonic()
        self.finished = False  # whether the playbook came to its end
        self.number = 0  # of the phase
        self.phase = ""
        self.phase_started = self.started
        self.shown = False  # whether the phase has begun anything; a play without nodes has not
        self.failed: set[str] = set()  # nodes that did in this phase
        self.task = ""
        self.task_started = self.started
        self.nodes: set[str] = set()  # of the phase, but those that failed
        self.ended: set[str] = set()  # those that are done with the task
        self.warned: set[tuple[str, str]] = set()
        self.live = Live(get_renderable=self._now, console=console, transient=True, refresh_per_second=4)

    def __enter__(self) -> Progress:
        console.print(f"· {self.title}", highlight=False)
        if console.is_terminal and not self.verbose:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end_phase(interrupted=not self.finished)
        self.live.stop()

    def event(self, event: Mapping[str, Any]) -> None:
        """Take one event of ansible-runner."""
        kind, data = event.get("event", ""), event.get("event_data", {})
        if self.verbose and event.get("stdout"):
            console.print(event["stdout"], highlight=False, markup=False, soft_wrap=True)
        host, task = str(data.get("host") or ""), _short(str(data.get("task") or ""))
        if kind == "playbook_on_play_start":
            self._end_phase()
            self.number += 1
            self.phase, self.phase_started = str(data.get("name") or data.get("play") or "A play without a name"), time.monotonic()
            self.shown, self.task, self.nodes, self.ended, self.failed = False, "", set(), set(), set()
        elif kind == "playbook_on_stats":
            self.finished = True
        elif kind in TASK_STARTS:
            self.task, self.task_started, self.ended = task, time.monotonic(), set()
            self._begin_phase()
        elif kind == "runner_on_start" and host:
            self.nodes.add(host)
        elif kind in ENDS and host:
            self.nodes.add(host)
            self.ended.add(host)
            for warning in _warnings(data.get("res")):
                if (host, warning) not in self.warned:
                    self.warned.add((host, warning))
                    self._print(f"{host}: {warning}", "yellow")
            if ENDS[kind] in {"failed", "unreachable"} and not data.get("ignore_errors"):
                self.failed.add(host)
                self.nodes.discard(host)
                self.ended.discard(host)
                if not self.verbose:
                    self._print(f"{host}: {ENDS[kind]} at: {task}", "red")

    def _begin_phase(self) -> None:
        """Print the line of a phase where no terminal shows it."""
        if not (self.shown or self.verbose or console.is_terminal):
            self._print(self.phase)
        self.shown = True

    def _end_phase(self, *, interrupted: bool = False) -> None:
        """Leave a phase's line on the terminal."""
        if self.shown and console.is_terminal and not self.verbose:
            sign, style = ("✗", "red") if self.failed else ("■", "yellow") if interrupted else ("✓", "green")
            console.print(self._line(Text(sign, style=style)), highlight=False)
        self.shown = False

    def _now(self) -> RenderableType:
        """Return what the terminal shows now: the phase, and what is being waited for."""
        if not self.shown:
            return Text("")
        nodes = sorted(self.nodes - self.ended)
        waiting = f"{', '.join(nodes)}: {self.task}" if nodes else self.task
        clock = _clock(self.task_started)
        below = Table.grid(padding=(0, 1), expand=True)
        below.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        below.add_column(no_wrap=True, justify="right")
        if len(nodes) > 1 and console.width < len(waiting) + len(clock) + 4:  # the task counts more than every name
            waiting = f"{nodes[0]} and {len(nodes) - 1} more: {self.task}"
        below.add_row(Text(f"  {waiting}", style="dim"), Text(clock, style="dim"))
        return Group(self._line(self.spinner, busy=True), below)

    def _line(self, sign: RenderableType, *, busy: bool = False) -> RenderableType:
        """Return a phase as a line of the terminal's width."""
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(width=1)
        line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        cells: list[RenderableType] = [sign, Text(f"{f'{self.number}/{self.phases} ' if self.phases else ''}{self.phase}")]
        total, lost = len(self.nodes), f", {len(self.failed)} failed" if self.failed else ""
        if busy and console.width >= ROOM_FOR_BAR:
            line.add_column(width=16)
            cells.append(ProgressBar(total=max(total, 1), completed=len(self.ended), width=16))
        line.add_column(no_wrap=True, justify="right")
        count = f"{f'{len(self.ended)}/' if busy else ''}{_report.count(total, 'node')}{lost}"
        cells.append(Text(count if total or lost else ""))
        line.add_column(no_wrap=True, justify="right", min_width=5)
        cells.append(Text(_clock(self.phase_started)))
        line.add_row(*cells)
        return line

    def _print(self, text: str, style: str = "") -> None:
        """Print a line that stays; a file gets it whole, a terminal between words."""
        console.print(Text(f"{_clock(self.started)}  {text}", style=style), highlight=False, soft_wrap=not console.is_terminal)


def phases_of(playbook: str) -> int:
    """Return how many plays a playbook of this repository has, with those that it imports."""
    path = REPOSITORY / playbook
    try:
        return _plays(path)
    except (OSError, TypeError, ValueError, yaml.YAMLError):  # for Ansible to say
        return 0


def _plays(path: Path) -> int:
    entries = yaml.safe_load(path.read_text()) or []
    imported = "ansible.builtin.import_playbook"
    return sum(_plays(path.parent / entry[imported]) if imported in entry else 1 for entry in entries)


def _clock(since: float) -> str:
    """Return the time since a moment as minutes and seconds, with hours where there are some."""
    minutes, seconds = divmod(int(time.monotonic() - since), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _warnings(result: object) -> list[str]:
    """Return what a module warned of, in its result or in those of its loop."""
    if not isinstance(result, Mapping):
        return []
    parts = [result, *(part for part in result.get("results") or [] if isinstance(part, Mapping))]
    return [str(warning).strip() for part in parts for warning in part.get("warnings") or []]


def _short(task: str) -> str:
    """Return a task's name as people want to read it; Ansible's own words for checking a role's variables are long."""
    return "Check the variables" if task.startswith("Validating arguments against arg spec") else task
