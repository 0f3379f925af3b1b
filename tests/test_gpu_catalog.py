"""The rows about GPUs, drivers, CUDA and frameworks: each is whole, in order, and refers to rows that are there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import fits, specifier, version

from trainyard import catalog

DATA: dict[str, Any] = {}
for _path in sorted(catalog.FOLDER.glob("*.yml")):
    DATA.update(yaml.safe_load(_path.read_text()))

TRUST = {"primary", "excerpt", "mirror", "secondary", "measured", "inferred"}
FRAMEWORKS = DATA["catalog_framework_releases"]
ARCHITECTURES = {cc: row for row in DATA["catalog_gpu_architectures"] for cc in row["compute_capabilities"]}
BRANCHES = {row["branch"] for row in DATA["catalog_driver_branches"]}
LINES = {".".join(row["version"].split(".")[:2]) for row in DATA["catalog_cuda_toolkits"]}

KEYS = {
    "catalog_gpu_architectures": {
        "name",
        "title",
        "compute_capabilities",
        "first_cuda",
        "last_cuda",
        "first_driver",
        "last_driver",
        "modules",
    },
    "catalog_driver_branches": {"branch", "designation", "end_of_life", "newest", "modules"},
    "catalog_cuda_toolkits": {"version", "driver"},
    "catalog_cuda_minor_compatibility": {"cuda", "driver"},
    "catalog_cudnn_releases": {"version", "cuda", "driver", "compute_capabilities"},
    "catalog_nccl_releases": {"version", "cuda"},
}
BUILD = {"cuda", "cudnn", "nccl", "compute_capabilities", "ptx", "bundled", "requirement", "index", "support"}
NEWEST_FIRST: dict[str, Callable[[Any], Any]] = {
    "catalog_driver_branches": lambda row: row["branch"],
    "catalog_cuda_toolkits": lambda row: version(row["version"]),
    "catalog_cuda_minor_compatibility": lambda row: row["cuda"],
    "catalog_cudnn_releases": lambda row: version(row["version"]),
    "catalog_nccl_releases": lambda row: version(row["version"]),
}


def releases() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, framework in FRAMEWORKS.items():
        for release in framework["releases"]:
            yield name, release


def builds() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, release in releases():
        for key, build in release["builds"].items():
            yield f"{name} {release['version']} {key}", build


def covers(capabilities: list[str], wanted: str) -> bool:
    major, minor = wanted.split(".")
    return any(have.split(".")[0] == major and int(have.split(".")[1]) <= int(minor) for have in capabilities)


@pytest.mark.parametrize("table", KEYS)
def test_rows_have_their_keys_and_their_origin(table: str) -> None:
    for row in DATA[table]:
        assert set(row) == KEYS[table] | {"source", "seen", "trust"}, row


def test_every_row_says_where_it_comes_from() -> None:
    rows = [row for table in KEYS for row in DATA[table]]
    rows += [release for _name, release in releases()]
    rows += list(DATA["catalog_operating_systems"].values())
    for row in rows:
        assert row["source"], row
        assert re.fullmatch(r"20\d\d-\d\d", row["seen"]), row
        assert row["trust"] in TRUST, row


@pytest.mark.parametrize("table", NEWEST_FIRST)
def test_tables_are_in_order_newest_first(table: str) -> None:
    order = [NEWEST_FIRST[table](row) for row in DATA[table]]
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_releases_are_in_order_newest_first_and_each_stands_once(name: str) -> None:
    order = [version(release["version"]) for release in FRAMEWORKS[name]["releases"]]
    assert order == sorted(set(order), reverse=True)


def test_architectures_refer_to_branches_and_chips_to_architectures() -> None:
    for row in DATA["catalog_gpu_architectures"]:
        assert row["first_driver"] in BRANCHES, row
        assert row["last_driver"] in {0, *BRANCHES}, row
        assert set(row["modules"]) <= {"open", "proprietary"}, row
    for chip, row in DATA["catalog_gpu_chips"].items():
        assert row["compute_capability"] in ARCHITECTURES, chip


def test_a_pci_id_means_one_device() -> None:
    lines = [line for row in DATA["catalog_gpu_chips"].values() for line in row["devices"].splitlines()]
    assert len(lines) > 900
    assert all(re.fullmatch(r"[0-9a-f]{4} \S.*", line) for line in lines)
    numbers = [line.split()[0] for line in lines]
    assert len(numbers) == len(set(numbers))


def test_branches_have_known_designations_and_dates() -> None:
    for row in DATA["catalog_driver_branches"]:
        assert row["designation"] in {"long_term", "production", "new_feature", "developer", "legacy"}, row
        assert re.fullmatch(r"(20\d\d-\d\d)?", row["end_of_life"]), row
        assert not row["newest"] or row["newest"].startswith(f"{row['branch']}."), row
        assert "open" not in row["modules"] or row["branch"] >= 515, "the open module came with 515"


def test_toolkits_refer_to_branches_and_cudnn_to_toolkits() -> None:
    for row in DATA["catalog_cuda_toolkits"]:
        assert int(row["driver"].split(".")[0]) in BRANCHES, row
    for row in DATA["catalog_cudnn_releases"]:
        assert any(fits(line, row["cuda"]) for line in LINES), row
        assert set(row["compute_capabilities"]) <= set(ARCHITECTURES), row


def test_releases_name_pythons_and_frameworks_that_exist() -> None:
    for name, release in releases():
        assert any(fits(python, release["python"]) for python in DATA["catalog_pythons"]), (name, release["version"])
        for other, words in release["requires"].items():
            assert any(fits(known["version"], words) for known in FRAMEWORKS[other]["releases"]), (name, release["version"])


def test_builds_are_whole_and_refer_to_rows_that_are_there() -> None:
    for name, build in builds():
        assert set(build) - {"source", "seen", "trust", "follows"} == BUILD, name
        assert build["index"] in {"", *DATA["catalog_framework_indexes"]}, name
        assert build["support"] in {"stable", "experimental"}, name
        assert set(build["compute_capabilities"]) | set(build["ptx"]) <= set(ARCHITECTURES), name
        assert bool(build["cuda"]) == bool(build["compute_capabilities"]), name
        for key in ("cuda", "cudnn", "nccl"):
            assert not build[key] or specifier(build[key]), name


def test_every_gpu_build_has_a_toolkit_and_a_cudnn_for_each_gpu_it_has_code_for() -> None:
    for name, build in builds():
        lines = [line for line in LINES if build["cuda"] and fits(line, build["cuda"])]
        assert bool(lines) == bool(build["cuda"]), name
        for wanted in build["compute_capabilities"]:
            row = ARCHITECTURES[wanted]
            last = row["last_cuda"].split(".")
            able = [
                line
                for line in lines
                if fits(line, f">={row['first_cuda']}")
                and (last == [""] or tuple(map(int, line.split(".")[: len(last)])) <= tuple(map(int, last)))
            ]
            assert able, f"{name}: no toolkit makes code for {wanted}"
            rows = [row for row in DATA["catalog_cudnn_releases"] if any(fits(line, row["cuda"]) for line in able)]
            assert not build["cudnn"] or any(
                fits(row["version"], build["cudnn"]) and covers(row["compute_capabilities"], wanted) for row in rows
            ), f"{name}: no cuDNN for {wanted}"


def test_every_nccl_that_is_pinned_is_known() -> None:
    for name, build in builds():
        assert not build["nccl"] or any(fits(row["version"], build["nccl"]) for row in DATA["catalog_nccl_releases"]), name


def test_operating_systems_refer_to_branches() -> None:
    for name, row in DATA["catalog_operating_systems"].items():
        given = row["driver_sources"]["distribution"]
        if given:
            assert set(given["branches"]) == set(given["modules"]) <= BRANCHES, name


def test_profiles_name_releases_and_toolkits_that_exist() -> None:
    for name, profile in DATA["catalog_profiles"].items():
        for variant in profile["variants"].values():
            for framework, number in variant["frameworks"].items():
                assert number in [release["version"] for release in FRAMEWORKS[framework]["releases"]], name
            assert variant.get("cuda", "") in {"", *LINES}, name


def test_no_name_of_a_framework_means_two_things() -> None:
    names = [name for key, row in FRAMEWORKS.items() for name in (key, *row["aliases"])]
    assert len(names) == len(set(names))
