#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Packages of a repository, laid out in folders without being installed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: package_trees
short_description: Lays packages of a repository out in folders, without installing them
version_added: 0.1.0
description:
  - Fetches a package, and those of its dependencies whose names fit a pattern, by apt from the sources that the node has, with apt's
    checks of signatures and checksums, and unpacks them into a folder. dpkg is told nothing and no script of a package is run.
  - Of each dependency the oldest version is taken that all who need it accept, so that a release comes with the parts it was released with.
  - A tree is made beside its place and moved there when it is whole. It is made anew when another one is wanted, or when a file in it was
    altered; else apt is not asked.
options:
  path:
    description: Folder of the trees, which the module makes.
    type: path
    required: true
  owner:
    description: Whose the trees are, such as the name of a role.
    type: str
    required: true
  trees:
    description: The trees. Others of the owner stay. With O(state=absent) it is not looked at.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of its folder.
        type: str
        required: true
      state:
        description: Whether it is to be there.
        type: str
        choices: [present, absent]
        default: present
      package:
        description: The package that it starts from.
        type: str
        default: ""
      version:
        description: That package's version, which may hold C(*).
        type: str
        default: "*"
      follow:
        description: Patterns of the names of dependencies that belong to it.
        type: list
        elements: str
        default: []
      without:
        description: Patterns of names that do not, although they fit O(trees[].follow).
        type: list
        elements: str
        default: []
  state:
    description: V(absent) removes all trees of the owner.
    type: str
    choices: [present, absent]
    default: present
  spare_mb:
    description: Megabytes that have to stay free on the disk.
    type: int
    default: 200
  wait:
    description: How many seconds to wait for locks of apt that another process holds.
    type: int
    default: 600
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says which trees would be made or removed and does nothing; apt is not asked.
  diff_mode:
    support: full
    description: Shows the packages before and after; what comes is not known in check mode.
"""

EXAMPLES = r"""
- name: Have the files of CUDA's toolkit 12.9.1
  trainyard.core.package_trees:
    path: /usr/local/lib/trainyard-cuda-packages
    owner: cuda
    trees:
      - name: "12.9"
        package: cuda-toolkit-12-9
        version: 12.9.1-*
        follow: ["*-12-9"]
"""

RETURN = r"""
trees:
  description: What was, or in check mode would be, done; only trees that were not as wanted.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The tree.
      type: str
    actions:
      description: What was done; of many lines the first 20.
      type: list
      elements: str
    packages:
      description: The packages and their versions; empty in check mode.
      type: dict
"""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _apt as apt
from ansible_collections.trainyard.core.plugins.module_utils import _package_trees as core
from ansible_collections.trainyard.core.plugins.module_utils._cuda_toolkits import exchange
from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._python_env import readable, sync_disk

ENVIRONMENT = {"LC_ALL": "C.UTF-8"}


class Trees:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.path = Path(module.params["path"])
        self.owner: str = module.params["owner"]
        self.deadline = time.monotonic() + module.params["wait"]
        self.versions: dict[tuple[str, str, str], bool] = {}

    # Asking

    def offers(self, names: Sequence[str]) -> Mapping[str, Sequence[core.Offer]]:
        """Ask apt what there is of some packages."""
        _rc, output, _errors = self.module.run_command(["apt-cache", "show", *names], environ_update=ENVIRONMENT)
        return core.parse_offers(output)

    def compare(self, one: str, how: str, other: str) -> bool:
        """Ask dpkg how two versions stand to each other."""
        key = (one, how, other)
        if key not in self.versions:
            self.versions[key] = self.module.run_command(["dpkg", "--compare-versions", *key])[0] == 0
        return self.versions[key]

    def select(self, wanted: core.Wanted) -> list[core.Offer]:
        """Return the packages of a tree; where one is missing, the lists are fetched anew before that is said."""
        try:
            return core.select(wanted, self.offers, self.compare)
        except core.PackageTreeError:
            self.update()
            return core.select(wanted, self.offers, self.compare)

    # Doing

    def update(self) -> None:
        """Fetch the package lists."""
        held = apt.wait_for_locks(self.deadline - time.monotonic())
        if held:
            self.module.fail_json(msg=f"Another process held {held} for all of the {self.module.params['wait']} seconds that were waited.")
        rc, output, errors = self.module.run_command(["apt-get", "-q", "update", "--error-on=any"], environ_update=ENVIRONMENT)
        if rc:
            self.module.fail_json(msg=f"Fetching the package lists failed: {(errors or output).strip()[-1200:]}", rc=rc)

    def make(self, wanted: core.Wanted) -> dict[str, str]:
        """Fetch and unpack a tree beside its place, and move it there."""
        packages = self.select(wanted)
        place = self.path / wanted.name
        beside, archives = self.beside(wanted.name, "new"), self.beside(wanted.name, "archives")
        host_files.make_folders(archives)
        self.must_fit(wanted, packages, archives)
        for last in (False, True):  # what was fetched stays, so that an interrupted run goes on
            words = [f"{one.name}={one.version}" for one in packages]
            rc, output, errors = self.module.run_command(
                ["apt-get", "-q", "download", *words], cwd=str(archives), environ_update=ENVIRONMENT
            )
            if rc == 0:
                break
            if last:
                self.module.fail_json(msg=f"Fetching {wanted.package} failed: {(errors or output).strip()[-1200:]}", rc=rc)
            self.update()  # the lists may be older than what the mirror holds now
        host_files.make_folders(beside)
        for one in packages:
            (archive,) = archives.glob(f"{one.name}_{one.version.replace(':', '%3a')}_*.deb")
            rc, output, errors = self.module.run_command(["dpkg-deb", "--extract", str(archive), str(beside)], environ_update=ENVIRONMENT)
            if rc:
                self.module.fail_json(msg=f"Unpacking {archive.name} failed: {(errors or output).strip()[-1200:]}", rc=rc)
        host_files.write(beside / core.RECORD, core.record(wanted, self.owner, packages, core.inventory(beside)), 0o644)
        sync_disk(self.path)
        if not place.exists():
            beside.rename(place)
        elif exchange(beside, place):
            shutil.rmtree(beside)
        else:
            old = self.beside(wanted.name, "old")
            place.rename(old)
            beside.rename(place)
            shutil.rmtree(old)
        self.drop_archives(wanted.name)
        return {one.name: one.version for one in packages}

    def must_fit(self, wanted: core.Wanted, packages: Sequence[core.Offer], archives: Path) -> None:
        """Fail where the disk has no room; what was fetched by an interrupted run takes no more."""
        fetched = sum(file.stat().st_size for file in archives.iterdir() if file.is_file())
        need = sum(one.archive + one.installed for one in packages) - fetched
        spare = self.module.params["spare_mb"] * 1_000_000
        system = os.statvfs(self.path)
        room = system.f_bavail * system.f_frsize
        if room < need + spare:
            self.module.fail_json(
                msg=f"The disk of {self.path} has {readable(room)} free, but {wanted.package} {wanted.version} takes {readable(need)} "
                f"while it is being unpacked, and {readable(spare)} should stay free. Make room, or do without it."
            )

    def remove(self, name: str) -> None:
        """Remove a tree, out of its place in one step, then file by file, and what was fetched for it."""
        self.drop_archives(name)
        if core.read_record(self.path / name, self.owner):
            old = self.beside(name, "old")
            (self.path / name).rename(old)
            shutil.rmtree(old)

    def drop_archives(self, name: str) -> None:
        """Take away what was fetched for a tree."""
        if self.beside(name, "archives").exists():
            shutil.rmtree(self.beside(name, "archives"))

    def beside(self, name: str, why: str) -> Path:
        """Return where something of a tree lies while it is being worked on."""
        return self.path / f".{name}.{why}"

    def clear(self) -> None:
        """Take away what an interrupted run left, but for what it fetched."""
        for why in ("new", "old"):
            for left in self.path.glob(f".*.{why}"):
                shutil.rmtree(left)

    def names(self) -> list[str]:
        """Return the names of the owner's trees."""
        return sorted(folder.name for folder in self.path.glob("[!.]*") if core.read_record(folder, self.owner))

    def remove_all(self) -> list[dict[str, Any]]:
        """Remove all trees of the owner, and the folder if nothing else is in it."""
        names = self.names()
        left = list(self.path.glob(".*.*"))
        if not self.module.check_mode:
            self.clear()
            for name in names:
                self.remove(name)
            for archives in self.path.glob(".*.archives"):
                shutil.rmtree(archives)
            if self.path.is_dir() and not any(self.path.iterdir()):
                self.path.rmdir()
        done = [{"name": name, "actions": ["remove it"], "packages": {}} for name in names]
        return done or [{"name": "", "actions": ["clear away what an interrupted run left"], "packages": {}}] * bool(left)

    def apply(self, wishes: Sequence[core.Wanted]) -> list[dict[str, Any]]:
        """Bring the trees to what is wanted; return what was done."""
        if not self.module.check_mode and self.path.is_dir():
            self.clear()
        results = []
        for wanted in wishes:
            folder = self.path / wanted.name
            if wanted.present:
                actions = core.differences(folder, wanted, self.owner)
            else:
                there = core.read_record(folder, self.owner) or self.beside(wanted.name, "archives").exists()
                actions = ["remove it"] if there else []
            if not actions:
                if not self.module.check_mode:
                    self.drop_archives(wanted.name)
                continue
            if wanted.present and os.path.lexists(folder) and not core.read_record(folder, self.owner):
                self.module.fail_json(msg=f"{folder} is there already and was not made by Trainyard. Move it away.")
            packages: dict[str, str] = {}
            if not self.module.check_mode and wanted.present:
                packages = self.make(wanted)
            elif not self.module.check_mode:
                self.remove(wanted.name)
            results.append({"name": wanted.name, "actions": actions[:20], "packages": packages})
        return results


def main() -> None:
    """Run the module."""
    strings: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
    tree = {
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "package": {"type": "str", "default": ""},
        "version": {"type": "str", "default": "*"},
        "follow": strings,
        "without": strings,
    }
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "owner": {"type": "str", "required": True},
            "trees": {"type": "list", "elements": "dict", "default": [], "options": tree},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "spare_mb": {"type": "int", "default": 200},
            "wait": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    given = module.params
    bad = apt.invalid_names([one["package"] for one in given["trees"] if one["state"] == "present"])
    if bad and given["state"] == "present":
        module.fail_json(msg=f"trees: {', '.join(map(repr, bad))} cannot be the name of a Debian package.")
    os.umask(0o022)
    trees = Trees(module)
    before = {name: core.read_record(trees.path / name, trees.owner)["packages"] for name in trees.names()}
    wishes = [
        core.Wanted(one["name"], one["state"] == "present", one["package"], one["version"], tuple(one["follow"]), tuple(one["without"]))
        for one in given["trees"]
    ]
    try:
        done = trees.remove_all() if given["state"] == "absent" else trees.apply(wishes)
    except core.PackageTreeError as error:
        module.fail_json(msg=f"{error} Nothing was fetched. Ask for a release that the repository has; apt-cache policy tells.")
    except OSError as error:
        module.fail_json(msg=f"{error.strerror}: {error.filename}")
    module.exit_json(
        changed=bool(done),
        trees=done,
        diff=[
            {
                "before_header": str(trees.path / one["name"]),
                "after_header": str(trees.path / one["name"]),
                "before": _lines(before.get(one["name"], {})),
                "after": _lines(one["packages"]),
            }
            for one in done
        ],
    )


def _lines(packages: Mapping[str, str]) -> str:
    return "".join(f"{name} {version}\n" for name, version in sorted(packages.items()))


if __name__ == "__main__":
    main()
