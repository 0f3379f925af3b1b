#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Folders that a node has from file servers, mounted once somebody looks at them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nfs_mounts
short_description: Mounts folders of NFS servers as soon as somebody looks at them, and lets them go
version_added: 0.1.0
description:
  - Each folder has two units of systemd, one that mounts it and one that does so once somebody looks. Nothing waits for the server at boot,
    and a folder comes by itself when the server is back.
  - Folders that an earlier run mounted and that are not named any more are let go.
  - A folder that processes hold is neither let go nor mounted otherwise; they are named and nothing is done. A local folder that is not
    empty is not hidden.
options:
  folders:
    description: The folders, all that are wanted. Without any all go.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where it is on this node.
        type: path
        required: true
      source:
        description: Server and path there, such as C(192.0.2.10:/srv/shared).
        type: str
        required: true
      options:
        description: Options of the mount beside the module's own.
        type: list
        elements: str
        default: []
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would change and does nothing; what would be refused is refused.
  diff_mode:
    support: full
    description: Shows what is mounted from where, before and after.
"""

EXAMPLES = r"""
- name: Have the shared folder
  trainyard.core.nfs_mounts:
    folders:
      - {path: /srv/shared, source: "192.0.2.10:/srv/shared"}
"""

RETURN = r"""
gone:
  description: Folders that were, or in check mode would be, let go.
  returned: always
  type: list
  elements: str
"""

import os
from glob import glob
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _nfs as nfs
from ansible_collections.trainyard.core.plugins.module_utils import _secret_file as files
from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._host import locks

WANTS = os.path.join(nfs.UNITS, "remote-fs.target.wants")


class Folder:
    """A folder of this node's, as it is."""

    def __init__(self, path: str) -> None:
        self.path, self.name = path, nfs.unit(path)

    def file(self, suffix: str) -> str:
        """Return the path of a unit's file."""
        return os.path.join(nfs.UNITS, f"{self.name}.{suffix}")

    def text(self, suffix: str) -> str:
        """Return a unit's text; empty where there is none of the role's."""
        text = files.read(self.file(suffix))
        return text if text.startswith(nfs.HEADER) else ""

    @property
    def made(self) -> bool:
        """Return whether the folder came with the mount."""
        return nfs.setting(self.text("automount"), "MadeFolder") == "yes"

    @property
    def mount(self) -> nfs.Mount | None:
        """Return what is mounted there."""
        return nfs.mounts(files.read("/proc/self/mountinfo")).get(self.path)


class Mounts:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.systemctl = module.get_bin_path("systemctl", required=True)

    def run(self, *words: str) -> bool:
        """Run systemctl; return whether it went well."""
        return bool(self.module.run_command([self.systemctl, *words])[0] == 0)

    def is_right(self, folder: Folder, wish: dict[str, Any]) -> bool:
        """Return whether a folder is as it is wished, at this boot and the next."""
        return (
            folder.text("mount") == nfs.mount_text(folder.path, wish["source"], wish["options"])
            and folder.text("automount") == nfs.automount_text(folder.path, folder.made)
            and os.path.islink(os.path.join(WANTS, folder.name + ".automount"))
            and self.run("--quiet", "is-active", folder.name + ".automount")
        )

    def refuse_to_hide(self, folder: Folder) -> None:
        """Fail where something would be hidden."""
        if folder.mount is None and os.path.isdir(folder.path) and os.listdir(folder.path):
            self.module.fail_json(
                msg=f"{folder.path} is not empty ({', '.join(sorted(os.listdir(folder.path))[:3])}), and what lies there would be hidden. "
                "Move it to the shared folder on the server, or away."
            )

    def refuse_to_disturb(self, folder: Folder) -> None:
        """Fail where somebody holds a folder."""
        held = nfs.holders(folder.path) if folder.mount else []
        if held:
            self.module.fail_json(
                msg=f"{folder.path} is in use by {', '.join(held[:5])}{' and others' if len(held) > 5 else ''} and stays as it is. End "
                "them, or wait for them, and run again."
            )

    def let_go(self, folder: Folder) -> None:
        """Unmount a folder and take its units off."""
        # The mount first: a unit that mounts on demand and is stopped would detach a mount that somebody holds.
        self.run("stop", folder.name + ".mount")
        there = folder.mount
        if there and there.kind in nfs.NFS:
            held = ", ".join(nfs.holders(folder.path)) or f"nobody that is known; see journalctl --unit '{folder.name}.mount'"
            self.module.fail_json(msg=f"{folder.path} could not be unmounted. It is in use by {held}.")
        self.run("disable", "--now", folder.name + ".automount")
        self.run("reset-failed", folder.name + ".mount", folder.name + ".automount")
        made = folder.made
        for suffix in ("mount", "automount"):
            if folder.text(suffix):
                os.unlink(folder.file(suffix))
        if made and folder.mount is None and not os.listdir(folder.path):
            os.rmdir(folder.path)

    def have(self, folder: Folder, wish: dict[str, Any]) -> None:
        """Write a folder's units and start the one that mounts on demand."""
        made = folder.made or not os.path.exists(folder.path)
        host_files.make_folders(folder.path)
        for suffix, text in (
            ("automount", nfs.automount_text(folder.path, made)),
            ("mount", nfs.mount_text(folder.path, wish["source"], wish["options"])),
        ):
            host_files.write(folder.file(suffix), text, 0o644)
        self.run("daemon-reload")
        rc, _output, errors = self.module.run_command([self.systemctl, "enable", "--now", folder.name + ".automount"])
        if rc:
            self.module.fail_json(msg=f"{folder.path} cannot be mounted on demand: {errors.strip()}")

    def see(self, folder: Folder, source: str) -> None:
        """Mount a folder, as the first look at it would; fail with the reason where it does not come."""
        there = folder.mount
        if (there is None or there.kind not in nfs.NFS) and not self.run("start", folder.name + ".mount"):
            words = ["journalctl", "--no-pager", "--lines=8", "--output=cat", "--unit", folder.name + ".mount"]
            self.module.fail_json(
                msg=f"{source} could not be mounted at {folder.path}. It is tried anew whenever somebody looks there. Is its server up, "
                f"was it part of a run since this node joined (--limit NODE,SERVER), and may this node mount it? The last words:\n"
                f"{self.module.run_command(words)[1].strip()}"
            )


@locks.turn("nfs_mounts")
def main() -> None:
    """Entry point."""
    folder = {
        "path": {"type": "path", "required": True},
        "source": {"type": "str", "required": True},
        "options": {"type": "list", "elements": "str", "default": []},
    }
    module = AnsibleModule(
        argument_spec={"folders": {"type": "list", "elements": "dict", "options": folder, "default": []}}, supports_check_mode=True
    )
    work = Mounts(module)
    wishes = {wish["path"]: wish for wish in module.params["folders"]}
    texts = [files.read(path) for path in glob(os.path.join(nfs.UNITS, "*mount"))]
    paths = {nfs.setting(text, "Where") for text in texts if text.startswith(nfs.HEADER)}  # of an interrupted run perhaps one unit alone
    before = {path: nfs.setting(Folder(path).text("mount"), "What") for path in paths}
    gone = [Folder(path) for path in sorted(set(before) - set(wishes))]
    due = [Folder(path) for path in wishes if not work.is_right(Folder(path), wishes[path])]
    for each in gone:
        work.refuse_to_disturb(each)
    for each in due:
        if each.path in before:
            work.refuse_to_disturb(each)
        work.refuse_to_hide(each)
    if not module.check_mode:
        for each in gone:
            work.let_go(each)
        for each in due:
            if each.path in before:
                work.let_go(each)
            work.have(each, wishes[each.path])
        if gone:
            work.run("daemon-reload")
        for path, wish in wishes.items():
            work.see(Folder(path), wish["source"])
    module.exit_json(
        changed=bool(gone or due),
        gone=[each.path for each in gone],
        diff={"before": _lines(before), "after": _lines({path: wish["source"] for path, wish in wishes.items()})},
    )


def _lines(sources: dict[str, str]) -> str:
    return "".join(f"{path} from {sources[path]}\n" for path in sorted(sources))


if __name__ == "__main__":
    main()
