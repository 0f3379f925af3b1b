"""What the proofs of training share: the verdict on a device and an accuracy, and the line that is printed."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from trainyard.paths import REPOSITORY

PROOFS = REPOSITORY / "roles" / "verification" / "files" / "proofs"


@pytest.fixture(scope="module")
def digits() -> ModuleType:
    spec = importlib.util.spec_from_file_location("digits", PROOFS / "digits.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["digits.py", "train_caffe.py"])
def test_the_proof_of_caffe_is_for_the_python_that_conda_has_it_for(name: str) -> None:
    """Nothing with that Python is in reach here, so what came after it is looked for."""
    tree = ast.parse((PROOFS / name).read_text(), feature_version=(3, 6))
    features = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "__future__" for alias in node.names
    }
    words = {word.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for word in node.keywords}
    assert not features & {"annotations"}
    assert not words & {"text", "capture_output", "missing_ok", "dirs_exist_ok"}


@pytest.mark.parametrize("expected", ["cpu", "gpu"])
def test_an_expected_device_that_was_used_is_a_proof(digits: ModuleType, expected: str) -> None:
    assert digits.judge("PyTorch", 0.97, digits.Used("2.13.0", expected, "name", True), expected, 0.95) == ("", "")


def test_nothing_expected_is_satisfied_by_either(digits: ModuleType) -> None:
    assert digits.judge("PyTorch", 0.97, digits.Used("2.13.0", "gpu", "name", True), None, 0.95) == ("", "")


def test_a_gpu_that_nobody_expected_is_a_failure(digits: ModuleType) -> None:
    problem, remedy = digits.judge("PyTorch", 0.97, digits.Used("2.13.0", "gpu", "NVIDIA H200 (cuda:0)", True), "cpu", 0.95)
    assert problem == "the CPU was expected, but PyTorch trained on NVIDIA H200 (cuda:0)"
    assert remedy == "Set the environment's device to gpu."


@pytest.mark.parametrize("accuracy", [0.949, 0.1, float("nan")])
def test_too_little_learnt_is_a_failure(digits: ModuleType, accuracy: float) -> None:
    problem, _ = digits.judge("PyTorch", accuracy, digits.Used("2.13.0", "cpu", "CPU", False), "cpu", 0.95)
    assert problem.endswith("less than 0.95")


def test_a_gpu_that_was_not_used_has_a_reason(digits: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "this build of JAX can use the CPU only" in digits.no_gpu("JAX", False, tmp_path)[0]
    assert f"no CUDA device is visible to JAX: the node has no {tmp_path}/nvidia0" in digits.no_gpu("JAX", True, tmp_path)[0]
    (tmp_path / "nvidia0").touch()
    problem, remedy = digits.no_gpu("JAX", True, tmp_path)
    assert f"{tmp_path}/nvidia0 exists, but JAX could not use it" in problem
    assert "nvidia-smi" in remedy
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES= hides it from JAX" in digits.no_gpu("JAX", True, tmp_path)[0]


@pytest.mark.parametrize("script", sorted(path.name for path in PROOFS.glob("train_*.py")))
def test_a_python_without_the_framework_still_gives_a_verdict(script: str) -> None:
    # This test's own Python has none of them, nor NumPy.
    done = subprocess.run([sys.executable, "-B", PROOFS / script, "--expect-device", "cpu"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    line = json.loads(done.stdout)
    assert line["problem"].startswith("ModuleNotFoundError: No module named")
    assert line["accuracy"] is None
