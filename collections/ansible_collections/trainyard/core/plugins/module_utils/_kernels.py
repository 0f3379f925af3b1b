# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Jupyter kernels: one for each environment, ours told from others'."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

MARK = "trainyard"  # key in a kernel's metadata by which our kernels are known again
SPEC, LOGO = "kernel.json", "logo-svg.svg"
FILES = (LOGO, SPEC)  # the order of writing and removing: the mark is in the kernel.json, and nobody's logo is left without it


class Plan(NamedTuple):
    """What is to be done to the folder of kernels.

    Attributes:
        write: kernel -> the new texts of its files, those that differ.
        remove: kernels of ours that are no longer requested.
        foreign: requested names that a kernel of somebody else has already.
    """

    write: dict[str, dict[str, str]]
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


def logo_text(name: str, title: str) -> str:
    """Return a logo (SVG): the title's capitals on a colour that depends on the name, so that two kernels look different."""
    product = title.split(maxsplit=1)[0] if title.strip() else name
    letters = "".join(letter for letter in product if letter.isascii() and letter.isupper())[:3]
    letters = letters or next((letter.upper() for letter in product if letter.isascii() and letter.isalnum()), "*")
    hue = int(hashlib.sha256(name.encode()).hexdigest()[:4], 16) % 360
    size = {1: 40, 2: 32}.get(len(letters), 22)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">'
        f'<rect width="64" height="64" rx="10" fill="hsl({hue}, 55%, 32%)"/>'
        f'<text x="32" y="33" fill="#fff" font-family="sans-serif" font-weight="bold" font-size="{size}" '
        f'text-anchor="middle" dominant-baseline="central">{letters}</text></svg>\n'
    )


def is_ours(text: str) -> bool:
    """Return whether a kernel.json carries our mark; a file that is no JSON is somebody else's."""
    try:
        metadata = json.loads(text).get("metadata")
    except (ValueError, AttributeError):
        return False
    return isinstance(metadata, dict) and MARK in metadata


def plan(present: Mapping[str, Mapping[str, str]], environments: Iterable[Mapping[str, Any]]) -> Plan:
    """Compare the kernels that are there (name -> file -> text) with the environments that are to have one."""
    requested = {
        str(item["name"]): {
            LOGO: logo_text(str(item["name"]), str(item.get("title") or "")),
            SPEC: spec_text(str(item["name"]), str(item["path"]).rstrip("/"), str(item.get("title") or "")),
        }
        for item in environments
    }
    foreign = sorted(name for name in requested if SPEC in present.get(name, {}) and not is_ours(present[name][SPEC]))
    changed = {
        name: {file: text for file, text in files.items() if present.get(name, {}).get(file) != text}
        for name, files in requested.items()
        if name not in foreign
    }
    return Plan(
        write={name: files for name, files in changed.items() if files},
        remove=sorted(name for name, files in present.items() if name not in requested and is_ours(files.get(SPEC, ""))),
        foreign=foreign,
    )
