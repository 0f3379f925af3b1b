#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings for kernel modules that the initramfs knows, too."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modprobe_settings
short_description: Keeps a file of settings for modprobe, and renews the initramfs when it changed
version_added: 0.1.0
description:
  - Modules are loaded from the initramfs before the file system with C(/etc) is there, so that a change counts only once it is in there.
  - The initramfs is renewed for every kernel that has one, when the file changed and C(update-initramfs) is there. A run that was killed
    in between is made good by the next one.
options:
  name:
    description: Name of the file in C(/etc/modprobe.d), without its ending.
    type: str
    required: true
  lines:
    description: What stands in it.
    type: list
    elements: str
    default: []
  state:
    description: Whether the file is to be there.
    type: str
    choices: [present, absent]
    default: present
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would change and does nothing.
  diff_mode:
    support: full
    description: Shows the file before and after.
"""

EXAMPLES = r"""
- name: Keep nouveau out
  trainyard.core.modprobe_settings:
    name: trainyard-nvidia-driver
    lines: [blacklist nouveau]
"""

RETURN = r"""
renewed:
  description: Kernels whose initramfs was, or in check mode would be, renewed.
  returned: always
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._host import locks

PENDING = Path("/var/lib/trainyard/initramfs-pending")
PREFIX = "initrd.img-"


@locks.turn("modprobe_settings")
def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "lines": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    if "/" in module.params["name"]:
        module.fail_json(msg=f"name: {module.params['name']} is no plain name of a file.")
    file = Path("/etc/modprobe.d", module.params["name"] + ".conf")
    before = file.read_text() if file.is_file() else None
    after = (
        "# Made by Trainyard.\n" + "".join(f"{line}\n" for line in module.params["lines"]) if module.params["state"] == "present" else None
    )
    program = module.get_bin_path("update-initramfs")
    kernels = sorted(
        path.name[len(PREFIX) :] for path in Path("/boot").glob(PREFIX + "*") if not path.name.endswith((".bak", ".new", "-bak"))
    )
    due = before != after or PENDING.exists()
    renewed = kernels if due and program else []
    if due and not module.check_mode:
        if renewed:
            host_files.make_folders(PENDING.parent)
            PENDING.touch(0o600)
        if after is None:
            file.unlink(missing_ok=True)
        elif before != after:
            beside = file.with_name(file.name + ".new")  # modprobe reads no file with this ending
            beside.write_text(after)
            beside.chmod(0o644)
            beside.rename(file)
        for kernel in renewed:
            rc, output, errors = module.run_command([program, "-u", "-k", kernel])
            if rc:
                module.fail_json(msg=f"The initramfs of kernel {kernel} could not be renewed: {(errors or output).strip()[-1000:]}")
        PENDING.unlink(missing_ok=True)
    module.exit_json(
        changed=before != after or bool(renewed),
        renewed=renewed,
        diff={"before_header": str(file), "after_header": str(file), "before": before or "", "after": after or ""},
    )


if __name__ == "__main__":
    main()
