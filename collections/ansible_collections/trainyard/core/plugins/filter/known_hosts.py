# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter: by which names and host keys nodes know each other."""

from __future__ import annotations

DOCUMENTATION = r"""
name: known_hosts
short_description: By which names and SSH host keys nodes know each other
version_added: 0.1.0
description:
  - Names and addresses are the inventory's. A name or an address that two nodes have is left out.
  - Of the keys, each node reports its own; what is not a public key is refused.
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
  result:
    description: The variable with what M(trainyard.core.host_keys_info) returned on a node.
    type: str
    required: true
  address:
    description: The variable in which the inventory may name an address.
    type: str
    default: ""
  hostname:
    description: The variable in which the inventory may name a host name.
    type: str
    default: ""
  domain:
    description: The lab's domain; empty for none.
    type: str
    default: ""
"""

EXAMPLES = r"""
nodes: "{{ groups.all | trainyard.core.known_hosts(hostvars=hostvars, result='host_keys_result') }}"
"""

RETURN = r"""
_value:
  description: For each node by its name C(names), C(keys), C(seen), whether it reported keys, and C(refused), why they are not used.
  type: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _hosts as hosts
from ansible_collections.trainyard.core.plugins.module_utils._ssh import known_hosts as core


def known_hosts(
    nodes: Sequence[str], hostvars: Mapping[str, Any], result: str, address: str = "", hostname: str = "", domain: str = ""
) -> dict[str, dict[str, Any]]:
    """Return names and host keys of each node."""
    found, results = {}, {}
    for name in map(str, nodes):
        variables = hostvars.get(name, {})
        own_address, own_name, reached = (str(variables.get(each) or "") for each in (address, hostname, "ansible_host"))
        found[name] = hosts.node(name, own_address, reached, {}, own_name, domain)
        results[name] = variables.get(result)
    return core.entries(found, results)


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"known_hosts": known_hosts}
