# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: the environment of programs that fetch through a proxy."""

from __future__ import annotations

DOCUMENTATION = r"""
name: proxy_environment
short_description: The environment of programs that fetch through a proxy
version_added: 0.1.0
description:
  - Returns C(http_proxy), C(https_proxy) and C(no_proxy), in small and in capital letters.
  - Empty without a proxy, and for values that the role C(base) refuses.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: URL of the proxy; '' for none.
    type: str
    required: true
  no_proxy:
    description: Hosts that are reached without it.
    type: list
    elements: str
    default: []
  nodes:
    description: The lab's own machines, which are reached without it as well.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
environment: "{{ 'http://proxy.example:3128' | trainyard.core.proxy_environment(nodes=groups.all) }}"
"""

RETURN = r"""
_value:
  description: Names and values.
  type: dict
"""

from collections.abc import Iterable
from typing import Any

from ansible_collections.trainyard.core.plugins.plugin_utils import proxy


def proxy_environment(url: object, no_proxy: Iterable[object] = (), nodes: Iterable[str] = ()) -> dict[str, str]:
    """Return the environment of programs that fetch through a proxy."""
    return proxy.environment(url, no_proxy, nodes)


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"proxy_environment": proxy_environment}
