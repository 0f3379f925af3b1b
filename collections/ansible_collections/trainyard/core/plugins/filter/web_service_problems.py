# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter: what is wrong with the wishes for a web service."""

from __future__ import annotations

DOCUMENTATION = r"""
name: web_service_problems
short_description: What is wrong with the wishes for a web service, in words
version_added: 0.1.0
description:
  - Reads the variables of a role that runs a web service behind TLS and a password, and returns one sentence for everything that could
    not be done or would not be safe.
  - Reads the certificate and the key on the controller, changes nothing. No sentence holds any part of the password.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: The variables of the role, without their prefix.
    type: dict
    required: true
  role:
    description: The prefix of the variables.
    type: str
    required: true
"""

EXAMPLES = r"""
problems: "{{ wishes | trainyard.core.web_service_problems(role='jupyter') }}"
"""

RETURN = r"""
_value:
  description: One sentence for each problem; empty when there is none.
  type: list
  elements: str
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _web_service as web_service


def web_service_problems(wishes: Mapping[str, Any], role: str) -> list[str]:
    """Return one sentence for each thing in ``wishes`` that could not be done or would not be safe."""
    return web_service.problems(wishes, role)


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"web_service_problems": web_service_problems}
