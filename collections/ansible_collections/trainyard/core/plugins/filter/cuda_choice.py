# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: the CUDA toolkits that an inventory means."""

from __future__ import annotations

DOCUMENTATION = r"""
name: cuda_choice
short_description: The CUDA toolkits, cuDNN and NCCL that an inventory means, and where they come from
version_added: 0.1.0
description:
  - Looks the wishes up in what is locked and in what the node's distribution has.
  - What cannot be fulfilled is returned as sentences, so that the role can refuse it.
  - Reads the locks on the controller, changes nothing.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: The variables of the role C(cuda), without their prefix.
    type: dict
    required: true
  wheels:
    description: The catalogue's wheels of CUDA.
    type: dict
    required: true
  platforms:
    description: The distributions' own toolkits by platform, such as C(Debian_12).
    type: dict
    required: true
  stack:
    description: The catalogue's file of what the vendor released, on the controller.
    type: path
    required: true
  facts:
    description: The node's facts.
    type: dict
    required: true
  locks:
    description: Folder of the locks on the controller.
    type: path
    required: true
  unpacked:
    description: Folder on the node in which the vendor's packages are unpacked.
    type: path
    required: true
"""

EXAMPLES = r"""
choice: >-
  {{ wishes | trainyard.core.cuda_choice(wheels=catalog_cuda_wheels, platforms=platforms, stack=file, facts=ansible_facts, locks=folder,
     unpacked='/usr/local/lib/trainyard-cuda-packages') }}
"""

RETURN = r"""
_value:
  description: What is to be done.
  type: dict
  contains:
    problems:
      description: One sentence for each thing that cannot be had; empty when there is none.
      type: list
      elements: str
    toolkits:
      description: The toolkits as M(trainyard.core.cuda_toolkits) takes them.
      type: list
      elements: dict
    environments:
      description: What holds their wheels, as M(trainyard.core.python_env) takes it.
      type: list
      elements: dict
    trees:
      description: What is unpacked from the vendor's packages, as M(trainyard.core.package_trees) takes it.
      type: list
      elements: dict
    proofs:
      description: Which toolkits are to be proven with which programs, as M(trainyard.core.cuda_proof) takes them.
      type: list
      elements: dict
    default:
      description: Name of the default toolkit, empty for none.
      type: str
    distribution:
      description: What becomes of the distribution's own toolkit, V(present), V(absent), or empty when no wish speaks of it.
      type: str
    repository:
      description: Whether the vendor's repository is wanted, V(present), V(absent), or empty when no wish speaks of it.
      type: str
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.trainyard.core.plugins.module_utils import _cuda_wishes

# What only graphical programs and readers need: large, with needs of its own, and its programs lie elsewhere.
WITHOUT = ("*nsight*", "cuda-visual-tools-*", "cuda-nvvp-*", "cuda-documentation-*", "cuda-demo-suite-*")


@lru_cache
def released(stack: str) -> tuple[str, ...]:
    """Return the releases in the catalogue's file, the newest first; those before 11 no supported system has."""
    rows = yaml.safe_load(Path(stack).read_text(encoding="utf-8"))["catalog_cuda_toolkits"]
    return tuple(row["version"] for row in rows if int(row["version"].split(".")[0]) >= 11)


def cuda_choice(
    wishes: Mapping[str, Any],
    *,
    wheels: Mapping[str, Any],
    platforms: Mapping[str, Any],
    stack: str,
    facts: Mapping[str, Any],
    locks: str,
    unpacked: str,
) -> dict[str, Any]:
    """Return what ``wishes`` mean on a node with ``facts``."""
    offer = _cuda_wishes.Offer.of(wheels, platforms, released(str(stack)), facts)
    toolkits, default, problems = _cuda_wishes.choose(wishes, offer)
    row = platforms.get(offer.platform, {})
    own = _cuda_wishes.line(str(row.get("release", "")))
    entries, environments, trees, distribution, repository = [], [], [], "", ""
    for toolkit in toolkits:
        texts = [Path(locks, name).read_text(encoding="utf-8") for name in toolkit.locks(offer.architecture)]
        environments.append({"name": toolkit.name, "state": "present" if texts else "absent", "requirements": "".join(texts)})
        from_distribution, from_repository = toolkit.source == "distribution", toolkit.source == "nvidia_repository"
        entries.append(
            {
                "name": toolkit.name,
                "state": "present" if toolkit.present else "absent",
                "about": {"version": toolkit.release, "source": toolkit.source, **toolkit.libraries} if toolkit.present else {},
                "distribution": row["home"] if from_distribution else "",
                "unpacked": f"{unpacked}/{toolkit.name}/usr/local/cuda-{toolkit.name}" if from_repository else "",
                "packages_mb": row["packages_mb"] if from_distribution else 0,
            }
        )
        if from_repository:
            mark = toolkit.name.replace(".", "-")
            start = {
                "package": f"cuda-toolkit-{mark}",
                "version": f"{toolkit.release}-*",
                "follow": [f"*-{mark}"],
                "without": list(WITHOUT),
            }
            trees.append({"name": toolkit.name, "state": "present", **start})
            repository = "present"
        elif not toolkit.present:
            trees.append({"name": toolkit.name, "state": "absent"})
            repository = repository or "absent"
        if from_distribution or toolkit.name == own:
            distribution = "present" if from_distribution else "absent"
    return {
        "problems": problems,
        "toolkits": entries,
        "environments": environments,
        "trees": trees,
        "proofs": [{"name": one.name, "programs": ["cuda", *one.libraries]} for one in toolkits if one.present],
        "default": default,
        "distribution": distribution,
        "repository": repository,
    }


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"cuda_choice": cuda_choice}
