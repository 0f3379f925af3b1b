# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Work in a user's home, done with the user's rights: what the user has put in the way leads no further than the user could go."""

from __future__ import annotations

import json
import os
import pwd
import select
import signal
import time
from collections.abc import Callable
from typing import Any

SECONDS = 20.0  # what a user mounted in the home may never answer
MOST = 2**20  # bytes of a result


class UserError(Exception):
    """The work could not be done; the message says why."""


def run(account: pwd.struct_passwd, work: Callable[[], dict[str, Any]], seconds: float = SECONDS) -> dict[str, Any]:
    """Do something in a process of its own with an account's rights, and return the result.

    Args:
        account: whose rights.
        work: what to do; its result has to be fit for JSON.
        seconds: how long it may take.

    Raises:
        UserError: it failed, or took too long.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _work(account, work, writer)
    os.close(writer)
    try:
        text = _read(reader, time.monotonic() + seconds)
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)  # it has answered, or never will
        os.waitpid(child, 0)
    answer: dict[str, Any] = json.loads(text) if text else {"problem": "the process ended without a result"}
    if "problem" in answer:
        raise UserError(str(answer["problem"]))
    result: dict[str, Any] = answer["result"]
    return result


def _work(account: pwd.struct_passwd, work: Callable[[], dict[str, Any]], writer: int) -> None:
    """Be the child; never returns."""
    try:
        if os.geteuid() == 0:
            os.initgroups(account.pw_name, account.pw_gid)
            os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
            os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
        os.umask(0o077)
        os.chdir("/")
        answer: dict[str, Any] = {"result": work()}
    except Exception as error:  # whatever it was, the parent says it
        answer = {"problem": str(error) or type(error).__name__}
    try:
        os.write(writer, json.dumps(answer).encode() + b"\n")
    finally:
        os._exit(0)


def _read(reader: int, end: float) -> str:
    """Return the child's line.

    Raises:
        UserError: it did not come in time.
    """
    text = b""
    while not text.endswith(b"\n"):
        ready = select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]
        if not ready:
            raise UserError("it took too long")
        part = os.read(reader, 65536)
        if not part or len(text) > MOST:
            return ""
        text += part
    return text.decode()
