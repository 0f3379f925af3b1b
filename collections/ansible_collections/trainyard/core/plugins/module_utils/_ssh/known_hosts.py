# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""By which host keys the nodes of a lab know each other: pure functions.

Names and addresses are the inventory's. A node reports its own keys, and they are written under its own names alone: one that lies about
them is not reached, and speaks for nobody else.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils._host import reported

FILE = "/etc/ssh/ssh_known_hosts2"
"""ssh reads it next to ssh_known_hosts, which stays the administrator's."""
KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
"""The best first. One key of a node is enough, and the hardening of SSH keeps the first kind as it is."""
LONGEST = 4096
_MARK = "trainyard:"


def key(node: str, value: object) -> str:
    """Return a host key, ``ssh-ed25519 AAAA...``, without a comment.

    Raises:
        ReportedError: it is none.
    """
    words = value.split() if isinstance(value, str) and len(value) <= LONGEST and value.isprintable() else []
    if len(words) >= 2 and words[0] in KINDS:
        try:
            blob = base64.b64decode(words[1], validate=True)
        except (binascii.Error, ValueError):
            blob = b""
        length = int.from_bytes(blob[:4], "big")
        if blob[4 : 4 + length] == words[0].encode() and len(blob) > 4 + length:
            return f"{words[0]} {base64.b64encode(blob).decode()}"
    raise reported.ReportedError(
        f"{reported.printable(node, reported.LONGEST_NAME)} reports the SSH host key {reported.shown(value)}, which is refused; allowed: a "
        f"public key of a kind such as {KINDS[0]}. Look at /etc/ssh/ssh_host_*_key.pub on that node."
    )


def best(keys: Iterable[str]) -> list[str]:
    """Return the key of the best kind, in a list; empty where there is none of a known kind."""
    known = [line for line in keys if line.split(" ")[0] in KINDS]
    return sorted(known, key=lambda line: KINDS.index(line.split(" ")[0]))[:1]


def entries(nodes: Mapping[str, Mapping[str, Any]], results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what is to be known of each node: its ``names``, its ``keys``, whether it was ``seen``, and why a key was ``refused``.

    A name or an address that two nodes have is neither's.

    Args:
        nodes: name in the inventory -> ``names`` and ``address``, by the inventory alone.
        results: name in the inventory -> what the module ``host_keys_info`` returned there; nothing where it did not run.
    """
    names = {name: _names(node) for name, node in nodes.items()}
    claims = Counter(each for own in names.values() for each in own)
    found: dict[str, dict[str, Any]] = {}
    for name, own in names.items():
        result = results.get(name)
        lines = result.get("keys") if isinstance(result, Mapping) else None
        entry: dict[str, Any] = {"names": [each for each in own if claims[each] == 1], "keys": [], "seen": lines is not None, "refused": ""}
        try:
            entry["keys"] = best([key(name, line) for line in lines]) if isinstance(lines, list) else []
        except reported.ReportedError as error:
            entry.update(seen=False, refused=str(error))
        found[name] = entry
    return found


def _names(node: Mapping[str, Any]) -> list[str]:
    """Return names and address of a node, as far as they lead to it from other machines. ssh looks for names in small letters."""
    found = [name.lower() for name in node["names"] if reported.is_fqdn(name) and name.partition(".")[0] != "localhost"]
    with contextlib.suppress(reported.ReportedError):
        found.append(reported.address("", node["address"]))
    return list(dict.fromkeys(found))


def renewed(text: str, nodes: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the file with these nodes. Lines of others stay, except those that an earlier run wrote for nodes which are gone.

    Args:
        text: the file as it is.
        nodes: what :func:`entries` returns. A node that this run has not seen keeps the key that an earlier run wrote.
    """
    others, before = [], {}
    for line in text.splitlines():
        words = line.split(" ")
        if len(words) == 4 and words[3].startswith(_MARK):
            before[words[3][len(_MARK) :]] = " ".join(words[1:3])
        else:
            others.append(line)
    lines = []
    for name, node in nodes.items():
        keys: Sequence[str] = node["keys"] if node["seen"] else [before[name]] if name in before else []
        if node["names"] and " " not in name:
            names = ",".join(reported.one_line(FILE, each, "#,*?!|@") for each in node["names"])
            lines += [f"{names} {key(name, each)} {_MARK}{reported.one_line(FILE, name)}" for each in keys]
    return "".join(f"{line}\n" for line in [*others, *lines])
