# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Which kernels are written, removed, and left alone."""

from __future__ import annotations

import json

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _kernels as kernels

TORCH = {"name": "pytorch", "path": "/opt/envs/pytorch/", "title": "PyTorch 2.13"}
OTHERS = json.dumps({"argv": ["R"], "display_name": "R", "language": "R"})


def test_a_kernel_starts_its_environment_with_its_programs_first() -> None:
    spec = json.loads(kernels.plan({}, [TORCH]).write["pytorch"])
    assert spec["argv"] == ["/opt/envs/pytorch/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    assert spec["env"] == {"PATH": "/opt/envs/pytorch/bin:${PATH}", "VIRTUAL_ENV": "/opt/envs/pytorch"}
    assert spec["display_name"] == "PyTorch 2.13"


def test_the_name_stands_in_for_a_missing_title() -> None:
    assert json.loads(kernels.plan({}, [{"name": "jax", "path": "/e", "title": None}]).write["jax"])["display_name"] == "jax"


def test_what_is_right_is_not_written_again() -> None:
    written = kernels.plan({}, [TORCH]).write
    assert kernels.plan(written, [TORCH]) == kernels.Plan({}, [], [])


def test_a_changed_title_is_written() -> None:
    written = kernels.plan({}, [TORCH]).write
    assert list(kernels.plan(written, [{**TORCH, "title": "Torch"}]).write) == ["pytorch"]


def test_only_our_stale_kernels_are_removed() -> None:
    present = {**kernels.plan({}, [TORCH]).write, "ir": OTHERS, "broken": "{", "list": "[]"}
    assert kernels.plan(present, []) == kernels.Plan({}, ["pytorch"], [])


def test_a_kernel_of_somebody_else_is_not_overwritten() -> None:
    assert kernels.plan({"pytorch": OTHERS}, [TORCH]) == kernels.Plan({}, [], ["pytorch"])


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"metadata": null}', '{"metadata": []}'])
def test_what_is_not_ours(text: str) -> None:
    assert not kernels.is_ours(text)
