# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: what is wrong with the wishes for a driver."""

from __future__ import annotations

DOCUMENTATION = r"""
name: driver_problems
short_description: What is wrong with the wishes for an NVIDIA driver, in words
version_added: 0.1.0
description:
  - Reads the variables of the role C(nvidia_driver) and the facts of a node and returns one sentence for everything that cannot be had.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: The variables of the role, without their prefix.
    type: dict
    required: true
  platforms:
    description: The driver packages by platform, such as C(Debian_12).
    type: dict
    required: true
  facts:
    description: The node's facts.
    type: dict
    required: true
  catalogue:
    description: The catalogue's operating systems, which says what is tested; empty where it was not loaded.
    type: dict
    default: {}
"""

EXAMPLES = r"""
problems: "{{ wishes | trainyard.core.driver_problems(platforms=platforms, facts=ansible_facts) }}"
"""

RETURN = r"""
_value:
  description: One sentence for each problem; empty when there is none.
  type: list
  elements: str
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _driver_wishes


def driver_problems(
    wishes: Mapping[str, Any], *, platforms: Mapping[str, Any], facts: Mapping[str, Any], catalogue: Mapping[str, Any] | None = None
) -> list[str]:
    """Return one sentence for each thing in ``wishes`` that cannot be had on a node with ``facts``."""
    return _driver_wishes.problems(wishes, platforms, facts, catalogue)


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"driver_problems": driver_problems}
