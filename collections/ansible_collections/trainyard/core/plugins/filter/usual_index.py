# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: an index of Python packages by its URL."""

from __future__ import annotations

DOCUMENTATION = r"""
name: usual_index
short_description: An index of Python packages by its URL
version_added: 0.1.0
description:
  - Returns the URL of an index, and for an empty one that of the index that the controller's pip asks by default.
  - Empty where the controller has no pip.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: URL of an index; '' for the usual one.
    type: str
    required: true
"""

EXAMPLES = r"""
index: "{{ '' | trainyard.core.usual_index }}"
"""

RETURN = r"""
_value:
  description: The URL.
  type: str
"""

import importlib
from typing import Any


def usual_index(url: str) -> str:
    """Return the URL of an index, and for '' that of pip's default."""
    if url:
        return url
    try:
        return str(importlib.import_module("pip._internal.models.index").PyPI.simple_url)
    except (ImportError, AttributeError):  # no pip, or a release that keeps it elsewhere: nobody is asked beforehand
        return ""


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"usual_index": usual_index}
