#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Debian packages, with patience for apt's locks and a cure for an interrupted dpkg."""

from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Installs or removes Debian packages, waiting for locks and healing an interrupted dpkg
version_added: 0.1.0
description:
  - Waits until all four locks of apt and dpkg are free, so that unattended upgrades and a colleague's shell do not make the play fail.
  - Finishes what a killed dpkg or apt left half done before it does anything else.
  - Package lists are fetched only when a wanted package is not installed.
  - Asks dpkg once and does nothing more when everything is as wanted, which is what makes a second run quick.
options:
  name:
    description:
      - Names of packages.
      - Not looked at where O(state=absent) and O(dependencies=true), since everything that was installed for the owner goes then.
    type: list
    elements: str
    default: []
  optional:
    description: Further packages, installed where apt knows them. The others are told as RV(unavailable).
    type: list
    elements: str
    default: []
  beside:
    description:
      - Packages that are wanted where another one is installed, as that one's name and theirs.
      - When they come, that one comes to the version that apt would install, unless somebody holds it, since both are made for each other.
    type: dict
    default: {}
  replaces:
    description:
      - Packages that must not stay beside the wanted ones, which may hold C(*) and C([0-9]). They are removed in the same go, and with them
        what needs them, if it was built from the same source package or came for the owner.
      - Any other package that would have to go along is a failure that names it, and nothing is done.
    type: list
    elements: str
    default: []
  versions:
    description:
      - Versions that packages have to have, which may hold C(*), by package. One that is there in another version is brought to
        the version that apt would install, be it older or newer; which one that is, preferences say (see
        M(trainyard.core.vendor_repository)).
      - Where apt would install another version, nothing is done, and the versions on offer are named; a package in O(optional) counts as
        not known then.
    type: dict
    default: {}
  dependencies:
    description:
      - Whether what is installed along with the packages is the owner's, too. It is written down in C(/var/lib/trainyard/dependencies) and
        purged once nothing needs it, or with O(state=absent).
      - What somebody marked as manually installed since, or what other packages depend on, stays. The owner's holds (see
        M(trainyard.core.package_holds)) are let go before a change.
    type: bool
    default: false
  lasting:
    description:
      - Packages that are nobody's when they come along, and stay; may hold C(*).
      - A kernel is one; it may be the one that runs when the owner goes.
    type: list
    elements: str
    default: []
  state:
    description: Whether the packages are to be installed or to be gone. Configuration files and what was installed beside them stay.
    type: str
    choices: [present, absent]
    default: present
  owner:
    description:
      - Who wants the packages, such as the name of a role. What is newly installed is written down under that name in
        C(/var/lib/trainyard/packages).
      - With O(state=absent), only packages that are written down under the name, and under no other, are removed, so that nothing goes that
        was there before.
    type: str
  wait:
    description: How many seconds to wait for locks that another process holds.
    type: int
    default: 600
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would be installed, removed or finished, and does nothing.
  diff_mode:
    support: full
    description: Lists the packages before and after.
extends_documentation_fragment: []
"""

EXAMPLES = r"""
- name: Have the tools that every lab user expects
  trainyard.core.packages:
    name: [tmux, screen]

- name: Have any release of branch 580, whatever branch was there before
  trainyard.core.packages:
    name: [nvidia-driver-cuda]
    versions: {nvidia-driver-cuda: 580.*}

- name: Have this driver and no other, and remove all that came along with it when it goes
  trainyard.core.packages:
    name: [nvidia-tesla-470-kernel-dkms, nvidia-tesla-470-smi]
    replaces: [nvidia-alternative]
    beside: {linux-image-amd64: linux-headers-amd64}
    owner: nvidia_driver
    dependencies: true
"""

RETURN = r"""
installed:
  description: Packages that were, or in check mode would be, installed, or brought to another version.
  returned: always
  type: list
  elements: str
unavailable:
  description: Optional packages that apt does not know. In check mode those that are not installed are not told.
  returned: always
  type: list
  elements: str
removed:
  description: Packages that were, or in check mode would be, removed. In check mode without those that the change makes unneeded.
  returned: always
  type: list
  elements: str
healed:
  description: Packages that an earlier interrupted run had left half done.
  returned: always
  type: list
  elements: str
"""

import fnmatch
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _apt as apt
from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._host import locks

ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "NEEDRESTART_MODE": "l"}
# An administrator's edited configuration file is kept; a new default lands beside it.
KEEP_CONFIGURATION = ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
LISTS = "/var/lib/apt/lists"


class Ledger:
    """Which packages were installed for whom, and which came along with them."""

    folder = Path("/var/lib/trainyard/packages")
    along = Path("/var/lib/trainyard/dependencies")
    holds = Path("/var/lib/trainyard/holds")

    def __init__(self, owner: str | None) -> None:
        self.owner = owner

    def _names(self, path: Path) -> set[str]:
        return set(path.read_text().split()) if path.is_file() else set()

    def _write(self, names: set[str], folder: Path | None = None) -> None:
        if self.owner:
            path = (folder or self.folder) / self.owner
            host_files.write(path, "".join(f"{name}\n" for name in sorted(names)), 0o644)

    def own(self, folder: Path | None = None) -> set[str]:
        """Return what is written down for this owner."""
        return self._names((folder or self.folder) / self.owner) if self.owner else set()

    def may_remove(self, name: str) -> bool:
        """Whether a package was installed for this owner and for no other; always when no owner is named."""
        if not self.owner:
            return True
        holders = {path.name for path in self.folder.glob("[!.]*") if name in self._names(path)}
        return holders == {self.owner}

    def add(self, names: list[str]) -> None:
        """Write packages down."""
        if self.owner and names:
            self._write(self.own() | set(names))

    def add_along(self, names: set[str]) -> None:
        """Write down packages that come along."""
        if names - self.own(self.along):
            self._write(self.own(self.along) | names, self.along)

    def forget(self, names: Iterable[str]) -> None:
        """Strike packages out."""
        self._strike(self.folder, names)
        for path in self.along.glob("[!.]*"):
            Ledger(path.name)._strike(self.along, names)

    def _strike(self, folder: Path, names: Iterable[str]) -> None:
        kept = self.own(folder) - set(names)
        if kept != self.own(folder):
            self._write(kept, folder)

    def came_along(self) -> set[str]:
        """Return what came along with anybody's packages: what two owners need came with the first and goes with the last."""
        return set().union(*(self._names(path) for path in self.along.glob("[!.]*")))

    def adopt(self, names: set[str]) -> None:
        """Give this owner those packages that came along with another's, so that they do not go with that one."""
        for path in self.along.glob("[!.]*"):
            taken = names & self._names(path)
            if taken:
                self.add(sorted(taken))
                Ledger(path.name)._write(self._names(path) - taken, self.along)


class Packages:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.deadline = time.monotonic() + module.params["wait"]

    def status(self) -> dict[str, str]:
        """Ask dpkg for every package's state."""
        query = self.module.get_bin_path("dpkg-query")
        if not query:
            self.module.fail_json(msg="dpkg-query is not there: this is no Debian or Ubuntu system, and no other one is supported yet.")
        _rc, output, _errors = self.module.run_command(
            [query, "--show", "--showformat", "${binary:Package}\\t${db:Status-Abbrev}\\n"], environ_update=ENVIRONMENT
        )
        return apt.parse_status(output)

    def run(self, command: list[str], purpose: str, *, may_fail: bool = False) -> bool:
        """Run apt or dpkg once the locks are free, again while somebody takes one in between; return whether it went well."""
        while True:
            held = apt.wait_for_locks(self.deadline - time.monotonic())
            if held:
                self.module.fail_json(
                    msg=f"Another process held {held} for all of the {self.module.params['wait']} seconds that were waited. "
                    f"Find it with `fuser -v {held}`, let it finish, and run again."
                )
            rc, output, errors = self.module.run_command(command, environ_update=ENVIRONMENT)
            if rc == 0:
                return True
            if apt.says_locked(errors) and time.monotonic() < self.deadline:
                time.sleep(1)
                continue
            if may_fail:
                return False
            said = f"{purpose} failed ({' '.join(command)}): {(errors or output).strip()[-1200:]}"
            self.module.fail_json(msg=f"{said} {apt.advice(errors)}".strip(), rc=rc, stdout=output, stderr=errors)

    def heal(self) -> None:
        """Finish what an interrupted dpkg left."""
        self.run(["dpkg", "--configure", "-a"], "Finishing an interrupted installation")
        self.run(["apt-get", "-q", "-y", *KEEP_CONFIGURATION, "-f", "install"], "Mending broken dependencies")

    def update(self) -> None:
        """Fetch the package lists."""
        self.run(["apt-get", "-q", "update", "--error-on=any"], "Fetching the package lists")

    def ask(self, command: list[str]) -> tuple[int, str]:
        """Run a program that changes nothing; return its exit status and what it printed."""
        rc, output, _errors = self.module.run_command(command, environ_update=ENVIRONMENT)
        return rc, output

    def packages(self) -> dict[str, apt.Package]:
        """Ask dpkg what is installed and what it needs."""
        return apt.parse_packages(self.ask(["dpkg-query", "--show", "--showformat", apt.PACKAGE_FORMAT])[1])

    def known(self, names: set[str]) -> set[str]:
        """Return those packages that could be installed from the lists as they are now."""
        if not names or not any(entry.endswith("_Packages") or "_Packages." in entry for entry in os.listdir(LISTS)):
            return set()
        return apt.parse_candidates(self.ask(["apt-cache", "policy", *sorted(names)])[1])

    def of_other_versions(self, versions: Mapping[str, str]) -> dict[str, str]:
        """Return the installed ones among packages that have another version than the wanted one, with the one that they have."""
        if not versions:
            return {}
        listing = self.ask(["dpkg-query", "--show", "--showformat", "${Package}\\t${db:Status-Abbrev}\\t${Version}\\n"])[1]
        there = {line.split("\t")[0]: line.split("\t")[2] for line in listing.splitlines() if apt.is_installed(line.split("\t")[1])}
        return {name: there[name] for name, wanted in versions.items() if name in there and not fnmatch.fnmatchcase(there[name], wanted)}

    def not_offered(self, versions: Mapping[str, str]) -> dict[str, tuple[str, list[str]]]:
        """Return those packages that apt would install in another version than the wanted one: which one, and all that it knows."""
        if not versions:
            return {}
        offers = apt.parse_offers(self.ask(["apt-cache", "policy", *sorted(versions)])[1])
        found = {name: offers.get(name, ("", [])) for name in versions}
        return {name: offer for name, offer in found.items() if not fnmatch.fnmatchcase(offer[0], versions[name])}

    def must_offer(self, versions: Mapping[str, str]) -> None:
        """Fail where apt would install other versions than these; the lists are fetched anew before that is said."""
        if self.not_offered(versions):
            self.update()
            others = self.not_offered(versions)
            said = [
                f"{name} has to have the version {versions[name]}, and apt would install {candidate or 'none'} "
                f"(known are {', '.join(known) or 'none'})"
                for name, (candidate, known) in sorted(others.items())
            ]
            if said:
                self.module.fail_json(
                    msg=f"{'; '.join(said)}. Nothing was installed. Ask for a version that is there, or look which source or preference "
                    f"hides it: apt-cache policy {min(others)}."
                )

    def unneeded(self, ledger: Ledger, installed: dict[str, apt.Package], everything: bool) -> set[str]:
        """Return what came for the owner, all or only what came along (with whomever), and can go now."""
        along = ledger.came_along()
        along -= set(self.ask(["apt-mark", "showmanual", *along])[1].split()) if along else set()
        mine = {name for name in ledger.own() if ledger.may_remove(name)} if everything else set()
        gone = apt.removable(installed, along | mine)
        if gone and not self._alone(gone):  # somebody needs a version of something that alone satisfies him
            gone = apt.removable(installed, along | mine, careful=True)
        return gone

    def _alone(self, names: set[str]) -> bool:
        rc, output = self.ask(["apt-get", "--simulate", "--allow-change-held-packages", "remove", *sorted(names)])
        return rc == 0 and set(apt.parse_simulation(output)[1]) <= names

    def let_go(self, ledger: Ledger) -> None:
        """Take off the owner's holds; whoever put them there puts them back."""
        held = sorted(set(self.ask(["apt-mark", "showhold"])[1].split()) & ledger.own(ledger.holds))
        if held:
            self.run(["apt-mark", "unhold", *held], "Taking off holds")

    def purge(self, ledger: Ledger, names: set[str]) -> None:
        """Remove packages that came for the owner, with their configuration, and strike them out."""
        self.run(["apt-get", "-q", "-y", "purge", *sorted(names)], "Removing packages")
        ledger.forget(names)

    def install(self, ledger: Ledger, names: list[str], gone: set[str]) -> None:
        """Install packages and remove those that are in their way."""
        older = ["--allow-downgrades"] if self.module.params["versions"] else []
        leaders = sorted({leader for leader, name in self.module.params["beside"].items() if name in names} & set(self.packages()))
        if leaders:
            leaders = sorted(set(leaders) - set(self.ask(["apt-mark", "showhold"])[1].split()))
        by_itself = self.ask(["apt-mark", "showauto", *leaders])[1].split() if leaders else []
        everything = [*names, *leaders, *(f"{name}-" for name in sorted(gone))]
        command = ["--no-install-recommends", *older, *KEEP_CONFIGURATION, "install", *everything]
        mine: set[str] = set()

        def attempt(may_fail: bool) -> bool:
            if gone or self.module.params["dependencies"]:
                new, lost = apt.parse_simulation(self.ask(["apt-get", "--simulate", *command])[1])
                ours = ledger.own() | ledger.own(ledger.along)
                others = set(lost) - ours - apt.of_the_same_source(self.packages(), gone)
                if others:
                    self.module.fail_json(
                        msg=f"Installing {', '.join(names)} would remove {', '.join(sorted(others))}, which nobody asked for. "
                        "Nothing was done. Remove them yourself if that is right, and run again."
                    )
                mine.update(ours & set(lost))
                if self.module.params["dependencies"]:
                    lasting = {name for pattern in self.module.params["lasting"] for name in fnmatch.filter(new, pattern)}
                    ledger.add_along(set(new) - set(names) - lasting)
            return self.run(["apt-get", "-q", "-y", *command], "Installing packages", may_fail=may_fail)

        if not attempt(may_fail=True):
            # The lists are older than what the mirror holds now: fetched anew, once.
            self.update()
            attempt(may_fail=False)
        if by_itself:
            self.run(["apt-mark", "auto", *by_itself], "Noting what nobody asked for")
        if mine:
            self.purge(ledger, mine)  # their configuration is left


@locks.turn("packages", 1800)  # as long as a large installation takes
def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "list", "elements": "str", "default": []},
            "optional": {"type": "list", "elements": "str", "default": []},
            "beside": {"type": "dict", "default": {}},
            "replaces": {"type": "list", "elements": "str", "default": []},
            "versions": {"type": "dict", "default": {}},
            "dependencies": {"type": "bool", "default": False},
            "lasting": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "owner": {"type": "str"},
            "wait": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    wanted = module.params["state"] == "present"
    names = set(module.params["name"])
    optional = set(module.params["optional"])
    beside: dict[str, str] = module.params["beside"]
    bad = apt.invalid_names(sorted({*names, *optional, *beside, *beside.values()}))
    if bad:
        module.fail_json(msg=f"name: {', '.join(bad)} cannot be the name of a Debian package (lower-case letters, digits, + - . only).")
    if module.params["dependencies"] and not module.params["owner"]:
        module.fail_json(msg="dependencies: an owner has to be named, for whom they are written down.")

    work = Packages(module)
    before = work.status()
    broken = apt.half_done(before)
    interrupted = bool(broken) or apt.interrupted()
    ledger = Ledger(module.params["owner"])
    result: dict[str, Any] = {"changed": interrupted, "installed": [], "removed": [], "unavailable": [], "healed": broken}
    if wanted:
        names |= {other for name, other in beside.items() if apt.is_installed(before.get(name, ""))}
        _have(work, ledger, names, optional, before, result)
    else:
        _remove(work, ledger, names, before, result)
    module.exit_json(**result)


def _have(work: Packages, ledger: Ledger, names: set[str], optional: set[str], before: dict[str, str], result: dict[str, Any]) -> None:
    module = work.module
    missing = {name for name in names | optional if not apt.is_installed(before.get(name, ""))}
    versions = {name: str(version) for name, version in module.params["versions"].items() if name in names | optional}
    others = work.of_other_versions(versions)
    for name in work.not_offered({name: versions[name] for name in others if name not in names}):
        del others[name]
    gone = {
        name
        for pattern in module.params["replaces"]
        for name in fnmatch.filter(before, pattern)
        if ":" not in name and apt.is_installed(before[name])
    } - names
    unneeded = (
        work.unneeded(ledger, work.packages(), everything=False) - gone - names - optional if module.params["dependencies"] else set()
    )
    if result["changed"] and not module.check_mode:
        work.heal()
    if missing & names and not module.check_mode and work.known(missing & names) < missing & names:
        work.update()
    known = missing - names if module.check_mode and missing & names else work.known(missing - names)
    known -= set(work.not_offered({name: versions[name] for name in known if name in versions}))
    result["unavailable"] = sorted(missing - names - known)
    new = sorted((missing & names) | known | set(others))
    result.update(changed=result["changed"] or bool(new or gone or unneeded), installed=new, removed=sorted(gone | unneeded))
    had = sorted((names | optional) - missing | gone | unneeded)
    result["diff"] = {
        "before": _lines(f"{name} {others[name]}" if name in others else name for name in had),
        "after": _lines(f"{name} {versions[name]}" if name in others else name for name in sorted((set(had) | set(new)) - gone - unneeded)),
    }
    if module.check_mode:
        return
    ledger.adopt((names | optional) - missing)
    if not result["changed"]:
        return
    work.must_offer({name: version for name, version in versions.items() if name in names and name in new})
    ledger.add(sorted(set(new) - set(others)))  # before, so that an interruption forgets nothing
    if module.params["dependencies"] and (new or gone or unneeded):
        work.let_go(ledger)
    if new or gone:
        work.install(ledger, new, gone)
    if module.params["dependencies"]:
        unneeded = work.unneeded(ledger, work.packages(), everything=False)
        if unneeded:
            work.purge(ledger, unneeded)
            result["removed"] = sorted({*result["removed"], *unneeded})


def _remove(work: Packages, ledger: Ledger, names: set[str], before: dict[str, str], result: dict[str, Any]) -> None:
    along = work.module.params["dependencies"]
    if along:
        gone = work.unneeded(ledger, work.packages(), everything=True)
    else:
        gone = {name for name in names if apt.is_installed(before.get(name, "")) and ledger.may_remove(name)}
    result.update(changed=result["changed"] or bool(gone), removed=sorted(gone))
    had = sorted(gone if along else (name for name in names if apt.is_installed(before.get(name, ""))))
    result["diff"] = {"before": _lines(had), "after": _lines(sorted(set(had) - gone) if along else [])}
    if not result["changed"] or work.module.check_mode:
        return
    if result["healed"] or apt.interrupted():
        work.heal()
    if gone and along:
        work.let_go(ledger)
        work.purge(ledger, gone)
    elif gone:
        work.run(["apt-get", "-q", "-y", "remove", *sorted(gone)], "Removing packages")
        ledger.forget(gone)


def _lines(names: Iterable[str]) -> str:
    return "".join(f"{name}\n" for name in names)


if __name__ == "__main__":
    main()
