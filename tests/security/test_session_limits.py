"""A user who starts processes and takes memory without end, on the controller that everybody needs.

bob stops at his limit. Everybody else logs in, and computes, as before.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.security.conftest import USERS, House

pytestmark = pytest.mark.security

TASKS = 1000
STORM = "i=0; while [ $i -lt 3000 ]; do sleep 60 & i=$((i + 1)); done; wait"
GREED = "import time; held = [bytearray(b'x' * 2**20) for _ in range({0})]; print('took', flush=True)"
SET_PROPERTIES = (
    "busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager SetUnitProperties 'sba(sv)'"
)
SLICE = f"user-{USERS['bob']}.slice"


@contextmanager
def attack(house: House, command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Let bob run a command over SSH; all that he left is ended afterwards."""
    words = ["ssh", "-F", str(house.lab.ssh_config), "-o", "BatchMode=yes", "-o", f"IdentityFile={house.folder / 'bob'}", "-o", "User=bob"]
    process = subprocess.Popen([*words, "head", command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        house.root("head", "pkill -KILL -u bob || true; for i in $(seq 50); do pgrep -u bob >/dev/null || exit 0; sleep 0.1; done; exit 1")
        process.kill()
        process.wait()


def running(house: House) -> int:
    """Return how many processes bob has on the controller."""
    return int(house.root("head", "pgrep -cu bob", check=False) or 0)


def daemons(house: House) -> str:
    """Return the main processes of what everybody needs."""
    return house.root("head", "systemctl show --property=MainPID --value slurmctld ssh trainyard-jupyter")


def test_a_login_is_limited_and_an_admins_is_not(house: House) -> None:
    bound = "cd /sys/fs/cgroup; cat {pids,memory}/user.slice/user-$(id -u).slice/{pids.max,memory.limit_in_bytes} 2>/dev/null || true"
    for node in ("head", "node1"):
        assert house.ssh("bob", bound, node).stdout.split() == [str(TASKS), str(2**30)]
        tasks, memory = house.ssh("admin", bound, node).stdout.split()
        assert tasks == "max"
        assert int(memory) > 2**60
    assert house.root("head", "systemctl show user-0.slice --property=MemoryMax,TasksMax --value").split() == ["infinity", "infinity"]


def test_the_head_stays_usable_while_a_user_starts_processes_without_end(house: House) -> None:
    before = daemons(house)
    with attack(house, STORM):
        end = time.monotonic() + 30
        while running(house) < TASKS * 9 // 10:
            assert time.monotonic() < end, running(house)
            time.sleep(0.3)
        start = time.monotonic()
        assert house.ssh("admin", "sudo sinfo --noheader").returncode == 0
        assert time.monotonic() - start < 10, "an admin logs in within seconds"
        done = house.ssh("alice", "srun --immediate=30 --ntasks=1 hostname")
        assert (done.returncode, done.stdout.strip() in {"node1", "node2"}) == (0, True), done.stderr
        assert running(house) <= TASKS
        assert daemons(house) == before
    assert house.ssh("bob", "srun --immediate=30 --ntasks=1 hostname").returncode == 0, "bob works again at once"


def test_memory_ends_at_the_limit_with_a_process_of_the_same_user(house: House) -> None:
    before = daemons(house)
    with attack(house, "sleep 60"):
        greedy = house.ssh("bob", f'python3 -c "{GREED.format(1500)}"; echo ended with $?')
        assert greedy.stdout.split() == ["ended", "with", "137"], greedy.stderr
        assert daemons(house) == before
        assert house.ssh("alice", f'python3 -c "{GREED.format(200)}"').stdout.strip() == "took"


def test_jobs_are_in_no_session_and_a_storm_leaves_them_alone(house: House) -> None:
    status, submitted = house.user(
        "bob", "sbatch --parsable --nodes=1 --ntasks=1 --wrap 'cat /proc/self/cgroup; sleep 120' --output=/tmp/job-of-bob"
    )
    assert status == 0, submitted
    try:
        house.until("head", f"squeue --noheader --job {submitted} --format=%T", "RUNNING")
        node = house.root("head", f"squeue --noheader --job {submitted} --format=%N")
        house.until(node, "grep -c . /tmp/job-of-bob >/dev/null && echo there", "there")
        assert "user.slice" not in house.root(node, "cat /tmp/job-of-bob")
        house.ssh("bob", f'python3 -c "{GREED.format(1500)}"', node)
        assert house.root("head", f"squeue --noheader --job {submitted} --format=%T") == "RUNNING"
    finally:
        house.user("bob", f"scancel {submitted}")


@pytest.mark.parametrize(
    "command",
    [
        f"systemctl set-property --runtime {SLICE} TasksMax=infinity",
        f"{SET_PROPERTIES} {SLICE} true 1 TasksMax t 99999",
        f"echo max >/sys/fs/cgroup/pids/user.slice/{SLICE}/pids.max",
        "echo $$ >/sys/fs/cgroup/pids/cgroup.procs",
        "echo $$ >/sys/fs/cgroup/memory/system.slice/cgroup.procs",
    ],
)
def test_a_user_cannot_change_the_limit_nor_leave_the_slice(house: House, command: str) -> None:
    assert house.ssh("bob", command).returncode != 0
    assert f"user.slice/{SLICE}" in house.ssh("bob", "grep :pids: /proc/self/cgroup").stdout
    assert house.root("head", f"systemctl show {SLICE} --property=TasksMax --value") == str(TASKS)


def test_a_service_of_the_users_own_is_in_the_same_slice(house: House) -> None:
    done = house.ssh(
        "bob",
        "XDG_RUNTIME_DIR=/run/user/$(id -u) systemd-run --user --quiet --pipe cat /proc/self/cgroup; setsid nohup cat /proc/self/cgroup",
    )
    inside = [line for line in done.stdout.splitlines() if ":pids:" in line]
    assert inside
    assert all(SLICE in line for line in inside)
