"""What a wish for a driver means, and how a wrong one is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.trainyard.core.plugins.module_utils import _driver_wishes as wishes

ROLE = Path(__file__).parents[8] / "roles" / "nvidia_driver"
PLATFORMS: dict[str, Any] = yaml.safe_load((ROLE / "vars/main/platforms.yml").read_text())["_nvidia_driver_platforms"]
GOOD = {"branch": 0, "modules": "", "source": "distribution", "reboot": "never", "kernels": []}


def facts(release: str = "12", **more: str) -> dict[str, str]:
    return {"distribution": "Debian", "distribution_major_version": release, "architecture": "x86_64", **more}


@pytest.mark.parametrize("release, branches", [("12", [0, 535, 470]), ("13", [0, 550, 535])])
def test_every_branch_on_offer_can_be_had(release: str, branches: list[int]) -> None:
    for branch in branches:
        assert wishes.problems({**GOOD, "branch": branch}, PLATFORMS, facts(release)) == []


@pytest.mark.parametrize(
    "wish, fact, words",
    [
        ({"source": "runfile"}, {}, "nvidia_driver_source: 'runfile' cannot be had yet; right is 'distribution'."),
        ({"reboot": "tonight"}, {}, "nvidia_driver_reboot: 'tonight' is none of never, if_idle and now."),
        ({"modules": "closed"}, {}, "nvidia_driver_modules: 'closed' is none of proprietary, open and ''"),
        ({"kernels": ["-y"]}, {}, "nvidia_driver_kernels: '-y' is no kernel"),
        ({"branch": 580}, {}, "nvidia_driver_branch: Debian 12 has no packages of branch 580; right are 535, 470, and 0"),
        ({"modules": "open"}, {}, "nvidia_driver_modules: Debian 12 has no open modules that fit its branch 535; right is proprietary"),
        (
            {"modules": "open", "branch": 535},
            {"distribution_major_version": "13"},
            "Debian 13 has no open modules that fit its branch 535; right is proprietary (set nvidia_driver_branch to 550).",
        ),
        (
            {},
            {"distribution": "Ubuntu", "distribution_major_version": "24"},
            "'distribution' is made for Debian 12 and Debian 13, and this node runs",
        ),
        ({}, {"architecture": "aarch64"}, "made for x86_64 only, and this node is aarch64"),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_sentence(wish: dict[str, Any], fact: dict[str, str], words: str) -> None:
    found = wishes.problems({**GOOD, **wish}, PLATFORMS, facts(**{"release": "12"}) | fact)
    assert len(found) == 1, found
    assert words in found[0]


def test_a_choice_names_what_must_not_stay() -> None:
    chosen = wishes.choice({**GOOD, "branch": 470}, PLATFORMS["Debian_12"]["branches"])
    assert (chosen["branch"], chosen["modules"]) == (470, "proprietary")
    assert chosen["packages"][0] == "nvidia-tesla-470-kernel-dkms"
    assert chosen["replaces"] == ["nvidia-alternative", "nvidia-kernel-dkms"]


def test_the_other_flavour_of_a_branch_must_not_stay() -> None:
    chosen = wishes.choice({**GOOD, "modules": "open"}, PLATFORMS["Debian_13"]["branches"])
    assert "nvidia-open-kernel-dkms" in chosen["packages"]
    assert "nvidia-kernel-dkms" in chosen["replaces"]
    assert "nvidia-alternative" not in chosen["replaces"]
