# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""sshd and the accounts of the node that this runs on: its files, what it would make of them, and who its users are."""

from __future__ import annotations

import contextlib
import glob
import grp
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping

from ansible_collections.trainyard.core.plugins.module_utils import _sshd
from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._host.steps import RefusalError
from ansible_collections.trainyard.core.plugins.module_utils._ssh import user_keys
from ansible_collections.trainyard.core.plugins.module_utils._sshd import Account, Effective, Files

SSHD = "/usr/sbin/sshd"
REPAIRS = 50


def command(*words: str) -> tuple[int, str, str]:
    """Run a command and return its status and what it printed."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, errors="replace")
    return done.returncode, done.stdout, done.stderr


def read(path: str) -> str | None:
    """Return a file's text, or None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return None


def read_users(path: str) -> str:
    """Return the text of a file that a user may have put something else in the place of, such as a FIFO; '' where it cannot be read."""
    try:
        return user_keys.read(path)
    except OSError:
        return ""


def write(path: str, text: str, mode: int) -> None:
    """Replace a file in one step, keeping its owner and mode where it exists."""
    host_files.make_folders(os.path.dirname(path))
    beside = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.trainyard")
    with open(beside, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        before = os.stat(path)
        os.chmod(beside, before.st_mode & 0o7777)
        os.chown(beside, before.st_uid, before.st_gid)
    except FileNotFoundError:
        os.chmod(beside, mode)
    os.rename(beside, path)


def configuration() -> Files:
    """Return all files that make up sshd's configuration, and all in its drop-in folder."""
    found: Files = {}
    waiting = [_sshd.MAIN, *glob.glob(_sshd.FOLDER + "/*.conf"), *_sshd.DROP_INS]
    while waiting:
        path = waiting.pop()
        text = None if path in found else read(path)
        if text is not None:
            found[path] = text
            waiting += [other for pattern in _sshd.include_patterns(text) for other in glob.glob(pattern)]
    return found


@contextlib.contextmanager
def separation_folder() -> Iterator[None]:
    """Give sshd the folder without which it judges nothing; it is there only while the daemon runs."""
    if os.path.isdir("/run/sshd"):
        yield
        return
    host_files.make_folders("/run/sshd")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.rmdir("/run/sshd")


def judge(files: Mapping[str, str], *options: str) -> tuple[Effective, str, str]:
    """Let sshd judge a configuration in a copy: what would be effective, what it complains of, and the copy's folder."""
    root = tempfile.mkdtemp(prefix="trainyard-sshd-", dir="/run" if os.path.isdir("/run") else None)
    try:
        for path, text in _sshd.staged(files, root).items():
            write(path, text, 0o600)
        with separation_folder():
            status, output, errors = command(SSHD, "-T", "-f", root + _sshd.MAIN, *options)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return (_sshd.effective(output), "", root) if status == 0 else ({}, errors, root)


def last_words(errors: str, root: str = "") -> str:
    """Return the last line of an error output that says something."""
    lines = [line.replace(root, "") if root else line for line in errors.strip().splitlines()]
    return lines[-1].strip() if lines else "no message"


def repaired(files: Files) -> tuple[Files, Effective, list[str]]:
    """Switch off the lines that sshd refuses.

    Returns:
        the files, their effective configuration, and a sentence for each line.

    Raises:
        RefusalError: sshd refuses the configuration for another reason than some lines.
    """
    changes: list[str] = []
    for _attempt in range(REPAIRS):
        rules, errors, root = judge(files)
        if not errors:
            return files, rules, changes
        found = _sshd.complaint(errors, root)
        if not found or found[0] not in files:
            break
        path, number, reason = found
        files = _sshd.switch_off(files, path, number)
        changes.append(f"switch off {path} line {number}, which sshd refuses: {reason}")
    raise RefusalError(f"sshd refuses its configuration, and not for single lines that could be switched off: {last_words(errors, root)}")


def account(name: str, rules: Effective) -> Account:
    """Return what the node knows about a user.

    Raises:
        RefusalError: there is no such user.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise RefusalError(f"There is no account '{name}' on this node, though this connection uses it.") from None
    shadow = next((line.split(":") for line in (read("/etc/shadow") or "").splitlines() if line.startswith(name + ":")), [])
    paths = _sshd.key_files(name, entry.pw_dir, entry.pw_uid, rules)
    return Account(
        name=name,
        uid=entry.pw_uid,
        groups=[grp.getgrgid(number).gr_name for number in os.getgrouplist(name, entry.pw_gid) if _is_group(number)],
        shell=entry.pw_shell or "/bin/sh",
        shell_runs=os.access(entry.pw_shell or "/bin/sh", os.X_OK),
        password=shadow[1] if len(shadow) > 1 else entry.pw_passwd,
        expires=int(shadow[7]) if len(shadow) > 7 and shadow[7].isdigit() else None,
        keys=sum(_sshd.count_keys(read_users(path)) for path in paths),
        key_files=paths,
    )


def _is_group(number: int) -> bool:
    try:
        grp.getgrgid(number)
    except KeyError:
        return False
    return True
