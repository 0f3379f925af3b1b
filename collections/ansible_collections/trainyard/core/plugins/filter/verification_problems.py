# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: what is wrong with the wishes for proofs of training."""

from __future__ import annotations

DOCUMENTATION = r"""
name: verification_problems
short_description: What is wrong with the wishes for proofs of training, in words
version_added: 0.1.0
description:
  - Reads the variables of the role C(verification) and returns one sentence for everything that could not be done.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: The variables of the role, without their prefix.
    type: dict
    required: true
  scripts:
    description: The files that the role has, among them one C(train_<proof>.py) for each proof.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
problems: "{{ wishes | trainyard.core.verification_problems(scripts=['digits.py', 'train_pytorch.py']) }}"
"""

RETURN = r"""
_value:
  description: One sentence for each problem; empty when there is none.
  type: list
  elements: str
"""

from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _training_proof as training


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"verification_problems": training.problems}
