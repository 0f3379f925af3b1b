#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Python environments that hold exactly what their locks say."""

from __future__ import annotations

DOCUMENTATION = r"""
module: python_env
short_description: Makes Python environments hold exactly what their locks say
version_added: 0.1.0
description:
  - Finds out what is really installed (every recorded file, its size, and its content where it is younger than the last change) and changes
    only what is off, such as a stray or changed package, a missing or damaged file, a broken interpreter.
  - Installs with uv, which it puts in place itself, from checksummed wheels only; nothing is built on the node, and no Python but the
    environments' own is ever changed.
  - An interruption at any point, a power cut among them, is healed by the next run. Two runs at a time wait for each other.
  - A folder that this module did not make is left alone.
options:
  path:
    description:
      - Folder of the environments. The installer and its cache live in it too (C(.uv), C(.cache)), so that environments share files.
    type: path
    required: true
  owner:
    description:
      - Whose the environments are, such as the name of a role. An owner never touches another's.
      - Messages name the variables C(OWNER_path), C(OWNER_python), C(OWNER_index_url) and C(OWNER_wheelhouse).
    type: str
    required: true
  environments:
    description:
      - The environments. With O(state=absent) it has to be empty.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the environment and of its folder.
        type: str
        required: true
      requirements:
        description:
          - Text of its lock, one C(name==version --hash=sha256:...) a line.
          - A number behind a C(#) is the bytes that the package takes on disk.
        type: str
        default: ""
      state:
        description: Whether it is to be there.
        type: str
        choices: [present, absent]
        default: present
      python_version:
        description: Version of Python that the lock is for, such as C(3.11); another one is refused.
        type: str
        default: ""
      index_url:
        description: Index of O(environments[].index_packages), asked only where neither the wheelhouse nor the ordinary index has them.
        type: str
        default: ""
      index_packages:
        description: Packages that the ordinary index does not have.
        type: list
        elements: str
        default: []
      about:
        description: What its marker, C(.trainyard-env.json), is to tell about it.
        type: dict
        default: {}
  state:
    description:
      - V(present) brings the environments to what is wanted.
      - V(checked) changes nothing and fails where V(present) would for lack of room or Python, for a folder of somebody else,
        for an index that does not answer or is not trusted, or for sources that offer nothing but other files than those that are locked.
        It looks at no single file of an environment, and is quick.
      - V(absent) removes all environments of the owner, and the installer with its cache when no other owner's are left.
    type: str
    choices: [present, checked, absent]
    default: present
  python:
    description: Interpreter that the environments are made with.
    type: path
    default: /usr/bin/python3
  python_to_come:
    description:
      - Version of O(python) where that is something that the same play makes first, such as C(3.12).
      - Check mode and O(state=checked) take its word where the interpreter is not there yet.
    type: str
    default: ""
  installer_requirements:
    description: Text of the lock of uv.
    type: str
    default: ""
  index_url:
    description: Index of Python packages. Empty for the usual one, C(none) for no index at all. A password in it appears in no output.
    type: str
    default: ""
  default_index:
    description: What an empty O(index_url) stands for; O(state=checked) asks it. Empty where that is not known, or need not answer.
    type: str
    default: ""
  authorities:
    description: Certificate authorities in PEM that the node will trust by the time that packages are fetched, for O(state=checked).
    type: list
    elements: str
    default: []
  wheelhouse:
    description: Folder on the node, or URL, with wheels; empty for none.
    type: str
    default: ""
  compile:
    description: Whether modules are compiled once for all users, who may not write beside them.
    type: bool
    default: true
  offers:
    description:
      - What M(trainyard.core.python_env_offers) found on another machine, the head. An environment that has to be made, of the same lock
        and for the same platform, is fetched from there by rsync and counts when its digest is the one that is said here.
      - Where the head does not answer, or something else came, that is a warning, and the environment is made from the index.
    type: dict
    default: {}
  spare_mb:
    description: Megabytes that have to stay free on the disk.
    type: int
    default: 200
  patience:
    description: Seconds to wait for another run in the same folder.
    type: int
    default: 1800
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would be done and does nothing.
  diff_mode:
    support: full
    description: Lists packages and versions before and after.
"""

EXAMPLES = r"""
- name: Have an environment with JAX
  trainyard.core.python_env:
    path: /opt/trainyard/envs
    owner: framework_env
    installer_requirements: "{{ lookup('ansible.builtin.file', 'locks/installer.txt') }}"
    environments:
      - name: jax
        requirements: "{{ lookup('ansible.builtin.file', 'locks/jax-cpu-cp311-x86_64.txt') }}"
        python_version: "3.11"
"""

RETURN = r"""
environments:
  description: What was, or in check mode would be, done.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The environment.
      type: str
    path:
      description: Its folder.
      type: str
    changed:
      description: Whether it was not as wanted.
      type: bool
    actions:
      description: What was done, one sentence each.
      type: list
      elements: str
    from:
      description: Where its packages came from, V(head) or V(index), now or when they came; empty for one that goes.
      type: str
lacking:
  description: Environments that have packages to come, to ask M(trainyard.core.python_env_offers) for.
  returned: when O(state=checked)
  type: list
  elements: dict
  contains:
    name:
      description: The environment.
      type: str
    lock:
      description: Digest of its lock.
      type: str
needed_bytes:
  description: Bytes that the environments will take on disk.
  returned: when O(state=checked)
  type: int
"""

from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _python_env as core
from ansible_collections.trainyard.core.plugins.module_utils._package_lock import PythonEnvError, normalise


def main():
    """Run the module."""
    environment = {
        "name": {"type": "str", "required": True},
        "requirements": {"type": "str", "default": ""},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "python_version": {"type": "str", "default": ""},
        "index_url": {"type": "str", "default": ""},
        "index_packages": {"type": "list", "elements": "str", "default": []},
        "about": {"type": "dict", "default": {}},
    }
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "owner": {"type": "str", "required": True},
            "environments": {"type": "list", "elements": "dict", "default": [], "options": environment},
            "state": {"type": "str", "choices": ["present", "checked", "absent"], "default": "present"},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "python_to_come": {"type": "str", "default": ""},
            "installer_requirements": {"type": "str", "default": ""},
            "index_url": {"type": "str", "default": ""},
            "default_index": {"type": "str", "default": ""},
            "authorities": {"type": "list", "elements": "str", "default": []},
            "wheelhouse": {"type": "str", "default": ""},
            "compile": {"type": "bool", "default": True},
            "offers": {"type": "dict", "default": {}},
            "spare_mb": {"type": "int", "default": 200},
            "patience": {"type": "int", "default": 1800},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    for url in [wanted["index_url"], wanted["wheelhouse"], *(entry["index_url"] for entry in wanted["environments"])]:
        password = urlsplit(url).password if "//" in url else None
        if password:
            module.no_log_values.add(password)
    if wanted["state"] == "absent" and wanted["environments"]:
        module.fail_json(
            msg="environments: has to be empty with state: absent, which removes all of the owner's. Give single ones their own state."
        )
    environments = core.Environments(
        core.Settings(
            path=wanted["path"],
            owner=wanted["owner"],
            python=wanted["python"],
            python_to_come=wanted["python_to_come"] if module.check_mode or wanted["state"] == "checked" else "",
            installer_requirements=wanted["installer_requirements"],
            index_url=wanted["index_url"],
            default_index=wanted["default_index"],
            authorities=wanted["authorities"],
            wheelhouse=wanted["wheelhouse"],
            compile=wanted["compile"],
            spare=wanted["spare_mb"] * 1_000_000,
            patience=wanted["patience"],
            offers=wanted["offers"],
        )
    )
    wishes = [
        core.Wanted(
            name=entry["name"],
            requirements=entry["requirements"],
            present=entry["state"] == "present",
            python_version=entry["python_version"],
            index_url=entry["index_url"],
            index_packages=tuple(normalise(name) for name in entry["index_packages"]),
            about=entry["about"],
        )
        for entry in wanted["environments"]
    ]
    try:
        if wanted["state"] == "checked":
            needed = environments.check(wishes)
            lacking = [{"name": name, "lock": lock} for name, lock in environments.lacking(wishes)]
            module.exit_json(changed=False, needed_bytes=needed, lacking=lacking)
        if wanted["state"] == "absent":
            results = environments.remove_all(dry=module.check_mode)
        else:
            results = environments.apply(wishes, dry=module.check_mode)
    except PythonEnvError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.strerror}: {error.filename}")
    for warning in environments.warnings:
        module.warn(warning)
    diff = [
        {
            "before_header": result.path,
            "after_header": result.path,
            "before": "".join(line + "\n" for line in result.before),
            "after": "".join(line + "\n" for line in result.after),
        }
        for result in results
        if result.changed
    ]
    module.exit_json(
        changed=any(result.changed for result in results),
        environments=[
            {
                "name": result.name,
                "path": result.path,
                "changed": result.changed,
                "actions": result.actions,
                "from": result.source,
            }
            for result in results
        ],
        diff=diff,
    )


if __name__ == "__main__":
    main()
