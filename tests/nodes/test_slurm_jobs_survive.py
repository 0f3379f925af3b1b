"""Changes of a cluster's inventory under jobs, with Debian's Slurm in two containers.

What would cost a job is refused before anything changes, or waits; all else is done under the jobs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.nodes.slurm_cluster import QUEUES, Cluster, ended, running, submit
from tests.support import tool
from trainyard.containers import Lab
from trainyard.paths import CHECKOUT

pytestmark = pytest.mark.nodes

BOTH = ("head", "node1")
SPARE = {"name": "spare", "priority": "low", "preemptible": True}
ON_NODE1 = "-p spare -w node1 -n1 --mem=1000"
ONLY = ("--tags", "slurm")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The head schedules and computes, node1 computes; beside the usual queues there is a preemptible one."""
    lab = Lab(f"test-slurm-jobs-{CHECKOUT}", list(BOTH), tmp_path_factory.mktemp("lab"), say=lambda _text: None)
    lab.down()
    lab.up()
    try:
        found = Cluster(lab, tmp_path_factory.mktemp("inventory"))
        for node in lab.nodes:
            found.shell(node, "useradd --create-home --uid 2000 --shell /bin/bash ada")
        done = found.run("--tags", "names_and_time,slurm", computes=BOTH, slurm_partitions=[*QUEUES, SPARE])
        assert done.status == 0, done.failures() or done.text[-3000:]
        yield found
    finally:
        lab.down()


@pytest.fixture
def usual(cluster: Cluster) -> None:
    """Make the cluster as it was at first."""
    cluster.run(*ONLY, computes=BOTH, slurm_partitions=[*QUEUES, SPARE])


@pytest.fixture
def jobs(cluster: Cluster, usual: None) -> Iterator[tuple[str, str]]:
    """A job that runs on node1 and one that waits, both in the queue spare."""
    runs, waits = submit(cluster, ON_NODE1, "sleep 300"), submit(cluster, "-p spare --hold", "true")
    running(cluster, runs)
    yield runs, waits
    cluster.shell("head", "scancel --user=ada", check=False)
    cluster.until("squeue -h -o %i", "")


@pytest.mark.parametrize(
    ("said", "waiting_too", "change"),
    [
        ("slurm_partitions: the queue 'spare' would go, and", True, {"slurm_partitions": QUEUES}),
        ("slurm_computes: the node node1 would leave the cluster, and", False, {"computes": ("head",), "slurm_partitions": [SPARE]}),
        ("slurm_cluster_name: ClusterName would change from trainyard to another, and", True, {"slurm_cluster_name": "another"}),
        ("slurm_memory_margin: jobs could have ", False, {"slurm_memory_margin": 99}),
        ("SelectTypeParameters would change from CR_Core_Memory to CR_Core", False, {"slurm_config": {"SelectTypeParameters": "CR_Core"}}),
        ("slurm_controllers: the controller would move from head to node1, and", False, {"controller": "node1"}),
        ("slurm_accounting: AccountingStorageType would change", False, {"slurm_accounting": True}),
    ],
)
def test_what_would_cost_jobs_is_refused_before_anything_changes(
    cluster: Cluster, jobs: tuple[str, str], said: str, waiting_too: bool, change: dict[str, Any]
) -> None:
    """The variable and the jobs are named, in check mode as well; nothing changes, and the jobs go on."""
    before = cluster.shell("head", "sha256sum /etc/slurm/*.conf /var/lib/trainyard/slurm/*")
    variables = {"computes": BOTH, "slurm_partitions": [*QUEUES, SPARE], **change}
    for words in ((), ("--check",)):
        refused = cluster.run(*words, **variables)
        message = refused.failures()
        assert refused.status != 0
        assert said in message
        assert f"{jobs[0]} (ada, running)" in message
        assert (f"{jobs[1]} (ada, waiting)" in message) == waiting_too
        assert set(refused.changed.values()) == {0}
    assert cluster.shell("head", "sha256sum /etc/slurm/*.conf /var/lib/trainyard/slurm/*") == before
    cluster.until(f"squeue -h -j {','.join(jobs)} -o %T | sort", "PENDING\nRUNNING")


def test_a_queue_that_waits_takes_no_new_jobs_and_goes_once_it_is_empty(cluster: Cluster, jobs: tuple[str, str]) -> None:
    """`slurm_removed_partitions: wait` over three runs: closed, unchanged, gone. Its jobs run to their end."""
    wanted: dict[str, Any] = {"computes": BOTH, "slurm_partitions": QUEUES, "slurm_removed_partitions": "wait"}
    checked = cluster.run(*ONLY, "--check", **wanted)
    closed = cluster.run(*ONLY, **wanted)
    for done in (checked, closed):
        assert done.status == 0, done.failures()
        assert "The queue spare is not in slurm_partitions any more." in done.text
        assert f"{jobs[0]} (ada, running), {jobs[1]} (ada, waiting)" in " ".join(done.text.split())
    assert cluster.shell("head", "sinfo -h -p spare -o %a | sort -u") == "drain"
    refused = cluster.lab.execute("head", ["runuser", "-u", "ada", "--", "sbatch", "-p", "spare", "--wrap", "true"], check=False)
    assert "partition(s) not available" in refused.lower() or "required partition" in refused.lower(), refused
    again = cluster.run(*ONLY, **wanted)
    assert (again.status, again.changed) == (0, {"head": 0, "node1": 0}), again.failures()
    cluster.shell("head", f"scancel {jobs[0]}; scontrol release {jobs[1]}")
    assert ended(cluster, jobs[1])["JobState"] == "COMPLETED"
    cluster.until("squeue -h -a -o %i", "")
    gone = cluster.run(*ONLY, **wanted)
    assert (gone.status, gone.changed) == (0, {"head": 1, "node1": 0}), gone.failures()
    assert "spare" not in cluster.shell("head", "sinfo --all -h -o %P; cat /etc/slurm/slurm.conf")


def test_what_costs_no_job_goes_on_under_jobs(cluster: Cluster, jobs: tuple[str, str]) -> None:
    """Shorter limits, a node that leaves a queue, and a queue without jobs that goes."""
    queues = [{"name": "main", "max_time": "1", "nodes": ["head"]}, {**SPARE, "nodes": ["head"]}]
    done = cluster.run(*ONLY, computes=BOTH, slurm_partitions=queues)
    assert (done.status, done.changed) == (0, {"head": 1, "node1": 0}), done.failures()
    cluster.until(f"squeue -h -j {','.join(jobs)} -o %T | sort", "PENDING\nRUNNING")


def test_a_job_that_waits_for_a_node_keeps_it(cluster: Cluster, usual: None) -> None:
    """Slurm ends a waiting job whose requested node goes; one that excludes it goes on waiting."""
    asks, avoids = submit(cluster, "--hold -p main -w node1", "true"), submit(cluster, "--hold -p main -x node1", "true")
    try:
        refused = cluster.run(*ONLY, computes=("head",), slurm_partitions=[SPARE, *QUEUES[:2]])
        assert f"the job {asks} (ada, waiting) would be lost" in refused.failures()
        cluster.shell("head", f"scancel {asks}")
        gone = cluster.run(*ONLY, "--limit", "head", computes=("head",), slurm_partitions=[SPARE, *QUEUES[:2]])
        assert gone.status == 0, gone.failures()
        cluster.until(f"squeue -h -j {avoids} -o %T", "PENDING")
    finally:
        cluster.shell("head", "scancel --user=ada", check=False)


def test_remove_node_waits_for_the_jobs_of_a_node(cluster: Cluster, jobs: tuple[str, str]) -> None:
    """The command's own look at the cluster without the node is not refused for them; for a job that asks for the node it is."""
    assert cluster.run(computes=BOTH, slurm_partitions=[QUEUES[0], SPARE]).status == 0
    inventory = cluster.folder / "hosts.yml"
    found = yaml.safe_load(inventory.read_text())
    del found["all"]["children"]["cluster"]["children"]["slurm_submit"]  # the command edits no group without hosts
    inventory.write_text(yaml.safe_dump(found))
    status, said = tool(inventory, "remove-node", "node1", "--deadline", "1s")
    cluster.shell("head", "scontrol update NodeName=node1 State=RESUME", check=False)
    assert status == 1
    assert f"node1 still has {jobs[0]} (ada" in said
    running(cluster, jobs[0])
    asks = submit(cluster, "--hold -p main -w node1", "true")
    status, said = tool(inventory, "remove-node", "node1", "--deadline", "1s")
    assert status == 1
    assert f"the job {asks} (ada, waiting) would be lost" in " ".join(said.split())


def test_without_jobs_the_cluster_can_be_renamed(cluster: Cluster) -> None:
    """Slurm's controller takes its state up under the new name, and back."""
    cluster.until("squeue -h -a -o %i", "")
    for name in ("another", "trainyard"):
        done = cluster.run(*ONLY, computes=BOTH, slurm_partitions=[*QUEUES, SPARE], slurm_cluster_name=name)
        assert done.status == 0, done.failures()
        assert name in cluster.shell("head", "scontrol show config | grep -w ClusterName")


def test_nothing_is_dared_while_nobody_knows_the_jobs(cluster: Cluster, jobs: tuple[str, str]) -> None:
    """The controller is down, and a queue is to go."""
    cluster.shell("head", "systemctl stop slurmctld")
    try:
        refused = cluster.run(*ONLY, computes=BOTH, slurm_partitions=QUEUES)
        assert (
            "Nobody knows the jobs that Slurm's controller would lose: it does not run (slurm_partitions: the queue 'spare' would go)"
            in refused.failures()
        )
        assert set(refused.changed.values()) == {0}
    finally:
        cluster.shell("head", "systemctl start slurmctld")
        cluster.until("scontrol ping > /dev/null && echo up", "up")
    running(cluster, jobs[0])
