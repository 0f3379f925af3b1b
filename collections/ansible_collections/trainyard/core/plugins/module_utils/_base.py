# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""What is wrong with the wishes for a node's base, said in words; and package sources turned to a mirror."""

from __future__ import annotations

import base64
import binascii
import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

_KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


def closest(word: str, known: Iterable[str]) -> str:
    """Return ' Did you mean X?' for the known word nearest to ``word``, or '' when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""


def key_problem(line: str) -> str:
    """Say why a line cannot stand in ``authorized_keys``; '' when it can."""
    words = line.split()
    at = next((index for index, word in enumerate(words) if word in _KEY_TYPES), None)
    if "PRIVATE KEY" in line:
        return "is a private key; give the public one (the file that ends in .pub)"
    if "ssh-dss" in words:
        return "is a DSA key, which sshd no longer accepts. Make a new one: ssh-keygen -t ed25519"
    if at is None or at + 1 >= len(words):
        return f"is no public key: none of the types {', '.join(_KEY_TYPES[:3])} ... stands in it"
    try:
        blob = base64.b64decode(words[at + 1], validate=True)
    except (binascii.Error, ValueError):
        return "is no public key: its second part is not base64 (was it cut off?)"
    length = int.from_bytes(blob[:4], "big")
    if blob[4 : 4 + length].decode("ascii", "replace") != words[at]:
        return f"is damaged: it says {words[at]} and holds something else"
    return ""


def number_problems(variable: str, entries: Mapping[str, Sequence[Mapping[str, Any]]], why: str) -> list[str]:
    """Return what keeps users or groups from having the same number on all nodes of a cluster.

    Args:
        variable: ``base_users`` or ``base_groups``.
        entries: node -> entries of the variable there.
        why: what the numbers are for, as the beginning of a sentence.
    """
    what, key = {"base_users": ("user", "uid"), "base_groups": ("group", "gid")}[variable]
    numbers: dict[str, dict[Any, str]] = {}
    for node, each in entries.items():
        for entry in each:
            if entry.get("state", "present") == "present":
                numbers.setdefault(str(entry.get("name")), {}).setdefault(entry.get(key), node)
    found = []
    for name, nodes in numbers.items():
        where = f"{variable}: the {what} '{name}'"
        if None in nodes:
            found.append(f"{where} needs a {key} (on {nodes[None]}): {why}, which has to be the same on every node of the cluster.")
        if len(set(nodes) - {None}) > 1:
            said = " and ".join(f"{number} on {node}" for number, node in nodes.items() if number is not None)
            found.append(f"{where} has the {key} {said}; on all nodes of a cluster it has to be the same.")
    return found


def mirror_problem(mirror: str, mirrors: Mapping[str, Any]) -> str:
    """Say why ``base_package_mirror`` names no mirror; '' when it does."""
    if re.match(r"https?://[^\s/]*@", mirror):
        return (
            "base_package_mirror: a URL with a password would stand in a file that everybody may read. "
            "Give it without, and put the password into /etc/apt/auth.conf.d on the nodes."
        )
    if not mirror or mirror in mirrors or re.match(r"https?://[^\s/]+", mirror):
        return ""
    return (
        f"base_package_mirror: {mirror!r} is no mirror that is known.{closest(mirror, mirrors)} "
        f"Allowed: '' (the system's own), {', '.join(mirrors)}, or a URL that begins with http:// or https://."
    )


def certificate_problem(path: str, read: Callable[[str], str]) -> str:
    """Say why a file cannot be trusted as a certificate authority; '' when it can."""
    try:
        text = read(path)
    except (OSError, UnicodeDecodeError) as error:
        return f"base_ca_certificates: {path} cannot be read on the controller ({error.__class__.__name__})."
    if "PRIVATE KEY" in text:
        return f"base_ca_certificates: {path} holds a private key, which must not leave its machine; give the certificate alone."
    if text.count("-----BEGIN CERTIFICATE-----") != 1:
        return f"base_ca_certificates: {path} must hold exactly one certificate in PEM form (-----BEGIN CERTIFICATE-----)."
    return ""


# --- package sources -------------------------------------------------------------------------------------------------

SAVED_SUFFIX = ".trainyard-saved"


def components(sources: Iterable[str]) -> list[str]:
    """Return the components (main, contrib ...) that package sources of either format name, in a stable order."""
    found: set[str] = set()
    for text in sources:
        for raw in text.splitlines():
            line = raw.partition("#")[0].strip()
            if line.lower().startswith("components:"):
                found.update(line.partition(":")[2].split())
            elif line.startswith("deb "):
                words = re.sub(r"\[[^]]*\]", "", line).split()
                found.update(words[3:])
    order = ["main", "restricted", "universe", "multiverse", "contrib", "non-free", "non-free-firmware"]
    return sorted(found or {"main"}, key=lambda word: (order.index(word) if word in order else len(order), word))


def security_archive(distribution: str, main: str) -> str:
    """Return where a mirror of the whole archive has the security updates: Debian's lie beside the rest, Ubuntu's among it."""
    return main.rstrip("/") + "-security" if distribution == "debian" else main


def mirror_sources(distribution: str, codename: str, main: str, security: str, parts: Sequence[str]) -> str:
    """Return the text of a deb822 file that takes a distribution's packages from a mirror.

    Args:
        distribution: ``debian`` or ``ubuntu``; decides the keyring and the name of the security suite.
        codename: the release, such as ``bookworm``.
        main: URL of the mirror's archive.
        security: URL of its security archive.
        parts: components.
    """
    keyring = f"/usr/share/keyrings/{distribution}-archive-keyring.gpg"
    stanzas = [(main, f"{codename} {codename}-updates"), (security, f"{codename}-security")]
    return (
        "# Made by Trainyard (base_package_mirror); the system's own sources lie beside it with the ending "
        + SAVED_SUFFIX
        + ".\n"
        + "\n".join(
            f"Types: deb\nURIs: {url}\nSuites: {suites}\nComponents: {' '.join(parts)}\nSigned-By: {keyring}\n" for url, suites in stanzas
        )
    )
