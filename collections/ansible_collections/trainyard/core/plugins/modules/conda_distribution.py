#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A distribution of conda, installed by its own installer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conda_distribution
short_description: Keeps one distribution of conda under a fixed name
version_added: 0.1.0
description:
  - Downloads the installer of Miniforge, Miniconda or Anaconda, looks at its checksum, and has it install the version into a folder of its
    own. When that is whole, a link is switched to it in one step.
  - Another version is installed beside the one that is there, which is removed when no process runs from it any more.
  - An interruption at any point is healed by the next run; a download goes on where it broke off.
options:
  path:
    description: The link.
    type: path
    default: /opt/conda
  store:
    description: Folder of the versions. Only Trainyard writes there.
    type: path
    default: /opt/trainyard/conda
  distribution:
    description: The distribution.
    type: str
    choices: [miniforge, miniconda, anaconda]
    default: miniforge
  version:
    description: Its version, as its publisher writes it.
    type: str
    default: ""
  file:
    description: Name of the installer, which ends with C(.sh).
    type: str
    default: ""
  sha256:
    description: SHA-256 of the installer.
    type: str
    default: ""
  sources:
    description: Where the installer can be had, in order. URLs of the file, or its absolute path on the node.
    type: list
    elements: str
    default: []
  size_mb:
    description: Megabytes that the installer has.
    type: int
    default: 0
  installed_mb:
    description: Megabytes that the version takes on the disk; with O(size_mb) the disk has to have them.
    type: int
    default: 0
  settings:
    description: Files that the role writes. One that is there and that it did not write is refused, and left by O(state=absent).
    type: list
    elements: path
    default: []
  state:
    description:
      - V(present) brings the version, and the link to it.
      - V(checked) changes nothing, and fails where something of somebody else's is in the way, there is no room, or no source has the
        installer.
      - V(absent) removes the link, all versions, O(store) and O(settings).
    type: str
    choices: [present, checked, absent]
    default: present
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would be done and does nothing.
  diff_mode:
    support: none
    description: The actions say what differs.
"""

EXAMPLES = r"""
- name: Have Miniforge
  trainyard.core.conda_distribution:
    version: 25.3.1-0
    file: Miniforge3-25.3.1-0-Linux-x86_64.sh
    sha256: 376b160ed8130820db0ab0f3826ac1fc85923647f75c1b8231166e3d559ab768
    sources:
      - https://github.com/conda-forge/miniforge/releases/download/25.3.1-0/Miniforge3-25.3.1-0-Linux-x86_64.sh
    size_mb: 94
    installed_mb: 600
"""

RETURN = r"""
actions:
  description: What was, or in check mode would be, done, one sentence each.
  returned: success
  type: list
  elements: str
"""

import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _conda_distribution as core


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/opt/conda"},
            "store": {"type": "path", "default": "/opt/trainyard/conda"},
            "distribution": {"type": "str", "choices": list(core.DISTRIBUTIONS), "default": "miniforge"},
            "version": {"type": "str", "default": ""},
            "file": {"type": "str", "default": ""},
            "sha256": {"type": "str", "default": ""},
            "sources": {"type": "list", "elements": "str", "default": []},
            "size_mb": {"type": "int", "default": 0},
            "installed_mb": {"type": "int", "default": 0},
            "settings": {"type": "list", "elements": "path", "default": []},
            "state": {"type": "str", "choices": ["present", "checked", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    given = module.params
    places = core.Places(Path(given["path"]), Path(given["store"]))
    wanted = core.Wanted(
        distribution=given["distribution"],
        version=given["version"],
        file=given["file"],
        sha256=given["sha256"],
        sources=tuple(given["sources"]),
        size=given["size_mb"] * 1_000_000,
        installed=given["installed_mb"] * 1_000_000,
    )
    state, settings = given["state"], [Path(path) for path in given["settings"]]
    if state != "absent":
        for name, pattern in (("version", r"[\w.+-]+"), ("file", r"[\w.+-]+\.sh"), ("sha256", r"[0-9a-f]{64}")):
            if not re.fullmatch(pattern, given[name], re.ASCII):
                module.fail_json(msg=f"{name}: {given[name]!r} is none.")
        if not wanted.sources:
            module.fail_json(msg="sources: there is none.")
    try:
        if state == "absent":
            actions = core.what_is_there(places, settings)
            if actions and not module.check_mode:
                core.remove(places, settings)
            module.exit_json(changed=bool(actions), actions=actions)
        problem = core.owner_problem(places, settings) or core.room_problem(wanted, places)
        if not problem and state == "checked":
            problem = core.source_problem(wanted, places)
        if problem:
            module.fail_json(msg=problem)
        actions = core.actions(wanted, places)
        if actions and state == "present" and not module.check_mode:
            core.apply(wanted, places)
    except core.CondaDistributionError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.strerror}: {error.filename}")
    module.exit_json(changed=state == "present" and bool(actions), actions=actions)


if __name__ == "__main__":
    main()
