"""What the vendor's installer is asked for, and what is known of an installation of it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _nvidia_runfile as runfile

WISH: dict[str, Any] = {
    "state": "present",
    "url": "https://vendor.example/NVIDIA-Linux-x86_64-580.95.05.run",
    "sha256": "0" * 64,
    "version": "580.95.05",
    "modules": "open",
}


def test_a_sound_wish_has_no_problem() -> None:
    assert runfile.problems(WISH) == []
    assert runfile.problems({**WISH, "state": "absent", "url": ""}) == []


@pytest.mark.parametrize(
    "change, words",
    [
        ({"url": "driver.run"}, "url: 'driver.run'"),
        ({"sha256": ""}, "sha256: ''"),
        ({"version": "580"}, "version: '580'"),
        ({"modules": ""}, "modules: ''"),
    ],
)
def test_a_wish_that_cannot_be_meant_names_the_parameter(change: dict[str, Any], words: str) -> None:
    (said,) = runfile.problems({**WISH, **change})
    assert words in said


@pytest.mark.parametrize(
    "version, modules, has, has_not",
    [
        ("580.95.05", "open", {"--kernel-module-type=open", "--skip-module-load"}, {"--kernel-module-build-directory=kernel-open"}),
        ("580.95.05", "proprietary", {"--kernel-module-type=proprietary"}, set()),
        ("535.261.03", "open", {"--kernel-module-build-directory=kernel-open"}, {"--kernel-module-type=open"}),
        ("535.261.03", "proprietary", set(), {"--kernel-module-build-directory=kernel-open"}),
        ("470.256.02", "proprietary", set(), {"--skip-module-load"}),
    ],
)
def test_the_installer_is_asked_for_the_flavour_in_its_branchs_words(version: str, modules: str, has: set[str], has_not: set[str]) -> None:
    words = set(runfile.arguments(version, modules, ""))
    assert {"--silent", "--dkms", "--no-questions", "--ui=none"} | has <= words
    assert not has_not & words
    assert set(runfile.arguments(version, modules, "6.1.0-40-amd64")) - words == {"--kernel-name=6.1.0-40-amd64"}


def test_the_version_is_read_from_the_runfiles_head() -> None:
    head = (
        b'#! /bin/sh\nskip=1146\nlabel="NVIDIA Accelerated Graphics Driver for Linux-x86_64 580.95.05"\nversion_string=580.95.05\n\x80\xff'
    )
    assert runfile.version_inside(head) == "580.95.05"
    assert runfile.version_inside(b"\x7fELF") == ""


@pytest.mark.parametrize("log, version", [("580.95.05\nNVIDIA\n", "580.95.05"), ("1.0-9631\n", "1.0.9631"), ("", ""), ("?\n", "")])
def test_the_version_of_an_installation_is_read_from_the_installers_list(log: str, version: str) -> None:
    assert runfile.installed_version(log) == version


def test_a_note_that_is_none_says_nothing() -> None:
    assert runfile.read_note('{"version": "580.95.05", "state": "installed"}') == {"version": "580.95.05", "state": "installed"}
    assert runfile.read_note("half of a no") == runfile.read_note("[]") == {}


def test_packages_of_a_driver_are_in_the_way_unless_they_are_ours() -> None:
    patterns = ["libcuda1", "nvidia*-dkms"]
    assert runfile.in_the_way(["libcuda1", "nvidia-kernel-dkms", "tmux"], patterns, ["libcuda1"]) == ["nvidia-kernel-dkms"]
    assert runfile.in_the_way(["libcuda1"], patterns, ["libcuda1"]) == []
