# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""TensorFlow by hand, the old way: parameter servers and workers, each started in its own terminal.

    python mnist_dist.py --ps_hosts=head:2222 --worker_hosts=node1:2222,node2:2222 --job_name=ps --task_index=0        on head
    python mnist_dist.py --ps_hosts=head:2222 --worker_hosts=node1:2222,node2:2222 --job_name=worker --task_index=0    on node1
    python mnist_dist.py --ps_hosts=head:2222 --worker_hosts=node1:2222,node2:2222 --job_name=worker --task_index=1    on node2

Handwritten digits, in sessions as TensorFlow 1 has them; runs with TensorFlow 1 and 2. The servers end when all workers are done.
"""

from __future__ import print_function

import argparse
import json
import socket

import numpy
import tensorflow
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

tf = getattr(tensorflow, "compat", tensorflow)
tf = getattr(tf, "v1", tensorflow)

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--ps_hosts", required=True, help="HOST:PORT of every parameter server, with commas between")
parser.add_argument("--worker_hosts", required=True, help="HOST:PORT of every worker, with commas between")
parser.add_argument("--job_name", required=True, choices=("ps", "worker"))
parser.add_argument("--task_index", required=True, type=int)
parser.add_argument("--passes", type=int, default=40)
options = parser.parse_args()

hosts = {"ps": options.ps_hosts.split(","), "worker": options.worker_hosts.split(",")}
if not 0 <= options.task_index < len(hosts[options.job_name]):
    parser.error("--task_index: there are {} of {}, counted from 0".format(len(hosts[options.job_name]), options.job_name))
BATCH, RATE = 32, 0.2

if hasattr(tf, "disable_eager_execution"):
    tf.disable_eager_execution()
cluster = tf.train.ClusterSpec(hosts)
server = tf.train.Server(cluster, job_name=options.job_name, task_index=options.task_index)


def farewell(number):
    """Return the queue on a server in which each worker says that it is done."""
    with tf.device("/job:ps/task:{}".format(number)):
        return tf.FIFOQueue(len(hosts["worker"]), tf.int32, shared_name="done{}".format(number))


def serve():
    queue = farewell(options.task_index)
    with tf.Session(server.target) as session:
        for _ in hosts["worker"]:
            session.run(queue.dequeue())
    print("ps {} on {}: all workers are done".format(options.task_index, socket.gethostname()))


def work():
    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        (digits.data / 16).astype("float32"), digits.target.astype("int64"), test_size=0.25, random_state=0
    )
    random = numpy.random.RandomState(0)
    with tf.device(tf.train.replica_device_setter(worker_device="/job:worker/task:{}".format(options.task_index), cluster=cluster)):
        images, labels = tf.placeholder(tf.float32, [None, 64]), tf.placeholder(tf.int64, [None])
        parts = [
            tf.get_variable("part{}".format(number), initializer=(random.randn(*shape) * (0.1 if len(shape) > 1 else 0)).astype("float32"))
            for number, shape in enumerate(((64, 128), (128,), (128, 10), (10,)))
        ]
        guess = tf.matmul(tf.nn.relu(tf.matmul(images, parts[0]) + parts[1]), parts[2]) + parts[3]
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=guess))
        step_number = tf.train.get_or_create_global_step()
        step = tf.train.GradientDescentOptimizer(RATE).minimize(loss, global_step=step_number)
        right = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(guess, 1), labels), tf.float32))
    done = [farewell(number).enqueue(1) for number in range(len(hosts["ps"]))]
    with tf.train.MonitoredTrainingSession(master=server.target, is_chief=options.task_index == 0) as session:
        for number in range(options.passes):
            order = numpy.random.RandomState(number).permutation(len(train_x))
            own = order[options.task_index :: len(hosts["worker"])]
            for start in range(0, len(own) - BATCH + 1, BATCH):
                batch = own[start : start + BATCH]
                _, value, count = session.run([step, loss, step_number], {images: train_x[batch], labels: train_y[batch]})
            print("pass {} step {} loss={:.4f}".format(number + 1, count, value))
        accuracy = session.run(right, {images: test_x, labels: test_y})
        result = {
            "framework": "TensorFlow",
            "accuracy": round(float(accuracy), 4),
            "worker": options.task_index,
            "host": socket.gethostname(),
        }
        print(json.dumps(result))
        for farewell_of_one in done:
            session.run(farewell_of_one)


if options.job_name == "ps":
    serve()
else:
    work()
