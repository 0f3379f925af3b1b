# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""PyTorch on many nodes: handwritten digits with DistributedDataParallel, with checkpoints that a job goes on from.

cluster_train --framework pytorch --config pytorch_digits.py --num-nodes 2 --num-passes 40 --watch
"""

import json
import os
import socket
from pathlib import Path

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.parallel import DistributedDataParallel

PASSES = int(os.environ.get("TRAINYARD_NUM_PASSES", "40"))
SAVING = int(os.environ.get("TRAINYARD_SAVING_PERIOD", "1"))
CHECKPOINT = Path(os.environ.get("TRAINYARD_CHECKPOINTS", ".")) / "pytorch.pt"
BATCH = 32  # of each trainer

on_gpu = torch.cuda.is_available()
dist.init_process_group("nccl" if on_gpu else "gloo")
rank, size = dist.get_rank(), dist.get_world_size()
device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
if on_gpu:
    torch.cuda.set_device(device)

digits = load_digits()
train_x, test_x, train_y, test_y = (
    torch.as_tensor(part, dtype=kind)
    for part, kind in zip(
        train_test_split(digits.data / 16, digits.target, test_size=0.25, random_state=0),
        (torch.float32, torch.float32, torch.int64, torch.int64),
    )
)

torch.manual_seed(0)
network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(device)
model = DistributedDataParallel(network)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
first = 0
if CHECKPOINT.exists():
    kept = torch.load(CHECKPOINT, map_location=device, weights_only=True)
    network.load_state_dict(kept["network"])
    optimizer.load_state_dict(kept["optimizer"])
    first = kept["passes"]
    if rank == 0:
        print(f"goes on after pass {first}", flush=True)

writer, logs = None, os.environ.get("TRAINYARD_TENSORBOARD") if rank == 0 else None
if logs:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(logs)
for number in range(first, PASSES):
    order = torch.randperm(len(train_x), generator=torch.Generator().manual_seed(number))
    own = order[: len(order) // (size * BATCH) * size * BATCH].reshape(-1, size, BATCH)[:, rank]  # as many batches on every trainer
    for batch in own:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(train_x[batch].to(device)), train_y[batch].to(device))
        loss.backward()
        optimizer.step()
    if rank == 0:
        print(f"pass {number + 1} loss={loss.item():.4f}", flush=True)
        if writer:
            writer.add_scalar("loss", loss.item(), number + 1)
            writer.flush()
        if (number + 1) % SAVING == 0:
            beside = CHECKPOINT.with_suffix(".new")
            torch.save({"network": network.state_dict(), "optimizer": optimizer.state_dict(), "passes": number + 1}, beside)
            beside.replace(CHECKPOINT)

hosts: list[str] = [""] * size
dist.all_gather_object(hosts, socket.gethostname())
with torch.no_grad():
    accuracy = (network(test_x.to(device)).argmax(1).cpu() == test_y).float().mean().item()
if rank == 0:
    result = {
        "framework": "PyTorch",
        "version": torch.__version__,
        "accuracy": round(accuracy, 4),
        "hosts": sorted(set(hosts)),
        "trainers": size,
        "device": device.type,
        "began_after": first,
    }
    print(json.dumps(result), flush=True)
dist.barrier()
del model  # which holds the process group: its threads are to end here, and not with the interpreter
dist.destroy_process_group()
