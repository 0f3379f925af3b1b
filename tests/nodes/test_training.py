"""Training on two container nodes, through Slurm: every framework, what is shipped, what comes back, and what goes wrong on the way.

The folder that all nodes share is a stand-in for a file server's export: Docker mounts one folder of this machine into all of them.
There is no GPU; the frameworks compute on processors and talk over Gloo and gRPC. Where GPUs are shared out, a script stands in for
nvidia-smi.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import Play, ansible_playbook
from trainyard.containers import Lab
from trainyard.lab import WHEELHOUSE
from trainyard.lab import lab as own_lab
from trainyard.paths import CHECKOUT, REPOSITORY

pytestmark = pytest.mark.nodes

FRAMEWORKS = ("pytorch", "tensorflow", "keras", "paddle")
SHARED = "/srv/shared"
SAMPLES = "/opt/trainyard/samples"
QUEUES = [{"name": "main", "max_time": "1:00:00", "default_time": "30"}, {"name": "quick", "max_time": "1", "priority": "high"}]


PASSWORD = "Falcon-3-hovers-by"


class Cluster:
    """The head schedules, node1 and node2 compute; ada and bob are ordinary users everywhere."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder

    def shell(self, node: str, script: str, *, check: bool = True) -> str:
        """Run a script as root in a node, beside SSH."""
        return self.lab.execute(node, ["bash", "-ec", script], check=check).strip()

    def user(self, script: str, name: str = "ada") -> tuple[int, str]:
        """Run a script on the head as an ordinary user in the shared folder, and return its exit status and what it printed."""
        words = f"cd {SHARED}/{name}; {{ {script}\n}} 2>&1 && echo rc 0 || echo rc $?"
        printed = self.lab.execute("head", ["runuser", "-u", name, "--", "bash", "-c", words]).rstrip()
        *lines, status = printed.splitlines()
        return int(status.removeprefix("rc ")), "\n".join(lines)

    def train(self, words: str, folder: str = "") -> tuple[int, str, Path]:
        """Run cluster_train to its end, and return exit status, output and the job's folder as the nodes see it."""
        status, said = self.user(f"mkdir -p {folder or 'work'} && cd {folder or 'work'} && cluster_train --watch {words}")
        place = next((line.rpartition(": ")[2] for line in said.splitlines() if "its logs and results: " in line), "")
        return status, said, Path(place)

    def read(self, path: Path | str) -> str:
        return self.shell("head", f"cat {shlex.quote(str(path))}")

    def run(self, playbook: str, *words: str) -> Play:
        """Run one of the playbooks as it is."""
        every = {
            "ansible_user": "admin",
            "ansible_ssh_common_args": f"-F {self.lab.ssh_config}",
            "base_users": [{"name": "ada", "uid": 2000}, {"name": "bob", "uid": 2001}],
            "slurm_partitions": QUEUES,
            "slurm_config": {"SlurmdTimeout": 20},
            "base_ca_certificates": "{{ query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt') }}",
            "ssh_hardening_enabled": False,  # its users log in by no key here
            "framework_env_wheelhouse": WHEELHOUSE,
            "plan_environments": list(FRAMEWORKS),
            "tensorboard_password": PASSWORD,
            "jupyter_password": PASSWORD,
        }
        hosts = {name: {"names_and_time_address": self.lab.address(name)} for name in self.lab.nodes}
        hosts["head"]["names_and_time_serves_to"] = [self.lab.address("head").rpartition(".")[0] + ".0/24"]
        notebooks = {"hosts": {"head": {"framework_env_environments": []}}}
        groups = {"slurm_controller": {"hosts": {"head": None}}, "slurm_compute": {"hosts": {"node1": None, "node2": None}}}
        for name in groups["slurm_compute"]["hosts"]:
            hosts[name]["names_and_time_servers"] = ["head"]
        inventory = self.folder / "hosts.yml"
        inventory.write_text(
            yaml.safe_dump({"all": {"vars": every, "hosts": hosts, "children": {"cluster": {"children": groups}, "notebooks": notebooks}}})
        )
        return ansible_playbook(REPOSITORY / "playbooks" / playbook, inventory, words)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster, with every framework on the nodes that compute."""
    shared = tmp_path_factory.mktemp("shared")
    shared.chmod(0o755)
    for uid, name in ((2000, "ada"), (2001, "bob")):
        (shared / name).mkdir()
        (shared / name).chmod(0o755)
        os.chown(shared / name, uid, uid)
    (shared / "tensorboard").mkdir()
    (shared / "tensorboard").chmod(0o1777)
    mounts = {next(iter(own_lab().mounts)): WHEELHOUSE}
    both = {shared: SHARED, shared / "tensorboard": "/srv/tensorboard"}
    nodes = ["head", "node1", "node2"]
    lab = Lab(f"test-training-{CHECKOUT}", nodes, tmp_path_factory.mktemp("lab"), mounts=mounts, shared=both, say=lambda _text: None)
    lab.down()
    lab.up()
    try:
        found = Cluster(lab, tmp_path_factory.mktemp("inventory"))
        for playbook, words in (("base.yml", ()), ("frameworks.yml", ()), ("notebooks.yml", ()), ("cluster.yml", ())):
            done = found.run(playbook, *words)
            assert done.status == 0, done.failures() or done.text[-3000:]
        yield found
    finally:
        lab.down()


def result(said: str) -> dict[str, Any]:
    """Return what a sample printed as its result."""
    line = next(line for line in said.splitlines() if '"accuracy"' in line)
    found: dict[str, Any] = json.loads(line[line.index("{") :])
    return found


def submitted(said: str) -> str:
    """Return the number of the job that cluster_train submitted."""
    found = re.search(r"^Job (\d+) ", said, re.MULTILINE)
    assert found, said
    return found[1]


JOBS = {
    "pytorch": "--framework pytorch --config pytorch_digits.py --trainer-count 2",
    "tensorflow": "--framework tensorflow --config tensorflow_digits.py",
    "parameter servers": "--framework tensorflow --strategy parameter-server --config tensorflow_digits.py --trainer_count 2",
    "keras": "--framework keras --config keras_digits.py",
    "paddle": "--framework paddle --config paddle_digits.py",
}


@pytest.mark.parametrize("name", JOBS)
def test_every_framework_trains_on_two_hosts(cluster: Cluster, name: str) -> None:
    status, said, folder = cluster.train(f"{JOBS[name]} --workspace {SAMPLES} --num-nodes 2 --num-passes 30 --time-limit 00:10:00")
    assert status == 0, said
    found = result(said)
    assert found["accuracy"] >= 0.95
    assert len(found["hosts"]) == 2
    told = json.loads(cluster.read(folder / "result.json"))
    assert (told["status"], told["nodes"], told["problem"]) == (0, ["node1", "node2"], "")
    assert cluster.shell("node1", "ls -d /tmp/trainyard-* 2>/dev/null", check=False) == ""
    assert cluster.shell("head", f"ls {folder}/*.tar 2>/dev/null", check=False) == ""


@pytest.mark.parametrize("name", ["keras", "pytorch", "tensorflow"])
def test_tensorboards_service_shows_a_jobs_curves(cluster: Cluster, name: str) -> None:
    words = f"{JOBS[name]} --workspace {SAMPLES} --num-nodes 2 --num-passes 3 --job-name curve"
    status, said, _folder = cluster.train(words)
    assert status == 0, said
    ask = f"curl -sk --retry 20 --retry-all-errors --fail -u lab:{PASSWORD} https://localhost:6006/data/plugin/scalars/"
    end = time.monotonic() + 60
    run = f"ada-curve-{re.search(r'Job ([0-9]+) ', said)[1]}"
    steps: list[int] = []
    while steps != [1, 2, 3]:  # the service looks for more now and then
        assert time.monotonic() < end, steps
        time.sleep(1)
        if run in json.loads(cluster.shell("head", f"{ask}tags")):
            points = json.loads(cluster.shell("head", f"{ask}'scalars?run={run}&tag=loss'"))
            steps = [step for _time, step, _loss in points]


def test_in_an_allocation_no_node_needs_to_see_the_folder(cluster: Cluster) -> None:
    words = f"cluster_train --here --framework pytorch --config pytorch_digits.py --workspace {SAMPLES} --num-nodes 2 --num-passes 30"
    status, said = cluster.user(f"cd && rm -rf pytorch_digits-1 && salloc -N2 --ntasks-per-node=1 {words} && ls pytorch_digits-1/*")
    assert status == 0, said
    assert result(said)["accuracy"] >= 0.95
    assert len(result(said)["hosts"]) == 2
    assert "pytorch_digits-1/logs:\njob.log\nnode1.log\nnode2.log" in said
    assert "pytorch_digits-1/checkpoints:\npytorch.pt\n" in said
    refused, said = cluster.user(f"cd && salloc -N1 {words}")
    assert (refused, "--num-nodes: the allocation" in said) == (64, True)


def test_nodes_prove_themselves_by_meeting_and_training(cluster: Cluster) -> None:
    words = "cd /; salloc -N2 --ntasks-per-node=1 --cpus-per-task=1 /usr/local/lib/trainyard/training/run prove 2>&1"
    said = cluster.shell("head", words)
    assert "node1 has met node2" in said
    assert re.search(r"PyTorch trained on node1 and node2 \(cpu\) to 0\.9[5-9]", said)
    assert "\x1b" not in said


def put(cluster: Cluster, path: str, text: str, name: str = "ada") -> None:
    """Write a user's file in the shared folder."""
    cluster.lab.execute(
        "head", ["runuser", "-u", name, "--", "bash", "-ec", f"mkdir -p $(dirname {path}); cat > {path} << 'END'\n{text}\nEND"]
    )


SHIPPED = """
import json, os, socket, torch
import torch.distributed as dist
import private

dist.init_process_group("gloo")
mine = {
    "host": socket.gethostname(),
    "rank": os.environ["TRAINYARD_RANK"],
    "files": open(os.environ["TRAINYARD_TRAIN_LIST"]).read().split(),
    "hook": os.environ["HOOK"],
    "private": private.NAME,
    "passes": os.environ["TRAINYARD_NUM_PASSES"],
    "interface": os.environ["GLOO_SOCKET_IFNAME"],
}
everybody = [None] * dist.get_world_size()
dist.all_gather_object(everybody, mine)
if dist.get_rank() == 0:
    print("told " + json.dumps(everybody), flush=True)
dist.barrier()
dist.destroy_process_group()
"""


def test_workspace_and_third_party_folder_reach_every_node(cluster: Cluster) -> None:
    base = f"{SHARED}/ada/shipped"
    put(cluster, f"{base}/train.py", SHIPPED)
    put(cluster, f"{base}/train.list", "\n".join("abcde"))
    put(cluster, f"{base}/thirdparty/private.py", "NAME = 'private'")
    put(
        cluster,
        f"{base}/thirdparty/before_hook.sh",
        'private_script() { export HOOK="$(basename $1) $(basename $2) on $(hostname)"; export PYTHONPATH=$1; }',
    )
    words = "--framework pytorch --config train.py --num_nodes 2 --num_passes 7 --thirdparty thirdparty"
    status, said, _folder = cluster.train(words, "shipped")
    assert status == 0, said
    told = json.loads(next(line for line in said.splitlines() if "] told " in line).partition("told ")[2])
    assert [mine["host"] for mine in told] == ["node1", "node2"]
    assert [mine["files"] for mine in told] == [["a", "c", "e"], ["b", "d"]]
    assert [mine["hook"] for mine in told] == ["thirdparty workspace on node1", "thirdparty workspace on node2"]
    assert {(mine["private"], mine["passes"], mine["interface"]) for mine in told} == {("private", "7", "eth0")}


def test_a_private_build_comes_before_the_environments(cluster: Cluster) -> None:
    base = f"{SHARED}/ada/private"
    put(cluster, f"{base}/train.py", "import torch; print('it is', torch.NAME)")
    put(cluster, f"{base}/thirdparty/lib/torch/__init__.py", "NAME = 'ours'")
    # torchrun itself is the environment's torch, so this asks the trainer alone, by Keras' launcher.
    status, said, _folder = cluster.train("--framework keras --environment pytorch --config train.py --thirdparty thirdparty", "private")
    assert status == 1, said  # a build of torch is none of Keras: the environment's own answers
    put(cluster, f"{base}/thirdparty/lib/keras/__init__.py", "NAME = 'ours'")
    put(cluster, f"{base}/train.py", "import keras; print('it is', keras.NAME)")
    status, said, _folder = cluster.train("--framework keras --config train.py --thirdparty thirdparty", "private")
    assert status == 0, said
    assert "it is ours" in said


@pytest.mark.parametrize(
    "words, said",
    [
        ("--where fast", "--where: there is no queue fast. There are: main (up to 01:00:00, 2 nodes"),
        ("--where quick --time-limit 00:05:00", "--time-limit: 00:05:00 is more than the queue quick allows, 00:01:00."),
        ("--num-nodes 3", "--num-nodes: the queue main has 2, not 3."),
        ("--thirdparty nowhere", "--thirdparty: there is no folder"),
    ],
)
def test_what_the_cluster_cannot_do_is_refused_at_once(cluster: Cluster, words: str, said: str) -> None:
    status, printed, _folder = cluster.train(f"--framework pytorch --config pytorch_digits.py --workspace {SAMPLES} {words}", "refused")
    assert status == 64
    assert said in printed
    assert cluster.shell("head", f"ls {SHARED}/ada/refused") == ""
    assert cluster.shell("head", "squeue -h") == ""


def test_a_script_that_fails_ends_the_job_on_all_nodes_with_its_status(cluster: Cluster) -> None:
    script = "import os, sys, time\nif os.environ['TRAINYARD_RANK'] == '1':\n    sys.exit(3)\ntime.sleep(300)"
    put(cluster, f"{SHARED}/ada/fails/train.py", script)
    status, said, folder = cluster.train("--framework keras --config train.py --num-nodes 2", "fails")
    assert status == 3, said
    assert "worker 1 has ended with status 3" in said
    told = json.loads(cluster.read(folder / "result.json"))
    assert (told["status"], told["problem"]) == (3, "node2 has failed with status 3")


def test_an_environment_that_is_not_there_is_named(cluster: Cluster) -> None:
    status, said, _folder = cluster.train(f"--framework keras --environment none --config keras_digits.py --workspace {SAMPLES}")
    assert status == 64, said
    assert "the nodes have no environment 'none'. They have: keras, paddle, pytorch, tensorflow." in said
    assert "Ships" not in said


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_scripts_arguments_reach_it_whatever_they_are(cluster: Cluster, framework: str) -> None:
    script = "import json, sys, tempfile; print('got', json.dumps(sys.argv[1:])); print('left', tempfile.mkstemp()[1])"
    put(cluster, f"{SHARED}/ada/words/train.py", script)
    words = ["--log", "x", "--e", "", "--n", "--nproc", "-h", "--", "--master", "$HOME 'é"]
    status, said, _folder = cluster.train(f"--framework {framework} --config train.py -- {shlex.join(words)}", "words")
    assert status == 0, said
    assert f"got {json.dumps(words)}" in said
    node, path = re.search(r"\[(node\d)\] left (/tmp/trainyard-\d+-\w+/tmp/\w+)", said).groups()
    assert cluster.shell(node, f"ls {path} 2>/dev/null", check=False) == "", "temporary files go with the job"


def test_nobody_else_reads_a_jobs_files(cluster: Cluster) -> None:
    put(cluster, f"{SHARED}/ada/secret/train.py", "print('fine')")
    status, said, folder = cluster.train("--framework keras --config train.py", "secret")
    assert status == 0, said
    for script in (f"cat {folder}/job.json", f"ls {folder}", f"cat {folder}/logs/job.log"):
        refused, printed = cluster.user(script, "bob")
        assert refused != 0
        assert "Permission denied" in printed


def test_the_old_command_line_runs_as_it_stands(cluster: Cluster) -> None:
    base = f"{SHARED}/ada/old"
    cluster.user(f"mkdir -p {base}/thirdparty && cp {SAMPLES}/paddle_digits.py {base}/cluster_conf.py")
    old = (
        "paddle cluster_train --config cluster_conf.py --time_limit 00:30:00 --submitter NAME --num_nodes 2 --job_priority normal "
        "--trainer_count 1 --num_passes 1 --log_period 1000 --dot_period 100 --saving_period 1 --where main --thirdparty ./thirdparty "
        "--job_name it"
    )
    status, said = cluster.user(f"cd {base} && {old}")
    assert status == 0, said
    number = submitted(said)
    wait(cluster, number, "COMPLETED")
    assert json.loads(cluster.read(f"{base}/it-1/result.json"))["status"] == 0


def wait(cluster: Cluster, job: str, state: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while f"JobState={state} " not in (said := cluster.shell("head", f"scontrol --oneliner show job {job}", check=False)):
        assert time.monotonic() < end, said
        time.sleep(0.5)


def logged(cluster: Cluster, folder: str, words: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while words not in (said := cluster.shell("head", f"cat {folder}/logs/*.log 2>/dev/null", check=False)):
        assert time.monotonic() < end, said
        time.sleep(0.5)


def long_job(cluster: Cluster, folder: str) -> tuple[str, str]:
    """Submit PyTorch's sample so that it runs for about a minute, wait until it has a checkpoint, and return its number and folder."""
    words = f"--framework pytorch --config pytorch_digits.py --workspace {SAMPLES} --num-nodes 2 --num-passes 400 --job-name long"
    status, said = cluster.user(f"mkdir -p {folder} && cd {folder} && cluster_train {words}")
    assert status == 0, said
    place = f"{SHARED}/ada/{folder}/long-1"
    logged(cluster, place, "pass 5 ")
    return submitted(said), place


def test_a_controller_that_starts_again_leaves_the_job_alone(cluster: Cluster) -> None:
    number, folder = long_job(cluster, "controller")
    cluster.shell("head", "systemctl restart slurmctld")
    wait(cluster, number, "COMPLETED")
    told = json.loads(cluster.read(f"{folder}/result.json"))
    assert (told["status"], told["starts"]) == (0, 1)


def test_a_second_run_changes_nothing_and_check_mode_agrees(cluster: Cluster) -> None:
    for words in ((), ("--check", "--diff")):
        done = cluster.run("cluster.yml", *words)
        assert done.status == 0, done.failures()
        assert done.changed == {"head": 0, "node1": 0, "node2": 0}, done.text[-3000:]


def test_a_job_goes_on_from_its_checkpoint_after_a_node_died(cluster: Cluster) -> None:
    number, folder = long_job(cluster, "dies")
    cluster.lab.kill("node2")
    logged(cluster, folder, "node2", 180)
    time.sleep(5)
    cluster.lab.start("node2")
    cluster.lab.up()
    wait(cluster, number, "COMPLETED", 300)
    told = json.loads(cluster.read(f"{folder}/result.json"))
    assert told["status"] == 0
    assert told["starts"] >= 2
    assert "goes on after pass " in cluster.shell("head", f"cat {folder}/logs/node1.log")
    assert result(cluster.shell("head", f"cat {folder}/logs/node1.log"))["accuracy"] >= 0.95


def test_nodes_that_lose_each_other_say_so_and_do_not_hang(cluster: Cluster) -> None:
    number, folder = long_job(cluster, "cut")
    cut = f"iptables -I INPUT -s {cluster.lab.address('node1')} -j DROP; iptables -I OUTPUT -d {cluster.lab.address('node1')} -j DROP"
    cluster.shell("node2", f"command -v iptables >/dev/null || apt-get -q -y install iptables >/dev/null; {cut}")
    try:
        logged(cluster, folder, "node2 said nothing for 60 seconds", 150)
    finally:
        cluster.shell("node2", cut.replace("-I ", "-D "))
    wait(cluster, number, "COMPLETED", 300)
    assert json.loads(cluster.read(f"{folder}/result.json"))["starts"] == 2


SWEPT = f"""
import os, fire

def train(lr=0.1, batchsize=16):
    print("accuracy=%g" % (0.5 + lr + batchsize / 1000))
    raise SystemExit(lr == 0.2 and not os.path.exists("{SHARED}/ada/sweeps/mended"))

fire.Fire(train)
"""


def test_a_sweep_runs_every_combination_and_resumes_where_it_stopped(cluster: Cluster) -> None:
    put(cluster, f"{SHARED}/ada/sweeps/train.py", SWEPT)
    words = "cd sweeps && sweep train.py --environment keras --lr 0.1,0.2 --batchsize 16:32:16 --max-parallel 2 --watch"
    status, said = cluster.user(words)
    assert status == 1, said
    assert cluster.shell("head", f"cd {SHARED}/ada/sweeps/sweep-train && ls log_*") == "\n".join(
        f"log_batchsize{size}_lr{rate}.txt" for size in (16, 32) for rate in ("0.1", "0.2")
    )
    status, said = cluster.user(f"touch sweeps/mended; {words}")
    assert status == 0, said
    assert "2 of 4 runs" in said
    rows = cluster.read(f"{SHARED}/ada/sweeps/sweep-train/table.csv").splitlines()
    assert [row.strip() for row in rows[:2]] == ["rank,batchsize,lr,accuracy,state", "1,32,0.2,0.732,done"]


def test_a_sweep_is_shipped_where_nodes_do_not_see_the_folder(cluster: Cluster) -> None:
    script = "import os, sys, helper; print('accuracy=0.' + sys.argv[1][-1], os.uname().nodename); sys.exit(2 * (sys.argv[1] == '--lr=2'))"
    cluster.user(f"mkdir -p ~/apart && cd ~/apart && touch helper.py && printf %s {shlex.quote(script)} > train.py")
    status, said = cluster.user("cd ~/apart && sweep train.py --environment keras --lr 1,2,3")
    assert status == 1, said
    assert "The nodes do not see this folder: the script's folder is shipped" in said
    rows = cluster.read("/home/ada/apart/sweep-train/table.csv").splitlines()
    assert [row.strip() for row in rows[1:]] == ["1,3,0.3,done", "2,2,0.2,failed (2)", "3,1,0.1,done"]
    assert re.search(r"^accuracy=0.1 node[12]$", cluster.read("/home/ada/apart/sweep-train/log_lr1.txt"), re.MULTILINE)
    cluster.user("cd ~/apart && echo 'import time; time.sleep(300)' > long.py")
    status, said = cluster.user("cd ~/apart && timeout -s INT 5 sweep long.py --lr 1,2,3")
    assert "The runs that were on their way have ended with this command." in said
    assert cluster.shell("head", "squeue -h") == ""
    for node in ("node1", "node2"):
        assert cluster.shell(node, "ls -d /tmp/trainyard-* 2>/dev/null", check=False) == ""


def test_a_sweep_says_what_slurm_ended_and_leaves_its_runs_on_ctrl_c(cluster: Cluster) -> None:
    put(cluster, f"{SHARED}/ada/ended/train.py", "import time; print('accuracy=nan', flush=True); time.sleep(300)")
    status, said = cluster.user("cd ended && timeout -s INT 4 sweep train.py --lr 1,2 --watch")
    found = re.search(r"The array job (\d+) goes on. End it with: scancel \1", said)
    assert found, said
    assert cluster.shell("head", f"squeue -h -j {found[1]}") != ""
    cluster.user(f"scancel {found[1]}")
    wait(cluster, found[1], "CANCELLED")
    status, said = cluster.user("cd ended && sweep train.py --lr 1,2 --time-limit 1")
    assert status == 0, said
    status, said = cluster.user("cd ended && sweep train.py --lr 1,3")
    assert (status, "is running another grid (lr=1,2)" in said) == (64, True)
    cluster.user("scancel -u ada")


def test_one_at_a_time_on_a_node(cluster: Cluster) -> None:
    put(cluster, f"{SHARED}/ada/turn", "run-one sh -c 'date +%s%N; sleep 1; date +%s%N' > /tmp/$1 2>/dev/null")
    both = f"for u in ada bob; do runuser -u $u -- bash {SHARED}/ada/turn $u & done; wait; cat /tmp/ada /tmp/bob"
    times = list(map(int, cluster.shell("node1", both).split()))
    first, second = sorted((times[:2], times[2:]))
    assert first[1] <= second[0]


def test_by_hand_as_in_the_old_days(cluster: Cluster) -> None:
    hosts = "--ps_hosts=node1:2222 --worker_hosts=node1:2223,node2:2222"
    python = f"/opt/trainyard/envs/tensorflow/bin/python {SAMPLES}/mnist_dist.py {hosts}"
    for node, words in (("node1", "--job_name=ps --task_index=0"), ("node2", "--job_name=worker --task_index=1")):
        cluster.shell(
            node, f"systemd-run -q --uid ada --unit by-hand -p RemainAfterExit=yes -p StandardOutput=file:/tmp/by-hand {python} {words}"
        )
    found = result(cluster.shell("node1", f"runuser -u ada -- {python} --job_name=worker --task_index=0 2>/dev/null"))
    assert found["accuracy"] >= 0.95
    end = time.monotonic() + 60
    for node, words in (("node1", "all workers are done"), ("node2", '"accuracy"')):
        while words not in cluster.shell(node, "cat /tmp/by-hand"):
            assert time.monotonic() < end
            time.sleep(0.5)


def test_each_trainer_has_a_gpu_of_its_own(cluster: Cluster) -> None:
    smi = "printf '#!/bin/sh\\necho GPU 0: stand-in\\necho GPU 1: stand-in\\n' > /usr/bin/nvidia-smi; chmod +x /usr/bin/nvidia-smi"
    for node in ("node1", "node2"):
        cluster.shell(node, smi)
    done = cluster.run("cluster.yml", "-e", json.dumps({"slurm_gpus": ["a100", "a100"]}))
    assert done.status == 0, done.failures()
    assert cluster.shell("head", "sinfo -h -p main -o '%t %G %D'") == "idle gpu:a100:2 2"
    script = "import os, socket; print('has', socket.gethostname(), os.environ['CUDA_VISIBLE_DEVICES'], os.environ.get('LOCAL_RANK'))"
    put(cluster, f"{SHARED}/ada/gpus/train.py", script)
    words = "--config train.py --num-nodes 2 --trainer-count 2 --framework"
    # torchrun's scripts take theirs of the node's by LOCAL_RANK; TensorFlow would take all that it sees.
    for framework, seen in (("pytorch", [("0,1", "0"), ("0,1", "1")]), ("tensorflow", [("0", "None"), ("1", "None")])):
        status, said, _folder = cluster.train(f"{words} {framework}", "gpus")
        assert status == 0, said
        assert sorted(re.findall(r"has (node\d) (\S+) (\S+)", said)) == [(node, *each) for node in ("node1", "node2") for each in seen]
    status, said, _folder = cluster.train(f"{words} pytorch --gpus-per-trainer 2", "gpus")
    assert (status, "--gpus-per-trainer: a node of the queue main has 2 GPUs, not 4." in said) == (64, True)


def test_undo_takes_the_tools_and_leaves_the_jobs(cluster: Cluster) -> None:
    gone = cluster.run("cluster.yml", "--tags", "training", "-e", "trainyard_state=absent")
    assert gone.status == 0, gone.failures()
    left = "/usr/local/lib/trainyard/training /usr/local/bin/{cluster_train,run-one} /opt/trainyard/samples /run/lock/trainyard-run-one"
    for node in cluster.lab.nodes:
        assert cluster.shell(node, f"ls -d {left} 2>/dev/null", check=False) == ""
    assert cluster.shell("head", f"ls {SHARED}/ada/work") != ""
