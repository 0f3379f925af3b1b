# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""run-one: one command at a time on a GPU, or on a node without any. Others wait; nothing of the GPU's own settings is touched."""

from __future__ import annotations

import argparse
import errno
import fcntl
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .errors import NOT_OWN, UNAVAILABLE, RefusedError
from .options import _number, _Parser

MOST_GPUS = 64
"""Bytes of the lock file that stand for GPUs; a node without GPUs uses the first."""
BUSY = 75
"""Exit status with --no-wait while somebody else runs (EX_TEMPFAIL)."""
EXAMPLES = """
examples:
  When a GPU is free (or, on a node without any, when nobody else runs something this way):
    run-one python train.py
  On all GPUs of the node:
    run-one --exclusive python train.py

The command sees its GPU alone (CUDA_VISIBLE_DEVICES). In a cluster, jobs under Slurm have their GPUs from Slurm: do not mix the two
on one node.
"""


def gpus(devices: Path = Path("/dev")) -> list[int]:
    """Return the numbers of the node's GPUs."""
    return sorted(int(path.name[6:]) for path in devices.glob("nvidia[0-9]*") if re.fullmatch(r"nvidia\d+", path.name))


def take(lock: int, places: Sequence[int], all_of_them: bool) -> list[int]:
    """Lock one place, or all of them, and return which; empty where they are taken. The kernel lets go when the process ends."""
    if all_of_them:
        return list(places) if _locked(lock, 0, MOST_GPUS) else []
    return next(([place] for place in places if _locked(lock, place, 1)), [])


def _locked(lock: int, start: int, length: int) -> bool:
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EAGAIN}:
            return False
        raise
    return True


def main(words: Sequence[str], lock_file: Path) -> int:
    """Wait for a place, run the command there, and return its exit status."""
    made = _Parser(
        prog="run-one",
        description="Run one command at a time on a GPU.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--exclusive", action="store_true", help="take all GPUs of the node")
    made.add_argument("--gpu", type=_number, default=None, metavar="N", help="this one (default: the first that is free)")
    made.add_argument("--no-wait", action="store_true", help=f"end with status {BUSY} instead of waiting")
    made.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="and its words")
    chosen = made.parse_args(words)
    if chosen.command[:1] == ["--"]:
        del chosen.command[0]
    if not chosen.command:
        made.error("name the command to run")
    there = gpus()
    if chosen.gpu is not None and chosen.gpu not in there:
        raise RefusedError(f"--gpu: the node has no GPU {chosen.gpu}. It has: {', '.join(map(str, there)) or 'none'}.")
    places = [chosen.gpu] if chosen.gpu is not None else there or [0]
    try:
        lock = os.open(lock_file, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise RefusedError(f"{lock_file}: {error.strerror}. Bring the role training to this node.", UNAVAILABLE) from error
    found = os.fstat(lock)
    if found.st_uid not in {0, os.geteuid()} or not stat.S_ISREG(found.st_mode):
        raise RefusedError(
            f"{lock_file} is not used, since it is not root's: its owner could keep everybody waiting. Ask root to run: "
            f"rm {lock_file} && systemd-tmpfiles --create",
            NOT_OWN,
        )
    said = False
    while not (mine := take(lock, places, chosen.exclusive)):
        if chosen.no_wait:
            print("run-one: somebody else is running.", file=sys.stderr)
            return BUSY
        if not said:
            print("run-one: somebody else is running; waiting.", file=sys.stderr, flush=True)
            said = True
        time.sleep(0.5)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(map(str, mine))} if there else dict(os.environ)
    return _run(chosen.command, environment)


def _run(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run a command in the foreground, passing on what ends it, and return its exit status as a shell would."""
    try:
        process = subprocess.Popen(command, env=environment)
    except OSError as error:
        print(f"run-one: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127 if error.errno == errno.ENOENT else 126
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, lambda number, _frame: process.send_signal(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells the command itself
    status = process.wait()
    return status if status >= 0 else 128 - status
