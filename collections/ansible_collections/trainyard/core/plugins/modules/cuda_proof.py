#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Proves that CUDA toolkits compile, link and compute."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cuda_proof
short_description: Proves that CUDA toolkits compile, link and compute
version_added: 0.1.0
description:
  - Compiles and links small programs with each toolkit's own nvcc, sees that the loader finds all of their libraries, and runs them.
  - Where the driver has no GPU, a program that loads everything and finds no GPU is all that can be proven, and is told as that.
  - A proof is kept in the toolkit's folder and holds until the toolkit, the programs or the driver change.
options:
  path:
    description: Folder in which the toolkits stand.
    type: path
    default: /usr/local
  toolkits:
    description: Which toolkits, and which programs each is to build.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Its line, such as C(13.0).
        type: str
        required: true
      programs:
        description: Names of programs.
        type: list
        elements: str
        required: true
  sources:
    description: Text of the programs C(cuda), C(cudnn) and C(nccl), by name.
    type: dict
    required: true
  timeout:
    description: Seconds that one compilation or one program may take.
    type: int
    default: 300
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Builds and runs nothing; says which toolkits would be proven.
  diff_mode:
    support: none
    description: What a proof changes is its record alone.
"""

EXAMPLES = r"""
- name: Prove that CUDA 13.0 builds with cuDNN
  trainyard.core.cuda_proof:
    toolkits:
      - {name: "13.0", programs: [cuda, cudnn]}
    sources: {cuda: "{{ lookup('ansible.builtin.file', 'cuda.cu') }}", cudnn: "{{ lookup('ansible.builtin.file', 'cudnn.cu') }}"}
"""

RETURN = r"""
toolkits:
  description: What was proven, kept proofs included.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The toolkit.
      type: str
    proofs:
      description: For each program its name, whether a GPU computed, what was seen, and what is wrong.
      type: list
      elements: dict
without_gpu:
  description: Toolkits whose programs were built, linked and loaded, and found no GPU to compute on.
  returned: success
  type: list
  elements: str
"""

import os
import subprocess
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _cuda_proof as core
from ansible_collections.trainyard.core.plugins.module_utils._cuda_toolkits import MARKER, PROOF
from ansible_collections.trainyard.core.plugins.module_utils._python_env import write_atomically

DRIVER = Path("/proc/driver/nvidia/version")
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}


def has_gpu():
    """Say whether the driver offers a GPU here; a container may see the driver of its host and none of its GPUs."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def key_of(sources, marker):
    """Return what a proof is about at this moment."""
    return core.digest(sources, marker, f"{DRIVER.read_text() if DRIVER.exists() else ''}{has_gpu()}")


def run(words, timeout):
    """Run a command in an environment that tells the loader nothing, and return how it ended."""
    try:
        done = subprocess.run(
            words, env=ENVIRONMENT, capture_output=True, text=True, errors="replace", timeout=timeout, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return core.End(124, "", f"it took longer than {timeout} seconds")
    except OSError as error:
        return core.End(127, "", f"{error.filename}: {error.strerror}")
    return core.End(done.returncode, done.stdout, done.stderr)


def prove(folder, name, program, source, timeout):
    """Build and run one program, and return what became of it."""
    with tempfile.TemporaryDirectory(prefix="trainyard-cuda-") as work:
        file, target = f"{work}/{program}.cu", f"{work}/{program}"
        Path(file).write_text(source, encoding="utf-8")
        built = run(core.compile_words(f"{folder}/bin/nvcc", program, file, target), timeout)
        if built.status:
            return core.Proof(program, False, {}, f"CUDA {name}: the program {program} cannot be built: {built.words()}")
        lacking = core.lacking(run(["ldd", target], timeout).output)
        if lacking:
            return core.Proof(program, False, {}, f"CUDA {name}: the program {program} does not find {', '.join(lacking)}.")
        return core.judge(program, name, run([target], timeout), gpu=has_gpu())


def main():
    """Run the module."""
    toolkit = {"name": {"type": "str", "required": True}, "programs": {"type": "list", "elements": "str", "required": True}}
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/usr/local"},
            "toolkits": {"type": "list", "elements": "dict", "required": True, "options": toolkit},
            "sources": {"type": "dict", "required": True},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    given = module.params
    results, changed, problems = [], False, []
    for one in given["toolkits"]:
        folder = Path(given["path"], f"cuda-{one['name']}")
        sources = {program: given["sources"][program] for program in one["programs"]}
        marker = (folder / MARKER).read_text(encoding="utf-8") if (folder / MARKER).exists() else ""
        kept = (folder / PROOF).read_text(encoding="utf-8") if (folder / PROOF).exists() else ""
        proofs = core.holds(kept, key_of(sources, marker))
        if not proofs:
            changed = True
            if module.check_mode:
                continue
            found = [prove(folder, one["name"], program, source, given["timeout"]) for program, source in sources.items()]
            problems += [proof.problem for proof in found if proof.problem]
            key = key_of(sources, marker)  # the first program may be what brought the GPU's device files
            text = core.record(key, found)
            if not any(proof.problem for proof in found):
                write_atomically(folder / PROOF, text)
            proofs = core.holds(text, key)
        results.append({"name": one["name"], "proofs": proofs})
    if problems:
        module.fail_json(msg=" ".join(problems), toolkits=results)
    without_gpu = [one["name"] for one in results if not all(proof["ran"] for proof in one["proofs"])]
    module.exit_json(changed=changed, toolkits=results, without_gpu=without_gpu)


if __name__ == "__main__":
    main()
