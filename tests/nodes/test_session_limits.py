"""Limits on login sessions, met by users who log in over SSH to a node whose kernel binds them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Play, play
from trainyard.containers import Lab
from trainyard.paths import CHECKOUT

pytestmark = pytest.mark.nodes

MIB = 2**20
REPORT = "session_limits : Report limits that do not bind"
TASKS = 200
MEMORY = "256M"
TAKE = "import time; held = [bytearray(b'x' * 2**20) for _ in range({0})]; print('took', flush=True); time.sleep({1})"


class Node:
    """A node with users, who have the lab's key."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder

    def shell(self, script: str, *, check: bool = True) -> str:
        """Run a script as root, beside SSH."""
        return self.lab.execute("node", ["bash", "-ec", script], check=check).strip()

    def ssh(self, name: str, *command: str) -> list[str]:
        """Return the words that log in and run a command."""
        return ["ssh", "-F", str(self.lab.ssh_config), "-o", "BatchMode=yes", "-o", f"User={name}", "node", *command]

    def user(self, name: str, command: str = "true") -> subprocess.CompletedProcess[str]:
        """Log in and run a command."""
        return subprocess.run(self.ssh(name, command), capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)

    def apply(self, *words: str, **variables: object) -> Play:
        """Run the role."""
        given = {"session_limits_memory": MEMORY, "session_limits_tasks": TASKS, **variables}
        return play(self.lab, self.folder, [{"ansible.builtin.import_role": {"name": "session_limits"}}], words, **given)

    def limit(self, name: str, of: str) -> str:
        """Return what the kernel holds a user's sessions to: ``memory`` in MiB or ``pids``."""
        file = {"memory": "memory.limit_in_bytes", "pids": "pids.max"}[of]
        text = self.shell(f"cat /sys/fs/cgroup/{of}/user.slice/user-$(id -u {name}).slice/{file}")
        return text if of == "pids" or int(text) > 2**60 else str(int(text) // MIB)

    def gone(self, name: str) -> None:
        """End what a user runs, and wait until the last session is gone."""
        here = f"user-$(id -u {name}).slice"
        wait = f"for i in $(seq 150); do systemctl is-active -q {here} || exit 0; sleep 0.2; done; exit 1"
        self.shell(f"pkill -KILL -u {name} || true; {wait}")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A bare node with the accounts alice and bob, and ops, whom a rule of sudo lets do everything."""
    lab = Lab(f"test-session-limits-{CHECKOUT}", ["node"], tmp_path_factory.mktemp("lab"), say=lambda _text: None)
    lab.down()
    lab.up()
    try:
        found = Node(lab, tmp_path_factory.mktemp("inventory"))
        if "user.slice" not in found.shell("ls /sys/fs/cgroup/pids /sys/fs/cgroup/memory", check=False):
            pytest.fail("these tests read cgroups of version 1; the virtual machines' tests read version 2")
        for name in ("alice", "bob", "ops"):
            found.shell(
                f"useradd --create-home --shell /bin/bash {name}; cp -r /home/admin/.ssh /home/{name}/; chown -R {name}: /home/{name}/.ssh"
            )
        found.shell("echo 'ops ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ops; chmod 0440 /etc/sudoers.d/ops")
        found.shell("apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends cron at >/dev/null")
        yield found
    finally:
        lab.down()


def test_without_the_role_a_login_is_in_nobodys_slice_and_takes_what_it_wants(node: Node) -> None:
    assert "user-" not in node.user("bob", "cat /proc/self/cgroup").stdout
    many = node.user("bob", f"for i in $(seq {TASKS + 100}); do sleep 5 & done; echo started")
    assert many.stdout.split() == ["started"]


def test_the_role_converges(node: Node) -> None:
    looked = node.apply("--check")
    assert looked.status == 0, looked.failures()
    node.shell("! ls /etc/systemd/system/user-.slice.d 2>/dev/null")
    done = node.apply()
    assert done.status == 0, done.failures() or done.text[-3000:]
    assert done.results[REPORT, "node"]["skipped"]
    assert node.apply().changed == {"node": 0}


def test_a_user_gets_no_more_processes_than_the_limit_and_the_machine_stays_usable(node: Node) -> None:
    storm = subprocess.Popen(
        node.ssh("bob", "i=0; while [ $i -lt 3000 ]; do sleep 60 & i=$((i + 1)); done"), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    try:
        node.shell(f"for i in $(seq 100); do [ $(pgrep -cu bob) -ge {TASKS - 10} ] && exit 0; sleep 0.1; done; exit 1")
        start = time.monotonic()
        assert node.user("admin", "sudo true").returncode == 0
        assert node.user("alice", "true").returncode == 0
        assert time.monotonic() - start < 15
        assert int(node.shell("pgrep -cu bob")) <= TASKS
    finally:
        node.gone("bob")
        storm.kill()
        storm.wait()
    assert node.user("bob").returncode == 0


def test_who_comes_near_the_limit_is_told_at_login(node: Node) -> None:
    calm = subprocess.run(node.ssh("bob", "-tt", "bash -lc true"), capture_output=True, text=True, timeout=60, check=False)
    assert "Your sessions" not in calm.stdout
    many = subprocess.Popen(node.ssh("bob", f"for i in $(seq {TASKS * 92 // 100}); do sleep 60 & done; wait"), stdin=subprocess.DEVNULL)
    try:
        node.shell(f"for i in $(seq 100); do [ $(pgrep -cu bob) -ge {TASKS * 92 // 100} ] && exit 0; sleep 0.1; done; exit 1")
        told = subprocess.run(node.ssh("bob", "-tt", "bash -lc true"), capture_output=True, text=True, timeout=60, check=False)
        assert f"{TASKS} are allowed. At the limit nothing starts" in told.stdout
    finally:
        node.gone("bob")
        many.kill()
        many.wait()


def test_a_user_gets_no_more_memory_than_the_limit_and_others_keep_theirs(node: Node) -> None:
    mine = subprocess.Popen(
        node.ssh("alice", f'python3 -c "{TAKE.format(100, 30)}"'), stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )
    try:
        assert mine.stdout
        assert mine.stdout.readline() == "took\n"
        greedy = node.user("bob", f'python3 -c "{TAKE.format(600, 0)}"; echo ended with $?')
        assert "took" not in greedy.stdout
        assert "ended with 137" in greedy.stdout, "the kernel ended it"
        assert mine.poll() is None
    finally:
        mine.kill()
        mine.wait()
    assert "took" in node.user("bob", f'python3 -c "{TAKE.format(100, 0)}"').stdout, "what fits is as before"


def test_root_and_admins_have_no_limits(node: Node) -> None:
    for name in ("admin", "ops"):
        for command in (f'python3 -c "{TAKE.format(400, 0)}"', f"for i in $(seq {TASKS + 50}); do sleep 1 & done; echo took"):
            assert node.user(name, command).stdout.split()[-1:] == ["took"], name
    assert node.shell("systemctl show user-0.slice -p MemoryMax,TasksMax --value").split() == ["infinity"] * 2


def test_cron_and_at_are_no_way_around(node: Node) -> None:
    node.shell("echo '* * * * * cat /proc/self/cgroup >~/by-cron' | tee >(crontab -u bob -) | crontab -")
    node.shell("cd /home/bob; echo 'cat /proc/self/cgroup >~/by-at' | runuser -u bob -- at now 2>/dev/null")
    node.shell(
        "for i in $(seq 130); do [ -s /home/bob/by-cron -a -s /home/bob/by-at -a -s /root/by-cron ] && exit 0; sleep 0.5; done; exit 1"
    )
    mine = "pids:.*user-$(id -u bob).slice"
    node.shell(f"grep -q {mine} /home/bob/by-cron; grep -q {mine} /home/bob/by-at; grep -q pids:.*cron.service /root/by-cron")
    node.shell("crontab -r; crontab -u bob -r")


def test_open_sessions_are_limited_at_once_and_what_exceeds_a_limit_is_not_ended(node: Node) -> None:
    assert node.apply(session_limits_memory="infinity", session_limits_tasks=100000).status == 0
    taking = subprocess.Popen(
        node.ssh("bob", f'python3 -c "{TAKE.format(300, 120)}"'), stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )
    modest = subprocess.Popen(node.ssh("alice", "sleep 120"), stdin=subprocess.DEVNULL)
    try:
        assert taking.stdout
        assert taking.stdout.readline() == "took\n"
        done = node.apply()
        assert done.status == 0, done.failures()
        assert "bob holds 0.3 GiB of memory (limit 0.2)" in done.results[REPORT, "node"]["msg"]
        assert node.limit("alice", "memory") == "256"
        assert node.limit("alice", "pids") == str(TASKS)
        assert node.shell("systemctl show user-$(id -u bob).slice -p MemoryMax --value") == "infinity"
        assert int(node.limit("bob", "memory")) > 2**60
        assert node.apply().changed == {"node": 0}
        assert taking.poll() is None
        assert modest.poll() is None
    finally:
        for process in (taking, modest):
            process.kill()
            process.wait()
        node.gone("bob")
    assert node.apply().changed == {"node": 1}
    assert node.user("bob").returncode == 0
    assert node.limit("bob", "memory") == "256"


def test_who_is_at_the_limit_does_not_lose_it_with_the_next_run(node: Node) -> None:
    full = subprocess.Popen(
        node.ssh("bob", f'python3 -c "{TAKE.format(235, 60)}"'), stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )
    try:
        assert full.stdout
        assert full.stdout.readline() == "took\n"
        assert node.apply().changed == {"node": 0}
        assert node.limit("bob", "memory") == "256"
    finally:
        full.kill()
        full.wait()
        node.gone("bob")


def test_a_node_without_controllers_converges_and_tells_so(node: Node) -> None:
    node.shell("mount -o remount,bind,ro /sys/fs/cgroup/memory")
    try:
        done = node.apply()
        assert done.changed == {"node": 0}
        assert "Login sessions on this node are not limited in memory" in done.results[REPORT, "node"]["msg"]
    finally:
        node.shell("mount -o remount,bind,rw /sys/fs/cgroup/memory")


def test_what_is_not_allowed_is_refused_by_name(node: Node) -> None:
    assert "session_limits_memory: '1%' is not between 5% and 100%." in node.apply(session_limits_memory="1%").failures()


def test_the_undo_removes_what_was_put(node: Node) -> None:
    asleep = subprocess.Popen(node.ssh("alice", "sleep 60"), stdin=subprocess.DEVNULL)
    try:
        time.sleep(2)
        done = node.apply(trainyard_state="absent")
        assert done.status == 0, done.failures()
        assert int(node.limit("alice", "memory")) > 2**60, "open sessions are free at once"
        assert asleep.poll() is None
    finally:
        asleep.kill()
        asleep.wait()
    node.shell("! ls -d /etc/systemd/system/user-*.slice.d /run/systemd/system/user-*.slice.d /etc/profile.d/trainyard* 2>/dev/null")
    node.shell("! grep -i trainyard /etc/pam.d/*; ! dpkg-query -W -f '${Status}' libpam-systemd | grep -q 'ok installed'")
    assert node.apply(trainyard_state="absent").changed == {"node": 0}
