# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter: all addresses of a cluster's nodes."""

from __future__ import annotations

DOCUMENTATION = r"""
name: cluster_addresses
short_description: All addresses of a cluster's nodes
version_added: 0.1.0
description:
  - For each node its address as P(trainyard.core.node_addresses#filter) finds it.
  - Where facts were gathered, the addresses of its other networks, too.
  - Addresses of bridges, which lead to a machine's own containers, and those that hold on one link only are left out.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: Names of nodes in the inventory.
    type: list
    elements: str
    required: true
  hostvars:
    description: Ansible's C(hostvars).
    type: dict
    required: true
  variable:
    description: The variable in which the inventory may name an address.
    type: str
    required: true
"""

EXAMPLES = r"""
nodes: "{{ groups.cluster | trainyard.core.cluster_addresses(hostvars=hostvars, variable='my_address') }}"
"""

RETURN = r"""
_value:
  description: For each node by its name C(addresses), and C(seen), whether its facts were gathered.
  type: dict
"""

from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _firewall


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"cluster_addresses": _firewall.cluster_addresses}
