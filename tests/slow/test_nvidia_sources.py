"""The driver from the vendor's repository and from the vendor's runfile, and from one source to the other.

Repository and runfile are stand-ins that the tests make; the kernel module in them drives nothing and is really built by DKMS. The
distribution's driver is the real one. The tests build on each other, in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import runfile_stand_in, vendor_stand_in
from tests.slow.test_nvidia_driver import ask, assert_sound, modules, package_list, state_of_disk
from tests.support import Play, play
from trainyard.containers import Lab
from trainyard.paths import CHECKOUT

pytestmark = pytest.mark.slow

SERVER = "http://127.0.0.1:8123"
REPOSITORY = {"nvidia_driver_source": "nvidia_repository", "nvidia_driver_branch": 580, "nvidia_driver_modules": "open"}
DAEMON = "trainyard-nvidia-persistenced.service"
OUR_FILES = "/usr/bin/nvidia* /usr/lib/x86_64-linux-gnu/libcuda* /var/lib/nvidia /var/lib/trainyard /var/cache/trainyard /usr/src/nvidia*"


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vendor's server, as a folder."""
    out = tmp_path_factory.mktemp("vendor")
    out.chmod(0o755)
    vendor_stand_in.make(out)
    return out


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, stand_in: Path) -> Iterator[Lab]:
    """A node on which the vendor's server is served."""
    name = f"{request.path.stem}-{CHECKOUT}".replace("_", "-")
    lab = Lab(name, ["head"], tmp_path_factory.mktemp("lab"), mounts={stand_in: "/srv/vendor"}, say=lambda _text: None)
    lab.down()
    lab.up()
    ask(lab, f"systemd-run -q --unit vendor python3 -m http.server {SERVER.rpartition(':')[2]} --bind 127.0.0.1 --directory /srv/vendor")
    ask(lab, "apt-get -q update")
    yield lab
    lab.down()


@pytest.fixture
def common(stand_in: Path) -> dict[str, Any]:
    """What every play says."""
    return {
        "nvidia_driver_force": True,
        "nvidia_driver_kernels": ["cloud-amd64"],
        "nvidia_driver_repository": {
            "url": f"{SERVER}/{vendor_stand_in.LAYOUT}/",
            "fingerprints": [(stand_in / "fingerprint").read_text()],
        },
    }


@pytest.fixture(scope="module")
def before(node: Lab) -> tuple[dict[str, str], list[str], str]:
    """The node's packages, files and sources before the role was there."""
    return package_list(node), state_of_disk(node), ask(node, f"cat /etc/apt/sources.list; ls -d {OUR_FILES} 2>/dev/null || true")


def driver(node: Lab, folder: Path, words: tuple[str, ...] = (), **variables: Any) -> Play:
    """Apply the role as the playbooks do, after the catalogue."""
    tasks = [{"name": role, "ansible.builtin.include_role": {"name": role, "public": True}} for role in ("catalog", "nvidia_driver")]
    return play(node, folder, tasks, words, timeout=1800, **variables)


def assert_installed(node: Lab, version: str, licence: str) -> None:
    """The one driver that is there is of this version and flavour, and sound."""
    (kernel,) = modules(node)
    assert re.match(rf"nvidia\S*/{re.escape(version)}", modules(node)[kernel])
    path = ask(node, f"find /lib/modules/{kernel}/updates/dkms -name 'nvidia*.ko*' | head -n 1")
    assert ask(node, f"modinfo -F license {path}") == licence
    assert_sound(node)


def installed_version(node: Lab, name: str) -> str:
    return ask(node, f"dpkg-query -W -f '${{Version}}' {name}")


def test_a_branch_that_the_repository_does_not_have_is_refused_with_what_it_has(
    node: Lab, tmp_path: Path, common: dict[str, Any], before: tuple[dict[str, str], list[str], str]
) -> None:
    refused = driver(node, tmp_path, **common, **{**REPOSITORY, "nvidia_driver_branch": 610})
    said = refused.failures()
    assert "nvidia-driver-cuda has to have the version 610.*" in said
    assert "known are 590.44.01-1, 580.105.08-1, 580.95.05-1, 575.57.08-1" in said
    assert package_list(node) == before[0]


# From a new branch to an exact release of it, an older branch in the other flavour, and up again.
@pytest.mark.parametrize(
    "wish, version, licence",
    [
        ({}, "580.105.08", "Dual MIT/GPL"),
        ({"nvidia_driver_version": "580.95.05"}, "580.95.05", "Dual MIT/GPL"),
        ({"nvidia_driver_branch": 575, "nvidia_driver_modules": "proprietary"}, "575.57.08", "NVIDIA"),
        ({"nvidia_driver_branch": 590}, "590.44.01", "Dual MIT/GPL"),
    ],
)
def test_each_branch_release_and_flavour_takes_the_place_of_the_one_before(
    node: Lab, tmp_path: Path, common: dict[str, Any], wish: dict[str, Any], version: str, licence: str
) -> None:
    done = driver(node, tmp_path, **common, **{**REPOSITORY, **wish})
    assert done.status == 0, done.text
    assert_installed(node, version, licence)
    assert installed_version(node, "libcuda1") == installed_version(node, "nvidia-driver-cuda") == f"{version}-1"
    again = driver(node, tmp_path, **common, **{**REPOSITORY, **wish})
    assert (again.status, again.changed) == (0, {"head": 0})


def test_a_switch_that_was_killed_half_way_is_finished(node: Lab, tmp_path: Path, common: dict[str, Any]) -> None:
    # A power cut in the middle of dpkg's work: unpacked, not configured, and no hold any more.
    ask(node, "apt-mark unhold nvidia-driver-cuda nvidia-kernel-open-dkms")
    folder = f"/srv/vendor/{vendor_stand_in.LAYOUT}"
    ask(node, f"dpkg --unpack {folder}/nvidia-kernel-support_580.95.05-1_amd64.deb {folder}/nvidia-kernel-open-dkms_580.95.05-1_amd64.deb")
    done = driver(node, tmp_path, **common, **{**REPOSITORY, "nvidia_driver_version": "580.95.05"})
    assert done.status == 0, done.text
    assert_installed(node, "580.95.05", "Dual MIT/GPL")


def test_the_distributions_driver_takes_the_place_of_the_vendors_and_the_vendors_source_goes(
    node: Lab, tmp_path: Path, common: dict[str, Any]
) -> None:
    # Without headers, so that nothing is built: that Debian's modules build is tried elsewhere, and takes long.
    without = {**common, "nvidia_driver_kernels": []}
    done = driver(node, tmp_path, **without)
    assert done.status == 0, done.text
    assert installed_version(node, "libcuda1").startswith("535.")
    assert installed_version(node, "nvidia-kernel-dkms").startswith("535.")
    assert not {"nvidia-driver-cuda", "nvidia-kernel-open-dkms"} & set(package_list(node))
    assert ask(node, "find /etc/apt -name 'trainyard-nvidia.*'") == ""
    assert "127.0.0.1" not in ask(node, "apt-cache policy")
    assert_sound(node)
    assert driver(node, tmp_path, **without).changed == {"head": 0}


@pytest.fixture(scope="module")
def runfiles(stand_in: Path) -> dict[str, tuple[Path, str]]:
    return {version: runfile_stand_in.make(stand_in, version) for version in ("580.95.05", "580.105.08")}


def runfile(runfiles: dict[str, tuple[Path, str]], version: str, **more: Any) -> dict[str, Any]:
    path, digest = runfiles[version]
    return {
        **REPOSITORY,
        "nvidia_driver_source": "runfile",
        "nvidia_driver_version": version,
        "nvidia_driver_runfile": f"{SERVER}/{path.name}",
        "nvidia_driver_runfile_sha256": digest,
        **more,
    }


def test_a_wrong_runfile_is_refused_before_the_other_driver_goes(
    node: Lab, tmp_path: Path, common: dict[str, Any], runfiles: dict[str, tuple[Path, str]]
) -> None:
    packages = package_list(node)
    wrong = driver(node, tmp_path, **common, **runfile(runfiles, "580.95.05", nvidia_driver_runfile_sha256="0" * 64))
    assert "It is another file, or it was altered on the way" in wrong.failures()
    other = driver(node, tmp_path, **common, **runfile(runfiles, "580.95.05", nvidia_driver_version="580.105.08"))
    assert "holds the driver 580.95.05, and 580.105.08 is wanted" in other.failures()
    assert package_list(node) == packages


def test_a_runfile_takes_the_place_of_packages_and_goes_on_after_an_interruption(
    node: Lab, tmp_path: Path, common: dict[str, Any], runfiles: dict[str, tuple[Path, str]]
) -> None:
    # A part of the download is there already, and the installer is killed in its middle.
    name = runfiles["580.95.05"][0].name
    ask(node, f"mkdir -p /var/cache/trainyard/runfiles && head -c 1000 /srv/vendor/{name} > /var/cache/trainyard/runfiles/{name}.part")
    ask(node, "touch /run/runfile-stops-here")
    killed = driver(node, tmp_path, **common, **runfile(runfiles, "580.95.05"))
    assert "Installing the driver failed with the exit status -9" in killed.failures()
    ask(node, "rm /run/runfile-stops-here")
    done = driver(node, tmp_path, **common, **runfile(runfiles, "580.95.05"))
    assert done.status == 0, done.text
    assert_installed(node, "580.95.05", "Dual MIT/GPL")
    assert "libcuda1" not in package_list(node)
    assert ask(node, f"systemd-analyze verify {DAEMON} 2>&1; systemctl is-enabled {DAEMON}") == "enabled"
    again = driver(node, tmp_path, **common, **runfile(runfiles, "580.95.05"))
    assert (again.status, again.changed) == (0, {"head": 0})
    assert driver(node, tmp_path, ("--check",), **common, **runfile(runfiles, "580.95.05")).changed == {"head": 0}


def test_another_runfile_from_the_controller_takes_its_place(
    node: Lab, tmp_path: Path, common: dict[str, Any], runfiles: dict[str, tuple[Path, str]]
) -> None:
    here = {"nvidia_driver_runfile": str(runfiles["580.105.08"][0]), "nvidia_driver_modules": "proprietary"}
    done = driver(node, tmp_path, **common, **runfile(runfiles, "580.105.08", **here))
    assert done.status == 0, done.text
    assert_installed(node, "580.105.08", "NVIDIA")
    assert driver(node, tmp_path, **common, **runfile(runfiles, "580.105.08", **here)).changed == {"head": 0}


def test_undo_leaves_packages_files_and_sources_as_they_were(
    node: Lab, tmp_path: Path, before: tuple[dict[str, str], list[str], str]
) -> None:
    checked = driver(node, tmp_path, ("--check",), trainyard_state="absent")
    assert checked.status == 0, checked.text
    assert modules(node), "check mode removed something"
    gone = driver(node, tmp_path, trainyard_state="absent")
    assert gone.status == 0, gone.text
    left = ask(node, f"find {OUR_FILES} -type f 2>/dev/null || true").splitlines()
    assert [path for path in left if not re.match(r"/var/lib/trainyard/(packages|dependencies)/nvidia_driver$", path)] == []
    assert ask(node, f"find /etc/systemd -name {DAEMON}; getent passwd trainyard-nvpd || true") == ""
    assert package_list(node) == before[0]
    # Where a kernel has headers alone, as in a container, depmod's indexes stay in its folder.
    assert [path for path in state_of_disk(node) if not re.match(r"/lib/modules/[^/]+/modules\.", path)] == before[1]
    assert ask(node, "cat /etc/apt/sources.list") == before[2].strip().partition("\n/usr")[0]
    assert_sound(node)
    again = driver(node, tmp_path, trainyard_state="absent")
    assert (again.status, again.changed) == (0, {"head": 0})


def test_a_driver_that_somebody_else_installed_in_another_way_is_refused_and_left_alone(
    node: Lab, tmp_path: Path, common: dict[str, Any], runfiles: dict[str, tuple[Path, str]]
) -> None:
    ask(node, "mkdir -p /var/lib/nvidia && printf '570.26\\nNVIDIA\\n' > /var/lib/nvidia/log")
    over_runfile = driver(node, tmp_path, **common, **REPOSITORY)
    assert "A driver 570.26 is there that somebody installed by NVIDIA's installer" in over_runfile.failures()
    assert over_runfile.changed == {"head": 0}
    assert driver(node, tmp_path, trainyard_state="absent").changed == {"head": 0}
    ask(node, "test -f /var/lib/nvidia/log && rm -r /var/lib/nvidia")
    ask(node, f"dpkg -i /srv/vendor/{vendor_stand_in.LAYOUT}/libcuda1_575.57.08-1_amd64.deb")
    over_packages = driver(node, tmp_path, **common, **runfile(runfiles, "580.95.05"))
    assert "A driver from packages is installed (libcuda1), which the runfile must not be laid over" in over_packages.failures()
    assert over_packages.changed == {"head": 0}
