#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Packages that stay at their version until their owner moves them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: package_holds
short_description: Holds Debian packages at their version on behalf of somebody
version_added: 0.1.0
description:
  - Sets dpkg's hold on packages, which apt, aptitude and unattended upgrades honour alike, and writes down whose hold it is in
    C(/var/lib/trainyard/holds).
  - Takes off the owner's holds on packages that are no longer listed. A hold that was there before is nobody's and stays.
options:
  name:
    description: Packages to be held, which may hold C(*); those that are not installed are passed over. All others of the owner are let go.
    type: list
    elements: str
    required: true
  owner:
    description: Who wants the holds, such as the name of a role.
    type: str
    required: true
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would be held and let go, and does nothing.
  diff_mode:
    support: full
    description: Lists the owner's holds before and after.
"""

EXAMPLES = r"""
- name: Keep the driver and the kernel together
  trainyard.core.package_holds:
    name: [nvidia-kernel-dkms, linux-image-amd64, linux-headers-amd64]
    owner: nvidia_driver
"""

RETURN = r"""
held:
  description: Packages that were, or in check mode would be, held anew.
  returned: always
  type: list
  elements: str
let_go:
  description: Packages whose hold was, or in check mode would be, taken off.
  returned: always
  type: list
  elements: str
"""

import fnmatch
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _apt as apt
from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._host import locks

FOLDER = Path("/var/lib/trainyard/holds")


@locks.turn("package_holds")
def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={"name": {"type": "list", "elements": "str", "required": True}, "owner": {"type": "str", "required": True}},
        supports_check_mode=True,
    )
    bad = apt.invalid_names(name.replace("*", "") for name in module.params["name"])
    if bad:
        module.fail_json(msg=f"name: {', '.join(bad)} cannot be the name of a Debian package (lower-case letters, digits, + - . only).")

    def run(*command: str) -> str:
        return str(module.run_command(list(command), check_rc=True, environ_update={"LC_ALL": "C.UTF-8"})[1])

    file = FOLDER / module.params["owner"]
    ours = set(file.read_text().split()) if file.is_file() else set()
    installed = {
        name
        for name, letters in apt.parse_status(run("dpkg-query", "--show", "--showformat", "${Package}\\t${db:Status-Abbrev}\\n")).items()
        if apt.is_installed(letters)
    }
    # apt is asked only where there is something to ask: it answers nobody where the node's sources clash.
    holding = set(run("apt-mark", "showhold").split()) if ours or module.params["name"] else set()
    wanted = {name for pattern in module.params["name"] for name in fnmatch.filter(installed, pattern)}
    held, let_go = wanted - holding, (ours - wanted) & holding
    after = ours & wanted | held
    if not module.check_mode:
        _write(file, ours | held)  # before, so that an interruption leaves no hold of ours that we do not know
        if held:
            run("apt-mark", "hold", *sorted(held))
        if let_go:
            run("apt-mark", "unhold", *sorted(let_go))
        _write(file, after)
    module.exit_json(
        changed=bool(held or let_go),
        held=sorted(held),
        let_go=sorted(let_go),
        diff={"before": _lines(ours & holding), "after": _lines(after)},
    )


def _lines(names: set[str]) -> str:
    return "".join(f"{name}\n" for name in sorted(names))


def _write(file: Path, names: set[str]) -> None:
    if names and not (file.is_file() and file.read_text() == _lines(names)):
        host_files.write(file, _lines(names), 0o644)
    elif not names:
        file.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
