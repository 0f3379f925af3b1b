#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Harden sshd without locking anybody out."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_hardening
short_description: Harden sshd without locking anybody out
version_added: 0.1.0
description:
  - Writes one drop-in for sshd that wins over every other file, and asserts that on the effective configuration (C(sshd -T))
    and on what the running daemon offers.
  - The change is judged by sshd in a copy first. What would lock out the account of this connection is refused before
    anything changes.
  - A new login with the key alone, and sudo in it, is made from the controller under the new configuration. If it fails,
    the old configuration comes back at once; if the controller vanishes meanwhile, a timer on the node brings it back.
  - Lines that make sshd refuse its own configuration are commented out, wherever they stand.
  - Sessions stay open. The daemon is reloaded whenever it runs with something older than what is on disk.
  - One run at a time changes a node, from its plan to its confirmation. Another one waits, for three minutes at most, and then names it.
author: Trainyard contributors (@trainyard)
options:
  profile:
    description: V(modern) satisfies ssh-audit, V(cis) the CIS benchmark; the two contradict each other.
    type: str
    choices: [modern, cis]
    default: modern
  config:
    description:
      - Deviations from the profile, keyword of sshd_config to value. A list gives several values, C(null) leaves the keyword to the system.
    type: dict
    default: {}
  state:
    description: V(absent) takes everything back that this module put there, with the same precautions.
    type: str
    choices: [present, absent]
    default: present
  rollback_seconds:
    description: How long after the change the node brings the old configuration back by itself unless the new login is proven.
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
    description: Shows the configuration files.
    support: full
notes:
  - The proof of the login needs a connection over SSH. Over others the result says that nothing was proven.
"""

EXAMPLES = r"""
- name: Let in keys only
  trainyard.core.ssh_hardening:

- name: Follow the CIS benchmark, and let in two accounts
  trainyard.core.ssh_hardening:
    profile: cis
    config:
      AllowUsers: [admin, backup]
"""

RETURN = r"""
changes:
  description: What is or would be changed, a sentence each.
  returned: success
  type: list
  elements: str
login_proven:
  description: Whether a new login under the new configuration was made. Nothing is to be proven when nothing changed.
  returned: changed and not in check mode
  type: bool
login_proof:
  description: What was proven, or why nothing could be.
  returned: changed and not in check mode
  type: str
refusals:
  description: What stands against the change, a sentence each.
  returned: failure
  type: list
  elements: str
rolled_back:
  description: Whether the old configuration was brought back.
  returned: when the new one did not work
  type: bool
ports:
  description: The ports that sshd listens on under the wanted configuration.
  returned: success
  type: list
  elements: int
holder:
  description: Name of the run that changes the node at the moment.
  returned: when there is one
  type: str
passwords:
  description: Whether the wanted configuration lets anybody in with a password.
  returned: success
  type: bool
"""

import contextlib
import errno
import functools
import os
import pwd
import shutil
import socket
import time
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _sshd
from ansible_collections.trainyard.core.plugins.module_utils._host import steps
from ansible_collections.trainyard.core.plugins.module_utils._host.steps import RefusalError
from ansible_collections.trainyard.core.plugins.module_utils._ssh.node import (
    SSHD,
    account,
    command,
    configuration,
    judge,
    last_words,
    read,
    repaired,
    separation_folder,
    write,
)
from ansible_collections.trainyard.core.plugins.module_utils._sshd import Effective

NO_ADDRESS = {errno.ECONNREFUSED, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETUNREACH}


def systemctl_show(unit: str, *names: str) -> dict[str, str]:
    """Return properties of a unit."""
    _status, output, _errors = command("systemctl", "show", unit, *(f"--property={name}" for name in names))
    return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)


class Daemon:
    """The sshd that runs on this node, and systemd's units of it."""

    def __init__(self) -> None:
        self.service = "ssh.service"
        found = self._look()
        if found.get("LoadState") != "loaded":
            self.service = "sshd.service"
            found = self._look()
        self.active = found.get("ActiveState") in {"active", "reloading"}
        self.pid = int(found.get("MainPID") or 0)
        listener = systemctl_show("ssh.socket", "ActiveState", "Listen")
        self.socket_active = listener.get("ActiveState") == "active"
        self.socket_ports = _sshd.socket_ports(listener.get("Listen", "")) if self.socket_active else set()

    @property
    def verb(self) -> str:
        """Return what makes it read its configuration. One that a socket started ends at a reload; sessions outlive a restart too."""
        return "restart" if self.socket_active else "reload"

    def _look(self) -> dict[str, str]:
        return systemctl_show(self.service, "LoadState", "ActiveState", "MainPID")

    @property
    def options(self) -> list[str]:
        """Return options of its command line that beat its files."""
        return _sshd.daemon_options((read(f"/proc/{self.pid}/cmdline") or "").replace("\0", " ")) if self.pid else []

    def loaded(self, rules: Effective) -> int | None:
        """Return when it last read its configuration, in nanoseconds; None where that can't be known.

        sshd writes its PID file at each start and each reload. A reload leaves the process's own start time as it was.
        """
        if self.active:
            with contextlib.suppress(OSError):
                return os.stat(rules.get("pidfile", [""])[0]).st_mtime_ns
        return None

    def renew(self, rules: Effective) -> str:
        """Make it read its configuration, keeping the sessions; returns what went wrong, if anything did."""
        before = self.loaded(rules)
        status, _output, errors = command("systemctl", self.verb, self.service)
        if status:
            return last_words(errors)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            found = self._look()
            self.active, self.pid = found.get("ActiveState") == "active", int(found.get("MainPID") or 0)
            if found.get("ActiveState") in {"failed", "inactive"}:
                break
            after = self.loaded(rules)
            if self.active and after is not None and after > (before or 0):
                return self._offers(rules)
            time.sleep(0.05)
            if self.active and rules.get("pidfile") == ["none"]:
                time.sleep(1)
                return self._offers(rules)
        _status, output, _errors = command("journalctl", "-u", self.service, "-n", "3", "-o", "cat", "--no-pager")
        return f"sshd did not come up with it: {' / '.join(output.split(chr(10))).strip(' /') or 'its journal is empty'}"

    def _offers(self, rules: Effective) -> str:
        """Ask the listening daemon what it offers; returns what is wrong with that."""
        targets = _sshd.listen_targets(rules)
        if self.socket_active:
            targets = [("0.0.0.0", port) for port in self.socket_ports]
        wrong, answers = [], 0
        for address, port in targets:
            try:
                offer = ask({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address), port)
            except (OSError, ValueError) as error:
                # Where there is no IPv6, nobody listens at its wildcard.
                if address != "::" or not isinstance(error, OSError) or error.errno not in NO_ADDRESS:
                    wrong.append(f"sshd does not answer at {address} port {port}: {error}")
                continue
            answers += 1
            wrong += _sshd.still_offered(offer, rules)
        if not answers and not wrong:
            wrong.append(f"sshd does not answer at port {', '.join(sorted({str(port) for _address, port in targets}))}")
        return "; ".join(sorted(set(wrong)))


def ask(address: str, port: int) -> dict[str, list[str]]:
    """Return what the sshd at an address offers.

    Raises:
        OSError: nobody answers.
        ValueError: the answer is no SSH.
    """
    with socket.create_connection((address, port), timeout=5) as line, line.makefile("rb") as answer:
        while not (greeting := answer.readline(256)).startswith(b"SSH-"):
            if not greeting:
                raise ValueError("no greeting")
        line.sendall(b"SSH-2.0-trainyard\r\n")
        length = int.from_bytes(answer.read(4), "big")
        if not 0 < length < 65536:
            raise ValueError("no SSH packet")
        packet = answer.read(length)
    return _sshd.kexinit(packet[1:])


def survey(rules: Effective, today: int) -> tuple[list[str], list[str]]:
    """Return the accounts that could log in with a key and become root, and those that could log in only."""
    able, rest = [], []
    for entry in pwd.getpwall():
        if entry.pw_uid != 0 and entry.pw_uid < 1000:
            continue
        who = account(entry.pw_name, rules)
        if not who.keys or _sshd.kept_out(who, rules, today):
            continue
        _status, output, _errors = command("sudo", "-n", "-l", "-U", who.name) if shutil.which("sudo") else (1, "", "")
        (able if who.uid == 0 or "may run the following" in output else rest).append(who.name)
    return able, rest


class Plan:
    """What is to be changed on this node, and what stands against it."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options
        self.daemon = Daemon()
        self.refusals: list[str] = []
        self._rules: dict[str, Effective] = {}
        self.current = configuration()
        if _sshd.MAIN not in self.current or not os.access(SSHD, os.X_OK):
            raise RefusalError(f"There is no sshd to harden on this node ({SSHD}, {_sshd.MAIN}): apt-get install openssh-server")
        self.base, rules, self.changes = repaired(_sshd.remove(self.current))
        self.broken = bool(self.changes)
        if options["state"] == "present":
            self._present(rules)
        else:
            self.wanted, self.rules, self.settings = self.base, rules, {}
            self.others = dict.fromkeys([_sshd.STRONG_MODULI, _sshd.RSA_KEY, _sshd.RSA_KEY + ".pub"])
            self.keys: list[str] = []
        self._who()
        self._compare()

    def _present(self, base_rules: Effective) -> None:
        defaults, errors, root = judge({_sshd.MAIN: ""})
        present = [(path, read(path + ".pub") or "") for path in base_rules.get("hostkey", [])]
        if os.path.exists(_sshd.RSA_KEY):
            present.append((_sshd.RSA_KEY, read(_sshd.RSA_KEY + ".pub") or ""))
        self.settings = _sshd.wanted_settings(self.options["profile"], self.options["config"], _sshd.host_keys(present), defaults)
        text = _sshd.drop_in(self.options["profile"], self.settings)
        self.wanted = _sshd.place(self.base, text)
        self.keys = [
            path
            for path in (_sshd.ED25519_KEY, _sshd.RSA_KEY)
            if path in self.settings.get("HostKey", []) and not (os.path.exists(path) and os.path.exists(path + ".pub"))
        ]
        self.others: dict[str, str | None] = {_sshd.STRONG_MODULI: None}
        if self.settings.get("ModuliFile") == [_sshd.STRONG_MODULI]:
            self.others[_sshd.STRONG_MODULI] = _sshd.strong_moduli(read(_sshd.MODULI) or "")
        expected, errors, root = judge({_sshd.MAIN: text})
        if errors:
            found = _sshd.complaint(errors, root)
            line = text.splitlines()[found[1] - 1].split() if found else ["?"]
            reason = found[2] if found else last_words(errors, root)
            raise RefusalError(f"sshd does not accept ssh_hardening_config.{line[0]} ('{' '.join(line[1:])}'): {reason}")
        self.rules, errors, root = judge(self.wanted, *self.daemon.options)
        if errors:
            raise RefusalError(f"sshd would refuse its configuration: {last_words(errors, root)}")
        options = self.daemon.options
        self.refusals += _sshd.overridden(self.wanted, self.settings, expected, self.rules, options=options)
        for name in dict.fromkeys(["root", self.options["login_user"] or "root"]):
            if not self.refusals:
                self.refusals += _sshd.overridden(self.wanted, self.settings, expected, self._rules_for(name), whose=name, options=options)
        self._listening(base_rules)

    def _rules_for(self, name: str) -> Effective:
        if name in self._rules:
            return self._rules[name]
        rules, errors, root = judge(
            self.wanted, *self.daemon.options, "-C", f"user={name},host=,addr=192.0.2.1,laddr=192.0.2.2,lport=22,rdomain="
        )
        if errors:
            raise RefusalError(f"sshd would refuse its configuration: {last_words(errors, root)}")
        self._rules[name] = rules
        return rules

    def _listening(self, base_rules: Effective) -> None:
        """Refuse addresses and ports that the daemon would not get."""
        own = {name.lower() for name in self.settings}
        targets = _sshd.listen_targets(self.rules)
        if self.daemon.socket_active:
            ports = {port for _address, port in targets}
            if own & {"port", "listenaddress"} and ports != self.daemon.socket_ports:
                self.refusals.append(
                    f"ssh.socket listens on this node, on port {_numbers(self.daemon.socket_ports)}, and would ignore "
                    f"ssh_hardening_config.Port ({_numbers(ports)}): let the daemon listen itself "
                    "(systemctl disable --now ssh.socket; systemctl enable --now ssh.service), "
                    "set ListenStream in ssh.socket, or leave Port out."
                )
            return
        if not own & {"port", "listenaddress"}:
            return
        taken = {port for rules in (base_rules, judge(self.current)[0]) for _address, port in _sshd.listen_targets(rules)}
        for address, port in targets:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                try:
                    probe.bind((address, 0 if port in taken else port))
                except OSError as error:
                    name = "ListenAddress" if port in taken else "Port"
                    self.refusals.append(
                        f"ssh_hardening_config.{name}: sshd could not listen at {address} port {port} on this node ({error.strerror}): "
                        "give an address of this node and a port that nothing else has."
                    )

    def _who(self) -> None:
        """Refuse what would keep out the account of this connection."""
        today = int(time.time() // 86400)
        name, door = self.options["login_user"], self.options["door"]
        if door == "other":
            return
        if door == "ssh" and not self.daemon.active and not self.daemon.socket_active:
            self.refusals.append(
                "Neither ssh.service nor ssh.socket is active: systemd does not run the sshd of this connection. Start ssh.service."
            )
        if door == "ssh" and name:
            rules = self._rules_for(name)
            against = _sshd.kept_out(account(name, rules), rules, today)
            if name == "root" and against:
                able, rest = survey(rules, today)
                against.append(
                    f"Accounts with a key and sudo here: {', '.join(able) or 'none'}; with a key but no sudo: {', '.join(rest) or 'none'}."
                )
            self.refusals += against
        if door == "local":
            able, rest = survey(self.rules, today)
            if not able:
                self.refusals.append(
                    "No account on this node could log in with a key and become root afterwards "
                    f"(a key but no sudo: {', '.join(rest) or 'none'}): give an admin a key and sudo first (base_users gives keys)."
                )

    def _compare(self) -> None:
        """Find out what differs, on disk and in the running daemon."""
        self.writes: dict[str, str | None] = {
            path: self.wanted.get(path) for path in sorted({*self.current, *self.wanted}) if self.current.get(path) != self.wanted.get(path)
        }
        self.writes.update({path: text for path, text in self.others.items() if read(path) != text})
        words = {True: "remove", False: "write"}
        self.changes += [f"{words[text is None]} {path}" for path, text in self.writes.items()]
        self.changes += [f"make the host key {path}" for path in self.keys]
        self.pending = os.path.exists(_sshd.ROLLBACK.folder)
        if self.pending:
            self.changes.append("prove a configuration that an interrupted run left unproven")
        self.stale = self._is_stale()
        if self.stale:
            self.changes.append("reload sshd, which runs with an older configuration than the one on disk")

    def _is_stale(self) -> bool:
        loaded = self.daemon.loaded(self.rules)
        if loaded is None:
            return False
        paths = [_sshd.FOLDER, *self.current, *self.rules.get("hostkey", [])]
        return any(os.stat(path).st_ctime_ns > loaded for path in paths if os.path.exists(path))

    @property
    def differs(self) -> bool:
        """Return whether files, host keys or the running daemon are not as wanted, proven or not."""
        return bool(self.writes or self.keys or self.stale)

    def report(self) -> dict[str, Any]:
        """Return the module's result."""
        shown = [path for path in self.writes if path not in {_sshd.STRONG_MODULI, _sshd.RSA_KEY, _sshd.RSA_KEY + ".pub"}]
        ports = self.daemon.socket_ports or {port for _address, port in _sshd.listen_targets(self.rules)}
        return {
            "changed": bool(self.changes),
            "changes": self.changes,
            "ports": sorted(ports),
            "passwords": "yes" in (self.rules.get("passwordauthentication", []) + self.rules.get("kbdinteractiveauthentication", [])),
            "diff": [
                {
                    "before_header": path,
                    "after_header": path,
                    "before": self.current.get(path, ""),
                    "after": self.wanted.get(path, ""),
                }
                for path in shown
            ],
        }

    def apply(self) -> None:
        """Change the node, with the way back armed first.

        Raises:
            RefusalError: it did not work; the old configuration is back.
        """
        try:
            halves = [half for path in self.keys for half in (path, path + ".pub")]
            new = [half for half in halves if not os.path.exists(half)]
            self._make_keys()  # before the timer runs: it takes seconds
            self._save(new)
            self._land()
        except Exception as error:
            _sshd.ROLLBACK.restore()
            raise RefusalError(f"{error}. The old configuration is back.") from error

    def _make_keys(self) -> None:
        for path in self.keys:
            kind = ["-t", "ed25519"] if path == _sshd.ED25519_KEY else ["-t", "rsa", "-b", str(_sshd.RSA_BITS)]
            for half in (path, path + ".pub"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(half)
            status, _output, errors = command("ssh-keygen", "-q", *kind, "-N", "", "-f", path)
            if status:
                raise RefusalError(f"The host key {path} could not be made: {last_words(errors)}")
            os.chmod(path + ".pub", 0o644)

    def _save(self, gone: list[str]) -> None:
        """Keep what is there now, and arm the timer."""
        _sshd.ROLLBACK.begin()
        # A configuration that sshd refuses is no way back; the repaired one is.
        old = self.base if judge(self.current)[1] else self.current
        saved: dict[str, str] = {}
        for number, path in enumerate(self.writes):
            before = old.get(path) if path in self.current else read(path)
            if before is None:
                gone.append(path)
                continue
            saved[path] = _sshd.ROLLBACK.copy_path(number)
            shutil.copy2(path, saved[path])
            write(saved[path], before, 0o600)
        script = _sshd.ROLLBACK.script(saved, gone, _sshd.renewal(self.daemon.service, SSHD, self.daemon.verb))
        _sshd.ROLLBACK.arm(script, self.options["rollback_seconds"])

    def _land(self) -> None:
        if self.broken:
            for path, text in self.current.items():
                write(_sshd.REPAIRED + path, text, 0o600)
        # The main file comes last: without its Include nothing of ours is read.
        for path in sorted(self.writes, key=lambda path: (path == _sshd.MAIN, path)):
            text = self.writes[path]
            if text is not None:
                write(path, text, 0o644)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        with separation_folder():
            status, _output, errors = command(SSHD, "-t")
        if status:
            raise RefusalError(f"sshd refuses the new configuration: {last_words(errors)}")
        if self.daemon.active:
            wrong = self.daemon.renew(self.rules)
            if wrong:
                raise RefusalError(wrong)


def _numbers(ports: set[int]) -> str:
    return ", ".join(str(port) for port in sorted(ports))


def confirm(options: Mapping[str, Any]) -> None:
    """Give the old configuration up: the new login is proven.

    Raises:
        RefusalError: too late, the timer has brought it back; or the configuration is not the one that was written.
    """
    _sshd.ROLLBACK.hold()
    if not _sshd.ROLLBACK.armed:
        raise RefusalError("The new login was proven too late: the node's timer had brought the old configuration back. Run it again.")
    try:
        plan = Plan(options)
        if plan.differs:
            raise RefusalError(f"still to do: {'; '.join(plan.changes)}")
    except Exception as error:  # whatever it is: the timer is stopped, so nobody else would bring the old configuration back
        _sshd.ROLLBACK.restore()
        raise RefusalError(
            f"A new login worked, but sshd's configuration is no longer what was written ({error}): something else changed it meanwhile. "
            f"The old configuration is back. Find out what else manages {_sshd.HOME}, and run it again."
        ) from error
    _sshd.ROLLBACK.forget()
    if options["state"] == "absent":
        shutil.rmtree(_sshd.STATE, ignore_errors=True)


def make_plan(module: AnsibleModule) -> Plan:
    """Return the plan, or fail where something stands against it."""
    try:
        plan = Plan(module.params)
        refusals = plan.refusals
    except RefusalError as refusal:
        refusals = [str(refusal)]
    if refusals:
        module.fail_json(msg="Nothing was changed. " + " ".join(refusals), refusals=refusals)
    return plan


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "profile": {"type": "str", "choices": ["modern", "cis"], "default": "modern"},
            "config": {"type": "dict", "default": {}},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            **steps.OPTIONS,
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="ssh_hardening needs root on the node: set ansible_become to true, or connect as root.")
    if not 10 <= module.params["rollback_seconds"] <= 110:
        module.fail_json(msg="ssh_hardening_rollback_seconds must be from 10 to 110: enough for a login, and below two minutes.")
    steps.take(module, "ssh_hardening", functools.partial(step, module), "the old configuration")


def step(module: AnsibleModule, phase: str) -> dict[str, Any]:
    """Take one step, and return the module's result.

    Raises:
        RefusalError: it did not work.
    """
    if phase == "rollback":
        return {"changed": True, "rolled_back": _sshd.ROLLBACK.restore()}
    if phase == "confirm":
        confirm(module.params)
        return {"changed": True}
    plan = make_plan(module)
    if phase == "apply":
        if plan.pending:  # an interrupted run: go back to before it, so that its copy stays the way back
            _sshd.ROLLBACK.restore()
            plan = make_plan(module)
        if plan.changes:
            plan.apply()
    return plan.report()


if __name__ == "__main__":
    main()
