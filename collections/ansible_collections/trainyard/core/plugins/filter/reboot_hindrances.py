# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: why a node should not be rebooted now."""

from __future__ import annotations

DOCUMENTATION = r"""
name: reboot_hindrances
short_description: Why a node should not be rebooted now, in words
version_added: 0.1.0
description:
  - A node is idle when no process belongs to a person other than the play's own account and no GPU computes. What cannot be known counts
    as busy.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: The result RV(trainyard.core.gpu_info#module:gpu_info).
    type: dict
    required: true
  processes:
    description: Lines as C(ps -eo uid=,user:64=) prints them.
    type: list
    elements: str
    required: true
  own:
    description: The account that the play logs in with.
    type: str
    required: true
"""

EXAMPLES = r"""
reasons: "{{ gpu.gpu_info | trainyard.core.reboot_hindrances(processes=ps.stdout_lines, own='admin') }}"
"""

RETURN = r"""
_value:
  description: Reasons, parts of a sentence; empty where the node is idle.
  type: list
  elements: str
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _driver_verdict


def reboot_hindrances(found: Mapping[str, Any], *, processes: Sequence[str], own: str) -> list[str]:
    """Return why a node should not be rebooted; empty where nobody would notice."""
    return _driver_verdict.busy(found, processes, own)


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"reboot_hindrances": reboot_hindrances}
