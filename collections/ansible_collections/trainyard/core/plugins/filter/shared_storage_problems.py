# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter: what is wrong with the wishes for shared folders."""

from __future__ import annotations

DOCUMENTATION = r"""
name: shared_storage_problems
short_description: What is wrong with the wishes for shared folders, in words
version_added: 0.1.0
description:
  - Reads the variables of the role C(shared_storage) and returns one sentence for everything that could not be.
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
  look:
    description: What M(trainyard.core.nfs_info) returned.
    type: dict
    required: true
  hostvars:
    description: Ansible's C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
problems: "{{ wishes | trainyard.core.shared_storage_problems(nodes=nodes, host=inventory_hostname, look=look_result, hostvars=hostvars) }}"
"""

RETURN = r"""
_value:
  description: One sentence for each problem; empty when there is none.
  type: list
  elements: str
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _nfs as nfs


def shared_storage_problems(
    wishes: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]], host: str, look: Mapping[str, Any], hostvars: Mapping[str, Any]
) -> list[str]:
    """Return one sentence for each thing in ``wishes`` that could not be."""
    numbers = {what: {name: hostvars[name].get(f"shared_storage_{what}") or [] for name in nodes} for what in ("users", "groups")}
    return nfs.problems({**wishes, **numbers}, nodes, host, look)


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"shared_storage_problems": shared_storage_problems}
