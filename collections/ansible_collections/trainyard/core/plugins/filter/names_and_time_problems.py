# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter: what is wrong with the wishes for names and time."""

from __future__ import annotations

DOCUMENTATION = r"""
name: names_and_time_problems
short_description: What is wrong with the wishes for names and time, in words
version_added: 0.1.0
description:
  - Reads the variables of the role C(names_and_time) and returns one sentence for everything that could not be.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: The variables of the role, without their prefix.
    type: dict
    required: true
  nodes:
    description: What P(trainyard.core.node_addresses#filter) returns.
    type: dict
    required: true
  host:
    description: This node's name in the inventory.
    type: str
    required: true
"""

EXAMPLES = r"""
problems: "{{ wishes | trainyard.core.names_and_time_problems(nodes=nodes, host=inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: One sentence for each problem; empty when there is none.
  type: list
  elements: str
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _hosts as hosts


def names_and_time_problems(wishes: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]], host: str) -> list[str]:
    """Return one sentence for each thing in ``wishes`` that could not be."""
    return hosts.problems(wishes, nodes, host)


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"names_and_time_problems": names_and_time_problems}
