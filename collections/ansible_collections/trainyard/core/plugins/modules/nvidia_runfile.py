#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The NVIDIA driver from the vendor's installer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_runfile
short_description: Installs the NVIDIA driver by the vendor's installer, and takes it off by the installer's own means
version_added: 0.1.0
description:
  - Downloads the installer, going on where an interrupted download stopped, checks its SHA-256, and runs it without a question, with DKMS
    and without loading anything. It stays in C(/var/cache/trainyard/runfiles).
  - The installer builds the modules for one kernel, the running one, or where that has no headers, the newest that has some; DKMS is asked
    for those of all others then.
  - An installation that was interrupted is taken off and made anew. Never installs over a packaged driver of somebody else.
  - What was installed is written down in C(/var/lib/trainyard/nvidia_runfile.json); without that note, a driver of the installer is
    somebody else's and is left alone.
options:
  url:
    description: Where the installer is, C(https://), C(http://), or C(file:/) on the node.
    type: str
    default: ''
  sha256:
    description: Its SHA-256.
    type: str
    default: ''
  version:
    description: Version of the driver that it holds.
    type: str
    default: ''
  modules:
    description: Flavour of the kernel modules.
    type: str
    choices: [open, proprietary, '']
    default: ''
  packages:
    description: Names, which may hold C(*), of packages of a driver that must not be there.
    type: list
    elements: str
    default: []
  owner:
    description: Whose packages (see M(trainyard.core.packages)) are not in the way, since the same play takes them off.
    type: str
    default: ''
  foreign:
    description: What to do with O(state=absent) about a driver that somebody else installed this way.
    type: str
    choices: [leave, refuse]
    default: leave
  state:
    description: Whether the installer is to be there and checked, or the driver is to be installed by it, or both are to be gone.
    type: str
    choices: [fetched, present, absent]
    default: present
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would change and does nothing; refuses what it would refuse.
  diff_mode:
    support: full
    description: Shows version and flavour before and after.
"""

EXAMPLES = r"""
- name: Have the driver by the vendor's installer
  trainyard.core.nvidia_runfile:
    url: https://us.download.nvidia.com/tesla/580.95.05/NVIDIA-Linux-x86_64-580.95.05.run
    sha256: "{{ sha256_of_the_runfile }}"
    version: 580.95.05
    modules: open
"""

RETURN = r"""
file:
  description: The installer on the node.
  returned: always
  type: str
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.trainyard.core.plugins.module_utils import _apt as apt
from ansible_collections.trainyard.core.plugins.module_utils import _gpu_info as info
from ansible_collections.trainyard.core.plugins.module_utils import _nvidia_runfile as runfile
from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files

CACHE = Path("/var/cache/trainyard/runfiles")
NOTE = Path("/var/lib/trainyard/nvidia_runfile.json")
LEDGERS = (Path("/var/lib/trainyard/packages"), Path("/var/lib/trainyard/dependencies"))
# The installer's own.
UNINSTALLER = Path("/usr/bin/nvidia-uninstall")
LIST = Path("/var/lib/nvidia/log")  # of what it installed
LOG = Path("/var/log/nvidia-installer.log")
CHUNK = 1 << 20


class Installer:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.wish = module.params
        self.note = runfile.read_note(NOTE.read_text()) if NOTE.is_file() else {}
        self.file = CACHE / (Path(urlsplit(self.wish["url"]).path).name or "driver.run")
        self.wanted = {key: self.wish[key] for key in ("version", "modules", "sha256")}

    def is_installed(self) -> bool:
        """Whether the wanted driver is there, as far as the installer and the note tell."""
        return (
            self.note == {**self.wanted, "state": "installed"}
            and UNINSTALLER.exists()
            and runfile.installed_version(_text(LIST)) in {self.wish["version"], ""}
        )

    def refuse(self) -> None:
        """Stop where a driver of somebody else is in the way."""
        if not self.note and (UNINSTALLER.exists() or LIST.exists()):
            self.module.fail_json(
                msg=f"A driver {runfile.installed_version(_text(LIST))} is there that somebody installed by NVIDIA's installer. "
                "Nothing was done. Take it off with nvidia-uninstall, or leave the node out of the play."
            )
        if self.wish["state"] == "absent":
            return
        listing = self.module.run_command(
            ["dpkg-query", "--show", "--showformat", "${Package}\\t${db:Status-Abbrev}\\n"], environ_update={"LC_ALL": "C.UTF-8"}
        )[1]
        installed = [name for name, letters in apt.parse_status(listing).items() if apt.is_installed(letters)]
        ours = [name for folder in LEDGERS for name in _text(folder / self.wish["owner"]).split()] if self.wish["owner"] else []
        others = runfile.in_the_way(installed, self.wish["packages"], ours)
        if others:
            self.module.fail_json(
                msg=f"A driver from packages is installed ({', '.join(others)}), which the runfile must not be laid over. "
                "Nothing was done. Remove these packages yourself, or set nvidia_driver_source to where they come from."
            )

    def write(self, state: str) -> None:
        """Write down what is being done."""
        host_files.write(NOTE, json.dumps({**self.wanted, "state": state}) + "\n", 0o644)

    # --- the file

    def is_fetched(self) -> bool:
        """Whether the installer is there and whole."""
        return self.file.is_file() and _sha256(self.file) == self.wish["sha256"]

    def fetch(self) -> None:
        """Download the installer, the rest of it where a part is there already."""
        host_files.make_folders(CACHE)
        part = self.file.with_name(self.file.name + ".part")
        url: str = self.wish["url"]
        try:
            if url.startswith("file:/"):
                source = Path("/" + url[5:].lstrip("/"))
                if source == self.file:
                    source.replace(part)
                else:
                    shutil.copyfile(source, part)
            else:
                self.download(url, part)
        except Exception as error:
            self.module.fail_json(msg=f"url: {url} cannot be fetched: {error}. What came is kept, and the next run goes on from there.")
        digest = _sha256(part)
        if digest != self.wish["sha256"]:
            part.unlink()
            self.module.fail_json(
                msg=f"sha256: {url} has the SHA-256 {digest}, and {self.wish['sha256']} is wanted. It is another file, or it was altered "
                "on the way; it was thrown away."
            )
        with part.open("rb") as file:
            inside = runfile.version_inside(file.read(CHUNK))
        if inside and inside != self.wish["version"]:
            part.unlink()
            self.module.fail_json(msg=f"version: {url} holds the driver {inside}, and {self.wish['version']} is wanted.")
        part.chmod(0o700)
        part.replace(self.file)

    def download(self, url: str, part: Path) -> None:
        """Fetch a file over HTTP."""
        have = part.stat().st_size if part.is_file() else 0
        try:
            answer = open_url(url, headers={"Range": f"bytes={have}-"} if have else None, timeout=60, http_agent="trainyard")
        except HTTPError as error:
            if error.code != 416:  # there is no more than what we have
                raise
            if _sha256(part) == self.wish["sha256"]:
                return
            part.unlink()
            answer = open_url(url, timeout=60, http_agent="trainyard")
        expected = answer.headers.get("Content-Length")
        with part.open("ab" if answer.getcode() == 206 else "wb") as file:
            came = 0
            for chunk in iter(lambda: answer.read(CHUNK), b""):
                file.write(chunk)
                came += len(chunk)
        if expected and came < int(expected):
            raise OSError(f"the connection broke after {came} of {expected} bytes")

    # --- the driver

    def run(self, command: list[str], purpose: str) -> None:
        """Run the installer or the uninstaller."""
        rc, output, errors = self.module.run_command(command, environ_update={"LC_ALL": "C.UTF-8"})
        if rc:
            log = "\n".join(_text(LOG).splitlines()[-15:])
            self.module.fail_json(
                msg=f"{purpose} failed with the exit status {rc}: {(errors or output).strip()[-600:]}\nThe end of {LOG}:\n{log[-1500:]}",
                rc=rc,
                stdout=output,
                stderr=errors,
            )

    def install(self) -> None:
        """Install the driver; one that is there, or a part of one, goes first."""
        if not self.is_fetched():
            self.fetch()
        self.uninstall()
        self.write("installing")  # before, so that an interruption is known
        kernels = sorted((path.parent.name for path in Path("/lib/modules").glob("*/build") if path.exists()), key=info.version_key)
        if not kernels:
            self.module.fail_json(msg="No kernel has headers, so that no module can be built: install those of the kernel that is to boot.")
        kernel = "" if os.uname().release in kernels else kernels[-1]
        command = ["sh", str(self.file), *runfile.arguments(self.wish["version"], self.wish["modules"], kernel)]
        self.run(command, "Installing the driver")
        for other in kernels:
            self.run(["dkms", "autoinstall", "--kernelver", other], f"Building the modules for the kernel {other}")
        self.write("installed")

    def uninstall(self) -> None:
        """Take off what the installer put there, by its own means."""
        if UNINSTALLER.exists():
            self.run([str(UNINSTALLER), "--silent"], "Taking the driver off")
        elif LIST.exists():  # interrupted before the uninstaller was there
            files = sorted(CACHE.glob("*.run"))
            if not files:
                self.module.fail_json(
                    msg=f"An installation was interrupted, and neither {UNINSTALLER} nor the installer is there to take it off: "
                    "run the installer by hand with --uninstall."
                )
            self.run(["sh", str(files[0]), "--uninstall", "--silent"], "Taking an interrupted installation off")


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _words(note: dict[str, str]) -> str:
    return f"{note.get('version', '')} {note.get('modules', '')} ({note.get('state', '')})\n" if note else ""


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "default": ""},
            "sha256": {"type": "str", "default": ""},
            "version": {"type": "str", "default": ""},
            "modules": {"type": "str", "choices": ["open", "proprietary", ""], "default": ""},
            "packages": {"type": "list", "elements": "str", "default": []},
            "owner": {"type": "str", "default": ""},
            "foreign": {"type": "str", "choices": ["leave", "refuse"], "default": "leave"},
            "state": {"type": "str", "choices": ["fetched", "present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    found = runfile.problems(module.params)
    if found:
        module.fail_json(msg=" ".join(found))
    work = Installer(module)
    state = module.params["state"]
    if state != "absent" or module.params["foreign"] == "refuse":
        work.refuse()
    before, after = _words(work.note), _words(work.note)
    if state == "absent":
        changed, after = bool(work.note) or CACHE.exists(), ""
        if changed and not module.check_mode:
            if work.note:
                work.uninstall()
            NOTE.unlink(missing_ok=True)
            shutil.rmtree(CACHE, ignore_errors=True)
    elif state == "fetched":
        changed = not work.is_installed() and not work.is_fetched()
        if changed and not module.check_mode:
            work.fetch()
    else:
        changed, after = not work.is_installed(), _words({**work.wanted, "state": "installed"})
        if changed and not module.check_mode:
            work.install()
    module.exit_json(changed=changed, file=str(work.file), diff={"before": before, "after": after})


if __name__ == "__main__":
    main()
