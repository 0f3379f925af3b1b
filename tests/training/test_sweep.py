"""A sweep's runs, names, metric and table; and run-one's turn on a node."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from trainyard_training import cluster, commands, run_one, runs, shipped_runs, sweep
from trainyard_training.errors import INTERRUPTED, RefusedError


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
    made = sweep.combinations(sweep.parameters(["--lr", "0.1,0.01", "--batchsize=16,32", "--name", "a/b"]))
    assert [runs.label(run) for run in made] == [
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
        ("", None),
    ],
)
def test_the_metric_is_the_last_that_was_printed(log: str, value: float | None) -> None:
    assert runs.metric(log, "accuracy") == value


@pytest.mark.parametrize("last", ["nan", "NaN", "inf", "-inf", "Infinity", "-Infinity"])
def test_a_run_that_ended_in_no_number_ranks_after_those_with_one(tmp_path: Path, last: str) -> None:
    made = runs.Sweep(tmp_path, sweep.combinations({"lr": ["1", "2", "3", "4"]}))
    for lr, log in {"1": f"loss=0.01\nloss={last}\n", "2": "no metric", "3": '{"loss": 0.5}', "4": "loss: 0.4"}.items():
        made.log({"lr": lr}).write_text(log)
    assert [row[0]["lr"] for row in made.table("loss", True, {})] == ["4", "3", "1", "2"]
    assert [row[0]["lr"] for row in made.table("loss", False, {})] == ["3", "4", "1", "2"]
    assert runs.metric("accuracy=nano 1", "accuracy") is None


def test_a_run_has_done_its_work_only_when_it_ended_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "train.py"
    script.write_text("import sys\nprint('accuracy=0.' + sys.argv[1][-1])\nsys.exit(sys.argv[1] == '--lr=2')")
    made = runs.Sweep(tmp_path, sweep.combinations({"lr": ["1", "2", "3"]}))
    (tmp_path / "runs.json").write_text(json.dumps({"script": str(script), "python": sys.executable, "runs": made.runs}))
    assert [sweep.one(tmp_path, number) for number in (0, 1)] == [0, 1]
    assert made.open() == [1, 2]
    made.show("accuracy", lowest=False, live={2: "waiting"})
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [["rank", "lr", "accuracy", "state"], ["1", "2", "0.2", "failed", "(1)"], ["2", "1", "0.1", "done"], ["3", "waiting"]]
    assert list(csv.reader((tmp_path / "table.csv").open()))[1] == ["1", "2", "0.2", "failed (1)"]
    assert [row[0]["lr"] for row in made.table("accuracy", True, {})] == ["1", "2", "3"]
    assert made.state({"lr": "3"}, "") == "not begun"
    assert made.state({"lr": "2"}, "running") == "running", "it runs again"
    script.write_text("print('accuracy=0.9')")
    assert sweep.one(tmp_path, 1) == 0
    assert made.state({"lr": "2"}, "") == "done"
    assert not (tmp_path / "failed_lr2").exists()


def test_temporary_files_of_a_run_lie_in_a_folder_of_its_own_that_goes(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("import tempfile; print(tempfile.mkdtemp(), tempfile.mkstemp()[1])")
    (tmp_path / "runs.json").write_text(json.dumps({"script": str(script), "python": sys.executable, "runs": [{"lr": "1"}]}))
    assert sweep.one(tmp_path, 0) == 0
    for path in (tmp_path / "log_lr1.txt").read_text().split():
        assert "/trainyard-" in path
        assert not Path(path).parents[1].exists()


@pytest.mark.parametrize("sign", ["SIGTERM", "SIGUSR1"])
def test_a_run_that_is_told_to_end_passes_that_on_and_says_so(tmp_path: Path, sign: str) -> None:
    script = tmp_path / "train.py"
    script.write_text(f"import os, signal, time; os.kill(os.getppid(), signal.{sign}); time.sleep(60)")
    (tmp_path / "runs.json").write_text(json.dumps({"script": str(script), "python": sys.executable, "runs": [{"lr": "1"}]}))
    code = "import sys; from pathlib import Path; from trainyard_training import sweep; sys.exit(sweep.one(Path(sys.argv[1]), 0))"
    environment = {**os.environ, "PYTHONPATH": str(Path(sweep.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code, tmp_path], env=environment, check=False, timeout=30).returncode == 143
    assert (tmp_path / "failed_lr1").read_text() == "143\n"


@pytest.mark.parametrize(
    "state, code, why",
    [
        ("COMPLETED", "0:0", ""),
        ("FAILED", "3:0", "3"),
        ("FAILED", "0:9", "137"),
        ("FAILED", "72:0", "72: its node does not see the folder"),
        ("TIMEOUT", "0:0", "time limit"),
        ("CANCELLED", "0:15", "cancelled"),
        ("OUT_OF_MEMORY", "0:125", "out of memory"),
        ("BOOT_FAIL", "0:0", "ended by Slurm"),
    ],
)
def test_why_a_run_failed_that_could_not_say_so_itself(state: str, code: str, why: str) -> None:
    assert runs.reason(state, code) == why


def test_what_slurm_says_of_an_arrays_tasks() -> None:
    printed = "7|0|RUNNING\n7|1|PENDING\n7|2|COMPLETING\n8|N/A|PENDING\n9|3|RUNNING\n"
    assert cluster.parse_tasks("7", printed) == {0: "running", 1: "waiting", 2: "running"}
    printed = (
        "JobId=12 ArrayJobId=12 ArrayTaskId=3-4 JobName=x JobState=PENDING ExitCode=0:0\n"
        "JobId=13 ArrayJobId=12 ArrayTaskId=0 JobName=x JobState=TIMEOUT Reason=None ExitCode=0:15\n"
        "JobId=14 ArrayJobId=12 ArrayTaskId=1 JobName=x JobState=RUNNING ExitCode=0:0\n"
    )
    assert cluster.parse_ended_tasks(printed) == {0: ("TIMEOUT", "0:15")}


# --- with stand-ins for Slurm's commands ------------------------------------------------------------------------------

STAND_INS = {
    "sinfo": "printf 'main|1:00:00|2|4|(null)|up|main*\\n'",
    "sbatch": "echo sbatch >> $CALLED; echo 7",
    "squeue": "cat $QUEUE 2>/dev/null || true",
    "scontrol": "cat $ENDED 2>/dev/null || exit 1",
    # As srun does: a part of ours on a node, which is another folder.
    "srun": 'echo srun >> $CALLED; while [ $1 != /run ]; do shift; done; shift; exec $PART $SEEN "$@"',
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder, programs = tmp_path / "project", tmp_path / "programs"
    folder.mkdir()
    programs.mkdir()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from trainyard_training import commands\n"
        "words = sys.argv[3:]\n"
        "if words[0] == 'sees' and sys.argv[2] == 'no': words[2] = 'another'\n"
        "sys.exit(commands.main(words, Path('/run'), {'environments': '/nowhere'}))"
    )
    (programs / "part.py").write_text(code)
    for name, script in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    for name, value in {
        "PATH": f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin",
        "CALLED": str(tmp_path / "called"),
        "QUEUE": str(tmp_path / "queue"),
        "ENDED": str(tmp_path / "ended"),
        "PART": f"{sys.executable} {programs}/part.py {Path(sweep.__file__).parents[1]}",
        "SEEN": "yes",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    (folder / "train.py").write_text("print('accuracy=1')")
    return folder


def swept(*words: str) -> int:
    return commands.main(["sweep", "train.py", *words], Path("/run"), {"environments": "/nowhere"})


def called(project: Path) -> list[str]:
    path = project.parent / "called"
    found = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def test_an_edited_script_is_said_before_anything_is_reused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert swept("--lr", "1,2") == 0
    assert sweep.one(project / "sweep-train", 0) == 0
    (project / "train.py").write_text("print('accuracy=2')")
    called(project)
    assert swept("--lr", "1,2") == 64
    said = capsys.readouterr().err
    assert "1 of 2 runs" in said
    assert "such as lr1, were done by another version of the script or another environment. --reuse counts them as done; --redo" in said
    assert called(project) == []
    assert swept("--lr", "1,2", "--reuse") == 0
    assert "1 runs that another version of the script has done are counted." in capsys.readouterr().out
    assert called(project) == ["srun", "sbatch"]
    assert swept("--lr", "1,2") == 0, "counted once and for all"
    assert swept("--lr", "1,2", "--redo") == 0
    assert (project / "sweep-train-1" / "log_lr1.txt").read_text() == "accuracy=1\n", "nothing is lost"
    assert runs.Sweep(project / "sweep-train", [{"lr": "1"}]).open() == [0]


def test_runs_of_another_python_are_not_reused_either(project: Path) -> None:
    assert swept("--lr", "1") == 0
    assert sweep.one(project / "sweep-train", 0) == 0
    assert swept("--lr", "1", "--environment", "other") == 64


def test_another_grid_is_said_and_waits_for_the_one_that_runs(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert swept("--lr", "1,2") == 0
    (project.parent / "queue").write_text("7|0|RUNNING\n7|1|PENDING\n")
    called(project)
    assert swept("--lr", "1,3") == 64
    assert "the array job 7 of" in (said := capsys.readouterr().err)
    assert "is running another grid (lr=1,2). Wait until it has ended, end it with scancel 7" in said
    assert swept("--lr", "1,2") == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[-2:]] == ["running", "waiting"]
    (project.parent / "queue").unlink()
    assert sweep.one(project / "sweep-train", 0) == 0
    assert swept("--lr", "1,3") == 0
    assert "Another grid than before (lr=1,2): 1 of 2 runs are done already." in capsys.readouterr().out
    assert swept("--lr", "1,3", "--redo") == 0


def test_runs_that_slurm_ended_say_why(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert swept("--lr", "1,2") == 0
    ended = "JobId={} ArrayJobId=7 ArrayTaskId={} JobState={} ExitCode={}\n"
    (project.parent / "ended").write_text(ended.format(7, 0, "TIMEOUT", "0:15") + ended.format(8, 1, "FAILED", "72:0"))
    called(project)
    assert swept("--lr", "1,2", "--watch") == 1
    printed = capsys.readouterr().out
    assert "failed (time limit)" in printed
    assert "failed (72: its node does not see the folder)" in printed


def test_ctrl_c_leaves_the_runs_and_says_how_to_end_them(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pressed(_seconds: float) -> None:
        raise KeyboardInterrupt

    assert swept("--lr", "1,2") == 0
    (project.parent / "queue").write_text("7|0|RUNNING\n")
    monkeypatch.setattr(sweep, "time", SimpleNamespace(sleep=pressed))
    assert swept("--lr", "1,2", "--watch") == INTERRUPTED
    assert capsys.readouterr().err.endswith("\nThe array job 7 goes on. End it with: scancel 7\n")


def test_values_that_would_share_a_log_are_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert swept("--path", "a/b,a-b") == 64
    assert "two runs would have the same log" in capsys.readouterr().err


SHIPPED = """
import os, sys, tempfile, helper
print("accuracy=0." + sys.argv[1][-1], os.getcwd(), tempfile.gettempdir(), os.path.exists("venv"))
open("model.pt", "w").close()
sys.exit(3 * (sys.argv[1] == "--lr=2"))
"""


def test_where_nodes_do_not_see_the_folder_the_script_is_shipped(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEEN", "no")
    (project / "train.py").write_text(SHIPPED)
    (project / "helper.py").touch()
    (project / "venv").mkdir()
    assert swept("--lr", "1,2,3", "--max-parallel", "2") == 1
    said = capsys.readouterr()
    assert "The nodes do not see this folder: the script's folder is shipped" in said.err
    assert f"Ships {project}: 2 files" in said.err
    assert "failed (3)" in said.out
    assert called(project) == ["srun"] * 4, "one question and three runs, and no array job"
    log = (project / "sweep-train" / "log_lr1.txt").read_text()
    first, second = log.splitlines()
    value, cwd, temporary, venv = first.split()
    assert (value, venv) == ("accuracy=0.1", "False")
    assert temporary == str(Path(cwd).with_name("tmp"))
    assert not Path(cwd).exists()
    assert second.endswith("what the script wrote here does not come back: model.pt")
    assert not list((project / "sweep-train").glob("*.tar"))
    (project / "train.py").write_text(SHIPPED.replace("3 * ", "0 * "))
    assert swept("--lr", "1,2,3", "--reuse") == 0
    assert called(project) == ["srun"] * 2


def test_ctrl_c_ends_the_runs_that_are_carried(project: Path) -> None:
    made = runs.Sweep(project, sweep.combinations({"lr": ["1", "2", "3"]}))
    archive = project / "workspace.tar"
    archive.touch()
    script = f"trap 'touch {project}/told; exit 1' USR1; echo begun > {project}/begun; while :; do sleep 0.1; done"
    carrier = shipped_runs.Carrier(made, ["sh", "-c", script], project / "train.py", "python3", archive)
    thread = threading.Thread(target=carrier.one, args=(0,))
    thread.start()
    end = time.monotonic() + 20
    while not (project / "begun").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    carrier.stop()
    thread.join(20)
    carrier.one(1)
    assert [made.state(run, "") for run in made.runs] == ["failed (stopped)", "not begun", "not begun"]
    assert (project / "told").exists(), "by the signal that srun hands on"


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
