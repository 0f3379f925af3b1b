# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Locks on a node, so that two runs at once do not get in each other's way.

`held` is a lock for as long as a process works; the kernel frees it when the process ends, however it ends. `Lease` is a lock for work that
several connections do one after another: nothing on the node lives as long as that work, so it ends by itself after a time.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files

FOLDER = "/run/trainyard/locks"
"""Gone after a reboot, as whatever held a lock is."""
PATIENCE = 180.0
"""Seconds that a module waits for another one of its kind."""
POLL = 0.2

Clock = Callable[[], float]


class HeldError(Exception):
    """Another run holds the lock; the text names it and says what to do.

    Attributes:
        run: the name of that run, where it is a lease.
    """

    def __init__(self, text: str, run: str = "") -> None:
        super().__init__(text)
        self.run = run


def boot_clock() -> float:
    """Return the seconds since the boot: nobody sets this clock, and it counts on while a machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def open_lock(path: str | Path) -> int:
    """Open a lock's file, which root alone may open: who can open a lock can hold it."""
    host_files.make_folders(os.path.dirname(path))
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _try(handle: int, path: str | Path) -> bool:
    """Try to lock a file; say whether that went well and it is still the one at its path, which an undo may have removed."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False


def _read(handle: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(handle, 4096, 0) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _write(handle: int, record: dict[str, Any]) -> None:
    os.ftruncate(handle, 0)
    if record:
        os.pwrite(handle, json.dumps(record).encode(), 0)


def _holder(record: dict[str, Any]) -> str:
    """Return who holds a lock, in words."""
    if not record:
        return "a run that did not leave its name"
    return f"{record.get('by')}, since {time.strftime('%H:%M:%S', time.localtime(float(record.get('since', 0))))} by this node's clock"


def me(what: str) -> str:
    """Return the name of this process as a holder."""
    user = os.environ.get("SUDO_USER", "")
    if not user:
        with suppress(KeyError, OSError):
            user = getpass.getuser()
    return f"{what}, process {os.getpid()} of {user or os.geteuid()}"


@contextmanager
def held(path: str | Path, what: str, patience: float = PATIENCE) -> Iterator[int]:
    """Hold a lock, and give its file descriptor; a child that inherits it holds the lock as well.

    Args:
        path: its file.
        what: what the lock is for, such as a module's name.
        patience: how many seconds to wait for another holder.

    Raises:
        HeldError: another one holds it for longer.
    """
    end = time.monotonic() + patience
    while True:
        handle = open_lock(path)
        try:
            if _try(handle, path):
                _write(handle, {"by": me(what), "since": time.time()})
                try:
                    yield handle
                finally:
                    _write(handle, {})
                return
            record = _read(handle)
        finally:
            os.close(handle)
        if time.monotonic() > end:
            raise HeldError(
                f"Another run has been at work for {patience:.0f} seconds: {_holder(record)}. Run this again when it has ended. "
                f"On the node, `fuser -v {path}` shows its processes."
            )
        time.sleep(POLL)


@contextmanager
def turn(what: str, patience: float = PATIENCE, folder: str = FOLDER) -> Iterator[None]:
    """Let one module of a kind work on the node at a time; one that waits in vain fails as modules do.

    Args:
        what: the module's name.
        patience: how many seconds to wait.
        folder: of the locks.
    """
    if os.geteuid() != 0:  # it will fail by itself, and says why
        yield
        return
    try:
        with held(os.path.join(folder, what), what, patience):
            yield
    except HeldError as error:
        # Its arguments are not read yet, so there is no AnsibleModule to fail with.
        sys.stdout.write(json.dumps({"failed": True, "msg": f"Nothing was changed. {error}"}) + "\n")
        raise SystemExit(1) from None


class Lease:
    """A lock that spans several processes of one run, and ends by itself when that run does not come back.

    Attributes:
        run: name of the run; a process of the same run gets the lock back at once.
        abandoned: name of a run that is known to have ended: its lease is free.
    """

    def __init__(self, name: str, run: str, by: str, abandoned: str = "", *, folder: str = FOLDER, clock: Clock = boot_clock) -> None:
        self.path = os.path.join(folder, name)
        self.run = run or f"process {os.getpid()}"
        self.by = by or me(name)
        self.abandoned = abandoned
        self._clock = clock
        self._keep = 0.0

    def keep(self, seconds: float) -> None:
        """Keep the lock when this process's turn is over, for so long; without this it is free then."""
        self._keep = seconds

    @contextmanager
    def turn(self, patience: float) -> Iterator[None]:
        """Hold the lock while this process works.

        Args:
            patience: how many seconds to wait for another run.

        Raises:
            HeldError: another run holds it for longer.
        """
        end = time.monotonic() + patience
        since = time.time()
        while True:
            handle = open_lock(self.path)
            try:
                mine = _try(handle, self.path)
                record = _read(handle)
                left = float(record.get("until", 0)) - self._clock()
                other = bool(record) and record.get("run") not in {self.run, self.abandoned}
                if mine and not (other and left > 0):
                    if record.get("run") == self.run:
                        since = float(record.get("since", since))
                    _write(handle, {"run": self.run, "by": self.by, "since": since, "until": 0})
                    self._keep = 0.0
                    try:
                        yield
                    finally:
                        until = self._clock() + self._keep
                        _write(handle, {"run": self.run, "by": self.by, "since": since, "until": until} if self._keep else {})
                    return
            finally:
                os.close(handle)
            if time.monotonic() >= end:
                ends = f" If that run was killed, its lock ends by itself in {left:.0f} seconds." if other and left > 0 else ""
                raise HeldError(
                    f"Another run is doing the same on this node: {_holder(record)}. It was waited for during {patience:.0f} seconds. "
                    f"Run this again when it has ended.{ends}",
                    str(record.get("run", "")),
                )
            time.sleep(POLL)
