"""Limits on login sessions on a kernel with cgroups of version 2, as servers have them. The tests build on each other, in order."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slow.vm import Machine
from tests.support import Play, play

pytestmark = pytest.mark.slow

REPORT = "session_limits : Report limits that do not bind"
TASKS = 200
SLICE = "/sys/fs/cgroup/user.slice/user-$(id -u student).slice"
TAKE = "import time; held = [bytearray(b'x' * 2**20) for _ in range({0})]; print('took', flush=True); time.sleep({1})"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine, switched off and removed afterwards."""
    machine = Machine(tmp_path_factory.mktemp("vm"), memory=1536)
    try:
        machine.switch_on()
        yield machine
    finally:
        machine.cut_power()
        (machine.folder / "disk.img").unlink()


def limits(machine: Machine, folder: Path, **variables: object) -> Play:
    """Apply the role."""
    given = {"session_limits_memory": "256M", "session_limits_tasks": TASKS, **variables}
    tasks = [{"ansible.builtin.import_role": {"name": "session_limits"}}]
    return play(machine, folder, tasks, ["--timeout", "180"], timeout=1800, **given)


def student(machine: Machine, command: str) -> subprocess.Popen[str]:
    """Log in as an ordinary user and let a command run."""
    words = ["ssh", "-F", str(machine.ssh_config), "-o", "BatchMode=yes", "-l", "student", *machine.nodes, command]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


def test_what_exceeds_a_new_limit_goes_on_and_would_have_been_ended(machine: Machine, tmp_path: Path) -> None:
    first = limits(machine, tmp_path, session_limits_memory="infinity", session_limits_tasks=100000)
    assert first.status == 0, first.failures() or first.text[-3000:]
    assert first.results[REPORT, "gpu"]["skipped"]
    taking = student(machine, f'python3 -c "{TAKE.format(400, 3000)}"')
    assert taking.stdout
    assert taking.stdout.readline() == "took\n"
    done = limits(machine, tmp_path)
    assert done.status == 0, done.failures()
    assert "student holds 0.4 GiB of memory (limit 0.2)" in done.results[REPORT, "gpu"]["msg"]
    assert machine.ask(f"cat {SLICE}/memory.max") == "max"
    assert limits(machine, tmp_path).changed == {"gpu": 0}
    assert taking.poll() is None
    # What the role keeps from happening: a limit below what is held ends processes at once.
    machine.ask("rm -r /run/systemd/system/user-*.slice.d && systemctl daemon-reload")
    assert taking.wait(120) == 137


def test_the_limits_bind_and_an_admin_has_none(machine: Machine) -> None:
    assert machine.ask("cat /sys/fs/cgroup/user.slice/user-$(id -u admin).slice/memory.max") == "max"
    greedy = student(machine, f'python3 -c "{TAKE.format(600, 0)}"; echo ended with $?')
    assert greedy.communicate(timeout=300)[0].split() == ["ended", "with", "137"]
    storm = student(machine, "i=0; while [ $i -lt 1000 ]; do sleep 600 & i=$((i + 1)); done; wait")
    machine.wait_for(f"[ $(pgrep -cu student) -ge {TASKS - 10} ]", "the storm did not begin", seconds=300)
    assert machine.ask(f"cat {SLICE}/memory.max {SLICE}/memory.swap.max {SLICE}/pids.max {SLICE}/cpu.weight").split() == [
        str(256 * 2**20),
        "0",
        str(TASKS),
        "50",
    ]
    start = time.monotonic()
    assert int(machine.ask("pgrep -cu student")) <= TASKS
    print(f"an admin logs in during the storm: {time.monotonic() - start:.1f} s on {machine.accelerator}")
    machine.ask("loginctl terminate-user student")
    storm.wait(120)


def test_after_a_reboot_they_still_bind(machine: Machine, tmp_path: Path) -> None:
    machine.reboot()
    inside = student(machine, "cat /sys/fs/cgroup/user.slice/user-$(id -u).slice/pids.max")
    assert inside.communicate(timeout=300)[0].strip() == str(TASKS)
    assert limits(machine, tmp_path).changed == {"gpu": 0}
