#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a machine has of Python environments that another one could take over."""

from __future__ import annotations

DOCUMENTATION = r"""
module: python_env_offers
short_description: Tells which Python environments of a machine another one could take over
version_added: 0.1.0
description:
  - Looks among the environments of M(trainyard.core.python_env) for those that are asked for, finished and exactly as their locks say.
  - Reads all files of these, so that what arrives elsewhere can be compared with what is here.
options:
  path:
    description: Folder of the environments.
    type: path
    required: true
  owner:
    description: Whose the environments are.
    type: str
    required: true
  environments:
    description: What is asked for, as RV(trainyard.core.python_env#module:lacking) says it.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the environment.
        type: str
        required: true
      lock:
        description: Digest of its lock.
        type: str
        required: true
  configuration:
    description: Configuration of the daemon of rsync that serves them. Without one nothing is offered.
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
- name: Ask the head for what it has
  trainyard.core.python_env_offers:
    path: /opt/trainyard/envs
    owner: framework_env
    environments: [{name: jax, lock: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae}]
    configuration: /etc/trainyard/environments/rsyncd.conf
  delegate_to: head
  register: found
"""

RETURN = r"""
offers:
  description: What M(trainyard.core.python_env) takes as O(trainyard.core.python_env#module:offers).
  returned: success
  type: dict
  contains:
    url:
      description: Where the environments are served.
      type: str
    environments:
      description: By name the C(lock), the C(platform) and the C(digest) of each.
      type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _python_env as core
from ansible_collections.trainyard.core.plugins.module_utils._package_lock import PythonEnvError
from ansible_collections.trainyard.core.plugins.module_utils._python_env_travel import server


def main():
    """Run the module."""
    asked = {"name": {"type": "str", "required": True}, "lock": {"type": "str", "required": True}}
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "owner": {"type": "str", "required": True},
            "environments": {"type": "list", "elements": "dict", "required": True, "options": asked},
            "configuration": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    url = server(module.params["configuration"])
    if not url:
        module.exit_json(changed=False, offers={})
    environments = core.Environments(core.Settings(path=module.params["path"], owner=module.params["owner"]))
    try:
        found = environments.offers([(entry["name"], entry["lock"]) for entry in module.params["environments"]])
    except (PythonEnvError, OSError) as error:
        module.fail_json(msg=str(error))
    for warning in environments.warnings:
        module.warn(warning)
    module.exit_json(changed=False, offers={"url": url, "environments": found})


if __name__ == "__main__":
    main()
