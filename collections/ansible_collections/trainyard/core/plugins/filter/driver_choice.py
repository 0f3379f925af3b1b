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
  - Modules that the distribution built and signed are taken where O(offered) has them for every kernel, and DKMS otherwise.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: Variables of the role C(nvidia_driver), without their prefix; P(trainyard.core.driver_problems#filter) found nothing.
    type: dict
    required: true
  platform:
    description: What the distribution has on the node's platform; of its branches the preferred one is first.
    type: dict
    required: true
  vendor:
    description: What the vendor's sources consist of, by source.
    type: dict
    required: true
  kernels:
    description: The node's kernels that can be started.
    type: list
    elements: str
    default: []
  offered:
    description: Those packages of V(prebuilt) that apt could install.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
choice: "{{ wishes | trainyard.core.driver_choice(platform=platform, vendor=vendor, kernels=['6.8.0-31-generic'], offered=offered) }}"
"""

RETURN = r"""
_value:
  description:
    - V(branch), V(modules), V(packages), V(optional), V(beside), V(held), V(versions), V(replaces), and V(pins)
      as M(trainyard.core.vendor_repository) takes them.
    - V(prebuilt), the packages of modules that are worth asking apt about; V(lacking), those that are needed and not on offer; V(built),
      whether DKMS builds the modules.
  type: dict
"""

from collections.abc import Collection, Mapping
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _driver_wishes


def driver_choice(
    wishes: Mapping[str, Any],
    *,
    platform: Mapping[str, Any],
    vendor: Mapping[str, Mapping[str, Any]],
    kernels: Collection[str] = (),
    offered: Collection[str] = (),
) -> dict[str, Any]:
    """Return the driver that ``wishes`` mean among what the ``platform`` has and the ``vendor``'s sources."""
    return _driver_wishes.choice(wishes, platform, vendor, kernels, offered)


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"driver_choice": driver_choice}
