# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""TensorFlow on many nodes: handwritten digits, in step (MultiWorkerMirroredStrategy) or around parameter servers.

cluster_train --framework tensorflow --config tensorflow_digits.py --num-nodes 2 --watch
cluster_train --framework tensorflow --strategy parameter-server --config tensorflow_digits.py --num-nodes 2 --trainer-count 2 --watch
"""

import json
import os
import socket
from pathlib import Path

import numpy
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

PASSES = int(os.environ.get("TRAINYARD_NUM_PASSES", "40"))
CHECKPOINTS = Path(os.environ.get("TRAINYARD_CHECKPOINTS", "."))
RATE = 0.2
BATCH = 32  # of each trainer

resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
cluster, role, index = resolver.cluster_spec().as_dict(), resolver.task_type, resolver.task_id

digits = load_digits()
train_x, test_x, train_y, test_y = train_test_split(
    (digits.data / 16).astype("float32"), digits.target.astype("int64"), test_size=0.25, random_state=0
)


def network():
    """Return the variables of a network with one hidden layer, the same on every trainer."""
    random = numpy.random.RandomState(0)
    shapes = ((64, 128), (128,), (128, 10), (10,))
    return [
        tf.Variable((random.randn(*shape) * (0.1 if len(shape) > 1 else 0)).astype("float32"), name=f"part{number}")
        for number, shape in enumerate(shapes)
    ]


def guess(parts, images):
    return tf.nn.relu(images @ parts[0] + parts[1]) @ parts[2] + parts[3]


def gradients(parts, images, labels):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, guess(parts, images)))
    return loss, tape.gradient(loss, parts)


def verdict(parts, hosts, trainers):
    right = tf.argmax(guess([part.read_value() for part in parts], test_x), axis=1) == test_y
    result = {
        "framework": "TensorFlow",
        "version": tf.__version__,
        "accuracy": round(float(tf.reduce_mean(tf.cast(right, tf.float32))), 4),
        "hosts": sorted(hosts),
        "trainers": trainers,
    }
    print(json.dumps(result), flush=True)


def in_step():
    """Every worker takes the same step on its own share; the gradients are averaged."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=tf.distribute.experimental.CommunicationOptions(timeout_seconds=300)
    )
    workers = strategy.num_replicas_in_sync
    with strategy.scope():
        parts, step_number = network(), tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(parts=parts, passes=step_number)
    latest = tf.train.latest_checkpoint(CHECKPOINTS)
    if latest:
        checkpoint.restore(latest)
    # Every worker has to write, and only the first one's files are kept.
    manager = tf.train.CheckpointManager(checkpoint, CHECKPOINTS if index == 0 else f"./worker{index}", max_to_keep=2)

    @tf.function
    def step(images, labels):
        def own():
            context = tf.distribute.get_replica_context()
            loss, found = gradients(parts, images, labels)
            for part, gradient in zip(parts, context.all_reduce("mean", found)):
                part.assign_sub(RATE * gradient)
            return loss

        return strategy.reduce("mean", strategy.run(own), axis=None)

    logs = os.environ.get("TRAINYARD_TENSORBOARD") if index == 0 else None
    writer = tf.summary.create_file_writer(logs) if logs else None
    for number in range(int(step_number.numpy()), PASSES):
        order = numpy.random.RandomState(number).permutation(len(train_x))
        for batch in order[: len(order) // (workers * BATCH) * workers * BATCH].reshape(-1, workers, BATCH)[:, index]:
            loss = step(train_x[batch], train_y[batch])
        step_number.assign_add(1)
        manager.save()
        if index == 0:
            print(f"pass {number + 1} loss={float(loss):.4f}", flush=True)
        if writer:
            with writer.as_default():
                tf.summary.scalar("loss", loss, step=number + 1)
            writer.flush()
    own = cluster["worker"][index].rpartition(":")[0]
    addresses = strategy.gather(strategy.run(lambda: tf.constant([list(map(int, own.split(".")))])), axis=0).numpy()
    if index == 0:
        verdict(parts, {".".join(map(str, address)) for address in addresses}, workers)


def around_servers():
    """The chief hands steps to the workers, each of which changes the servers' parameters when it has done one."""
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    with strategy.scope():
        parts = network()

    @tf.function
    def step(images, labels):
        loss, found = gradients(parts, images, labels)
        for part, gradient in zip(parts, found):
            part.assign_sub(RATE * gradient)
        return loss

    for number in range(PASSES):
        order = numpy.random.RandomState(number).permutation(len(train_x))
        batches = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)
        losses = [coordinator.schedule(step, args=(tf.constant(train_x[batch]), tf.constant(train_y[batch]))) for batch in batches]
        coordinator.join()
        print(f"pass {number + 1} loss={float(losses[-1].fetch()):.4f}", flush=True)
    places = [*cluster["chief"], *cluster["worker"], *cluster["ps"]]
    verdict(parts, {place.rpartition(":")[0] for place in places}, len(cluster["worker"]) + 1)


if role in {"ps", "worker"} and "ps" in cluster:
    print(f"{role} {index} on {socket.gethostname()} serves", flush=True)
    tf.distribute.Server(resolver.cluster_spec(), job_name=role, task_index=index, protocol="grpc", start=True).join()
elif role == "chief":
    around_servers()
else:
    in_step()
