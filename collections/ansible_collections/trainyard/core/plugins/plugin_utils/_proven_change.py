# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A change that could cut off SSH: a new login from the controller proves it, or the node goes back to what was there."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shlex
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

ATTEMPTS = 3  # sshd drops connections at random when many come in (MaxStartups)
NO_SUDO = "can log in, but sudo does not work there"


class ProvenChange(ActionBase):  # type: ignore[misc]
    """Calls a module in phases (plan; apply; confirm or rollback), with a new login between them.

    Attributes:
        MODULE: the module's full name. It takes ``phase``, ``door``, ``login_user`` and ``rollback_seconds``.
        FORMER: what the rollback restores, as the subject of a sentence.
    """

    MODULE = ""
    FORMER = "The old configuration"

    _supports_check_mode = True
    _supports_async = False

    def advice(self, user: str) -> str:
        """Return what to do where a new login does not work."""
        raise NotImplementedError

    def new_ports(self, applied: Mapping[str, Any]) -> list[int] | None:
        """Return the ports where sshd listens after the change; None for where Ansible connects."""
        return None

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        self._vars = task_vars or {}
        transport = str(self._connection.transport).removeprefix("mitogen_")
        door = "ssh" if transport in {"ssh", "paramiko", "paramiko_ssh"} else "local" if transport == "local" else "other"
        self._node_args = {
            **self._task.args,
            "door": door,
            "login_user": self._user() if door == "ssh" else "",
            "run": f"{_processes()} {os.getppid()} {uuid.uuid4().hex}",
            "run_by": _me(),
        }
        lost = None
        try:
            plan = self._phase("plan", patience=0)
            if "holder" in plan:  # another run is at work there, or did not come to its end
                plan = self._phase("plan", abandoned=plan["holder"] if _has_ended(plan["holder"]) else "")
        except AnsibleError as error:
            plan, lost = {"failed": True}, error
        if plan.get("failed") and "refusals" not in plan and self._by_sudo():
            trouble = self._prove({})
            if NO_SUDO in trouble or (trouble and not isinstance(lost, AnsibleConnectionFailure)):
                plan, lost = {"failed": True, "msg": f"Nothing was changed. {trouble}", "refusals": [trouble]}, None
        if lost:
            raise lost
        if plan.get("failed") or not plan.get("changed"):
            return {**result, **plan}
        if door == "ssh":
            trouble = self._prove(plan)
            if trouble:
                self._release()
                return {**result, **plan, "changed": False, "failed": True, "msg": f"Nothing was changed. {trouble}", "refusals": [trouble]}
        if self._task.check_mode:
            return {**result, **plan}

        applied = self._phase("apply")
        if applied.get("failed") or not applied.get("changed"):
            return {**result, **applied}
        result.update(applied)
        result["changes"] = plan["changes"]
        if door == "ssh":
            trouble = self._prove(applied, changed=True)
            if trouble:
                return {**result, "failed": True, "login_proven": False, **self._roll_back(trouble)}
            result["login_proven"] = True
            result["login_proof"] = f"a new login of '{self._node_args['login_user']}'{' and its sudo' if self._by_sudo() else ''} worked"
        else:
            result["login_proven"] = False
            result["login_proof"] = f"not proven: this connection ({transport}) does not lead through sshd"
        confirmed = self._phase("confirm")
        if confirmed.get("failed"):
            return {**result, **confirmed, "login_proven": False}
        warning = self.warning(applied) if door == "ssh" else ""
        if warning:
            result["warnings"] = [*result.get("warnings", []), warning]
        return result

    def warning(self, applied: Mapping[str, Any]) -> str:
        """Return what the admin has to change for the next run; empty where nothing."""
        return ""

    def _phase(self, phase: str, **more: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._execute_module(
            module_name=self.MODULE, module_args={**self._node_args, "phase": phase, **more}, task_vars=self._vars
        )
        found.pop("invocation", None)
        return found

    def _release(self) -> None:
        """Give the node's lock back, which ends by itself where that does not work."""
        if not self._task.check_mode:
            with contextlib.suppress(AnsibleError):
                self._phase("release")

    def _roll_back(self, trouble: str) -> dict[str, Any]:
        try:
            done = self._phase("rollback")
        except AnsibleError:
            done = {"failed": True}
        if done.get("failed"):
            seconds = self._node_args.get("rollback_seconds", 60)
            return {"msg": f"{trouble} {self.FORMER} comes back by itself within {seconds} seconds.", "rolled_back": True}
        if not done.get("rolled_back"):
            return {"msg": f"{trouble} {self.FORMER} is back: the node's timer restored it.", "rolled_back": True}
        again = self._prove({})
        ending = f"It does not let a new login in either: {again}" if again else "A new login works again."
        return {"msg": f"{trouble} {self.FORMER} is back. {ending}", "rolled_back": True}

    # --- the login ---------------------------------------------------------------------------------------------

    def _option(self, name: str) -> Any:
        return self._connection.get_option(name, hostvars=self._vars)

    def _by_sudo(self) -> bool:
        become = self._connection.become
        if self._node_args["door"] != "ssh" or not become:
            return False
        return str(become.name).rpartition(".")[2] == "sudo" and self._node_args["login_user"] != "root"

    def _user(self) -> str:
        """Return the account of this connection; where Ansible was told none, the client's configuration knows it."""
        told = self._option("remote_user")
        return str(told) if told else self._client("-G").get("user", getpass.getuser())

    def _client(self, *options: str) -> dict[str, str]:
        """Return the ssh client's configuration for this host."""
        done = subprocess.run(
            [*self._ssh(None), *options, self._host()], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)

    def _host(self) -> str:
        return str(self._option("host") or self._play_context.remote_addr)

    def _ssh(self, port: int | None) -> list[str]:
        """Return the ssh command of this connection, without its options that share connections."""
        words = [self._option("ssh_executable") or "ssh"]
        for name, value in (
            ("Port", port or self._option("port")),
            ("User", self._option("remote_user")),
            ("IdentityFile", self._option("private_key_file")),
        ):
            if value:
                words += ["-o", f'{name}="{os.path.expanduser(str(value)) if name == "IdentityFile" else value}"']
        if self._option("host_key_checking") is False:
            words += ["-o", "StrictHostKeyChecking=no"]
        for name in ("ssh_args", "ssh_common_args", "ssh_extra_args"):
            words += shlex.split(self._option(name) or "")
        return words

    def _prove(self, plan: Mapping[str, Any], *, changed: bool = False) -> str:
        """Make a new login, and become root in it, within half the time that the node's timer gives.

        Args:
            plan: what the module said; whether passwords are let in is in it.
            changed: whether the change is live already.

        Returns:
            what went wrong, as sentences; empty when it worked.
        """
        end = time.monotonic() + int(self._node_args.get("rollback_seconds", 60)) / 2
        trouble = ""
        for attempt in range(ATTEMPTS):
            left = end - time.monotonic()
            if attempt and left < 2:
                break
            trouble = self._login(plan, left, changed)
            if not trouble or NO_SUDO in trouble:
                break
            time.sleep(1 if attempt < ATTEMPTS - 1 else 0)
        return trouble

    def _login(self, plan: Mapping[str, Any], seconds: float, changed: bool) -> str:
        ports = self.new_ports(plan) if changed else None
        user = self._node_args["login_user"]
        port, alias = None, []
        if ports:
            known = self._client("-G")
            if int(known.get("port", "22")) not in ports:
                port = int(ports[0])  # the node reports it
                name = known.get("hostname", self._host()).lower()
                # The host's key is known under its former port.
                alias = [
                    "-o",
                    "HostKeyAlias=" + known.get("hostkeyalias", name if known.get("port") == "22" else f"[{name}]:{known.get('port')}"),
                ]
        password = self._option("password") if plan.get("passwords") else None
        methods = "publickey,password,keyboard-interactive" if password else "publickey"
        words = [
            *("-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", f"BatchMode={'no' if password else 'yes'}"),
            *("-o", f"PreferredAuthentications={methods}", "-o", f"ConnectTimeout={max(1, int(seconds))}", "-v", "-T", *alias),
        ]
        ssh, *rest = self._ssh(port)
        remote, feed = self._remote()
        with tempfile.NamedTemporaryFile("r", prefix="trainyard-ssh-", errors="replace") as log:
            status, errors = self._call([ssh, *words, "-E", log.name, *rest, self._host(), remote], feed, password, seconds)
            client = log.read()
        said = _words(f"{client}\n{errors}" if status == 255 else errors)
        if status == 255:
            kind = "" if password else " with a key alone"
            return f"A new login as '{user}'{kind} does not work{'' if changed else ' even as things are'} ({said}): {self.advice(user)}"
        if status:
            return f"'{user}' {NO_SUDO} ({said}): give the account sudo, or set ansible_become_password."
        offered = set(",".join(re.findall(r"Authentications that can continue: (\S+)", client)).split(","))
        if ports and not plan.get("passwords") and offered & {"password", "keyboard-interactive"}:
            return f"sshd still lets passwords in ({', '.join(sorted(offered))})."
        return ""

    def _remote(self) -> tuple[str, str]:
        """Return the command that proves root, and what it reads: the password goes in by stdin, never in argv."""
        if not self._by_sudo():
            return "true", ""
        target = shlex.quote(self._connection.become.get_option("become_user", playcontext=self._play_context) or "root")
        secret = self._connection.become.get_option("become_pass", playcontext=self._play_context)
        return (f"sudo -k -S -p '' -u {target} true", f"{secret}\n") if secret else (f"sudo -k -n -u {target} true", "")

    @staticmethod
    def _call(command: list[str], feed: str, password: str | None, seconds: float) -> tuple[int, str]:
        reading: int | None = None
        if password:
            reading, writing = os.pipe()
            os.write(writing, f"{password}\n".encode())
            os.close(writing)
            command = ["sshpass", f"-d{reading}", *command]
        try:
            done = subprocess.run(
                command,
                input=feed,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
                pass_fds=[] if reading is None else [reading],
                env={**os.environ, "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired as error:
            seen = error.stderr or b""
            text = seen.decode(errors="replace") if isinstance(seen, bytes) else seen
            return 255, f"{text}\nno login within {seconds:.0f} seconds"
        except OSError as error:
            return 255, str(error)
        finally:
            if reading is not None:
                os.close(reading)
        return done.returncode, done.stderr


def _me() -> str:
    """Return who runs this, for another run that has to wait."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user} at {socket.gethostname()} (process {os.getppid()} there)"


def _processes() -> str:
    """Return what names this machine's processes: its boot and the name space of process numbers; empty where that cannot be known."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _has_ended(run: str) -> bool:
    """Return whether a run was one of this machine's and its process is no more: it was killed, and will not come back."""
    machine, _space, rest = run.partition(" ")
    if not machine or machine != _processes():
        return False
    try:
        os.kill(int(rest.split()[0]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, IndexError):
        return False
    return False


def _words(errors: str) -> str:
    """Return what ssh or sudo said, without the client's debugging lines."""
    said = [
        line.strip()
        for line in errors.splitlines()
        if line.strip() and not line.startswith(("debug1:", "OpenSSH_", "Warning: Permanently"))
    ]
    noise = ("Authenticated to ", "Transferred: ", "Bytes per second: ")
    return " / ".join([line for line in said if not line.startswith(noise)][-3:]) or "nothing"
