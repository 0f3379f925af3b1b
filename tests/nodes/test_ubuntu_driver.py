"""The driver from Ubuntu's packages, tried without an Ubuntu: modules that came built and signed, DKMS where there are none, and the undo.

The node is a Debian that calls itself Ubuntu 24.04 in /etc/os-release, from which its facts come. Ubuntu's archive is a stand-in that the
tests make (`tests/ubuntu_stand_in.py`); what else Ubuntu has, such as DKMS and a compiler, comes from Debian's. The tests build on each
other, in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import ubuntu_stand_in
from tests.support import Play, play
from trainyard.containers import Lab
from trainyard.paths import CHECKOUT

pytestmark = pytest.mark.nodes

SERVER = "http://127.0.0.1:8123"
KEY = "/usr/share/keyrings/ubuntu-archive-keyring.asc"
FIRST, NEWEST = ubuntu_stand_in.KERNELS
BARE = ubuntu_stand_in.BARE_KERNEL
WANTED = {"nvidia_driver_force": True, "trainyard_untested_platforms": True, "nvidia_driver_modules": "open"}
INSTALL = "nvidia_driver : Have the driver, and the headers that its modules are built with"


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A node that calls itself Ubuntu, with a kernel and its own archive."""
    archive = tmp_path_factory.mktemp("archive")
    archive.chmod(0o755)
    ubuntu_stand_in.make(archive)
    name = f"{request.path.stem}-{CHECKOUT}".replace("_", "-")
    lab = Lab(name, ["head"], tmp_path_factory.mktemp("lab"), mounts={archive: "/srv/archive"}, say=lambda _text: None)
    lab.down()
    lab.up()
    port = SERVER.rpartition(":")[2]
    ask(lab, f"systemd-run -q --unit archive python3 -m http.server {port} --bind 127.0.0.1 --directory /srv/archive")
    ask(lab, f"cp /srv/archive/key.asc {KEY}")
    write(lab, "/etc/apt/sources.list.d/ubuntu.sources", ubuntu_stand_in.SOURCE.format(url=f"{SERVER}/ubuntu/", key=KEY))
    write(lab, "/etc/os-release", ubuntu_stand_in.OS_RELEASE)
    ask(
        lab,
        f"apt-get -q update && apt-get -q -y install kmod linux-image-{FIRST} linux-modules-extra-{FIRST} linux-image-generic=6.8.0-31.31",
    )
    ask(lab, "apt-mark auto linux-image-generic")  # as where linux-generic brought it
    yield lab
    lab.down()


@pytest.fixture(scope="module")
def before(node: Lab) -> tuple[set[str], list[str]]:
    """The node's packages and files before the role was there."""
    return package_list(node), files(node)


def ask(node: Lab, script: str) -> str:
    return node.execute("head", ["sh", "-c", script]).strip()


def write(node: Lab, path: str, text: str) -> None:
    ask(node, f"cat > {path} << 'END'\n{text}END")


def driver(node: Lab, folder: Path, words: tuple[str, ...] = (), **variables: Any) -> Play:
    """Apply the role as the playbooks do, after the catalogue."""
    tasks = [{"name": role, "ansible.builtin.include_role": {"name": role, "public": True}} for role in ("catalog", "nvidia_driver")]
    return play(node, folder, tasks, words, **{**WANTED, **variables})


def package_list(node: Lab) -> set[str]:
    return set(ask(node, "dpkg-query -W -f '${binary:Package} ${db:Status-Abbrev}\n'").splitlines())


def files(node: Lab) -> list[str]:
    others = "-not -path '/var/lib/dkms/mok.*' -not -path '/lib/modules/*/modules.*'"  # a key that stays, and depmod's indexes
    return ask(
        node, f"find /etc/apt /etc/modprobe.d /usr/src /var/lib/dkms /lib/modules -not -type d {others} 2>/dev/null | sort"
    ).splitlines()


def installed(node: Lab, pattern: str) -> set[str]:
    return {line.split(":")[0].split()[0] for line in package_list(node) if re.match(pattern, line) and line.split()[1] in {"ii", "hi"}}


def modules(node: Lab) -> dict[str, tuple[str, str]]:
    """Return kernel of Ubuntu's -> version and licence of the driver's module on disk, of which there has to be one."""
    found: dict[str, tuple[str, str]] = {}
    for path in ask(node, "find /lib/modules/6.8.* -name 'nvidia.ko*'").splitlines():
        kernel = path.split("/")[3]
        assert kernel not in found, path
        version, licence = (ask(node, f"modinfo -F {field} {path}") for field in ("version", "license"))
        found[kernel] = (version, licence)
    return found


def assert_sound_and_done(node: Lab, folder: Path, **variables: Any) -> None:
    """Nothing is broken, an upgrade would move neither driver nor kernel, and a second run changes nothing."""
    assert ask(node, "dpkg --audit") == ""
    ask(node, "apt-get check")
    assert (
        re.findall(
            r"^(?:Inst|Remv) (\S*(?:nvidia|linux-(?:image|headers|modules))\S*)", ask(node, "apt-get --simulate dist-upgrade"), re.MULTILINE
        )
        == []
    )
    for words in ((), ("--check",)):
        again = driver(node, folder, words, **variables)
        assert (again.status, again.changed) == (0, {"head": 0}), again.text


def test_a_node_with_ubuntu_is_refused_unless_untested_systems_are_wanted(
    node: Lab, tmp_path: Path, before: tuple[set[str], list[str]]
) -> None:
    refused = driver(node, tmp_path, trainyard_untested_platforms=False)
    assert "This node runs Ubuntu 24.04, on which nothing of Trainyard ran yet." in refused.failures()
    tasks = [
        {"name": "catalog", "ansible.builtin.import_role": {"name": "catalog"}},
        {"name": "base", "ansible.builtin.import_role": {"name": "base", "tasks_from": "check"}},
    ]
    base = play(node, tmp_path, tasks)
    assert "set trainyard_untested_platforms: true for this node" in base.failures()
    assert play(node, tmp_path, tasks, trainyard_untested_platforms=True).status == 0
    assert (package_list(node), files(node)) == before


def test_check_mode_says_that_modules_would_come_built(node: Lab, tmp_path: Path, before: tuple[set[str], list[str]]) -> None:
    checked = driver(node, tmp_path, ("--check",))
    assert checked.status == 0, checked.text
    would = checked.results[INSTALL, "head"]["installed"]
    assert f"linux-modules-nvidia-580-server-open-{FIRST}" in would
    assert not [name for name in would if "dkms" in name]
    assert (package_list(node), files(node)) == before


def test_modules_that_ubuntu_built_and_signed_come_for_every_kernel(node: Lab, tmp_path: Path) -> None:
    done = driver(node, tmp_path)
    assert done.status == 0, done.text
    # Its flavour's package leads to the newest kernel, which comes along, whole, as Ubuntu's own package of it has it.
    assert ask(node, "dpkg-query -W -f '${Version}' linux-image-generic") == "6.8.0-40.40"
    assert f"linux-modules-extra-{NEWEST}" in installed(node, "linux-modules")
    assert ask(node, "apt-mark showauto linux-image-generic") == "linux-image-generic"
    assert modules(node) == dict.fromkeys([FIRST, NEWEST], ("580.173.02", "Dual MIT/GPL"))
    assert not installed(node, "dkms|nvidia-dkms|linux-headers")
    source = ask(node, "cat /etc/apt/sources.list.d/trainyard-nvidia-driver.sources")
    assert f"URIs: {SERVER}/ubuntu/\nSuites: noble\nComponents: restricted multiverse\nSigned-By: {KEY}" in source
    held = set(ask(node, "apt-mark showhold").split())
    assert {"linux-image-generic", "linux-modules-nvidia-580-server-open-generic", "libnvidia-compute-580-server"} <= held
    assert_sound_and_done(node, tmp_path)


@pytest.mark.parametrize(
    "wish, version, licence",
    [
        ({"nvidia_driver_branch": 595}, "595.71.05", "Dual MIT/GPL"),  # in multiverse
        ({"nvidia_driver_branch": 535, "nvidia_driver_modules": "proprietary"}, "535.309.01", "NVIDIA"),
    ],
)
def test_another_branch_takes_the_place_of_the_one_before(
    node: Lab, tmp_path: Path, wish: dict[str, Any], version: str, licence: str
) -> None:
    done = driver(node, tmp_path, **wish)
    assert done.status == 0, done.text
    assert modules(node) == dict.fromkeys([FIRST, NEWEST], (version, licence))
    branch = version.partition(".")[0]
    assert [name for name in installed(node, "(lib|linux-modules-)?nvidia") if f"-{branch}-server" not in name] == []
    assert_sound_and_done(node, tmp_path, **wish)


def test_dkms_builds_for_all_kernels_where_one_has_no_modules_of_ubuntus(node: Lab, tmp_path: Path) -> None:
    ask(node, f"apt-get -q -y install linux-image-{BARE}")
    done = driver(node, tmp_path)
    assert done.status == 0, done.text
    assert f"linux-modules-nvidia-580-server-open-{BARE} cannot be had" in done.text
    assert modules(node) == dict.fromkeys([FIRST, BARE, NEWEST], ("580.173.02", "Dual MIT/GPL"))
    assert {FIRST, BARE, NEWEST} <= set(re.findall(r", (\S+), x86_64: installed$", ask(node, "dkms status"), re.MULTILINE))
    assert not installed(node, "linux-modules-nvidia")
    assert_sound_and_done(node, tmp_path)


def test_without_that_kernel_modules_come_built_again(node: Lab, tmp_path: Path) -> None:
    ask(node, f"apt-get -q -y purge --allow-change-held-packages linux-image-{BARE} linux-headers-{BARE}")
    done = driver(node, tmp_path)
    assert done.status == 0, done.text
    assert modules(node) == dict.fromkeys([FIRST, NEWEST], ("580.173.02", "Dual MIT/GPL"))
    assert not installed(node, "dkms|nvidia-dkms")
    assert_sound_and_done(node, tmp_path)


def test_undo_leaves_packages_and_files_as_they_were(node: Lab, tmp_path: Path, before: tuple[set[str], list[str]]) -> None:
    gone = driver(node, tmp_path, trainyard_state="absent")
    assert gone.status == 0, gone.text
    # The kernel that came along stays: by now it may be the one that runs.
    assert package_list(node) ^ before[0] == {f"linux-{part}-{NEWEST} ii " for part in ("image", "modules-extra")}
    assert set(files(node)) ^ set(before[1]) == set()
    assert ask(node, "apt-mark showhold") == ""
    again = driver(node, tmp_path, trainyard_state="absent")
    assert (again.status, again.changed) == (0, {"head": 0})
