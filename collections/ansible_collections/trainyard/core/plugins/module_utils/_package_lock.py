# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Locks of Python packages: exact versions with their checksums."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[^\]]*\])?==(?P<version>[^\s;]+)(?P<rest>.*)$")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


class PythonEnvError(Exception):
    """Something that a person has to put right; the text says what."""


@dataclass(frozen=True)
class Pin:
    """One line of a lock. ``size`` is what the package takes on disk in bytes, 0 where the lock does not say."""

    name: str
    version: str
    line: str
    size: int

    @property
    def exact(self) -> str:
        """Return the line so that 2.13.0+cpu, which some folder or index may offer, does not pass for 2.13.0 as ``==`` lets it."""
        return self.line.replace("==", "===", 1)

    @property
    def hashes(self) -> frozenset[str]:
        """Return the SHA-256 sums, in hexadecimal, of the files that may be installed."""
        return frozenset(_HASH.findall(self.line))


def normalise(name: str) -> str:
    """Return a package's name in the one form that all its spellings share."""
    return re.sub(r"[-_.]+", "-", name).lower()


def same_version(one: str, other: str) -> bool:
    """Say whether two spellings mean one version; folders write ``1.0+a_b`` where locks write ``1.0+a.b``."""
    return one.replace("_", ".").replace("-", ".") == other.replace("_", ".").replace("-", ".")


def parse_lock(text: str) -> dict[str, Pin]:
    """Return what a lock pins, by normalised name.

    Raises:
        PythonEnvError: a line is not an exact version with a checksum.
    """
    pins = {}
    for line in text.replace("\\\n", " ").splitlines():
        content, _hash, comment = (" " + line).partition(" #")
        content = " ".join(content.split())
        if not content:
            continue
        found = _PIN.match(content)
        if not found or "--hash=sha256:" not in found["rest"] or ";" in found["rest"]:
            raise PythonEnvError(f"requirements: '{content[:80]}' is not of the form name==version --hash=sha256:...")
        name = normalise(found["name"])
        pins[name] = Pin(name, found["version"], content, int(comment) if comment.strip().isdigit() else 0)
    return pins
