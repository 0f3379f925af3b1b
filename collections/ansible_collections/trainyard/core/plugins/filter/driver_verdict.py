# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: whether a driver is as wanted and works."""

from __future__ import annotations

DOCUMENTATION = r"""
name: driver_verdict
short_description: Whether the NVIDIA driver of a node is as wanted and works, in words
version_added: 0.1.0
description:
  - Judges what M(trainyard.core.gpu_info) found and returns one sentence for everything that is not right, with what to do.
  - Where no GPU is on the bus, what needs one is not judged, and that is said.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: The result RV(trainyard.core.gpu_info#module:gpu_info).
    type: dict
    required: true
  branch:
    description: The wanted branch; 0 for any.
    type: int
    default: 0
  release:
    description: The exact version that is wanted, such as V(580.95.05); empty for any of the branch.
    type: str
    default: ''
  modules:
    description: The wanted flavour, V(open) or V(proprietary); empty for either.
    type: str
    default: ''
"""

EXAMPLES = r"""
- name: Stop where the driver does not work
  ansible.builtin.assert:
    that: verdict.problems | length == 0
    fail_msg: "{{ verdict.problems | join(' ') }}"
  vars:
    verdict: "{{ gpu.gpu_info | trainyard.core.driver_verdict(branch=535) }}"
"""

RETURN = r"""
_value:
  description:
    - V(problems), a sentence for each; V(reboot), whether a reboot cures one of them and nothing speaks against it; V(warnings);
      V(not_judged), what could not be looked at and why.
  type: dict
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _driver_verdict


def driver_verdict(found: Mapping[str, Any], *, branch: int = 0, release: str = "", modules: str = "") -> dict[str, Any]:
    """Judge what gpu_info ``found`` against the wanted branch, release and flavour."""
    return _driver_verdict.verdict(found, _driver_verdict.Wanted(int(branch), str(release), str(modules)))


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"driver_verdict": driver_verdict}
