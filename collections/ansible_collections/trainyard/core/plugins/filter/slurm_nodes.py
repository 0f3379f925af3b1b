# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter: what a run has found out about the nodes of a cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
name: slurm_nodes
short_description: What a run has found out about the nodes of a cluster
version_added: 0.1.0
description:
  - Reads what the role C(slurm) registered on the nodes that this run reaches. The others are not in the result.
  - A node's name is the inventory's. What a node reports is checked; where it is not what it has to be, the run stops.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: Names in the inventory of the nodes that compute.
    type: list
    elements: str
    required: true
  hostvars:
    description: Ansible's C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
nodes: "{{ slurm_computes | trainyard.core.slurm_nodes(hostvars=hostvars) }}"
"""

RETURN = r"""
_value:
  description: For each node by its name what M(trainyard.core.slurm_configuration) wants to know.
  type: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.trainyard.core.plugins.module_utils import _hosts as hosts
from ansible_collections.trainyard.core.plugins.module_utils import _slurm_conf as slurm_conf
from ansible_collections.trainyard.core.plugins.module_utils._host.reported import ReportedError, gpu_name


def slurm_nodes(computes: Sequence[str], hostvars: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what is known of the nodes that this run reached."""
    found = {}
    for name in computes:
        variables = hostvars.get(name, {})
        looked = variables.get("slurm_node_result") or {}
        if "hardware" not in looked:
            continue
        wished = variables.get("slurm_gpus")
        seen = (variables.get("slurm_gpu_result") or {}).get("gpu_info") or {"nvidia_smi": {"gpus": []}}
        address, ansible_host, host = (str(variables.get(each) or "") for each in ("slurm_address", "ansible_host", "slurm_hostname"))
        known = hosts.node(str(name), address, ansible_host, {**(variables.get("ansible_facts") or {}), "hostname": looked["host"]}, host)
        refusals = [*hosts.name_problems({str(name): known}, str(name), "slurm_hostname"), *filter(None, [known["refused"]])]
        if refusals:
            raise AnsibleFilterError(" ".join(refusals))
        try:
            names = [] if wished is not None else [gpu["name"] and gpu_name(str(name), gpu["name"]) for gpu in seen["nvidia_smi"]["gpus"]]
            gpus = list(wished) if wished is not None else [slurm_conf.gpu_type(each) for each in names]
            found[str(name)] = slurm_conf.checked(
                str(name), {**looked, "host": known["host"], "address": known["address"], "gpus": gpus, "gpus_fixed": wished is not None}
            )
        except ReportedError as error:
            raise AnsibleFilterError(str(error)) from error
    return found


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"slurm_nodes": slurm_nodes}
