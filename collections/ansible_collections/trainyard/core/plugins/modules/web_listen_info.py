#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The addresses that a web service holds its port on."""

from __future__ import annotations

DOCUMENTATION = r"""
module: web_listen_info
short_description: Tells on which addresses of a node a web service has to hold its port
version_added: 0.1.0
description:
  - Returns the address that was asked for and the node's loopback addresses, C(::1) where the node has IPv6. A service that listens on
    C(127.0.0.1) alone leaves C([::1]) to any other user of the node, and C(localhost) leads there first.
  - Fails where the node does not have the address, or where another user of the node listens on the port.
options:
  listen:
    description: The IP address that was asked for.
    type: str
    required: true
  port:
    description: The port.
    type: int
    required: true
  unit:
    description: The service that may hold the port already.
    type: str
    required: true
  variables:
    description: The names of the variables that I(listen) and I(port) come from, for messages.
    type: list
    elements: str
    required: true
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
- name: Gather the addresses to listen on
  trainyard.core.web_listen_info:
    listen: "{{ jupyter_listen }}"
    port: "{{ jupyter_port }}"
    unit: trainyard-jupyter.service
    variables: [jupyter_listen, jupyter_port]
  register: jupyter_listen_result
"""

RETURN = r"""
streams:
  description: Addresses with the port, as a socket unit of systemd names them.
  returned: always
  type: list
  elements: str
  sample: ["127.0.0.1:8888", "[::1]:8888"]
"""

import contextlib
import os
import pwd

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils._web import listening


def read(path: str) -> str:
    """Return the text of a file."""
    with open(path, encoding="ascii") as file:
        return file.read()


def name_of(user: int) -> str:
    """Return a user's name and number."""
    with contextlib.suppress(KeyError):
        return f"{pwd.getpwuid(user).pw_name} (number {user})"
    return f"number {user}"


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "listen": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "unit": {"type": "str", "required": True},
            "variables": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    listen, port, unit = (module.params[name] for name in ("listen", "port", "unit"))
    address, number = module.params["variables"]
    held = listening.addresses(listen, listening.has_ipv6())
    if not listening.can_bind(held[0]):
        module.fail_json(
            msg=f"{address} is '{listen}', which is no address of this node. Set it to one of its addresses (ip -brief address), "
            "to 127.0.0.1 for this node alone, or to 0.0.0.0 for the network."
        )
    _rc, process, _errors = module.run_command(["systemctl", "show", "--property=MainPID", "--value", unit])
    ours = []
    with contextlib.suppress(OSError, ValueError):
        if int(process):
            ours.append(os.stat(f"/proc/{int(process)}").st_uid)
    others = listening.strangers(held, port, ours, read)
    if others:
        module.fail_json(
            msg=f"{number} is {port}, and a process of the user {', '.join(map(name_of, others))} listens on that port already, on one of "
            f"this node's addresses. End that process (ss -Hltnp 'sport = :{port}' shows it), or choose another port."
        )
    module.exit_json(changed=False, streams=[listening.stream(each, port) for each in held])


if __name__ == "__main__":
    main()
