"""What the end of a CUDA program means, and when a proof still holds.

The programs' words are those of roles/cuda/files/proofs; what was seen without a GPU was captured on a node, what a GPU brings is made up.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _cuda_proof as core

PROGRAMS = Path(__file__).parents[8] / "roles" / "cuda" / "files" / "proofs"


def test_a_gpu_that_computed_is_a_proof() -> None:
    proof = core.judge("cuda", "13.0", core.End(0, '{"gpu": "NVIDIA A100", "cuda": 13000}\n'), gpu=True)
    assert proof == core.Proof("cuda", True, {"gpu": "NVIDIA A100", "cuda": 13000})


@pytest.mark.parametrize("error", ["cudaErrorNoDevice", "cudaErrorInsufficientDriver"])
def test_without_a_gpu_loading_is_all_that_is_proven(error: str) -> None:
    proof = core.judge("nccl", "13.0", core.End(3, f'{{"error": "{error}", "nccl": 23203}}\n'), gpu=False)
    assert (proof.ran, proof.problem) == (False, "")
    assert proof.seen == {"error": error, "nccl": 23203}


@pytest.mark.parametrize(
    "end, gpu, words",
    [
        (core.End(3, '{"error": "cudaErrorInsufficientDriver"}'), True, "CUDA 13.0: the node's driver is too old for it."),
        (core.End(3, '{"error": "cudaErrorNoDevice"}'), True, "the program cuda was built and failed with status 3"),
        (core.End(3, '{"error": "cudaErrorSystemNotReady"}'), False, 'failed with status 3: {"error": "cudaErrorSystemNotReady"}'),
        (core.End(3, ""), False, "failed with status 3"),
        (core.End(1, "element 7 is 0.000000\n"), True, "failed with status 1: element 7 is 0.000000"),
        (core.End(-11, "", ""), True, "failed with status -11"),
        (core.End(0, ""), True, "failed with status 0"),
        (core.End(0, "[]"), True, "failed with status 0"),
        (core.End(124, "", "it took longer than 300 seconds"), True, "it took longer than 300 seconds"),
    ],
)
def test_everything_else_is_a_problem_in_words(end: core.End, gpu: bool, words: str) -> None:
    proof = core.judge("cuda", "13.0", end, gpu=gpu)
    assert not proof.ran
    assert words in proof.problem


def test_libraries_that_the_loader_does_not_find_are_named() -> None:
    printed = "\tlibcudnn.so.9 => not found\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1)\n\tlibnccl.so.2 => not found\n"
    assert core.lacking(printed) == ["libcudnn.so.9", "libnccl.so.2"]


def test_a_proof_holds_as_long_as_it_is_about_the_same() -> None:
    sources = {"cuda": "int main() {}"}
    key = core.digest(sources, "marker", "580")
    text = core.record(key, [core.Proof("cuda", True, {"gpu": "A100"})])
    assert core.holds(text, key) == [{"program": "cuda", "ran": True, "seen": {"gpu": "A100"}, "problem": ""}]
    for other in (core.digest({"cuda": ""}, "marker", "580"), core.digest(sources, "other", "580"), core.digest(sources, "marker", "595")):
        assert core.holds(text, other) == []
    for broken in ("", "{", "[]", '{"of": 1}'):
        assert core.holds(broken, key) == []


def test_each_program_is_there_and_is_linked_with_its_library() -> None:
    assert {path.stem for path in PROGRAMS.glob("*.cu")} == set(core.LINKED)
    assert core.compile_words("/x/bin/nvcc", "cudnn", "a.cu", "a") == ["/x/bin/nvcc", "-O1", "-o", "a", "a.cu", "-lcudnn"]
