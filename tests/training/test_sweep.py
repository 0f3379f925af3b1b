"""A sweep's runs, names, metric and table; and run-one's turn on a node."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trainyard_training import run_one, sweep
from trainyard_training.errors import RefusedError


@pytest.mark.parametrize(
    "words, expected",
    [
        ("0.1,0.01", ["0.1", "0.01"]),
        ("16:64:16", ["16", "32", "48", "64"]),
        ("0.1:0.3:0.1", ["0.1", "0.2", "0.3"]),
        ("3:1:-1", ["3", "2", "1"]),
        ("adam", ["adam"]),
        ("a:b:c", ["a:b:c"]),
        ("/a:/b:/c,x", ["/a:/b:/c", "x"]),
    ],
)
def test_values_are_lists_or_ranges_with_their_end(words: str, expected: list[str]) -> None:
    assert sweep.values(words) == expected


@pytest.mark.parametrize(
    "words, said",
    [
        (["lr", "1"], "'lr' is no parameter; right is --name VALUES"),
        (["--lr"], "--lr has no values"),
        (["--lr", "--batch", "1"], "--lr has no values"),
        (["--lr", "1", "--lr", "2"], "--lr stands there twice"),
        (["--lr", "1:2:0"], "--lr: 1:2:0 leads nowhere"),
        (["--lr", "1:2:-1"], "--lr: 1:2:-1 leads nowhere"),
    ],
)
def test_what_is_no_parameter_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        sweep.parameters(words)


def test_every_combination_has_its_own_log() -> None:
    runs = sweep.combinations(sweep.parameters(["--lr", "0.1,0.01", "--batchsize=16,32", "--name", "a/b"]))
    assert [sweep.label(run) for run in runs] == [
        "batchsize16_lr0.1_namea-b",
        "batchsize16_lr0.01_namea-b",
        "batchsize32_lr0.1_namea-b",
        "batchsize32_lr0.01_namea-b",
    ]


@pytest.mark.parametrize(
    "log, value",
    [
        ("accuracy=0.5\nx\naccuracy=0.75 ok", 0.75),
        ("accuracy: .9", 0.9),
        ('{"accuracy": 0.8125, "loss": 1}', 0.8125),
        ("test-accuracy=0.1\nval_accuracy=0.2", None),
        ("accuracy=1e-3", 0.001),
        ("accuracy=nan", None),
        ("", None),
    ],
)
def test_the_metric_is_the_last_that_was_printed(log: str, value: float | None) -> None:
    assert sweep.metric(log, "accuracy") == value


def test_a_run_has_done_its_work_only_when_it_ended_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "train.py"
    script.write_text("import sys\nprint('accuracy=0.' + sys.argv[1][-1])\nsys.exit(sys.argv[1] == '--lr=2')")
    made = sweep.Sweep(tmp_path, sweep.combinations({"lr": ["1", "2", "3"]}))
    (tmp_path / "runs.json").write_text(json.dumps({"script": str(script), "python": sys.executable, "runs": made.runs}))
    assert [sweep.one(tmp_path, number) for number in (0, 1)] == [0, 1]
    assert made.open() == [1, 2]
    sweep.show(made, "accuracy", lowest=False)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [["rank", "lr", "accuracy", "state"], ["1", "2", "0.2", "not", "done"], ["2", "1", "0.1", "done"], ["3", "not", "begun"]]
    assert list(csv.reader((tmp_path / "table.csv").open()))[1] == ["1", "2", "0.2", "not done"]
    assert [row[0]["lr"] for row in made.table("accuracy", lowest=True)] == ["1", "2", "3"]


def test_too_many_runs_are_a_slip_of_the_pen(tmp_path: Path) -> None:
    (tmp_path / "t.py").touch()
    with pytest.raises(RefusedError, match="these are 10000 runs; a sweep has at most 1000"):
        sweep.main([str(tmp_path / "t.py"), "--a", "1:100:1", "--b", "1:100:1"], Path("/run"), {"environments": "/envs"})


CALL = (
    "import sys; from pathlib import Path; from trainyard_training import run_one; sys.exit(run_one.main(sys.argv[2:], Path(sys.argv[1])))"
)


def call(lock: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CALL, str(lock), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(run_one.__file__).parents[1])},
    )


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "lock"
    path.touch()
    return path


def test_one_runs_and_the_next_waits_for_it(lock: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    first = call(lock, "sh", "-c", f"touch {begun}; sleep 1.5; echo first")
    end = time.monotonic() + 20
    while not begun.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert call(lock, "--no-wait", "true").wait(20) == run_one.BUSY
    second = call(lock, "sh", "-c", "echo second; exit 3")
    said = second.communicate(timeout=20)
    assert said == ("second\n", "run-one: somebody else is running; waiting.\n")
    assert second.returncode == 3
    assert first.poll() == 0


def test_a_command_that_is_none_is_said(lock: Path) -> None:
    process = call(lock, "no-such-command")
    assert process.communicate(timeout=20)[1] == "run-one: no-such-command: No such file or directory\n"
    assert process.returncode == 127


def test_arguments_of_the_command_are_its_own(lock: Path) -> None:
    process = call(lock, "--", "echo", "--ex", "--g", "--", "-h")
    assert process.communicate(timeout=20) == ("--ex --g -- -h\n", "")


def test_gpus_are_taken_one_by_one_or_all_at_once(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert run_one.gpus(tmp_path) == [0, 1]
    script = (
        "import os, sys, time; from trainyard_training import run_one\n"
        "lock = os.open(sys.argv[1], os.O_RDWR)\n"
        "print(run_one.take(lock, [0, 1], sys.argv[2] == 'all'), flush=True); sys.stdin.read()"
    )
    lock = tmp_path / "lock"
    lock.touch()
    environment = {**os.environ, "PYTHONPATH": str(Path(run_one.__file__).parents[1])}

    def holder(which: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(lock), which], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdout
        return process, process.stdout.readline().strip()

    held = [holder("one"), holder("one"), holder("one"), holder("all")]
    assert [places for _process, places in held] == ["[0]", "[1]", "[]", "[]"]
    for process, _places in held:
        process.communicate(timeout=20)
    last, places = holder("all")
    assert places == "[0, 1]"
    last.communicate(timeout=20)
