"""A job's folder, and how each framework is started from it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from trainyard_training import batch, job, launchers, network, node, watch
from trainyard_training.errors import RefusedError
from trainyard_training.launchers import Node
from trainyard_training.options import FRAMEWORKS, Wish

NODES = [Node("node1", "10.0.0.1", [1001, 1002, 1003, 1004]), Node("node2", "10.0.0.2", [2001, 2002, 2003, 2004])]
TRAINER = Path(node.__file__).with_name("trainer.py")


def wish(workspace: Path, **changes: Any) -> Wish:
    whole: dict[str, Any] = {
        "framework": "pytorch",
        "environment": "pytorch",
        "config": "train.py",
        "workspace": workspace,
        "nodes": 2,
        "trainers": 2,
        "passes": 3,
        "limit": None,
        "submitter": "",
        "priority": "normal",
        "queue": "",
        "name": "train",
        "thirdparty": None,
        "log_period": 100,
        "dot_period": 100,
        "saving_period": 1,
        "strategy": "multiworker",
        "servers": 1,
        "gpus": None,
        "cores": None,
        "exclusive": False,
        "arguments": ("--rate", "0.1"),
    }
    return Wish(**{**whole, **changes})


def started(rank: int, tmp_path: Path, there: list[Node] | None = None, **changes: Any) -> list[launchers.Process]:
    wanted = {**vars(wish(tmp_path, **changes)), "gpus_per_node": changes.get("gpus") or 0}
    return launchers.processes(wanted, there or NODES, rank, "/envs/x/bin/python", "/lib/trainer.py", "7.0")


def test_folders_are_numbered_and_the_owners_alone(tmp_path: Path) -> None:
    folders = [job.new_folder("it", tmp_path) for _ in range(2)]
    assert [folder.name for folder in folders] == ["it-1", "it-2"]
    assert folders[0].stat().st_mode & 0o777 == 0o700
    with pytest.raises(RefusedError, match="no folder can be made"):
        job.new_folder("it", tmp_path / "nowhere")


def test_what_is_shipped_has_no_history_no_caches_and_no_results(tmp_path: Path) -> None:
    for name in ("train.py", "data/a.txt", ".git/config", "__pycache__/x.pyc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("train.py")
    os.mkfifo(tmp_path / "pipe")
    job.fill(job.new_folder("old", tmp_path), wish(tmp_path), {})
    folder = job.new_folder("it", tmp_path)
    job.fill(folder, wish(tmp_path), {"gpus_per_node": 0})
    with tarfile.open(folder / "workspace.tar") as archive:
        assert sorted(archive.getnames()) == [".", "./data", "./data/a.txt", "./link", "./train.py"]
    told = job.read_json(folder / job.WISH)
    assert (told["config"], told["trainers"], told["arguments"], told["gpus_per_node"]) == ("train.py", 2, ["--rate", "0.1"], 0)
    assert not (folder / "thirdparty.tar").exists()


def test_pytorchs_trainers_meet_at_a_store_that_outlives_them(tmp_path: Path) -> None:
    store, *first = started(0, tmp_path)
    assert store.command == ["/envs/x/bin/python", "/lib/pytorch_store.py", "10.0.0.1", "1001"]
    assert [process.leads for process in (store, *first)] == [False, True, True]
    second = started(1, tmp_path)
    assert [process.command for process in (*first, *second)] == [
        ["/envs/x/bin/python", "/lib/trainer.py", "train.py", "--rate", "0.1"]
    ] * 4
    names = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    places = [tuple(process.environment[name] for name in names) for process in (*first, *second)]
    assert [place[:3] for place in places] == [("0", "0", "0"), ("1", "1", "0"), ("2", "0", "1"), ("3", "1", "1")]
    assert {place[3:] for place in places} == {("4", "2", "10.0.0.1", "1001")}


def test_paddles_trainers_know_each_others_addresses(tmp_path: Path) -> None:
    trainers = [process for rank in (0, 1) for process in started(rank, tmp_path, framework="paddle")]
    own = [process.environment["PADDLE_CURRENT_ENDPOINT"] for process in trainers]
    assert own == ["10.0.0.1:1002", "10.0.0.1:1003", "10.0.0.2:2002", "10.0.0.2:2003"]
    assert {process.environment["PADDLE_TRAINER_ENDPOINTS"] for process in trainers} == {",".join(own)}
    assert {process.environment["PADDLE_MASTER"] for process in trainers} == {"10.0.0.1:1001"}
    assert [process.environment["PADDLE_TRAINER_ID"] for process in trainers] == ["0", "1", "2", "3"]


def test_every_worker_of_tensorflow_knows_its_place(tmp_path: Path) -> None:
    processes = [process for rank in (0, 1) for process in started(rank, tmp_path, framework="tensorflow")]
    places = [json.loads(process.environment["TF_CONFIG"]) for process in processes]
    workers = ["10.0.0.1:1001", "10.0.0.1:1002", "10.0.0.2:2001", "10.0.0.2:2002"]
    assert [place["cluster"] for place in places] == [{"worker": workers}] * 4
    assert [place["task"] for place in places] == [{"type": "worker", "index": number} for number in range(4)]
    assert [process.environment["TRAINYARD_RANK"] for process in processes] == ["0", "1", "2", "3"]
    assert all(process.leads for process in processes)


def test_every_trainer_of_jax_reads_its_place_from_slurms_variables(tmp_path: Path) -> None:
    trainers = [process for rank in (0, 1) for process in started(rank, tmp_path, framework="jax")]
    names = ("SLURM_PROCID", "SLURM_LOCALID", "TRAINYARD_RANK")
    assert [[process.environment[name] for name in names] for process in trainers] == [
        ["0", "0", "0"],
        ["1", "1", "1"],
        ["2", "0", "2"],
        ["3", "1", "3"],
    ]
    for process in trainers:
        assert process.environment["JAX_COORDINATOR_ADDRESS"] == "10.0.0.1:1001"
        assert (process.environment["SLURM_NTASKS"], process.environment["TRAINYARD_WORLD_SIZE"], process.leads) == ("4", "4", True)


@pytest.mark.parametrize("gpus, ids", [(0, [None, None]), (2, ["0", "1"]), (4, ["0,1", "2,3"]), (1, ["0", "0"])])
def test_every_trainer_of_jax_has_gpus_of_its_own(tmp_path: Path, gpus: int, ids: list[str | None]) -> None:
    trainers = started(1, tmp_path, framework="jax", gpus=gpus)
    assert [process.environment.get("JAX_LOCAL_DEVICE_IDS") for process in trainers] == ids


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_no_launcher_takes_the_scripts_arguments_for_its_own(tmp_path: Path, framework: str) -> None:
    for process in started(0, tmp_path, framework=framework, arguments=("--log", "x", "--", "")):
        if process.leads:
            assert process.command == ["/envs/x/bin/python", "/lib/trainer.py", "train.py", "--log", "x", "--", ""]


def test_around_servers_the_chief_alone_leads(tmp_path: Path) -> None:
    around = {"framework": "tensorflow", "strategy": "parameter-server", "servers": 2}
    processes = [process for rank in (0, 1) for process in started(rank, tmp_path, **around)]
    assert [process.name for process in processes] == ["chief 0", "worker 0", "ps 1", "worker 1", "worker 2", "ps 0"]
    assert [process.name for process in processes if process.leads] == ["chief 0"]
    cluster = json.loads(processes[0].environment["TF_CONFIG"])["cluster"]
    assert cluster == {
        "chief": ["10.0.0.1:1001"],
        "worker": ["10.0.0.1:1002", "10.0.0.2:2001", "10.0.0.2:2002"],
        "ps": ["10.0.0.2:2003", "10.0.0.1:1004"],
    }
    assert len({place for places in cluster.values() for place in places}) == 6


def test_a_build_that_was_shipped_comes_first(tmp_path: Path) -> None:
    assert launchers.private_build("pytorch", tmp_path) is None
    for place in ("lib/python/site-packages/torch", "lib/python/site-packages/torch/vendored/torch"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "__init__.py").touch()
    assert launchers.private_build("pytorch", tmp_path) == tmp_path / "lib/python/site-packages"
    assert launchers.private_build("paddle", tmp_path) is None


def test_temporary_files_lie_with_all_that_goes_when_the_job_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "envs" / "pytorch" / "bin").mkdir(parents=True)
    (tmp_path / "envs" / "pytorch" / "bin" / "python").touch()
    for name in ("workspace", "thirdparty"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    wanted = {**vars(wish(tmp_path)), "environments": str(tmp_path / "envs"), "tensorboard": "/nowhere"}
    found = Path(node.prepared(wanted, tmp_path, tmp_path)["TMPDIR"])
    assert (found, found.stat().st_mode & 0o777) == (tmp_path / "tmp", 0o700)


def test_the_hook_gets_both_folders_and_hands_on_what_it_exports(tmp_path: Path) -> None:
    hook = tmp_path / "before_hook.sh"
    hook.write_text('private_script() { echo said; export TOLD="$1:$2"; }')
    told = node.hooked(hook, tmp_path / "third", tmp_path, {"PATH": "/usr/bin:/bin", "KEPT": "1"}, 0o022)
    assert told["TOLD"] == f"{tmp_path}/third:{tmp_path}"
    assert told["KEPT"] == "1"


@pytest.mark.parametrize("script", ["private_script() { false; echo not reached; }", "true", "private_script() { return 3; }"])
def test_a_hook_that_fails_is_no_start(tmp_path: Path, script: str) -> None:
    hook = tmp_path / "before_hook.sh"
    hook.write_text(script)
    with pytest.raises(node.UnusableError, match="has failed with status"):
        node.hooked(hook, tmp_path, tmp_path, {"PATH": "/usr/bin:/bin"}, 0o022)


@pytest.mark.parametrize(
    "variables", [("RANK", "WORLD_SIZE"), ("PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM"), ("TRAINYARD_RANK", "TRAINYARD_WORLD_SIZE")]
)
def test_each_trainer_gets_its_share_of_the_list(tmp_path: Path, variables: tuple[str, str]) -> None:
    (tmp_path / "train.list").write_text("a\nb\n\nc\nd\ne\n")
    (tmp_path / "beside.py").write_text("NAME = 'beside'")
    (tmp_path / "script.py").write_text(
        "import os, sys, beside\n"
        "print(__name__, beside.NAME, sys.argv, os.environ['TRAINYARD_RANK'], open(os.environ['TRAINYARD_TRAIN_LIST']).read().split())"
    )
    said = []
    for rank in (0, 1):
        environment = {variables[0]: str(rank), variables[1]: "2", "TRAINYARD_TRAIN_LIST": str(tmp_path / "train.list")}
        words = [sys.executable, str(TRAINER), "script.py", "--rate", "1"]
        said.append(subprocess.run(words, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout.strip())
    arguments = "['script.py', '--rate', '1']"
    assert said == [f"__main__ beside {arguments} 0 ['a', 'c', 'e']", f"__main__ beside {arguments} 1 ['b', 'd']"]


def test_a_trainer_alone_needs_nothing(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import os; print(os.environ['TRAINYARD_RANK'], os.environ['TRAINYARD_WORLD_SIZE'])")
    done = subprocess.run([sys.executable, TRAINER, "script.py"], cwd=tmp_path, env={}, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["0", "1"]


def test_a_line_reaches_the_log_in_one_piece(tmp_path: Path) -> None:
    script = "import sys; print('pass', 1, 'of', 2); print('and', 'more', file=sys.stderr); print('.', end='', flush=True)"
    (tmp_path / "script.py").write_text(script)
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)  # each write is a piece of its own
    with ours, theirs:
        words = [sys.executable, TRAINER, "script.py"]
        subprocess.run(words, cwd=tmp_path, env={"PYTHONUNBUFFERED": "1"}, check=True, stdout=theirs, stderr=theirs)
        assert [ours.recv(100) for _piece in range(3)] == [b"pass 1 of 2\n", b"and more\n", b"."]


def test_the_way_to_a_node_names_the_interface() -> None:
    printed = '[{"dst":"10.0.0.2","dev":"ib0","prefsrc":"10.0.0.1","flags":[],"uid":0,"cache":[]}]'
    route = network.parse_route(printed)
    assert (route.interface, route.address) == ("ib0", "10.0.0.1")
    assert node.interfaces("ib0") == {"GLOO_SOCKET_IFNAME": "ib0", "TP_SOCKET_IFNAME": "ib0", "NCCL_SOCKET_IFNAME": "=ib0"}


def test_logs_are_shown_line_by_line_and_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tails = watch.Tails(tmp_path)
    (tmp_path / "node1.log").write_text("one\ntw")
    tails.show()
    (tmp_path / "node1.log").write_text("one\ntwo\n")
    tails.show()
    tails.show()
    assert capsys.readouterr().out == "[node1] one\n[node1] two\n"


@pytest.mark.parametrize(
    "said, status",
    [
        ({"JobState": "COMPLETED", "ExitCode": "0:0"}, 0),
        ({"JobState": "FAILED", "ExitCode": "3:0"}, 3),
        ({"JobState": "TIMEOUT", "ExitCode": "0:0"}, 1),
        ({"JobState": "CANCELLED", "ExitCode": "0:15"}, 143),
        ({}, 1),
    ],
)
def test_the_exit_status_is_the_jobs(tmp_path: Path, said: dict[str, str], status: int) -> None:
    assert watch.ended("7", tmp_path, said) == status


def test_a_start_that_slurm_could_not_make_is_translated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {"JobState": "FAILED", "Reason": "JobLaunchFailure", "ExitCode": "0:53", "BatchHost": "node7"}
    assert watch.ended("7", tmp_path, said) == 181
    assert "Job 7 has failed: Slurm could not start it on node7: " in capsys.readouterr().out
    assert job.read_json(tmp_path / job.RESULT)["problem"].startswith("Slurm could not start it on node7: ")


def test_a_job_is_followed_until_its_nodes_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / job.LOGS).mkdir()
    (tmp_path / "squeue").write_text(f"#!/bin/sh\ncat {tmp_path}/state\n")
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho JobId=7 JobState=TIMEOUT ExitCode=0:15 BatchHost=node1\n")
    for name in ("squeue", "scontrol"):
        (tmp_path / name).chmod(0o755)
    (tmp_path / "state").write_text("COMPLETING\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def nodes_are_done(_seconds: float) -> None:
        (tmp_path / "state").write_text("")
        (tmp_path / job.LOGS / "job.log").write_text("Job 7 was ended\n")
        job.write_json(tmp_path / job.RESULT, {"status": 143})

    monkeypatch.setattr("time.sleep", nodes_are_done)
    assert watch.follow("7", tmp_path) == 143
    assert capsys.readouterr().out == "[job] Job 7 was ended\n"


def test_slurms_words_are_heard_among_a_nodes_lines(tmp_path: Path) -> None:
    said = b"slurmstepd-n0: error: *** STEP 7.0 ON n0 CANCELLED AT 2026-11-29T19:47:19 DUE TO PREEMPTION ***"

    async def keep() -> list[str]:
        printed = asyncio.StreamReader()
        printed.feed_data(b"0: out of memory\n0: " + said + b"\n")
        printed.feed_eof()
        logs = batch.Logs(tmp_path, ["n0", "n1"], shown=True)
        await logs.keep(printed)
        return logs.heard

    assert asyncio.run(keep()) == [said.decode()]


@pytest.mark.parametrize("shown", [True, False])
def test_each_nodes_lines_land_in_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str], shown: bool) -> None:
    async def keep() -> None:
        printed = asyncio.StreamReader()
        for part in (b"0: a\n1: b", b"c\nsrun: error: it fell\n1: 2: two\n", b"0: \n1: last words"):
            printed.feed_data(part)
        printed.feed_eof()
        await batch.Logs(tmp_path, ["n0", "n1"], shown=shown).keep(printed)

    asyncio.run(keep())
    assert (tmp_path / "n0.log").read_text() == "a\n\n"
    assert (tmp_path / "n1.log").read_text() == "bc\n2: two\nlast words\n"
    assert (tmp_path / "job.log").exists() == shown, "Slurm writes it where nobody waits"
    assert ("[n1] bc" in capsys.readouterr().out) == shown


def test_tensorboards_logs_lie_where_the_service_looks_and_are_the_owners(tmp_path: Path) -> None:
    logs, results = tmp_path / "logs", tmp_path / "results"
    assert node.tensorboard(logs, "ada-train-1", results) == results / "tensorboard", "no such folder on this node"
    logs.mkdir()
    for _again in range(2):
        assert node.tensorboard(logs, "ada-train-1", results) == logs / "ada-train-1"
    (logs / "ada-train-2").mkdir()
    os.chown(logs / "ada-train-2", 65534, 65534)
    assert node.tensorboard(logs, "ada-train-2", results) == results / "tensorboard", "somebody else's"
