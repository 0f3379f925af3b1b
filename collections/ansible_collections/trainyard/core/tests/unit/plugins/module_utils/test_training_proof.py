"""What a proof's end means, and when an earlier proof still holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _training_proof as training

PASSED = {
    "framework": "PyTorch",
    "version": "2.13.0+cpu",
    "device": "cpu",
    "device_name": "CPU",
    "accuracy": 0.9733,
    "problem": "",
    "remedy": "",
    "seconds": 5.7,
}
NO_GPU = {
    **PASSED,
    "problem": "a GPU was expected, but this build of PyTorch can use the CPU only",
    "remedy": "Choose the environment's GPU variant, or set its device to cpu.",
}
CHATTER = "I0000 00:00:1795216932.696900   23219 port.cc:153] oneDNN custom operations are on.\n"


@pytest.fixture
def environment(tmp_path: Path) -> training.Environment:
    root = tmp_path / "envs" / "torch"
    package = root / "lib" / "python3.11" / "site-packages" / "torch-2.13.0+cpu.dist-info"
    package.mkdir(parents=True)
    (package / "RECORD").write_text("torch/__init__.py,,\n")
    (root / "pyvenv.cfg").write_text("version_info = 3.11.2\n")
    (root / "bin").mkdir()
    (root / "bin" / "python").write_text("")
    return training.Environment("torch", str(root), "pytorch", "cpu", "cpu")


@pytest.fixture
def demand(tmp_path: Path) -> training.Demand:
    proofs = tmp_path / "proofs"
    proofs.mkdir()
    (proofs / "digits.py").write_text("# common\n")
    (proofs / "train_pytorch.py").write_text("# training\n")
    return training.Demand(str(proofs), 0.95, "", 60)


def end(told: dict[str, Any], returncode: int = 0, stderr: str = CHATTER) -> training.End:
    return training.End(returncode, f"epoch 1\n{json.dumps(told)}\n", stderr)


def test_an_entry_may_leave_out_all_but_name_and_path() -> None:
    option = {"name": "jax", "path": "/opt/envs/jax", "proof": None, "variant": None, "device": None}
    assert training.Environment.from_option(option) == ("jax", "/opt/envs/jax", "jax", "", "cpu")


def test_the_command_can_be_repeated_by_hand(environment: training.Environment, demand: training.Demand) -> None:
    line = training.command(environment._replace(device="gpu"), demand._replace(mnist="/srv/mnist.npz"))
    assert line[0] == f"{environment.path}/bin/python"
    assert line[1:] == [
        f"{demand.proofs}/train_pytorch.py", "--expect-device", "gpu", "--minimum-accuracy", "0.95", "--mnist", "/srv/mnist.npz",
    ]  # fmt: skip
    assert training.limited_command(environment, demand, 2)[:3] == ["timeout", "--kill-after=10", "60"]


def test_a_proof_inherits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "canary")
    assert "canary" not in training.surroundings("/tmp/home", "nobody").values()


@pytest.mark.parametrize(
    ("cores", "proofs", "parallel", "expected"),
    [(1, 5, 0, (1, 1)), (2, 5, 0, (1, 2)), (8, 5, 0, (4, 2)), (64, 5, 0, (5, 4)), (64, 1, 0, (1, 4)), (8, 5, 2, (2, 4)), (2, 5, 9, (5, 1))],
)
def test_cores_are_shared_out(cores: int, proofs: int, parallel: int, expected: tuple[int, int]) -> None:
    assert training.degrees(cores, proofs, parallel) == expected


def test_a_fingerprint_changes_with_all_that_an_outcome_depends_on(
    environment: training.Environment, demand: training.Demand, tmp_path: Path
) -> None:
    driver, mnist = tmp_path / "driver", tmp_path / "mnist.npz"
    mnist.write_text("a")
    seen = [training.fingerprint(environment, demand, driver)]

    def differs(**changed: Any) -> bool:
        of_environment = {key: value for key, value in changed.items() if key in environment._fields}
        of_demand = {key: value for key, value in changed.items() if key in demand._fields}
        seen.append(training.fingerprint(environment._replace(**of_environment), demand._replace(**of_demand), driver))
        return seen[-1] not in seen[:-1]

    assert not differs(timeout=999)
    assert differs(device="gpu")
    assert differs(minimum_accuracy=0.99)
    assert differs(mnist=str(mnist))
    mnist.write_text("ab")
    assert differs(mnist=str(mnist))
    package = next(Path(environment.path).glob("lib/*/site-packages/*"))
    (package / "RECORD").write_text("torch/__init__.py,,\ntorch/new.py,,\n")
    assert differs()
    package.rename(package.with_name("torch-2.13.1+cpu.dist-info"))
    assert differs()
    (package.parent / "stray-1.0.dist-info").mkdir()
    assert differs()
    Path(environment.path, "pyvenv.cfg").write_text("version_info = 3.11.7\n")
    assert differs()
    Path(demand.proofs, "digits.py").write_text("# another common part\n")
    assert differs()
    driver.write_text("NVRM version: 535.261.03")
    assert differs()
    assert not differs()


def test_a_passed_proof_is_recalled_as_long_as_the_fingerprint_is_the_same(
    environment: training.Environment, demand: training.Demand
) -> None:
    proof = training.verdict(environment, demand, end(PASSED))
    text = training.remember(proof, "abc")
    assert training.recall(text, "abc") == {**proof, "cached": True}
    assert training.recall(text, "abd") is None


@pytest.mark.parametrize("text", [None, "", "{", "[]", "null", '{"fingerprint": "abc"}', '{"fingerprint": "abc", "proof": null}'])
def test_a_damaged_state_file_is_no_proof(text: str | None) -> None:
    assert training.recall(text, "abc") is None


def test_a_failed_proof_is_not_recalled(environment: training.Environment, demand: training.Demand) -> None:
    assert training.recall(training.remember(training.verdict(environment, demand, end(NO_GPU, 1)), "abc"), "abc") is None


def test_a_training_on_the_right_device_is_a_proof(environment: training.Environment, demand: training.Demand) -> None:
    assert training.verdict(environment, demand, end(PASSED)) == {
        "environment": "torch",
        "framework": "PyTorch",
        "variant": "cpu",
        "version": "2.13.0+cpu",
        "device": "cpu",
        "device_name": "CPU",
        "expected_device": "cpu",
        "accuracy": 0.9733,
        "seconds": 5.7,
        "passed": True,
        "problem": "",
        "remedy": "",
        "ran_at": "",
        "cached": False,
    }


@pytest.mark.parametrize(
    ("ended", "problem", "remedy"),
    [
        (end(NO_GPU, 1), "CPU only", "GPU variant"),
        (training.End(124, "", ""), "not done within 60 seconds", "verification_timeout"),
        (training.End(137, "", ""), "not done within 60 seconds", "verification_timeout"),
        (training.End(-4, "", ""), "SIGILL", "AVX"),
        (training.End(-9, "", ""), "SIGKILL", "ran out of memory"),
        (training.End(-11, "", ""), "SIGSEGV", "by hand"),
        (training.End(1, "", "Traceback\nModuleNotFoundError: No module named 'numpy'\n\n"), "No module named 'numpy'", "repairs it"),
        (
            training.End(1, "", "ImportError: libgomp.so.1: cannot open shared object file: No such file or directory"),
            "libgomp.so.1",
            "system library",
        ),
        (training.End(126, "", "timeout: failed to run command '/x/bin/python': Permission denied"), "Permission denied", "0755"),
        (
            end({**PASSED, "problem": "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"}, 1),
            "CUDA out of memory",
            "nvidia-smi",
        ),
        (training.End(3, "no result", ""), "status 3 and no result: it said nothing", "by hand on the node: "),
        # A script that says yes when its own numbers say no is not believed.
        (end({**PASSED, "device": "gpu"}), "device 'gpu'", "by hand"),
        (end({**PASSED, "accuracy": 0.93}), "accuracy 0.93", "by hand"),
        (end({**PASSED, "accuracy": None}), "accuracy None", "by hand"),
        (end({**PASSED, "accuracy": float("nan")}), "accuracy nan", "by hand"),
        (end(PASSED, 1), "status 1", "by hand"),
    ],
)
def test_everything_else_is_a_failure_with_a_reason_and_a_remedy(
    environment: training.Environment, demand: training.Demand, ended: training.End, problem: str, remedy: str
) -> None:
    result = training.verdict(environment, demand, ended)
    assert result["passed"] is False
    assert problem in result["problem"]
    assert remedy in result["remedy"]


def test_what_stands_in_the_way_is_said_before_anything_runs(environment: training.Environment, demand: training.Demand) -> None:
    assert training.obstacle(environment, demand) is None
    unknown = training.obstacle(environment._replace(proof="caffe"), demand)
    assert unknown == (f"there is no proof named 'caffe' in {demand.proofs}", "Name one of: pytorch.")
    missing = training.obstacle(environment._replace(path="/nonexistent"), demand)
    assert missing is not None
    assert "/nonexistent/bin/python does not exist" in missing[0]


def test_not_run_is_neither_passed_nor_failed(environment: training.Environment) -> None:
    result = training.unproven(environment)
    assert (result["passed"], result["problem"]) == (None, "not run (check mode)")
    assert training.failure_message([result]) == ""


def test_the_message_names_each_failed_environment(environment: training.Environment, demand: training.Demand) -> None:
    good = training.verdict(environment, demand, end(PASSED))
    bad = training.verdict(environment._replace(name="other"), demand, end(NO_GPU, 1))
    lines = training.failure_message([good, bad]).splitlines()
    assert lines[0] == "1 of 2 environments are not proven to train."
    assert lines[1:] == [f"other: {NO_GPU['problem']}. {NO_GPU['remedy']}"]


WISHES = {
    "environments": [{"name": "torch", "path": "/x", "proof": "pytorch"}, {"name": "jax", "path": "/y"}],
    "minimum_accuracy": 0.95,
    "timeout": 600,
    "user": "nobody",
    "mnist": "",
    "path": "/opt/trainyard/proofs",
}
SCRIPTS = ["/r/files/proofs/digits.py", "/r/files/proofs/train_jax.py", "/r/files/proofs/train_pytorch.py"]


@pytest.mark.parametrize("mnist", ["", "/srv/mnist.npz", "https://mirror.example.org/mnist/", "http://mirror.example.org/mnist.npz"])
def test_sound_wishes_have_no_problem(mnist: str) -> None:
    assert training.problems({**WISHES, "mnist": mnist}, SCRIPTS) == []
    assert training.problems({**WISHES, "environments": []}, SCRIPTS) == []
    assert training.problems({**WISHES, "minimum_accuracy": "0.9", "timeout": "60"}, SCRIPTS) == []


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"environments": [{"name": "torch"}]}, ["verification_environments", "no proof torch", "one of jax, pytorch."]),
        ({"environments": [{"name": "../jax", "proof": "jax"}]}, ["verification_environments", "'../jax'"]),
        ({"environments": [{"name": "jax"}, {"name": "jax"}]}, ["verification_environments", "jax is there twice"]),
        ({"minimum_accuracy": 95}, ["verification_minimum_accuracy", "95", "0.95"]),
        ({"minimum_accuracy": 0}, ["verification_minimum_accuracy"]),
        ({"timeout": 0}, ["verification_timeout", "600"]),
        ({"user": "root"}, ["verification_user", "nobody"]),
        ({"mnist": "mnist.npz"}, ["verification_mnist", "'mnist.npz'", "begins with /"]),
        ({"mnist": "ftp://mirror"}, ["verification_mnist", "https://"]),
        ({"path": "/opt"}, ["verification_path", "'/opt'"]),
        ({"path": "/"}, ["verification_path"]),
    ],
)
def test_a_wish_that_cannot_be_is_named_with_what_would_be_right(wish: dict[str, Any], says: list[str]) -> None:
    (problem,) = training.problems({**WISHES, **wish}, SCRIPTS)
    assert [words for words in says if words not in problem] == []
