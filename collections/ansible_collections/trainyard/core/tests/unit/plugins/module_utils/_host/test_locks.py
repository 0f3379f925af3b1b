"""Locks: one at a time, a holder with a name, and an end of its own for a run that does not come back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.trainyard.core.plugins.module_utils._host import locks


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock."""
    return Clock()


def lease(folder: Path, run: str, clock: Clock) -> locks.Lease:
    """Return a run's lease."""
    return locks.Lease("ssh", run, f"{run} at labserver", folder=str(folder), clock=clock)


def test_one_process_at_a_time_and_the_other_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "hosts"
    with (
        locks.held(path, "hosts_block"),
        pytest.raises(locks.HeldError, match=rf"at work for 0 seconds: hosts_block, process {os.getpid()} of .* since \d\d:"),
        locks.held(path, "other", patience=0),
    ):
        pass
    with locks.held(path, "other", patience=0):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    code = (
        f"import time\nfrom {locks.__name__} import held\nwith held({str(path)!r}, 'x'):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ":".join(sys.path)}
    ) as other:
        assert other.stdout
        other.stdout.readline()
        with pytest.raises(locks.HeldError), locks.held(path, "me", patience=0):
            pass
        other.kill()
    with locks.held(path, "me", patience=0):
        pass


def test_a_child_that_inherits_the_descriptor_goes_on_holding_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "envs"
    with locks.held(path, "python_env") as handle:
        child = subprocess.Popen(["sleep", "60"], pass_fds=[handle])
    try:
        with pytest.raises(locks.HeldError), locks.held(path, "me", patience=0):
            pass
    finally:
        child.kill()
        child.wait()
    with locks.held(path, "me", patience=0):
        pass


def test_a_waiting_module_fails_as_modules_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(locks.os, "geteuid", lambda: 0)
    with locks.turn("munge_key", folder=str(tmp_path)):
        with pytest.raises(SystemExit), locks.turn("munge_key", 0, str(tmp_path)):
            pytest.fail("two at once")
        said = json.loads(capsys.readouterr().out)
        with locks.turn("hosts_block", 0, str(tmp_path)):
            pass  # another kind of work
    assert said["failed"] is True
    assert said["msg"].startswith("Nothing was changed. Another run has been at work for 0 seconds: munge_key, process ")


def test_a_lease_spans_the_processes_of_its_run_and_keeps_others_out(tmp_path: Path, clock: Clock) -> None:
    mine = lease(tmp_path, "one", clock)
    with mine.turn(0):
        mine.keep(60)
    clock.now += 20
    with (
        pytest.raises(locks.HeldError, match=r"one at labserver, since .* was killed, its lock ends by itself in 40 seconds"),
        lease(tmp_path, "two", clock).turn(0),
    ):
        pass
    with lease(tmp_path, "one", clock).turn(0):
        pass  # not kept: free from now on
    with lease(tmp_path, "two", clock).turn(0):
        pass


def test_a_lease_of_a_run_that_died_ends_by_itself(tmp_path: Path, clock: Clock) -> None:
    mine = lease(tmp_path, "one", clock)
    with mine.turn(0):
        mine.keep(60)
    clock.now += 61
    other = lease(tmp_path, "two", clock)
    with other.turn(0):
        other.keep(60)
    with pytest.raises(locks.HeldError, match="two at labserver"), lease(tmp_path, "one", clock).turn(0):
        pass  # it came back too late


def test_a_lease_of_a_run_that_is_known_to_be_dead_is_free_at_once(tmp_path: Path, clock: Clock) -> None:
    mine = lease(tmp_path, "one", clock)
    with mine.turn(0):
        mine.keep(60)
    with pytest.raises(locks.HeldError) as held, lease(tmp_path, "two", clock).turn(0):
        pass
    assert held.value.run == "one"
    with locks.Lease("ssh", "two", "x", held.value.run, folder=str(tmp_path), clock=clock).turn(0):
        pass


def test_an_error_frees_the_lease_unless_it_was_to_be_kept(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(SystemExit), lease(tmp_path, "one", clock).turn(0):
        raise SystemExit(1)
    with lease(tmp_path, "two", clock).turn(0):
        pass


def test_a_turn_that_is_waited_for_comes(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "ssh"
    code = (
        f"import time\nfrom {locks.__name__} import Lease\nwith Lease('ssh', 'one', 'x', folder={str(tmp_path)!r}).turn(0):\n"
        "    print('held', flush=True)\n    time.sleep(1)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ":".join(sys.path)}
    ) as other:
        assert other.stdout
        other.stdout.readline()
        began = time.monotonic()
        with lease(tmp_path, "two", clock).turn(30):
            assert time.monotonic() - began > 0.3
    assert path.read_text() == ""


@pytest.mark.parametrize("text", ["", "garbage", "[]", '{"run": "x"}'])
def test_a_damaged_lease_locks_nobody_out(tmp_path: Path, clock: Clock, text: str) -> None:
    (tmp_path / "ssh").write_text(text)
    with lease(tmp_path, "one", clock).turn(0):
        pass
