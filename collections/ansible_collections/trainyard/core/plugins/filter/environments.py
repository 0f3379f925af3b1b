# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters: from the names of environments to what a node has to get."""

from __future__ import annotations

DOCUMENTATION = r"""
name: environments
short_description: What a node has to get for the environments that its inventory wants
version_added: 0.1.0
description:
  - Looks the wanted environments up in the catalogue and chooses the lock that fits the node's Python and processor.
  - What cannot be fulfilled is returned as sentences, so that a role can refuse it in its own words.
  - Reads the locks on the controller, changes nothing.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description:
      - The variables of a role without their prefix, C(environments), C(services), C(variant), C(planned), C(path), C(default_for).
      - An environment is a name, or a dict of C(name), C(environment), C(variant) and C(state).
    type: dict
    required: true
  catalogue:
    description: The catalogue's environments.
    type: dict
    required: true
  facts:
    description: The node's facts.
    type: dict
    required: true
  indexes:
    description: URLs of the indexes that the catalogue names.
    type: dict
    required: true
  locks:
    description: Folder of the locks on the controller.
    type: path
    required: true
  conda_services:
    description: Services that are needed where an environment comes by conda.
    type: list
    elements: str
    default: []
  prefix:
    description: What the names of the role's variables begin with.
    type: str
    default: framework_env_
  python:
    description: The node's Python, such as C(3.11), where it is not the one that Ansible runs with.
    type: str
    default: ""
  services_python:
    description: That of the services' environments, where it is another one.
    type: str
    default: ""
"""

EXAMPLES = r"""
plan: >-
  {{ wishes | trainyard.core.environments(
       catalogue=catalog_environments, facts=ansible_facts, indexes=catalog_python_indexes, locks=folder) }}
"""

RETURN = r"""
_value:
  description: What is to be done.
  type: dict
  contains:
    problems:
      description: One sentence for each thing that cannot be done; empty when there is none.
      type: list
      elements: str
    environments:
      description: The environments for users as M(trainyard.core.python_env) takes them.
      type: list
      elements: dict
    services:
      description: The services' environments as M(trainyard.core.python_env) takes them.
      type: list
      elements: dict
    frozen:
      description: The frozen environments as M(trainyard.core.frozen_root) takes them.
      type: list
      elements: dict
    conda:
      description: The environments that come by conda, as C(name), C(path), C(state), C(about), C(channels), C(packages) and C(size_mb).
      type: list
      elements: dict
    system_packages:
      description: Packages that the distribution has to bring.
      type: list
      elements: str
    frameworks:
      description: Name and aliases of each environment that is for users.
      type: list
      elements: dict
    kernels:
      description:
        - Name, path and title of each of those, as M(trainyard.core.jupyter_kernels) takes them.
        - The title has version and device.
      type: list
      elements: dict
    defaults:
      description: Account -> name of its default environment; an alias is resolved.
      type: dict
    provable:
      description: Name, path, proof, variant and device of each of those.
      type: list
      elements: dict
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _environments

ABOUT_KEYS = ("environment", "variant", "kind", "title", "proof", "device")
MODULE_KEYS = ("name", "state", "index_url", "index_packages")
VIEWS = {
    "frameworks": ("name", "aliases"),
    "provable": ("name", "path", "proof", "variant", "device"),
}


def environments(
    wishes: Mapping[str, Any],
    *,
    catalogue: Mapping[str, Any],
    facts: Mapping[str, Any],
    indexes: Mapping[str, str],
    locks: str,
    prefix: str = "framework_env_",
    python: str = "",
    services_python: str = "",
    conda_services: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what a node has to get, and why it cannot where it cannot."""
    node = _environments.Node.of(facts, str(python))
    under_services = _environments.Node.of(facts, str(services_python or python))
    entries, problems = _environments.plan(
        wishes["environments"],
        wishes.get("services", []),
        catalogue,
        node,
        under_services,
        variant=str(wishes["variant"]),
        path=str(wishes["path"]),
        indexes=indexes,
        default_for=wishes.get("default_for", {}),
        prefix=prefix,
        planned=wishes.get("planned", []),
        conda_services=conda_services,
    )
    made, services, frozen, conda = [], [], [], []
    for entry in entries:
        module = {key: entry[key] for key in MODULE_KEYS if key in entry}
        if entry["state"] == "absent":  # only the module that made it knows it as its own
            made.append(module)
            frozen.append(module)
            conda.append({**module, "path": entry["path"]})
            continue
        about = {key: entry[key] for key in ABOUT_KEYS if key in entry}
        described = {"name": entry["name"], "state": entry["state"], "about": about}
        try:
            locked = {"requirements": (Path(locks) / entry["lock"]).read_text()} if entry["lock"] else {}
        except FileNotFoundError:
            problems.append(
                f"{prefix}environments: {entry['name']} has no lock for Python {entry['python']} on {node.architecture}. "
                f"Make it with tools/lock_envs.py, or take {entry['name']} out for this node."
            )
            continue
        if "conda" in entry:
            conda.append({**described, "path": entry["path"], **entry["conda"]})
        elif "frozen" in entry:
            frozen.append({**described, **entry["frozen"], **locked})
        else:
            chosen = services if entry["kind"] == "service" else made
            chosen.append({**module, **locked, "python_version": entry["python"], "about": about})
    present = [entry for entry in entries if entry["state"] == "present"]
    frameworks = [entry for entry in present if entry["kind"] == "framework"]
    return {
        "problems": problems,
        "environments": made,
        "services": services,
        "frozen": frozen,
        "conda": conda,
        "system_packages": sorted({package for entry in present for package in entry["system_packages"]}),
        "kernels": [{"name": entry["name"], "path": entry["path"], "title": entry["kernel_title"]} for entry in frameworks],
        "defaults": {
            user: entry["name"]
            for user, name in wishes.get("default_for", {}).items()
            for entry in frameworks
            if name in {entry["name"], *entry["aliases"]}
        },
        **{view: [{key: entry[key] for key in keys} for entry in frameworks] for view, keys in VIEWS.items()},
    }


def available_environments(
    names: Sequence[str], *, catalogue: Mapping[str, Any], facts: Mapping[str, Any], variant: str, python: str = ""
) -> list[str]:
    """Return those names of which the catalogue has this variant for the node's Python."""
    return _environments.available(names, catalogue, _environments.Node.of(facts, str(python)), str(variant))


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"environments": environments, "available_environments": available_environments}
