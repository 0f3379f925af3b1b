"""``trainyard resolve``: exit status, what it prints, and words that mean nothing."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from trainyard import cli
from trainyard.commands import plan, resolve

MACHINE = ["resolve", "--gpu", "Tesla V100", "--os", "ubuntu-24.04"]
WISHES = ["--framework", "pytorch", "--framework", "tensorflow"]


def test_the_set_with_its_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*MACHINE, *WISHES]) == 0
    said = capsys.readouterr().out
    for word in (
        "R580",
        "proprietary kernel module",
        "torch==2.14",
        "tensorflow[and-cuda]==2.21.0",
        "the last branch for Volta",
        "passed over",
        "https://",
    ):
        assert word in said, word


def test_the_set_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*MACHINE, *WISHES, "--pin", "cuda=12.6", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == "ok"
    machine = answer["nodes"]["this machine"]
    assert [toolkit["version"] for toolkit in machine["toolkits"]] == ["12.6.3"]
    assert {placed["cuda"] for placed in machine["environments"].values()} == {"12.6"}


def test_a_conflict_is_explained_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*MACHINE, *WISHES, "--pin", "cuda=13.0"]) == 2
    said = capsys.readouterr().out
    assert "These cannot be had together on this machine" in said
    assert "CUDA 13.0 makes no code for Tesla V100 (Volta, compute capability 7.0)" in said
    assert "give up CUDA 13.0" in said
    assert "torch==2.14" in said


def test_kernel_and_secure_boot_are_words_too(capsys: pytest.CaptureFixture[str]) -> None:
    machine = ["resolve", "--gpu", "a100", "--os", "debian-12", "--kernel", "6.17.13+deb12-amd64", "--secure-boot"]
    assert cli.main([*machine, "--json"]) == 0
    node = json.loads(capsys.readouterr().out)["nodes"]["this machine"]
    assert node["kernel"] == "6.17"
    assert any("Secure Boot is on" in warning for warning in node["warnings"])
    assert cli.main([*machine, "--driver-source", "distribution"]) == 2
    assert "and 6.17 boots" in capsys.readouterr().out


def test_a_conflict_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["resolve", "--gpu", "gtx 1080", "--gpu", "rtx 5090", "--os", "ubuntu-24.04", "--framework", "pytorch", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == "conflict"
    assert "a machine loads one flavour" in answer["conflicts"][0]["reasons"][0]["text"]
    assert len(answer["nearest"]["changes"]) == 2


@pytest.mark.parametrize(
    "words,named",
    [
        (["--gpu", "a1000x", "--os", "debian-12"], "RTX A1000"),
        (["--os", "debain-12"], "debian-12"),
        (["--os", "debian-12", "--framework", "tensroflow"], "tensorflow"),
        (["--os", "debian-12", "--pin", "cuda"], "cuda=12.6"),
        (["--os", "debian-12", "--pin", "cuda=12.7"], "12.6"),
        (["--os", "debian-12", "--profile", "qingclod-1.1"], "qingcloud-1.1"),
        (["--os", "debian-12", "--driver", "old"], "'old' is no version"),
    ],
)
def test_words_that_mean_nothing_end_with_64_and_the_nearest_known_ones(
    words: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["resolve", *words]) == 64
    assert named in capsys.readouterr().err


def examples(text: str, verb: str) -> list[list[str]]:
    """Return the words of the examples of a verb in a help text: what is not the comment after them, and not another program's."""
    lines = [re.split(r"\s{3,}|\s\|\s", line.strip())[0] for line in text.splitlines() if line.startswith(f"  ./trainyard {verb}")]
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.parametrize("words", [*examples(resolve.EXAMPLES, "resolve"), *examples(cli.EXAMPLES, "resolve")], ids=" ".join)
def test_every_example_of_the_help_has_an_answer(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0, capsys.readouterr().out


@pytest.mark.parametrize("words", [*examples(plan.EXAMPLES, "plan"), *examples(cli.EXAMPLES, "plan")], ids=" ".join)
def test_every_example_of_plan_has_an_answer(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(tmp_path / "hosts.yml") if word == "inventory/mylab" else word for word in words]
    assert cli.parser().parse_args(words).run is plan.run
    (tmp_path / "hosts.yml").write_text("all: {hosts: {a: {plan_os: debian-12}}, vars: {plan_environments: [pytorch]}}")
    offline = [*words, *([] if "--offline" in words else ["--offline"])]  # there is no node that could be asked
    assert cli.main(offline) == 0, capsys.readouterr().out


def test_there_are_examples() -> None:
    assert [len(examples(text, verb)) for text, verb in ((resolve.EXAMPLES, "resolve"), (plan.EXAMPLES, "plan"))] == [5, 3]


def test_help_shows_examples_and_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["resolve", "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "./trainyard resolve --gpu" in said
    assert "64 for words that mean nothing" in said
