# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Environments that go from one machine to another: whether they fit there, and whether they came as they were sent."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import stat
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

HEAD, INDEX = "head", "index"  # where an environment came from
FETCH = ("--recursive", "--links", "--perms", "--times", "--modify-window=-1", "--timeout=60", "--no-motd")
LINKED_TO = 20  # folders that rsync takes for --link-dest
GREETING = b"@RSYNCD:"
SERVED = re.compile(r"rsync://[0-9A-Za-z.:\[\]-]+:\d+/\w+\Z")
"""What the URL of served environments looks like; it goes into a command line."""

# Files by device and inode, and their sums: environments share files by hard links.
Known = dict[tuple[int, int], str]


def platform(version: str, interpreter: str, folder: str) -> dict[str, str]:
    """Return what has to be the same for an environment of one machine to run on another.

    Args:
        version: of Python, in full.
        interpreter: what the environment stands on.
        folder: where the environment is; its programs name it.
    """
    said = dict(line.partition("=")[::2] for line in Path("/etc/os-release").read_text().splitlines())
    return {
        "release": " ".join(said.get(key, "").strip("\"'") for key in ("ID", "VERSION_ID")),
        "machine": os.uname().machine,
        "python": version,
        "interpreter": os.path.realpath(interpreter),
        "folder": folder,
    }


def tree_digest(root: str, left_out: Collection[str] = (), known: Known | None = None) -> str:
    """Return one SHA-256 of all that is in an environment's folder: paths, kinds, modes, targets of links, contents of files.

    Args:
        root: the folder.
        left_out: names right in it that do not count.
        known: sums of files that were read before; those of this folder are added.
    """
    known = {} if known is None else known
    entries = list(_entries(root, "", left_out))
    files = {(state.st_dev, state.st_ino): path for path, state in entries if stat.S_ISREG(state.st_mode)}
    new = [key for key in files if key not in known]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        known.update(pool.map(lambda key: (key, _sum(f"{root}/{files[key]}")), new))
    total = hashlib.sha256()
    for path, state in entries:
        content = ""
        if stat.S_ISREG(state.st_mode):
            content = known[state.st_dev, state.st_ino]
        elif stat.S_ISLNK(state.st_mode):
            content = os.readlink(f"{root}/{path}")
        mode = 0 if stat.S_ISLNK(state.st_mode) else stat.S_IMODE(state.st_mode)
        total.update(os.fsencode(f"{path}\0{stat.S_IFMT(state.st_mode):o} {mode:o}\0{content}\0"))
    return total.hexdigest()


def _entries(root: str, below: str, left_out: Collection[str]) -> Iterator[tuple[str, os.stat_result]]:
    for entry in sorted(os.scandir(f"{root}/{below}"), key=lambda entry: entry.name):
        if not below and entry.name in left_out:
            continue
        yield f"{below}{entry.name}", entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(root, f"{below}{entry.name}/", left_out)


def _sum(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as content:
        while block := content.read(1_000_000):
            digest.update(block)
    return digest.hexdigest()


def server(configuration: str) -> str:
    """Return the URL of what is served by a configuration of rsync's daemon, '' where there is none."""
    try:
        lines = Path(configuration).read_text().splitlines()
    except OSError:
        return ""
    said = {key.strip(): value.strip() for key, _equals, value in (line.partition("=") for line in lines)}
    module = next((line.strip()[1:-1] for line in lines if line.strip().startswith("[")), "")
    address = said.get("address", "")
    return f"rsync://{f'[{address}]' if ':' in address else address}:{said.get('port', '')}/{module}"


def silent(url: str, patience: float = 5) -> str:
    """Return why the server of a URL cannot be asked, '' where it can."""
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), patience) as line:
            line.settimeout(patience)
            said = line.recv(len(GREETING), socket.MSG_WAITALL)
    except OSError as error:
        return f"{parts.netloc} does not answer ({error})"
    return "" if said == GREETING else f"{parts.netloc} is no rsync"
