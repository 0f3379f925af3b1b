# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter: what is wrong with the wishes for a cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
name: slurm_problems
short_description: What is wrong with the wishes for a cluster, in words
version_added: 0.1.0
description:
  - Reads the variables of the role C(slurm) and returns one sentence for everything that could not be.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: The variables of the role, without their prefix, and the host, the run's nodes and the state.
    type: dict
    required: true
  hostvars:
    description: Ansible's C(hostvars), of which C(slurm_users) of the cluster's nodes is read.
    type: dict
    required: true
  nodes:
    description: What P(trainyard.core.node_addresses#filter) returns for the cluster's nodes.
    type: dict
    required: true
"""

EXAMPLES = r"""
problems: "{{ wishes | trainyard.core.slurm_problems(hostvars=hostvars, nodes=names) }}"
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
from ansible_collections.trainyard.core.plugins.module_utils import _slurm_conf as slurm_conf


def slurm_problems(wishes: Mapping[str, Any], hostvars: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return one sentence for each thing in ``wishes`` that could not be."""
    members = [name for name in dict.fromkeys([*wishes["controllers"], *wishes["computes"], *wishes["submits"]]) if name in hostvars]
    found = slurm_conf.problems({**wishes, "users": {name: hostvars[name].get("slurm_users") or [] for name in members}})
    refused = nodes.get(wishes["host"], {}).get("refused")
    found += hosts.name_problems(nodes, str(wishes["host"]), "slurm_hostname")
    found += hosts.version_problems(nodes, str(wishes["host"]), "names_and_time_address")
    return [*found, *([str(refused)] if refused else [])]


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"slurm_problems": slurm_problems}
