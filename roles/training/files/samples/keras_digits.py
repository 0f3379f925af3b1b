# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Keras on many nodes: handwritten digits, a Keras model in a loop under TensorFlow's MultiWorkerMirroredStrategy.

    cluster_train --framework keras --config keras_digits.py --num-nodes 2 --num-passes 40 --watch

Keras 3's own `fit` does not work under this strategy.
"""

import json
import os
from pathlib import Path

import keras
import numpy
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

PASSES = int(os.environ.get("TRAINYARD_NUM_PASSES", "40"))
WEIGHTS = Path(os.environ.get("TRAINYARD_CHECKPOINTS", ".")) / "keras.weights.h5"
RATE = 0.2
BATCH = 32  # of each trainer

strategy = tf.distribute.MultiWorkerMirroredStrategy(
    communication_options=tf.distribute.experimental.CommunicationOptions(timeout_seconds=300)
)
workers = strategy.num_replicas_in_sync
place = json.loads(os.environ["TF_CONFIG"])
index = place["task"]["index"]

digits = load_digits()
train_x, test_x, train_y, test_y = train_test_split(
    (digits.data / 16).astype("float32"), digits.target.astype("int64"), test_size=0.25, random_state=0
)

keras.utils.set_random_seed(0)
with strategy.scope():
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(128, activation="relu"), keras.layers.Dense(10)])
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
parts = [variable.value for variable in model.trainable_variables]


@tf.function
def step(images, labels):
    def own():
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        found = tape.gradient(loss, parts)
        for part, gradient in zip(parts, tf.distribute.get_replica_context().all_reduce("mean", found)):
            part.assign_sub(RATE * gradient)
        return loss

    return strategy.reduce("mean", strategy.run(own), axis=None)


logs = os.environ.get("TRAINYARD_TENSORBOARD") if index == 0 else None
writer = tf.summary.create_file_writer(logs) if logs else None
for number in range(PASSES):
    order = numpy.random.RandomState(number).permutation(len(train_x))
    for batch in order[: len(order) // (workers * BATCH) * workers * BATCH].reshape(-1, workers, BATCH)[:, index]:
        loss = step(train_x[batch], train_y[batch])
    if index == 0:
        print(f"pass {number + 1} loss={float(loss):.4f}", flush=True)
    if writer:
        with writer.as_default():
            tf.summary.scalar("loss", loss, step=number + 1)
        writer.flush()

own = place["cluster"]["worker"][index].rpartition(":")[0]
addresses = strategy.gather(strategy.run(lambda: tf.constant([list(map(int, own.split(".")))])), axis=0).numpy()
if index == 0:
    model.save_weights(WEIGHTS)
    accuracy = float(numpy.mean(numpy.argmax(model(test_x).numpy(), axis=1) == test_y))
    hosts = sorted({".".join(map(str, address)) for address in addresses})
    print(json.dumps({"framework": "Keras", "accuracy": round(accuracy, 4), "hosts": hosts, "trainers": workers}), flush=True)
