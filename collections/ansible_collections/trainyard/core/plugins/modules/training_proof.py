#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Trains a small network in each environment and tells what came of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: training_proof
short_description: Proves that Python environments can train
version_added: 0.1.0
description:
  - Runs one script in each environment, as an ordinary user, and reports framework, version, device, accuracy and seconds.
  - Fails when an environment does not train, trains on another device than expected, or learns too little; every environment is tried
    before it does.
  - A proof that was passed is kept, and is not repeated as long as nothing that it depends on has changed - the environment's packages,
    the scripts, the demands, the data, the GPU's driver - unless O(rerun) is set.
  - A proof is an observation and leaves the node as it was, but for the record of what was seen; C(changed) tells of the scripts only.
options:
  environments:
    description: The environments to prove.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the environment.
        type: str
        required: true
      path:
        description: Folder of the environment, which holds C(bin/python).
        type: path
        required: true
      proof:
        description: Which proof to run, the script C(train_<proof>.py); the environment's name where it is not given.
        type: str
      variant:
        description: The kind of build, such as V(cpu); only reported.
        type: str
        default: ''
      device:
        description: Where the training is expected to run.
        type: str
        choices: [cpu, gpu]
        default: cpu
  proofs:
    description: Folder on the node that holds the scripts.
    type: path
    required: true
  scripts:
    description:
      - The scripts that are to be in O(proofs), file name to text; Python files there that are not among them are removed.
      - Where it is not given, the folder is used as it is.
    type: dict
  results:
    description: Folder on the node in which what was proven is kept, one file for each environment.
    type: path
    required: true
  user:
    description: User that the proofs run as; never C(root).
    type: str
    default: nobody
  timeout:
    description: Seconds that one proof may take.
    type: int
    default: 600
  parallel:
    description: How many proofs run at a time; V(0) means one for every two cores.
    type: int
    default: 0
  minimum_accuracy:
    description: Test accuracy that a network has to reach, from 0 to 1.
    type: float
    default: 0.95
  mnist:
    description:
      - MNIST on the node, an C(.npz) file in Keras' layout or a folder of the four C(idx) files, packed or not.
      - Where it is empty, scikit-learn's handwritten digits are used.
    type: path
    default: ''
  rerun:
    description: Whether environments are trained again that were proven before.
    type: bool
    default: false
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Trains nothing; reports the proofs that still hold, and all others as not run.
  diff_mode:
    support: full
    description: Shows the scripts before and after.
"""

EXAMPLES = r"""
- name: Prove that the environments train
  trainyard.core.training_proof:
    environments:
      - {name: pytorch, path: /opt/trainyard/envs/pytorch, variant: cu128, device: gpu}
      - {name: old-torch, path: /opt/trainyard/envs/old-torch, proof: pytorch, variant: cpu}
    proofs: /opt/trainyard/proofs/scripts
    results: /opt/trainyard/proofs/results
"""

RETURN = r"""
proofs:
  description: What was seen, one entry for each environment, in the order of O(environments).
  returned: always
  type: list
  elements: dict
  contains:
    environment:
      description: Name of the environment.
      type: str
    framework:
      description: The framework's name.
      type: str
    variant:
      description: The kind of build.
      type: str
    version:
      description: The framework's version, as it says itself.
      type: str
    device:
      description: Where the training ran, V(cpu) or V(gpu); empty if it did not.
      type: str
    device_name:
      description: The same in the framework's words.
      type: str
    expected_device:
      description: Where it was expected to run.
      type: str
    accuracy:
      description: Test accuracy, from 0 to 1.
      type: float
    seconds:
      description: How long the proof took, from the start of the interpreter.
      type: float
    passed:
      description: Whether it is a proof; null where nothing was run.
      type: bool
    problem:
      description: Why it is none.
      type: str
    remedy:
      description: What to do about that.
      type: str
    ran_at:
      description: When it ran, in UTC.
      type: str
    cached:
      description: Whether this is an earlier proof that still holds.
      type: bool
    fingerprint:
      description: A digest of all that the proof depends on.
      type: str
"""

import glob
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _proof_runner as runner
from ansible_collections.trainyard.core.plugins.module_utils import _training_proof as training


def put_scripts(module: AnsibleModule, folder: str, scripts: dict[str, str]) -> dict[str, Any]:
    """Bring the folder of scripts in line; return what the module is to say about that."""
    present = {os.path.basename(path): runner.read(path) or "" for path in glob.glob(os.path.join(glob.escape(folder), "*.py"))}
    differing = sorted(name for name in {*present, *scripts} if present.get(name) != scripts.get(name))
    for name in [] if module.check_mode else differing:
        if name in scripts:
            runner.write(os.path.join(folder, name), scripts[name])
        else:
            os.unlink(os.path.join(folder, name))
    before, after = ("".join(texts.get(name, "") for name in differing) for texts in (present, scripts))
    return {"changed": bool(differing), "diff": {"before": before, "after": after, "before_header": folder, "after_header": folder}}


def state_file(module: AnsibleModule, environment: training.Environment) -> str:
    """Return where the result of an environment is kept."""
    return os.path.join(module.params["results"], f"{environment.name}.json")


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "environments": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "path": {"type": "path", "required": True},
                    "proof": {"type": "str"},
                    "variant": {"type": "str", "default": ""},
                    "device": {"type": "str", "choices": ["cpu", "gpu"], "default": "cpu"},
                },
            },
            "proofs": {"type": "path", "required": True},
            "scripts": {"type": "dict"},
            "results": {"type": "path", "required": True},
            "user": {"type": "str", "default": "nobody"},
            "timeout": {"type": "int", "default": 600},
            "parallel": {"type": "int", "default": 0},
            "minimum_accuracy": {"type": "float", "default": 0.95},
            "mnist": {"type": "path", "default": ""},
            "rerun": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    environments = [training.Environment.from_option(option) for option in module.params["environments"]]
    odd = [
        environment.name
        for environment in environments
        if os.path.basename(environment.name) != environment.name or environment.name[:1] == "."
    ]
    if odd or len({environment.name for environment in environments}) != len(environments):
        module.fail_json(msg=f"Names of environments have to be unique and fit for a file name: {', '.join(odd) or 'one is there twice'}.")
    demand = training.Demand(**{field: module.params[field] for field in training.Demand._fields})

    scripts = module.params["scripts"]
    told = {"changed": False} if scripts is None else put_scripts(module, demand.proofs, scripts)
    results, wanted, digests = {}, {}, {}
    for environment in environments:
        digest = "" if module.check_mode and told["changed"] else training.fingerprint(environment, demand)  # new scripts, new proofs
        digests[environment.name] = digest
        earlier = (
            None
            if module.params["rerun"] and not module.check_mode
            else training.recall(runner.read(state_file(module, environment)), digest)
        )
        problem = None if earlier or module.check_mode else training.obstacle(environment, demand)
        if earlier:
            results[environment.name] = earlier
        elif module.check_mode:
            results[environment.name] = training.unproven(environment)
        elif problem:
            results[environment.name] = training.unproven(environment, *problem)
        else:
            wanted[environment] = digest
    if wanted:
        try:
            account = runner.account_of(module.params["user"])
        except runner.AccountError as error:
            module.fail_json(msg=str(error), **told)
        for environment, result in runner.run(
            list(wanted), demand, account, results=module.params["results"], parallel=module.params["parallel"]
        ):
            results[environment.name] = result
            runner.write(state_file(module, environment), training.remember(result, wanted[environment]))
    proofs = [{**results[environment.name], "fingerprint": digests[environment.name]} for environment in environments]
    message = training.failure_message(proofs)
    if message:
        module.fail_json(msg=message, proofs=proofs, **told)
    module.exit_json(proofs=proofs, **told)


if __name__ == "__main__":
    main()
