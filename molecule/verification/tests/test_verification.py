"""An environment on a real node has proven that it trains, as an ordinary user, and does so again by hand."""

from __future__ import annotations

import json
from typing import Any

FOLDER = "/opt/trainyard/proofs"
PYTHON = "/opt/trainyard/envs/jax/bin/python"

# The digits that scikit-learn brings, in the shape and in both of the formats that MNIST comes in.
MNIST = """
import digits, gzip, json, numpy, struct, tempfile
from pathlib import Path
from sklearn.datasets import load_digits

bunch = load_digits()
images = numpy.kron(bunch.images, numpy.ones((1, 3, 3))) * 255 / 16
images = numpy.pad(images.astype("uint8"), ((0, 0), (2, 2), (2, 2)))
order = numpy.random.RandomState(0).permutation(len(images))
images, labels = images[order], bunch.target.astype("uint8")[order]
parts = {"x_train": images[:1400], "y_train": labels[:1400], "x_test": images[1400:], "y_test": labels[1400:]}
folder = Path(tempfile.mkdtemp())
numpy.savez(folder / "mnist.npz", **parts)
names = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte")
for name, array in zip(names, parts.values()):
    content = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
one, other = digits.load(str(folder / "mnist.npz")), digits.load(str(folder))
same = all(numpy.array_equal(one[i], other[i]) for i in range(4))
print(json.dumps({"shape": one.train_images.shape, "brightest": float(one.train_images.max()), "labels": str(one.train_labels.dtype),
                  "epochs": one.epochs, "same": same}))
"""


def as_nobody(host: Any, words: str) -> Any:
    """Run a command as an ordinary user who has nothing."""
    return host.run(f"cd / && env -i PATH=/usr/bin:/bin setpriv --reuid=nobody --regid=nogroup --clear-groups {words}")


def proof(host: Any, words: str) -> tuple[int, dict[str, Any]]:
    """Run the proof by hand; return its exit status and what it printed."""
    done = as_nobody(host, f"{PYTHON} -B {FOLDER}/scripts/train_jax.py {words}")
    line: dict[str, Any] = json.loads(done.stdout)
    return done.rc, line


def test_the_environment_is_proven(host: Any) -> None:
    record = json.loads(host.file(f"{FOLDER}/results/jax.json").content_string)["proof"]
    assert record["passed"] is True
    assert (record["framework"], record["device"], record["expected_device"], record["variant"]) == ("JAX", "cpu", "cpu", "cpu")
    assert record["version"] == host.check_output(f"{PYTHON} -c 'import jax; print(jax.__version__)'")
    assert record["accuracy"] >= 0.95
    assert record["seconds"] > 0


def test_nobody_but_root_can_write_a_proof(host: Any) -> None:
    for path in (FOLDER, f"{FOLDER}/scripts", f"{FOLDER}/scripts/digits.py", f"{FOLDER}/results", f"{FOLDER}/results/jax.json"):
        assert host.file(path).user == "root"
        assert as_nobody(host, f"test -r {path}").rc == 0
        assert as_nobody(host, f"test -w {path}").rc == 1


def test_nothing_is_left_behind(host: Any) -> None:
    assert host.check_output(f"ls -A {FOLDER}/results").split() == [".lock", "jax.json"]
    assert host.check_output(f"find {FOLDER} /opt/trainyard/envs/jax -user nobody") == ""
    assert host.run("pgrep -u nobody").rc == 1


def test_any_user_can_repeat_it_by_hand(host: Any) -> None:
    status, line = proof(host, "--expect-device cpu")
    assert (status, line["problem"]) == (0, "")
    assert line["accuracy"] >= 0.95


def test_an_expected_gpu_that_is_not_used_is_a_failure_with_a_reason(host: Any) -> None:
    status, line = proof(host, "--expect-device gpu")
    assert status == 1
    assert line["problem"] == "a GPU was expected, but this build of JAX can use the CPU only"
    assert "GPU variant" in line["remedy"]
    assert line["device"] == "cpu"


def test_mnist_is_read_in_both_of_its_formats(host: Any) -> None:
    done = host.run(f"cd {FOLDER}/scripts && {PYTHON} -B -c %s", MNIST)
    assert done.rc == 0, done.stderr
    assert json.loads(done.stdout) == {"shape": [1400, 28, 28, 1], "brightest": 1.0, "labels": "int64", "epochs": 21, "same": True}
