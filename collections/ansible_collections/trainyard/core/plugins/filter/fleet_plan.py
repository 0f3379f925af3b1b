# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: what fits together on all nodes, or why it does not."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_plan
short_description: Drivers, CUDA and wheel sets for all nodes, or why there are none
version_added: 0.1.0
description:
  - Takes the variables C(plan_*) of the nodes, their facts and what M(trainyard.core.gpu_info) said of them.
  - Reads the catalogue on the controller, changes nothing.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: The variables of all hosts.
    type: dict
    required: true
  hosts:
    description: The hosts to plan for.
    type: list
    elements: str
    required: true
  catalogue:
    description: Folder of the catalogue's rows on the controller.
    type: path
    required: true
  environments:
    description: The catalogue's environments, C(catalog_environments).
    type: dict
    required: true
  locks:
    description: Folder of their locks on the controller. A plan prefers what is locked.
    type: path
    required: true
  month:
    description: The month, such as V(2026-11); it decides which driver branches nobody looks after any more.
    type: str
    required: true
"""

EXAMPLES = r"""
plan: >-
  {{ hostvars | trainyard.core.fleet_plan(
       hosts=ansible_play_hosts_all, catalogue=folder, environments=catalog_environments, locks=other_folder, month='2026-11') }}
"""

RETURN = r"""
_value:
  description: The answer.
  type: dict
  contains:
    problems:
      description: Sentences that say what clashes and what would work, or what is not locked; empty when all fits.
      type: list
      elements: str
    plan:
      description: What each node gets, with reasons; empty when nothing is wanted or something clashes.
      type: dict
"""

from typing import Any

from ansible_collections.trainyard.core.plugins.plugin_utils._fleet_plan import fleet_plan


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"fleet_plan": fleet_plan}
