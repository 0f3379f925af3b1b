# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter: which environments were proven on which nodes of a cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
name: proven_environments
short_description: Which environments were proven on which nodes of a cluster
version_added: 0.1.0
description:
  - Reads what M(trainyard.core.training_proof) returned on each node in this run.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: Names of the nodes in the inventory.
    type: list
    elements: str
    required: true
  hostvars:
    description: Ansible's C(hostvars).
    type: dict
    required: true
  result:
    description: The variable in which a node's result was registered.
    type: str
    required: true
  hostname:
    description: The variable in which the inventory may set a host name.
    type: str
    default: ""
"""

EXAMPLES = r"""
nodes: "{{ groups.slurm_compute | trainyard.core.proven_environments(hostvars=hostvars, result='verification_result') }}"
"""

RETURN = r"""
_value:
  description: For each node by its host name the environments that are proven, each with its fingerprint; none where the run left it out.
  type: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _hosts as hosts


def proven_environments(nodes: Sequence[str], hostvars: Mapping[str, Any], result: str, hostname: str = "") -> dict[str, dict[str, str]]:
    """Return the environments that this run found proven on each node, with their fingerprints."""
    found = {}
    for name in nodes:
        variables = hostvars.get(name, {})
        proofs = (variables.get(result) or {}).get("proofs") or []
        host = hosts.node(str(name), "", "", {}, str(variables.get(hostname) or "") if hostname else "")["host"]
        found[str(host)] = {str(proof["environment"]): str(proof["fingerprint"]) for proof in proofs if proof["passed"] is not False}
    return found


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"proven_environments": proven_environments}
