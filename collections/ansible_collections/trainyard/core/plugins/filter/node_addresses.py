# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter: by which addresses nodes reach each other."""

from __future__ import annotations

DOCUMENTATION = r"""
name: node_addresses
short_description: By which addresses and names nodes reach each other
version_added: 0.1.0
description:
  - For each node the address is what the inventory says in a variable; else C(ansible_host), where that is an address; else the node's
    own address on its way to the network, where facts were gathered and the address is one.
  - Names are the inventory's alone. What a node calls itself is compared with them, and is not used for anything else.
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
    description: The variable in which the inventory may say an address.
    type: str
    required: true
  hostname:
    description: The variable in which the inventory may say a host name.
    type: str
    default: ""
  domain:
    description: The lab's domain, which every host name gets as well; empty for none.
    type: str
    default: ""
"""

EXAMPLES = r"""
nodes: "{{ groups.cluster | trainyard.core.node_addresses(hostvars=hostvars, variable='my_address') }}"
"""

RETURN = r"""
_value:
  description:
    - For each node by its name C(address), empty where nobody knows it; C(host), the host name that it has to have; C(names), by which
      others know it; C(reported), what it calls itself, for messages; C(refused), why an address that it reports is not used; and
      C(seen), whether its facts were gathered.
  type: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _hosts as hosts


def node_addresses(
    nodes: Sequence[str], hostvars: Mapping[str, Any], variable: str, hostname: str = "", domain: str = ""
) -> dict[str, dict[str, Any]]:
    """Return address, names and whether it was seen for each node."""
    found = {}
    for name in nodes:
        variables = hostvars.get(name, {})
        facts = variables.get("ansible_facts") or {}
        address, host = (str(variables.get(each) or "") for each in (variable, hostname))
        found[str(name)] = hosts.node(str(name), address, str(variables.get("ansible_host") or ""), facts, host, domain)
    return found


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"node_addresses": node_addresses}
