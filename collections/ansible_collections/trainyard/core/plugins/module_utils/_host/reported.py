# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""What a node reports of itself, checked before it reaches a file, a command, another node or a terminal.

Whoever is root on a node decides what it reports. One function for each kind of fact returns the clean value, or raises an error that
names the node, the fact and the value. What writes a file checks each part of a line once more with :func:`one_line`, whoever it came from.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

LONGEST_NAME = 63  # of one label of a host name (RFC 1123); Linux allows 64 in all
_SHOWN = 60  # characters of a refused value
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"{_LABEL}\Z")
_FQDN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\Z")
_GPU_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+/()\[\]!-]{0,79}\Z")
_GPU_TYPE = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_KERNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}\Z")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}\Z")
_PATH = re.compile(r"(?:/[A-Za-z0-9._+@=,~-]+)+\Z")


class ReportedError(ValueError):
    """A value that goes no further; the message says whose it is, what is wrong with it and what to do."""


def printable(text: object, longest: int = 0) -> str:
    """Return text that a terminal and a page may show: no colours, no control, format or private characters; lines stay lines.

    Args:
        text: anything.
        longest: number of characters that are kept; 0 for all.
    """
    plain = _COLOUR.sub("", str(text)).replace("\r\n", "\n").replace("\r", "\n")
    plain = "".join(each if each.isprintable() or each in "\n\t" else " " if each.isspace() else "" for each in plain)
    return plain if not longest or len(plain) <= longest else plain[:longest].rstrip() + " ..."


def shown(value: object) -> str:
    """Return a refused value for a message: quoted, on one line, escaped where it cannot be printed, and not too long."""
    text = value if isinstance(value, str) else str(value)
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."


# --- one function for each kind --------------------------------------------------------------------------------------


def host_name(node: str, value: object, fact: str = "host name") -> str:
    """Return a host name without a domain."""
    if isinstance(value, str) and is_host_name(value):
        return value
    raise _refused(node, fact, value, f"letters, digits and -, {LONGEST_NAME} at most, not digits alone")


def fqdn(node: str, value: object, fact: str = "full host name") -> str:
    """Return a host name with or without a domain."""
    if isinstance(value, str) and is_fqdn(value):
        return value
    raise _refused(node, fact, value, "labels of letters, digits and -, joined by dots")


def address(node: str, value: object, fact: str = "address") -> str:
    """Return the IP address of one machine, as others can reach it."""
    if isinstance(value, str) and is_address(value):
        found = ipaddress.ip_address(value)
        if not (found.is_loopback or found.is_unspecified or found.is_multicast or str(found) == "255.255.255.255"):
            return str(found)
    raise _refused(node, fact, value, "an IP address by which other machines reach it, such as 192.0.2.11")


def gpu_name(node: str, value: object, fact: str = "GPU name") -> str:
    """Return a GPU's product name."""
    if isinstance(value, str) and _GPU_NAME.match(value):
        return value
    raise _refused(node, fact, value, "a product name such as NVIDIA A100-SXM4-40GB")


def gpu_type(node: str, value: object, fact: str = "GPU type") -> str:
    """Return a GPU's type for Slurm."""
    if isinstance(value, str) and _GPU_TYPE.match(value):
        return value
    raise _refused(node, fact, value, "letters, digits, - and _, such as a100")


def path(node: str, value: object, fact: str = "path") -> str:
    """Return an absolute path without blanks, quotes, dots that lead upwards or anything that a file or a shell reads as more."""
    if isinstance(value, str) and _PATH.match(value) and not {".", ".."} & set(value.split("/")):
        return value
    raise _refused(node, fact, value, "an absolute path of letters, digits and . _ - + @ = , ~")


def kernel(node: str, value: object, fact: str = "kernel version") -> str:
    """Return a kernel's version, such as 6.1.0-41-amd64."""
    if isinstance(value, str) and _KERNEL.match(value):
        return value
    raise _refused(node, fact, value, "a version such as 6.1.0-41-amd64")


def word(node: str, value: object, fact: str) -> str:
    """Return a short word, such as a processor's architecture or a distribution's name."""
    if isinstance(value, str) and is_word(value):
        return value
    raise _refused(node, fact, value, "letters, digits and . _ + -")


def number(node: str, value: object, fact: str, lowest: int, highest: int) -> int:
    """Return a whole number between two others."""
    if isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest:
        return value
    raise _refused(node, fact, value, f"a whole number from {lowest} to {highest}")


KINDS: Mapping[str, Callable[[str, object, str], Any]] = {
    "host name": host_name,
    "full host name": fqdn,
    "address": address,
    "GPU name": gpu_name,
    "GPU type": gpu_type,
    "path": path,
    "kernel version": kernel,
    "word": word,
}
"""The kinds that a filter or a template asks for by name; :func:`number` has its limits as well."""


# --- for what writes files -------------------------------------------------------------------------------------------


def one_line(file: str, value: object, comments: str = "#") -> str:
    """Return a value that stays one part of one line of a file.

    Args:
        file: what is written, for the message.
        value: the part.
        comments: characters with which the format begins a comment, or which it takes for something else.
    """
    text = str(value)
    if text.isprintable() and not set(comments) & set(text):
        return text
    signs = f", and none of {' '.join(comments)}" if comments else ""
    raise ReportedError(f"{file}: {shown(text)} is not written there; a value has to be printable text on one line{signs}. Correct it.")


def is_word(text: str) -> bool:
    """Return whether it is a short word that can be a part of a path, and never leads upwards."""
    return bool(_WORD.match(text)) and ".." not in text


def is_host_name(text: str) -> bool:
    """Return whether it is a host name without a domain; digits alone are none, since they are an address as well."""
    return bool(_HOST_NAME.match(text)) and not text.isdigit()


def is_fqdn(text: str) -> bool:
    """Return whether it is a host name, perhaps with a domain."""
    return bool(_FQDN.match(text)) and not is_address(text)


def is_address(text: str) -> bool:
    """Return whether it is an IP address; one with a zone, which is any text behind %, is none."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _refused(node: str, fact: str, value: object, rule: str) -> ReportedError:
    return ReportedError(
        f"{printable(node, LONGEST_NAME)} reports the {fact} {shown(value)}, which is refused; allowed: {rule}. Find out on the node why "
        "it reports that: it may be misconfigured, or in somebody else's hands. Leave it out of the run until then (--limit)."
    )
