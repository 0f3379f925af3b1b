# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: what is wrong with users and groups on a node."""

from __future__ import annotations

DOCUMENTATION = r"""
name: account_problems
short_description: What is wrong with users and groups on a node, in words
version_added: 0.1.0
description:
  - Compares C(base_users), C(base_groups) and C(base_data_group) with the accounts of a node.
  - Returns one entry for each user or group that could not be made, or would change what is somebody else's.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: The variables of the role C(base), without their prefix.
    type: dict
    required: true
  node:
    description: What M(trainyard.core.account_info) returned; left out, the variables are judged by themselves.
    type: dict
  remarks:
    description: Whether to return remarks on what works otherwise than it looks, rather than problems.
    type: bool
    default: false
"""

EXAMPLES = r"""
problems: "{{ wishes | trainyard.core.account_problems(node=account_result) }}"
"""

RETURN = r"""
_value:
  description: Sentences for each problem; empty when there is none.
  type: list
  elements: str
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.trainyard.core.plugins.plugin_utils.checks import accounts


def account_problems(wishes: Mapping[str, Any], node: Mapping[str, Any] | None = None, remarks: bool = False) -> list[str]:
    """Return the problems with accounts, or the remarks."""
    request = accounts.Request(
        wishes["users"],
        wishes["groups"],
        str(wishes["data_group"]),
        wishes["packages"],
        bool(wishes["keys_only"]),
        bool(wishes["homes"]),
    )
    there = None
    if node is not None:
        there = accounts.Node(
            node["accounts"],
            node["groups"],
            node["homes"] if request.homes else {},
            node["lowest"],
            node["login"],
            node["sudo_folder"],
            node["free_groups"],
        )
    return accounts.remarks(request, there) if remarks and there else accounts.problems(request, there)


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"account_problems": account_problems}
