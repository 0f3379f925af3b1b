# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter: what is wrong with the limits on login sessions."""

from __future__ import annotations

DOCUMENTATION = r"""
name: session_limits_problems
short_description: What is wrong with the limits on login sessions, in words
version_added: 0.1.0
description:
  - Reads the variables of the role C(session_limits) and returns one sentence for each that is not allowed.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: C(memory), C(tasks) and C(cpu_weight).
    type: dict
    required: true
"""

EXAMPLES = r"""
problems: "{{ {'memory': '50%', 'tasks': 4096, 'cpu_weight': 50} | trainyard.core.session_limits_problems }}"
"""

RETURN = r"""
_value:
  description: One sentence for each problem; empty when there is none.
  type: list
  elements: str
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils._host import session_limits as core


def session_limits_problems(request: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each variable that is not allowed."""
    return core.problems(str(request["memory"]), int(request["tasks"]), int(request["cpu_weight"]))


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"session_limits_problems": session_limits_problems}
