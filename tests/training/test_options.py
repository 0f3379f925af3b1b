"""What cluster_train understands, and what it refuses before anything is submitted."""

from __future__ import annotations

from pathlib import Path

import pytest
from trainyard_training import options
from trainyard_training.cluster import Allocation, Queue, allocation, duration, gpus, parse_addresses, parse_queues, seconds
from trainyard_training.errors import USAGE, RefusedError
from trainyard_training.submit import command, cores_per_node, gpus_per_node
from trainyard_training.submit import main as submit_main

QUEUES = {
    "main": Queue("main", default=True, limit=3600, nodes=2, cores=4, gpus=0, open=True),
    "gpu": Queue("gpu", default=False, limit=None, nodes=3, cores=16, gpus=2, open=True),
    "shut": Queue("shut", default=False, limit=None, nodes=3, cores=16, gpus=0, open=False),
}
SETTINGS = {"environments": "/envs", "tensorboard": "/srv/tensorboard", "shared": "/"}
OLD = (
    "--config cluster_conf.py --time_limit 00:30:00 --submitter NAME --num_nodes 2 --job_priority normal --trainer_count 4 "
    "--num_passes 1 --log_period 1000 --dot_period 100 --saving_period 1 --where main --thirdparty ./thirdparty --job_name it"
)


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "train.py").touch()
    (tmp_path / "cluster_conf.py").touch()
    (tmp_path / "thirdparty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wish(words: str, framework: str = "") -> options.Wish:
    return options.wish(options.parsed(words.split(), "cluster_train", framework))


def test_the_old_command_line_is_taken_as_it_stands(workspace: Path) -> None:
    job = wish(OLD, "paddle")
    assert (job.framework, job.environment, job.config, job.nodes, job.trainers) == ("paddle", "paddle", "cluster_conf.py", 2, 4)
    assert (job.limit, job.submitter, job.priority, job.queue, job.name) == (1800, "NAME", "normal", "main", "it")
    assert (job.passes, job.log_period, job.dot_period, job.saving_period) == (1, 1000, 100, 1)
    assert job.thirdparty == workspace / "thirdparty"


def test_dashes_and_underscores_are_the_same_and_the_scripts_words_are_left_alone() -> None:
    words = ["--num_nodes=2", "--trainer_count", "3", "a_b"]
    assert options.with_dashes(words) == ["--num-nodes=2", "--trainer-count", "3", "a_b"]
    assert wish("--framework keras --config train.py -- --learning_rate 0.1").arguments == ("--learning_rate", "0.1")


@pytest.mark.parametrize("words", [["--log", "x"], ["--e", "", "--n"], ["--", "--help"], ["-h"], ["plain", "--", "--", "a b"]])
def test_every_argument_after_the_dashes_is_the_scripts(words: list[str]) -> None:
    chosen = options.parsed(["--framework", "keras", "--config", "train.py", "--", *words], "cluster_train")
    assert options.wish(chosen).arguments == tuple(words)


def test_a_workspace_elsewhere_holds_the_script(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "deep.py").touch()
    job = wish("--framework pytorch --config deep.py --workspace project")
    assert (job.config, job.workspace, job.name) == ("deep.py", tmp_path / "project", "deep")
    assert wish("--framework pytorch --config project/deep.py --workspace project") == job
    assert wish(f"--framework pytorch --config {tmp_path}/project/deep.py --workspace ./project/") == job
    (tmp_path / "project" / "project").mkdir()
    (tmp_path / "project" / "project" / "deep.py").touch()
    assert wish("--framework pytorch --config project/deep.py --workspace project").config == "project/deep.py", "the workspace comes first"


@pytest.mark.parametrize(
    "words, said",
    [
        ("--framework torch --config train.py", "--framework: invalid choice: 'torch'"),
        ("--config train.py", "the following arguments are required: --framework"),
        ("--framework pytorch --config none.py", "--config: there is no file"),
        ("--framework pytorch --config /etc/passwd", "is not in the workspace"),
        ("--framework pytorch --config train.py --workspace none", "--workspace: "),
        ("--framework pytorch --config train.py --thirdparty none", "--thirdparty: there is no folder"),
        ("--framework pytorch --config train.py --num-nodes 0", "--num-nodes: it has to be 1 or more"),
        ("--framework pytorch --config train.py --trainer-count two", "--trainer-count: 'two' is no whole number"),
        ("--framework pytorch --config train.py --time-limit soon", "--time-limit: 'soon' is no time; right is HH:MM:SS"),
        ("--framework pytorch --config train.py --time-limit 00:00:00", "--time-limit: no job can end in no time"),
        ("--framework pytorch --config train.py --job-priority urgent", "--job-priority: invalid choice: 'urgent'"),
        ("--framework pytorch --config train.py --job-name a/b", "--job-name: 'a/b' cannot be a folder's name"),
        ("--framework pytorch --config train.py --environment ../x", "--environment: '../x' is no name"),
        ("--framework pytorch --config train.py --strategy parameter-server", "parameter-server is TensorFlow's"),
        ("--framework keras --config train.py --strategy parameter-server", "needs two trainers or more"),
        ("--framework pytorch --config train.py --num-node 2", "unrecognized arguments: --num-node"),
        ("--framework pytorch --config train.py --lr 2", "Arguments for the script go after --, such as: cluster_train ... -- --lr ..."),
        ("--framework pytorch --config none.py --workspace thirdparty", "thirdparty/none.py and no"),
    ],
)
def test_bad_words_are_refused_by_their_name(words: str, said: str) -> None:
    with pytest.raises(RefusedError) as refused:
        wish(words)
    assert said in str(refused.value)
    assert refused.value.status == USAGE


@pytest.mark.parametrize(
    "words, said",
    [
        ("--where fast", "--where: there is no queue fast. There are: main (up to 01:00:00, 2 nodes, 4 cores each); gpu (no time limit"),
        ("--where shut", "--where: the queue shut takes no jobs now."),
        ("--time-limit 2:00:00", "--time-limit: 02:00:00 is more than the queue main allows, 01:00:00."),
        ("--num-nodes 3", "--num-nodes: the queue main has 2, not 3."),
        ("--trainer-count 5", "--trainer-count: a node of the queue main has 4 cores, too few for 5 trainers."),
        ("--trainer-count 2 --cores-per-trainer 3", "--cores-per-trainer: a node of the queue main has 4 cores, not 6."),
        ("--gpus-per-trainer 1", "--gpus-per-trainer: a node of the queue main has 0 GPUs, not 1."),
    ],
)
def test_what_no_queue_could_take_is_refused_with_what_is_allowed(words: str, said: str) -> None:
    with pytest.raises(RefusedError) as refused:
        options.fits(wish(f"--framework pytorch --config train.py {words}"), QUEUES)
    assert said in str(refused.value)


@pytest.mark.parametrize("answer", ["echo no such account >&2; exit 1", "exit 0"])
def test_what_was_not_submitted_leaves_no_folder(workspace: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    programs = workspace / "thirdparty"  # a stand-in for Slurm's commands
    sinfo = "#!/bin/sh\nprintf 'main|1:00:00|2|4|(null)|up|main*\\n'"
    for name, script in (("sinfo", sinfo), ("sbatch", f"#!/bin/sh\n{answer}")):
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    if answer == "exit 0":  # nothing is wrong but a file that goes away while it is packed

        def gone(*_words: object, **_more: object) -> None:
            raise FileNotFoundError(2, "No such file or directory", "data/a.txt")

        monkeypatch.setattr("tarfile.TarFile.add", gone)
    with pytest.raises(RefusedError, match=r"no such account|data/a.txt cannot be shipped"):
        submit_main(["--framework", "pytorch", "--config", "train.py"], "cluster_train", Path("/run"), SETTINGS)
    assert not list(workspace.glob("train-*"))


def test_without_a_default_queue_one_has_to_be_named() -> None:
    with pytest.raises(RefusedError, match="--where: name a queue; no one is the default"):
        options.fits(wish("--framework pytorch --config train.py"), {"gpu": QUEUES["gpu"]})


def test_a_job_takes_a_gpu_for_each_trainer_where_there_are_some() -> None:
    job = wish("--framework pytorch --config train.py --trainer-count 2")
    assert gpus_per_node(job, QUEUES["gpu"]) == 2
    assert gpus_per_node(job, QUEUES["main"]) == 0
    none = wish("--framework pytorch --config train.py --gpus-per-trainer 0")
    assert gpus_per_node(none, QUEUES["gpu"]) == 0


@pytest.mark.parametrize(
    "words, queue, cores",
    [
        ("", "main", 2),
        ("", "gpu", 16),
        ("--gpus-per-trainer 0", "gpu", 2),
        ("--cores-per-trainer 3", "gpu", 6),
        ("--cores-per-trainer 2", "main", 4),
    ],
)
def test_cores_come_with_the_gpu_or_as_wished(words: str, queue: str, cores: int) -> None:
    assert cores_per_node(wish(f"--framework pytorch --config train.py --trainer-count 2 {words}"), QUEUES[queue]) == cores


def test_slurm_is_told_all_of_it() -> None:
    job = wish(OLD + " --exclusive", "paddle")
    words = command(job, QUEUES["gpu"], Path("/srv/it-1"), Path("/usr/lib/run"))
    assert words[0] == "sbatch"
    for word in (
        "--nodes=2",
        "--partition=gpu",
        "--time=00:30:00",
        "--nice=100",
        "--comment=NAME",
        "--gpus-per-node=2",
        "--cpus-per-task=16",
        "--exclusive",
        "--requeue",
    ):
        assert word in words
    assert words[-1] == "--wrap=exec /usr/lib/run batch /srv/it-1"


@pytest.mark.parametrize(
    "words, count",
    [("5", 300), ("5:30", 330), ("1:00:00", 3600), ("1-0", 86400), ("1-2", 93600), ("1-2:30", 95400), ("1-02:30:05", 95405)],
)
def test_times_in_slurms_forms(words: str, count: int) -> None:
    assert seconds(words) == count
    assert seconds(duration(count)) == count


@pytest.mark.parametrize("words", ["", "x", "1:2:3:4", "-1", "1 hour"])
def test_what_is_no_time_is_none(words: str) -> None:
    with pytest.raises(ValueError, match=words or "^$"):
        seconds(words)


def test_queues_are_read_over_all_sorts_of_their_nodes() -> None:
    printed = "main|1:00:00|2|4|(null)|up|main*\ngpu|infinite|1|64+|gpu:a100:4(S:0-1),gpu:t4:1|up|gpu\ngpu|infinite|2|16|gpu:t4:2|up|gpu\n"
    assert parse_queues(printed) == {
        "main": Queue("main", default=True, limit=3600, nodes=2, cores=4, gpus=0, open=True),
        "gpu": Queue("gpu", default=False, limit=None, nodes=3, cores=16, gpus=2, open=True),
    }


def test_nodes_are_reached_by_the_addresses_that_slurm_has() -> None:
    printed = (
        "NodeName=node1 Arch=x86_64 CoresPerSocket=1 NodeAddr=10.0.0.1 NodeHostName=node1 Version=22.05.8\n"
        "NodeName=node5 Arch=x86_64 CoresPerSocket=1 NodeAddr=10.0.0.5 NodeHostName=node5 Version=22.05.8\n"
    )
    assert parse_addresses(["node5", "node1", "node9"], printed) == ["10.0.0.5", "10.0.0.1", "node9"]


@pytest.mark.parametrize("words, count", [("(null)", 0), ("gpu:2", 2), ("gpu:a100:4(S:0-1),gpu:t4:1", 5), ("shard:4,gpu:h100:8", 8)])
def test_gpus_in_generic_resources(words: str, count: int) -> None:
    assert gpus(words) == count


HERE = Allocation("7", nodes=2, cores=4, gpus=1)


def test_an_allocation_is_what_slurm_says() -> None:
    said = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "3", "SLURM_JOB_CPUS_PER_NODE": "8(x2),4"}
    assert allocation(said) == Allocation("7", nodes=3, cores=4, gpus=0)
    assert allocation(said | {"SLURM_GPUS_PER_NODE": "a100:2"}).gpus == 2
    with pytest.raises(RefusedError, match="salloc --nodes 2"):
        allocation({})


@pytest.mark.parametrize(
    "words, said",
    [
        ("--num-nodes 1", "--num-nodes: the allocation 7 has 2, not 1"),
        ("--num-nodes 2 --where main", "--where: --here takes the allocation 7 as it is"),
        ("--num-nodes 2 --time-limit 1:00", "--time-limit: --here"),
        ("--num-nodes 2 --exclusive", "--exclusive: --here"),
        ("--num-nodes 2 --trainer-count 5", "--trainer-count: the allocation 7 has 4 cores on a node"),
        ("--num-nodes 2 --gpus-per-trainer 2", "--gpus-per-trainer: the allocation 7 has 1 GPUs on a node, not 2"),
    ],
)
def test_here_takes_what_is_there(words: str, said: str) -> None:
    with pytest.raises(RefusedError) as refused:
        options.fits_here(wish(f"--framework pytorch --config train.py --here {words}"), HERE)
    assert said in str(refused.value)
    options.fits_here(wish("--framework pytorch --config train.py --here --num-nodes 2 --trainer-count 4"), HERE)
