#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A table of nftables that keeps outsiders from a node's high ports."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_firewall
short_description: Closes a node's high ports to hosts outside its cluster, and never closes SSH
version_added: 0.1.0
description:
  - Keeps one table of nftables, C(inet trainyard), and touches no other. It is replaced in one transaction; open connections go on.
  - The rules are compared as the kernel has them, so that a table that somebody flushed or changed is repaired by the next run.
  - A systemd unit loads the rules at boot, and again after C(nftables.service) has flushed all tables.
  - sshd's ports are found on the node and are always open. A new login is made from the controller under the new rules. If it fails, the
    former rules come back at once; if the controller vanishes meanwhile, a timer on the node restores them.
  - One run at a time changes a node, from its plan to its confirmation. Another one waits, for three minutes at most, and then names it.
author: Trainyard contributors (@trainyard)
options:
  nodes:
    description: The cluster's nodes, as P(trainyard.core.cluster_addresses#filter) returns them. One that was not seen keeps its addresses.
    type: dict
    default: {}
  admitted:
    description: Further addresses and networks whose hosts are treated as the cluster's.
    type: list
    elements: str
    default: []
  open_ports:
    description: Ports that are open to everybody, such as V(8080), V(8000-8010), V(51820/udp).
    type: list
    elements: str
    default: []
  service_ports:
    description: More of them.
    type: list
    elements: str
    default: []
  ssh_ports:
    description: Ports of sshd besides those that the node knows itself, such as one that it is about to listen on.
    type: list
    elements: str
    default: []
  first_port:
    description: From this port on only the cluster is admitted.
    type: int
    default: 1024
  interfaces:
    description: Network interfaces that lead to this machine's own containers and virtual machines, which may reach all its ports.
    type: list
    elements: str
    default: []
  state:
    description: V(absent) removes the table and its unit, with the same precautions.
    type: str
    choices: [present, absent]
    default: present
  rollback_seconds:
    description: How long after the change the node restores the former rules by itself unless a new login is proven.
    type: int
    default: 60
  phase:
    description: Which step to take; set by the action plugin.
    type: str
    choices: [plan, apply, confirm, rollback, release]
    default: plan
  run:
    description: Name of the run that all steps belong to; set by the action plugin.
    type: str
    default: ''
  abandoned:
    description: Name of another run that has ended without giving the node's lock back; set by the action plugin.
    type: str
    default: ''
  patience:
    description: How many seconds to wait for another run; set by the action plugin.
    type: int
    default: 180
  run_by:
    description: Who runs it, for another run that has to wait; set by the action plugin.
    type: str
    default: ''
  login_user:
    description: The account of this connection; set by the action plugin.
    type: str
    default: ''
  door:
    description: How this connection reaches the node; set by the action plugin. V(other) does not lead through sshd.
    type: str
    choices: [ssh, local, other]
    default: other
attributes:
  check_mode:
    description: Says what would change, and refuses what would be refused.
    support: full
  diff_mode:
    description: Shows the rules as the kernel has them and would have them, and the files.
    support: full
notes:
  - The proof of the login needs a connection over SSH. Over others the result says that nothing was proven.
"""

EXAMPLES = r"""
- name: Admit the cluster's nodes
  trainyard.core.node_firewall:
    nodes:
      head: {addresses: [192.0.2.1, 10.10.0.1], seen: true}
      node1: {addresses: [192.0.2.2], seen: false}
    open_ports: [8080]
"""

RETURN = r"""
changes:
  description: What is or would be changed, a sentence each.
  returned: success
  type: list
  elements: str
closes:
  description: Ports that listen and are closed to outsiders by this change. Empty unless the table is new.
  returned: success
  type: list
  elements: str
  sample: [9100/tcp]
nftables_used:
  description: Whether somebody has the system's own nftables.service load rules. To remove its package would flush all tables.
  returned: success
  type: bool
ssh_ports:
  description: Ports of sshd, which are open to everybody.
  returned: success
  type: list
  elements: int
unknown:
  description: Nodes that are not admitted, since nobody knows their address so far.
  returned: success
  type: list
  elements: str
holder:
  description: Name of the run that changes the node at the moment.
  returned: when there is one
  type: str
login_proven:
  description: Whether a new login under the new rules was made.
  returned: changed and not in check mode
  type: bool
login_proof:
  description: What was proven, or why nothing could be.
  returned: changed and not in check mode
  type: str
rolled_back:
  description: Whether the former rules were restored.
  returned: when a new login did not work
  type: bool
"""

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _firewall as fw
from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._host import steps
from ansible_collections.trainyard.core.plugins.module_utils._host.steps import RefusalError

REQUEST = ("nodes", "admitted", "open_ports", "service_ports", "ssh_ports", "first_port", "interfaces", "rollback_seconds")


def command(*words: str) -> tuple[int, str, str]:
    """Run a command and return its status and what it printed."""
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, errors="replace")
    except FileNotFoundError as error:
        return 127, "", str(error)
    return done.returncode, done.stdout, done.stderr


def read(path: str) -> str | None:
    """Return a file's text, or None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return None


def live() -> str:
    """Return our table as the kernel has it, without counters; empty where it has none."""
    return command(fw.NFT, "--stateless", "list", "table", *fw.TABLE.split())[1]


def loaded(rules: str) -> str:
    """Return the table as the kernel would have it: the rules are loaded in a network namespace of their own, which ends with the command.

    Raises:
        RefusalError: the kernel or nft does not take them.
    """
    with tempfile.NamedTemporaryFile("w", prefix="trainyard-firewall-", suffix=".nft") as file:
        file.write(rules)
        file.flush()
        script = f"{fw.NFT} -f {file.name} && {fw.NFT} --stateless list table {fw.TABLE}"
        status, output, errors = command("unshare", "--net", "/bin/sh", "-c", script)
    if status or not output:
        raise RefusalError(
            f"This node cannot load the firewall: {errors.strip() or 'nft printed nothing'}. The kernel needs nf_tables and network "
            "namespaces, and a container the capabilities NET_ADMIN and SYS_ADMIN. To do without a firewall there, set "
            "node_firewall_enabled: false."
        )
    return output


def ssh_connection() -> str:
    """Return SSH_CONNECTION of the login that this process came by; sudo drops it, so its parents are asked. Empty without one."""
    process = os.getpid()
    while process > 1:
        for entry in (read(f"/proc/{process}/environ") or "").split("\0"):
            if entry.startswith("SSH_CONNECTION="):
                return entry.partition("=")[2]
        status = read(f"/proc/{process}/stat") or ""
        words = status.rpartition(")")[2].split()
        process = int(words[1]) if len(words) > 1 else 0
    return ""


def ssh_ports() -> set[int]:
    """Return the ports by which SSH reaches this node."""
    without = not os.path.isdir("/run/sshd")  # sshd judges nothing without it, and it is there only while the daemon runs
    if without:
        host_files.make_folders("/run/sshd")
    try:
        effective = command("/usr/sbin/sshd", "-T")[1]
    finally:
        if without:
            with suppress(OSError):
                os.rmdir("/run/sshd")
    active = command("systemctl", "is-active", "ssh.socket")[1].strip() == "active"
    listen = command("systemctl", "show", "-P", "Listen", "ssh.socket")[1] if active else ""
    return fw.ssh_ports(effective, listen, ssh_connection())


class Plan:
    """What is to be changed on this node."""

    def __init__(self, module: AnsibleModule) -> None:
        self.options: Mapping[str, Any] = module.params
        self.present = self.options["state"] == "present"
        self.current = {path: read(path) for path in (fw.RULES, *fw.units())}
        self.wanted: dict[str, str | None] = dict.fromkeys(self.current)
        self.before, self.after = live(), ""
        self.unknown: list[str] = []
        self.closes: list[str] = []
        self.ssh: list[int] = []
        self.rules = ""
        if self.present:
            self._present(module.check_mode)
        self.linked = os.path.islink(fw.WANTS)
        self.active = command("systemctl", "is-active", fw.SERVICE)[1].strip() == "active"
        self._compare()

    def _present(self, check_mode: bool) -> None:
        request = {name: self.options[name] for name in REQUEST}
        found = fw.problems(request)
        if found:
            raise RefusalError(" ".join(found))
        wanted, self.unknown = fw.firewall(request, ssh_ports(), self.current[fw.RULES] or "", read("/etc/hosts") or "")
        self.ssh = list(wanted.ssh)
        if not self.ssh and self.options["door"] == "ssh":
            raise RefusalError("The port of sshd was not found on this node. Name it in node_firewall_ssh_ports.")
        self.rules = fw.render(wanted)
        self.wanted = {fw.RULES: self.rules, **fw.units()}
        if os.access(fw.NFT, os.X_OK):
            self.after = loaded(self.rules)
        elif check_mode:  # the package is yet to come
            self.after = self.rules
        else:
            raise RefusalError(f"There is no {fw.NFT} on this node: apt-get install nftables")
        if not self.before:
            self.closes = fw.closed(command("ss", "-Hltun")[1], wanted)

    def _compare(self) -> None:
        self.writes = {path: text for path, text in self.wanted.items() if self.current[path] != text}
        self.changes = [f"{'remove' if text is None else 'write'} {path}" for path, text in self.writes.items()]
        if self.before != self.after:
            words = "remove" if not self.present else "replace" if self.before else "load"
            self.changes.append(f"{words} the table {fw.TABLE}")
        if self.linked != self.present:
            self.changes.append(f"{'enable' if self.present else 'disable'} {fw.SERVICE}")
        if self.active != self.present:
            self.changes.append(f"{'start' if self.present else 'stop'} {fw.SERVICE}")
        self.differs = bool(self.changes)
        self.pending = os.path.exists(fw.ROLLBACK.folder)
        if self.pending:
            self.changes.append("prove a firewall that an interrupted run left unproven")

    def report(self) -> dict[str, Any]:
        """Return the module's result."""
        shown = [(path, self.current[path] or "", text or "") for path, text in self.writes.items() if path != fw.RULES]
        if self.before != self.after or fw.RULES in self.writes:
            shown.insert(0, (f"nft list table {fw.TABLE}", self.before, self.after))
        return {
            "changed": bool(self.changes),
            "changes": self.changes,
            "closes": self.closes,
            "ssh_ports": self.ssh,
            "unknown": self.unknown,
            "passwords": True,
            "nftables_used": self._nftables_used(),
            "diff": [{"before_header": name, "after_header": name, "before": old, "after": new} for name, old, new in shown],
        }

    @staticmethod
    def _nftables_used() -> bool:
        return any(command("systemctl", verb, "--quiet", "nftables.service")[0] == 0 for verb in ("is-active", "is-enabled"))

    def apply(self) -> None:
        """Change the node, with the way back armed first.

        Raises:
            RefusalError: it did not work; the former firewall is back.
        """
        self._save()
        try:
            self._land()
        except (OSError, RefusalError) as error:
            fw.ROLLBACK.restore()
            raise RefusalError(f"{error} The former firewall is back.") from error

    def _save(self) -> None:
        fw.ROLLBACK.begin()
        saved, gone = {}, []
        for number, path in enumerate(self.writes):
            text = self.current[path]
            if text is None:
                gone.append(path)
            else:
                saved[path] = fw.ROLLBACK.copy_path(number)
                host_files.write(saved[path], text, 0o644)
        script = fw.ROLLBACK.script(saved, gone, fw.reload_commands(self.current[fw.RULES] is not None))
        try:
            fw.ROLLBACK.arm(script, self.options["rollback_seconds"])
        except RuntimeError as error:
            raise RefusalError(f"Nothing was changed. {error}") from error

    def _land(self) -> None:
        if not self.present:
            self._systemctl("stop")
            self._nft(fw.REMOVE)
            for path in (fw.WANTS, *reversed(self.writes)):  # the rules last: they are the role's mark
                with suppress(FileNotFoundError):
                    os.unlink(path)
            for path in (fw.RULES, fw.FLUSHED):
                with suppress(OSError):  # not empty, or gone
                    os.rmdir(os.path.dirname(path))
            command("systemctl", "daemon-reload")
            return
        for path, text in self.writes.items():
            host_files.write(path, text or "", 0o644)
        status, _output, errors = command(fw.NFT, "--check", "--file", fw.RULES)
        if status:
            raise RefusalError(f"nft does not take {fw.RULES}: {errors.strip()}.")
        host_files.make_folders(os.path.dirname(fw.WANTS))
        if not self.linked:
            os.symlink(f"../{fw.SERVICE}", fw.WANTS)
        command("systemctl", "daemon-reload")
        self._systemctl("reload-or-restart")
        found = live()
        if found != self.after:
            raise RefusalError(f"The kernel has other rules than {fw.RULES} after they were loaded; see: nft list table {fw.TABLE}.")

    @staticmethod
    def _systemctl(verb: str) -> None:
        status, _output, errors = command("systemctl", verb, fw.SERVICE)
        if status and "not loaded" not in errors:
            raise RefusalError(f"systemctl {verb} {fw.SERVICE} failed: {errors.strip()} See: journalctl --unit {fw.SERVICE}.")

    @staticmethod
    def _nft(text: str) -> None:
        if not os.access(fw.NFT, os.X_OK):
            return
        done = subprocess.run([fw.NFT, "-f", "-"], input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RefusalError(f"nft could not remove the table {fw.TABLE}: {done.stderr.strip()}.")


def confirm(module: AnsibleModule) -> None:
    """Keep the change: the new login is proven.

    Raises:
        RefusalError: too late, the timer has restored the former rules; or the rules are not those that were loaded.
    """
    fw.ROLLBACK.hold()
    if not fw.ROLLBACK.armed:
        raise RefusalError("The new login was proven too late: the node's timer had restored the former firewall. Run it again.")
    try:
        plan = Plan(module)
        if plan.differs:
            raise RefusalError("; ".join(plan.changes))
    except Exception as error:  # whatever it is: the timer is stopped, so nobody else would restore the former rules
        fw.ROLLBACK.restore()
        raise RefusalError(
            f"A new login worked, but the firewall is no longer what was loaded ({error}): something else changed it meanwhile. "
            f"The former firewall is back. Find out what else changes the table {fw.TABLE}, and run it again."
        ) from error
    fw.ROLLBACK.forget()
    shutil.rmtree(fw.STATE, ignore_errors=True)


def step(module: AnsibleModule, phase: str) -> dict[str, Any]:
    """Take one step, and return the module's result.

    Raises:
        RefusalError: it did not work.
    """
    if phase == "rollback":
        return {"changed": True, "rolled_back": fw.ROLLBACK.restore()}
    if phase == "confirm":
        confirm(module)
        return {"changed": True}
    plan = Plan(module)
    if phase == "apply":
        if plan.pending:  # an interrupted run: go back to before it, so that its copy stays the way back
            fw.ROLLBACK.restore()
            plan = Plan(module)
        if plan.changes:
            plan.apply()
    return plan.report()


def main() -> None:
    """Run the module."""
    strings = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "nodes": {"type": "dict", "default": {}},
            "admitted": strings,
            "open_ports": strings,
            "service_ports": strings,
            "ssh_ports": strings,
            "first_port": {"type": "int", "default": fw.FIRST},
            "interfaces": strings,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            **steps.OPTIONS,
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="node_firewall needs root on the node: set ansible_become to true, or connect as root.")
    steps.take(module, "node_firewall", functools.partial(step, module), "the former firewall")


if __name__ == "__main__":
    main()
