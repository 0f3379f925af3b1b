"""What public training code does, in our own words: it saves beside itself, spawns, pickles, takes odd options, changes folders, handles
signals and ends by sys.exit. All of it with real frameworks on two nodes, in folders that all nodes see and in one that only one sees.
"""

from __future__ import annotations

import pytest

from tests.cluster.conftest import Cluster, Place, own

pytestmark = pytest.mark.nodes
ENVIRONMENTS = ("pytorch", "keras", "tensorflow", "paddle")

# As PyTorch's series on DistributedDataParallel and minGPT have it: a snapshot beside the script, from which a job goes on; the model is
# still alive when the group is destroyed.
SNAPSHOT = """
import os, sys, time
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

class Numbers(Dataset):
    def __init__(self, size):
        self.data = [(torch.rand(20), torch.rand(1)) for _ in range(size)]
    def __len__(self):
        return len(self.data)
    def __getitem__(self, index):
        return self.data[index]

class Trainer:
    def __init__(self, model, loader, path):
        self.rank, self.path, self.first = int(os.environ["RANK"]), path, 0
        self.model = model
        if os.path.exists(path):
            found = torch.load(path, weights_only=True)
            self.model.load_state_dict(found["model"])
            self.first = found["epoch"]
            print(f"rank {self.rank} goes on with epoch {self.first}", flush=True)
        self.model = DistributedDataParallel(self.model)
        self.loader = loader
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)
    def run(self, epochs):
        for epoch in range(self.first, epochs):
            self.loader.sampler.set_epoch(epoch)
            for inputs, wanted in self.loader:
                self.optimizer.zero_grad()
                loss = torch.nn.functional.mse_loss(self.model(inputs), wanted)
                loss.backward()
                self.optimizer.step()
            if self.rank == 0:
                torch.save({"model": self.model.module.state_dict(), "epoch": epoch + 1}, self.path + ".new")
                os.replace(self.path + ".new", self.path)
                print(f"epoch {epoch} loss={loss.item():.4f}", flush=True)
            time.sleep(PAUSE)

def main(epochs):
    dist.init_process_group("gloo")
    data = Numbers(256)
    loader = DataLoader(data, batch_size=32, sampler=DistributedSampler(data), num_workers=WORKERS)
    trainer = Trainer(torch.nn.Linear(20, 1), loader, "snapshot.pt")
    trainer.run(epochs)
    dist.destroy_process_group()

if __name__ == "__main__":
    main(int(sys.argv[1]))
"""
OPTIONS = """
import argparse, os, pickle, sys
import multiprocessing

class Setting:
    def __init__(self, value):
        self.value = value

def double(setting):
    return setting.value * 2

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--log", "--e", "--n", "--local", "--master", "--rdzv-x"):
        parser.add_argument(name, default="")
    found = parser.parse_args()
    folder = os.path.join("multirun", "2026-11-29", "0")  # as hydra makes them
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    with open("setting.pickle", "wb") as file:
        pickle.dump(Setting(3), file)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print("spawned", pool.map(double, [Setting(1), Setting(2)]), "words", found.log, repr(found.e), found.n, flush=True)
    sys.exit("nothing more to do" if found.n == "fail" else 0)
"""
RUNS = 50


def snapshot(pause: float = 0, workers: int = 0) -> str:
    return SNAPSHOT.replace("PAUSE", str(pause)).replace("WORKERS", str(workers))


def test_a_snapshot_beside_the_script_is_kept_and_found_when_the_job_starts_again(place: Place) -> None:
    place.put("snap/train.py", snapshot(pause=1))
    job = place.submit("snap", "--framework pytorch --num-nodes 2 -- 40")
    job.prints("epoch 3 ")
    place.cluster.shell("head", f"scontrol requeue {job.number}")
    job.prints("was interrupted: requeued")
    place.cluster.until(lambda: job.state() == "PENDING", 60, job.state)
    place.cluster.shell("head", f"scontrol update job={job.number} starttime=now")
    job.ends("COMPLETED", 240)
    for rank in (0, 1):
        assert f"rank {rank} goes on with epoch " in job.said()
    assert job.files() == {"outputs/snapshot.pt"}
    assert (job.result()["status"], job.result()["starts"]) == (0, 2)


def test_data_loaders_workers_and_several_trainers_on_a_node(place: Place) -> None:
    place.put("loaders/train.py", snapshot(workers=1))
    status, said, job = place.watch("loaders", "--framework pytorch --num-nodes 2 --trainer-count 2 -- 2")
    assert status == 0, said
    assert "has ended well" in said
    assert "outputs/snapshot.pt" in job.files()


@pytest.mark.parametrize("framework", ["pytorch", "keras"])
def test_odd_options_spawn_pickles_and_folders_of_its_own(place: Place, framework: str) -> None:
    place.put("odd/train.py", OPTIONS)
    words = f"--framework {framework} -- --log x --e '' --n 5 --local 1 --master y --rdzv-x z"
    status, said, job = place.watch("odd", words)
    assert status == 0, said
    assert "spawned [2, 4] words x '' 5" in said
    assert job.files() == {"outputs/multirun/2026-11-29/0/setting.pickle"}
    status, said, _job = place.watch("odd", f"--framework {framework} -- --n fail")
    assert status == 1
    assert "has ended with status 1: nothing more to do" in said


def test_training_that_finished_counts(cluster: Cluster) -> None:
    place = own(cluster)
    place.put("often/train.py", snapshot())
    failed = []
    for _ in range(RUNS):
        status, said, _job = place.watch("often", "--framework pytorch --num-nodes 2 -- 2")
        if status or "terminate called" in said or "exit barrier" in said:
            failed.append(said)
    assert not failed, f"{len(failed)} of {RUNS}: {failed[0]}"


@pytest.mark.parametrize("framework", ["tensorflow", "keras", "paddle"])
def test_every_framework_ends_well_every_time(cluster: Cluster, framework: str) -> None:
    place = own(cluster)
    place.put("each/README", "the samples are enough")
    words = f"cluster_train --watch --framework {framework} --config {framework}_digits.py --workspace /opt/trainyard/samples"
    for _ in range(5):
        status, said = place.user(f"cd each && {words} --num-nodes 2 --num-passes 2")
        assert status == 0, said


def test_two_users_do_not_see_each_others_work(place: Place) -> None:
    place.put("private/.env", "KEY=secret")
    place.put("private/train.py", "import time; print('runs', flush=True); time.sleep(600)")
    place.shell(f"chmod 600 {place.home}/private/.env")
    job = place.submit("private", "--framework keras --num-nodes 2")
    job.prints("runs")
    for script in (f"cat {job.folder}/workspace.tar", f"ls {job.folder}", f"cat {job.folder}/logs/node1.log", f"scancel {job.number}"):
        status, _said = place.user(f"cd / && {script}", "bob")
        assert status != 0, script
    for node in ("node1", "node2"):
        assert "secret" not in place.cluster.shell(node, "runuser -u bob -- cat /tmp/trainyard-*/workspace/.env 2>&1", check=False)
    assert job.state() == "RUNNING"
    place.cluster.shell("head", f"scancel {job.number}")
    job.ends("CANCELLED")
