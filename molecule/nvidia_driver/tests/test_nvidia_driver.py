"""A driver that was installed without a GPU: built and ready, and never loaded."""

from __future__ import annotations

import re
from typing import Any

import pytest

BRANCHES = {"bookworm": "535", "trixie": "550"}
HELD = {"linux-headers-amd64", "libcuda1", "nvidia-driver-libs", "nvidia-kernel-dkms", "nvidia-persistenced", "nvidia-smi"}


@pytest.fixture
def branch(host: Any) -> str:
    return BRANCHES[host.system_info.codename]


@pytest.fixture
def kernel(host: Any) -> str:
    """The kernel whose headers the distribution's metapackage brought."""
    depends = host.check_output("dpkg-query -W -f '${Depends}' linux-headers-amd64")
    found = re.match(r"linux-headers-(\S+)", depends)
    assert found, depends
    return found.group(1)


def test_dkms_built_and_installed_the_modules_for_the_distributions_kernel(host: Any, branch: str, kernel: str) -> None:
    entries = [line for line in host.check_output("dkms status").splitlines() if kernel in line]
    assert len(entries) == 1
    assert re.match(rf"nvidia-current/{branch}\.[\d.]+, {re.escape(kernel)}, x86_64: installed$", entries[0])


@pytest.mark.parametrize("module", ["", "-uvm", "-modeset", "-drm", "-peermem"])
def test_each_module_is_there_and_is_the_branchs_for_that_kernel(host: Any, branch: str, kernel: str, module: str) -> None:
    found = host.check_output("find /lib/modules/%s/updates/dkms -name %s", kernel, f"nvidia-current{module}.ko*")
    assert host.check_output("modinfo -F vermagic %s", found).split()[0] == kernel
    if module != "-peermem":  # has no version
        assert host.check_output("modinfo -F version %s", found).startswith(f"{branch}.")


def test_library_and_module_are_of_one_version(host: Any, kernel: str) -> None:
    built = host.check_output("dkms status -k %s", kernel).split(",")[0].split("/")[1]
    library = host.check_output("readlink -f /usr/lib/x86_64-linux-gnu/libcuda.so.1")
    assert library.endswith(f"libcuda.so.{built}")


def test_nvidia_smi_says_that_there_is_no_driver_to_talk_to(host: Any) -> None:
    done = host.run("nvidia-smi")
    assert done.rc == 9
    assert "couldn't communicate with the NVIDIA driver" in done.stdout


def test_driver_and_headers_are_held(host: Any) -> None:
    assert set(host.check_output("apt-mark showhold").split()) >= HELD


def test_an_upgrade_moves_none_of_them(host: Any) -> None:
    assert not re.search(r"^(?:Inst|Remv) \S*nvidia", host.check_output("apt-get --simulate dist-upgrade"), re.MULTILINE)


def test_modprobe_leaves_nouveau_alone(host: Any) -> None:
    settings = host.check_output("modprobe --showconfig").splitlines()
    assert "blacklist nouveau" in settings
    assert "options nouveau modeset=0" in settings


def test_the_systems_own_sources_are_as_they_were_and_ours_take_the_same_archives(host: Any) -> None:
    own = host.file("/etc/apt/sources.list").content_string
    ours = host.file("/etc/apt/sources.list.d/trainyard-nvidia-driver.sources").content_string
    assert "non-free" not in own
    archives = {line.split()[1].rstrip("/") for line in own.splitlines() if line.startswith("deb ")}
    assert {line.split()[1].rstrip("/") for line in ours.splitlines() if line.startswith("URIs:")} == archives
    assert host.run("apt-get -q update --error-on=any").rc == 0
    assert "configured multiple times" not in host.run("apt-get -q update").stderr


def test_no_package_is_broken(host: Any) -> None:
    assert host.check_output("dpkg --audit") == ""
    assert host.run("apt-get check").rc == 0


def test_the_persistence_daemon_waits_for_a_gpu_and_no_other_unit_failed(host: Any) -> None:
    assert host.service("nvidia-persistenced").is_enabled
    failed = host.check_output("systemctl --failed --plain --no-legend").splitlines()
    assert [line.split()[0] for line in failed] in ([], ["nvidia-persistenced.service"])  # its package starts it, and it finds no GPU
