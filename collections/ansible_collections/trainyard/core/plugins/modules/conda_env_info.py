#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is in a conda environment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conda_env_info
short_description: Tells what is in a conda environment
version_added: 0.1.0
description:
  - Writes down what is in a conda environment, whoever made it, in the three ways by which it can be made again.
  - Nothing is started for it; conda need not be there.
options:
  path:
    description: Folder of the environment, its prefix.
    type: path
    required: true
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Changes nothing ever.
"""

EXAMPLES = r"""
- name: See what is in an environment
  trainyard.core.conda_env_info:
    path: /opt/trainyard/envs/paper
  register: paper

- name: Keep it beside the inventory
  ansible.builtin.copy:
    content: "{{ paper.environment }}"
    dest: "{{ inventory_dir }}/environment.yml"
    mode: "0644"
  delegate_to: localhost
"""

RETURN = r"""
environment:
  description: Text of an environment file, with the packages that pip brought in a section of its own.
  returned: success
  type: str
explicit:
  description: Text of an explicit lock, with checksums; it knows nothing of what pip brought.
  returned: success
  type: str
requirements:
  description: Text of a requirements file with all Python packages, whoever brought them.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _conda_env as core


def main():
    """Run the module."""
    module = AnsibleModule(argument_spec={"path": {"type": "path", "required": True}}, supports_check_mode=True)
    try:
        found = core.exported(module.params["path"])
    except core.CondaEnvError as error:
        module.fail_json(msg=f"path: {error}")
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"path: {module.params['path']} cannot be read: {error}")
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
