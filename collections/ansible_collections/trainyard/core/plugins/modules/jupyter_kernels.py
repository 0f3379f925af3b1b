#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Jupyter kernels, one for each environment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: jupyter_kernels
short_description: Offers Python environments as Jupyter kernels
version_added: 0.1.0
description:
  - Writes a C(kernel.json) and a logo for each environment and removes those that this module wrote for environments no longer listed.
  - Kernels of others are never touched.
options:
  folder:
    description: Folder that holds one folder for each kernel.
    type: path
    default: /usr/local/share/jupyter/kernels
  environments:
    description: The environments to be offered; an empty list removes all kernels that this module wrote.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the kernel.
        type: str
        required: true
      path:
        description: Folder of the environment; its C(bin/python) has to have C(ipykernel).
        type: path
        required: true
      title:
        description: What people read in the launcher; the name where it is not given. The logo shows the capitals of its first word.
        type: str
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would be done and does nothing.
  diff_mode:
    support: full
    description: Shows the kernels before and after.
"""

EXAMPLES = r"""
- name: Offer the environments as kernels
  trainyard.core.jupyter_kernels:
    environments:
      - {name: pytorch, path: /opt/trainyard/envs/pytorch, title: PyTorch 2.13 (CPU)}
"""

RETURN = r"""
written:
  description: Kernels that were, or in check mode would be, written.
  returned: always
  type: list
  elements: str
removed:
  description: Kernels that were, or in check mode would be, removed.
  returned: always
  type: list
  elements: str
"""

import contextlib
import glob
import os
import stat
from collections.abc import Iterable

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _kernels as kernels
from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._host import locks

OPEN = 0o755  # mode of the folders
# Of an environment of its own, and of a frozen one.
PLACES_OF_PACKAGES = ("lib/python3*/site-packages", "root/usr/lib/python3/dist-packages", "root/usr/local/lib/python*/dist-packages")


def present_kernels(folder: str) -> dict[str, dict[str, str]]:
    """Return the kernels in a folder, name -> file -> text."""
    found: dict[str, dict[str, str]] = {}
    for path in glob.glob(os.path.join(glob.escape(folder), "*", kernels.SPEC)):
        place = os.path.dirname(path)
        files = found[os.path.basename(place)] = {}
        for name in kernels.FILES:
            with contextlib.suppress(FileNotFoundError), open(os.path.join(place, name), encoding="utf-8", errors="replace") as file:
                files[name] = file.read()
    return found


def remove(folder: str, kernel: str) -> None:
    """Remove a kernel's files, and its folder if nothing else is in it."""
    for name in kernels.FILES:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, kernel, name))
    with contextlib.suppress(OSError):
        os.rmdir(os.path.join(folder, kernel))


def closed(folder: str, names: Iterable[str]) -> list[str]:
    """Return the folders of kernels that not everybody can read, as releases before made them under a umask of 027 or 077."""
    ours = [os.path.dirname(folder), folder, *(os.path.join(folder, name) for name in names)]
    return [path for path in ours if os.path.isdir(path) and os.stat(path).st_mode & OPEN != OPEN]


@locks.turn("jupyter_kernels")
def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "default": "/usr/local/share/jupyter/kernels"},
            "environments": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "path": {"type": "path", "required": True},
                    "title": {"type": "str"},
                },
            },
        },
        supports_check_mode=True,
    )
    folder, environments = module.params["folder"], module.params["environments"]
    present = present_kernels(folder)
    todo = kernels.plan(present, environments)
    if todo.foreign:
        module.fail_json(
            msg=f"{folder} holds kernels of somebody else under the same names: {', '.join(todo.foreign)}. "
            "Rename the environments or move those."
        )
    lacking = [
        item["path"]
        for item in environments
        if not any(glob.glob(os.path.join(glob.escape(item["path"]), place, "ipykernel")) for place in PLACES_OF_PACKAGES)
    ]
    if lacking and not module.check_mode:  # in check mode the environments may be yet to come
        module.fail_json(
            msg=f"No ipykernel is in {', '.join(lacking)}. A kernel needs it: "
            "make these environments first, with ipykernel among their packages."
        )
    shut = closed(folder, (name for name, files in present.items() if kernels.is_ours(files[kernels.SPEC]))) if environments else []
    if not module.check_mode:
        for path in shut:
            os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | OPEN)
        for name, files in todo.write.items():
            for file in filter(files.__contains__, kernels.FILES):
                host_files.write(os.path.join(folder, name, file), files[file], 0o644)
        for name in todo.remove:
            remove(folder, name)
    after = {f"{name}/{file}": text for name, files in todo.write.items() for file, text in files.items()}
    removed = {f"{name}/{file}": text for name in todo.remove for file, text in present[name].items()}
    before = {**{path: present.get(path.split("/")[0], {}).get(path.split("/")[1], "") for path in after}, **removed}
    module.exit_json(
        changed=bool(todo.write or todo.remove or shut),
        written=sorted(todo.write),
        removed=todo.remove,
        diff={"before": "".join(before[path] for path in sorted(before)), "after": "".join(after[path] for path in sorted(after))},
    )


if __name__ == "__main__":
    main()
