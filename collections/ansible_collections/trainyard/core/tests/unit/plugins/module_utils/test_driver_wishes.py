"""What a wish for a driver means, and how a wrong one is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.trainyard.core.plugins.module_utils import _driver_wishes as wishes
from ansible_collections.trainyard.core.plugins.module_utils._platform import for_platform

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
    "untested_platforms": False,
}
VENDORS = {"source": "nvidia_repository", "branch": 580, "modules": "open"}
RUNFILE = {**VENDORS, "source": "runfile", "version": "580.95.05", "runfile": "/srv/driver.run", "runfile_sha256": "0" * 64}


UBUNTU = {"distribution": "Ubuntu", "distribution_major_version": "24", "os_family": "Debian"}


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
            {"distribution": "Fedora", "distribution_major_version": "44"},
            "'distribution' is made for Debian 12, Debian 13, Ubuntu 22, Ubuntu 24 and Ubuntu 26, and this node runs Fedora 44",
        ),
        (VENDORS, UBUNTU, "nvidia_driver_source: 'nvidia_repository' is not made for Ubuntu 24 yet; right is distribution or runfile"),
        (
            {"branch": 550},
            UBUNTU,
            "nvidia_driver_branch: Ubuntu 24 has no packages of branch 550; right are 580, 615, 595, 570, 535, and 0",
        ),
        (
            {"branch": 615, "modules": "proprietary"},
            UBUNTU,
            "Ubuntu 24 has no proprietary modules that fit its branch 615; right is open (set nvidia_driver_branch to 580 or 595 or",
        ),
        ({}, {"architecture": "aarch64"}, "made for x86_64 only, and this node is aarch64"),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_sentence(wish: dict[str, Any], fact: dict[str, str], words: str) -> None:
    found = wishes.problems({**GOOD, **wish}, PLATFORMS, facts(**{"release": "12"}) | fact)
    assert len(found) == 1, found
    assert words in found[0]


def test_a_choice_names_what_must_not_stay() -> None:
    chosen = wishes.choice({**GOOD, "branch": 470}, PLATFORMS["Debian_12"], VENDOR)
    assert (chosen["branch"], chosen["modules"]) == (470, "proprietary")
    assert chosen["packages"][0] == "nvidia-tesla-470-kernel-dkms"
    assert chosen["replaces"] == ["nvidia-alternative", "nvidia-kernel-dkms", *PLATFORMS["Debian_12"]["rivals"]]
    assert (chosen["built"], chosen["prebuilt"], chosen["lacking"]) == (True, [], [])


def test_headers_come_for_kernels_that_are_there_wanted_or_come_later() -> None:
    chosen = wishes.choice({**GOOD, "kernels": ["cloud-amd64"]}, PLATFORMS["Debian_12"], VENDOR, ["6.1.0-40-amd64"])
    assert "linux-headers-cloud-amd64" in chosen["packages"]
    assert chosen["optional"] == ["linux-headers-6.1.0-40-amd64"]
    assert chosen["beside"]["linux-image-rt-amd64"] == "linux-headers-rt-amd64"
    assert {"linux-image-amd64", "linux-headers-amd64", "nvidia-kernel-dkms"} <= set(chosen["held"])


def test_the_other_flavour_of_a_branch_must_not_stay() -> None:
    chosen = wishes.choice({**GOOD, "modules": "open"}, PLATFORMS["Debian_13"], VENDOR)
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
    chosen = wishes.choice({**GOOD, **VENDORS, "version": version}, PLATFORMS["Debian_12"], VENDOR)
    assert chosen["versions"] == dict.fromkeys(["nvidia-kernel-open-dkms", "nvidia-driver-cuda", "nvidia-persistenced"], pattern)
    assert [pin["version"] for pin in chosen["pins"]] == [pattern]
    others = {"nvidia-kernel-dkms", "nvidia-tesla-470-alternative", "nvidia-tesla-470-kernel-dkms"}
    assert set(chosen["replaces"]) == others | set(PLATFORMS["Debian_12"]["rivals"])


def test_a_runfile_needs_tools_and_takes_no_package_off() -> None:
    chosen = wishes.choice({**GOOD, **RUNFILE}, PLATFORMS["Debian_12"], VENDOR)
    assert "dkms" in chosen["packages"]
    assert (chosen["versions"], chosen["pins"], chosen["replaces"]) == ({}, [], [])
    assert all(name.startswith(("linux-image-", "linux-headers-")) for name in chosen["held"])


NOBLE = for_platform(PLATFORMS, UBUNTU)
KERNELS = ["6.8.0-31-generic", "6.8.0-40-generic"]
READY = "linux-modules-nvidia-580-server-open-"
OPEN = {**GOOD, "branch": 580, "modules": "open"}


def test_modules_that_ubuntu_built_are_taken_where_it_has_some_for_every_kernel() -> None:
    offered = [READY + name for name in (*KERNELS, "generic")]
    chosen = wishes.choice(OPEN, NOBLE, VENDOR, KERNELS, offered)
    assert chosen["packages"][:2] == offered[:2]
    assert not [name for name in (*chosen["packages"], *chosen["optional"]) if "dkms" in name or "headers" in name]
    assert (chosen["built"], chosen["lacking"]) == (False, [])
    assert chosen["beside"] == {"linux-image-generic": READY + "generic"}
    assert {READY + "*", "linux-image-generic", "nvidia-kernel-common-580-server"} <= set(chosen["held"]), (
        "also for a kernel that comes along"
    )
    assert "nvidia-dkms-580-server-open" in chosen["replaces"]
    assert {*offered, READY + "aws"} <= set(chosen["prebuilt"])


def test_dkms_builds_where_a_kernel_has_no_modules_of_ubuntus() -> None:
    chosen = wishes.choice(OPEN, NOBLE, VENDOR, KERNELS, [READY + name for name in (KERNELS[0], "generic")])
    assert chosen["packages"][0] == "nvidia-dkms-580-server-open"
    assert (chosen["built"], chosen["lacking"]) == (True, [READY + KERNELS[1]])
    assert chosen["optional"] == [f"linux-headers-{name}" for name in KERNELS]
    assert chosen["beside"]["linux-image-generic"] == "linux-headers-generic"
    assert not [name for name in chosen["packages"] if name.startswith("linux-modules")]


def test_dkms_builds_where_there_is_no_kernel_yet_and_a_kernel_that_is_wanted_counts() -> None:
    assert wishes.choice(OPEN, NOBLE, VENDOR)["built"]
    chosen = wishes.choice({**OPEN, "kernels": ["generic"]}, NOBLE, VENDOR, offered=[READY + "generic"])
    assert (chosen["built"], chosen["packages"][0]) == (False, READY + "generic")


def test_names_have_the_branch_in_them_and_no_placeholder_is_left() -> None:
    for release in ("22", "24", "26"):
        platform = for_platform(PLATFORMS, {**UBUNTU, "distribution_major_version": release})
        for branch, row in platform["branches"].items():
            for modules in row["modules"]:
                chosen = wishes.choice({**GOOD, "branch": branch, "modules": modules}, platform, VENDOR, KERNELS)
                names = [*chosen["packages"], *chosen["prebuilt"], *chosen["held"], *chosen["beside"].values()]
                assert not [name for name in names if "{" in name]
                assert f"libnvidia-compute-{branch}-server" in names


def test_the_roles_rows_are_those_that_the_resolver_plans_with() -> None:
    systems = yaml.safe_load((ROLE.parent / "catalog/vars/stack/operating_systems.yml").read_text())["catalog_operating_systems"]
    for key, row in PLATFORMS.items():
        if "branches" in row:
            distribution, release = key.lower().split("_")
            system = systems[f"{distribution}-{release}{'.04' if distribution == 'ubuntu' else ''}"]["driver_sources"]["distribution"]
            assert {branch: sorted(one["modules"]) for branch, one in row["branches"].items()} == {
                branch: sorted(modules) for branch, modules in system["modules"].items()
            }, key
            assert all(("prebuilt" in one) == system["signed_modules"] for one in row["branches"].values()), key


def test_a_system_that_nothing_ran_on_is_refused_unless_it_is_wanted() -> None:
    catalogue = yaml.safe_load((ROLE.parent / "catalog/vars/main/platforms.yml").read_text())["catalog_platforms"]
    node = {**facts(), **UBUNTU}
    (refused,) = wishes.problems(GOOD, PLATFORMS, node, catalogue)
    assert "set trainyard_untested_platforms: true for this node" in refused
    assert wishes.problems({**GOOD, "untested_platforms": True}, PLATFORMS, node, catalogue) == []
    assert wishes.problems(GOOD, PLATFORMS, facts(), catalogue) == []
