# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""PaddlePaddle on many nodes: handwritten digits with collective communication.

paddle cluster_train --config paddle_digits.py --num_nodes 2 --num_passes 40 --where main
"""

import json
import os
import socket
from pathlib import Path

import numpy
import paddle
import paddle.distributed as dist
from paddle import nn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

PASSES = int(os.environ.get("TRAINYARD_NUM_PASSES", "40"))
WEIGHTS = Path(os.environ.get("TRAINYARD_CHECKPOINTS", ".")) / "paddle.pdparams"
BATCH = 32  # of each trainer

dist.init_parallel_env()
rank, size = dist.get_rank(), dist.get_world_size()

digits = load_digits()
train_x, test_x, train_y, test_y = train_test_split(
    (digits.data / 16).astype("float32"), digits.target.astype("int64"), test_size=0.25, random_state=0
)

paddle.seed(0)
network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
model = paddle.DataParallel(network)
optimizer = paddle.optimizer.Adam(learning_rate=2e-3, parameters=model.parameters())
for number in range(PASSES):
    order = numpy.random.RandomState(number).permutation(len(train_x))
    # Gloo waits in vain for a trainer that has fewer batches than the others.
    for batch in order[: len(order) // (size * BATCH) * size * BATCH].reshape(-1, size, BATCH)[:, rank]:
        loss = nn.functional.cross_entropy(model(paddle.to_tensor(train_x[batch])), paddle.to_tensor(train_y[batch]))
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
    if rank == 0:
        print(f"pass {number + 1} loss={float(loss):.4f}", flush=True)

hosts: list[str] = []
dist.all_gather_object(hosts, socket.gethostname())
if rank == 0:
    paddle.save(network.state_dict(), str(WEIGHTS))
    accuracy = float((network(paddle.to_tensor(test_x)).argmax(1).numpy() == test_y).mean())
    print(
        json.dumps({"framework": "PaddlePaddle", "accuracy": round(accuracy, 4), "hosts": sorted(set(hosts)), "trainers": size}), flush=True
    )
dist.barrier()
