"""How a job's end is judged, what stands in result.json, and in which words it is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trainyard_training import ending, failure, outputs, placing
from trainyard_training.errors import LOST, NOT_KEPT, STOPPED, RefusedError
from trainyard_training.meeting import Goodbye, Host, Result

BYE = Goodbye(0, [], 0, 0, [], 0)
STEP = "slurmstepd-node1: error: *** STEP 7.0 ON node1 CANCELLED AT 2026-11-29T19:47:19{} ***"


def host(results: dict[int, Result], *, problem: str = "", stopped: str = "", byes: dict[int, Goodbye] | None = None) -> Host:
    made = Host(["node1", "node2"], "secret", {}, None)
    made.results, made.problem, made.stopped = results, problem, stopped
    made.goodbyes = {0: BYE, 1: BYE} if byes is None else byes
    return made


WHOLE = {0: Result(0), 1: Result(0)}
TOLD: dict[str, Any] = {"results": {1: Result(STOPPED, stopped=True)}, "stopped": "told to end"}


@pytest.mark.parametrize(
    "due, reason, again",
    [
        ("", "cancelled", False),
        (" DUE TO TIME LIMIT", "time limit", False),
        (" DUE TO PREEMPTION", "preempted", True),
        (" DUE TO JOB REQUEUE", "requeued", True),
        (" DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS", "node failed", True),
    ],
)
def test_a_job_that_was_told_to_end_is_never_sent_back_by_us(due: str, reason: str, again: bool) -> None:
    end = ending.judge(host(**TOLD), 143, [STEP.format(due)], "COMPLETING", 1, here=False)
    assert (end.reason, end.again, end.again and not end.by_slurm, end.status) == (reason, again, False, STOPPED)


@pytest.mark.parametrize("state", ["CANCELLED", "TIMEOUT", "COMPLETING", "COMPLETED"])
def test_nodes_that_are_lost_while_slurm_ends_the_job_do_not_start_it_again(state: str) -> None:
    assert not ending.judge(host({}, problem="node2 has gone"), 1, [], state, 1, here=False).again


def test_a_node_that_falls_silent_starts_the_job_again_twice() -> None:
    ends = [ending.judge(host({}, problem="node2 said nothing"), 1, [], "RUNNING", start, here=False) for start in (1, 2, 3)]
    assert [(end.status, end.reason, end.again) for end in ends] == [(LOST, "lost", again) for again in (True, True, False)]
    assert not ending.judge(host({}, problem="node2 said nothing"), 1, [], "", 1, here=True).again


def test_the_first_that_failed_is_named_and_not_who_missed_it() -> None:
    results = {
        0: Result(1, "rank 0 has ended with status 1: RuntimeError: Connection closed by peer"),
        1: Result(3, "rank 1 has ended: bad"),
    }
    end = ending.judge(host(results), 0, [], "RUNNING", 1, here=False)
    assert (end.reason, end.problem) == ("failed", "node2: rank 1 has ended: bad")


def test_work_that_did_not_come_back_is_not_done_well() -> None:
    assert ending.judge(host(WHOLE), 0, [], "RUNNING", 1, here=False) == ending.Ending(0)
    for byes in ({0: BYE}, {0: BYE, 1: Goodbye(2, [], 0, 0, [], 0)}):
        assert ending.judge(host(WHOLE, byes=byes), 0, [], "RUNNING", 1, here=False).status == NOT_KEPT


def test_the_end_is_one_block_and_names_what_was_not_kept(tmp_path: Path) -> None:
    byes = {0: Goodbye(0, ["model.pt"], 1, 2_500_000, [], 0), 1: Goodbye(0, [], 0, 0, ["log.txt", "model.pt"], 2)}
    there = host(WHOLE, byes=byes)
    told = ending.told(ending.judge(there, 0, [], "RUNNING", 1, here=False), there, "7", 1, 3.0)
    assert ending.block(told, Path("/home/ada/t-1")) == [
        "Job 7 has ended well: /home/ada/t-1",
        "  files that it wrote beside itself: 1 (model.pt), 2.5 MB, in /home/ada/t-1/outputs",
        "  not kept of node2: 1 (log.txt)",
    ]


@pytest.mark.parametrize(
    "said, words",
    [
        ("x\nTraceback (most recent call last):\n  File 'a'\n    f()\nValueError: bad\nsome thread goes on", "ValueError: bad"),
        (
            "Traceback (most recent call last):\n  f\nKeyError: 1\n\nDuring ...:\n\nTraceback (most recent call last):\n  g\nmine.Error: 2",
            "mine.Error: 2",
        ),
        ("no data in /x\n\n", "no data in /x"),
        ("50%\r100%\n", "100%"),
        ("", ""),
    ],
)
def test_last_words(said: str, words: str) -> None:
    assert failure.last_words(said) == words


def test_killed_is_probably_out_of_memory() -> None:
    assert failure.described("rank 1", -9, "x", 200 << 20) == "rank 1 was killed, probably out of memory (limit 210 MB)"
    assert failure.described("rank 1", -11, "") == "rank 1 has crashed (SIGSEGV)"
    assert failure.memory_limit({"SLURM_MEM_PER_CPU": "100", "SLURM_CPUS_ON_NODE": "2"}, Path("/nowhere")) == 200 << 20


def test_what_a_script_writes_beside_itself_is_kept_and_found_again(tmp_path: Path) -> None:
    work, kept, again = tmp_path / "work", tmp_path / "kept", tmp_path / "again"
    for folder in (work / "data", again):
        folder.mkdir(parents=True)
    for name in ("train.py", "data/in.txt", "state.json"):
        (work / name).write_text("shipped")
    before = outputs.state(work)
    for name, words in (("state.json", "changed"), ("runs/1/model.pt", "w" * 100), ("big.pt", "b" * 2000), ("hook.sh", "echo")):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(words)
    (work / "__pycache__").mkdir()
    (work / "__pycache__" / "train.pyc").touch()
    found = outputs.keep(work, before, kept, most=1000)
    assert (sorted(found.files), found.left) == (["hook.sh", "runs/1/model.pt", "state.json"], ["big.pt"])
    assert {path.stat().st_mode & 0o077 for path in [kept, *kept.rglob("*")]} == {0}
    (again / "train.py").write_text("shipped")
    outputs.restore(kept, again)
    assert (again / "runs/1/model.pt").read_text() == "w" * 100
    assert not (again / "hook.sh").exists()  # what would run is not taken from a node


MOUNTS = """\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 8:2 / /data rw - xfs /dev/sda2 rw
31 22 0:50 / /home rw shared:1 - nfs4 nas:/home rw
32 22 8:3 / /with\\040space rw - ext4 /dev/sda3 rw
"""


def test_where_a_folder_lies() -> None:
    for folder, mount in (
        ("/srv/x", ("/", "ext4")),
        ("/data/x", ("/data", "xfs")),
        ("/home/ada", ("/home", "nfs4")),
        ("/with space", ("/with space", "ext4")),
    ):
        assert placing.mounted(Path(folder), MOUNTS) == mount
    assert placing.chosen(Path("/srv/x"), "/", "ext4", "node1", {"node1", "node2"}, "main") == "node1"
    assert placing.chosen(Path("/data/x"), "/data", "xfs", "head", {"node1", "node2"}, "main") == ""
    with pytest.raises(RefusedError, match=r"/srv/x lies on the own disk of head .*node1, node2.*training_shared_folders"):
        placing.chosen(Path("/srv/x"), "/", "ext4", "head", {"node1", "node2"}, "main")


def test_a_trainer_that_has_done_its_work_ends_well_whatever_its_threads_do(tmp_path: Path) -> None:
    script = "import atexit, os, threading, time\natexit.register(lambda: print('at exit'))\n"
    script += "threading.Thread(target=lambda: (time.sleep(0.3), print('thread'))).start()\n"
    script += "class Late:\n    def __del__(self): os.abort()\nlate = Late()\nimport sys; sys.late = late\nprint('done', end='')"
    (tmp_path / "t.py").write_text(script)
    trainer = Path(ending.__file__).with_name("trainer.py")
    words = [sys.executable, str(trainer), str(tmp_path / "t.py")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "donethread\nat exit\n")
    (tmp_path / "t.py").write_text("raise SystemExit(5)")
    assert subprocess.run(words, check=False).returncode == 5
