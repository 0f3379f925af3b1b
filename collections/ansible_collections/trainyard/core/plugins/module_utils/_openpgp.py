# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Public keys in files as apt takes them: which there are, and the file without some of them.

Nodes need not have gpg for that. Signatures are never judged here; that is apt's part.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ARMOUR = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
_BLOCK = re.compile(rb"-----BEGIN PGP PUBLIC KEY BLOCK-----(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.S)
_PUBLIC_KEY = 6  # the packet that a certificate begins with
_OTHER_PARTS = {2, 12, 13, 14, 17}  # signatures, trust, names, subkeys, attributes


class NoKeyError(ValueError):
    """The content is no file of public keys."""


@dataclass(frozen=True)
class Certificate:
    """A public key with all that belongs to it.

    Attributes:
        fingerprint: of the primary key, 40 hexadecimal digits in upper case; empty for a version other than 4.
        content: its bytes, without armour.
    """

    fingerprint: str
    content: bytes


def is_armoured(content: bytes) -> bool:
    """Return whether a file is text."""
    return content.lstrip().startswith(ARMOUR) or _BLOCK.search(content) is not None


def _binary(content: bytes) -> bytes:
    if not is_armoured(content):
        return content
    parts = []
    for block in _BLOCK.findall(content):
        # Headers end with an empty line; a line with "=" is the checksum.
        _headers, blank, body = block.replace(b"\r", b"").strip(b"\n").partition(b"\n\n")
        lines = (body if blank else block).split(b"\n")
        text = b"".join(line.strip() for line in lines if line.strip() and not line.startswith(b"=") and b":" not in line)
        try:
            parts.append(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError) as error:
            raise NoKeyError(f"its armour cannot be read ({error})") from error
    return b"".join(parts)


def _packets(content: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield tag, body, and the whole packet."""
    at = 0
    while at < len(content):
        start, head = at, content[at]
        at += 1
        if not head & 0x80:
            raise NoKeyError("it holds no OpenPGP packets")
        try:
            if head & 0x40:
                tag, first = head & 0x3F, content[at]
                if first < 192:
                    length, at = first, at + 1
                elif first < 224:
                    length, at = ((first - 192) << 8) + content[at + 1] + 192, at + 2
                elif first == 255:
                    length, at = int.from_bytes(content[at + 1 : at + 5], "big"), at + 5
                else:
                    raise NoKeyError("it holds a packet of unknown length")
            else:
                tag, size = (head >> 2) & 0x0F, 1 << (head & 3)
                if size == 8:
                    raise NoKeyError("it holds a packet of unknown length")
                length, at = int.from_bytes(content[at : at + size], "big"), at + size
        except IndexError as error:
            raise NoKeyError("it ends in the middle of a packet") from error
        if at + length > len(content):
            raise NoKeyError("it ends in the middle of a packet")
        yield tag, content[at : at + length], content[start : at + length]
        at += length


def _fingerprint(body: bytes) -> str:
    if body[:1] != b"\x04":
        return ""
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()


def certificates(content: bytes) -> list[Certificate]:
    """Return the public keys in a file, armoured or not.

    Raises:
        NoKeyError: it is no such file; the text is the end of a sentence.
    """
    found: list[tuple[str, list[bytes]]] = []
    for tag, body, whole in _packets(_binary(content)):
        if tag == _PUBLIC_KEY:
            found.append((_fingerprint(body), [whole]))
        elif tag in _OTHER_PARTS and found:
            found[-1][1].append(whole)
        else:
            raise NoKeyError("it holds something else than public keys")
    if not found:
        raise NoKeyError("there is no key in it")
    return [Certificate(fingerprint, b"".join(parts)) for fingerprint, parts in found]


def names(fingerprint: str, ids: Iterable[str]) -> bool:
    """Return whether a fingerprint is among fingerprints or key ids."""
    return bool(fingerprint) and any(fingerprint.endswith(one.replace(" ", "").upper()) for one in ids)


def without(content: bytes, ids: Iterable[str]) -> bytes | None:
    """Return a file's keys without those of some fingerprints or key ids, not armoured; None where none of them is in it.

    Raises:
        NoKeyError: it is no file of public keys.
    """
    wanted = list(ids)
    all_of_them = certificates(content)
    kept = [one.content for one in all_of_them if not names(one.fingerprint, wanted)]
    return None if len(kept) == len(all_of_them) else b"".join(kept)
