# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter: what is wrong with the firewall's variables."""

from __future__ import annotations

DOCUMENTATION = r"""
name: node_firewall_problems
short_description: What is wrong with the firewall's variables
version_added: 0.1.0
description:
  - Reads the variables of the role C(node_firewall) and returns one sentence for each value that cannot be used.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: The variables of the role, without their prefix.
    type: dict
    required: true
"""

EXAMPLES = r"""
problems: "{{ request | trainyard.core.node_firewall_problems }}"
"""

RETURN = r"""
_value:
  description: One sentence for each problem; empty when there is none.
  type: list
  elements: str
"""

from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _firewall


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"node_firewall_problems": _firewall.problems}
