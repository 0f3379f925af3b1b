#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Check that nobody else listens on the ports of a node's services."""

from __future__ import annotations

DOCUMENTATION = r"""
module: port_check
short_description: Check that nobody else listens on the ports of a node's services
version_added: 0.1.0
description:
  - Fails where a process other than one of the named units listens on a port, so that this is known before anything changes.
  - Changes nothing.
options:
  ports:
    description: The ports.
    type: list
    elements: dict
    required: true
    suboptions:
      port:
        description: The port.
        type: int
        required: true
      unit:
        description: The unit that may hold it already.
        type: str
        required: true
      variable:
        description: The variable that the port comes from, for the message.
        type: str
        required: true
      addresses:
        description: Addresses that the service will listen on; empty for all.
        type: list
        elements: str
        default: []
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: The module only looks.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Check that the controller's port is free
  trainyard.core.port_check:
    ports:
      - {port: 6817, unit: slurmctld.service, variable: slurm_config.SlurmctldPort}
"""

RETURN = r"""
# nothing but what every module returns
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils._host import ports, reported


def main() -> None:
    """Entry point."""
    port = {
        "port": {"type": "int", "required": True},
        "unit": {"type": "str", "required": True},
        "variable": {"type": "str", "required": True},
        "addresses": {"type": "list", "elements": "str", "default": []},
    }
    module = AnsibleModule(
        argument_spec={"ports": {"type": "list", "elements": "dict", "required": True, "options": port}}, supports_check_mode=True
    )
    found = []
    for each in module.params["ports"]:
        other = ports.stranger(ports.holders(each["port"], each["addresses"]), [each["unit"]])
        if other:
            name = reported.printable(other.name, 60)
            found.append(
                f"{each['variable']}: {name} (process {other.process}) listens on the port {each['port']} of this node, which "
                f"{each['unit']} needs. Stop it (ss -Hltnp 'sport = :{each['port']}' shows it), or choose another port."
            )
    if found:
        module.fail_json(msg=" ".join(found))
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
