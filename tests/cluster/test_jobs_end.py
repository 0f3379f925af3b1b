"""Jobs end as they should, where all nodes see the job's folder and where one does: cancelled is cancelled, nothing that was trained is
lost, and nothing private leaks. No framework is needed for it: trainers are started as Keras' are, in a stand-in for an environment.
"""

from __future__ import annotations

import pytest

from tests.cluster.conftest import Cluster, Job, Place, own

pytestmark = pytest.mark.nodes

WORDS = "--framework keras --environment plain"
BEGINS = """
import os, signal, sys, time
rank, kept = int(os.environ["TRAINYARD_RANK"]), os.environ["TRAINYARD_CHECKPOINTS"]
open(f"{kept}/shard-{rank}.pt", "w").write("weights")
open(f"beside-{rank}.pt", "w").write("weights")
"""
HANGS = BEGINS + "print('rank', rank, 'runs', flush=True)\ntime.sleep(600)"
SAVES = (
    BEGINS
    + """
def save(*_):
    print("rank", rank, "saves", flush=True)
    time.sleep(3)
    open("snapshot.pt", "w").write("weights")
    print("rank", rank, "has saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("rank", rank, "goes on" if os.path.exists("snapshot.pt") else "begins", flush=True)
while True:
    time.sleep(0.2)
"""
)
ALL = {"checkpoints/shard-0.pt", "checkpoints/shard-1.pt", "outputs/beside-0.pt"}


def runs(job: Job) -> None:
    for rank in (0, 1):
        job.prints(f"rank {rank} ")


def test_cancelled_is_cancelled_and_what_was_trained_is_there(place: Place) -> None:
    place.put("c/train.py", SAVES)
    job = place.submit("c", f"{WORDS} --num-nodes 2")
    runs(job)
    assert place.shell(f"stat -c '%a %U' {job.folder} {job.folder}/workspace.tar {job.folder}/logs/node1.log").splitlines() == [
        "700 ada",
        "600 ada",
        "600 ada",
    ]
    place.cluster.shell("head", f"scancel {job.number}")
    job.ends("CANCELLED")
    assert (job.result()["reason"], job.result()["starts"]) == ("cancelled", 1)
    assert job.files() == {*ALL, "outputs/snapshot.pt"}
    assert job.said().count("saves") == job.said().count("has saved") == 2  # asked once, and given the time
    assert "not kept of node2: 1 (beside-1.pt)" in job.said()
    assert place.shell(f"stat -c %a {job.folder} {job.folder}/outputs {job.folder}/outputs/*").split() == ["700", "700", "600", "600"]
    for node in ("node1", "node2"):
        assert place.cluster.shell(node, "ls -d /tmp/trainyard-* 2>/dev/null", check=False) == ""
    assert place.cluster.shell("head", f"squeue -h -j {job.number}", check=False) == ""


def test_a_time_limit_ends_the_job_for_good(cluster: Cluster) -> None:
    place = own(cluster)
    place.put("l/train.py", HANGS)
    status, said, job = place.watch("l", f"{WORDS} --num-nodes 2 --time-limit 1")
    assert status == 143, said
    assert said.count("was ended: it reached its time limit") == 1
    assert (job.state(), job.result()["reason"], job.result()["starts"]) == ("TIMEOUT", "time limit", 1)
    assert job.files() == ALL


def test_a_preempted_job_goes_back_once_and_finds_its_snapshot(place: Place) -> None:
    place.put("p/train.py", SAVES)
    job = place.submit("p", f"{WORDS} --num-nodes 2 --where spare")
    runs(job)
    urgent = place.cluster.shell("head", "sbatch --parsable --chdir=/ --output=/dev/null -p main -N2 --exclusive --wrap 'sleep 2'")
    job.prints("was interrupted: a job of a higher priority takes its nodes")
    place.cluster.until(lambda: job.state() == "PENDING", 60, job.state)
    assert job.result()["reason"] == "preempted"
    place.cluster.until(lambda: not place.cluster.shell("head", f"squeue -h -j {urgent}", check=False), 60, str)
    place.cluster.shell("head", f"scontrol update job={job.number} starttime=now")  # Slurm waits two minutes by itself
    for rank in (0, 1):
        job.prints(f"rank {rank} goes on")
    assert "Restarts=1 " in place.cluster.shell("head", f"scontrol --oneliner show job {job.number}")
    place.cluster.shell("head", f"scancel {job.number}")
    job.ends("CANCELLED")
    assert (job.result()["reason"], job.result()["starts"]) == ("cancelled", 2)


def test_the_first_rank_that_fails_is_named_in_one_block_and_all_nodes_give_back(place: Place) -> None:
    place.put("f/train.py", BEGINS + "time.sleep(1)\nif rank == 1:\n    raise RuntimeError('bad batch: übel 坏')\ntime.sleep(600)")
    status, said, job = place.watch("f", f"{WORDS} --num-nodes 2")
    assert status == 1
    block = said[said.index("[job] Job ") :].splitlines()
    assert block[0] == f"[job] Job {job.number} has failed: node2: worker 1 has ended with status 1: RuntimeError: bad batch: übel 坏"
    assert block[1] == f"[job]   all that was printed: {job.folder}/logs/node2.log"
    assert said.count("has failed") == 1
    assert job.result()["problem"] == "node2: worker 1 has ended with status 1: RuntimeError: bad batch: übel 坏"
    assert job.files() == ALL


def test_killed_for_want_of_memory_is_said(cluster: Cluster) -> None:
    place = own(cluster)
    place.put("k/train.py", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")  # as the kernel does
    status, said, _job = place.watch("k", WORDS)
    assert status == 137
    assert "worker 0 was killed, probably out of memory (limit " in said


def test_signals_for_the_script_reach_the_script_and_end_nothing_else(cluster: Cluster) -> None:
    place = own(cluster)
    script = (
        "import os, signal\nsignal.signal(signal.SIGUSR1, lambda *_: print('rank', os.environ['TRAINYARD_RANK'], 'was told', flush=True))\n"
    )
    place.put("s/train.py", f"{script}print('rank', os.environ['TRAINYARD_RANK'], 'waits', flush=True)\nsignal.pause()")
    job = place.submit("s", f"{WORDS} --num-nodes 2")
    runs(job)
    place.cluster.shell("head", f"scancel --signal=USR1 {job.number}")
    job.ends("COMPLETED")
    assert job.said().count("was told") == 2


def test_each_job_runs_where_its_folder_is_seen(cluster: Cluster) -> None:
    place = own(cluster)
    place.put("w/train.py", "import os; print('runs on', os.uname().nodename)")
    jobs = [place.submit("w", WORDS) for _ in range(3)]
    for job in jobs:
        job.ends("COMPLETED")
        assert "runs on node2" in job.said()
    head = Place(cluster, "head", "/home/ada")
    head.put("w/train.py", "print(1)")
    status, said = head.user(f"cd w && cluster_train {WORDS} --config train.py")
    assert status == 64, said
    assert "/home/ada/w lies on the own disk of head" in said
    assert "or on one of them (node1, node2)" in said
    assert head.shell("ls /home/ada/w") == "train.py"
