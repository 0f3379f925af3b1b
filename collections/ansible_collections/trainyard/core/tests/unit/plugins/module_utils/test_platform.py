"""Values that differ between distributions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.trainyard.core.plugins.module_utils import _platform

PLATFORMS = {
    "Debian": {"package": "family", "service": "ssh"},
    "Ubuntu": {"package": "ubuntu"},
    "Debian_12": {},
    "Debian_13": {"package": "thirteen"},
    "Ubuntu_24": {},
}


def facts(distribution: str, major: str, family: str = "Debian") -> dict[str, str]:
    return {"distribution": distribution, "distribution_major_version": major, "os_family": family}


@pytest.mark.parametrize(
    ("node", "package"),
    [(facts("Debian", "12"), "family"), (facts("Debian", "13"), "thirteen"), (facts("Ubuntu", "24"), "ubuntu")],
)
def test_the_more_exact_entry_wins(node: dict[str, str], package: str) -> None:
    assert _platform.for_platform(PLATFORMS, node) == {"package": package, "service": "ssh"}


def test_a_release_without_an_entry_is_refused_by_name() -> None:
    with pytest.raises(_platform.UnknownPlatformError) as refused:
        _platform.for_platform(PLATFORMS, facts("Debian", "11"))
    assert str(refused.value) == "The node runs Debian 11, which Trainyard does not know. Known: Debian 12, Debian 13, Ubuntu 24."


def test_a_family_alone_makes_no_platform_known() -> None:
    with pytest.raises(_platform.UnknownPlatformError, match="The node runs Linux Mint 21, which"):
        _platform.for_platform(PLATFORMS, facts("Linux Mint", "21"))


def test_missing_facts_are_said_to_be_missing() -> None:
    with pytest.raises(_platform.UnknownPlatformError, match="gather_facts: true"):
        _platform.for_platform(PLATFORMS, {})


CATALOGUE: dict[str, Any] = yaml.safe_load((Path(__file__).parents[8] / "roles/catalog/vars/main/platforms.yml").read_text())[
    "catalog_platforms"
]
UBUNTU = {**facts("Ubuntu", "24"), "distribution_version": "24.04", "distribution_release": "noble"}


def test_a_system_that_is_not_known_is_said_with_those_that_are() -> None:
    assert _platform.refusal(CATALOGUE, facts("Debian", "12"), untested=False) == ""
    words = (
        "runs Fedora 44, which Trainyard does not know. Known: Debian 12, Debian 13; with trainyard_untested_platforms: true also Ubuntu"
    )
    assert words in _platform.refusal(CATALOGUE, facts("Fedora", "44"), untested=True)


def test_a_system_that_nothing_ran_on_has_to_be_wanted() -> None:
    refused = _platform.refusal(CATALOGUE, UBUNTU, untested=False)
    assert "runs Ubuntu 24.04, on which nothing of Trainyard ran yet." in refused
    assert "set trainyard_untested_platforms: true for this node" in refused
    assert _platform.refusal(CATALOGUE, UBUNTU, untested=True) == ""


def test_a_release_between_two_known_ones_is_not_known() -> None:
    between = {**UBUNTU, "distribution_version": "24.10", "distribution_release": "oracular"}
    assert "This node runs Ubuntu 24.10, which Trainyard does not know." in _platform.refusal(CATALOGUE, between, untested=True)
