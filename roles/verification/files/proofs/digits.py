# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What every proof of training shares: the data, the order of the batches, the verdict and the one line that is printed.

It runs on Python 2.7 too, which frozen environments of old frameworks have.

A proof may also be run by hand, with its environment's Python:

    /opt/trainyard/envs/pytorch/bin/python /opt/trainyard/proofs/scripts/train_pytorch.py --expect-device gpu

Libraries are imported inside functions: they read their limits from the process environment when they are loaded, and one
that can't be loaded is a verdict like any other.
"""

from __future__ import print_function

import argparse
import glob
import gzip
import json
import os
import struct
import sys
import time
import traceback
from collections import namedtuple

CLOCK = getattr(time, "monotonic", time.time)
STARTED = CLOCK()
BATCH = 64
CLASSES = 10
FILTERS = 16
HIDDEN = 64
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")

# Images are float32 in 0..1, shaped (count, side, side, 1); labels are int64.
Data = namedtuple("Data", "train_images train_labels test_images test_labels side epochs")

# What a framework says about a tensor that it trained. device: cpu or gpu; built_for_gpu: whether this build could use one.
Used = namedtuple("Used", "version device device_name built_for_gpu")


def load(mnist):
    """Return scikit-learn's handwritten digits, or MNIST from `mnist`: an .npz file in Keras' layout or a folder of idx files."""
    import numpy

    if mnist:
        train_images, train_labels, test_images, test_labels = _read_idx(mnist) if os.path.isdir(mnist) else _read_npz(mnist)
        brightest = 255
    else:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        bunch = load_digits()
        train_images, test_images, train_labels, test_labels = train_test_split(
            bunch.images, bunch.target, test_size=0.25, random_state=0, stratify=bunch.target
        )
        brightest = 16
    side = train_images.shape[1]

    def shaped(images):
        return (images.astype("float32") / numpy.float32(brightest)).reshape(-1, side, side, 1)

    return Data(
        shaped(train_images),
        train_labels.astype("int64"),
        shaped(test_images),
        test_labels.astype("int64"),
        side,
        max(3, 30000 // len(train_images)),  # few images are shown more often
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
        with gzip.open(path + ".gz", "rb") if os.path.exists(path + ".gz") else open(path, "rb") as file:
            content = file.read()
        (dimensions,) = struct.unpack_from("B", content, 3)
        shape = struct.unpack_from(">{}I".format(dimensions), content, 4)
        arrays.append(numpy.frombuffer(content, dtype="uint8", offset=4 + 4 * dimensions).reshape(shape))
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


def no_gpu(framework, built_for_gpu, devices="/dev"):
    """Return why a GPU that was expected was not used, and what to do about it."""
    if not built_for_gpu:
        return (
            "a GPU was expected, but this build of {} can use the CPU only".format(framework),
            "Choose the environment's GPU variant, or set its device to cpu.",
        )
    found = sorted(glob.glob("{}/nvidia[0-9]*".format(devices))) + glob.glob("{}/kfd".format(devices))
    if not found:
        return (
            "a GPU was expected, but no CUDA device is visible to {}: the node has no {}/nvidia0".format(framework, devices),
            "Look whether `nvidia-smi` lists the GPU on the node; if it does not, the driver is missing or not loaded.",
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        return (
            "a GPU was expected, but CUDA_VISIBLE_DEVICES={} hides it from {}".format(hidden, framework),
            "Unset CUDA_VISIBLE_DEVICES.",
        )
    return (
        "a GPU was expected and {} exists, but {} could not use it".format(found[0], framework),
        "Compare the CUDA version that `nvidia-smi` shows with the one this environment was built for: the driver may be too old. "
        "Look also whether the user may open the device file.",
    )


def judge(framework, accuracy, used, expected_device, minimum_accuracy):
    """Return (problem, remedy), both empty when the outcome is a proof."""
    if expected_device == "gpu" and used.device != "gpu":
        return no_gpu(framework, used.built_for_gpu)
    if expected_device and used.device != expected_device:
        return (
            "the CPU was expected, but {} trained on {}".format(framework, used.device_name),
            "Set the environment's device to gpu.",
        )
    if not accuracy >= minimum_accuracy:  # so that NaN is none either
        return (
            "the test accuracy is {:.3f}, less than {:g}".format(accuracy, minimum_accuracy),
            "A build that computes wrongly on this processor or GPU does this: try another version or variant of the environment.",
        )
    return "", ""


def prove(framework, train):
    """Print the verdict on `train(data)`, which returns (test accuracy, `Used`), as one JSON line; exit with 0 for a proof, else 1."""
    parser = argparse.ArgumentParser(description="Train a small network on handwritten digits with {}.".format(framework))
    parser.add_argument("--expect-device", choices=("cpu", "gpu"), help="fail unless the training ran there")
    parser.add_argument("--minimum-accuracy", type=float, default=0.95, help="test accuracy to reach, 0..1 (default: %(default)s)")
    parser.add_argument("--mnist", default="", help="train on MNIST: an .npz file in Keras' layout, or a folder of idx files")
    parser.add_argument("--threads", type=int, default=0, help="threads to compute with (default: the framework's own choice)")
    options = parser.parse_args()
    if options.threads:
        os.environ.update(dict.fromkeys(THREAD_LIMITS, str(options.threads)))
    # Others may be computing on the same GPU: take memory as it is needed, not all of it.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    line = {"framework": framework, "version": "", "device": "", "device_name": "", "accuracy": None}
    try:
        accuracy, used = train(load(options.mnist))
        line.update(version=used.version, device=used.device, device_name=used.device_name)
        line["accuracy"] = round(float(accuracy), 4)
        line["problem"], line["remedy"] = judge(framework, accuracy, used, options.expect_device, options.minimum_accuracy)
    except Exception as error:
        traceback.print_exc()
        line["problem"], line["remedy"] = "{}: {}".format(type(error).__name__, error), ""
    line["seconds"] = round(CLOCK() - STARTED, 1)
    print(json.dumps(line))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if line["problem"] else 0)  # the verdict stands: no framework's clean-up at exit may change or delay it
