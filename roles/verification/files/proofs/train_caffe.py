# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Proof that Caffe trains: its own program does, on a solver's description, and its Python module tests what came of that."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import digits

NET = """
name: "digits"
layer {{ name: "data" type: "HDF5Data" top: "data" top: "label" include {{ phase: TRAIN }}
  hdf5_data_param {{ source: "train.txt" batch_size: {batch} shuffle: true }} }}
layer {{ name: "data" type: "HDF5Data" top: "data" top: "label" include {{ phase: TEST }}
  hdf5_data_param {{ source: "test.txt" batch_size: 1 }} }}
layer {{ name: "convolution" type: "Convolution" bottom: "data" top: "convolution"
  convolution_param {{ num_output: {filters} kernel_size: 3 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "convolution" top: "convolution" }}
layer {{ name: "pooling" type: "Pooling" bottom: "convolution" top: "pooling" pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }} }}
layer {{ name: "hidden" type: "InnerProduct" bottom: "pooling" top: "hidden"
  inner_product_param {{ num_output: {hidden} weight_filler {{ type: "msra" }} }} }}
layer {{ name: "hidden_relu" type: "ReLU" bottom: "hidden" top: "hidden" }}
layer {{ name: "scores" type: "InnerProduct" bottom: "hidden" top: "scores"
  inner_product_param {{ num_output: {classes} weight_filler {{ type: "msra" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }}
"""
SOLVER = """
net: "net.prototxt"
base_lr: 0.03
momentum: 0.9
lr_policy: "fixed"
max_iter: {steps}
display: {steps}
snapshot_prefix: "trained"
random_seed: 1
solver_mode: {mode}
"""


def train(data):
    import caffe
    import h5py
    import numpy

    def channels_first(images):
        return images.transpose(0, 3, 1, 2)

    gpu = has_gpu()
    steps = data.epochs * (len(data.train_images) // digits.BATCH)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, images, labels in (
            ("train", data.train_images, data.train_labels),
            ("test", data.test_images[:1], data.test_labels[:1]),  # Caffe wants a phase to test in; the images to judge by go in below
        ):
            with h5py.File(folder / (part + ".h5"), "w") as file:
                file["data"], file["label"] = channels_first(images), labels.astype("float32")
            (folder / (part + ".txt")).write_text(part + ".h5\n")
        words = {"batch": digits.BATCH, "filters": digits.FILTERS, "hidden": digits.HIDDEN, "classes": digits.CLASSES}
        (folder / "net.prototxt").write_text(NET.format(**words))
        (folder / "solver.prototxt").write_text(SOLVER.format(steps=steps, mode="GPU" if gpu else "CPU"))
        done = run_caffe("train", "--solver=solver.prototxt", *(["--gpu=0"] if gpu else []), cwd=name)
        if done.returncode:
            raise RuntimeError("caffe train failed: " + " ".join(done.stdout.split())[-600:])
        if gpu:
            caffe.set_mode_gpu()
        else:
            caffe.set_mode_cpu()
        os.chdir(name)
        net = caffe.Net("net.prototxt", caffe.TEST, weights=f"trained_iter_{steps}.caffemodel")
        scores = []
        for start in range(0, len(data.test_images), digits.BATCH):
            images = channels_first(data.test_images[start : start + digits.BATCH])
            net.blobs["data"].reshape(*images.shape)
            net.blobs["data"].data[...] = images
            scores += list(net.forward(start="convolution", end="scores")["scores"].argmax(axis=1))
        os.chdir("/")
    accuracy = (numpy.array(scores) == data.test_labels).mean()
    device = "GPU 0" if gpu else "CPU"
    return accuracy, digits.Used(caffe.__version__, "gpu" if gpu else "cpu", device, built_for_gpu())


def run_caffe(*words, cwd=None):
    """Run the program that came with this Python; the PATH may have another. Python 3.6, which conda's Caffe has, knows no `text=True`."""
    program = str(Path(sys.executable).with_name("caffe"))
    return subprocess.run([program, *words], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", check=False)


def built_for_gpu():
    """Say whether this build of Caffe could use a GPU: one that could not says so when it is asked for its devices."""
    return "CPU-only" not in run_caffe("device_query", "--gpu=0").stdout


def has_gpu():
    return bool(list(Path("/dev").glob("nvidia[0-9]*"))) and built_for_gpu()


if __name__ == "__main__":
    digits.prove("Caffe", train)
