"""The rows about GPUs, drivers, CUDA and frameworks: nothing is wrong with ours, and each kind of damage is found and named."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from tools import catalog_schema as schema
from trainyard import catalog

DATA: dict[str, Any] = {}
for _path in sorted(catalog.FOLDER.glob("*.yml")):
    DATA.update(yaml.safe_load(_path.read_text()))
GONE = object()


def place(data: Any, path: tuple[Any, ...]) -> Any:
    """Return what lies under a path; a row of a list is found by its first value."""
    for part in path:
        data = data[part] if isinstance(data, dict) else next(row for row in data if next(iter(row.values())) == part)
    return data


def damaged(path: tuple[Any, ...], value: Any) -> list[str]:
    """Return what is said of the catalogue with one value changed or gone."""
    data = copy.deepcopy(DATA)
    row = place(data, path[:-1])
    if value is GONE:
        del row[path[-1]]
    else:
        row[path[-1]] = value
    return schema.problems(data)


def test_nothing_is_wrong_with_ours() -> None:
    assert schema.problems(DATA) == []


def test_all_tables_are_known_and_stand_in_the_files_that_are_said() -> None:
    assert set(DATA) == set(schema.FILE_OF)
    assert {path.name for path in catalog.FOLDER.iterdir()} == set(schema.FILE_OF.values())
    for table, name in schema.FILE_OF.items():
        assert table in yaml.safe_load((catalog.FOLDER / name).read_text())


def test_it_is_as_much_as_was_collected() -> None:
    assert sum(len(chip["devices"].splitlines()) for chip in DATA["catalog_gpu_chips"].values()) > 900
    assert set(DATA["catalog_framework_releases"]) >= {"tensorflow", "pytorch", "keras", "paddle", "jax", "caffe"}


BRANCH = ("catalog_driver_branches", 580)
BUILD = ("catalog_framework_releases", "pytorch", "releases", "2.9.1", "builds", "cu128")
RELEASE = BUILD[:4]
DEBIAN = ("catalog_operating_systems", "debian-12")
OWN = (*DEBIAN, "driver_sources", "distribution")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        # keys and values
        ((*BRANCH, "modules"), GONE, "drivers.yml: 580: modules is missing"),
        ((*BRANCH, "trust"), "hearsay", "drivers.yml: 580: trust is 'hearsay', wanted is one of primary, excerpt"),
        ((*BRANCH, "seen"), "2026-13", "drivers.yml: 580: seen is '2026-13', wanted is a month in quotes"),
        ((*BRANCH, "source"), "", "drivers.yml: 580: source is '', wanted is a text"),
        ((*BRANCH, "designation"), "lts", "drivers.yml: 580: designation is 'lts', wanted is one of long_term"),
        ((*BRANCH, "end_of_life"), "June 2028", "drivers.yml: 580: end_of_life is 'June 2028', wanted is a month"),
        ((*BRANCH, "colour"), "green", "drivers.yml: 580: colour is not known; known are branch, designation"),
        ((*BRANCH, "modules"), ["closed"], "drivers.yml: 580: modules is ['closed'], wanted is a list; each is one of open, proprietary"),
        (("catalog_cuda_toolkits", "13.0.2", "version"), 13.0, "cuda.yml: 13.0: version is 13.0, wanted is a version in quotes"),
        (("catalog_nccl_releases", "2.27.7", "cuda"), ["12"], "nccl.yml: 2.27.7: cuda is ['12'], wanted is a list; each is a whole number"),
        (("catalog_gpu_chips_about", "seen"), GONE, "gpu_chips.yml: about: seen is missing"),
        (("catalog_gpu_chips", "GV100", "devices"), GONE, "gpu_chips.yml: GV100: devices is missing"),
        ((*RELEASE, "python"), "3.9 or so", "frameworks.yml: pytorch 2.9.1: python is '3.9 or so', wanted is a specifier"),
        ((*BUILD, "cuda"), "twelve", "frameworks.yml: pytorch 2.9.1 cu128: cuda is 'twelve', wanted is a specifier"),
        ((*BUILD, "support"), "good", "frameworks.yml: pytorch 2.9.1 cu128: support is 'good', wanted is one of stable, experimental"),
        ((*BUILD, "bundled"), "yes", "frameworks.yml: pytorch 2.9.1 cu128: bundled is 'yes', wanted is true or false"),
        ((*DEBIAN, "trust"), GONE, "operating_systems.yml: debian-12: trust is missing"),
        ((*OWN, "modules"), {535: ["open"], "525": []}, "operating_systems.yml: debian-12: distribution: modules is"),
        (("catalog_profiles", "modern", "variants"), {"default": {}}, "profiles.yml: modern default: frameworks is missing"),
        (("catalog_pythons",), ["3.14", 3.13], "pythons.yml: pythons: it is ['3.14', 3.13], wanted is a list"),
        (("catalog_pythons",), GONE, "pythons.yml: catalog_pythons: the table is missing"),
        (("catalog_framework_indexes", "pytorch-cpu"), None, "frameworks.yml: indexes: it is no mapping"),
        # order
        (("catalog_pythons",), ["3.9", "3.10"], "pythons.yml: 3.9: it stands where 3.10 has its place (newest first)"),
        (("catalog_pythons",), ["3.10", "3.10"], "pythons.yml: 3.10: it stands there 2 times"),
        (("catalog_cuda_toolkits", "13.0.2", "version"), "13.0.0", "cuda.yml: 13.0.0: it stands there 2 times"),
        ((*RELEASE, "version"), "2.99.0", "frameworks.yml: pytorch 2.15.0: it stands where 2.99.0 has its place"),
        (("catalog_gpu_chips", "GF117", "compute_capability"), "9.0", "gpu_chips.yml: GH100: it stands where GF117 has its place"),
        (("catalog_gpu_chips", "GR102", "devices"), "30ff b\n30fe a\n", "gpu_chips.yml: GR102 30ff b: it stands where 30fe a"),
        ((*OWN, "branches"), {525: "525.1", 535: "535.1", 470: "470.1"}, "debian-12 branches 525: it stands where 535 has its place"),
        ((*DEBIAN, "version"), "14", "operating_systems.yml: debian-13: it stands where debian-12 has its place"),
        # references
        (
            ("catalog_gpu_architectures", "volta", "last_driver"),
            581,
            "gpus.yml: volta: last_driver is 581, which drivers.yml does not have",
        ),
        (("catalog_gpu_architectures", "rubin", "first_driver"), 0, "gpus.yml: rubin: first_driver is 0, which drivers.yml does not have"),
        (("catalog_gpu_chips", "GR102", "compute_capability"), "1.0", "gpu_chips.yml: GR102: gpus.yml has no compute capability 1.0"),
        (("catalog_gpu_chips", "GR102", "devices"), "1db4 V100\n", "device 1db4 stands under GR102 already"),
        (("catalog_gpu_chips", "GR102", "devices"), "30FF GR102\n", "gpu_chips.yml: GR102: '30FF GR102' is no device"),
        ((*BRANCH, "newest"), "595.1", "drivers.yml: 580: newest is 595.1, which is of another branch"),
        (("catalog_driver_branches", 470, "modules"), ["open"], "drivers.yml: 470: modules has open, which came with 515"),
        (("catalog_cuda_toolkits", "13.0.2", "driver"), "581.1", "cuda.yml: 13.0.2: driver is 581.1, a branch which drivers.yml"),
        (("catalog_cudnn_releases", "9.17.0", "cuda"), ">=99", "cudnn.yml: 9.17.0 (CUDA >=99): no toolkit in cuda.yml is >=99"),
        (
            ("catalog_cudnn_releases", "9.17.0", "compute_capabilities"),
            ["1.0"],
            "cudnn.yml: 9.17.0 (CUDA >=13.0,<13.2): gpus.yml has no compute capability 1.0",
        ),
        ((*RELEASE, "python"), ">=3.99", "frameworks.yml: pytorch 2.9.1: no Python in pythons.yml is >=3.99"),
        ((*RELEASE, "requires"), {"numpy": ">=2"}, "frameworks.yml: pytorch 2.9.1: it requires numpy >=2, which is not there"),
        ((*BUILD, "index"), "elsewhere", "pytorch 2.9.1 cu128: index elsewhere is not in catalog_framework_indexes"),
        ((*BUILD, "follows"), "theano", "pytorch 2.9.1 cu128: it follows theano, which is not there"),
        ((*BUILD, "ptx"), ["1.0"], "pytorch 2.9.1 cu128: gpus.yml has no compute capability 1.0"),
        ((*BUILD, "compute_capabilities"), [], "pytorch 2.9.1 cu128: a build has CUDA and compute capabilities, or neither"),
        ((*BUILD, "compute_capabilities"), ["3.5"], "pytorch 2.9.1 cu128: no toolkit that is ==12.8.* makes code for 3.5"),
        ((*BUILD, "cuda"), "==12.7.*", "pytorch 2.9.1 cu128: no toolkit in cuda.yml is ==12.7.*"),
        ((*BUILD, "cudnn"), "==9.99.*", "pytorch 2.9.1 cu128: no cuDNN ==9.99.* in cudnn.yml is for"),
        ((*BUILD, "nccl"), "==9.9", "pytorch 2.9.1 cu128: nccl.yml has no NCCL ==9.9"),
        ((*OWN, "branches"), {536: "", 525: "", 470: ""}, "debian-12: branches and modules are not of the same branches"),
        ((*OWN, "branches"), {536: "", 525: "", 470: ""}, "debian-12: branches has 536, which drivers.yml does not have"),
        ((*OWN, "kernels"), {535: 6.8}, "operating_systems.yml: debian-12: distribution: kernels is {535: 6.8}, wanted is"),
        ((*OWN, "kernels"), {470: "6.8", 535: "6.16"}, "debian-12 kernels 470: it stands where 535 has its place"),
        ((*OWN, "kernels"), {390: "5.1"}, "debian-12: kernels has 390, which branches does not have"),
        (
            ("catalog_profiles", "qingcloud-1.1", "variants", "cpu", "frameworks"),
            {"caffe": "7.0"},
            "profiles.yml: qingcloud-1.1 cpu: frameworks.yml has no caffe 7.0",
        ),
        (
            ("catalog_profiles", "qingcloud-1.1", "variants", "cuda-9.1", "cuda"),
            "9.7",
            "qingcloud-1.1 cuda-9.1: cuda.yml has no toolkit 9.7",
        ),
        (("catalog_framework_releases", "keras", "aliases"), ["torch"], "frameworks.yml: torch: 2 frameworks are called so"),
    ],
)
def test_damage_is_found_and_named(path: tuple[Any, ...], value: Any, says: str) -> None:
    found = damaged(path, value)
    assert any(says in line for line in found), found
