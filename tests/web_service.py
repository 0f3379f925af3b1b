"""What holds for each of our web services on a node; a Molecule scenario's tests subclass it and say which service is meant."""

from __future__ import annotations

import time
from typing import Any


class WebService:
    """A service behind TLS and a password.

    Attributes:
        name: what follows ``trainyard-`` in its unit, and its folder below /etc/trainyard.
        password: what the scenario set.
        process: words by which one of its processes is known.
        port: the port that it listens on.
    """

    name: str
    password: str
    process: str
    port: int

    @property
    def unit(self) -> str:
        """Return the name of its unit."""
        return f"trainyard-{self.name}.service"

    @property
    def folder(self) -> str:
        """Return the folder of its configuration."""
        return f"/etc/trainyard/{self.name}"

    def answers(self, host: Any) -> bool:
        """Say whether it lets somebody in who knows the password."""
        raise NotImplementedError

    def main_pid(self, host: Any) -> str:
        """Return the number of its first process."""
        return str(host.check_output("systemctl show -P MainPID %s", self.unit))

    def test_it_runs_now_and_after_a_reboot(self, host: Any) -> None:
        service = host.service(self.unit)
        assert service.is_running
        assert service.is_enabled

    def test_it_runs_as_an_account_without_rights(self, host: Any) -> None:
        lines = host.check_output("cat /proc/%s/status", self.main_pid(host)).splitlines()
        status = dict(line.split(":", 1) for line in lines if ":" in line)
        assert "0" not in status["Uid"].split()
        assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert status["NoNewPrivs"].strip() == "1"

    def test_the_secrets_are_roots_alone(self, host: Any) -> None:
        for name in ("password", "tls.pem"):
            file = host.file(f"{self.folder}/{name}")
            assert (file.user, file.group, file.mode) == ("root", "root", 0o600)
        # The service reads them under its own account: on older systems they are its own, on newer ones root's with an access list for it.
        own = host.check_output("stat -c %%u /proc/%s", self.main_pid(host))
        under = "setpriv --reuid %s --regid 65534 --clear-groups --"
        given = f"/run/credentials/{self.unit}"
        assert own not in {"0", "65534"}
        assert host.check_output(f"{under} ls {given}", own).split() == ["password", "tls.pem"]
        assert host.check_output(f"{under} cat {given}/password", own).startswith("$argon2id$")
        for other in ("1", "65534"):
            for command in (f"ls {given}", f"cat {given}/password", f"cat {given}/tls.pem"):
                refused = host.run(f"{under} {command}", other)
                assert refused.rc != 0
                assert "Permission denied" in refused.stderr, refused.stderr
        assert host.file(f"{self.folder}/password").content_string.startswith("$argon2id$")

    def test_both_loopbacks_are_held_by_systemd_whatever_becomes_of_the_service(self, host: Any) -> None:
        for action in ("restart", "stop", "start"):
            host.check_output("systemctl %s %s", action, self.unit)
            lines = [line for line in host.check_output("ss -Htlnp").splitlines() if f":{self.port} " in line]
            assert sorted(line.split()[3] for line in lines) == [f"127.0.0.1:{self.port}", f"[::1]:{self.port}"], (action, lines)
            assert all('"systemd",pid=1,' in line for line in lines)
        assert host.service(f"trainyard-{self.name}.socket").is_enabled

    def test_everybody_can_read_the_fingerprint(self, host: Any) -> None:
        shown = host.check_output("openssl x509 -in %s/tls.pem -noout -fingerprint -sha256", self.folder)
        assert host.check_output("runuser -u nobody -- cat %s/fingerprint", self.folder) == shown.rpartition("=")[2]

    def test_root_does_nothing_in_its_folders(self, host: Any) -> None:
        steps = host.check_output("systemctl show -P ExecStartPreEx -P ExecStartPostEx -P ExecStopPostEx %s", self.unit)
        assert "privileged" not in steps

    def test_the_password_is_nowhere_in_the_clear(self, host: Any) -> None:
        processes = host.run("sh -c 'cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ'").stdout
        assert self.process in processes
        assert self.password not in processes
        here = "/etc /var /tmp /run /srv /opt/trainyard /root /home /usr/local"
        assert host.run(f"grep -rlaF -e %s {here}", self.password).stdout == ""
        assert host.run("journalctl --no-pager | grep -F -e %s", self.password).stdout == ""

    def test_it_is_there_again_after_it_crashed(self, host: Any) -> None:
        before = self.main_pid(host)
        host.check_output("kill -KILL %s", before)
        deadline = time.monotonic() + 60
        while host.run("systemctl is-active %s", self.unit).stdout.strip() != "active" or self.main_pid(host) in {"0", before}:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert self.answers(host)
