"""A script that trained alone is known by what its frameworks left behind; where that is not sure, nothing is claimed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from trainyard_training import together


def hook(module: str) -> Any:
    found = lambda *_words: None  # noqa: E731
    found.__module__ = module
    return found


PRISTINE = {"sys": SimpleNamespace(excepthook=sys.__excepthook__, __excepthook__=sys.__excepthook__)}
TORCHS = {"sys": SimpleNamespace(excepthook=hook("torch.distributed.distributed_c10d"), __excepthook__=sys.__excepthook__)}
FOREIGN = {"sys": SimpleNamespace(excepthook=hook("wandb"), __excepthook__=sys.__excepthook__)}


def torch(version: str = "2.13.0+cpu", initialized: bool = False) -> dict[str, Any]:
    distributed = SimpleNamespace(is_available=lambda: True, is_initialized=lambda: initialized)
    return {"torch": SimpleNamespace(__version__=version), "torch.distributed": distributed}


def tensorflow(**context: object) -> dict[str, Any]:
    whole = {"_server_def": None, "_collective_ops_server_def": None, **context}
    module = SimpleNamespace(_context=SimpleNamespace(**whole) if context != {"none": True} else None)
    return {"tensorflow": SimpleNamespace(), "tensorflow.python.eager.context": module}


def jax(address: str | None) -> dict[str, Any]:
    return {"jax": SimpleNamespace(), "jax._src.distributed": SimpleNamespace(global_state=SimpleNamespace(coordinator_address=address))}


def paddle(context: object) -> dict[str, Any]:
    return {"paddle": SimpleNamespace(), "paddle.distributed.parallel_helper": SimpleNamespace(**{"__parallel_ctx__clz__": context})}


@pytest.mark.parametrize(
    "modules, alone",
    [
        ({}, False),  # no framework: nobody knows
        (torch(), True),
        (torch() | TORCHS, False),  # destroyed since
        (torch() | FOREIGN, False),  # somebody else's hook may hide torch's
        (torch(initialized=True), False),
        (torch("1.13.1"), False),  # leaves nothing behind
        (torch("unknown"), False),
        ({"torch": SimpleNamespace(__version__="2.13.0")}, True),
        (tensorflow(), True),
        (tensorflow(none=True), True),
        (tensorflow(_server_def=1), False),
        (tensorflow(_collective_ops_server_def=1), False),
        ({"tensorflow": SimpleNamespace()}, False),
        (jax(None), True),
        (jax("10.0.0.1:1001"), False),
        ({"jax": SimpleNamespace()}, False),
        (paddle(None), True),
        (paddle(1), False),
        ({"paddle": SimpleNamespace()}, False),
        (tensorflow() | jax(None), True),
        (tensorflow(_server_def=1) | jax(None), False),
        (torch() | {"horovod": SimpleNamespace()}, False),
        (torch() | {"torch.distributed.rpc.api": SimpleNamespace(_ALL_WORKER_NAMES={"a", "b"})}, False),
        (torch() | {"torch.distributed.rpc.api": SimpleNamespace(_ALL_WORKER_NAMES=set())}, True),
    ],
)
def test_alone_is_who_surely_made_no_group(modules: dict[str, ModuleType], alone: bool) -> None:
    assert together.taken_alone({**PRISTINE, **modules}) is alone


@pytest.mark.parametrize(
    "size, listed, context, expected",
    [("2", "", "None", ["1"]), ("1", "", "None", []), ("2", "train.list", "None", []), ("2", "", "1", [])],
)
def test_a_trainer_tells_its_node(tmp_path: Path, size: str, listed: str, context: str, expected: list[str]) -> None:
    (tmp_path / "paddle" / "distributed").mkdir(parents=True)
    (tmp_path / "paddle" / "__init__.py").touch()
    (tmp_path / "paddle" / "distributed" / "__init__.py").touch()
    (tmp_path / "paddle" / "distributed" / "parallel_helper.py").write_text(f"__parallel_ctx__clz__ = {context}")
    (tmp_path / "train.py").write_text("import os, paddle.distributed.parallel_helper; os.chdir('/')")
    (tmp_path / "train.list").touch()
    (tmp_path / "alone").mkdir()
    environment = {"PADDLE_TRAINER_ID": "1", "PADDLE_TRAINERS_NUM": size, "TRAINYARD_ALONE": str(tmp_path / "alone")}
    words = [sys.executable, str(Path(together.__file__).with_name("trainer.py")), "train.py"]
    subprocess.run(words, cwd=tmp_path, env=environment | ({"TRAINYARD_TRAIN_LIST": listed} if listed else {}), check=True)
    assert [path.name for path in (tmp_path / "alone").iterdir()] == expected


def test_it_runs_by_path_with_an_old_python() -> None:
    words = [sys.executable, "-I", together.__file__]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout == ""
