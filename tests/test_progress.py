"""What a run shows while it lasts: a line per phase, and on a terminal of any width the task and the nodes that are waited for."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from trainyard import progress
from trainyard.paths import REPOSITORY


def event(kind: str, **data: Any) -> dict[str, Any]:
    return {"event": kind, "event_data": data}


BASE, FRAMEWORKS = "Bring every node to the base", "Bring the frameworks, each locked with its checksums"
INSTALL = "framework_env : Install the environments that the plan names, each from its lock"
VALIDATE = "Validating arguments against arg spec 'main' - long words"
RUN = [
    event("playbook_on_play_start", name=BASE),
    event("playbook_on_task_start", play=BASE, task="base : Have the packages"),
    event("runner_on_start", host="head", task="base : Have the packages"),
    event("runner_on_start", host="node1", task="base : Have the packages"),
    event("runner_on_ok", host="head", task="base : Have the packages"),
    event("runner_on_failed", host="node1", task="base : Have the packages"),
    event("playbook_on_task_start", play=BASE, task=VALIDATE),
    event("runner_on_start", host="head", task=VALIDATE),
    event("runner_on_skipped", host="head", task=VALIDATE),
    event("playbook_on_play_start", name="Drive the GPUs"),
    event("playbook_on_no_hosts_matched"),
    event("playbook_on_play_start", name=FRAMEWORKS),
    event("playbook_on_task_start", play=FRAMEWORKS, task=INSTALL),
    event("runner_on_start", host="head", task=INSTALL),
    event("runner_on_start", host="node2", task=INSTALL),
    event("runner_on_ok", host="node2", task=INSTALL),
]


class Clock:
    """A time that the test decides."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def console_of(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, width: int = 120) -> io.StringIO:
    """Have everything printed into the stream that is returned."""
    output = io.StringIO()
    console = progress.Terminal(file=output, force_terminal=terminal, width=width, color_system=None, _environ={"TERM": "xterm"})
    monkeypatch.setattr(progress, "console", console)
    monkeypatch.delenv("ANSIBLE_VERBOSITY", raising=False)
    return output


def now(shows: progress.Progress) -> list[str]:
    """Return the lines that a terminal shows now."""
    output = io.StringIO()
    progress.Terminal(file=output, width=progress.console.width, color_system=None).print(shows._now())
    return [line.rstrip() for line in output.getvalue().splitlines()]


def feed(shows: progress.Progress, events: Iterable[Mapping[str, Any]]) -> None:
    for each in events:
        shows.event(each)


def test_without_a_terminal_each_phase_has_one_line_with_its_time_and_each_failure_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, output = Clock(monkeypatch), console_of(monkeypatch, terminal=False, width=40)
    with progress.Progress("site.yml", 3) as shows:
        for each in RUN:
            clock.now += 5
            shows.event(each)
    assert output.getvalue().splitlines() == [
        "· site.yml",
        "0:10  Bring every node to the base",
        "0:30  node1: failed at: base : Have the packages",
        f"1:05  {FRAMEWORKS}",
    ]


@pytest.mark.parametrize("width", [120, 80, 40])
def test_a_terminal_of_any_width_shows_phase_nodes_time_and_task_in_two_lines(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    clock = Clock(monkeypatch)
    console_of(monkeypatch, terminal=True, width=width)
    shows = progress.Progress("site.yml", 3)
    feed(shows, RUN)
    clock.now = 754
    phase, task = now(shows)
    assert cell_len(phase) <= width
    assert cell_len(task) <= width
    assert phase.endswith("1/2 nodes 12:34")
    assert "3/3 Bring the" in phase
    assert ("━" in phase) == (width >= 64)
    assert task.startswith("  head: framework_env : Install")
    assert task.endswith("12:34")
    assert (INSTALL in task) == (width == 120)
    assert ("…" in task) == (width < 120)


@pytest.mark.parametrize("width", [120, 80, 40])
def test_a_recorded_run_of_two_nodes_never_leaves_its_two_lines(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Recorded from playbooks/base.yml on two containers; `at` is in seconds since the start."""
    clock, output = Clock(monkeypatch), console_of(monkeypatch, terminal=True, width=width)
    recorded = json.loads((REPOSITORY / "tests" / "fixtures" / "progress" / "base.json").read_text())
    seen: set[str] = set()
    with progress.Progress("playbooks/base.yml", 3) as shows:
        shows.live.auto_refresh = False
        for each in recorded:
            clock.now = each["at"]
            shows.event(each)
            lines = now(shows)
            assert len(lines) <= 2
            assert all(cell_len(line) <= width for line in lines)
            seen.update(line.rpartition("  ")[0].strip() for line in lines[1:])
    assert any(line.startswith("head, node1: Gathering Facts") for line in seen)
    assert len(seen) > 20, "the tasks as they come"
    lasting = [line for line in output.getvalue().splitlines() if "✓" in line]
    assert len(lasting) == 1, "two of the three plays have no nodes here"
    assert "2/3 Bring every" in lasting[0]
    assert lasting[0].rstrip().endswith(f"2 nodes  {progress._clock(recorded[1]['at'])}")


def test_the_clocks_go_on_after_every_node_has_ended_and_a_bar_is_full_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier version knew a run's length from the last one, which may have been a short one."""
    clock = Clock(monkeypatch)
    console_of(monkeypatch, terminal=True, width=80)
    for short in (RUN[:4], RUN):  # a run that stops early, and then a whole one
        shows = progress.Progress("site.yml")
        feed(shows, short)
        phase, _task = now(shows)
        assert "1/2 nodes" in phase or "0/2 nodes" in phase
    shows.event(event("runner_on_ok", host="head", task=INSTALL))
    assert "2/2 nodes" in now(shows)[0]
    before = now(shows)
    clock.now += 60
    assert now(shows) != before


def test_many_nodes_leave_room_for_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    console_of(monkeypatch, terminal=True, width=80)
    shows = progress.Progress("site.yml")
    feed(shows, RUN[:2])
    feed(shows, [event("runner_on_start", host=f"gpu{number:02}", task="base : Have the packages") for number in range(30)])
    assert now(shows)[1].startswith("  gpu00 and 29 more: base : Have the packages")


def test_a_terminal_keeps_a_line_for_each_phase_that_says_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    output = console_of(monkeypatch, terminal=True, width=80)
    with progress.Progress("site.yml", 3) as shows:
        shows.live.auto_refresh = False
        feed(shows, [*RUN, event("runner_on_ok", host="head", task=INSTALL), event("playbook_on_stats")])
    lines = [line.rstrip() for line in output.getvalue().splitlines()]
    (base,) = [line for line in lines if "✗" in line]
    assert "1/3 Bring every node to the base" in base
    assert base.endswith("1 node, 1 failed  0:00")
    (frameworks,) = [line for line in lines if "✓" in line]
    assert "3/3 Bring the frameworks" in frameworks
    assert frameworks.endswith("2 nodes  0:00")
    assert "0:00  node1: failed at: base : Have the packages" in output.getvalue()
    assert "Drive the GPUs" not in output.getvalue(), "no node is in that play"


def test_a_phase_that_was_interrupted_does_not_pass_for_done(monkeypatch: pytest.MonkeyPatch) -> None:
    output = console_of(monkeypatch, terminal=True, width=80)
    with progress.Progress("site.yml") as shows:
        shows.live.auto_refresh = False
        feed(shows, RUN[-5:])
    assert "✓" not in output.getvalue()
    assert "■ Bring the frameworks" in output.getvalue()


def test_words_of_a_message_stay_whole_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    output = console_of(monkeypatch, terminal=True, width=40)
    text = "The home of alice is readable by everybody who may log in here"
    progress.Progress("site.yml").event(event("runner_on_ok", host="head", task="x", res={"warnings": [text]}))
    printed = output.getvalue().splitlines()
    assert len(printed) > 1
    assert " ".join(line.strip() for line in printed) == f"0:00  head: {text}"


def test_the_phases_of_a_playbook_are_counted_with_those_that_it_imports() -> None:
    assert progress.phases_of("playbooks/base.yml") == 3
    assert progress.phases_of("site.yml") >= 13
    assert progress.phases_of("no such file.yml") == 0


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


def test_a_task_named_by_a_playbook_moves_no_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    console_of(monkeypatch, terminal=True, width=80)
    shows = progress.Progress("site.yml")
    feed(shows, [event("playbook_on_play_start", name="a\x1b[2J"), event("playbook_on_task_start", task="b\x9b2J [red]")])
    assert not set("".join(now(shows))) & {"\x1b", "\x9b"}
    assert "[red]" in now(shows)[1]


def test_what_a_module_warns_of_is_shown_once_and_moves_no_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    output = console_of(monkeypatch, terminal=False)
    warned = {"warnings": ["/home/alice of alice (0755)"]}
    with progress.Progress("site.yml") as shows:
        for result in (warned, warned, {"results": [{"warnings": ["\x1b]0;owned\x07 [red]"]}]}, {"results": None}, None):
            shows.event(event("runner_on_ok", host="head", task="base : Check the modes of the homes", res=result))
    assert output.getvalue().splitlines() == [
        "· site.yml",
        "0:00  head: /home/alice of alice (0755)",
        "0:00  head: ]0;owned [red]",
    ]


def test_with_v_ansibles_own_output_is_shown_instead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output = console_of(monkeypatch, terminal=False)
    monkeypatch.setenv("ANSIBLE_VERBOSITY", "1")
    with progress.Progress("site.yml") as shows:
        feed(shows, [*RUN[:3], {**event("runner_on_ok", host="head"), "stdout": "ok: [head]"}])
    assert output.getvalue().splitlines() == ["· site.yml", "ok: [head]"]
