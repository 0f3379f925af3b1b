"""The final check of the role nvidia_driver, run as it is on a real node, against every way in which a driver does not work.

Stand-ins at the very edge: the folder that gpu_info reads instead of / (its parameter root), and nvidia-smi, dkms and modinfo, which come
first in PATH and answer as the real ones do, with the recorded texts where there are some. The module, the role's tasks and the node are
real.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import play
from trainyard.containers import Lab
from trainyard.paths import CHECKOUT, REPOSITORY

pytestmark = pytest.mark.nodes

RECORDED = REPOSITORY / "collections/ansible_collections/trainyard/core/tests/fixtures"
RUNNING, NEXT = "6.1.0-40-amd64", "6.1.0-41-amd64"
GPUS = ("0000:15:00.0", "0000:b2:00.0")
VERSION = "470.82.01"
SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


class Tree:
    """A node's files and programs, sound at first: two V100 with 470.82.01, built for both kernels, of which the newer one boots next."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin = folder / "root", folder / "bin"
        self.versions = {RUNNING: VERSION, NEXT: VERSION}
        self.licence = "NVIDIA"
        self.put("proc/sys/kernel/osrelease", RUNNING)
        self.load("nvidia 1 0 - Live 0x0 (POE)\n", VERSION)
        for address in GPUS:
            self.gpu(address)
        for kernel in (RUNNING, NEXT):
            self.put(f"boot/vmlinuz-{kernel}")
            self.put(f"lib/modules/{kernel}/build/Makefile")
            self.put(f"lib/modules/{kernel}/updates/dkms/nvidia-current.ko")
        self.put("etc/modprobe.d/trainyard-nvidia-driver.conf", "blacklist nouveau\n")
        self.smi("v100_470.xml")
        self.program("dkms", "exit 0")

    def put(self, path: str, content: str | bytes = "") -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def remove(self, *paths: str) -> None:
        for path in paths:
            (self.root / path).unlink()

    def load(self, modules: str, version: str = "") -> None:
        self.put("proc/modules", modules)
        self.put("sys/module/nvidia/version", version)

    def gpu(self, address: str, config: bytes = b"\xde\x10\xb4\x1d") -> None:
        for name, value in {"vendor": "0x10de", "device": "0x1db1", "class": "0x030200"}.items():
            self.put(f"sys/bus/pci/devices/{address}/{name}", value)
        self.put(f"sys/bus/pci/devices/{address}/config", config)

    def bind(self, address: str, driver: str) -> None:
        (self.root / "sys/bus/pci/devices" / address / "driver").symlink_to(f"../../../bus/pci/drivers/{driver}")

    def program(self, name: str, script: str) -> None:
        self.bin.mkdir(parents=True, exist_ok=True)
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def smi(self, recorded: str, rc: int = 0) -> None:
        self.program("nvidia-smi", f"cat << 'END'\n{(RECORDED / 'nvidia_smi' / recorded).read_text()}\nEND\nexit {rc}")

    def finish(self) -> None:
        known = "\n".join(f"*/{kernel}/*) echo version: {version} ;;" for kernel, version in self.versions.items())
        lines = f'echo "filename: $path"; case "$path" in\n{known}\nesac; echo license: {self.licence}'
        self.program("modinfo", f"for path; do {lines}; done")


@dataclass(frozen=True)
class Case:
    """A way in which a driver does not work.

    Attributes:
        breaks: what makes a sound node such a one.
        words: what the play has to fail with; empty where it has to pass.
        variables: of the role.
    """

    breaks: Callable[[Tree], Any]
    words: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()


def module(kernel: str) -> str:
    return f"lib/modules/{kernel}/updates/dkms/nvidia-current.ko"


def headers(kernel: str) -> str:
    return f"lib/modules/{kernel}/build/Makefile"


def all_of(*steps: Callable[[Tree], Any]) -> Callable[[Tree], Any]:
    return lambda tree: [step(tree) for step in steps]


def silent(tree: Tree) -> None:
    tree.smi("no_driver.txt", 9)
    tree.load("")


def nouveau(tree: Tree) -> None:
    tree.smi("no_driver.txt", 9)
    tree.load("nouveau 1 0 - Live 0x0\n")


REBOOT = "A reboot was not allowed: reboot the node yourself, or set nvidia_driver_reboot"
CASES = {
    "sound": Case(lambda tree: None, ()),
    "library and module differ": Case(
        lambda tree: tree.smi("mismatch_535.txt", 18), (f"The module in memory is of version {VERSION}, the library of 535.261:", REBOOT)
    ),
    "library and module differ and the node is busy": Case(
        lambda tree: tree.smi("mismatch.txt", 18),
        ("the library of another version:", "The node was not rebooted because", "nvidia-smi cannot tell whether a GPU computes"),
        (("nvidia_driver_reboot", "if_idle"),),
    ),
    "no module for the next kernel": Case(
        lambda tree: tree.remove(module(NEXT)),
        (
            f"There is no NVIDIA module for the kernel {NEXT}, which boots next, although its headers are there",
            f"dkms autoinstall -k {NEXT}",
        ),
    ),
    "no headers for the next kernel": Case(
        lambda tree: tree.remove(module(NEXT), headers(NEXT)),
        (f"There is no NVIDIA module for the kernel {NEXT}, which boots next, because its headers are not there",),
    ),
    "no module for the running kernel": Case(
        all_of(silent, lambda tree: tree.remove(module(RUNNING), headers(RUNNING))),
        (f"There is no NVIDIA module for the kernel {RUNNING}, which runs. There is one for {NEXT}, which boots next: reboot.", REBOOT),
    ),
    "no module for the running kernel, which boots again": Case(
        all_of(silent, lambda tree: tree.remove(module(RUNNING), f"boot/vmlinuz-{NEXT}")),
        (f"There is no NVIDIA module for the kernel {RUNNING}, which runs. Install its headers (linux-headers-{RUNNING})",),
    ),
    "module of another branch": Case(
        lambda tree: tree.versions.update({NEXT: "535.261.03"}),
        (f"The module for the kernel {NEXT}, which boots next, is of version 535.261.03, and the plan says branch 470.",),
    ),
    "module of the other flavour": Case(
        lambda tree: setattr(tree, "licence", "'Dual MIT/GPL'"), ("is the open one, and the plan says proprietary. Remove the other one.",)
    ),
    "older module in memory": Case(
        lambda tree: tree.versions.update({RUNNING: "470.256.02"}),
        (f"The module in memory is of version {VERSION}, the one on disk of 470.256.02. A reboot loads it.", REBOOT),
    ),
    "another branch answers": Case(
        all_of(lambda tree: tree.smi("a100_mig_535.xml"), lambda tree: tree.load("nvidia 1 0 - Live 0x0 (POE)\n", "535.104.05")),
        ("nvidia-smi answers with version 535.", "and the plan says branch 470.", REBOOT),
    ),
    "dkms has something else than it built": Case(
        lambda tree: tree.program("dkms", f"cat << 'END'\n{(RECORDED / 'dkms/debian12.txt').read_text()}\nEND"),
        ("What DKMS has of nvidia", "is not what it built", "dkms remove nvidia"),
    ),
    "dkms is broken": Case(
        lambda tree: tree.program("dkms", "echo 'Error! The database is locked.' >&2; exit 3"),
        ("dkms status did not answer properly (Error! The database is locked.)",),
    ),
    "secure boot": Case(
        all_of(silent, lambda tree: tree.put(SECURE_BOOT, b"\x06\0\0\0\x01")),
        ("Secure Boot is on and the kernel did not take the NVIDIA module", "mokutil --import /var/lib/dkms/mok.pub"),
    ),
    "nouveau until the reboot": Case(nouveau, ("nouveau is loaded and has the GPUs. It is blacklisted now", REBOOT)),
    "nouveau for good": Case(
        all_of(nouveau, lambda tree: tree.remove("etc/modprobe.d/trainyard-nvidia-driver.conf")),
        ("nouveau is loaded and has the GPUs. Nothing keeps it from being loaded",),
    ),
    "module not loaded": Case(silent, (f"The NVIDIA module for the kernel {RUNNING} is there and is not loaded.", "Try modprobe nvidia")),
    "no device found": Case(
        lambda tree: tree.smi("no_devices.txt", 6),
        ("finds no GPU of its own among the 2 on the bus. nvidia-smi says: No devices were found",),
    ),
    "gpu not listed": Case(
        lambda tree: tree.gpu("0000:c1:00.0"), ("The GPU 0000:c1:00.0 (device 1db1) is on the bus and nvidia-smi does not list it",)
    ),
    "gpu of a virtual machine": Case(
        all_of(lambda tree: tree.gpu("0000:c1:00.0"), lambda tree: tree.bind("0000:c1:00.0", "vfio-pci")),
        ("The GPU 0000:c1:00.0 (device 1db1) is on the bus and nvidia-smi does not list it: the driver vfio-pci has it.",),
    ),
    "gpu lost on the bus": Case(
        lambda tree: tree.gpu(GPUS[1], b"\xff\xff\xff\xff"), (f"The GPU {GPUS[1]} has fallen off the bus. Power the node off and on",)
    ),
    "gpu lost and named": Case(
        lambda tree: tree.program("nvidia-smi", "echo 'Unable to determine the device handle for GPU 0000:B2:00.0: GPU is lost.'; exit 15"),
        (f"The GPU {GPUS[1]} has fallen off the bus.",),
    ),
    "gpu lost without a name": Case(
        lambda tree: tree.program("nvidia-smi", "echo 'GPU is lost'; exit 15"),
        ("A GPU has fallen off the bus. nvidia-smi says: GPU is lost. Power",),
    ),
    "nvidia-smi hangs": Case(lambda tree: tree.program("nvidia-smi", "exec sleep 60"), ("A GPU hangs: look for Xid in journalctl -k",)),
    "nvidia-smi is missing": Case(lambda tree: (tree.bin / "nvidia-smi").unlink(), ("nvidia-smi is not installed: the driver's packages",)),
    "another complaint": Case(
        lambda tree: tree.smi("unknown_error.txt", 255), ("Failed to initialize NVML: Unknown Error", "look at journalctl")
    ),
}


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for each case."""
    folder = tmp_path_factory.mktemp("trees")
    folder.chmod(0o755)
    for name, case in CASES.items():
        tree = Tree(folder / name)
        case.breaks(tree)
        tree.finish()
    return folder


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, trees: Path) -> Iterator[Lab]:
    name = f"{request.path.stem}-{CHECKOUT}".replace("_", "-")
    lab = Lab(name, ["head"], tmp_path_factory.mktemp("lab"), mounts={trees: "/srv/trees"}, say=lambda _text: None)
    lab.down()
    lab.up()
    # A stand-in for the driver's daemon, which the role keeps running where the module is loaded.
    unit = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
    path = "/etc/systemd/system/nvidia-persistenced.service"
    lab.execute(
        "head", ["sh", "-c", f"printf '%s' \"$1\" > {path}; systemctl daemon-reload; systemctl enable -q nvidia-persistenced", "sh", unit]
    )
    yield lab
    lab.down()


@pytest.fixture(scope="module")
def said(node: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the role said in each case; empty where it passed."""
    unchanged = {"changed": False, "unavailable": []}
    tasks = []
    for name, case in CASES.items():
        before = {
            "nvidia_driver_packages_result": unchanged,
            "nvidia_driver_built_result": unchanged,
            "nvidia_driver_runfile_result": unchanged,
            "nvidia_driver_nouveau_result": unchanged,
            "nvidia_driver_branch": 470,
        }
        tasks.append(
            {
                "name": f"case {name}",
                "vars": {**before, **dict(case.variables)},
                "environment": {"PATH": f"/srv/trees/{name}/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
                "module_defaults": {"trainyard.core.gpu_info": {"root": f"/srv/trees/{name}/root", "timeout": 2}},
                "block": [
                    {"name": "see", "trainyard.core.gpu_info": {}, "register": "nvidia_driver_seen_result"},
                    {"name": "prove", "ansible.builtin.include_role": {"name": "nvidia_driver", "tasks_from": "prove"}},
                    {"name": name, "ansible.builtin.debug": {"msg": ""}},
                ],
                "rescue": [
                    {"name": name, "ansible.builtin.debug": {"msg": "{{ ansible_failed_task.name }}: {{ ansible_failed_result.msg }}"}}
                ],
            }
        )
    done = play(node, tmp_path_factory.mktemp("play"), tasks, timeout=1200)
    assert done.status == 0, done.text
    return {name: str(done.results[name, "head"].get("msg", "")) for name in CASES}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.words])
def test_the_play_stops_and_says_what_is_wrong(said: dict[str, str], name: str) -> None:
    assert said[name].startswith("Stop where the driver does not work: "), said[name]
    for words in CASES[name].words:
        assert words in said[name]


def test_a_sound_driver_passes(said: dict[str, str]) -> None:
    assert said["sound"] == ""


def test_every_way_has_words_of_its_own(said: dict[str, str]) -> None:
    twice = "gpu lost and named"  # the same trouble as a GPU that is lost on the bus, seen in another way
    texts = [text for name, text in said.items() if CASES[name].words and name != twice]
    assert len(set(texts)) == len(texts)
