"""`trainyard undo`: what it would remove, from where, and who has to say yes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from trainyard import cli, playbooks
from trainyard.commands import undo
from trainyard.errors import UsageError
from trainyard.paths import REPOSITORY

HOSTS = """\
all:
  hosts:
    head: {ansible_connection: local}
    gpu1: {ansible_connection: local}
  children:
    gpu: {hosts: {gpu1: }}
    notebooks: {hosts: {head: }}
"""


@pytest.fixture
def lab(tmp_path: Path) -> str:
    (tmp_path / "hosts.yml").write_text(HOSTS)
    return str(tmp_path)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What would have been run."""
    found: list[dict[str, Any]] = []

    def run(playbook: str, _inventory: Path, **more: Any) -> int:
        found.append({"playbook": playbook, **more})
        return 0

    monkeypatch.setattr(playbooks, "run", run)
    return found


def test_every_role_that_puts_something_on_nodes_can_be_undone() -> None:
    every = {path.name for path in (REPOSITORY / "roles").iterdir() if path.is_dir()}
    assert set(undo.roles()) == every - undo.NOTHING_TO_UNDO
    assert next(iter(undo.roles())) == "verification"
    assert undo.wanted(["base", "jupyter"]) == ["jupyter", "base"], "in the order of the undo"


@pytest.mark.parametrize("role", list(undo.roles()))
def test_a_roles_name_is_the_tag_of_all_that_it_does(role: str) -> None:
    for task in yaml.safe_load((REPOSITORY / "roles" / role / "tasks" / "main.yml").read_text()):
        assert task["tags"] == [role]
        for part in ("ansible.builtin.include_tasks",):
            if part in task:
                assert task[part]["apply"] == {"tags": [role]}


def test_nodes_and_roles_are_shown_and_only_yes_removes(
    lab: str, runs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = iter(["y", "", "yes"])
    monkeypatch.setattr(undo.sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(undo.console, "input", lambda _question, **_how: next(typed))
    words = ["undo", "-i", lab, "jupyter", "cuda"]
    for _refused in range(2):
        assert cli.main(words) == 1
        assert "Not confirmed. Nothing was removed." in capsys.readouterr().err
    assert runs == []
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "  jupyter from head\n" in printed
    assert "  cuda from gpu1\n" in printed
    assert "What stays: accounts, homes, data" in printed
    assert [(one["playbook"], one["words"]) for one in runs] == [("playbooks/undo.yml", ["--tags", "jupyter,cuda"])]


def test_without_roles_everything_is_meant_and_a_limit_counts(
    lab: str, runs: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["undo", "-i", lab, "--limit", "gpu1", "--yes"]) == 0
    printed = capsys.readouterr().out
    assert "  base from gpu1\n" in printed
    assert "jupyter" not in printed
    assert "head" not in printed
    assert "./trainyard drain" not in printed, "there is no cluster"
    assert runs[0]["words"] == []
    assert runs[0]["limit"] == "gpu1"


def test_in_a_cluster_it_is_said_that_jobs_lose_what_they_run_with(
    lab: str, runs: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = "    cluster: {children: {slurm_controller: {hosts: {head: }}, slurm_compute: {hosts: {gpu1: }}}}\n"
    Path(lab, "hosts.yml").write_text(HOSTS + cluster)
    assert cli.main(["undo", "-i", lab, "--yes", "framework_env"]) == 0
    assert f"  ./trainyard drain -i {lab} --wait NODE\n" in capsys.readouterr().out
    assert cli.main(["undo", "-i", lab, "--yes", "slurm"]) == 0
    assert "  slurm from head, gpu1\n" in capsys.readouterr().out
    assert cli.main(["undo", "-i", lab, "--yes", "jupyter"]) == 0
    assert "drain" not in capsys.readouterr().out


def test_a_check_asks_nothing(lab: str, runs: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["undo", "-i", lab, "--check", "base"]) == 0
    assert runs[0]["words"] == ["--tags", "base", "--check"]
    assert "Would be removed:" in capsys.readouterr().out


def test_without_a_terminal_yes_has_to_be_given(lab: str, runs: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["undo", "-i", lab]) == 64
    assert "Use --yes" in capsys.readouterr().err
    assert runs == []


@pytest.mark.parametrize("name,near", [("jupiter", "jupyter"), ("nvidia-driver", "nvidia_driver"), ("frameworks", "framework_env")])
def test_an_unknown_role_is_refused_with_the_nearest_name(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}' is not a role that can be undone. Did you mean '{near}'"):
        undo.wanted(["base", name])


def test_roles_that_put_nothing_on_nodes_are_no_roles_here(capsys: pytest.CaptureFixture[str], lab: str) -> None:
    assert cli.main(["undo", "-i", lab, "--yes", "catalog"]) == 64
    assert "'catalog' is not a role that can be undone." in capsys.readouterr().err


def test_a_role_that_no_node_has_is_said(capsys: pytest.CaptureFixture[str], lab: str, runs: list[dict[str, Any]]) -> None:
    assert cli.main(["undo", "-i", lab, "--yes", "slurm"]) == 1
    assert "No node of the inventory has the roles slurm." in capsys.readouterr().err
    assert runs == []
