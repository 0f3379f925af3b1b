#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What decides whether a machine may be a node of a cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: admission_info
short_description: Says what decides whether a machine may be a node of a cluster
version_added: 0.1.0
description:
  - Reads the machine's system, clock and free disk space, its GPUs, and which Slurm controller it obeys.
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
- name: Gather what decides whether the node fits the cluster
  trainyard.core.admission_info:
  register: admission_result
"""

RETURN = r"""
machine:
  description: The machine.
  returned: always
  type: dict
  contains:
    os:
      description: Distribution and version.
      type: str
      sample: debian 12
    architecture:
      description: Of its processor.
      type: str
    host:
      description: Its short host name.
      type: str
    clock:
      description: Its time, in seconds since 1970.
      type: int
    free:
      description: Free bytes, by path.
      type: dict
    gpus:
      description: Names of the GPUs that answer to C(nvidia-smi).
      type: list
      elements: str
    slurm:
      description: The controller that its Slurm obeys; empty without one.
      type: str
    munge:
      description: A fingerprint of its munge key; empty without one.
      type: str
"""

import hashlib
import os
import shlex
from glob import glob

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _proof_runner as runner
from ansible_collections.trainyard.core.plugins.module_utils import _slurm as slurm

FOLDERS = ("/", "/var", "/opt", "/tmp")
SLURM = ("/etc/slurm/slurm.conf", "/etc/default/slurmd", "/etc/systemd/system/slurmd.service.d/*.conf")
MUNGE = "/etc/munge/munge.key"


def system() -> str:
    """Return distribution and version."""
    lines = (runner.read("/etc/os-release") or "").splitlines()
    words = dict(line.split("=", 1) for line in lines if "=" in line)
    return " ".join(part for key in ("ID", "VERSION_ID") for part in shlex.split(words.get(key, "")))


def free(folder: str) -> int:
    """Return the bytes that are free there."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def fingerprint(path: str) -> str:
    """Return a fingerprint of a file; empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()[:16]
    except OSError:
        return ""


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    smi = module.get_bin_path("nvidia-smi")
    status, names, _errors = module.run_command([smi, "--query-gpu=name", "--format=csv,noheader"]) if smi else (1, "", "")
    texts = [runner.read(path) or "" for pattern in SLURM for path in sorted(glob(pattern))]
    module.exit_json(
        changed=False,
        machine={
            "os": system(),
            "architecture": os.uname().machine,
            "host": os.uname().nodename.partition(".")[0],
            "clock": int(module.run_command(["date", "+%s"], check_rc=True)[1]),
            "free": {folder: free(folder) for folder in FOLDERS},
            "gpus": [] if status else [line.strip() for line in names.splitlines() if line.strip()],
            "slurm": slurm.controller_of(texts),
            "munge": fingerprint(MUNGE),
        },
    )


if __name__ == "__main__":
    main()
