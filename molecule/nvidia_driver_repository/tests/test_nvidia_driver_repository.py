"""A driver from the vendor's repository, which is a stand-in: its kernel module drives nothing, and is really built."""

from __future__ import annotations

import re
from typing import Any

import pytest

VERSION = "580.105.08"


@pytest.fixture
def kernel(host: Any) -> str:
    """The kernel whose headers the distribution's metapackage brought."""
    found = re.match(r"linux-headers-(\S+)", host.check_output("dpkg-query -W -f '${Depends}' linux-headers-cloud-amd64"))
    assert found
    return found.group(1)


def test_the_newest_release_of_the_branch_is_there_and_not_of_a_newer_branch(host: Any) -> None:
    for name in ("nvidia-driver-cuda", "nvidia-kernel-open-dkms", "libcuda1"):
        assert host.package(name).version == f"{VERSION}-1"


def test_dkms_built_the_open_module_for_the_distributions_kernel(host: Any, kernel: str) -> None:
    assert host.check_output("dkms status").strip() == f"nvidia/{VERSION}, {kernel}, x86_64: installed"
    found = host.check_output("find /lib/modules/%s/updates/dkms -name 'nvidia.ko*'", kernel)
    assert host.check_output("modinfo -F version %s", found) == VERSION
    assert host.check_output("modinfo -F license %s", found) == "Dual MIT/GPL"


def test_one_source_is_left_and_apt_reads_it_without_a_complaint(host: Any) -> None:
    for name in ("cuda.list", "nvidia.sources"):
        lines = host.file(f"/etc/apt/sources.list.d/{name}").content_string.splitlines()
        assert all(line.startswith("# Set aside by Trainyard (nvidia): ") for line in lines), lines
    done = host.run("apt-get -q update --error-on=any")
    assert done.rc == 0, done.stderr
    assert not re.search("configured multiple times|Conflicting|NO_PUBKEY", done.stdout + done.stderr)


def test_the_withdrawn_key_is_trusted_no_more(host: Any) -> None:
    assert not host.file("/etc/apt/trusted.gpg.d/nvidia.gpg").exists
    assert not host.file("/usr/share/keyrings/cuda-old.gpg").exists
    assert host.file("/etc/apt/trusted.gpg.d/nvidia.gpg.trainyard-nvidia.save").exists


def test_the_vendor_never_takes_over_what_the_distribution_has(host: Any) -> None:
    candidate = re.search(r"Candidate: (\S+)", host.check_output("apt-cache policy tmux"))
    assert candidate
    assert not candidate.group(1).startswith("99")


def test_an_upgrade_moves_nothing_of_it(host: Any) -> None:
    assert not re.search(
        r"^(?:Inst|Remv) \S*(nvidia|cuda|linux-headers)", host.check_output("apt-get --simulate dist-upgrade"), re.MULTILINE
    )
    held = set(host.check_output("apt-mark showhold").split())
    assert held >= {"nvidia-driver-cuda", "nvidia-kernel-open-dkms", "linux-headers-cloud-amd64"}


def test_no_package_is_broken(host: Any) -> None:
    assert host.check_output("dpkg --audit") == ""
    assert host.run("apt-get check").rc == 0
