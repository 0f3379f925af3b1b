#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""CUDA toolkits in folders of their own, made from wheels or the vendor's packages, or standing on the distribution's."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cuda_toolkits
short_description: Lays out CUDA toolkits in folders like /usr/local/cuda-13.0
version_added: 0.1.0
description:
  - Makes each toolkit from the wheels in an environment (see M(trainyard.core.python_env)) by hard links, so that it takes no further room,
    with names for the linker and an nvcc that writes the place of its libraries into what it links. Nothing is told to the loader.
  - A toolkit out of the vendor's packages, which M(trainyard.core.package_trees) unpacked, is made the same way, with the libraries that
    are in the environment.
  - A toolkit of the distribution gets a folder with an nvcc that calls the distribution's, and the libraries that are in the environment.
  - Each is made beside its place and moved there in one step. Whatever differs from what belongs there has it made anew.
  - The link C(cuda) leads to the default toolkit. A folder or link that this module did not make is left alone.
options:
  path:
    description: Folder in which they stand.
    type: path
    default: /usr/local
  store:
    description: Folder of the environments, each named like its toolkit. It has to be on the file system of O(path).
    type: path
    required: true
  owner:
    description:
      - Whose the toolkits are, such as the name of a role.
      - Messages name the variables C(OWNER_toolkits), C(OWNER_default) and C(OWNER_path).
    type: str
    required: true
  toolkits:
    description: The toolkits. Others of the owner stay as they are. With O(state=absent) it is not looked at.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its line, such as C(13.0).
        type: str
        required: true
      state:
        description: Whether it is to be there.
        type: str
        choices: [present, absent]
        default: present
      about:
        description: What its marker is to tell about it; C(version) goes into C(version.json), too.
        type: dict
        default: {}
      distribution:
        description: Home of the distribution's toolkit that it stands on, such as C(/usr/lib/nvidia-cuda-toolkit).
        type: str
        default: ""
      unpacked:
        description: Folder with the toolkit out of the vendor's packages, on the file system of O(path); empty for none.
        type: str
        default: ""
      packages_mb:
        description: Megabytes that the distribution's packages take, for O(state=checked).
        type: int
        default: 0
  default:
    description: Name of the toolkit that the link C(cuda) leads to; empty for no link.
    type: str
    default: ""
  state:
    description:
      - V(present) brings the toolkits to what is wanted.
      - V(checked) changes nothing and fails where V(present) would for something of somebody else, or for lack of room for what the
        distribution brings.
      - V(absent) removes all toolkits of the owner, and the link.
    type: str
    choices: [present, checked, absent]
    default: present
  spare_mb:
    description: Megabytes that have to stay free on the disk.
    type: int
    default: 200
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would be done and does nothing.
  diff_mode:
    support: full
    description: Shows the markers before and after.
"""

EXAMPLES = r"""
- name: Have CUDA 13.0 by the name of /usr/local/cuda-13.0, and of /usr/local/cuda
  trainyard.core.cuda_toolkits:
    owner: cuda
    store: /usr/local/lib/trainyard-cuda
    toolkits:
      - name: "13.0"
        about: {version: 13.0.2, cudnn: 9.28.0}
    default: "13.0"
"""

RETURN = r"""
toolkits:
  description: What was, or in check mode would be, done, to the link C(cuda) as well; only what was not as wanted.
  returned: when O(state) is not V(checked)
  type: list
  elements: dict
  contains:
    name:
      description: The toolkit, or C(cuda) for the link.
      type: str
    path:
      description: Its place.
      type: str
    actions:
      description: What was done; of many lines the first 20.
      type: list
      elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _cuda_toolkits as core


def main():
    """Run the module."""
    toolkit = {
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "about": {"type": "dict", "default": {}},
        "distribution": {"type": "str", "default": ""},
        "unpacked": {"type": "str", "default": ""},
        "packages_mb": {"type": "int", "default": 0},
    }
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/usr/local"},
            "store": {"type": "path", "required": True},
            "owner": {"type": "str", "required": True},
            "toolkits": {"type": "list", "elements": "dict", "default": [], "options": toolkit},
            "default": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["present", "checked", "absent"], "default": "present"},
            "spare_mb": {"type": "int", "default": 200},
        },
        supports_check_mode=True,
    )
    given = module.params
    os.umask(0o022)
    toolkits = core.Toolkits(given["path"], given["store"], given["owner"])
    wishes = [core.wanted(option) for option in given["toolkits"]]
    try:
        if given["state"] == "checked":
            toolkits.check(wishes, given["default"], given["spare_mb"] * 1_000_000)
            module.exit_json(changed=False)
        if given["state"] == "absent":
            results = toolkits.remove_all(dry=module.check_mode)
        else:
            results = toolkits.apply(wishes, given["default"], dry=module.check_mode)
    except core.CudaToolkitError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.strerror}: {error.filename}")
    done = [result for result in results if result.actions]
    module.exit_json(
        changed=bool(done),
        toolkits=[{"name": result.name, "path": result.path, "actions": result.actions[:20]} for result in done],
        diff=[
            {
                "before_header": result.path,
                "after_header": result.path,
                "before": "".join(line + "\n" for line in result.before),
                "after": "".join(line + "\n" for line in result.after),
            }
            for result in done
        ],
    )


if __name__ == "__main__":
    main()
