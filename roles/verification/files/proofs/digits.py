# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What every proof of training shares: the data, the order of the batches, the verdict and the one line that is printed.

A proof may be run by hand, in its environment:

    /opt/trainyard/envs/pytorch/bin/python /opt/trainyard/verification/proofs/train_pytorch.py --expect-device gpu
"""

from __future__ import annotations

import time

_STARTED = time.monotonic()  # before anything slow is imported: the seconds reported are what a user would wait

import argparse
import glob
import gzip
import json
import os
import struct
import sys
import traceback
from collections import namedtuple

BATCH = 64
CLASSES = 10
FILTERS = 16
HIDDEN = 64
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

# Images are float32 in 0..1, shaped (count, side, side, 1); labels are int64.
Data = namedtuple("Data", "train_images train_labels test_images test_labels side epochs")

# device: cpu or gpu, asked of the framework about the very tensors it trained; built_for_gpu: whether this build could use one.
Outcome = namedtuple("Outcome", "version accuracy device device_name built_for_gpu")


def load(mnist):
    """Return scikit-learn's handwritten digits, or MNIST from `mnist`: an .npz file in Keras' layout or a folder of idx files."""
    import numpy

    if mnist:
        train_images, train_labels, test_images, test_labels = _read_npz(mnist) if os.path.isfile(mnist) else _read_idx(mnist)
        brightest = 255.0
    else:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        bunch = load_digits()
        train_images, test_images, train_labels, test_labels = train_test_split(
            bunch.images, bunch.target, test_size=0.25, random_state=0, stratify=bunch.target
        )
        brightest = 16.0
    side = train_images.shape[1]

    def shaped(images):
        return (images.astype("float32") / numpy.float32(brightest)).reshape(-1, side, side, 1)

    return Data(
        shaped(train_images),
        train_labels.astype("int64"),
        shaped(test_images),
        test_labels.astype("int64"),
        side,
        max(3, round(30000 / len(train_images))),  # about as many steps for 1,300 images as for 60,000
    )


def _read_npz(path):
    import numpy

    with numpy.load(path, allow_pickle=False) as archive:
        return tuple(archive[name] for name in ("x_train", "y_train", "x_test", "y_test"))


def _read_idx(folder):
    import numpy

    arrays = []
    for name in IDX_FILES:
        path = os.path.join(folder, name)
        with gzip.open(path + ".gz") if os.path.exists(path + ".gz") else open(path, "rb") as file:
            dimensions = struct.unpack(">HBB", file.read(4))[2]
            shape = struct.unpack(">%dI" % dimensions, file.read(4 * dimensions))
            arrays.append(numpy.frombuffer(file.read(), dtype="uint8").reshape(shape))
    return tuple(arrays)


def batches(data):
    """Yield (images, labels) in a fixed random order; every batch has the same size, so that nothing is compiled twice."""
    import numpy

    random = numpy.random.RandomState(0)
    for _ in range(data.epochs):
        order = random.permutation(len(data.train_images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            yield data.train_images[chosen], data.train_labels[chosen]


def no_gpu(framework, built_for_gpu):
    """Return why a GPU that was expected was not used, and what to do about it."""
    if not built_for_gpu:
        return (
            "a GPU was expected, but this build of %s can use the CPU only" % framework,
            "Choose the environment's GPU variant, or set its device to cpu.",
        )
    nodes = [path for path in glob.glob("/dev/nvidia[0-9]*") + glob.glob("/dev/kfd") if path]
    if not nodes:
        return (
            "a GPU was expected, but no CUDA device is visible to %s: this node has no /dev/nvidia0" % framework,
            "Look whether `nvidia-smi` lists the GPU on the node; if it does not, the driver is missing or not loaded.",
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        return (
            "a GPU was expected, but CUDA_VISIBLE_DEVICES=%s hides it from %s" % (hidden, framework),
            "Unset CUDA_VISIBLE_DEVICES.",
        )
    return (
        "a GPU was expected and %s exists, but %s could not use it" % (nodes[0], framework),
        "Compare the CUDA version that `nvidia-smi` shows with the one this environment was built for; a driver may be too old. "
        "Look also whether the user may open the device file.",
    )


def judge(framework, outcome, expected_device, minimum_accuracy):
    """Return (problem, remedy), both empty when the outcome is a proof."""
    if expected_device == "gpu" and outcome.device != "gpu":
        return no_gpu(framework, outcome.built_for_gpu)
    if expected_device and outcome.device != expected_device:
        return (
            "the %s was expected, but %s trained on %s" % (expected_device.upper(), framework, outcome.device_name),
            "Set the environment's device to %s." % outcome.device,
        )
    if not outcome.accuracy >= minimum_accuracy:  # also true for NaN
        return (
            "%s trained, but reached a test accuracy of %.3f instead of %.3f" % (framework, outcome.accuracy, minimum_accuracy),
            "A build that computes wrongly for this processor or GPU does this; try another version of the environment.",
        )
    return "", ""


def prove(framework, train):
    """Run `train(data)`, print the verdict as one JSON line and exit: 0 when it is a proof, 1 otherwise."""
    parser = argparse.ArgumentParser(description="Train a small network on handwritten digits with %s." % framework)
    parser.add_argument("--expect-device", choices=("cpu", "gpu"), help="fail unless the training ran there")
    parser.add_argument("--minimum-accuracy", type=float, default=0.95, help="test accuracy to reach, 0..1 (default: %(default)s)")
    parser.add_argument("--mnist", default="", help="train on MNIST: an .npz file in Keras' layout, or a folder of idx files")
    parser.add_argument("--threads", type=int, default=0, help="threads to compute with (default: the framework's own choice)")
    options = parser.parse_args()
    if options.threads:
        for name in ("OMP", "MKL", "OPENBLAS", "TF_INTRAOP", "TF_INTEROP"):
            name = "TF_NUM_%s_THREADS" % name[3:] if name.startswith("TF_") else name + "_NUM_THREADS"
            os.environ[name] = str(options.threads)
    # Others may be computing on the same GPU: take memory as it is needed, not all of it.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    line = {"framework": framework, "version": "", "device": "", "device_name": "", "accuracy": None}
    try:
        outcome = train(load(options.mnist))
        line.update(version=outcome.version, device=outcome.device, device_name=outcome.device_name)
        line["accuracy"] = round(float(outcome.accuracy), 4)
        line["problem"], line["remedy"] = judge(framework, outcome, options.expect_device, options.minimum_accuracy)
    except Exception as error:
        traceback.print_exc()
        line["problem"], line["remedy"] = "%s: %s" % (type(error).__name__, error), ""
    line["seconds"] = round(time.monotonic() - _STARTED, 1)
    print(json.dumps(line))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if line["problem"] else 0)  # the verdict stands: no framework's clean-up at exit may change or delay it
