"""The wheels of CUDA are releases that the catalogue's rows know, and include what a plan would choose."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import fits

from tools import lock_envs
from trainyard import catalog

ROWS = catalog.load()
WHEELS: dict[str, Any] = yaml.safe_load(lock_envs.CUDA_CATALOG.read_text())["catalog_cuda_wheels"]


def test_every_toolkit_of_cuda_13_that_a_plan_would_choose_is_there() -> None:
    newest: dict[str, str] = {}
    for row in ROWS.toolkits:
        newest.setdefault(row.line, row.version)
    assert {version for line, version in newest.items() if line.startswith("13.")} == set(WHEELS["toolkits"])


@pytest.mark.parametrize("major", ["12", "13"])
def test_the_newest_cudnn_and_nccl_are_there_and_all_that_are_there_are_known(major: str) -> None:
    fitting = [row.version for row in ROWS.cudnns if fits(f"{major}.0", row.cuda)]
    known = [release for release, wheels in WHEELS["cudnn"].items() if major in wheels]
    assert known[0] == fitting[0]
    assert set(known) <= set(fitting)
    numbers = [number for number, majors, _fact in ROWS.nccls if int(major) in majors]
    known = [release for release, wheels in WHEELS["nccl"].items() if major in wheels]
    assert known[0] == numbers[0]
    assert set(known) <= set(numbers)


def test_gpus_that_newer_cudnn_gave_up_find_one_that_drives_them() -> None:
    """The plan chooses 9.10.2 for Pascal and Volta."""
    assert "12" in WHEELS["cudnn"]["9.10.2"]


@pytest.mark.parametrize("release", WHEELS["toolkits"])
def test_a_toolkit_is_locked_with_its_compiler_and_the_libraries_of_its_own_line(release: str) -> None:
    pins = lock_envs.pins((lock_envs.LOCKS / f"cuda-{release}-x86_64.txt").read_text())
    line = ".".join(release.split(".")[:2])
    for name in ("nvcc", "runtime", "nvrtc", "crt"):
        assert pins[f"nvidia-cuda-{name}"].startswith(f"{line}."), name
    assert pins["nvidia-nvvm"].startswith(f"{line}.")
    assert pins["nvidia-nvjitlink"].startswith(f"{line}.")
    assert {
        "nvidia-cublas",
        "nvidia-cufft",
        "nvidia-curand",
        "nvidia-cusolver",
        "nvidia-cusparse",
        "nvidia-cuda-cccl",
        "nvidia-cuda-cupti",
    } < set(pins)
    assert "nvidia-cuda-sanitizer-api" not in pins, "it brings headers of cupti's in another version"
