# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: the driver that a wish means."""

from __future__ import annotations

DOCUMENTATION = r"""
name: driver_choice
short_description: The driver that a wish means on a platform
version_added: 0.1.0
description:
  - Returns the branch, the flavour of the modules, their packages and the versions that these must have, and those packages of other
    branches and flavours that must not stay.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: Variables of the role C(nvidia_driver), without their prefix; P(trainyard.core.driver_problems#filter) found nothing.
    type: dict
    required: true
  branches:
    description: The branches that the node's platform has, the preferred one first.
    type: dict
    required: true
  vendor:
    description: What the vendor's sources consist of, by source.
    type: dict
    required: true
"""

EXAMPLES = r"""
choice: "{{ wishes | trainyard.core.driver_choice(branches=platform.branches, vendor=vendor) }}"
"""

RETURN = r"""
_value:
  description:
    - V(branch), V(modules), V(packages), V(optional), V(held), V(versions), V(replaces), and V(pins)
      as M(trainyard.core.vendor_repository) takes them.
  type: dict
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _driver_wishes


def driver_choice(
    wishes: Mapping[str, Any], *, branches: Mapping[int, Mapping[str, Any]], vendor: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the driver that ``wishes`` mean among the distribution's ``branches`` and the ``vendor``'s sources."""
    return _driver_wishes.choice(wishes, branches, vendor)


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"driver_choice": driver_choice}
