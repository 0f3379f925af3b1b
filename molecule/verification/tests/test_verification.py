"""An environment on a real node has proven that it trains, as an ordinary user, and says so when it no longer does."""

from __future__ import annotations

import json
import re

import pytest
from testinfra.host import Host

FOLDER = "/opt/trainyard/verification"
PYTHON = "/opt/trainyard/envs/jax/bin/python"
PROOF = f"{PYTHON} -B {FOLDER}/proofs/train_jax.py"

MNIST = """
import gzip, numpy, struct, sys
from pathlib import Path
from sklearn.datasets import load_digits

bunch = load_digits()
images = numpy.kron(bunch.images, numpy.ones((1, 3, 3))) * 255 / 16
images = numpy.pad(images.astype("uint8"), ((0, 0), (2, 2), (2, 2)))  # 28 by 28, as MNIST's are
order = numpy.random.RandomState(0).permutation(len(images))
images, labels = images[order], bunch.target.astype("uint8")[order]
parts = {"x_train": images[:1400], "y_train": labels[:1400], "x_test": images[1400:], "y_test": labels[1400:]}
folder = Path(sys.argv[1])
(folder / "idx").mkdir()
numpy.savez(folder / "mnist.npz", **parts)
names = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte")
for name, array in zip(names, parts.values(), strict=True):
    content = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    (folder / "idx" / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
"""


def as_nobody(host: Host, command: str) -> dict[str, object]:
    """Run a proof by hand as an ordinary user, and return what it printed."""
    done = host.run("cd /tmp && env -i HOME=/tmp PATH=/usr/bin:/bin setpriv --reuid=nobody --regid=nogroup --clear-groups %s", command) if 0 else host.run(
        f"cd /tmp && env -i HOME=/tmp PATH=/usr/bin:/bin setpriv --reuid=nobody --regid=nogroup --clear-groups {command}"
    )
    found: dict[str, object] = json.loads(done.stdout)
    assert (done.rc == 0) is (found["problem"] == "")
    return found
