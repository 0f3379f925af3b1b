# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter: why a machine does not fit a cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
name: admission_problems
short_description: Why a machine does not fit a cluster, in words
version_added: 0.1.0
description:
  - Compares what M(trainyard.core.admission_info) returned on a node and on the cluster's controller.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: The node's C(machine).
    type: dict
    required: true
  controller:
    description: The controller's C(machine); empty where this run has not seen it.
    type: dict
    required: true
  name:
    description: The node's name in the inventory.
    type: str
    required: true
"""

EXAMPLES = r"""
problems: "{{ admission_result.machine | trainyard.core.admission_problems(controller=its_result.machine, name=inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: One sentence for each problem; empty when there is none.
  type: list
  elements: str
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.trainyard.core.plugins.plugin_utils.checks import admission


def admission_problems(machine: Mapping[str, Any], controller: Mapping[str, Any], name: str) -> list[str]:
    """Return one sentence for each reason why a machine does not fit a cluster."""
    if not controller:
        return []
    return admission.in_a_run(name, admission.machine(machine), admission.machine(controller))


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"admission_problems": admission_problems}
