"""What a run shows while it lasts: lines where nobody watches, a bar for each node on a terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainyard import progress


def event(kind: str, **data: Any) -> dict[str, Any]:
    return {"event": kind, "event_data": data}


RUN = [
    event("playbook_on_task_start", play="Bring the base", task="base : Have the packages"),
    event("runner_on_start", host="head", task="base : Have the packages"),
    event("runner_on_start", host="node1", task="base : Have the packages"),
    event("runner_on_ok", host="head", task="base : Have the packages"),
    event("runner_on_failed", host="node1", task="base : Have the packages"),
    event("playbook_on_task_start", play="Bring the base", task="Validating arguments against arg spec 'main' - long words"),
    event("runner_on_start", host="head", task="Validating arguments against arg spec 'main' - long words"),
    event("runner_on_skipped", host="head", task="Validating arguments against arg spec 'main' - long words"),
    event("playbook_on_stats"),
]


def shown(monkeypatch: pytest.MonkeyPatch, folder: Path, *, terminal: bool) -> str:
    """Return what a run shows."""
    output = io.StringIO()
    monkeypatch.setattr(progress, "STATE", folder)
    monkeypatch.setattr(progress, "console", Console(file=output, force_terminal=terminal, width=100))
    with progress.Progress("site.yml") as shows:
        for each in RUN:
            shows.event(each)
        shows.bars.refresh()
    return output.getvalue()


def test_lines_say_the_time_the_play_the_task_and_what_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert shown(monkeypatch, tmp_path, terminal=False).splitlines() == [
        "· site.yml",
        "0:00  Bring the base: base : Have the packages",
        "0:00  node1: failed at: base : Have the packages",
        "0:00  Bring the base: Check the variables",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_what_nodes_decide_is_text_and_nothing_else(terminal: bool) -> None:
    evil = "[red]x[/red]\x1b[2J\x1b]0;t\x07\x9b2J\u202e :smile:"
    output = io.StringIO()
    console = progress.Terminal(file=output, force_terminal=terminal, width=200, color_system=None)
    table = Table("node")
    table.add_row(evil)
    for shown in (evil, Text(evil, style="red"), table):
        console.print(shown, highlight=False)
    said = output.getvalue()
    assert said.count("[red]x[/red]") == 3
    assert said.count(":smile:") == 3
    assert not set(said) & {"\x1b", "\x07", "\x9b", "\u202e"}


def test_what_a_module_warns_of_is_shown_once_and_moves_no_cursor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output = io.StringIO()
    monkeypatch.setattr(progress, "STATE", tmp_path)
    monkeypatch.setattr(progress, "console", progress.Terminal(file=output, force_terminal=False, width=100))
    warned = {"warnings": ["/home/alice of alice (0755)"]}
    with progress.Progress("site.yml") as shows:
        for result in (warned, warned, {"results": [{"warnings": ["\x1b]0;owned\x07 [red]"]}]}, {"results": None}, None):
            shows.event(event("runner_on_ok", host="head", task="base : Check the modes of the homes", res=result))
    assert output.getvalue().splitlines() == [
        "· site.yml",
        "0:00  head: /home/alice of alice (0755)",
        "0:00  head: ]0;owned [red]",
    ]


def test_a_terminal_shows_a_bar_for_each_node_which_knows_its_length_the_second_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = shown(monkeypatch, tmp_path, terminal=True)
    assert "head" in first
    assert "node1" in first
    assert "Check the variables" in first
    assert "0:00:00" in first, "the time that has gone by"
    with progress.Progress("site.yml") as shows:
        assert shows.expected == {"head": 2, "node1": 1}


def test_a_run_that_was_interrupted_does_not_count_as_the_length(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(progress, "STATE", tmp_path)
    with progress.Progress("site.yml") as shows:
        shows.event(RUN[3])  # and no word of the end
    assert not (tmp_path / "progress.json").exists()
