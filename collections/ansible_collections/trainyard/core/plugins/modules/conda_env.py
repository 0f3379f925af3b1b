#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Conda environments."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conda_env
short_description: Keeps a conda environment at what an environment file or an explicit lock says
version_added: 0.1.0
description:
  - Makes, changes and repairs a conda environment. The prefix is an ordinary one that conda and mamba know.
  - As long as what is asked for and the files of the environment are the same, nothing is worked out again.
  - A new environment is made beside its place. An interruption at any point is healed by the next run.
options:
  path:
    description: Folder of the environment, its prefix.
    type: path
    required: true
  state:
    description:
      - V(present) brings what is asked for, and leaves what else is there.
      - V(exact) also removes what else is there, installed by conda or by pip.
      - V(absent) removes the environment, if it was made by this module.
    type: str
    choices: [present, exact, absent]
    default: present
  environment:
    description:
      - What an environment file holds, parsed; such as C(lookup('file', 'environment.yml') | from_yaml).
      - Its keys are those that conda documents, C(name), C(channels), C(dependencies) (with a section C(pip)), C(variables) and C(prefix),
        the first and the last of which count for nothing here.
    type: dict
  explicit:
    description: Text of an explicit lock, as C(conda list --explicit --sha256) writes it, instead of O(environment).
    type: str
  channels:
    description: Channels of an environment that names none.
    type: list
    elements: str
    default: [conda-forge]
  channel_alias:
    description: URL below which channels lie that are given by a name.
    type: str
    default: https://conda.anaconda.org
  custom_channels:
    description: Names of channels with the URLs below which they lie instead.
    type: dict
    default: {}
  default_channels:
    description: URLs that the name V(defaults) stands for. An environment that has it is refused where there are none.
    type: list
    elements: str
    default: ["https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r"]
  cache:
    description: Folder of downloaded packages. Environments on the same disk share files with it.
    type: path
    default: /opt/trainyard/conda/.cache
  tools:
    description: Environment that has py-rattler and uv.
    type: path
    default: /opt/trainyard/envs/conda-tools
  index_url:
    description: URL of the index that packages of the section C(pip) come from; empty for the usual one.
    type: str
    default: ""
  wheelhouse:
    description: Folder or URL with wheels for the section C(pip).
    type: str
    default: ""
  adopt:
    description: Whether a conda environment that somebody else made at O(path) is taken over.
    type: bool
    default: false
  owner:
    description: Whose the environment is, such as the name of a role. An owner never touches another's.
    type: str
    default: ""
  about:
    description:
      - What its marker, C(.trainyard-env.json), is to tell about it.
      - One that it tells something about gets C(bin/activate), so that it is activated as a venv is, without conda.
    type: dict
    default: {}
  called:
    description: What messages begin with, such as the variable that asks for the environment.
    type: str
    default: ""
  places:
    description: Names of the variables by which somebody chooses where channels lie, for messages.
    type: str
    default: channel_alias or custom_channels
  size_mb:
    description: Megabytes that it takes with its downloads. They count where O(tools) is yet to come, and so nobody can work them out.
    type: int
    default: 0
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description:
      - Does nothing and says what would be done.
      - Where O(tools) is yet to come that is only that the environment would be made. The channels are asked all the same, whether they
        have packages of the wanted names.
  diff_mode:
    support: full
    description: Lists the packages before and after.
"""

EXAMPLES = r"""
- name: Have the environment of a paper
  trainyard.core.conda_env:
    path: /opt/trainyard/envs/paper
    environment: "{{ lookup('ansible.builtin.file', 'environment.yml') | from_yaml }}"
    state: exact

- name: Have it as it was locked
  trainyard.core.conda_env:
    path: /opt/trainyard/envs/paper
    explicit: "{{ lookup('ansible.builtin.file', 'paper-linux-64.txt') }}"
    state: exact
"""

RETURN = r"""
actions:
  description: What was, or in check mode would be, done, a line each.
  returned: success
  type: list
  elements: str
  sample: [add numpy 2.3.5, change python 3.12.1=h1 to 3.12.12=h2]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _conda_env as core


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "exact", "absent"], "default": "present"},
            "environment": {"type": "dict"},
            "explicit": {"type": "str"},
            "channels": {"type": "list", "elements": "str", "default": ["conda-forge"]},
            "channel_alias": {"type": "str", "default": "https://conda.anaconda.org"},
            "custom_channels": {"type": "dict", "default": {}},
            "default_channels": {
                "type": "list",
                "elements": "str",
                "default": ["https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r"],
            },
            "cache": {"type": "path", "default": "/opt/trainyard/conda/.cache"},
            "tools": {"type": "path", "default": "/opt/trainyard/envs/conda-tools"},
            "index_url": {"type": "str", "default": ""},
            "wheelhouse": {"type": "str", "default": ""},
            "adopt": {"type": "bool", "default": False},
            "owner": {"type": "str", "default": ""},
            "about": {"type": "dict", "default": {}},
            "called": {"type": "str", "default": ""},
            "places": {"type": "str", "default": "channel_alias or custom_channels"},
            "size_mb": {"type": "int", "default": 0},
        },
        mutually_exclusive=[("environment", "explicit")],
        required_if=[("state", state, ("environment", "explicit"), True) for state in ("present", "exact")],
        supports_check_mode=True,
    )
    given = module.params
    channels = core.Channels(
        default=tuple(given["channels"]),
        alias=given["channel_alias"],
        custom=given["custom_channels"],
        defaults=tuple(given["default_channels"]),
    )
    settings = core.Settings(
        tools=given["tools"],
        cache=given["cache"],
        index_url=given["index_url"],
        wheelhouse=given["wheelhouse"],
        adopt=given["adopt"],
        owner=given["owner"],
        about=given["about"],
        size=given["size_mb"] * 1_000_000,
        places=given["places"],
    )
    environment = core.Environment(given["path"], settings)
    before = environment.listed()
    try:
        if given["state"] == "absent":
            actions = environment.remove(dry=module.check_mode)
        else:
            exact = given["state"] == "exact"
            if given["explicit"] is None:
                request = core.from_environment(given["environment"], channels, exact=exact)
            else:
                request = core.from_explicit(given["explicit"], exact=exact)
            actions = environment.check(request) if module.check_mode else environment.apply(request)
    except core.CondaEnvError as error:
        called = given["called"]
        module.fail_json(msg=f"{called}: {str(error).removeprefix('environment: ')}" if called else str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.strerror}: {error.filename}")
    after = before + "".join(f"to do: {action}\n" for action in actions) if module.check_mode else environment.listed()
    module.exit_json(
        changed=bool(actions),
        actions=actions,
        diff={"before_header": given["path"], "after_header": given["path"], "before": before, "after": after},
    )


if __name__ == "__main__":
    main()
