"""What a node has of NVIDIA, read from answers of several generations and from trees of files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _gpu_info as gpu_info
from hypothesis import given
from hypothesis import strategies as st

FIXTURES = Path(__file__).parents[3] / "fixtures"


def answer(name: str) -> str:
    return (FIXTURES / "nvidia_smi" / name).read_text()


def smi(name: str, rc: int = 0) -> gpu_info.Smi:
    return gpu_info.parse_smi(rc, answer(name))


# --- nvidia-smi -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "driver", "cuda", "gpus"),
    [
        (
            "k80_470.xml",
            "470.256.02",
            "11.4",
            [("0000:05:00.0", "Tesla K80", 11441, "", False, 0), ("0000:06:00.0", "Tesla K80", 11441, "", False, 0)],
        ),
        (
            "v100_470.xml",
            "470.82.01",
            "11.4",
            [("0000:15:00.0", "Tesla V100-SXM2-16GB", 16160, "", True, 2), ("0000:b2:00.0", "Tesla V100-SXM2-16GB", 16160, "", True, 0)],
        ),
        (
            "a100_mig_535.xml",
            "535.261.03",
            "12.2",
            [
                ("0000:07:00.0", "NVIDIA A100-SXM4-40GB", 40960, "enabled", True, 3),
                ("0000:0f:00.0", "NVIDIA A100-SXM4-40GB", 40960, "disabled", True, 0),
            ],
        ),
        ("t4_580.xml", "580.95.05", "13.0", [("0000:00:1e.0", "Tesla T4", 15360, "", True, 1)]),
        ("rtx5090_595.xml", "595.71.05", "13.2", [("0000:01:00.0", "NVIDIA GeForce RTX 5090", 32607, "", False, 2)]),
        (
            "b200_595.xml",
            "595.71.05",
            "13.2",
            [("0000:1b:00.0", "NVIDIA B200", 183359, "disabled", True, 0), ("10000:43:00.0", "NVIDIA B200", 183359, "disabled", True, 0)],
        ),
    ],
)
def test_reports_of_all_generations(name: str, driver: str, cuda: str, gpus: list[tuple[object, ...]]) -> None:
    seen = smi(name)
    assert (seen.problem, seen.message, seen.lost) == ("", "", [])
    assert (seen.driver_version, seen.cuda_version) == (driver, cuda)
    assert [(gpu.address, gpu.name, gpu.memory_mib, gpu.mig, gpu.persistence, gpu.processes) for gpu in seen.gpus] == gpus
    assert len({gpu.uuid for gpu in seen.gpus}) == len(gpus)
    assert all(gpu.uuid.startswith("GPU-") and not gpu.errors for gpu in seen.gpus)


# What the captured reports say, whole: see README.md of the fixtures for the machines.
REPORTS: dict[str, tuple[str, str, list[dict[str, object]]]] = {
    "captured_k80_430.xml": (
        "430.26",
        "",  # "Not Found": the library of CUDA is not installed there
        [
            {
                "address": "1580:00:00.0",
                "uuid": "GPU-00000101-1111-2222-3333-444455556666",
                "name": "Tesla K80",
                "memory_mib": 11441,
                "processes": 1,
            },
            {
                "address": "2df7:00:00.0",
                "uuid": "GPU-00000102-1111-2222-3333-444455556666",
                "name": "Tesla K80",
                "memory_mib": 11441,
                "processes": 1,
            },
            {"address": "4968:00:00.0", "uuid": "GPU-00000103-1111-2222-3333-444455556666", "name": "Tesla K80", "memory_mib": 11441},
            {"address": "f8d6:00:00.0", "uuid": "GPU-00000104-1111-2222-3333-444455556666", "name": "Tesla K80", "memory_mib": 11441},
        ],
    ),
    "captured_v100_410.xml": (
        "410.104",
        "10.0",
        [
            {
                "address": "0000:34:00.0",
                "uuid": "GPU-00000105-1111-2222-3333-444455556666",
                "name": "Tesla V100-SXM3-32GB",
                "memory_mib": 32480,
                "persistence": True,
            }
        ],
    ),
    "captured_p400_418.xml": (
        "418.43",
        "10.1",
        [{"address": "0000:43:00.0", "uuid": "GPU-00000106-1111-2222-3333-444455556666", "name": "Quadro P400", "memory_mib": 1998}],
    ),
    "captured_v100s_460.xml": (
        "460.73.01",
        "11.2",
        [
            {
                "address": "0000:00:0d.0",
                "uuid": "GPU-00000107-1111-2222-3333-444455556666",
                "name": "Tesla V100S-PCIE-32GB",
                "memory_mib": 32510,
                "processes": 1,
            }
        ],
    ),
    "captured_a10g_515.xml": (
        "515.105.01",
        "11.7",
        [{"address": "0000:00:1e.0", "uuid": "GPU-00000108-1111-2222-3333-444455556666", "name": "NVIDIA A10G", "memory_mib": 23028}],
    ),
    "captured_a100_mig_535.xml": (
        "535.54.03",
        "12.2",
        [
            {
                "address": "0000:01:00.0",
                "uuid": "GPU-00000109-1111-2222-3333-444455556666",
                "name": "NVIDIA A100-SXM4-80GB",
                "memory_mib": 81920,
                "mig": "enabled",
                "mig_devices": 4,
            }
        ],
    ),
    "captured_h100_580.xml": (
        "580.105.08",
        "13.0",
        [
            {
                "address": address,
                "uuid": uuid,
                "name": "NVIDIA H100 80GB HBM3",
                "memory_mib": 81559,
                "mig": "disabled",
                "persistence": True,
            }
            for address, uuid in (
                ("0000:53:00.0", "GPU-00000000-0000-0000-0000-000000000000"),
                ("0000:64:00.0", "GPU-00000001-0000-0000-0000-000000000001"),
            )
        ],
    ),
    "captured_gb200_580.xml": (
        "580.173.02",
        "13.0",
        [
            {"address": address, "uuid": uuid, "name": "NVIDIA GB200", "memory_mib": 189471, "mig": "disabled", "persistence": True}
            for address, uuid in (
                ("0000:29:00.0", "GPU-00000000-0000-0000-0000-000000000000"),
                ("0000:3f:00.0", "GPU-00000001-0000-0000-0000-000000000001"),
            )
        ],
    ),
    "captured_rtx3090_590.xml": (
        "590.44.01",
        "13.1",
        [
            {
                "address": "0000:09:00.0",
                "uuid": "GPU-12345678-aaaa-bbbb-cccc-0123456789ab",
                "name": "NVIDIA GeForce RTX 3090",
                "memory_mib": 24576,
                "persistence": True,
            }
        ],
    ),
    "captured_rtxpro6000_590.xml": (
        "590.44.01",
        "13.1",
        [
            {
                "address": "0000:61:00.0",
                "uuid": "GPU-12345678-aaaa-bbbb-cccc-0123456789ab",
                "name": "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
                "memory_mib": 97887,
                "persistence": True,
                "processes": 1,
            }
        ],
    ),
    "captured_rtx4000ada_595.xml": (
        "595.84",
        "13.2",
        [
            {
                "address": "0000:06:00.0",
                "uuid": "GPU-0000010a-1111-2222-3333-444455556666",
                "name": "NVIDIA RTX 4000 SFF Ada Generation",
                "memory_mib": 20475,
                "persistence": True,
                "processes": 2,  # of four, two of which only draw
            }
        ],
    ),
    "captured_t4_595.xml": (
        "595.91.07",
        "13.2",
        [
            {
                "address": "0000:00:1e.0",
                "uuid": "GPU-00000000-0000-0000-0000-000000000000",
                "name": "Tesla T4",
                "memory_mib": 15360,
                "persistence": True,
            }
        ],
    ),
    "captured_rubin_615.xml": (
        "615.23",
        "13.4",
        [
            {
                "address": address,
                "uuid": uuid,
                "name": "NVIDIA Graphics Device",
                "memory_mib": 286524,
                "mig": "disabled",
                "persistence": True,
            }
            for address, uuid in (
                ("0002:81:00.0", "GPU-00000000-0000-0000-0000-000000000000"),
                ("0002:c1:00.0", "GPU-00000001-0000-0000-0000-000000000001"),
            )
        ],
    ),
}


def test_every_captured_report_is_among_them() -> None:
    assert sorted(REPORTS) == sorted(path.name for path in (FIXTURES / "nvidia_smi").glob("captured_*.xml"))


@pytest.mark.parametrize("name", REPORTS)
def test_reports_of_real_machines_are_read_whole(name: str) -> None:
    driver, cuda, gpus = REPORTS[name]
    usual = {"compute_mode": "Default", "persistence": False, "processes": 0}
    assert smi(name) == gpu_info.Smi(
        rc=0, driver_version=driver, cuda_version=cuda, gpus=[gpu_info.Gpu(**{**usual, **values}) for values in gpus]
    )


def test_the_names_of_versions_that_replace_the_old_ones_are_read() -> None:
    text = answer("captured_rubin_615.xml")
    for old in ("driver_version", "cuda_version"):
        text = re.sub(f"\t<{old}>.*</{old}>\n\t<!-- .* -->\n", "", text)
    assert "<driver_version>" not in text
    assert gpu_info.parse_smi(0, text) == smi("captured_rubin_615.xml")


def test_a_gpu_that_is_lost_while_the_report_goes_on_is_told_by_its_fields() -> None:
    sound, lost = smi("mocked_lost_580.xml").gpus
    assert (sound.address, sound.memory_mib, sound.errors) == ("0000:0a:00.0", 196608, [])
    assert (lost.address, lost.memory_mib, lost.name) == ("0000:0b:00.0", None, "NVIDIA GB200")
    assert {"total: GPU is lost", "gpu_temp: GPU is lost", "remapped_rows: GPU is lost"} <= set(lost.errors)
    assert all(error.endswith(": GPU is lost") for error in lost.errors)


def test_complaints_of_real_machines_are_understood_without_an_exit_status() -> None:
    mismatch, lost = smi("captured_mismatch_580.txt"), smi("captured_lost.txt")
    assert (mismatch.problem, mismatch.library_version, mismatch.gpus) == ("mismatch", "580.178", [])
    assert (lost.problem, lost.lost, lost.gpus) == ("fallen_off", ["0000:07:00.0"], [])


def test_the_bus_id_counts_where_the_gpus_own_id_is_another() -> None:
    text = answer("t4_580.xml").replace('<gpu id="00000000:00:1E.0">', '<gpu id="GPU-7">')
    assert gpu_info.parse_smi(0, text).gpus[0].address == "0000:00:1e.0"
    assert gpu_info.parse_smi(0, answer("t4_580.xml").replace("pci_bus_id", "bus_id")).gpus[0].address == "0000:00:1e.0"


def test_the_memory_of_a_mig_device_is_not_taken_for_the_gpus() -> None:
    cut, whole = smi("a100_mig_535.xml").gpus
    assert (cut.mig_devices, cut.memory_mib) == (2, 40960)
    assert whole.mig_devices == 0


def test_compute_modes_are_told() -> None:
    assert [smi(name).gpus[0].compute_mode for name in ("t4_580.xml", "k80_470.xml")] == ["Exclusive_Process", "Default"]


def test_fields_with_errors_are_named_and_are_no_values() -> None:
    seen = smi("err_fields_535.xml")
    stuck, unreadable = seen.gpus
    assert seen.problem == ""
    assert stuck.errors == ["fan_speed: ERR!", "performance_state: Unknown Error", "reset_required: Yes"]
    assert (stuck.memory_mib, stuck.processes) == (23028, 0)
    assert (unreadable.name, unreadable.uuid, unreadable.memory_mib, unreadable.compute_mode) == ("", "", None, "")
    assert (unreadable.persistence, unreadable.processes) == (None, None)
    assert unreadable.address == "0000:c1:00.0"
    assert "total: [GPU requires reset]" in unreadable.errors
    assert "processes: ERR!" in unreadable.errors


def test_the_recovery_that_newer_drivers_ask_for_is_an_error() -> None:
    text = answer("t4_580.xml").replace("<gpu_recovery_action>None<", "<gpu_recovery_action>Reset<")
    assert gpu_info.parse_smi(0, text).gpus[0].errors == ["gpu_recovery_action: Reset"]


@pytest.mark.parametrize(
    ("name", "rc", "problem", "message"),
    [
        ("mismatch.txt", 18, "mismatch", "Failed to initialize NVML: Driver/library version mismatch"),
        ("mismatch_535.txt", 18, "mismatch", "Failed to initialize NVML: Driver/library version mismatch"),
        ("no_devices.txt", 6, "no_devices", "No devices were found"),
        ("no_driver.txt", 9, "no_driver", "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "),
        ("lost.txt", 15, "fallen_off", "Unable to determine the device handle for GPU 0000:CB:00.0: GPU is lost."),
        ("lost_old.txt", 255, "fallen_off", "Unable to determine the device handle for GPU0000:0B:00.0: Unknown Error"),
        ("no_library.txt", 12, "other", "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system."),
        ("unknown_error.txt", 255, "other", "Failed to initialize NVML: Unknown Error"),
    ],
)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_each_complaint_has_its_code(name: str, rc: int, problem: str, message: str, stream: str) -> None:
    texts = ("", answer(name)) if stream == "stderr" else (answer(name), "")
    seen = gpu_info.parse_smi(rc, *texts)
    assert (seen.problem, seen.rc, seen.gpus) == (problem, rc, [])
    assert seen.message.startswith(message)
    assert "\n" not in seen.message


def test_a_report_without_a_gpu_is_a_problem() -> None:
    seen = smi("no_gpus_550.xml")
    assert (seen.problem, seen.driver_version, seen.gpus) == ("no_devices", "550.163.01", [])


def test_the_version_of_the_library_is_told_with_a_mismatch() -> None:
    assert (smi("mismatch.txt").library_version, smi("mismatch_535.txt").library_version) == ("", "535.261")


@pytest.mark.parametrize(
    ("name", "lost"),
    [("lost.txt", "0000:cb:00.0"), ("lost_old.txt", "0000:0b:00.0"), ("lost_one_of_two_580.txt", "0000:cb:00.0")],
)
def test_the_lost_gpu_is_named(name: str, lost: str) -> None:
    assert smi(name).lost == [lost]


def test_one_lost_gpu_does_not_hide_the_other() -> None:
    seen = smi("lost_one_of_two_580.txt", rc=15)
    assert (seen.problem, [gpu.address for gpu in seen.gpus]) == ("fallen_off", ["0000:34:00.0"])
    assert seen.driver_version == "580.95.05"


def test_a_warning_before_a_complete_report_is_no_problem() -> None:
    seen = smi("inforom_535.txt", rc=14)
    assert (seen.problem, seen.message, len(seen.gpus)) == ("", "WARNING: infoROM is corrupted at gpu 0000:0F:00.0", 1)


@pytest.mark.parametrize(("rc", "problem"), [(9, "no_driver"), (15, "fallen_off"), (18, "mismatch"), (1, "other")])
def test_the_exit_status_decides_where_the_text_is_not_known(rc: int, problem: str) -> None:
    assert gpu_info.parse_smi(rc, "Something new\n").problem == problem


@pytest.mark.parametrize("text", ["", "<html/>", '<?xml version="1.0" ?><nvidia_smi_log><gpu>', '<?xml version="1.0" ?><a/>'])
def test_garbage_is_a_problem_with_a_message(text: str) -> None:
    seen = gpu_info.parse_smi(0, text)
    assert (seen.problem, seen.gpus) == ("other", [])
    assert seen.message


def test_a_half_written_report_is_no_report() -> None:
    assert gpu_info.parse_smi(0, answer("v100_470.xml")[:-40]).problem == "other"


@pytest.mark.parametrize("name", ["a & b", "a < b", "--x=<y>", "bell\x07"])
def test_other_peoples_command_lines_do_not_spoil_the_report(name: str) -> None:
    text = answer("rtx5090_595.xml").replace("/usr/bin/blender", name)
    assert name in text
    assert gpu_info.parse_smi(0, text) == smi("rtx5090_595.xml")


def test_values_that_are_told_to_be_missing_are_missing() -> None:
    text = answer("t4_580.xml").replace(">13.0<", ">Not Found<").replace("15360 MiB", "[N/A]").replace("Exclusive_Process", "N/A")
    seen = gpu_info.parse_smi(0, text)
    assert (seen.cuda_version, seen.gpus[0].memory_mib, seen.gpus[0].compute_mode, seen.gpus[0].errors) == ("", None, "", [])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("00000000:01:00.0", "0000:01:00.0"),
        ("00000001:00:00.0", "0001:00:00.0"),
        ("00010000:43:00.0", "10000:43:00.0"),
        ("0000:B3:1F.7", "0000:b3:1f.7"),
        ("0:1:0", "0000:01:00.0"),
        ("01:00.0", "0000:01:00.0"),
        ("N/A", ""),
        ("0000:01:00.9", ""),
        ("", ""),
    ],
)
def test_addresses_are_written_as_sysfs_does(text: str, address: str) -> None:
    assert gpu_info.pci_address(text) == address


# --- Loaded modules ---------------------------------------------------------------------------------------------------

LSMOD = """\
nvidia_uvm 1527808 0 - Live 0xffffffffc2a00000 (POE)
nvidia_drm 77824 0 - Live 0xffffffffc0c00000 (POE)
nvidia_modeset 1314816 1 nvidia_drm, Live 0xffffffffc2800000 (POE)
nvidia 56823808 2 nvidia_uvm,nvidia_modeset, Live 0xffffffffbf000000 (POE)
ext4 983040 1 - Live 0xffffffffc0a00000
"""
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (root@node)\nGCC version:  gcc version 12.2.0\n"
PROPRIETARY = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.261.03  Wed Apr 1 20:04:33 UTC 2026\nGCC version:  gcc version 12.2.0\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OPEN, ("580.95.05", "open")),
        (PROPRIETARY, ("535.261.03", "proprietary")),
        ("NVRM version: NVIDIA UNIX aarch64 Kernel Module  570.86.15  Thu\n", ("570.86.15", "proprietary")),
        ("NVRM version: NVIDIA UNIX Open Kernel Module  570.86.15  Release Build\n", ("570.86.15", "open")),
        ("", ("", "")),
    ],
)
def test_version_and_flavour_of_the_loaded_module(text: str, expected: tuple[str, str]) -> None:
    assert gpu_info.parse_driver_version(text) == expected


def test_loaded_modules_are_told() -> None:
    seen = gpu_info.loaded_modules(LSMOD, "535.261.03\n", PROPRIETARY, blacklisted=True)
    assert seen == gpu_info.Loaded(["nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_drm"], "535.261.03", "proprietary", False, True)


@pytest.mark.parametrize(("taint", "flavour"), [("POE", "proprietary"), ("OE", "open")])
def test_the_taint_tells_the_flavour_where_the_driver_does_not(taint: str, flavour: str) -> None:
    assert gpu_info.loaded_modules(f"nvidia 1 0 - Live 0x0 ({taint})\n", "", "", False).flavour == flavour


def test_nouveau_is_seen_and_a_name_that_only_contains_it_is_not() -> None:
    assert gpu_info.loaded_modules("nouveau 1 0 - Live 0x0\n", "", "", False).nouveau
    assert not gpu_info.loaded_modules("mxm_wmi 1 1 nouveau, Live 0x0\n", "", "", False).nouveau


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("blacklist nouveau\noptions nouveau modeset=0\n", True),
        ("  blacklist\tnouveau # off\n", True),
        ("install nouveau /bin/false\n", True),
        ("install nouveau /usr/bin/true\n", True),
        ("blacklist \\\nnouveau\n", True),
        ("install nouveau /sbin/modprobe --ignore-install nouveau\n", False),
        ("# blacklist nouveau\n", False),
        ("blacklist nouveaufb\n", False),
        ("alias nouveau off\n", False),
        ("install nouveau\n", False),
    ],
)
def test_what_keeps_nouveau_away(text: str, expected: bool) -> None:
    assert gpu_info.is_blacklisted("nouveau", ["", text]) is expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [("quiet modprobe.blacklist=foo,nouveau", True), ("module_blacklist=nouveau", True), ("nouveau.modeset=0", False), ("", False)],
)
def test_the_kernels_command_line_counts_as_well(line: str, expected: bool) -> None:
    assert gpu_info.is_blacklisted("nouveau", [], line) is expected


# --- DKMS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "debian11.txt",
            [
                ("nvidia", "470.82.01", "5.10.0-9-amd64", "installed", True),
                ("nvidia", "470.82.01", "5.10.0-10-amd64", "built", True),
                ("zfs", "2.0.3", "", "added", True),
            ],
        ),
        (
            "debian12.txt",
            [
                ("nvidia-current", "535.261.03", "6.1.0-40-amd64", "installed", True),
                ("nvidia-current", "535.261.03", "6.1.0-41-amd64", "installed", False),
            ],
        ),
        (
            "debian13.txt",
            [
                ("nvidia-open", "595.71.05", "6.12.48+deb13-amd64", "installed", True),
                ("nvidia-open", "595.71.05", "6.12.57+deb13-amd64", "installed", False),
                ("nvidia-open", "595.71.05", "6.12.63+deb13-amd64", "installed", False),
                ("nvidia-open", "580.95.05", "", "added", True),
            ],
        ),
        (
            "broken.txt",
            [
                ("nvidia-current", "535.247.01", "", "broken", False),
                ("nvidia-current", "535.261.03", "6.1.0-40-amd64", "installed", True),
            ],
        ),
        (
            "broken_old.txt",
            [
                ("nvidia", "525.125.06", "5.15.0-87-generic", "installed", True),
                ("zfs", "2.1.13", "", "broken", False),
                ("zenpower", "0.1.12", "5.15.0-87-generic", "installed", True),
            ],
        ),
    ],
)
def test_dkms_old_new_and_broken(name: str, expected: list[tuple[object, ...]]) -> None:
    entries = gpu_info.parse_dkms((FIXTURES / "dkms" / name).read_text())
    assert [(entry.module, entry.version, entry.kernel, entry.state, entry.intact) for entry in entries] == expected
    assert all(entry.arch == ("x86_64" if entry.kernel else "") for entry in entries)


def test_dkms_tells_weak_modules_and_notes() -> None:
    own, weak = gpu_info.parse_dkms((FIXTURES / "dkms" / "rhel9.txt").read_text())
    assert (own.weak, weak.weak, weak.state) == (False, True, "installed")
    assert weak.note == "from 5.14.0-570.12.1.el9_6.x86_64"
    (moved, _other) = gpu_info.parse_dkms((FIXTURES / "dkms" / "debian12.txt").read_text())
    assert moved.note == "(original_module exists)"


@pytest.mark.parametrize("text", ["", "Error! nothing\n", "nvidia/1.0, k, x86_64: installing\n", "Deprecated feature: REMAKE_INITRD\n"])
def test_lines_that_are_no_status_are_passed_over(text: str) -> None:
    assert gpu_info.parse_dkms(text) == []


# --- Secure Boot ------------------------------------------------------------------------------------------------------

ON, OFF = b"\x06\0\0\0\x01", b"\x06\0\0\0\x00"


@pytest.mark.parametrize(
    ("efi", "variables", "expected"),
    [
        (False, None, ("unsupported", False)),
        (True, None, ("unknown", False)),
        (True, {}, ("unsupported", False)),
        (True, {"SecureBoot": ON, "SetupMode": OFF}, ("enabled", False)),
        (True, {"SecureBoot": ON}, ("enabled", False)),
        (True, {"SecureBoot": OFF, "SetupMode": OFF}, ("disabled", False)),
        (True, {"SecureBoot": OFF, "SetupMode": ON}, ("disabled", True)),
        (True, {"SecureBoot": ON, "SetupMode": ON}, ("disabled", True)),
        (True, {"SecureBoot": ON, "MokSBStateRT": ON}, ("disabled", False)),
        (True, {"SecureBoot": ON, "MokSBStateRT": OFF}, ("enabled", False)),
        (True, {"SecureBoot": ON, "MokSBStateRT": b"\x07\0\0\0\x01"}, ("enabled", False)),
        (True, {"SecureBoot": b""}, ("unknown", False)),
        (True, {"SecureBoot": b"\x06\0\0\0\x02"}, ("unknown", False)),
        (True, {"SecureBoot": b"\x06\0\0\0\x01\x01"}, ("unknown", False)),
    ],
)
def test_secure_boot(efi: bool, variables: dict[str, bytes] | None, expected: tuple[str, bool]) -> None:
    assert gpu_info.secure_boot(efi, variables) == expected


# --- Kernels ----------------------------------------------------------------------------------------------------------


def test_kernels_are_sorted_by_age() -> None:
    by_age = [
        "5.14.0-570.12.1.el9_6.x86_64",
        "5.14.0-570.32.1.el9_6.x86_64",
        "6.1.0-9-amd64",
        "6.1.0-40-amd64",
        "6.12.0-rc1-amd64",
        "6.12.0",
        "6.12.9+deb13-amd64",
        "6.12.48+deb13-amd64",
    ]
    assert sorted(sorted(by_age), key=gpu_info.version_key) == by_age


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("boot/vmlinuz-6.1.0-40-amd64", "6.1.0-40-amd64"),
        ("vmlinuz-6.8.0-45-generic", "6.8.0-45-generic"),
        ("/boot/vmlinuz-0-rescue-5f2e", ""),
        ("/boot/initrd.img-6.1.0-40-amd64", ""),
        ("vmlinuz", ""),
        ("", ""),
    ],
)
def test_the_version_of_an_image(path: str, version: str) -> None:
    assert gpu_info.kernel_of_image(path) == version


GRUB = (FIXTURES / "grub" / "debian12.cfg").read_text()
NEW, OLD = "6.1.0-41-amd64", "6.1.0-40-amd64"


@pytest.mark.parametrize(
    ("default", "environment", "kernel"),
    [
        ("0", {}, NEW),
        ("1>1", {}, OLD),
        ("1", {}, NEW),
        ("2", {}, ""),
        ("9", {}, ""),
        ("Debian GNU/Linux", {}, NEW),
        ("gnulinux-advanced-1f>gnulinux-6.1.0-40-amd64-advanced-1f", {}, OLD),
        ("Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 6.1.0-40-amd64", {}, OLD),
        ("no such entry", {}, ""),
        ("${saved_entry}", {"saved_entry": "gnulinux-advanced-1f>gnulinux-6.1.0-40-amd64-advanced-1f"}, OLD),
        ("${saved_entry}", {}, NEW),
        ("0", {"next_entry": "1>1"}, OLD),
        ("0", {"saved_entry": "1>1"}, NEW),
    ],
)
def test_grub_boots_what_its_menu_says(default: str, environment: dict[str, str], kernel: str) -> None:
    assert gpu_info.grub_default(GRUB % default, environment) == kernel


RED_HAT = 'if [ "${next_entry}" ] ; then\n   set default="${next_entry}"\nelse\n   set default="${saved_entry}"\nfi\nblscfg\n'
ENTRIES = {
    "5f2e-5.14.0-570.12.1.el9_6.x86_64": "title Rocky\nlinux /vmlinuz-5.14.0-570.12.1.el9_6.x86_64\n",
    "5f2e-5.14.0-570.32.1.el9_6.x86_64": "title Rocky\nlinux /vmlinuz-5.14.0-570.32.1.el9_6.x86_64\n",
    "5f2e-0-rescue": "title Rescue\nlinux /vmlinuz-0-rescue-5f2e\n",
}


@pytest.mark.parametrize(
    ("environment", "kernel"),
    [
        ("# GRUB Environment Block\nsaved_entry=5f2e-5.14.0-570.12.1.el9_6.x86_64\n####", "5.14.0-570.12.1.el9_6.x86_64"),
        ("# GRUB Environment Block\nsaved_entry=0\n####", "5.14.0-570.32.1.el9_6.x86_64"),
        ("# GRUB Environment Block\n####", "5.14.0-570.32.1.el9_6.x86_64"),
        ("saved_entry=5f2e-0-rescue\n", ""),
    ],
)
def test_red_hats_menu_lies_in_files_of_its_own(environment: str, kernel: str) -> None:
    assert gpu_info.grub_default(RED_HAT, gpu_info.parse_grub_environment(environment), ENTRIES) == kernel


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ([("grub", OLD), ("symlink", NEW)], (OLD, "grub")),
        ([("grub", ""), ("symlink", OLD)], (OLD, "symlink")),
        ([("grub", "6.9"), ("symlink", "")], (NEW, "newest")),
        ([], (NEW, "newest")),
    ],
)
def test_the_most_reliable_source_that_names_a_kernel_wins(candidates: list[tuple[str, str]], expected: tuple[str, str]) -> None:
    kernels = [gpu_info.Kernel(OLD, image=True), gpu_info.Kernel(NEW, image=True), gpu_info.Kernel("6.9")]
    assert gpu_info.next_kernel(kernels, candidates) == expected


def test_without_images_nothing_boots() -> None:
    assert gpu_info.next_kernel([gpu_info.Kernel("6.9", headers=True)], [("grub", "6.9")]) == ("", "")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nvidia.ko", True),
        ("nvidia.ko.xz", True),
        ("nvidia-current.ko", True),
        ("nvidia-tesla-470.ko.zst", True),
        ("nvidia-uvm.ko", False),
        ("nvidia-current-drm.ko", False),
        ("nvidia-modeset.ko.xz", False),
        ("nvidia-peermem.ko", False),
        ("nvidiafb.ko", False),
        ("nvidia.o", False),
        ("nvidia.ko.old", False),
    ],
)
def test_the_main_module_is_told_from_its_companions(name: str, expected: bool) -> None:
    assert gpu_info.is_nvidia_module(name) is expected


def test_modinfo_of_several_modules() -> None:
    text = (
        "filename:       /lib/modules/a/nvidia.ko\nversion:        535.261.03\nlicense:        NVIDIA\n"
        "filename:       /lib/modules/b/nvidia.ko\nlicense:        Dual MIT/GPL\nversion:        580.95.05\nparm: x:y\n"
    )
    assert gpu_info.parse_modinfo(text) == {
        "/lib/modules/a/nvidia.ko": ("535.261.03", "proprietary"),
        "/lib/modules/b/nvidia.ko": ("580.95.05", "open"),
    }


# --- Reading a node ---------------------------------------------------------------------------------------------------


def put(path: Path, text: str | bytes = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)


def link(path: Path, to: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)


def put_device(root: Path, address: str, driver: str = "", config: bytes = b"\xde\x10\xb4\x1d", **attributes: str) -> None:
    """Put a device into sysfs the way the kernel does: the folder on the bus is a link."""
    folder = root / "sys/devices/pci0000:00" / address
    values = {"vendor": "0x10de", "device": "0x1db4", "class": "0x030200", "subsystem_vendor": "0x10de", "subsystem_device": "0x1214"}
    for name, value in {**values, **attributes}.items():
        put(folder / name, f"{value}\n")
    put(folder / "config", config)
    if driver:
        link(folder / "driver", f"../../../bus/pci/drivers/{driver}")
    link(root / "sys/bus/pci/devices" / address, f"../../../devices/pci0000:00/{address}")


@pytest.fixture
def node(tmp_path: Path) -> gpu_info.Node:
    return gpu_info.Node(str(tmp_path))


def test_a_node_without_anything(node: gpu_info.Node) -> None:
    result = gpu_info.as_result(node, node.kernels(), gpu_info.Smi(problem="missing"), None)
    assert result["pci"] == []
    assert result["nvidia_smi"]["problem"] == "missing"
    assert result["modules"] == {"loaded": [], "version": "", "flavour": "", "nouveau": False, "nouveau_blacklisted": False}
    assert result["dkms"] == {"present": False, "problem": "", "entries": []}
    assert result["secure_boot"] == "unsupported"
    assert result["kernels"] == {"running": "", "next": "", "next_from": "", "installed": []}


def test_gpus_are_found_on_the_bus_whatever_drives_them(node: gpu_info.Node, tmp_path: Path) -> None:
    put_device(tmp_path, "0000:00:02.0", vendor="0x8086", device="0x3e98", **{"class": "0x030000"})
    put_device(tmp_path, "0000:01:00.0", driver="nouveau", device="0x2B85", **{"class": "0x030000"})
    put_device(tmp_path, "0000:01:00.1", device="0x22e8", **{"class": "0x040300"})
    put_device(tmp_path, "0000:15:00.0")
    put_device(tmp_path, "0000:16:00.0", driver="nvidia", config=b"\xff\xff\xff\xff")
    put_device(tmp_path, "0000:17:00.4", driver="nvidia", device="0x20b0")
    link(tmp_path / "sys/devices/pci0000:00/0000:17:00.4/physfn", "../0000:17:00.0")
    gpus = node.pci()
    assert [(gpu.address, gpu.device, gpu.class_code, gpu.driver, gpu.virtual_function, gpu.responding) for gpu in gpus] == [
        ("0000:01:00.0", "2b85", "030000", "nouveau", False, True),
        ("0000:15:00.0", "1db4", "030200", "", False, True),
        ("0000:16:00.0", "1db4", "030200", "nvidia", False, False),
        ("0000:17:00.4", "20b0", "030200", "nvidia", True, True),
    ]
    assert (gpus[0].subsystem_vendor, gpus[0].subsystem_device) == ("10de", "1214")


def test_loaded_modules_are_read(node: gpu_info.Node, tmp_path: Path) -> None:
    put(tmp_path / "proc/modules", LSMOD)
    put(tmp_path / "sys/module/nvidia/version", "580.95.05\n")
    put(tmp_path / "proc/driver/nvidia/version", OPEN)
    put(tmp_path / "usr/lib/modprobe.d/nvidia.conf", "blacklist nouveau\n")
    seen = node.modules()
    assert (seen.version, seen.flavour, seen.nouveau_blacklisted) == ("580.95.05", "open", True)


def test_a_file_in_etc_hides_the_packages_own_of_that_name(node: gpu_info.Node, tmp_path: Path) -> None:
    put(tmp_path / "lib/modprobe.d/nvidia.conf", "blacklist nouveau\n")
    assert node.modules().nouveau_blacklisted
    link(tmp_path / "etc/modprobe.d/nvidia.conf", "/dev/null")
    assert not node.modules().nouveau_blacklisted
    put(tmp_path / "etc/modprobe.d/mine", "blacklist nouveau\n")
    assert not node.modules().nouveau_blacklisted, "a file without .conf does not count"


def test_secure_boot_is_read(node: gpu_info.Node, tmp_path: Path) -> None:
    folder = tmp_path / "sys/firmware/efi/efivars"
    folder.mkdir(parents=True)
    assert node.secure_boot() == ("unknown", False), "the file system is not mounted"
    put(folder / "BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c", b"\x07\0\0\0\0\0")
    assert node.secure_boot() == ("unsupported", False)
    put(folder / "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", ON)
    assert node.secure_boot() == ("enabled", False)
    put(folder / "MokSBStateRT-605dab50-e046-4300-abb6-3dd810dd8b23", ON)
    assert node.secure_boot() == ("disabled", False)


@pytest.mark.parametrize(
    "path",
    [
        "updates/dkms/nvidia-current.ko",
        "updates/dkms/nvidia.ko.zst",
        "kernel/nvidia-580srv-open/nvidia.ko",
        "kernel/drivers/video/nvidia.ko",
        "extra/nvidia.ko.xz",
        "extra/nvidia-open/nvidia.ko.xz",
    ],
)
def test_the_module_is_found_where_packages_put_it(node: gpu_info.Node, tmp_path: Path, path: str) -> None:
    put(tmp_path / "lib/modules" / OLD / "kernel/drivers/video/fbdev/nvidia/nvidiafb.ko")
    put(tmp_path / "lib/modules" / OLD / "updates/dkms/nvidia-uvm.ko")
    assert node.nvidia_module(OLD) == ""
    put(tmp_path / "lib/modules" / OLD / path)
    assert node.nvidia_module(OLD) == f"/lib/modules/{OLD}/{path}"


def test_a_weak_module_counts_as_long_as_it_leads_somewhere(node: gpu_info.Node, tmp_path: Path) -> None:
    link(tmp_path / "lib/modules" / NEW / "weak-updates/nvidia/nvidia.ko", f"/lib/modules/{OLD}/extra/nvidia.ko")
    assert node.nvidia_module(NEW) == ""
    put(tmp_path / "lib/modules" / OLD / "extra/nvidia.ko")
    assert node.nvidia_module(NEW) == f"/lib/modules/{NEW}/weak-updates/nvidia/nvidia.ko"


def test_headers_are_there_when_they_can_be_built_with(node: gpu_info.Node, tmp_path: Path) -> None:
    link(tmp_path / "lib/modules" / OLD / "build", f"/usr/src/elsewhere-{OLD}")
    assert not node.headers(OLD)
    (tmp_path / "usr/src" / f"elsewhere-{OLD}").mkdir(parents=True)
    assert not node.headers(OLD), "an empty folder that a removed package left"
    put(tmp_path / "usr/src" / f"elsewhere-{OLD}" / "Makefile")
    assert node.headers(OLD)
    put(tmp_path / "usr/src" / f"linux-headers-{NEW}" / "Makefile")
    assert node.headers(NEW)


def test_kernels_are_read(node: gpu_info.Node, tmp_path: Path) -> None:
    for version in (OLD, NEW):
        put(tmp_path / "boot" / f"vmlinuz-{version}")
    put(tmp_path / "boot/vmlinuz-0-rescue-5f2e")
    put(tmp_path / "proc/sys/kernel/osrelease", f"{OLD}\n")
    put(tmp_path / "lib/modules" / OLD / "updates/dkms/nvidia-current.ko")
    (tmp_path / "lib/modules/6.12.1-amd64").mkdir()
    kernels = node.kernels()
    assert (kernels.running, kernels.next, kernels.next_from) == (OLD, NEW, "newest")
    assert [(kernel.version, kernel.image) for kernel in kernels.installed] == [(OLD, True), (NEW, True), ("6.12.1-amd64", False)]

    link(tmp_path / "vmlinuz", f"boot/vmlinuz-{OLD}")
    assert (node.kernels().next, node.kernels().next_from) == (OLD, "symlink")
    put(tmp_path / "boot/grub/grub.cfg", GRUB % "0")
    assert (node.kernels().next, node.kernels().next_from) == (NEW, "grub")
    put(tmp_path / "boot/grub/grubenv", "next_entry=1>1\n")
    assert (node.kernels().next, node.kernels().next_from) == (OLD, "grub")

    known = {f"{tmp_path}/lib/modules/{OLD}/updates/dkms/nvidia-current.ko": ("535.261.03", "proprietary")}
    result = gpu_info.as_result(node, kernels, smi("t4_580.xml"), [], "timeout", known)
    versions = [(kernel["nvidia_module_version"], kernel["nvidia_module_flavour"]) for kernel in result["kernels"]["installed"]]
    assert versions == [("535.261.03", "proprietary"), ("", ""), ("", "")]
    assert result["dkms"] == {"present": True, "problem": "timeout", "entries": []}
    assert result["nvidia_smi"]["gpus"][0]["name"] == "Tesla T4"


def test_red_hats_menu_is_read(node: gpu_info.Node, tmp_path: Path) -> None:
    for name, text in ENTRIES.items():
        put(tmp_path / "boot/loader/entries" / f"{name}.conf", text)
        put(tmp_path / "boot" / f"vmlinuz-{gpu_info.kernel_of_image(text.split()[-1]) or '0-rescue-5f2e'}")
    put(tmp_path / "boot/grub2/grub.cfg", RED_HAT)
    put(tmp_path / "boot/grub2/grubenv", "saved_entry=5f2e-5.14.0-570.12.1.el9_6.x86_64\n")
    kernels = node.kernels()
    assert (kernels.next, kernels.next_from, len(kernels.installed)) == ("5.14.0-570.12.1.el9_6.x86_64", "grub", 2)


# --- Anything at all --------------------------------------------------------------------------------------------------


@given(text=st.text(), stderr=st.text(), rc=st.integers(-64, 255))
def test_any_answer_of_nvidia_smi_is_judged(text: str, stderr: str, rc: int) -> None:
    seen = gpu_info.parse_smi(rc, text, stderr)
    assert seen.problem, "no text that is no report is a good answer"
    assert seen.message or not (text + stderr).strip() or seen.problem in {"no_driver", "fallen_off", "mismatch"}


@given(st.data())
def test_a_report_with_garbage_in_it_never_raises(data: st.DataObject) -> None:
    text = answer(data.draw(st.sampled_from(["a100_mig_535.xml", "err_fields_535.xml", "lost_one_of_two_580.txt"])))
    start = data.draw(st.integers(0, len(text)))
    seen = gpu_info.parse_smi(0, text[:start] + data.draw(st.text(alphabet=st.characters(), max_size=20)) + text[start:])
    assert seen.problem in {"", "other", "no_devices", "fallen_off"}


TOKENS = [
    "{",
    "}",
    "'",
    '"',
    "\n",
    ":",
    ",",
    "/",
    "#",
    "=",
    ">",
    "(",
    "0",
    "1.2",
    "menuentry",
    "submenu",
    "linux",
    "set default=",
    "vmlinuz-6.1",
]
TOKENS += ["nvidia", "nvidia/1.0, 6.1, x86_64: installed", "blacklist", "install", "filename:", "license:", "NVRM version: NVIDIA UNIX "]


@given(st.text() | st.lists(st.sampled_from(TOKENS)).map(" ".join) | st.lists(st.sampled_from(TOKENS)).map("".join))
def test_no_parser_raises(text: str) -> None:
    gpu_info.pci_address(text)
    gpu_info.parse_dkms(text)
    gpu_info.parse_modinfo(text)
    gpu_info.grub_default(text, gpu_info.parse_grub_environment(text), {text: text})
    gpu_info.grub_default(f'set default="{text}"\n' + GRUB % text, {}, {})
    gpu_info.loaded_modules(text, text, text, gpu_info.is_blacklisted("nouveau", [text], text))
    assert gpu_info.version_key(text) <= gpu_info.version_key(text)
    assert gpu_info.kernel_of_image(text) in text


@given(st.binary(max_size=8), st.binary(max_size=8))
def test_secure_boot_of_any_bytes(state: bytes, shim: bytes) -> None:
    answer, _setup = gpu_info.secure_boot(True, {"SecureBoot": state, "MokSBStateRT": shim})
    assert (answer == "unknown") == (len(state) != 5 or state[4] > 1)
