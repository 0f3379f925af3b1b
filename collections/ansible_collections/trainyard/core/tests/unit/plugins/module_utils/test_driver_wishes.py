"""What a wish for a driver means, and how a wrong one is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.trainyard.core.plugins.module_utils import _driver_wishes as wishes

ROLE = Path(__file__).parents[8] / "roles" / "nvidia_driver"
DATA: dict[str, Any] = yaml.safe_load((ROLE / "vars/main/platforms.yml").read_text())
PLATFORMS, VENDOR = DATA["_nvidia_driver_platforms"], DATA["_nvidia_driver_vendor"]
REPOSITORY = yaml.safe_load((ROLE.parent / "catalog/vars/main/repositories.yml").read_text())["catalog_vendor_repositories"]["nvidia"]
GOOD = {
    "branch": 0,
    "modules": "",
    "source": "distribution",
    "reboot": "never",
    "kernels": [],
    "version": "",
    "repository": REPOSITORY,
    "runfile": "",
    "runfile_sha256": "",
}
VENDORS = {"source": "nvidia_repository", "branch": 580, "modules": "open"}
RUNFILE = {**VENDORS, "source": "runfile", "version": "580.95.05", "runfile": "/srv/driver.run", "runfile_sha256": "0" * 64}


def facts(release: str = "12", **more: str) -> dict[str, str]:
    return {"distribution": "Debian", "distribution_major_version": release, "architecture": "x86_64", **more}


@pytest.mark.parametrize("release, branches", [("12", [0, 535, 470]), ("13", [0, 550, 535])])
def test_every_branch_on_offer_can_be_had(release: str, branches: list[int]) -> None:
    for branch in branches:
        assert wishes.problems({**GOOD, "branch": branch}, PLATFORMS, facts(release)) == []


@pytest.mark.parametrize(
    "wish, fact, words",
    [
        ({"source": "ppa"}, {}, "nvidia_driver_source: 'ppa' is none of distribution, nvidia_repository and runfile."),
        ({"version": "535.261.03"}, {}, "nvidia_driver_version: within a branch, Debian 12 decides"),
        ({**VENDORS, "branch": 0}, {}, "nvidia_driver_branch: 'nvidia_repository' has many branches"),
        ({**VENDORS, "modules": ""}, {}, "nvidia_driver_modules: 'nvidia_repository' has both flavours"),
        ({**VENDORS, "branch": 470}, {}, "nvidia_driver_modules: branch 470 has no open modules; right is proprietary."),
        ({**VENDORS, "version": "newest"}, {}, "nvidia_driver_version: 'newest' is no version"),
        ({**VENDORS, "version": "575.57.08"}, {}, "nvidia_driver_version: 575.57.08 is not of the branch 580"),
        ({**VENDORS, "repository": {"urls": {"Debian_13": "x"}}}, {}, "no address is known for Debian 12, only for Debian 13"),
        ({**RUNFILE, "version": ""}, {}, "nvidia_driver_version: a runfile holds one version"),
        ({**RUNFILE, "runfile": "driver.run"}, {}, "nvidia_driver_runfile: 'driver.run' is no place of a file"),
        ({**RUNFILE, "runfile_sha256": "abc"}, {}, "nvidia_driver_runfile_sha256: 'abc' is no SHA-256"),
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
    chosen = wishes.choice({**GOOD, "branch": 470}, PLATFORMS["Debian_12"]["branches"], VENDOR)
    assert (chosen["branch"], chosen["modules"]) == (470, "proprietary")
    assert chosen["packages"][0] == "nvidia-tesla-470-kernel-dkms"
    assert chosen["replaces"] == ["nvidia-alternative", "nvidia-kernel-dkms"]


def test_the_other_flavour_of_a_branch_must_not_stay() -> None:
    chosen = wishes.choice({**GOOD, "modules": "open"}, PLATFORMS["Debian_13"]["branches"], VENDOR)
    assert "nvidia-open-kernel-dkms" in chosen["packages"]
    assert "nvidia-kernel-dkms" in chosen["replaces"]
    assert "nvidia-alternative" not in chosen["replaces"]


@pytest.mark.parametrize("release", ["12", "13"])
@pytest.mark.parametrize(
    "wish",
    [
        VENDORS,
        {**VENDORS, "version": "580.95.05"},
        {**VENDORS, "repository": {**REPOSITORY, "urls": {}, "url": "https://mirror.example/"}},
        RUNFILE,
        {**RUNFILE, "runfile": "https://vendor.example/driver.run"},
        {**RUNFILE, "runfile": "file:/srv/driver.run"},
    ],
)
def test_the_vendors_sources_can_be_had_on_every_release(release: str, wish: dict[str, Any]) -> None:
    assert wishes.problems({**GOOD, **wish}, PLATFORMS, facts(release)) == []


@pytest.mark.parametrize("version, pattern", [("", "580.*"), ("580.95.05", "580.95.05-*")])
def test_the_repositorys_packages_are_those_of_the_branch_or_of_one_version(version: str, pattern: str) -> None:
    chosen = wishes.choice({**GOOD, **VENDORS, "version": version}, PLATFORMS["Debian_12"]["branches"], VENDOR)
    assert chosen["versions"] == dict.fromkeys(["nvidia-kernel-open-dkms", "nvidia-driver-cuda", "nvidia-persistenced"], pattern)
    assert [pin["version"] for pin in chosen["pins"]] == [pattern]
    assert {"nvidia-kernel-dkms", "nvidia-tesla-470-alternative", "nvidia-tesla-470-kernel-dkms"} == set(chosen["replaces"])


def test_a_runfile_needs_tools_and_takes_no_package_off() -> None:
    chosen = wishes.choice({**GOOD, **RUNFILE}, PLATFORMS["Debian_12"]["branches"], VENDOR)
    assert "dkms" in chosen["packages"]
    assert (chosen["versions"], chosen["pins"], chosen["replaces"], chosen["held"]) == ({}, [], [], [])
