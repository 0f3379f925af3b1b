"""Nobody is locked out: every shape of access that hardening could cut is refused, or the old one comes back by itself."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.nodes.ssh_support import Access
from tests.support import BIN
from trainyard.containers import Lab
from trainyard.paths import REPOSITORY

pytestmark = pytest.mark.nodes

LINEAR = {"ANSIBLE_STRATEGY": "linear"}
DROP_IN = "/etc/ssh/sshd_config.d/00-trainyard.conf"
SECRET = "correct-horse-battery"
ROOTS_KEY = "mkdir -pm 700 /root/.ssh; cp /home/admin/.ssh/authorized_keys /root/.ssh/; chown -R root: /root/.ssh;"
NO_SUDO = "gpasswd -d admin sudo >/dev/null; rm -f /etc/sudoers.d/admin;"
PASSWORDS = f"useradd -m -s /bin/bash -G sudo pat; echo pat:{SECRET} | chpasswd;"


@pytest.fixture(scope="module")
def kept(node: Lab, tmp_path_factory: pytest.TempPathFactory) -> Access:
    """The node as it booted, remembered."""
    found = Access(node, tmp_path_factory.mktemp("access"))
    found.keep()
    return found


@pytest.fixture
def access(kept: Access, tmp_path: Path) -> Iterator[Access]:
    """The node as it booted."""
    yield Access(kept.lab, tmp_path)
    kept.reset()


def refused(access: Access, message: str, **variables: Any) -> None:
    """Assert that a run refuses with this message, pattern or not, and touches nothing."""
    before, pid = access.fingerprint(), access.root("systemctl show -p MainPID --value ssh.service")
    play = access.harden(**variables)
    assert play.status != 0, play.text
    said = play.failures()
    assert said.startswith("Nothing was changed. "), said
    assert re.search(message, said), said
    assert access.fingerprint() == before
    assert access.root("systemctl show -p MainPID --value ssh.service") == pid
    assert access.root("systemctl list-units --all --plain --no-legend 'trainyard-ssh*'") == ""


# --- shapes that are refused up front ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            f"{ROOTS_KEY} rm /home/admin/.ssh/authorized_keys",
            r"This connection logs in as root, and PermitRootLogin is to be 'no': make an admin with a key and sudo "
            r"and set ansible_user to it; until there is one, set PermitRootLogin to prohibit-password in ssh_hardening_config\. "
            r"Accounts with a key and sudo here: none; with a key but no sudo: none\.$",
        ),
        (f"{ROOTS_KEY} {NO_SUDO}", r"logs in as root.* with a key and sudo here: none; with a key but no sudo: admin\.$"),
    ],
    ids=["only root has a key", "the admin's key has no sudo"],
)
def test_a_connection_as_root_is_not_cut_off(access: Access, prepare: str, message: str) -> None:
    access.root(prepare)
    assert access.lets_in("root")
    refused(access, message, ansible_user="root")
    assert access.lets_in("root")


def test_root_with_a_key_may_stay_until_there_is_an_admin(access: Access) -> None:
    access.root(f"{ROOTS_KEY} rm /home/admin/.ssh/authorized_keys")
    play = access.harden(ansible_user="root", ssh_hardening_config={"PermitRootLogin": "prohibit-password"})
    assert play.status == 0, play.text
    assert access.result(play)["login_proven"] is True
    assert access.lets_in("root")
    assert access.offered_methods("root") == "publickey"


@pytest.mark.parametrize("strategy", ["linear", "trainyard.core.mitogen_if_present"])
def test_a_connection_without_sudo_is_told_so(access: Access, strategy: str) -> None:
    access.root(NO_SUDO)
    assert access.lets_in()
    before = access.fingerprint()
    play = access.harden(environment={"ANSIBLE_STRATEGY": strategy})
    assert play.failures() == (
        "Nothing was changed. 'admin' can log in, but sudo does not work there (sudo: a password is required): "
        "give the account sudo, or set ansible_become_password."
    )
    assert access.fingerprint() == before
    assert access.lets_in()


@pytest.mark.skipif(not shutil.which("sshpass"), reason="sshpass is not installed: apt-get install sshpass")
def test_a_connection_by_password_only_is_refused(access: Access) -> None:
    access.root(PASSWORDS)
    assert access.lets_in_by_password("pat", SECRET)
    variables = {"ansible_user": "pat", "ansible_password": SECRET, "ansible_become_password": SECRET}
    refused(
        access,
        r"'pat' has no key on this node, and passwords are being switched off: put its public key into /home/pat/\.ssh/authorized_keys or "
        r"/home/pat/\.ssh/authorized_keys2 \(base_users does\) and connect with it instead of ansible_password, "
        r"or set PasswordAuthentication to true in ssh_hardening_config\.$",
        **variables,
    )
    assert access.lets_in_by_password("pat", SECRET)
    kept = access.harden(**variables, ssh_hardening_config={"PasswordAuthentication": True})
    assert kept.status == 0, kept.text
    assert SECRET not in kept.text
    assert access.lets_in_by_password("pat", SECRET)


@pytest.mark.skipif(not shutil.which("sshpass"), reason="sshpass is not installed: apt-get install sshpass")
def test_a_key_that_the_controller_does_not_have_is_no_way_in(access: Access) -> None:
    access.root(f"{PASSWORDS} install -d -o pat -m 700 /home/pat/.ssh; ssh-keygen -q -t ed25519 -N '' -f /tmp/other; "
                "install -o pat -m 600 /tmp/other.pub /home/pat/.ssh/authorized_keys; rm /tmp/other*")  # fmt: skip
    assert access.lets_in_by_password("pat", SECRET)
    refused(
        access,
        r"A new login as 'pat' with a key alone does not work even as things are \(.*Permission denied \(publickey,password\)\.\): "
        r"the key that Ansible uses \(ansible_ssh_private_key_file\) must let 'pat' in\.$",
        ansible_user="pat",
        ansible_password=SECRET,
        ansible_become_password=SECRET,
    )
    assert access.lets_in_by_password("pat", SECRET)


DEVIATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "AllowUsers is empty": (
        {"AllowUsers": []},
        r"ssh_hardening_config\.AllowUsers names nobody, so nobody could log in: name the admin's account, or leave AllowUsers out\.$",
    ),
    "AllowUsers names nobody there is": (
        {"AllowUsers": ["ghost"]},
        r"AllowUsers \(ghost\) does not let 'admin' in, the account of this connection: add it to ssh_hardening_config\.AllowUsers, or to",
    ),
    "AllowGroups": ({"AllowGroups": "wheel"}, r"AllowGroups \(wheel\) does not let 'admin' in"),
    "DenyUsers": ({"DenyUsers": ["a*"]}, r"DenyUsers \(a\*\) keeps 'admin' out"),
    "a locked account": (
        {"UsePAM": False},
        r"The account 'admin' is locked \(its password begins with '!'\), and without PAM sshd lets no locked account in: leave UsePAM out",
    ),
    "no keys": ({"PubkeyAuthentication": False}, r"Neither keys nor passwords would be let in: leave PubkeyAuthentication out of"),
    "an address that is not the node's": (
        {"ListenAddress": "192.0.2.7"},
        r"ssh_hardening_config\.ListenAddress: sshd could not listen at 192\.0\.2\.7 port 22 on this node "
        r"\(Cannot assign requested address\): give an address of this node and a port that nothing else has\.$",
    ),
    "a port that is taken": (
        {"Port": 2299},
        r"ssh_hardening_config\.Port: sshd could not listen at 0\.0\.0\.0 port 2299 on this node \(Address already in use\)",
    ),
    "an unknown keyword": ({"Colour": "blue"}, r"sshd does not accept ssh_hardening_config\.Colour \('blue'\): .*Bad configuration option"),
    "an unknown value": ({"Ciphers": ["rot13"]}, r"sshd does not accept ssh_hardening_config\.Ciphers \('rot13'\): .*Bad SSH2 cipher spec"),
    "a Match block": ({"Match": "User bob"}, r"ssh_hardening_config\.Match can't be set here"),
    "two lines": ({"Banner": "none\nPasswordAuthentication yes"}, r"ssh_hardening_config\.Banner must be on one line"),
    "a dict": ({"AllowUsers": {"admin": True}}, r"ssh_hardening_config\.AllowUsers must be a string, a number, true or false, or a list"),
}


def test_a_deviation_that_locks_out_or_makes_no_sense_is_refused(access: Access) -> None:
    """All in one play, for speed: a task each."""
    access.root("systemd-run -q --unit squatter python3 -m http.server 2299; until ss -tln | grep -q :2299; do sleep 0.1; done")
    assert access.lets_in()
    before = access.fingerprint()
    tasks = [
        {"name": name, "trainyard.core.ssh_hardening": {"config": config}, "ignore_errors": True}
        for name, (config, _) in DEVIATIONS.items()
    ]
    play = access.play(tasks)
    for name, (_, message) in DEVIATIONS.items():
        result = play.results[name, "head"]
        assert result["failed"] is True, name
        assert re.match("Nothing was changed. " + message, result["msg"]), result["msg"]
    assert access.fingerprint() == before
    access.root("systemctl stop squatter")
    assert access.lets_in()


@pytest.mark.parametrize(
    ("trouble", "cure", "message"),
    [
        (
            "chage -E 2020-01-01 admin",
            "chage -E -1 admin",
            r"A new login as 'admin' with a key alone does not work even as things are \(.*Your account has expired",
        ),
        (
            "usermod -s /usr/sbin/nologin admin",
            "usermod -s /bin/bash admin",
            r"The account 'admin' has the shell /usr/sbin/nologin, which lets nobody in",
        ),
    ],
    ids=["expired", "no shell"],
)
def test_an_account_locked_behind_a_living_connection_is_refused(access: Access, trouble: str, cure: str, message: str) -> None:
    """The connection was opened while the account was good, and outlives it: only a new login shows the truth."""
    assert access.lets_in()
    lasting = ["-o", "ControlMaster=auto", "-o", f"ControlPath={access.folder}/mux", "-o", "ControlPersist=60"]
    subprocess.run(
        ["ssh", "-F", str(access.lab.ssh_config), *lasting, "head", "sudo -n true"],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    access.root(trouble)
    before = access.fingerprint()
    play = access.harden(environment=LINEAR, ansible_ssh_args=" ".join(lasting))
    assert re.match("Nothing was changed. " + message, play.failures()), play.text
    assert access.fingerprint() == before
    access.root(cure)
    assert access.lets_in()
    subprocess.run(["ssh", "-F", str(access.lab.ssh_config), *lasting, "-O", "exit", "head"], check=False, capture_output=True)


def test_a_port_that_the_socket_would_ignore_is_refused(access: Access) -> None:
    access.root("systemctl disable -q --now ssh.service; systemctl enable -q --now ssh.socket")
    assert access.lets_in()
    before = access.fingerprint()
    play = access.harden(ssh_hardening_config={"Port": 2222})
    assert play.failures() == (
        "Nothing was changed. ssh.socket listens on this node, on port 22, and would ignore ssh_hardening_config.Port (2222): "
        "let the daemon listen itself (systemctl disable --now ssh.socket; systemctl enable --now ssh.service), "
        "set ListenStream in ssh.socket, or leave Port out."
    )
    assert access.fingerprint() == before
    assert access.lets_in()
    hardened = access.harden()
    assert hardened.status == 0, hardened.text
    assert access.offered_methods() == "publickey"
    assert access.harden().changed == {"head": 0}


# --- shapes that only a new login shows: rolled back ---------------------------------------------------------------


def test_an_address_that_the_controller_does_not_reach_is_rolled_back(access: Access) -> None:
    before = access.fingerprint()
    assert access.lets_in()
    started = time.monotonic()
    play = access.harden(ssh_hardening_config={"ListenAddress": "127.0.0.1"})
    assert time.monotonic() - started < 120
    said = play.failures()
    assert re.match(r"A new login as 'admin' with a key alone does not work \(.*Connection refused", said), said
    assert said.endswith("The old configuration is back. A new login works again.")
    assert access.lets_in()
    assert access.fingerprint() == before
    assert sorted(access.effective("ListenAddress")) == ["0.0.0.0:22", "[::]:22"]
    assert access.root("ls /var/lib/trainyard/ssh_hardening; ls /etc/systemd/system/trainyard*", check=False).count("No such file") >= 1


def test_a_key_that_the_new_configuration_finds_too_weak_is_rolled_back(access: Access) -> None:
    weak = access.folder / "weak"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(weak)], check=True)
    access.root(f"echo '{weak.with_suffix('.pub').read_text().strip()}' > /home/admin/.ssh/authorized_keys")
    key = f"-o IdentityFile={weak} -F {access.lab.ssh_config}"
    assert access.lets_in("admin", "-o", f"IdentityFile={weak}")
    play = access.harden(ansible_ssh_common_args=key, ssh_hardening_config={"RequiredRSASize": 3072})
    assert re.match(r"A new login as 'admin' with a key alone does not work \(.*Permission denied \(publickey\)", play.failures()), (
        play.failures()
    )
    assert access.lets_in("admin", "-o", f"IdentityFile={weak}")


class Kill:
    """An ssh client that stands still at the proof, for the controller to be killed there."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.mark = access.folder / "proof-reached"
        wrapper = access.folder / "ssh"
        seen = access.folder / "first-login"
        wrapper.write_text(
            '#!/bin/sh\ncase "$*" in *ControlPath=none*)\n'
            f"  if [ -e {seen} ]; then touch {self.mark}; exec sleep 600; fi; touch {seen};;\nesac\n"
            'exec /usr/bin/ssh "$@"\n'
        )
        wrapper.chmod(0o755)
        self.wrapper = wrapper

    def run(self, **variables: Any) -> None:
        """Start a run, and kill it with all its children when the new configuration is live and unproven."""
        inventory = self.access.inventory({"ansible_ssh_executable": str(self.wrapper), **variables})
        process = subprocess.Popen(
            [str(BIN / "ansible-playbook"), str(self.access.playbook()), "-i", str(inventory)],
            cwd=REPOSITORY,
            env={**os.environ, "TRAINYARD_REPORT_JSON": "", "TRAINYARD_REPORT_HTML": ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while not self.mark.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.1)
        assert self.mark.exists(), process.stdout.read().decode() if process.stdout else ""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_node_goes_back_by_itself_when_the_controller_is_killed(access: Access) -> None:
    before = access.fingerprint()
    Kill(access).run(ssh_hardening_rollback_seconds=10, ssh_hardening_config={"ListenAddress": "127.0.0.1"})
    assert not access.lets_in(), "the new configuration was to be live, and to lock us out"
    deadline = time.monotonic() + 60
    while not access.lets_in() and time.monotonic() < deadline:
        time.sleep(1)
    assert access.lets_in()
    while "activating" in access.root("systemctl is-active trainyard-ssh-rollback.service", check=False):
        time.sleep(0.2)
    assert access.fingerprint() == before
    assert (
        access.root("ls -d /var/lib/trainyard/ssh_hardening/rollback /etc/systemd/system/trainyard*", check=False).count("No such file")
        == 2
    )
    again = access.harden()
    assert again.status == 0, again.text
    assert access.result(again)["login_proven"] is True


def test_a_run_after_a_killed_one_proves_what_was_left_unproven(access: Access) -> None:
    Kill(access).run()
    assert access.effective("PasswordAuthentication") == ["no"]
    again = access.harden()
    assert again.status == 0, again.text
    assert "prove a configuration that an interrupted run left unproven" in access.result(again)["changes"]
    assert access.result(again)["login_proven"] is True
    assert access.root("systemctl list-units --all --plain --no-legend 'trainyard-ssh*'") == ""
    assert access.root("ls /etc/systemd/system/timers.target.wants | grep trainyard", check=False) == ""
    assert access.harden().changed == {"head": 0}


# --- what a plain run does -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["linear", "trainyard.core.mitogen_if_present"])
def test_a_plain_run_lets_in_keys_only_keeps_sessions_and_the_second_changes_nothing(access: Access, strategy: str) -> None:
    environment = {"ANSIBLE_STRATEGY": strategy}
    access.without_strong_key()
    before = access.fingerprint()
    session = subprocess.Popen(
        ["ssh", "-F", str(access.lab.ssh_config), "head", "echo open; cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert session.stdin is not None
    assert session.stdout is not None
    assert session.stdout.readline() == "open\n"

    foretold = access.harden("--check", "--diff", environment=environment)
    assert foretold.status == 0, foretold.text
    assert foretold.changed == {"head": 1}
    assert access.fingerprint() == before

    pid = access.root("systemctl show -p MainPID --value ssh.service")
    done = access.harden(environment=environment)
    assert done.status == 0, done.text
    assert access.result(done)["login_proof"] == "a new login of 'admin' and its sudo worked"
    assert access.result(done)["changes"] == access.result(foretold)["changes"]
    assert access.effective("PasswordAuthentication") == ["no"]
    assert access.effective("PermitRootLogin", "root") == ["no"]
    assert access.offered_methods() == "publickey"
    assert access.effective("HostKey")[:2] == ["/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_rsa_4096_key"]
    assert access.root("systemctl show -p MainPID --value ssh.service") == pid, "reloaded, not restarted"

    assert access.harden(environment=environment).changed == {"head": 0}
    assert access.harden("--check", environment=environment).changed == {"head": 0}
    session.stdin.write("alive\n")
    session.stdin.flush()
    assert session.stdout.readline() == "alive\n"
    session.kill()
    session.wait()

    undone = access.harden(environment=environment, trainyard_state="absent")
    assert undone.status == 0, undone.text
    assert access.fingerprint() == before
    assert access.harden(environment=environment, trainyard_state="absent").changed == {"head": 0}


@pytest.mark.parametrize("name", ["50-cloud-init.conf", "00-a.conf"])
def test_the_drop_in_wins_over_all_others(access: Access, name: str) -> None:
    folder = "/etc/ssh/sshd_config.d"
    loose = "PasswordAuthentication yes\\nMatch User admin,root\\n  PasswordAuthentication yes\\n  PermitRootLogin yes\\n"
    access.root(f"printf '{loose}' > {folder}/{name}")
    access.reload()
    assert "password" in access.offered_methods()
    done = access.harden()
    assert done.status == 0, done.text
    for user in ("admin", "root"):
        assert access.effective("PasswordAuthentication", user) == ["no"]
        assert access.effective("PermitRootLogin", user) == ["no"]
    assert access.effective("PasswordAuthentication") == ["no"]
    assert access.offered_methods() == "publickey"


@pytest.mark.parametrize("late", ["", "Include /etc/ssh/sshd_config.d/*.conf"], ids=["no Include", "a late Include"])
def test_the_include_is_brought_to_the_top_and_back(access: Access, late: str) -> None:
    main = "/etc/ssh/sshd_config"
    access.without_strong_key()
    access.root(f"sed -i -e '/^Include/d' -e '1i PasswordAuthentication yes' {main}; echo '{late}' >> {main}")
    access.reload()
    before = access.fingerprint()
    done = access.harden()
    assert done.status == 0, done.text
    assert access.effective("PasswordAuthentication") == ["no"]
    assert access.offered_methods() == "publickey"
    assert access.harden().changed == {"head": 0}
    assert access.harden(trainyard_state="absent").status == 0
    assert access.fingerprint() == before


@pytest.mark.parametrize(
    ("setting", "config", "message"),
    [
        (
            "echo 'AllowUsers admin' > /etc/ssh/sshd_config.d/60-site.conf",
            {"AllowUsers": ["admin", "backup"]},
            r"AllowUsers would be .* instead of 'admin, backup': /etc/ssh/sshd_config\.d/60-site\.conf line 1 wins\. Take that line out",
        ),
        (
            "echo 'Port 22' >> /etc/ssh/sshd_config",
            {"Port": 2222},
            r"Port would be '.*' instead of '2222': /etc/ssh/sshd_config line \d+ wins\.",
        ),
        (
            "echo 'SSHD_OPTS=\"-o PermitUserEnvironment=yes\"' > /etc/default/ssh; systemctl restart ssh.service",
            {},
            r"PermitUserEnvironment would be 'yes' instead of 'no': the daemon's own option \(-o PermitUserEnvironment=yes\) wins",
        ),
    ],
    ids=["a list that adds up", "two ports", "the daemon's own option"],
)
def test_what_wins_over_the_drop_in_is_named(access: Access, setting: str, config: dict[str, Any], message: str) -> None:
    access.root(setting)
    refused(access, message, ssh_hardening_config=config)
    assert access.lets_in()


@pytest.mark.parametrize(
    "damage",
    [
        "printf 'PermitRotLogin no\\nPort\\n' >> /etc/ssh/sshd_config",
        "printf 'UseDNS no\\nPasswordAuthentication maybe\\n' > /etc/ssh/sshd_config.d/10-somebody.conf",
    ],
    ids=["sshd_config", "another's drop-in"],
)
def test_a_broken_configuration_is_repaired_by_a_plain_run(access: Access, damage: str) -> None:
    access.root(damage)
    assert "/etc/ssh" in access.root("/usr/sbin/sshd -t 2>&1 || true")
    pid = access.root("systemctl show -p MainPID --value ssh.service")
    assert access.lets_in(), "the daemon still runs with what it read before"
    done = access.harden()
    assert done.status == 0, done.text
    assert any(change.startswith("switch off /etc/ssh/sshd_config") for change in access.result(done)["changes"])
    assert access.root("/usr/sbin/sshd -t 2>&1") == ""
    assert access.root("grep -rh 'Trainyard switched this off' /etc/ssh/sshd_config /etc/ssh/sshd_config.d")
    assert access.root("systemctl show -p MainPID --value ssh.service") == pid
    assert access.offered_methods() == "publickey"
    assert access.lets_in()
    assert access.harden().changed == {"head": 0}


def test_a_broken_drop_in_of_ours_is_repaired_too(access: Access) -> None:
    assert access.harden().status == 0
    access.root(f"echo 'Prt 22' >> {DROP_IN}")
    assert access.harden().status == 0
    assert access.root("/usr/sbin/sshd -t 2>&1") == ""


def test_a_daemon_older_than_its_files_is_reloaded(access: Access) -> None:
    assert access.harden().status == 0
    drop_in = access.root(f"cat {DROP_IN}")
    access.root(f"echo 'PasswordAuthentication yes' > {DROP_IN}")
    access.reload()
    assert "password" in access.offered_methods()
    # The right file is back on disk, and nobody has told the daemon.
    access.root(f"cat > {DROP_IN} <<'END'\n{drop_in}END\n")
    done = access.harden()
    assert access.result(done)["changes"] == ["reload sshd, which runs with an older configuration than the one on disk"]
    assert access.offered_methods() == "publickey"


def test_another_port_is_proven_there(access: Access) -> None:
    done = access.harden(ssh_hardening_config={"Port": 2222})
    assert done.status == 0, done.text
    assert access.result(done)["ports"] == [2222]
    assert access.lets_in("admin", "-o", "Port=2222")
    assert not access.lets_in()
    assert access.harden(ssh_hardening_config={"Port": 2222}, ansible_port=2222).changed == {"head": 0}


def test_sudo_with_a_password_is_proven_and_the_password_is_not_shown(access: Access) -> None:
    access.root(f"echo admin:{SECRET} | chpasswd; rm /etc/sudoers.d/admin")
    done = access.harden("-vvv", "--diff", ansible_become_password=SECRET)
    assert done.status == 0, done.text
    assert SECRET not in done.text
    assert SECRET not in access.root("cat /var/log/auth.log /etc/ssh/sshd_config.d/* 2>/dev/null; journalctl --no-pager", check=False)
    assert access.offered_methods() == "publickey"


def test_the_timer_outlives_a_reboot(access: Access) -> None:
    """Files in /etc, not a transient unit: a power cut before the proof must not leave an unproven configuration."""
    Kill(access).run(ssh_hardening_rollback_seconds=110)
    assert access.root("readlink -e /etc/systemd/system/timers.target.wants/trainyard-ssh-rollback.timer").strip().endswith(".timer")
    access.root("systemctl start trainyard-ssh-rollback.service")  # what the timer does
    assert access.effective("PasswordAuthentication") == ["yes"]
    assert "password" in access.offered_methods()


def test_the_cis_profile_is_in_force(access: Access) -> None:
    done = access.harden(ssh_hardening_profile="cis")
    assert done.status == 0, done.text
    wanted = {"MaxAuthTries": "4", "MaxStartups": "10:30:60", "LoginGraceTime": "60", "LogLevel": "VERBOSE", "Banner": "/etc/issue.net"}
    assert {name: access.effective(name, "admin") for name in wanted} == {name: [value] for name, value in wanted.items()}
    assert "chacha20" not in access.effective("Ciphers")[0]
    found = access.audit()
    assert not _failures(found)
    assert access.lets_in()


def test_ssh_audit_reports_no_failure_and_the_distributions_policy_passes(access: Access) -> None:
    assert _failures(access.audit()), "a node as it boots was to have some"
    assert access.audit("-P", "Hardened Debian 12 (version 3)")["passed"] is False
    assert access.harden().status == 0
    assert _failures(access.audit()) == []
    verdict = access.audit("-P", "Hardened Debian 12 (version 3)")
    assert verdict["passed"] is True, verdict


def _failures(found: Any) -> list[str]:
    return [
        f"{entry['algorithm']}: {reason}"
        for kind in ("kex", "key", "enc", "mac")
        for entry in found[kind]
        for reason in entry.get("notes", {}).get("fail", [])
    ]
