# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Which kernels are written, removed, and left alone."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _kernels as kernels

TORCH = {"name": "pytorch", "path": "/opt/envs/pytorch/", "title": "PyTorch 2.13"}
OTHERS = json.dumps({"argv": ["R"], "display_name": "R", "language": "R"})


def spec(environment: dict[str, Any]) -> dict[str, Any]:
    """Return the kernel.json that is planned for an environment."""
    written = kernels.plan({}, [environment]).write[environment["name"]]
    return json.loads(written["kernel.json"])  # type: ignore[no-any-return]


def test_a_kernel_starts_its_environment_with_its_programs_first() -> None:
    found = spec(TORCH)
    assert found["argv"] == ["/opt/envs/pytorch/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    assert found["env"] == {"PATH": "/opt/envs/pytorch/bin:${PATH}", "VIRTUAL_ENV": "/opt/envs/pytorch"}
    assert found["display_name"] == "PyTorch 2.13"


def test_the_name_stands_in_for_a_missing_title() -> None:
    assert spec({"name": "jax", "path": "/e", "title": None})["display_name"] == "jax"


def test_what_is_right_is_not_written_again() -> None:
    written = kernels.plan({}, [TORCH]).write
    assert kernels.plan(written, [TORCH]) == kernels.Plan({}, [], [])


def test_a_changed_title_is_written() -> None:
    written = kernels.plan({}, [TORCH]).write
    changed = kernels.plan(written, [{**TORCH, "title": "PyTorch 2.14"}]).write
    assert {name: list(files) for name, files in changed.items()} == {"pytorch": ["kernel.json"]}, "the logo is the same"


def test_a_kernel_of_an_older_version_gets_its_logo() -> None:
    older = {"pytorch": {"kernel.json": kernels.plan({}, [TORCH]).write["pytorch"]["kernel.json"]}}
    assert list(kernels.plan(older, [TORCH]).write["pytorch"]) == ["logo-svg.svg"]


@pytest.mark.parametrize(
    ("title", "letters"),
    [
        ("PyTorch 2.13 (CPU)", "PT"),
        ("TensorFlow 2.21 (GPU)", "TF"),
        ("Keras", "K"),
        ("JAX", "JAX"),
        ("paper", "P"),
        ("", "N"),
        ("日本", "*"),
        ('<&>"x', "X"),
    ],
)
def test_a_logo_shows_the_capitals_of_the_title(title: str, letters: str) -> None:
    root = ElementTree.fromstring(kernels.logo_text("name", title))
    assert [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")] == [letters]


def test_two_environments_of_one_framework_have_different_logos() -> None:
    assert kernels.logo_text("pytorch", "PyTorch") != kernels.logo_text("paper", "PyTorch")


def test_only_our_stale_kernels_are_removed() -> None:
    others = {"ir": {"kernel.json": OTHERS}, "broken": {"kernel.json": "{"}, "list": {"kernel.json": "[]"}}
    assert kernels.plan({**kernels.plan({}, [TORCH]).write, **others}, []) == kernels.Plan({}, ["pytorch"], [])


def test_a_kernel_of_somebody_else_is_not_overwritten() -> None:
    assert kernels.plan({"pytorch": {"kernel.json": OTHERS}}, [TORCH]) == kernels.Plan({}, [], ["pytorch"])


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"metadata": null}', '{"metadata": []}'])
def test_what_is_not_ours(text: str) -> None:
    assert not kernels.is_ours(text)
