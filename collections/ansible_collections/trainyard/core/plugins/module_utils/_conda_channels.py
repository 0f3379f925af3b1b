# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""What channels of conda tell before anything is on the node that could solve an environment: whether they answer, and what they have.

What speaks HTTP is imported where it is used: most runs ask nobody, and importing takes its time.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence

from ansible_collections.trainyard.core.plugins.module_utils._package_sources import bare, opener_for, without_credentials

TRIES = 4  # as many as rattler's
BLOCK = 1_000_000
LONGEST = 150_000_000  # bytes of an index that are read; what comes after them gets the benefit of the doubt
OVERLAP = 300  # bytes; no name of a package is longer

_SPEC = re.compile(r"^(?:.*::)?\s*([A-Za-z0-9_.-]+)")


class _SilentError(Exception):
    """A channel that does not answer; the text says how."""


def names_of(specs: Sequence[str]) -> list[str]:
    """Return the names of packages in what conda's users write, such as numpy of "conda-forge::numpy >=2"."""
    return [found[1].lower() for spec in specs if (found := _SPEC.match(spec))]


def lacking(channels: Sequence[str], names: Sequence[str], tries: int = TRIES, pause: float = 2) -> str:
    """Return why packages of these names cannot be had from channels, '' where nothing speaks against it.

    Versions, and what they need in turn, are the solver's business. An untrusted certificate does not count: on a new node its authority
    may be yet to come.
    """
    left, empty, unsure = set(names), [], False
    for url in channels:
        indexes = 0
        for platform in (f"linux-{'64' if os.uname().machine == 'x86_64' else os.uname().machine}", "noarch"):
            try:
                found, whole = _names_in(f"{url}/{platform}/repodata.json", left, tries, pause)
            except _SilentError as error:
                return f"{without_credentials(url)} {error}"
            if found is None:
                continue
            indexes += 1
            left -= found
            unsure = unsure or not whole
            if not left:
                return ""
        if not indexes:
            empty.append(without_credentials(url))
    if empty:
        return f"{', '.join(empty)} is no channel: there is no repodata.json below it"
    said = ", ".join(without_credentials(url) for url in channels)
    return "" if unsure else f"{said} has no {', '.join(sorted(left))}"


def _names_in(url: str, names: set[str], tries: int, pause: float) -> tuple[set[str] | None, bool]:
    """Return which of these names an index has (None where there is no such index), and whether all of it was read."""
    import http.client  # noqa: PLC0415
    import ssl  # noqa: PLC0415
    import urllib.error  # noqa: PLC0415
    import zlib  # noqa: PLC0415

    problem = ""
    for attempt in range(tries):
        try:
            return _read(url, names)
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                return None, True
            problem = f"answers with HTTP {error.code}"
            if error.code < 500:
                break
        except (OSError, http.client.HTTPException, zlib.error) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                return set(), False
            if isinstance(reason, FileNotFoundError):
                return None, True
            problem = f"does not answer: {reason}"
        if attempt + 1 < tries:
            time.sleep(pause)
    raise _SilentError(f"{problem} ({attempt + 1} tries)")


def _read(url: str, names: set[str]) -> tuple[set[str], bool]:
    import urllib.request  # noqa: PLC0415
    import zlib  # noqa: PLC0415

    found: set[str] = set()
    wanted = re.compile(rb'"name"\s*:\s*"(' + b"|".join(re.escape(name.encode()) for name in sorted(names)) + rb')"')
    with opener_for([url]).open(urllib.request.Request(bare(url), headers={"Accept-Encoding": "gzip"}), timeout=20) as answer:
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16) if answer.headers.get("Content-Encoding") == "gzip" else None
        read, tail = 0, b""
        while block := answer.read(BLOCK):
            text = tail + (unpacker.decompress(block) if unpacker else block)
            found.update(name.decode() for name in wanted.findall(text))
            read, tail = read + len(text) - len(tail), text[-OVERLAP:]
            if found == names or read > LONGEST:
                return found, found == names
    return found, True
