# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""JAX on many nodes: handwritten digits; each trainer computes gradients of its own share, which are averaged over all of them.

cluster_train --framework jax --config jax_digits.py --num-nodes 2 --num-passes 40 --watch
"""

import json
import os
import socket
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

PASSES = int(os.environ.get("TRAINYARD_NUM_PASSES", "40"))
SAVING = int(os.environ.get("TRAINYARD_SAVING_PERIOD", "1"))
CHECKPOINT = Path(os.environ.get("TRAINYARD_CHECKPOINTS", ".")) / "jax.npz"
RATE = 0.2
BATCH = 32  # of each device

jax.distributed.initialize()  # finds the others by what cluster_train put into the environment
rank, devices = jax.process_index(), jax.device_count()
mesh = Mesh(numpy.array(jax.devices()), ("trainers",))
everywhere, shared_out = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("trainers"))

digits = load_digits()
train_x, test_x, train_y, test_y = train_test_split(
    (digits.data / 16).astype("float32"), digits.target.astype("int32"), test_size=0.25, random_state=0
)


def network():
    """Return the parts of a network with one hidden layer, the same on every trainer."""
    random = numpy.random.RandomState(0)
    shapes = ((64, 128), (128,), (128, 10), (10,))
    return [(random.randn(*shape) * (0.1 if len(shape) > 1 else 0)).astype("float32") for shape in shapes]


def guess(parts, images):
    return jax.nn.relu(images @ parts[0] + parts[1]) @ parts[2] + parts[3]


def loss_of(parts, images, labels):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(guess(parts, images)), labels[:, None], axis=1))


@jax.jit
@partial(
    jax.shard_map,
    mesh=mesh,
    in_specs=(PartitionSpec(), PartitionSpec("trainers"), PartitionSpec("trainers")),
    out_specs=(PartitionSpec(), PartitionSpec()),
    check_vma=False,
)
def step(parts, images, labels):
    """Take the same step everywhere: what each device found for its own share, averaged over all devices of all nodes."""
    loss, gradients = jax.lax.pmean(jax.value_and_grad(loss_of)(parts, images, labels), "trainers")
    return [part - RATE * gradient for part, gradient in zip(parts, gradients)], loss


first, parts = 0, network()
if rank == 0 and CHECKPOINT.exists():
    with numpy.load(CHECKPOINT) as kept:
        first, parts = int(kept["passes"]), [kept[f"part{number}"] for number in range(len(parts))]
    print(f"goes on after pass {first}", flush=True)
first, parts = multihost_utils.broadcast_one_to_all((numpy.int32(first), parts))  # the other nodes may not see the checkpoint
first, parts = int(first), [jax.make_array_from_process_local_data(everywhere, numpy.asarray(part)) for part in parts]

own = slice(rank * jax.local_device_count() * BATCH, (rank + 1) * jax.local_device_count() * BATCH)
for number in range(first, PASSES):
    order = numpy.random.RandomState(number).permutation(len(train_x))
    for batch in order[: len(order) // (devices * BATCH) * devices * BATCH].reshape(-1, devices * BATCH)[:, own]:
        images, labels = (jax.make_array_from_process_local_data(shared_out, values[batch]) for values in (train_x, train_y))
        parts, loss = step(parts, images, labels)
    if rank == 0:
        print(f"pass {number + 1} loss={float(loss):.4f}", flush=True)
        if (number + 1) % SAVING == 0:
            beside = CHECKPOINT.with_name("new.npz")
            numpy.savez(beside, passes=number + 1, **{f"part{place}": numpy.asarray(part) for place, part in enumerate(parts)})
            beside.replace(CHECKPOINT)

name = numpy.frombuffer(socket.gethostname().encode().ljust(64, b"\0"), dtype=numpy.uint8)
names = multihost_utils.process_allgather(name).reshape(-1, 64)
if rank == 0:
    trained = [numpy.asarray(part) for part in parts]
    accuracy = float(numpy.mean(numpy.argmax(guess(trained, test_x), axis=1) == test_y))
    result = {
        "framework": "JAX",
        "version": jax.__version__,
        "accuracy": round(accuracy, 4),
        "hosts": sorted({bytes(row).rstrip(b"\0").decode() for row in names}),
        "trainers": jax.process_count(),
        "device": jax.default_backend(),
        "began_after": first,
    }
    print(json.dumps(result), flush=True)
jax.distributed.shutdown()
