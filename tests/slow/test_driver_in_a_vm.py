"""The driver on a machine with real boots: a power cut, nouveau at boot, reboots that are allowed or not, a held pair, a new kernel.

The machine is virtual and has no GPU; `gpu_stand_in.py` stands for one on its bus. DKMS really builds modules in it, by a make that does
its work on this machine's own processor (`far_make.py`), and the kernel really tries to load them. The tests build on each other, in
order.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.slow.far_make import far_make
from tests.slow.vm import Machine
from tests.support import Play, play

pytestmark = pytest.mark.slow

PATIENCE = 3600  # seconds; an emulated processor on a busy machine takes its time
# Kernels that security updates brought are not offered as long as this is there.
LATER = "/etc/apt/preferences.d/later"
PIN = "Package: src:linux src:linux-signed-amd64\\nPin: release n=*-security\\nPin-Priority: -1\\n"
SETTINGS = "/etc/modprobe.d/trainyard-nvidia-driver.conf"


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with the stand-in for a GPU, switched off and removed afterwards."""
    started = time.monotonic()
    share = tmp_path_factory.mktemp("dkms")
    share.chmod(0o755)
    machine = Machine(tmp_path_factory.mktemp("vm"), gpu=True, share=share)
    try:
        with far_make(share) as maker:
            machine.switch_on()
            machine.ask(f"update-grub && printf '{PIN}' > {LATER}")
            maker.serve(machine)
            yield machine
    finally:
        machine.cut_power()
        (machine.folder / "disk.img").unlink()
        terminal = request.config.pluginmanager.get_plugin("terminalreporter")
        terminal.write_line(
            f"virtual machine ({machine.accelerator}): {machine.boots} times switched on, {time.monotonic() - started:.0f} s"
        )


def driver(machine: Machine, folder: Path, words: tuple[str, ...] = (), **variables: Any) -> Play:
    """Apply the role."""
    task = {"name": "role", "ansible.builtin.include_role": {"name": "nvidia_driver"}}
    return play(machine, folder, [task], ("--timeout", "180", *words), timeout=PATIENCE, **variables)


def pair(machine: Machine) -> dict[str, str]:
    """Return state and version of the packages of driver and kernel."""
    lines = machine.ask("dpkg-query -W -f '${binary:Package} ${db:Status-Abbrev}${Version}\\n'").splitlines()
    return dict(line.split(" ", 1) for line in lines if re.match(r"(lib)?nvidia|libcuda|linux-(image|headers)", line))


def modules(machine: Machine) -> dict[str, str]:
    """Return kernel -> module and version that DKMS installed for it."""
    found = re.findall(r"^(\S+), (\S+), x86_64: installed$", machine.ask("dkms status"), re.MULTILINE)
    return {kernel: module for module, kernel in found}


def kernels(machine: Machine) -> list[str]:
    """Return the kernels that can be booted, oldest first."""
    return [name.removeprefix("vmlinuz-") for name in machine.ask("cd /boot && ls -v vmlinuz-*").split()]


def loaded(machine: Machine) -> set[str]:
    """Return the modules in the kernel."""
    return {line.split()[0] for line in machine.ask("cat /proc/modules").splitlines()}


def assert_sound(machine: Machine) -> None:
    """No package is broken."""
    assert machine.ask("dpkg --audit") == ""
    machine.ask("apt-get check")


def assert_all_but_the_gpu_works(machine: Machine, done: Play) -> None:
    """The module for the kernel that runs met the stand-in and would not have it, and that is all that the role finds wrong."""
    kernel = machine.ask("uname -r")
    said = done.failures().strip()
    assert said.startswith(f"The NVIDIA module for the kernel {kernel} is there and is not loaded. nvidia-smi says: "), said
    assert said.endswith(" Try modprobe nvidia; journalctl -k says why it fails."), said
    assert "NVRM: installed in this system is not supported" in machine.ask("dmesg")
    assert "nouveau" not in loaded(machine)


def look(machine: Machine, folder: Path) -> Any:
    """Return what gpu_info finds."""
    found = play(machine, folder, [{"name": "look", "trainyard.core.gpu_info": {}}], ("--timeout", "180"))
    return found.results["look", "gpu"]["gpu_info"]


def test_at_first_the_kernel_takes_nouveau_for_the_gpu(machine: Machine) -> None:
    assert "nouveau" in loaded(machine)
    assert len(kernels(machine)) == 1


def test_a_power_cut_while_the_modules_are_built_is_healed_by_the_next_run(machine: Machine, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        cut = pool.submit(driver, machine, tmp_path)
        try:
            assert machine.share
            while not any(machine.share.glob("nvidia-current/*/build/nvidia/nv.o")):
                assert not cut.done(), f"nothing was built: {cut.result().text[-3000:]}"
                time.sleep(0.5)
        finally:
            machine.cut_power()
    assert cut.result().status != 0
    machine.switch_on()
    assert "nvidia-kernel-dkms" in machine.ask("dpkg --audit")
    assert modules(machine) == {}

    # All is done but for the reboot, which nobody allowed.
    before = machine.boot_id()
    healed = driver(machine, tmp_path)
    assert "nouveau is loaded and has the GPUs. It is blacklisted now, so that a reboot gets rid of it." in healed.failures()
    assert "A reboot was not allowed: reboot the node yourself, or set nvidia_driver_reboot to if_idle or now." in healed.failures()
    assert machine.boot_id() == before
    assert_sound(machine)
    assert set(kernels(machine)) <= set(modules(machine))


def test_the_initramfs_of_each_kernel_keeps_nouveau_out(machine: Machine) -> None:
    for kernel in kernels(machine):
        machine.ask(f"rm -rf /tmp/initramfs && unmkinitramfs /boot/initrd.img-{kernel} /tmp/initramfs")
        text = machine.ask(f"cat /tmp/initramfs{SETTINGS} /tmp/initramfs/main{SETTINGS} 2>/dev/null || true")
        assert "blacklist nouveau" in text.splitlines()


def test_a_node_that_somebody_works_on_is_not_rebooted_when_idle_nodes_may_be(machine: Machine, tmp_path: Path) -> None:
    before = machine.boot_id()
    with machine.session("student"):
        stopped = driver(machine, tmp_path, nvidia_driver_reboot="if_idle")
    assert "The node was not rebooted because processes of student run." in stopped.failures()
    assert (machine.boot_id(), stopped.changed) == (before, {"gpu": 0})
    assert "nouveau" in loaded(machine)


def test_an_idle_node_is_rebooted_and_the_play_goes_on_after_it(machine: Machine, tmp_path: Path) -> None:
    before = machine.boot_id()
    done = driver(machine, tmp_path, nvidia_driver_reboot="if_idle")
    assert done.results["nvidia_driver : Reboot into the driver, one node after another", "gpu"]["rebooted"], done.text
    assert machine.boot_id() != before
    assert "nouveau" not in machine.ask("dmesg")
    assert_all_but_the_gpu_works(machine, done)


def test_a_second_run_changes_nothing_and_reboots_nothing(machine: Machine, tmp_path: Path) -> None:
    before = machine.boot_id()
    again = driver(machine, tmp_path, nvidia_driver_reboot="now")
    assert_all_but_the_gpu_works(machine, again)
    assert (machine.boot_id(), again.changed) == (before, {"gpu": 0})


def test_an_upgrade_moves_neither_kernel_nor_driver(machine: Machine) -> None:
    machine.ask(f"rm {LATER} && apt-get -q update")
    offered = machine.ask("apt-cache policy linux-image-amd64")
    installed, candidate = re.findall(r"^  (?:Installed|Candidate): (\S+)$", offered, re.MULTILINE)
    assert installed != candidate, "there is no newer kernel that an upgrade could bring"
    before = pair(machine)
    machine.ask("DEBIAN_FRONTEND=noninteractive apt-get -q -y dist-upgrade", seconds=PATIENCE)
    assert pair(machine) == before
    assert_sound(machine)


def test_a_new_kernel_has_its_module_before_it_boots_and_is_held_by_the_next_run(machine: Machine, tmp_path: Path) -> None:
    old, held = kernels(machine), machine.ask("apt-mark showhold")
    machine.ask("apt-mark unhold $(apt-mark showhold)")  # as the role's README says
    machine.ask("DEBIAN_FRONTEND=noninteractive apt-get -q -y full-upgrade", seconds=PATIENCE)
    (new,) = set(kernels(machine)) - set(old)
    assert_sound(machine)
    assert new in modules(machine)
    seen = look(machine, tmp_path)["kernels"]
    assert (seen["running"], seen["next"], seen["next_from"]) == (old[-1], new, "grub")
    machine.reboot()
    assert machine.ask("uname -r") == new
    assert machine.ask("modinfo -F vermagic nvidia-current").split()[0] == new
    assert_all_but_the_gpu_works(machine, driver(machine, tmp_path))
    assert machine.ask("apt-mark showhold") == held
    assert driver(machine, tmp_path).changed == {"gpu": 0}
