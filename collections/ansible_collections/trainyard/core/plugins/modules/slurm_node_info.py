#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Slurm has to know of a node that computes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slurm_node_info
short_description: Says what Slurm has to know of a node that computes
version_added: 0.1.0
description:
  - Asks Slurm's own C(slurmd -C) for sockets, cores, threads and memory, and looks whether jobs can be held in cgroups here and whether
    Slurm can ask NVML for GPUs.
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
  diff_mode:
    support: none
    description: Changes nothing.
"""

EXAMPLES = r"""
- name: Know the node
  trainyard.core.slurm_node_info:
  register: node_result
"""

RETURN = r"""
host:
  description: The node's host name, up to the first dot.
  returned: always
  type: str
hardware:
  description: CPUs, boards, sockets, cores, threads and memory in MiB, by Slurm's names; empty where C(slurmd) is yet to be installed.
  returned: always
  type: dict
unconfined:
  description: Why jobs cannot be held in cgroups, part of a sentence; empty where they can.
  returned: always
  type: str
nvml:
  description: Whether Slurm's plugin for NVML is here. Without it, a C(slurmd) that is to use it does not start.
  returned: always
  type: bool
"""

import glob
import os
import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _slurm_conf as slurm_conf

ROOT = "/sys/fs/cgroup"
NVML = ("/usr/lib/*/slurm-wlm/gpu_nvml.so", "/usr/lib*/slurm/gpu_nvml.so")
"""Where Debian's package slurm-wlm-nvml-plugin and Slurm's own build put it."""


def why_unconfined(module: AnsibleModule) -> str:
    """Say why jobs cannot be held in cgroups; empty where they can."""
    detect = module.get_bin_path("systemd-detect-virt")
    if detect and module.run_command([detect, "--container", "--quiet"])[0] == 0:
        return "is a container"
    try:
        with open(os.path.join(ROOT, "cgroup.controllers"), encoding="ascii") as file:
            there = set(file.read().split())
        missing = sorted({"cpuset", "memory"} - there)
    except FileNotFoundError:
        missing = [name for name in ("cpuset", "devices", "freezer", "memory") if not os.path.isdir(os.path.join(ROOT, name))]
    return f"lacks the cgroup controller {missing[0]}" if missing else ""


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    slurmd = module.get_bin_path("slurmd", opt_dirs=["/usr/sbin"])
    said = module.run_command([slurmd, "-C"])[1] if slurmd else ""
    module.exit_json(
        changed=False,
        host=platform.node().partition(".")[0],
        hardware=slurm_conf.parse_hardware(said),
        unconfined=why_unconfined(module),
        nvml=any(glob.glob(pattern) for pattern in NVML),
    )


if __name__ == "__main__":
    main()
