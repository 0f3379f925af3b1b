#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a node has of NVIDIA."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Tells what a node has of NVIDIA GPUs and their driver
version_added: 0.1.0
description:
  - Reports the GPUs on the PCI bus, which needs no driver, and what C(nvidia-smi -q -x) says of them, or why it says nothing.
  - Reports the kernel modules in memory, what DKMS built, the state of Secure Boot, and for each kernel whether it has headers and a
    driver, so that the kernel that boots next can be judged before it boots.
  - Nothing is changed. A broken driver is a result and no failure of the module.
options:
  timeout:
    description:
      - Seconds that C(nvidia-smi) may take. It hangs on some broken GPUs; that is reported as the problem V(timeout).
      - DKMS and C(modinfo) may take three times as long.
    type: int
    default: 20
  root:
    description: Folder below which files are read. Another one than V(/) serves tests; programs are found by C(PATH) all the same.
    type: path
    default: /
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: The module only looks.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Look at the GPUs
  trainyard.core.gpu_info:
  register: gpu

- name: Stop where the kernel that boots next has no driver
  ansible.builtin.assert:
    that: >-
      gpu.gpu_info.kernels.installed | selectattr('version', '==', gpu.gpu_info.kernels.next)
      | map(attribute='nvidia_module') | first | default('') != ''
"""

RETURN = r"""
gpu_info:
  description: What was found.
  returned: always
  type: dict
  contains:
    pci:
      description: NVIDIA display and 3D controllers on the bus, by address.
      type: list
      elements: dict
      contains:
        address:
          description: PCI address.
          type: str
          sample: '0000:01:00.0'
        device:
          description: Device id, hexadecimal.
          type: str
          sample: 1db4
        class_code:
          description: PCI class, six hexadecimal digits.
          type: str
          sample: '030200'
        subsystem_vendor:
          description: Vendor of the board, hexadecimal.
          type: str
        subsystem_device:
          description: Id that the vendor gave the board, hexadecimal.
          type: str
        driver:
          description: Kernel driver bound to the device, or empty.
          type: str
          sample: nvidia
        virtual_function:
          description: Whether it is a slice made by SR-IOV, which C(nvidia-smi) does not list.
          type: bool
        responding:
          description: Whether its configuration space can be read; false for a GPU that has fallen off the bus.
          type: bool
    nvidia_smi:
      description: What C(nvidia-smi) said.
      type: dict
      contains:
        problem:
          description:
            - Empty where it answered; else V(missing), V(timeout), V(mismatch) (the library is of another version than the loaded module),
              V(no_driver), V(no_devices), V(fallen_off) or V(other).
          type: str
        message:
          description: The first line that is no part of the report, which says the problem or a warning.
          type: str
        rc:
          description: Exit status, null where it was not run or hung.
          type: int
        driver_version:
          description: Version of the loaded driver.
          type: str
        cuda_version:
          description: Newest CUDA version that the driver's library supports.
          type: str
        library_version:
          description: Version of the library that does not fit, told by newer drivers with V(mismatch).
          type: str
        lost:
          description: PCI addresses of lost GPUs that were told.
          type: list
          elements: str
        gpus:
          description: The GPUs that answered; may be filled beside V(fallen_off).
          type: list
          elements: dict
          contains:
            address:
              description: PCI address as in RV(gpu_info.pci).
              type: str
            uuid:
              description: The GPU's UUID.
              type: str
            name:
              description: Product name.
              type: str
            memory_mib:
              description: Memory in MiB; null where it has none of its own or it cannot be read.
              type: int
            mig:
              description: V(enabled), V(disabled), or empty where the GPU knows no MIG.
              type: str
            mig_devices:
              description: Number of MIG devices.
              type: int
            compute_mode:
              description: Compute mode.
              type: str
              sample: Default
            persistence:
              description: Persistence mode; null where it cannot be read.
              type: bool
            processes:
              description: Number of compute processes that run; null where that is not known.
              type: int
            errors:
              description: Fields that hold an error instead of a value, and what the driver wants done about it.
              type: list
              elements: str
              sample: ['fan_speed: ERR!', 'gpu_recovery_action: Reset']
    modules:
      description: Kernel modules in memory.
      type: dict
      contains:
        loaded:
          description: The driver's modules and its rivals that are loaded.
          type: list
          elements: str
        version:
          description: Version of the loaded module C(nvidia).
          type: str
        flavour:
          description: V(open), V(proprietary), or empty where it is not loaded.
          type: str
        nouveau:
          description: Whether nouveau is loaded.
          type: bool
        nouveau_blacklisted:
          description: Whether modprobe's configuration or the kernel's command line keeps nouveau from being loaded.
          type: bool
    dkms:
      description: What C(dkms status) says.
      type: dict
      contains:
        present:
          description: Whether DKMS is installed.
          type: bool
        problem:
          description: Why there may be more to know; V(timeout), the complaint of C(dkms), or empty.
          type: str
        entries:
          description: Modules, of NVIDIA and others, one entry for each kernel.
          type: list
          elements: dict
          contains:
            module:
              description: Name.
              type: str
              sample: nvidia-current
            version:
              description: Version.
              type: str
            kernel:
              description: Kernel; empty for a module that was only added or is broken.
              type: str
            arch:
              description: Architecture.
              type: str
            state:
              description: V(added), V(built), V(installed) or V(broken).
              type: str
            weak:
              description: Whether it is a link to the module of another kernel.
              type: bool
            intact:
              description: False where what is installed is not what was built, or a part of it is missing.
              type: bool
            note:
              description: What DKMS adds to the state.
              type: str
    secure_boot:
      description: V(enabled), V(disabled), V(unsupported) (which legacy BIOS is) or V(unknown).
      type: str
    secure_boot_setup_mode:
      description: Whether the firmware takes any keys and checks nothing.
      type: bool
    kernels:
      description: Kernels.
      type: dict
      contains:
        running:
          description: The one that runs.
          type: str
        next:
          description: The one that boots next, empty where none can be booted, as in a container.
          type: str
        next_from:
          description: How that is known, V(grub), V(symlink), or V(newest), which is a guess.
          type: str
        installed:
          description: Those on disk, oldest first.
          type: list
          elements: dict
          contains:
            version:
              description: Version.
              type: str
              sample: 6.1.0-40-amd64
            image:
              description: Whether it can be booted, and is not only a folder of modules.
              type: bool
            headers:
              description: Whether modules can be built for it.
              type: bool
            nvidia_module:
              description: Path of the driver's module for it, or empty.
              type: str
            nvidia_module_version:
              description: Version of that file.
              type: str
            nvidia_module_flavour:
              description: V(open) or V(proprietary), by that file's licence.
              type: str
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _gpu_info as info


def run(module: AnsibleModule, seconds: int, command: list[str]) -> tuple[int, str, str, bool]:
    """Run a program; return its exit status, output, errors and whether it took too long.

    A process stuck in the kernel cannot be killed, and waiting for it would hang too. timeout(1) kills itself along with it.
    """
    limiter = [module.get_bin_path("timeout", required=True), "--kill-after=2", str(seconds)]
    start = time.monotonic()
    rc, output, errors = module.run_command([*limiter, *command], errors="replace", environ_update={"LC_ALL": "C", "LANGUAGE": "C"})
    return rc, output, errors, rc in {124, 137, -9} and time.monotonic() - start >= seconds


def ask_smi(module: AnsibleModule) -> info.Smi:
    """Return what nvidia-smi says."""
    seconds = module.params["timeout"]
    program = module.get_bin_path("nvidia-smi")
    if not program:
        return info.Smi(problem="missing", message="There is no nvidia-smi.")
    rc, output, errors, hung = run(module, seconds, [program, "-q", "-x"])
    if hung:
        return info.Smi(problem="timeout", message=f"nvidia-smi did not answer within {seconds} seconds.")
    return info.parse_smi(rc, output, errors)


def ask_dkms(module: AnsibleModule) -> tuple[list[info.Dkms] | None, str]:
    """Return what DKMS says, None where it is not installed, and why that may be incomplete."""
    program = module.get_bin_path("dkms")
    if not program:
        return None, ""
    rc, output, errors, hung = run(module, 3 * module.params["timeout"], [program, "status"])
    complaint = next((line.strip() for line in errors.splitlines() if line.strip()), f"exit status {rc}") if rc else ""
    return info.parse_dkms(f"{output}\n{errors}"), "timeout" if hung else complaint


def ask_modinfo(module: AnsibleModule, node: info.Node, kernels: info.Kernels) -> dict[str, tuple[str, str]]:
    """Return version and flavour of the modules on disk, by path."""
    program = module.get_bin_path("modinfo")
    paths = [node.path(kernel.nvidia_module) for kernel in kernels.installed if kernel.nvidia_module]
    if not program or not paths:
        return {}
    _rc, output, _errors, _hung = run(module, 3 * module.params["timeout"], [program, *paths])
    return info.parse_modinfo(output)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={"timeout": {"type": "int", "default": 20}, "root": {"type": "path", "default": "/"}},
        supports_check_mode=True,
    )
    if module.params["timeout"] < 1:
        module.fail_json(msg=f"timeout is {module.params['timeout']}; it has to be one second or more.")
    node = info.Node(module.params["root"])
    kernels = node.kernels()
    dkms, dkms_problem = ask_dkms(module)
    modinfo = ask_modinfo(module, node, kernels)
    module.exit_json(changed=False, gpu_info=info.as_result(node, kernels, ask_smi(module), dkms, dkms_problem, modinfo))


if __name__ == "__main__":
    main()
