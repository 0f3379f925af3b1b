#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Environments of programs that only an older distribution has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: frozen_root
short_description: Keeps environments of programs that only an older distribution has
version_added: 0.1.0
description:
  - Builds a root file system of an older Debian once, with mmdebstrap, and an environment whose programs run in it by bubblewrap, as
    whoever calls them, with the user's files, processes, network and GPUs.
  - Locked Python packages of an old interpreter are installed while the root is built, by the last pip that knew it, which the lock names.
    Source archives that a lock names are built inside the root, never on the node.
  - A root is never changed. Another recipe makes another root; the old one is removed when nothing runs in it any more.
  - An interruption at any point is healed by the next run.
options:
  path:
    description: Folder of the environments.
    type: path
    required: true
  store:
    description: Folder of the roots.
    type: path
    default: /opt/trainyard/frozen
  commands_path:
    description: Folder on everybody's PATH, for O(environments[].commands).
    type: path
    default: /usr/local/bin
  environments:
    description: The environments.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the environment and of its folder.
        type: str
        required: true
      state:
        description: Whether it is to be there.
        type: str
        choices: [present, absent]
        default: present
      suite:
        description: Release of Debian that the programs come from, such as V(bullseye).
        type: str
        default: ""
      packages:
        description: Packages of that release.
        type: list
        elements: str
        default: []
      python:
        description: Interpreter of that release that O(environments[].requirements) are for, such as V(python2.7).
        type: str
        default: python3
      requirements:
        description:
          - Text of a lock of Python packages, one C(name==version --hash=sha256:...) a line, pip, setuptools and wheel among them.
          - A number behind a C(#) is the bytes that the package takes on disk.
        type: str
        default: ""
      programs:
        description: Programs that the environment has.
        type: list
        elements: str
        default: []
      commands:
        description: Those of the programs that everybody can call without activating the environment.
        type: list
        elements: str
        default: []
      size_mb:
        description: Megabytes that the root takes without Python packages; the disk has to have them.
        type: int
        default: 0
      about:
        description: What its marker, C(.trainyard-env.json), is to tell about it.
        type: dict
        default: {}
  mirror:
    description: URL of a mirror that has O(environments[].suite); empty for mmdebstrap's own choice.
    type: str
    default: ""
  owner:
    description: Messages name the variables C(OWNER_index_url) and C(OWNER_wheelhouse).
    type: str
    default: framework_env
  index_url:
    description: Index of Python packages. Empty for the usual one, C(none) for no index at all. A password in it appears in no output.
    type: str
    default: ""
  wheelhouse:
    description: Folder on the node, or URL, with wheels and source archives; empty for none.
    type: str
    default: ""
  state:
    description:
      - V(present) brings each environment to the state that it names.
      - V(checked) changes nothing and fails where V(present) would for lack of room, for something of somebody else's in the way,
        for an index that does not answer, or for sources that offer nothing but other files than those that are locked.
      - V(absent) removes all frozen environments and their roots; O(environments) has to be empty.
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
- name: Have Caffe, which Debian 11 was the last to carry
  trainyard.core.frozen_root:
    path: /opt/trainyard/envs
    environments:
      - name: caffe
        suite: bullseye
        packages: [caffe, python3-caffe, python3-ipykernel]
        programs: [python, python3, caffe]
        commands: [caffe]
        size_mb: 1200

- name: Have TensorFlow 1.7 for Debian 11's Python 2.7
  trainyard.core.frozen_root:
    path: /opt/trainyard/envs
    environments:
      - name: tensorflow-1.7
        suite: bullseye
        packages: [python2.7, python-is-python2]
        python: python2.7
        requirements: "{{ lookup('ansible.builtin.file', 'locks/tensorflow-cpu-1.7.0-cp27-x86_64.txt') }}"
        programs: [python]
        size_mb: 300
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
    actions:
      description: What was done, one sentence each.
      type: list
      elements: str
"""

from pathlib import Path
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _frozen_root as core
from ansible_collections.trainyard.core.plugins.module_utils._package_lock import PythonEnvError


def main():
    """Run the module."""
    environment = {
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "suite": {"type": "str", "default": ""},
        "packages": {"type": "list", "elements": "str", "default": []},
        "python": {"type": "str", "default": "python3"},
        "requirements": {"type": "str", "default": ""},
        "programs": {"type": "list", "elements": "str", "default": []},
        "commands": {"type": "list", "elements": "str", "default": []},
        "size_mb": {"type": "int", "default": 0},
        "about": {"type": "dict", "default": {}},
    }
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "store": {"type": "path", "default": "/opt/trainyard/frozen"},
            "commands_path": {"type": "path", "default": "/usr/local/bin"},
            "environments": {"type": "list", "elements": "dict", "default": [], "options": environment},
            "mirror": {"type": "str", "default": ""},
            "owner": {"type": "str", "default": "framework_env"},
            "index_url": {"type": "str", "default": ""},
            "wheelhouse": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["present", "checked", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    given = module.params
    for url in (given["index_url"], given["wheelhouse"]):
        password = urlsplit(url).password if "//" in url else None
        if password:
            module.no_log_values.add(password)
    places = core.Places(Path(given["path"]), Path(given["store"]), Path(given["commands_path"]))
    sources = core.Sources(given["owner"], given["index_url"], given["wheelhouse"])
    wishes = [
        core.Wanted(
            name=entry["name"],
            present=entry["state"] == "present",
            suite=entry["suite"],
            packages=tuple(entry["packages"]),
            python=entry["python"],
            requirements=entry["requirements"],
            programs=tuple(entry["programs"]),
            commands=tuple(entry["commands"]),
            size=entry["size_mb"] * 1_000_000,
            about=entry["about"],
        )
        for entry in given["environments"]
    ]
    if given["state"] == "absent":
        if wishes:
            module.fail_json(msg="environments: has to be empty with state: absent, which removes all. Give single ones their own state.")
        wishes = core.of_ours(places)
    try:
        problems = [core.owner_problem(wanted, places) for wanted in wishes if wanted.present] + [core.room_problem(wishes, places)]
        problems.append(core.sources_problem(wishes, places, sources))
        if any(problems):
            module.fail_json(msg=" ".join(filter(None, problems)))
        todo = [(wanted, core.actions(wanted, places)) for wanted in wishes]
        for wanted, actions in todo:
            if actions and given["state"] != "checked" and not module.check_mode:
                core.apply(wanted, places, given["mirror"], sources)
        tidied = given["state"] == "absent" and core.tidy(places, dry=module.check_mode)
    except (core.FrozenRootError, PythonEnvError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.strerror}: {error.filename}")
    changed = tidied or (given["state"] != "checked" and any(actions for _wanted, actions in todo))
    module.exit_json(changed=changed, environments=[{"name": wanted.name, "actions": actions} for wanted, actions in todo])


if __name__ == "__main__":
    main()
