# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Running proofs of training: some at a time, as an ordinary user, each in a place of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ansible_collections.trainyard.core.plugins.module_utils import _training_proof as training
from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._host import locks

TAIL = 20000  # bytes of a proof's output that are looked at


class AccountError(Exception):
    """Proofs can't run as the user that is named; the message says why."""


class Account(NamedTuple):
    """Whom proofs run as; `switch` holds what subprocess needs to become that user."""

    name: str
    uid: int
    gid: int
    switch: dict[str, Any]


class Running(NamedTuple):
    """A proof under way; its output is in `folder`."""

    environment: training.Environment
    folder: str
    process: subprocess.Popen[bytes]


def account_of(name: str) -> Account:
    """Return the account of a user that proofs are to run as.

    Raises:
        AccountError: there is no such user, it is root, or only root could become it.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise AccountError(
            f"The user {name!r} that is to run the proofs is not there; name an existing ordinary user, such as nobody."
        ) from None
    if entry.pw_uid == 0:
        raise AccountError(f"The user {name!r} is root; proofs run as an ordinary user, such as nobody.")
    if os.geteuid() == 0:
        groups = os.getgrouplist(name, entry.pw_gid)
        return Account(name, entry.pw_uid, entry.pw_gid, {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups})
    if os.geteuid() != entry.pw_uid:
        raise AccountError(f"Only root can run proofs as the user {name!r}; set become to true.")
    return Account(name, entry.pw_uid, entry.pw_gid, {})


def run(
    environments: Sequence[training.Environment], demand: training.Demand, account: Account, *, results: str, parallel: int = 0
) -> Iterator[tuple[training.Environment, dict[str, Any]]]:
    """Run the proofs of environments, and give each one's result as it ends.

    Args:
        environments: what to prove; there is no obstacle to any of them.
        demand: what each has to satisfy.
        account: whom to run as.
        results: the folder below which proofs run.
        parallel: how many run at a time; 0 chooses by the number of cores.
    """
    at_a_time, threads = training.degrees(len(os.sched_getaffinity(0)), len(environments), parallel)
    waiting = list(environments)
    running: list[Running] = []
    with workplace(results) as work:
        try:
            while waiting or running:
                while waiting and len(running) < at_a_time:
                    running.append(_start(waiting.pop(0), demand, account, threads, work))
                done = [proof for proof in running if proof.process.poll() is not None]
                for proof in done:
                    running.remove(proof)
                    end = training.End(
                        proof.process.returncode, *(_tail(os.path.join(proof.folder, name)) for name in ("stdout", "stderr"))
                    )
                    ran_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                    yield proof.environment, {**training.verdict(proof.environment, demand, end), "ran_at": ran_at}
                if not done:
                    time.sleep(0.05)
        finally:
            for proof in running:
                proof.process.terminate()


@contextlib.contextmanager
def workplace(results: str) -> Iterator[str]:
    """Give a folder for the proofs to run in, to one run at a time; what a run that was killed left there goes."""
    work = os.path.join(results, ".work")
    host_files.make_folders(results)
    with os.fdopen(locks.open_lock(os.path.join(results, ".lock")), "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(work, ignore_errors=True)
        host_files.make_folders(work, 0o711)  # proofs pass through, and see nothing of one another
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _start(environment: training.Environment, demand: training.Demand, account: Account, threads: int, work: str) -> Running:
    """Start a proof with a home of its own."""
    folder = tempfile.mkdtemp(dir=work)
    home = os.path.join(folder, "home")
    os.chmod(folder, 0o711)
    os.mkdir(home, mode=0o700)
    os.chown(home, account.uid, account.gid)
    with open(os.path.join(folder, "stdout"), "wb") as output, open(os.path.join(folder, "stderr"), "wb") as errors:
        process = subprocess.Popen(
            training.limited_command(environment, demand, threads),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            cwd=home,
            env=training.surroundings(home, account.name),
            **account.switch,
        )
    return Running(environment, folder, process)


def _tail(path: str) -> str:
    """Return the end of what a proof wrote."""
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
        return file.read().decode(errors="replace")


def read(path: str) -> str | None:
    """Return a file's text, or None where it can't be read."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError):
        return None


def write(path: str, text: str) -> None:
    """Put a file in place in one step."""
    host_files.write(path, text, 0o644)
