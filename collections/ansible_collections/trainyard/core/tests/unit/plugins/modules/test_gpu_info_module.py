"""The module gpu_info, run with programs that stand in for nvidia-smi, dkms and modinfo."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.trainyard.core.plugins.modules import gpu_info

FIXTURES = Path(__file__).parents[3] / "fixtures"
Run = Callable[..., dict[str, Any]]


def put_program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], programs: Path) -> Run:
    def start(**options: Any) -> dict[str, Any]:
        with patch_module_args({"root": str(tmp_path / "root"), **options}), pytest.raises(SystemExit):
            gpu_info.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return start


@pytest.mark.parametrize("check_mode", [False, True])
def test_what_the_programs_say_is_returned(tmp_path: Path, run: Run, programs: Path, check_mode: bool) -> None:
    put_program(programs, "nvidia-smi", f'[ "$*" = "-q -x" ] && cat {FIXTURES}/nvidia_smi/v100_470.xml')
    put_program(programs, "dkms", f'[ "$*" = status ] && cat {FIXTURES}/dkms/debian11.txt')
    put_program(programs, "modinfo", 'for path; do printf "filename: %s\\nversion: 470.82.01\\nlicense: NVIDIA\\n" "$path"; done')
    path = tmp_path / "root/lib/modules/5.10.0-9-amd64/updates/dkms/nvidia.ko"
    path.parent.mkdir(parents=True)
    path.touch()
    result = run(_ansible_check_mode=check_mode)
    assert result["changed"] is False
    info = result["gpu_info"]
    assert [gpu["address"] for gpu in info["nvidia_smi"]["gpus"]] == ["0000:15:00.0", "0000:b2:00.0"]
    assert (info["nvidia_smi"]["problem"], info["nvidia_smi"]["rc"]) == ("", 0)
    assert (info["dkms"]["present"], info["dkms"]["problem"], len(info["dkms"]["entries"])) == (True, "", 3)
    (kernel,) = info["kernels"]["installed"]
    assert (kernel["nvidia_module_version"], kernel["nvidia_module_flavour"]) == ("470.82.01", "proprietary")


def test_a_node_without_the_programs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = gpu_info.AnsibleModule.get_bin_path
    hidden = {"nvidia-smi", "dkms", "modinfo"}
    monkeypatch.setattr(
        gpu_info.AnsibleModule, "get_bin_path", lambda self, arg, required=False: None if arg in hidden else found(self, arg, required)
    )
    info = run()["gpu_info"]
    assert (info["nvidia_smi"]["problem"], info["nvidia_smi"]["rc"]) == ("missing", None)
    assert info["dkms"] == {"present": False, "problem": "", "entries": []}


@pytest.mark.parametrize(
    "script",
    [
        "exec sleep 60",
        "trap '' TERM; while :; do sleep 1; done",
        "setsid sleep 20; exit 0",  # keeps the output open where no signal to the group reaches it, as a process stuck in the kernel does
    ],
)
def test_a_hanging_nvidia_smi_is_a_result(run: Run, programs: Path, script: str) -> None:
    put_program(programs, "nvidia-smi", script)
    start = time.monotonic()
    seen = run(timeout=1)["gpu_info"]["nvidia_smi"]
    assert (seen["problem"], seen["rc"]) == ("timeout", None)
    assert time.monotonic() - start < 15


def test_a_program_that_fails_at_once_with_the_status_of_a_timeout_did_not_hang(run: Run, programs: Path) -> None:
    put_program(programs, "nvidia-smi", "echo 'No devices were found' >&2; exit 124")
    assert run()["gpu_info"]["nvidia_smi"]["problem"] == "no_devices"


def test_a_dkms_that_fails_is_told(run: Run, programs: Path) -> None:
    put_program(programs, "dkms", f"cat {FIXTURES}/dkms/debian11.txt; echo 'Error! The database is locked.' >&2; exit 3")
    dkms = run()["gpu_info"]["dkms"]
    assert (dkms["problem"], len(dkms["entries"])) == ("Error! The database is locked.", 3)


def test_bytes_that_are_no_text_do_no_harm(run: Run, programs: Path) -> None:
    put_program(programs, "nvidia-smi", r"printf '\377\376 broken \000'; exit 1")
    assert run()["gpu_info"]["nvidia_smi"]["problem"] == "other"


def test_a_senseless_timeout_is_refused(run: Run) -> None:
    result = run(timeout=0)
    assert result["failed"] is True
    assert "one second or more" in result["msg"]
