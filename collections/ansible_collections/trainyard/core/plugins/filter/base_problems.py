# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: what is wrong with the wishes for a node's base."""

from __future__ import annotations

DOCUMENTATION = r"""
name: base_problems
short_description: What is wrong with the wishes for a node's base, in words
version_added: 0.1.0
description:
  - Reads the variables of the role C(base) and the facts of a node and returns one sentence for everything that could not be done.
  - Reads the certificate files on the controller, changes nothing.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: The variables of the role, without their prefix.
    type: dict
    required: true
  mirrors:
    description: The catalogue's mirrors.
    type: dict
    required: true
  platforms:
    description: The catalogue's operating systems, by distribution and major version, such as C(Debian_12).
    type: dict
    required: true
  facts:
    description: The node's facts.
    type: dict
    required: true
"""

EXAMPLES = r"""
problems: "{{ wishes | trainyard.core.base_problems(mirrors=catalog_mirrors, platforms=catalog_platforms, facts=ansible_facts) }}"
"""

RETURN = r"""
_value:
  description: One sentence for each problem; empty when there is none.
  type: list
  elements: str
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.trainyard.core.plugins.filter.account_problems import account_problems
from ansible_collections.trainyard.core.plugins.module_utils import _base as base
from ansible_collections.trainyard.core.plugins.module_utils import _homes, _platform
from ansible_collections.trainyard.core.plugins.plugin_utils import proxy
from ansible_collections.trainyard.core.plugins.plugin_utils.checks import accounts


def base_problems(
    wishes: Mapping[str, Any], *, mirrors: Mapping[str, Any], platforms: Mapping[str, Any], facts: Mapping[str, Any]
) -> list[str]:
    """Return one sentence for each thing in ``wishes`` that could not be done on a node with ``facts``."""
    certificates = wishes["ca_certificates"]
    problems = [
        _platform.refusal(platforms, facts, bool(wishes["untested_platforms"])),
        base.mirror_problem(str(wishes["package_mirror"]), mirrors),
        accounts.list_problem("base_ca_certificates", certificates, "[files/campus.pem]"),
        *(base.certificate_problem(str(path), lambda name: Path(name).expanduser().read_text()) for path in _entries(certificates)),
        *account_problems(wishes),
        *proxy.problems(wishes["proxy"], wishes["no_proxy"]),
        _homes.mode_problem(str(wishes["home_mode"])),
    ]
    return [problem for problem in problems if problem]


def _entries(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"base_problems": base_problems}
