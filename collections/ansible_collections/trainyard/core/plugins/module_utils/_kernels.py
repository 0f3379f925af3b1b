# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Jupyter kernels: one for each environment, ours told from others'."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

MARK = "trainyard"  # key in a kernel's metadata by which our kernels are known again


class Plan(NamedTuple):
    """What is to be done to the folder of kernels.

    Attributes:
        write: kernel -> new text of its kernel.json.
        remove: kernels of ours that nobody wants any more.
        foreign: wanted names that a kernel of somebody else has already.
    """

    write: dict[str, str]
    remove: list[str]
    foreign: list[str]


def spec_text(name: str, path: str, title: str) -> str:
    """Return the kernel.json that starts the interpreter of the environment at ``path``, with the environment's programs first."""
    spec = {
        "argv": [f"{path}/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": title or name,
        "language": "python",
        "env": {"PATH": f"{path}/bin:${{PATH}}", "VIRTUAL_ENV": path},
        "metadata": {"debugger": True, MARK: name},
    }
    return json.dumps(spec, indent=2, ensure_ascii=False) + "\n"


def is_ours(text: str) -> bool:
    """Return whether a kernel.json carries our mark; a file that is no JSON is somebody else's."""
    try:
        metadata = json.loads(text).get("metadata")
    except (ValueError, AttributeError):
        return False
    return isinstance(metadata, dict) and MARK in metadata


def plan(present: Mapping[str, str], environments: Iterable[Mapping[str, Any]]) -> Plan:
    """Compare the kernels that are there (name -> text of kernel.json) with the environments that are to have one."""
    wanted = {
        str(item["name"]): spec_text(str(item["name"]), str(item["path"]).rstrip("/"), str(item.get("title") or ""))
        for item in environments
    }
    foreign = sorted(name for name in wanted if name in present and not is_ours(present[name]))
    return Plan(
        write={name: text for name, text in wanted.items() if present.get(name) != text and name not in foreign},
        remove=sorted(name for name, text in present.items() if name not in wanted and is_ours(text)),
        foreign=foreign,
    )
