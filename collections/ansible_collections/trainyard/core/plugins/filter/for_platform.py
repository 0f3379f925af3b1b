# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: the values that hold on a node's platform."""

from __future__ import annotations

DOCUMENTATION = r"""
name: for_platform
short_description: The values that hold on a node's platform
version_added: 0.1.0
description:
  - Merges the entries for the family, the distribution, and the distribution with its major version, the more exact one over the other.
  - A platform is known when it has an entry with its major version, such as C(Debian_12), be it empty. For all others the filter fails and
    names those that are known.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: Values by platform.
    type: dict
    required: true
  facts:
    description: The node's facts.
    type: dict
    required: true
"""

EXAMPLES = r"""
_driver_platforms:
  Debian: {packages: [nvidia-driver]}
  Debian_12: {}
  Debian_13: {packages: [nvidia-open-kernel-dkms]}
_driver_platform: "{{ _driver_platforms | trainyard.core.for_platform(ansible_facts) }}"
"""

RETURN = r"""
_value:
  description: The values that hold.
  type: dict
"""

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.trainyard.core.plugins.module_utils import _platform


def for_platform(platforms: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that hold on a node with ``facts``."""
    try:
        return _platform.for_platform(platforms, facts)
    except _platform.UnknownPlatformError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"for_platform": for_platform}
