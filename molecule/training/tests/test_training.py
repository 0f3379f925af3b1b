"""The commands on a node that is in no cluster: they say so, and run-one needs none."""

from __future__ import annotations

from typing import Any

import pytest

COMMANDS = ("cluster_train", "paddle", "run-one", "sweep")
USER = "runuser -u nobody -- "


@pytest.mark.parametrize("command", COMMANDS)
def test_everybody_has_the_commands_and_root_alone_writes_them(host: Any, command: str) -> None:
    link = host.file(f"/usr/local/bin/{command}")
    assert link.linked_to == "/usr/local/lib/trainyard/training/run"
    program = host.file(link.linked_to)
    assert (program.user, program.mode) == ("root", 0o755)


@pytest.mark.parametrize("words", ["cluster_train --help", "paddle cluster_train --help", "sweep --help", "run-one --help"])
def test_each_tells_what_it_does_with_examples(host: Any, words: str) -> None:
    said = host.run(USER + words)
    assert said.rc == 0
    assert "examples:" in said.stdout


def test_without_a_cluster_nothing_is_submitted(host: Any) -> None:
    said = host.run(USER + "sh -c 'cd /opt/trainyard/samples && cluster_train --framework pytorch --config pytorch_digits.py'")
    assert said.rc == 69
    assert said.stderr == "cluster_train: sinfo is not installed: this machine is not in a Slurm cluster.\n"


def test_what_paddle_is_asked_for_beside_is_explained(host: Any) -> None:
    said = host.run(USER + "paddle version")
    assert said.rc == 64
    assert said.stderr.startswith("paddle: Usage: paddle cluster_train --config FILE")


def test_one_runs_at_a_time(host: Any) -> None:
    assert host.run(USER + "run-one true").rc == 0
    assert host.run(USER + "run-one sh -c 'exit 3'").rc == 3
    both = f"{USER}run-one sleep 5 & sleep 1; {USER}run-one --no-wait true; echo $?; kill $!"
    assert host.run(f"sh -c '{both}'").stdout == "75\n"


def test_the_lock_is_there_after_a_restart(host: Any) -> None:
    assert host.file("/run/lock/trainyard-run-one").mode == 0o666
    assert host.run("rm /run/lock/trainyard-run-one && systemd-tmpfiles --create").rc == 0
    assert host.file("/run/lock/trainyard-run-one").mode == 0o666


@pytest.mark.parametrize("sample", ["keras", "paddle", "pytorch", "tensorflow"])
def test_there_is_a_sample_for_each_framework(host: Any, sample: str) -> None:
    assert host.file(f"/opt/trainyard/samples/{sample}_digits.py").mode == 0o644
