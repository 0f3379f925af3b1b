# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""A vendor's package repository as one source with one key: its files, other sources of it, and apt's complaints in words."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
_URL = re.compile(r"(https?://[^/\s]+/|file:/)[^\s\[\]]*\Z")
_FINGERPRINT = re.compile(r"[0-9A-F]{40}\Z")
_KEY_ID = re.compile(r"[0-9A-F]{8,40}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_PACKAGE = re.compile(r"(src:)?[a-z0-9*?][a-z0-9+.*?:-]*\Z")
_VERSION = re.compile(r"[0-9A-Za-z.+:~*?-]+\Z")

BRANCH_PRIORITY = 1001
"""From 1000 on, apt also goes back to an older version, which another branch may be."""


def bare(fingerprint: str) -> str:
    """Return a fingerprint without spaces, in upper case."""
    return fingerprint.replace(" ", "").upper()


def problems(wish: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each parameter of the module vendor_repository that cannot be meant."""
    found = []
    if not _NAME.match(wish["name"]):
        found.append(f"name: {wish['name']!r} is no name for files; right are lower-case letters, digits and - between them.")
    if not re.match(r"[a-z0-9_]+\Z", wish["owner"]):
        found.append(f"owner: {wish['owner']!r} is no name; right are lower-case letters, digits and _.")
    if wish["state"] == "absent":
        return found
    if not _URL.match(wish["url"] or ""):
        found.append(f"url: {wish['url']!r} is no address of a repository; right is https://, http:// or file:/, without spaces.")
    if not (wish["suite"].endswith("/") or wish["components"]):
        found.append(f"components: the suite {wish['suite']!r} needs some; right is a list such as [main], or a suite that ends with /.")
    if not wish["fingerprints"]:
        found.append("fingerprints: there is none; right is the fingerprint of the key, 40 hexadecimal digits.")
    found += [
        f"fingerprints: {one!r} is no fingerprint; right are 40 hexadecimal digits, a key id is too short to be safe."
        for one in wish["fingerprints"]
        if not _FINGERPRINT.match(bare(one))
    ]
    found += [
        f"revoked: {one!r} is no key; right are 8 to 40 hexadecimal digits." for one in wish["revoked"] if not _KEY_ID.match(bare(one))
    ]
    if wish["key_sha256"] and not _SHA256.match(wish["key_sha256"]):
        found.append(f"key_sha256: {wish['key_sha256']!r} is no SHA-256; right are 64 hexadecimal digits in lower case.")
    for pin in wish["pins"]:
        bad = [name for name in pin["packages"] if not _PACKAGE.match(name)]
        if bad or not pin["packages"]:
            found.append(f"pins: {', '.join(bad) or 'nothing'} cannot name packages; right are names, which may hold * and ?, or src:NAME.")
        if not _VERSION.match(pin["version"]):
            found.append(f"pins: {pin['version']!r} is no version; right is such as 580.* or 9.10.2.21-1.")
    return found


# --- Our files --------------------------------------------------------------------------------------------------------


def source_file(owner_words: str, url: str, suite: str, components: Sequence[str], architectures: Sequence[str], keyring: str) -> str:
    """Return the text of the deb822 file of the repository."""
    lines = [f"# {owner_words}", "Types: deb", f"URIs: {url}", f"Suites: {suite}"]
    if components:
        lines.append(f"Components: {' '.join(components)}")
    if architectures:
        lines.append(f"Architectures: {' '.join(architectures)}")
    return "\n".join([*lines, f"Signed-By: {keyring}"]) + "\n"


def release_fields(text: str) -> dict[str, str]:
    """Read the head of a Release or InRelease file: field in lower case -> value."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = re.match(r"(Origin|Label|Suite|Codename|Date|Valid-Until):\s*(.*\S)", line)
        if match:
            found.setdefault(match.group(1).lower(), match.group(2))
    return found


def pin_of(release: Mapping[str, str], host: str) -> str:
    """Return what apt knows the repository by: what it calls itself, or else the server's name."""
    parts = [f"{letter}={release[field]}" for letter, field in (("o", "origin"), ("l", "label")) if "," not in release.get(field, ",")]
    return f"release {','.join(parts)}" if parts else f'origin "{host}"'


def preferences(words: str, stanzas: Iterable[tuple[Sequence[str], str, int]]) -> str:
    """Return the text of a file of preferences; empty without stanzas.

    Args:
        words: a comment.
        stanzas: names of packages, what they are pinned by, and the priority.
    """
    texts = [f"Package: {' '.join(names)}\nPin: {pin}\nPin-Priority: {priority}\n" for names, pin, priority in stanzas]
    return f"# {words}\n" + "\n".join(texts) if texts else ""


def read_pin(text: str) -> str:
    """Return what a file of preferences that has one stanza pins by; empty where it has none."""
    match = re.search(r"^Pin: (.+)$", text, re.M)
    return match.group(1) if match else ""


# --- Other sources of the same repository -----------------------------------------------------------------------------


def plain(uri: str) -> str:
    """Return a repository's address without what does not tell it from another: protocol, account, port of the protocol, slashes."""
    text = re.sub(r"^(?:[a-z]+\+)*", "", uri.strip())
    if text.startswith(("file:", "copy:")):
        return "file:" + (re.sub(r"/{2,}", "/", text.partition(":")[2]).rstrip("/") or "/")
    rest = re.sub(r"^[a-z]+:/+", "", text)
    server, _slash, path = rest.partition("/")
    server = re.sub(r":(80|443)$", "", server.rpartition("@")[2].lower())
    return f"{server}/{path}".replace("//", "/").rstrip("/")


def is_one_of(uri: str, prefixes: Iterable[str]) -> bool:
    """Return whether a repository's address begins with one of some others; one that ends with ``-`` may end within a name."""
    address = plain(uri)
    for prefix in map(plain, prefixes):
        if address == prefix or (address.startswith(prefix) and (prefix.endswith("-") or address[len(prefix)] == "/")):
            return True
    return False


_LINE = re.compile(r"\s*deb(?:-src)?\s+(?:\[[^]]*\]\s*)?(\S+)")


class MixedSourceError(ValueError):
    """A source names the repository and others at once, so that it cannot be set aside for the one alone; the text says which."""


def set_aside(text: str, deb822: bool, prefixes: Collection[str], mark: str) -> tuple[str, list[str]]:
    """Comment out those sources in a file that are of the repository.

    Args:
        text: the file.
        deb822: whether it is of the newer format, in a file that ends in ``.sources``.
        prefixes: addresses, as for `is_one_of`.
        mark: what a line is begun with, from ``#`` on; `put_back` finds the lines by it.

    Returns:
        the new text, and the addresses that were set aside.

    Raises:
        MixedSourceError: see there.
    """
    found: list[str] = []
    lines = text.splitlines(keepends=True)
    if not deb822:
        for number, line in enumerate(lines):
            match = _LINE.match(line)
            if match and is_one_of(match.group(1), prefixes):
                found.append(match.group(1))
                lines[number] = mark + line
        return "".join(lines), found
    start = 0
    for end in range(len(lines) + 1):
        if end < len(lines) and lines[end].strip():
            continue
        stanza = lines[start:end]
        uris = _uris(stanza)
        ours = [uri for uri in uris if is_one_of(uri, prefixes)]
        if ours and len(ours) < len(uris):
            raise MixedSourceError(", ".join(uri for uri in uris if uri not in ours))
        if ours:
            found += ours
            lines[start:end] = [mark + line for line in stanza]
        start = end + 1
    return "".join(lines), found


def _uris(stanza: Iterable[str]) -> list[str]:
    """Return the addresses in a stanza that is in force."""
    fields: dict[str, str] = {}
    name = ""
    for line in stanza:
        if line.startswith("#"):
            continue
        if line[:1] in {" ", "\t"}:
            fields[name] = f"{fields.get(name, '')} {line.strip()}"
        else:
            name, _colon, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return (
        [] if fields.get("enabled", "yes").lower() in {"no", "false", "off", "0", "without", "disable"} else fields.get("uris", "").split()
    )


def put_back(text: str, mark: str) -> str:
    """Undo `set_aside`; what else was changed in the file since stays."""
    return "".join(line[len(mark) :] if line.startswith(mark) else line for line in text.splitlines(keepends=True))


# --- apt's complaints -------------------------------------------------------------------------------------------------

_COMPLAINTS = (
    (r"Conflicting values set for option Signed-By.*", "Another source of the same repository demands another key: {0}"),
    (
        r"(?:EXPKEYSIG|KEYEXPIRED|EXPSIG)[^\n]*|[^\n]*(?:certificate|key) is not alive[^\n]*|[^\n]*[Ee]xpired on[^\n]*",
        "The key or the signature has expired: {0}",
    ),
    (r"REVKEYSIG[^\n]*|[^\n]*(?:certificate|key) is revoked[^\n]*", "The key that signed it was revoked: {0}"),
    (
        r"BADSIG[^\n]*|[^\n]*[Bb]ad signature[^\n]*|[^\n]*Message has been manipulated[^\n]*",
        "The signature is wrong, the list was altered on the way: {0}",
    ),
    (r"NO_PUBKEY \w+|Missing key \w+[^\n]*", "It is signed by another key than the one that was given: {0}"),
    (
        r"[^\n]*Release file[^\n]*is expired[^\n]*|[^\n]*Valid-Until[^\n]*|[^\n]*no longer valid[^\n]*",
        "Its lists are too old, the mirror may be stale: {0}",
    ),
    (r"[^\n]*not valid yet[^\n]*", "Its lists are of the future; is the node's clock right? {0}"),
    (r"[^\n]*is not signed[^\n]*|[^\n]*does not have a Release file[^\n]*", "There is no signed repository at this address: {0}"),
    (
        r"[^\n]*(?:Could not resolve|Could not connect|Connection (?:failed|timed out)|Temporary failure)[^\n]*",
        "The server cannot be reached: {0}",
    ),
    (r"[^\n]*(?:Certificate verification failed|certificate chain)[^\n]*", "The server's TLS certificate is not trusted: {0}"),
    (r"[^\n]*(?:404\s+Not Found|File not found)[^\n]*", "There is nothing at this address: {0}"),
    (
        r"[^\n]*(?:Hash Sum mismatch|unexpected size)[^\n]*",
        "Its files do not fit its signed list, the mirror may be in the middle of an update: {0}",
    ),
)


def complaint(output: str) -> str:
    """Return what apt-get update complained of, as a sentence that says what it means, and apt's own words."""
    for pattern, words in _COMPLAINTS:
        match = re.search(pattern, output)
        if match:
            said = re.sub(r"^(?:E|W|Err:\d+):?\s*", "", match.group(0).strip())
            return words.format(said)
    lines = [line.strip() for line in output.splitlines() if line.startswith(("E:", "W:"))]
    return f"apt says: {' '.join(lines)[-800:] or output.strip()[-800:]}"
