"""What add-node leaves behind where a step after the checks fails or is cut off; Ansible and Slurm are stand-ins here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainyard import cli, cluster, playbooks
from trainyard.cluster import Proof, Verdict
from trainyard.commands import add_node

HOSTS = """\
all:
  children:
    cluster:
      children:
        slurm_controller:
        slurm_compute:
    slurm_controller:
      hosts:
        head:
    slurm_compute:
      hosts:
        gpu1: {ansible_host: 192.0.2.11}  # the first
"""
CLOSED = HOSTS + "        gpu2: {ansible_host: 192.0.2.12, slurm_closed: true}\n"
OPEN = HOSTS + "        gpu2: {ansible_host: 192.0.2.12}\n"
SITE, CLUSTER = ("site.yml", "gpu2,head"), ("playbooks/cluster.yml", "head")
FIREWALL, WITHOUT = ("playbooks/firewall.yml", "head,gpu1,gpu2"), ("playbooks/firewall.yml", "head,gpu1")


class Stage:
    """An inventory, and stand-ins that note what ran."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hosts = folder / "hosts.yml"
        self.hosts.write_text(HOSTS)
        self.ran: list[tuple[str, str]] = []
        self.answers: dict[str, Callable[[], Any]] = {}
        self.verdict = Verdict.PROVEN
        monkeypatch.setattr(add_node, "check", lambda *_words: None)
        monkeypatch.setattr(add_node, "show_plan", lambda *_words: 0)
        monkeypatch.setattr(playbooks, "run", self.run)
        monkeypatch.setattr(cluster.Cluster, "proof", lambda *_words: Proof(self.verdict, ""))
        monkeypatch.setattr(cluster.Cluster, "queues", lambda *_words: ["main"])

    def run(self, playbook: str, inventory: Path, *, limit: str) -> int:
        self.ran.append((playbook, limit))
        self.seen = inventory.read_text()
        return int(self.answers.pop(playbook, lambda: 0)())

    def add(self, *words: str) -> int:
        return cli.main(["add-node", "-i", str(self.hosts), "gpu2", "--address", "192.0.2.12", *words])

    def left(self) -> list[str]:
        return sorted(path.name for path in self.hosts.parent.iterdir())


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


def test_a_proven_node_is_opened_and_then_written_so(stage: Stage) -> None:
    assert stage.add() == 0
    assert stage.ran == [SITE, FIREWALL, CLUSTER]
    assert stage.seen == OPEN == stage.hosts.read_text()
    assert stage.left() == ["hosts.yml"]


def test_a_node_that_learns_nothing_of_it_hinders_nobody_and_is_told(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.answers = {"playbooks/firewall.yml": lambda: 1}
    assert stage.add() == 0
    assert f"Once they are reachable: ./trainyard apply -i {stage.hosts} --playbook playbooks/firewall.yml" in capsys.readouterr().out


def test_check_changes_nothing(stage: Stage) -> None:
    assert stage.add("--check") == 0
    assert (stage.ran, stage.hosts.read_text(), stage.left()) == ([], HOSTS, ["hosts.yml"])


@pytest.mark.parametrize("step", ["site.yml", "proof", "playbooks/cluster.yml"])
def test_a_step_that_fails_takes_the_node_out_again(stage: Stage, step: str, capsys: pytest.CaptureFixture[str]) -> None:
    stage.answers = {step: lambda: 1}
    stage.verdict = Verdict.FAILED if step == "proof" else Verdict.PROVEN
    assert stage.add() == 1
    assert stage.ran[-2:] == [CLUSTER, WITHOUT], "no node admits it any more"
    assert stage.seen == HOSTS == stage.hosts.read_text()
    assert "The inventory and the cluster are as before." in capsys.readouterr().err
    assert stage.left() == ["hosts.yml"]


def test_where_slurm_cannot_be_told_that_is_said(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.answers = {"site.yml": lambda: 1, "playbooks/cluster.yml": lambda: 1}
    assert stage.add() == 1
    assert stage.hosts.read_text() == HOSTS
    assert f"Slurm is not: ./trainyard apply -i {stage.hosts} --limit head takes gpu2 out of it" in capsys.readouterr().err


def interrupt() -> int:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", ["site.yml", "playbooks/cluster.yml"])
def test_cut_off_the_node_is_closed_and_the_same_command_goes_on(stage: Stage, step: str) -> None:
    stage.answers = {step: interrupt}
    assert stage.add() == 130
    assert stage.hosts.read_text() == CLOSED
    assert stage.add() == 0
    assert stage.hosts.read_text() == OPEN


def test_a_full_cluster_leaves_it_closed_and_the_same_command_goes_on(stage: Stage) -> None:
    stage.verdict = Verdict.NO_ROOM
    assert stage.add("--deadline", "1s") == 1
    assert (stage.ran, stage.hosts.read_text()) == ([SITE, FIREWALL], CLOSED)
    stage.verdict = Verdict.FAILED
    assert stage.add() == 1
    assert stage.hosts.read_text() == HOSTS, "as before the first of the two"


def test_another_machine_under_the_name_of_a_closed_one_is_refused(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.hosts.write_text(CLOSED.replace("192.0.2.12", "192.0.2.99"))
    assert stage.add() == 1
    assert "gpu2 is in the inventory already" in capsys.readouterr().err
