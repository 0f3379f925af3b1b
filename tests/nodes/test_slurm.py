"""A cluster of three container nodes over SSH, with Debian's Slurm: jobs, queues, and nodes that come and go while jobs run.

Containers cannot hold jobs in cgroups nor set the clock: the role says so and falls back, which is what runs here. There is no GPU: the
inventory says that a node has one, which it then lacks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.nodes.slurm_cluster import QUEUES, Cluster, ended, running, submit
from trainyard.containers import Lab
from trainyard.paths import CHECKOUT

pytestmark = pytest.mark.nodes


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The head schedules, node1 computes, node2 is bare so far; an ordinary user with the same number everywhere."""
    lab = Lab(f"test-slurm-{CHECKOUT}", ["head", "node1", "node2"], tmp_path_factory.mktemp("lab"), say=lambda _text: None)
    lab.down()
    lab.up()
    try:
        found = Cluster(lab, tmp_path_factory.mktemp("inventory"))
        for node in lab.nodes:
            found.shell(node, "useradd --create-home --uid 2000 --shell /bin/bash ada")
        done = found.run()
        assert done.status == 0, done.failures() or done.text[-3000:]
        yield found
    finally:
        lab.down()


@pytest.fixture(autouse=True)
def idle(cluster: Cluster) -> Iterator[None]:
    """Every test ends without jobs and with open nodes."""
    yield
    cluster.shell("head", "scancel --user=ada; scontrol update NodeName=ALL State=RESUME", check=False)
    cluster.until("squeue -h -o %i", "")
    cluster.until("sinfo -h -p main -o %t", "idle")


def test_the_queues_are_as_wished(cluster: Cluster) -> None:
    said = cluster.shell("head", "sinfo -o '%P|%a|%l|%D|%t|%N'").splitlines()
    assert said == [
        "PARTITION|AVAIL|TIMELIMIT|NODES|STATE|NODELIST",
        "main*|up|1:00:00|1|idle|node1",
        "quick|up|1:00|1|idle|node1",
        "whole|up|infinite|1|idle|node1",
    ]
    assert cluster.shell("node1", "sinfo -h -o '%P %N'").splitlines()[0] == "main* node1"  # the compute node asks as well
    assert cluster.ada("srun bash -c 'hostname; id -un'").split() == ["node1", "ada"]


def test_a_second_run_changes_nothing_and_starts_nothing_anew(cluster: Cluster) -> None:
    before, job = cluster.started(), submit(cluster, "", "sleep 300")
    running(cluster, job)
    again = cluster.run()
    assert (again.status, again.changed) == (0, {"head": 0, "node1": 0}), again.text[-3000:]
    checked = cluster.run("--check", "--diff")
    assert (checked.status, checked.changed) == (0, {"head": 0, "node1": 0}), checked.text[-3000:]
    assert cluster.started() == before
    running(cluster, job)


def test_the_key_is_the_same_and_nobody_else_can_read_it(cluster: Cluster) -> None:
    keys = {cluster.shell(node, "stat -c '%U %a' /etc/munge/munge.key; sha256sum < /etc/munge/munge.key") for node in ("head", "node1")}
    assert len(keys) == 1
    assert keys.pop().startswith("munge 400\n")
    key = cluster.shell("head", "base64 -w0 /etc/munge/munge.key")
    cluster.shell("node1", "head -c 128 /dev/urandom > /etc/munge/munge.key; systemctl restart munge")
    healed = cluster.run("--diff", "-vvv")
    assert healed.status == 0, healed.failures()
    assert healed.changed == {"head": 0, "node1": 2}  # the key, and munge that runs with it
    assert key[:40] not in healed.text
    assert cluster.shell("node1", "base64 -w0 /etc/munge/munge.key") == key
    assert cluster.ada("srun -p quick hostname") == "node1"


def test_names_lead_to_the_network_and_the_time_comes_from_the_head(cluster: Cluster) -> None:
    for node in ("head", "node1"):
        for other in ("head", "node1"):
            assert cluster.shell(node, f"getent ahostsv4 {other} | head -n 1").split()[0] == cluster.lab.address(other)
    end = time.monotonic() + 60
    while "^* " not in (said := cluster.shell("node1", "chronyc -n sources")):
        assert time.monotonic() < end, said
        time.sleep(1)
    assert f"^* {cluster.lab.address('head')} " in said
    assert " -x " in cluster.shell("node1", "ps -o args= -C chronyd")


OWN_NAME = "python3 -c 'import socket; print(socket.gethostbyname(socket.gethostname()))'; hostname --ip-address"


def test_a_nodes_own_name_leads_to_its_address_alone(cluster: Cluster) -> None:
    """Debian's installer gives it to 127.0.1.1 as well; that line goes, and a full name on it stays known."""
    names, address = ("--tags", "names_and_time"), cluster.lab.address("node1")
    cluster.shell("node1", "cp /etc/hosts /root/hosts; printf '127.0.1.1\\tnode1.example.org node1\\n' >> /etc/hosts")
    try:
        assert "127.0.1.1" in cluster.shell("node1", OWN_NAME), "the fault"
        done = cluster.run(*names)
        assert (done.status, done.changed) == (0, {"head": 0, "node1": 1}), done.failures()
        assert cluster.shell("node1", OWN_NAME).splitlines() == [address, address]
        assert cluster.shell("node1", "getent hosts node1").split()[0] == address
        assert cluster.shell("node1", "getent hosts node1.example.org").split()[0] == address
        assert cluster.run(*names).changed == {"head": 0, "node1": 0}
        cluster.shell("node1", "cp /etc/nsswitch.conf /root/; sed -i 's/^hosts:.*/hosts: db/' /etc/nsswitch.conf")
        failed = cluster.run(*names)
        assert f"This node's own name node1 leads to no address and not to {address} alone" in failed.failures()
        assert "/etc/nsswitch.conf" in failed.failures()
    finally:
        cluster.shell("node1", "cat /root/hosts > /etc/hosts; test ! -e /root/nsswitch.conf || mv /root/nsswitch.conf /etc/")


def test_where_cloud_init_writes_the_hosts_file_it_is_told_not_to(cluster: Cluster) -> None:
    """Images for clouds have manage_etc_hosts: true; what user data says counts more, and is reported."""
    names, told = ("--tags", "names_and_time"), "/etc/cloud/cloud.cfg.d/99_trainyard_hosts.cfg"
    cluster.shell("node1", "mkdir -p /etc/cloud/cloud.cfg.d; echo 'manage_etc_hosts: true' > /etc/cloud/cloud.cfg.d/01_image.cfg")
    try:
        done = cluster.run(*names)
        assert (done.status, done.changed) == (0, {"head": 0, "node1": 1}), done.failures()
        assert "manage_etc_hosts: false" in cluster.shell("node1", f"cat {told}")
        assert "user data has manage_etc_hosts" not in done.text
        cluster.shell(
            "node1", "mkdir -p /var/lib/cloud/instance; echo 'manage_etc_hosts: localhost' > /var/lib/cloud/instance/user-data.txt"
        )
        again = cluster.run(*names)
        assert again.changed == {"head": 0, "node1": 0}
        assert "user data has manage_etc_hosts" in again.text
    finally:
        cluster.shell("node1", "rm -r /etc/cloud/cloud.cfg.d/01_image.cfg /var/lib/cloud")
        cluster.run(*names)
    cluster.shell("node1", f"! test -e {told}")


def test_a_job_over_its_limit_is_ended(cluster: Cluster) -> None:
    job = submit(cluster, "-p quick", "sleep 600")
    running(cluster, job)
    cluster.shell("head", f"scontrol update JobId={job} TimeLimit=0:01")  # a minute is the shortest that a job can ask for itself
    assert ended(cluster, job, 120)["JobState"] == "TIMEOUT"


def test_a_process_that_fails_ends_the_others_of_a_plain_srun(cluster: Cluster) -> None:
    """KillOnBadExit: the second process would go on for ten minutes."""
    job = submit(cluster, "-n2 --mem=10 -t 20", 'srun sh -c "[ \\$SLURM_PROCID = 1 ] || exit 3; exec sleep 600"')
    assert ended(cluster, job)["JobState"] == "FAILED"


def test_queues_have_limits_of_their_own(cluster: Cluster) -> None:
    refused = cluster.lab.execute("head", ["runuser", "-u", "ada", "--", "sbatch", "-p", "quick", "-t", "5", "--wrap", "true"], check=False)
    assert "Requested time limit is invalid" in refused
    assert ended(cluster, submit(cluster, "-p main -t 5", "true"))["TimeLimit"] == "00:05:00"
    assert ended(cluster, submit(cluster, "-p main", "true"))["TimeLimit"] == "00:30:00"


def test_the_queue_with_the_higher_priority_goes_first(cluster: Cluster) -> None:
    first = submit(cluster, "--exclusive", "sleep 4")
    running(cluster, first)
    late = submit(cluster, "--exclusive", "true")
    early = submit(cluster, "--exclusive -p quick", "true")
    times = {job: ended(cluster, job)["StartTime"] for job in (early, late)}
    assert times[early] <= times[late]
    order = cluster.shell(
        "head",
        f"grep -oE 'sched: Allocate JobId=({early}|{late}) |backfill: Started JobId=({early}|{late}) ' "
        "/var/log/slurm/slurmctld.log | grep -oE '[0-9]+'",
    ).split()
    assert order == [early, late]


def test_an_exclusive_queue_gives_whole_nodes(cluster: Cluster) -> None:
    one, other = submit(cluster, "-n1 --mem=10 -p whole", "sleep 300"), submit(cluster, "-n1 --mem=10", "true")
    running(cluster, one)
    cluster.until(f"squeue -h -j {other} -o %r", "Resources")
    cluster.shell("head", f"scancel {one}")
    assert ended(cluster, other)["JobState"] == "COMPLETED"
    both = [submit(cluster, "-n1 --mem=10", "sleep 300") for _ in range(2)]
    for job in both:
        running(cluster, job)


def test_a_job_of_a_preemptible_queue_gives_way_and_starts_again(cluster: Cluster) -> None:
    queues = [*QUEUES, {"name": "spare", "priority": "low", "preemptible": True}]
    assert cluster.run(slurm_partitions=queues).status == 0
    spare = submit(cluster, "--exclusive -p spare --begin=now", "sleep 300")
    running(cluster, spare)
    urgent = submit(cluster, "--exclusive -p main", "sleep 3")
    assert ended(cluster, urgent)["JobState"] == "COMPLETED"
    cluster.until(f"squeue -h -j {spare} -o '%T'", "RUNNING", 200)  # it is kept back for a while first
    said = cluster.shell("head", f"scontrol --oneliner show job {spare}")
    assert " Restarts=1 " in said
    cluster.shell("head", f"scancel {spare}")
    ended(cluster, spare)
    assert cluster.run().status == 0


def test_the_controller_starts_anew_under_a_job(cluster: Cluster) -> None:
    job = submit(cluster, "", "sleep 6; exit 7")
    running(cluster, job)
    cluster.shell("head", "systemctl restart slurmctld")
    cluster.until("scontrol ping > /dev/null && echo up", "up")
    end = ended(cluster, job)
    assert (end["JobState"], end["ExitCode"]) == ("FAILED", "7:0")


def test_what_reconfigures_and_what_restarts(cluster: Cluster) -> None:
    before, job = cluster.started(), submit(cluster, "", "sleep 300")
    running(cluster, job)
    task = ("slurm : Configure the cluster", "head")
    told = cluster.run(slurm_config={"KillWait": 17})
    assert (told.status, told.results[task]["told"]) == (0, "reconfigure"), told.failures()
    assert told.changed == {"head": 1, "node1": 0}
    assert "17 sec" in cluster.shell("head", "scontrol show config | grep -w KillWait")
    assert cluster.started() == before
    assert cluster.run().status == 0
    cluster.shell("head", "cp /etc/slurm/slurm.conf /root/slurm.conf")
    anew = cluster.run(slurm_config={"PriorityType": "priority/basic"})
    assert (anew.status, anew.results[task]["told"]) == (0, "restart"), anew.failures()
    after = cluster.started()
    assert [name for name in after if after[name] != before[name]] == ["head slurmctld"]
    # What a run that was killed before it told the daemon leaves behind.
    cluster.shell("head", "cp /root/slurm.conf /etc/slurm/slurm.conf")
    mended = cluster.run()
    assert (mended.status, mended.results[task]["told"], mended.changed) == (0, "restart", {"head": 1, "node1": 0})
    assert "priority/multifactor" in cluster.shell("head", "scontrol show config | grep -w PriorityType")
    assert cluster.run().changed == {"head": 0, "node1": 0}
    running(cluster, job)


def test_what_slurm_does_not_read_never_lands(cluster: Cluster) -> None:
    before = cluster.shell("head", "sha256sum /etc/slurm/*.conf")
    refused = cluster.run(slurm_config={"KilWait": 17})
    assert refused.status != 0
    assert "unrecognized key: KilWait" in refused.failures()
    assert "Look at slurm_config" in refused.failures()
    assert cluster.shell("head", "sha256sum /etc/slurm/*.conf") == before


def test_what_the_controller_does_not_run_with_goes_again_and_jobs_go_on(cluster: Cluster) -> None:
    before, job = cluster.shell("head", "sha256sum /etc/slurm/*.conf /var/lib/trainyard/slurm/*"), submit(cluster, "", "sleep 300")
    running(cluster, job)
    refused = cluster.run(slurm_config={"PriorityType": "priority/none_such"})  # scontrol reads it
    assert refused.status != 0
    said = refused.failures()
    assert "Slurm's controller does not run with the new configuration: it has ended. " in said
    assert "fatal: " in said
    assert "The old configuration is back, and the controller runs with it." in said
    assert cluster.shell("head", "sha256sum /etc/slurm/*.conf /var/lib/trainyard/slurm/*") == before
    running(cluster, job)
    assert cluster.ada("srun --mem=10 -n1 hostname") == "node1"
    again = cluster.run()
    assert (again.status, again.changed) == (0, {"head": 0, "node1": 0}), again.failures()


def test_a_node_is_told_apart_by_the_inventory_and_not_by_what_it_says(cluster: Cluster) -> None:
    before = cluster.shell("head", "sha256sum /etc/hosts /etc/slurm/*.conf")
    both = ("node1", "node2")
    cluster.shell("node2", "hostname node1")
    try:
        refused = cluster.run("--limit", "node2,head", computes=both)
    finally:
        cluster.shell("node2", "hostname node2")
    assert "node2 calls itself node1, as node1 is called; by the inventory its host name is node2." in refused.failures()
    assert set(refused.changed.values()) == {0}
    assert cluster.shell("head", "sha256sum /etc/hosts /etc/slurm/*.conf") == before


def test_what_somebody_drained_stays_drained(cluster: Cluster) -> None:
    cluster.shell("head", "scontrol update NodeName=node1 State=DRAIN Reason='a broken fan'")
    assert cluster.run().status == 0
    assert cluster.shell("head", "sinfo -h -p main -o '%T|%E'") == "drained|a broken fan"
    cluster.shell("node1", "systemctl restart slurmd")
    cluster.shell("head", "systemctl restart slurmctld")
    cluster.until("scontrol ping > /dev/null && echo up", "up")
    cluster.until("sinfo -h -p main -o '%T|%E'", "drained|a broken fan")


def test_what_a_job_left_running_is_ended_and_the_users_login_stays(cluster: Cluster) -> None:
    cluster.lab.execute("node1", ["systemd-run", "--uid=ada", "--unit=ada-works", "sleep", "601"])
    job = submit(cluster, "", "setsid -f sleep 602; setsid -f env -u NOTHING sleep 603; exit 0")
    assert ended(cluster, job)["JobState"] == "COMPLETED"
    left = cluster.shell("node1", "pgrep -u ada -a")
    cluster.lab.execute("node1", ["systemctl", "stop", "ada-works"])
    assert [line.split(maxsplit=1)[1] for line in left.splitlines()] == ["/usr/bin/sleep 601"]


def test_a_node_comes_while_a_job_runs_computes_lacks_a_gpu_and_goes(cluster: Cluster) -> None:
    before, job = cluster.started(), submit(cluster, "-w node1 -n1 --mem=10", "sleep 300")
    running(cluster, job)
    both = ("node1", "node2")
    alone = cluster.run("--limit", "node2", computes=both)
    assert alone.status != 0
    assert "The controller head is not part of this run" in alone.failures()
    assert "--limit node2,head" in alone.failures()

    added = cluster.run("--limit", "node2,head", computes=both)
    assert added.status == 0, added.failures()
    assert set(added.changed) == {"head", "node2"}
    cluster.until("sinfo -h -p main -N -o '%N %t' | sort", "node1 mix\nnode2 idle")
    assert cluster.ada("srun -N2 -n2 --mem=10 hostname | sort").split() == ["node1", "node2"]
    after = cluster.started()
    assert [name for name in after if after[name] != before[name]] == ["head slurmctld"]
    everywhere = cluster.run(computes=both)
    assert (everywhere.status, everywhere.changed) == (0, {"head": 0, "node1": 2, "node2": 0}), "its hosts file and firewall name it"

    # A GPU that the inventory says it has: no daemon gives up, and the node gets no jobs.
    lacking = cluster.run(computes=both, hosts={"node2": {"slurm_gpus": ["a100"]}})
    assert (lacking.status, lacking.changed["node1"]) == (0, 0), lacking.failures()
    cluster.until("sinfo -h -n node2 -p main -o '%t|%G|%E'", "drain|gpu:a100:1|0 of 1 GPUs answer (nvidia-smi -L)")
    assert cluster.shell("node2", "systemctl is-active slurmd") == "active"
    running(cluster, job)

    gone = cluster.run()
    assert (gone.status, gone.changed) == (0, {"head": 3, "node1": 2}), "hosts files, firewalls, and the configuration"
    assert cluster.shell("head", "sinfo -h -N -p main -o '%N %t'") == "node1 mix"
    running(cluster, job)


def test_a_host_that_only_submits_takes_no_job(cluster: Cluster) -> None:
    done = cluster.run(submits=("node2",))
    assert done.status == 0, done.failures()
    assert done.changed["node1"] == 2, "its hosts file, and its firewall, which admits the new host"
    assert cluster.shell("head", "sinfo --all -h -N -o '%N %P' | sort") == "node1 main*\nnode1 quick\nnode1 whole"
    assert cluster.shell("node2", "cd /tmp && runuser -u ada -- srun -p main hostname") == "node1"
    refused = cluster.shell("head", "srun -w node2 hostname 2>&1", check=False)
    assert "Requested nodes not in this partition" in refused
    again = cluster.run(submits=("node2",))
    assert again.changed == {"head": 0, "node1": 0, "node2": 0}
    cluster.shell("head", "scontrol update NodeName=ALL State=RESUME", check=False)
    assert cluster.run("-e", "trainyard_state=absent", "--limit", "node2", submits=("node2",)).status == 0
    assert cluster.run().status == 0


SITES_FIREWALL = """
nft -f - << END
table inet site {
    chain in {
        type filter hook input priority 0; policy drop
        ct state established,related accept
        iif lo accept
        tcp dport 22 accept
    }
}
END
"""


@pytest.mark.parametrize(
    ("closed", "said"),
    [
        ("node1", "head does not reach slurmd: TCP port 6818 of node1 ({node1}) does not answer from there. Open it in the firewall of"),
        ("head", "node1 does not reach slurmctld: TCP port 6817 of head ({head}) does not answer from there. Open it in the firewall of"),
    ],
)
def test_a_firewall_of_the_site_between_controller_and_node_is_named(cluster: Cluster, closed: str, said: str) -> None:
    cluster.shell(closed, SITES_FIREWALL)
    try:
        done = cluster.run()
        assert done.status != 0
        assert said.format(**{node: cluster.lab.address(node) for node in ("head", "node1")}) in done.failures()
    finally:
        cluster.shell(closed, "nft delete table inet site")
    again = cluster.run()
    assert again.status == 0, again.failures()
    assert cluster.ada("srun -w node1 --mem=10 hostname") == "node1"


@pytest.mark.parametrize(
    "said, variables",
    [
        (
            "the queue 'a' names node9, which does not compute here. Nodes that do: node1.",
            {"slurm_partitions": [{"name": "a", "nodes": ["node9"]}]},
        ),
        ("'ada' needs a uid", {"base_users": [{"name": "ada"}]}),
        ("names_and_time_serves_to: '10.0.0.1/8' is no network", {"names_and_time_serves_to": ["10.0.0.1/8"]}),
    ],
)
def test_what_cannot_be_is_refused_before_anything_changes(cluster: Cluster, said: str, variables: dict[str, Any]) -> None:
    refused = cluster.run(**variables) if "names_and_time_serves_to" not in variables else cluster.run(hosts={"node1": variables})
    assert refused.status != 0
    assert said in refused.failures()
    assert set(refused.changed.values()) == {0}


def test_it_can_be_taken_off(cluster: Cluster) -> None:
    cluster.shell("node1", "printf '127.0.1.1\\tnode1\\n' >> /etc/hosts")
    assert cluster.run("--tags", "names_and_time").status == 0
    off = cluster.run("-e", "trainyard_state=absent")
    assert off.status == 0, off.failures()
    for node in ("head", "node1"):
        cluster.shell(
            node, "! ls /etc/munge/munge.key /etc/slurm/slurm.conf /usr/sbin/slurmd /usr/sbin/slurmctld /usr/sbin/chronyd 2>/dev/null"
        )
        assert "Trainyard" not in cluster.shell(node, "cat /etc/hosts")
    assert "127.0.1.1\tnode1" in cluster.shell("node1", "cat /etc/hosts").splitlines(), "somebody else's line is back"
    again = cluster.run("-e", "trainyard_state=absent")
    assert (again.status, again.changed) == (0, {"head": 0, "node1": 0})

    cluster.shell("head", "mkdir -p /etc/slurm; echo ClusterName=theirs > /etc/slurm/slurm.conf")
    refused = cluster.run()
    assert "/etc/slurm/slurm.conf is somebody else's, and was left as it is." in refused.failures()
    assert cluster.run("-e", "trainyard_state=absent").status == 0
    assert cluster.shell("head", "cat /etc/slurm/slurm.conf; rm /etc/slurm/slurm.conf") == "ClusterName=theirs"
    assert cluster.run().status == 0
    assert cluster.ada("srun hostname") == "node1"
