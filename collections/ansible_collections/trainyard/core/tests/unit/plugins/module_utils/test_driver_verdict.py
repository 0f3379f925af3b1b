"""Every way in which a driver does not work has words of its own; nodes are trees of files and answers of real programs' formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _driver_verdict as judge
from ansible_collections.trainyard.core.plugins.module_utils import _gpu_info as info

FIXTURES = Path(__file__).parents[3] / "fixtures"
OLD, NEW = "6.1.0-40-amd64", "6.1.0-41-amd64"
GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"


class Fake:
    """A node that is made of files, sound at first: two V100 and 470.82.01 for both of its kernels, of which the newer one boots next."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.smi = info.parse_smi(0, (FIXTURES / "nvidia_smi/v100_470.xml").read_text())
        self.dkms: list[info.Dkms] | None = []
        self.dkms_problem = ""
        self.versions = dict.fromkeys((OLD, NEW), "470.82.01")
        self.flavour = "proprietary"
        self.put("proc/sys/kernel/osrelease", OLD)
        self.load("nvidia 1 0 - Live 0x0 (POE)\n", "470.82.01")
        for address in ("0000:15:00.0", "0000:b2:00.0"):
            self.gpu(address)
        for kernel in (OLD, NEW):
            self.put(f"boot/vmlinuz-{kernel}")
            self.put(f"lib/modules/{kernel}/build/Makefile")
            self.put(f"lib/modules/{kernel}/updates/dkms/nvidia-current.ko")
        self.put("etc/modprobe.d/ours.conf", "blacklist nouveau\n")

    def put(self, path: str, content: str | bytes = "") -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def remove(self, path: str) -> None:
        (self.root / path).unlink()

    def load(self, modules: str, version: str = "") -> None:
        self.put("proc/modules", modules)
        self.put("sys/module/nvidia/version", version)

    def gpu(self, address: str, config: bytes = b"\xde\x10\xb4\x1d") -> None:
        folder = f"sys/bus/pci/devices/{address}"
        for name, value in {"vendor": "0x10de", "device": "0x1db1", "class": "0x030200"}.items():
            self.put(f"{folder}/{name}", value)
        self.put(f"{folder}/config", config)

    def says(self, name: str, rc: int) -> None:
        self.smi = info.parse_smi(rc, (FIXTURES / "nvidia_smi" / name).read_text())

    def secure_boot(self) -> None:
        self.put(f"sys/firmware/efi/efivars/SecureBoot-{GLOBAL}", b"\x06\0\0\0\x01")

    def found(self) -> dict[str, Any]:
        node = info.Node(str(self.root))
        kernels = node.kernels()
        modinfo = {node.path(k.nvidia_module): (self.versions[k.version], self.flavour) for k in kernels.installed if k.nvidia_module}
        result = info.as_result(node, kernels, self.smi, self.dkms, self.dkms_problem, modinfo)
        return dict(json.loads(json.dumps(result)))  # as it comes from the node

    def verdict(self, branch: int = 470, modules: str = "proprietary", release: str = "") -> dict[str, Any]:
        return judge.verdict(self.found(), judge.Wanted(branch, release, modules))


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


def only(verdict: dict[str, Any]) -> str:
    assert len(verdict["problems"]) == 1, verdict["problems"]
    return str(verdict["problems"][0])


def test_a_sound_node_has_no_problem(fake: Fake) -> None:
    assert fake.verdict() == {"problems": [], "reboot": False, "warnings": [], "not_judged": []}


def test_any_branch_and_flavour_will_do_where_none_is_planned(fake: Fake) -> None:
    assert fake.verdict(0, "")["problems"] == []


@pytest.mark.parametrize("name, library", [("mismatch.txt", "another version"), ("mismatch_535.txt", "535.261")])
def test_library_and_module_that_do_not_fit(fake: Fake, name: str, library: str) -> None:
    fake.says(name, 18)
    verdict = fake.verdict()
    assert f"The module in memory is of version 470.82.01, the library of {library}:" in only(verdict)
    assert verdict["reboot"]


def test_no_module_for_the_next_kernel_and_no_reboot_into_it(fake: Fake) -> None:
    fake.says("mismatch.txt", 18)
    fake.remove(f"lib/modules/{NEW}/updates/dkms/nvidia-current.ko")
    verdict = fake.verdict()
    assert f"There is no NVIDIA module for the kernel {NEW}, which boots next, although its headers are there" in verdict["problems"][0]
    assert f"dkms autoinstall -k {NEW}" in verdict["problems"][0]
    assert not verdict["reboot"]


def test_no_headers_for_the_next_kernel(fake: Fake) -> None:
    fake.remove(f"lib/modules/{NEW}/updates/dkms/nvidia-current.ko")
    fake.remove(f"lib/modules/{NEW}/build/Makefile")
    assert "because its headers are not there, and the package sources no longer have them" in only(fake.verdict())


def prebuilt(fake: Fake) -> None:
    """Make it a node whose modules came built and signed, without DKMS."""
    fake.dkms = None
    for kernel in (OLD, NEW):
        fake.remove(f"lib/modules/{kernel}/updates/dkms/nvidia-current.ko")
        fake.put(f"lib/modules/{kernel}/kernel/nvidia-470srv/nvidia.ko")


def test_modules_that_came_built_need_neither_dkms_nor_headers(fake: Fake) -> None:
    prebuilt(fake)
    assert fake.verdict() == {"problems": [], "reboot": False, "warnings": [], "not_judged": []}
    fake.put("lib/modules/6.1.0-39-amd64/build/Makefile")  # headers alone, which nobody builds with
    assert fake.verdict()["problems"] == []
    fake.remove(f"lib/modules/{OLD}/build/Makefile")
    assert fake.verdict()["problems"] == []


@pytest.mark.parametrize("headers", [True, False])
def test_a_kernel_without_a_module_where_nothing_builds_one(fake: Fake, headers: bool) -> None:
    prebuilt(fake)
    fake.remove(f"lib/modules/{NEW}/kernel/nvidia-470srv/nvidia.ko")
    if not headers:
        fake.remove(f"lib/modules/{NEW}/build/Makefile")
    assert f"There is no NVIDIA module for the kernel {NEW}, which boots next, and no DKMS that would build one." in only(fake.verdict())


def test_secure_boot_and_a_module_that_came_signed(fake: Fake) -> None:
    prebuilt(fake)
    fake.secure_boot()
    fake.says("no_driver.txt", 9)
    fake.load("")
    said = only(fake.verdict())
    assert f"modinfo -F signer /lib/modules/{OLD}/kernel/nvidia-470srv/nvidia.ko" in said
    assert "mok.pub" not in said, "enrolling DKMS's key would not help"


def test_an_old_kernel_without_headers_is_only_odd(fake: Fake) -> None:
    fake.put("boot/vmlinuz-5.10.0-9-amd64")
    verdict = fake.verdict()
    assert verdict["problems"] == []
    assert verdict["warnings"] == ["The kernel 5.10.0-9-amd64 has no headers and no NVIDIA module; it does not boot next."]


def test_a_module_of_another_branch_on_disk(fake: Fake) -> None:
    fake.versions[NEW] = "535.261.03"
    assert f"The module for the kernel {NEW}, which boots next, is of version 535.261.03, and the plan says branch 470." in only(
        fake.verdict()
    )


def test_a_module_of_the_other_flavour(fake: Fake) -> None:
    fake.flavour = "open"
    assert all("is the open one, and the plan says proprietary" in text for text in fake.verdict()["problems"])
    assert len(fake.verdict()["problems"]) == 2


@pytest.mark.parametrize(
    "name, kernel, words",
    [("debian12.txt", "6.1.0-41-amd64", "WARNING! Diff between built"), ("broken.txt", "", "(broken)")],
)
def test_what_dkms_has_is_not_what_it_built(fake: Fake, name: str, kernel: str, words: str) -> None:
    fake.says("mismatch.txt", 18)
    fake.dkms = info.parse_dkms((FIXTURES / "dkms" / name).read_text())
    verdict = fake.verdict()
    text = next(text for text in verdict["problems"] if text.startswith("What DKMS has"))
    assert words in text
    assert kernel in text
    assert not verdict["reboot"], "a reboot would lead to a broken module"


def test_dkms_that_does_not_answer(fake: Fake) -> None:
    fake.dkms_problem = "timeout"
    assert "dkms status did not answer properly (timeout)" in only(fake.verdict())


def test_nouveau_that_goes_with_a_reboot(fake: Fake) -> None:
    fake.says("no_driver.txt", 9)
    fake.load("nouveau 1 0 - Live 0x0\n")
    verdict = fake.verdict()
    assert "nouveau is loaded and has the GPUs. It is blacklisted now" in only(verdict)
    assert verdict["reboot"]


def test_nouveau_that_would_come_again(fake: Fake) -> None:
    fake.says("no_driver.txt", 9)
    fake.load("nouveau 1 0 - Live 0x0\n")
    fake.remove("etc/modprobe.d/ours.conf")
    verdict = fake.verdict()
    assert "Nothing keeps it from being loaded" in only(verdict)
    assert not verdict["reboot"]


def test_secure_boot_that_refuses_the_module(fake: Fake) -> None:
    fake.says("no_driver.txt", 9)
    fake.load("")
    fake.secure_boot()
    verdict = fake.verdict()
    assert "Secure Boot is on" in only(verdict)
    assert "mokutil --import /var/lib/dkms/mok.pub" in only(verdict)
    assert not verdict["reboot"]


def test_secure_boot_with_an_enrolled_key_is_no_problem(fake: Fake) -> None:
    fake.secure_boot()
    assert fake.verdict()["problems"] == []


def test_no_module_for_the_kernel_that_runs_and_one_for_the_next(fake: Fake) -> None:
    fake.says("no_driver.txt", 9)
    fake.load("")
    fake.remove(f"lib/modules/{OLD}/updates/dkms/nvidia-current.ko")
    fake.remove(f"lib/modules/{OLD}/build/Makefile")
    verdict = fake.verdict()
    assert f"There is no NVIDIA module for the kernel {OLD}, which runs. There is one for {NEW}, which boots next: reboot." in only(verdict)
    assert verdict["reboot"]


def test_a_module_that_is_there_and_not_loaded(fake: Fake) -> None:
    fake.says("no_driver.txt", 9)
    fake.load("")
    assert f"The NVIDIA module for the kernel {OLD} is there and is not loaded. nvidia-smi says: NVIDIA-SMI has failed" in only(
        fake.verdict()
    )


def test_no_devices_were_found(fake: Fake) -> None:
    fake.says("no_devices.txt", 6)
    assert "finds no GPU of its own among the 2 on the bus. nvidia-smi says: No devices were found" in only(fake.verdict())


def test_a_gpu_that_nvidia_smi_names_as_lost(fake: Fake) -> None:
    fake.smi = info.parse_smi(
        15, "Unable to determine the device handle for GPU 0000:B2:00.0: GPU is lost.  Reboot the system to recover this GPU"
    )
    assert only(fake.verdict()).startswith("The GPU 0000:b2:00.0 has fallen off the bus.")


def test_a_gpu_that_no_longer_answers_on_the_bus(fake: Fake) -> None:
    fake.gpu("0000:b2:00.0", b"\xff\xff\xff\xff")
    assert only(fake.verdict()).startswith("The GPU 0000:b2:00.0 has fallen off the bus.")


def test_a_lost_gpu_without_a_name(fake: Fake) -> None:
    fake.smi = info.parse_smi(15, "GPU is lost")
    assert only(fake.verdict()).startswith("A GPU has fallen off the bus.")


def test_a_gpu_that_is_not_listed(fake: Fake) -> None:
    fake.gpu("0000:c1:00.0")
    assert only(fake.verdict()).startswith(
        "The GPU 0000:c1:00.0 (device 1db1) is on the bus and nvidia-smi does not list it: the driver did not"
    )


def test_a_gpu_that_was_handed_to_a_virtual_machine_is_said_to_be(fake: Fake) -> None:
    fake.gpu("0000:c1:00.0")
    (fake.root / "sys/bus/pci/devices/0000:c1:00.0/driver").symlink_to("../../../bus/pci/drivers/vfio-pci")
    assert "the driver vfio-pci has it" in only(fake.verdict())


def test_slices_of_a_gpu_need_not_be_listed(fake: Fake) -> None:
    fake.gpu("0000:b2:00.4")
    (fake.root / "sys/bus/pci/devices/0000:b2:00.4/physfn").symlink_to("../0000:b2:00.0")
    assert fake.verdict()["problems"] == []


def test_an_answer_of_another_version_than_planned(fake: Fake) -> None:
    fake.versions = dict.fromkeys((OLD, NEW), "535.261.03")
    verdict = fake.verdict(branch=535)
    assert "nvidia-smi answers with version 470.82.01, and the plan says branch 535." in only(verdict)
    assert verdict["reboot"]


def test_another_release_of_the_branch_than_the_planned_one(fake: Fake) -> None:
    verdict = fake.verdict(release="470.256.02")
    assert "nvidia-smi answers with version 470.82.01, and the plan says version 470.256.02." in verdict["problems"][-1]
    assert all("is of version 470.82.01, and the plan says version 470.256.02" in text for text in verdict["problems"][:-1])
    assert fake.verdict(release="470.82.01")["problems"] == []


def test_a_newer_release_of_the_branch_on_disk(fake: Fake) -> None:
    fake.versions[OLD] = "470.256.02"
    verdict = fake.verdict()
    assert only(verdict) == "The module in memory is of version 470.82.01, the one on disk of 470.256.02. A reboot loads it."
    assert verdict["reboot"]


def test_a_hanging_nvidia_smi(fake: Fake) -> None:
    fake.smi = info.Smi(problem="timeout", message="nvidia-smi did not answer within 20 seconds.")
    assert "A GPU hangs: look for Xid" in only(fake.verdict())


def test_a_missing_nvidia_smi(fake: Fake) -> None:
    fake.smi = info.Smi(problem="missing")
    assert "nvidia-smi is not installed" in only(fake.verdict())


def test_any_other_complaint_is_passed_on(fake: Fake) -> None:
    fake.says("unknown_error.txt", 255)
    assert fake.smi.message in only(fake.verdict())


def test_fields_with_errors_are_odd_and_no_failure(fake: Fake) -> None:
    fake.says("err_fields_535.xml", 0)
    assert any("ERR!" in text for text in fake.verdict()["warnings"])


def test_without_a_gpu_what_needs_one_is_not_judged_and_that_is_said(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    for path in sorted((tmp_path / "sys/bus/pci/devices").glob("*/*")):
        path.unlink()
    fake.says("no_driver.txt", 9)
    fake.load("nouveau 1 0 - Live 0x0\n")
    fake.secure_boot()
    verdict = fake.verdict()
    assert verdict["problems"] == []
    assert "No NVIDIA GPU is on the bus" in verdict["not_judged"][0]


def test_in_a_container_every_kernel_with_headers_is_judged(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    for kernel in (OLD, NEW):
        fake.remove(f"boot/vmlinuz-{kernel}")
    fake.remove(f"lib/modules/{OLD}/updates/dkms/nvidia-current.ko")
    verdict = fake.verdict()
    assert f"There is no NVIDIA module for the kernel {OLD} although" in only(verdict)
    assert "No kernel that could be booted is installed" in verdict["not_judged"][0]


# --- may it be rebooted? ----------------------------------------------------------------------------------------------

QUIET = ["    0 root", "  997 _chrony", " 1000 admin", "62510 trainyard-tensorboard"]


def test_a_node_with_nobody_but_us_and_services_is_idle(fake: Fake) -> None:
    fake.smi = info.Smi(gpus=[info.Gpu("0000:15:00.0", processes=0)])
    assert judge.busy(fake.found(), QUIET, "admin") == []


def test_anothers_process_makes_it_busy_even_without_a_login(fake: Fake) -> None:
    fake.smi = info.Smi(gpus=[])
    assert judge.busy(fake.found(), [*QUIET, " 1001 alice", " 1001 alice"], "admin") == ["processes of alice run"]


def test_a_computing_gpu_makes_it_busy_and_one_that_does_not_tell_as_well(fake: Fake) -> None:
    fake.smi = info.Smi(gpus=[info.Gpu("0000:15:00.0", processes=2), info.Gpu("0000:b2:00.0")])
    assert judge.busy(fake.found(), QUIET, "admin") == [
        "the GPU 0000:15:00.0 computes for 2 processes",
        "the GPU 0000:b2:00.0 does not say whether it computes",
    ]


def test_a_driver_that_cannot_tell_counts_as_busy_and_nouveau_does_not(fake: Fake) -> None:
    fake.says("mismatch.txt", 18)
    assert judge.busy(fake.found(), QUIET, "admin") == ["a driver is loaded and nvidia-smi cannot tell whether a GPU computes"]
    fake.load("nouveau 1 0 - Live 0x0\n")
    assert judge.busy(fake.found(), QUIET, "admin") == []
