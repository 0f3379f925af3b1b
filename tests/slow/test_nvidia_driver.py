"""The driver on a real node, with modules that are really built: refusals, a second kernel, another branch, and back to nothing.

The node is a container and has no GPU, so that nothing here is ever loaded. The tests build on each other, in order.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support import Play, play
from trainyard.containers import Lab

pytestmark = pytest.mark.slow

FORCED = {"nvidia_driver_force": True, "nvidia_driver_kernels": ["amd64"]}
FILES = ["/etc/apt/sources.list.d/trainyard-nvidia-driver.sources", "/etc/modprobe.d/trainyard-nvidia-driver.conf"]


def driver(node: Lab, folder: Path, words: tuple[str, ...] = (), **variables: Any) -> Play:
    """Apply the role; on a busy machine, building modules takes its time."""
    task = {"name": "role", "ansible.builtin.include_role": {"name": "nvidia_driver"}}
    return play(node, folder, [task], words, timeout=1800, **variables)


def ask(node: Lab, script: str) -> str:
    return node.execute("head", ["sh", "-c", script]).strip()


def package_list(node: Lab) -> dict[str, str]:
    """Return every package that dpkg knows of, removed ones with their configuration left among them, with its state."""
    lines = ask(node, "dpkg-query -W -f '${binary:Package} ${db:Status-Abbrev}\\n'").splitlines()
    return {line.split()[0]: line.split()[1] for line in lines}


def state_of_disk(node: Lab) -> list[str]:
    """Return the files where the driver has some.

    DKMS's signing key stays, since the firmware may know it; and Debian leaves depmod's lists of a kernel whose headers alone were there.
    """
    folders = "/etc/apt /etc/modprobe.d /etc/modules-load.d /etc/dkms /etc/nvidia /usr/src /var/lib/dkms /lib/modules"
    others = "-not -path '/var/lib/dkms/mok.*' -not -path '/lib/modules/*/modules.*'"
    return ask(node, f"find {folders} -not -type d {others} 2>/dev/null | sort").splitlines()


def modules(node: Lab) -> dict[str, str]:
    """Return kernel -> module and version that DKMS installed for it."""
    found = re.findall(r"^(\S+), (\S+), x86_64: installed$", ask(node, "dkms status"), re.MULTILINE)
    return {kernel: module for module, kernel in found}


def assert_sound(node: Lab) -> None:
    """Nothing is broken, and an upgrade would move neither driver nor kernel."""
    assert ask(node, "dpkg --audit") == ""
    ask(node, "apt-get check")
    assert not re.search(r"^(Inst|Remv) \S*(nvidia|linux-headers)", ask(node, "apt-get --simulate dist-upgrade"), re.MULTILINE)


@pytest.fixture(scope="module")
def before(node: Lab) -> tuple[dict[str, str], list[str]]:
    """The node's packages and files before the role was there."""
    return package_list(node), state_of_disk(node)


@pytest.mark.parametrize(
    "variables, words",
    [
        ({"nvidia_driver_branch": 580}, "nvidia_driver_branch: Debian 12 has no packages of branch 580; right are 535, 470, and 0"),
        (
            {"nvidia_driver_modules": "open"},
            "nvidia_driver_modules: Debian 12 has no open modules that fit its branch 535; right is proprietary",
        ),
        ({"nvidia_driver_source": "ppa"}, "nvidia_driver_source: 'ppa' is none of distribution, nvidia_repository and runfile."),
        ({"nvidia_driver_reboot": "tonight"}, "nvidia_driver_reboot: 'tonight' is none of never, if_idle and now."),
        ({"nvidia_driver_kernels": ["a b"]}, "nvidia_driver_kernels: 'a b' is no kernel"),
    ],
)
def test_a_driver_that_cannot_be_had_is_refused_before_any_change(
    node: Lab, tmp_path: Path, before: tuple[dict[str, str], list[str]], variables: dict[str, Any], words: str
) -> None:
    refused = driver(node, tmp_path, **{**FORCED, **variables})
    assert words in refused.failures()
    assert refused.changed == {"head": 0}


def test_without_a_gpu_nothing_is_done_and_that_is_said(node: Lab, tmp_path: Path, before: tuple[dict[str, str], list[str]]) -> None:
    done = driver(node, tmp_path)
    assert (done.status, done.changed) == (0, {"head": 0})
    assert "No NVIDIA GPU is on the bus of head, so no driver is installed." in done.text
    assert (package_list(node), state_of_disk(node)) == before


def test_check_mode_says_what_would_come_and_changes_nothing(node: Lab, tmp_path: Path, before: tuple[dict[str, str], list[str]]) -> None:
    checked = driver(node, tmp_path, ("--check", "--diff"), **FORCED)
    assert checked.status == 0, checked.text
    would = checked.results["nvidia_driver : Have the driver, and the headers that its modules are built with", "head"]
    assert "nvidia-kernel-dkms" in would["installed"]
    assert package_list(node) == before[0]
    assert not any(ask(node, f"ls {path} 2>/dev/null || true") for path in FILES)


def test_the_distributions_driver_comes_and_a_second_run_changes_nothing(
    node: Lab, tmp_path: Path, before: tuple[dict[str, str], list[str]]
) -> None:
    ask(node, "apt-mark hold sed")  # somebody's own hold
    done = driver(node, tmp_path, **FORCED)
    assert done.status == 0, done.text
    assert "No NVIDIA GPU is on the bus: whether the driver loads" in done.text
    assert [module.split("/")[1].split(".")[0] for module in modules(node).values()] == ["535"]
    assert_sound(node)
    again = driver(node, tmp_path, **FORCED)
    assert (again.status, again.changed) == (0, {"head": 0})
    assert driver(node, tmp_path, ("--check",), **FORCED).changed == {"head": 0}


def test_a_second_kernels_headers_bring_its_module_and_one_that_was_lost_is_built_again(node: Lab, tmp_path: Path) -> None:
    (first,) = modules(node)
    ask(node, "apt-get -qq -y --no-install-recommends install linux-headers-cloud-amd64")
    assert driver(node, tmp_path, **FORCED).status == 0
    (second,) = set(modules(node)) - {first}
    assert "cloud" in second
    ask(node, f"dkms uninstall $(dkms status -k {second} | cut -d, -f1) -k {second}")
    assert set(modules(node)) == {first}
    healed = driver(node, tmp_path, **FORCED)
    assert (healed.status, healed.changed) == (0, {"head": 1}), healed.text
    assert set(modules(node)) == {first, second}
    # Its metapackage is held by now, like every one of a kernel.
    ask(node, "apt-mark unhold linux-headers-cloud-amd64")
    ask(node, "apt-get -qq -y purge linux-headers-cloud-amd64 && apt-get -qq -y --purge autoremove")
    assert_sound(node)


@pytest.mark.parametrize("branch, names", [(470, "nvidia-tesla-470"), (535, "nvidia-current")])
def test_another_branch_takes_the_place_of_the_one_before(node: Lab, tmp_path: Path, branch: int, names: str) -> None:
    done = driver(node, tmp_path, nvidia_driver_branch=branch, **FORCED)
    assert done.status == 0, done.text
    assert [module.split(".")[0] for module in modules(node).values()] == [f"{names}/{branch}"]
    assert ask(node, "readlink -f /usr/lib/x86_64-linux-gnu/libcuda.so.1").rpartition("libcuda.so.")[2].startswith(f"{branch}.")
    # Not even their configuration is left.
    rivals = (
        r"tesla-470" if branch == 535 else r"^(nvidia-(alternative|kernel-dkms|kernel-support|smi|driver-libs)|libcuda1|libnvidia-ml1)(:|$)"
    )
    assert [name for name in package_list(node) if re.search(rivals, name)] == []
    assert_sound(node)
    assert driver(node, tmp_path, nvidia_driver_branch=branch, **FORCED).changed == {"head": 0}


def test_undo_leaves_the_packages_and_files_as_they_were_and_what_somebody_asked_for_since(
    node: Lab, tmp_path: Path, before: tuple[dict[str, str], list[str]]
) -> None:
    packages, files = before
    ask(node, "apt-get -qq -y install patch")  # came along with dkms; now somebody wants it
    checked = driver(node, tmp_path, ("--check",), trainyard_state="absent")
    assert checked.status == 0, checked.text
    assert modules(node), "check mode removed something"
    gone = driver(node, tmp_path, trainyard_state="absent")
    assert gone.status == 0, gone.text
    assert package_list(node) == {**packages, "sed": "hi", "patch": "ii"}
    assert state_of_disk(node) == files
    assert ask(node, "apt-mark showhold") == "sed"
    assert_sound(node)
    again = driver(node, tmp_path, trainyard_state="absent")
    assert (again.status, again.changed) == (0, {"head": 0})
