# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter: which of the shared folders a node serves and which it mounts."""

from __future__ import annotations

DOCUMENTATION = r"""
name: shared_folders
short_description: Which of the shared folders a node serves and which it mounts
version_added: 0.1.0
description:
  - A folder with a source is mounted on every node; one without is served by one node and mounted by the others.
  - A folder with C(external) is shared by other means, and left alone; the serving node sets up what is in it, such as users' homes.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: Folders, each with C(path), and perhaps C(source), C(external), C(owner), C(group), C(mode) and C(options).
    type: list
    elements: dict
    required: true
  serves:
    description: Whether this node serves those without a source.
    type: bool
    required: true
  address:
    description: The IP address of the node that does.
    type: str
    required: true
"""

EXAMPLES = r"""
folders: "{{ shared_storage_folders | trainyard.core.shared_folders(serves=false, address='192.0.2.10') }}"
"""

RETURN = r"""
_value:
  description:
    - C(served), as they came in; C(mounted), each with C(path), C(source) and C(options); and C(external), each with C(path), on every
      node but the serving one.
  type: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _nfs as nfs


def shared_folders(folders: Sequence[Mapping[str, Any]], serves: bool, address: str) -> dict[str, list[dict[str, Any]]]:
    """Return what a node serves and what it mounts; what is no folder is passed over here, since the role's check refuses it."""
    return nfs.here([folder for folder in folders if isinstance(folder, Mapping) and folder.get("path")], serves, address)


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"shared_folders": shared_folders}
