# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Proofs that a CUDA toolkit compiles, links and computes: what a program's end means, and when an earlier proof still holds.

A program ends with 0 when the GPU computed what it should, and with 3 when it found no GPU to compute on. Its last line is a JSON object
that says what it saw; with 3, ``error`` is CUDA's name for why. Without a GPU only compiling, linking and loading are proven.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

NO_GPU = 3
WITHOUT_GPU = ("cudaErrorNoDevice", "cudaErrorInsufficientDriver")
LINKED = {"cuda": [], "cudnn": ["-lcudnn"], "nccl": ["-lnccl"]}


@dataclass(frozen=True)
class End:
    """How a command ended: its exit status, its output, and what it said otherwise."""

    status: int
    output: str
    errors: str = ""

    def words(self) -> str:
        """Return the end of what it said, on one line."""
        return " ".join(f"{self.output} {self.errors}".split())[-500:]


@dataclass(frozen=True)
class Proof:
    """What became of a program.

    Attributes:
        program: cuda, cudnn or nccl.
        ran: whether a GPU computed; else the program was compiled, linked and loaded, and found no GPU.
        seen: what it said of the GPU and of the library's version.
        problem: what is wrong, '' when nothing is.
    """

    program: str
    ran: bool
    seen: Mapping[str, Any]
    problem: str = ""


def compile_words(nvcc: str, program: str, source: str, target: str) -> list[str]:
    """Return the command that makes a program."""
    return [nvcc, "-O1", "-o", target, source, *LINKED[program]]


def lacking(ldd: str) -> list[str]:
    """Return the libraries that a program would not find, from what ldd printed."""
    return [line.split()[0] for line in ldd.splitlines() if "not found" in line]


def judge(program: str, toolkit: str, end: End, *, gpu: bool) -> Proof:
    """Return what a program's end means on a node whose driver has a GPU or has none."""
    seen: dict[str, Any] = {}
    lines = end.output.strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else {}
        seen = found if isinstance(found, dict) else {}
    except ValueError:
        pass
    if end.status == 0 and seen:
        return Proof(program, True, seen)
    error = str(seen.get("error", ""))
    if end.status == NO_GPU and error in WITHOUT_GPU and not gpu:
        return Proof(program, False, seen)
    if end.status == NO_GPU and error == "cudaErrorInsufficientDriver":
        return Proof(
            program, False, seen, f"CUDA {toolkit}: the node's driver is too old for it. Choose a newer driver or an older toolkit."
        )
    return Proof(
        program, False, seen, f"CUDA {toolkit}: the program {program} was built and failed with status {end.status}: {end.words()}"
    )


def digest(sources: Mapping[str, str], marker: str, driver: str) -> str:
    """Return what a proof is about: the programs, the toolkit, and the driver."""
    return hashlib.sha256(json.dumps([sorted(sources.items()), marker, driver]).encode()).hexdigest()


def record(key: str, proofs: list[Proof]) -> str:
    """Return the text in which proofs are kept."""
    return json.dumps({"of": key, "proofs": [asdict(proof) for proof in proofs]}, indent=1, sort_keys=True) + "\n"


def holds(text: str, key: str) -> list[dict[str, Any]]:
    """Return the proofs in a record if they are still about the same, none otherwise."""
    try:
        found = json.loads(text)
        return list(found["proofs"]) if found["of"] == key else []
    except (ValueError, KeyError, TypeError):
        return []
