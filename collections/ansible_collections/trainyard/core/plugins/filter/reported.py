# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter: a value that a node reported, checked before it goes anywhere."""

from __future__ import annotations

DOCUMENTATION = r"""
name: reported
short_description: A value that a node reported, or that goes into a file, checked before it goes anywhere
version_added: 0.1.0
description:
  - Returns the value, and fails where it is not of the kind. The message names the node, the fact and the value.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: The value.
    type: raw
    required: true
  kind:
    description: What it has to be; C(line) is any printable text on one line without a comment.
    type: str
    choices: [host name, full host name, address, GPU name, GPU type, path, kernel version, word, line]
    required: true
  node:
    description: The node that it is from.
    type: str
    default: A node
  fact:
    description: What it is, for the message; the kind where nothing is given.
    type: str
"""

EXAMPLES = r"""
name: "{{ ansible_facts.fqdn | trainyard.core.reported('full host name', inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: The value.
  type: str
"""

from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.trainyard.core.plugins.module_utils._host import reported as kinds


def reported(value: object, kind: str, node: str = "A node", fact: str = "") -> str:
    """Return a value of a kind."""
    try:
        return kinds.one_line(fact or "A file", value) if kind == "line" else str(kinds.KINDS[kind](node, value, fact or kind))
    except kinds.ReportedError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"reported": reported}
