# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""NVIDIA's installer for the driver, the runfile: what it is asked for, and what is known of an installation of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

_VERSION = re.compile(r"\d{3}\.\d{2,3}(\.\d{2})?\Z")
_URL = re.compile(r"(https?://[^/\s]+/|file:/)\S*\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
FLAVOURS = ("open", "proprietary")


def problems(wish: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each parameter of the module nvidia_runfile that cannot be meant."""
    if wish["state"] == "absent":
        return []
    found = []
    if not _URL.match(wish["url"] or ""):
        found.append(f"url: {wish['url']!r} is no address of a file; right is https://, http:// or file:/.")
    if not _SHA256.match(wish["sha256"] or ""):
        found.append(f"sha256: {wish['sha256']!r} is no SHA-256; right are 64 hexadecimal digits in lower case.")
    if not _VERSION.match(wish["version"] or ""):
        found.append(f"version: {wish['version']!r} is no version of a driver; right is such as 580.95.05.")
    if wish["modules"] not in FLAVOURS:
        found.append(f"modules: {wish['modules']!r} is neither open nor proprietary.")
    return found


def arguments(version: str, modules: str, kernel: str) -> list[str]:
    """Return the installer's options: without a question, with DKMS, of one flavour, for a kernel ('' for the running one), nothing loaded.

    Nothing is loaded so that a driver that runs is not disturbed; the first program that asks for a GPU loads the module.
    """
    branch = int(version.partition(".")[0])
    words = ["--silent", "--ui=none", "--no-questions", "--dkms", "--no-x-check", "--no-nouveau-check"]
    if branch >= 560:
        words.append(f"--kernel-module-type={modules}")
    elif branch >= 515 and modules == "open":
        words.append("--kernel-module-build-directory=kernel-open")  # what the option was called before both flavours were on a par
    if branch >= 535:
        words.append("--skip-module-load")
    if kernel:
        words.append(f"--kernel-name={kernel}")
    return words


def version_inside(head: bytes) -> str:
    """Return the driver's version that a runfile names in its first lines; empty where it names none."""
    match = re.search(rb"^version_string=[\"']?([\d.]+)", head, re.M)
    return match.group(1).decode() if match else ""


def installed_version(log: str) -> str:
    """Return the version of the driver that the installer wrote down in its list of installed files; empty where there is none.

    It wrote MAJOR.MINOR-PATCH once, so that the last part may stand behind a hyphen.
    """
    first = log.partition("\n")[0].strip()
    return first.replace("-", ".") if re.match(r"\d+[\d.-]*\Z", first) else ""


def read_note(text: str) -> dict[str, str]:
    """Read what the module wrote down of an installation: version, modules, sha256, and whether it was finished."""
    try:
        note = json.loads(text)
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in note.items()} if isinstance(note, dict) else {}


def in_the_way(installed: Iterable[str], patterns: Iterable[str], ours: Iterable[str]) -> list[str]:
    """Return the installed packages of a driver that somebody else put there."""
    wanted, own = list(patterns), set(ours)
    return sorted({name for name in installed if name not in own and any(fnmatchcase(name, pattern) for pattern in wanted)})
