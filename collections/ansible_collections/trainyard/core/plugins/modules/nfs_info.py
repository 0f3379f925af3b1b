#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a node can do with NFS, and what lies where folders are to be shared."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nfs_info
short_description: Says what a node can do with NFS and what lies where folders are to be shared
version_added: 0.1.0
description:
  - Never looks into a folder at which something is mounted, so that it does not wait for a server that is away.
options:
  folders:
    description: Paths of the folders.
    type: list
    elements: path
    default: []
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
  diff_mode:
    support: none
    description: Changes nothing.
"""

EXAMPLES = r"""
- name: See what lies there
  trainyard.core.nfs_info:
    folders: [/srv/shared]
  register: look_result
"""

RETURN = r"""
container:
  description: The kind of container that the node is; empty where it is none.
  returned: always
  type: str
kernel:
  description: The kernel's C(release), and whether it can mount (C(nfs)) and serve (C(nfsd)).
  returned: always
  type: dict
folders:
  description:
    - For each folder its C(kind), which is V(absent), V(empty), V(full), V(file), V(link), V(ours) where the role mounted it, or V(mount)
      where somebody else did; C(holds), in words; and C(type), the type of what is mounted, V(/) for a folder of
      the node's own disk.
  returned: always
  type: dict
foreign_server:
  description: Whether there is an NFS server that is not the role's.
  returned: always
  type: bool
foreign_rpcbind:
  description: Whether rpcbind was there before the role.
  returned: always
  type: bool
ours:
  description: Files of the role that are there.
  returned: always
  type: list
  elements: str
"""

import os
import platform
from glob import glob
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _nfs as nfs
from ansible_collections.trainyard.core.plugins.module_utils import _secret_file as files


def container(module: AnsibleModule) -> str:
    """Return the kind of container that this is; empty where it is none."""
    detect = module.get_bin_path("systemd-detect-virt")
    if not detect:
        return ""
    rc, output, _errors = module.run_command([detect, "--container"])
    return "" if rc else output.strip()


def kernel(module: AnsibleModule) -> dict[str, Any]:
    """Say what the kernel can do, now or by a module that is there for it."""
    can = set(files.read("/proc/filesystems").split())
    modprobe = module.get_bin_path("modprobe", opt_dirs=["/usr/sbin", "/sbin"])

    def has(filesystem: str, name: str) -> bool:
        return filesystem in can or (bool(modprobe) and module.run_command([modprobe, "--dry-run", "--quiet", name])[0] == 0)

    return {"release": platform.release(), "nfs": has("nfs4", "nfsv4"), "nfsd": has("nfsd", "nfsd")}


def place(path: str, mounts: dict[str, nfs.Mount]) -> dict[str, str]:
    """Say what lies at a path."""
    there = mounts.get(path)
    text = files.read(os.path.join(nfs.UNITS, nfs.unit(path) + ".mount"))
    if there and text.startswith(nfs.HEADER) and there.kind in (*nfs.NFS, "autofs"):
        return {"kind": "ours", "holds": nfs.setting(text, "What"), "type": there.kind}
    if there:
        return {"kind": "mount", "holds": there.source, "type": there.kind}
    above = "/"
    for part in path.strip("/").split("/"):
        above = os.path.join(above, part)
        if os.path.islink(above):
            return {"kind": "link", "holds": f"{above} -> {os.readlink(above)}", "type": ""}
    if not os.path.lexists(path):
        return {"kind": "absent", "holds": "", "type": ""}
    if not os.path.isdir(path):
        return {"kind": "file", "holds": "", "type": ""}
    names = sorted(os.listdir(path))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    below = next(above for above in nfs.above(path) if above in mounts or above == nfs.OWN_DISK)
    kind = below if below == nfs.OWN_DISK else mounts[below].kind
    return {"kind": "full" if names else "empty", "holds": ", ".join(names[:3]) + more, "type": kind}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={"folders": {"type": "list", "elements": "path", "default": []}}, supports_check_mode=True)
    mounts = nfs.mounts(files.read("/proc/self/mountinfo"))
    units = glob(os.path.join(nfs.UNITS, "*.mount")) + glob(os.path.join(nfs.UNITS, "*.automount"))
    ours = [path for path in (nfs.QUIET, nfs.SERVER, nfs.EXPORTS) if os.path.exists(path)]
    module.exit_json(
        changed=False,
        container=container(module),
        kernel=kernel(module),
        folders={path: place(path, mounts) for path in module.params["folders"]},
        foreign_server=os.path.exists("/usr/sbin/rpc.nfsd") and nfs.SERVER not in ours,
        foreign_rpcbind=any(map(os.path.exists, ("/sbin/rpcbind", "/usr/sbin/rpcbind"))) and nfs.QUIET not in ours,
        ours=ours + sorted(path for path in units if files.read(path).startswith(nfs.HEADER)),
    )


if __name__ == "__main__":
    main()
