# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A proxy that is the only way out of a lab: what is wrong with it, and what programs are told of it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

LOCAL = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*\Z")


def problems(url: object, no_proxy: Iterable[object]) -> list[str]:
    """Return one sentence for each thing that is wrong with ``base_proxy`` and ``base_no_proxy``."""
    found = []
    if url and "@" in str(url):  # whoever reads the message is not to learn the password
        found.append(
            "base_proxy has a user or a password in it, and every user of the node could read it in apt's settings and in the processes' "
            "environment. Use a URL without, such as http://proxy.example:3128, and let the proxy admit the nodes by their addresses."
        )
    elif url and not _is_proxy(str(url)):
        found.append(f"base_proxy: {str(url)!r} is not the URL of a proxy. Use one such as http://proxy.example:3128, or '' for none.")
    found += [
        f"base_no_proxy: {str(one)!r} is not a host. Use host names, domains with a dot first (.lab.example), addresses and networks."
        for one in no_proxy
        if not is_host(str(one)) and not _is_network(str(one)) and not (str(one)[:1] == "." and _HOST.match(str(one)[1:]))
    ]
    return found


def environment(url: object, no_proxy: Iterable[object], nodes: Iterable[str] = ()) -> dict[str, str]:
    """Return the environment of programs that fetch; empty without a proxy, and for values that the check of ``base`` refuses.

    Args:
        url: the proxy.
        no_proxy: hosts that are reached without it.
        nodes: the lab's own machines, which need no proxy either.
    """
    without = [str(one) for one in no_proxy]
    if not url or problems(url, without):
        return {}
    values = {"http_proxy": str(url), "https_proxy": str(url), "no_proxy": ",".join(dict.fromkeys([*LOCAL, *without, *nodes]))}
    return {**values, **{name.upper(): value for name, value in values.items()}}  # some programs read one spelling, some the other


def is_host(text: str) -> bool:
    """Return whether it is the name or the address of one machine."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return bool(_HOST.match(text))
    return "%" not in text


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return "%" not in text


def _is_proxy(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = parts.scheme == "http" and parts.path in ("", "/") and not parts.query and not parts.fragment
    return plain and url.isprintable() and " " not in url and port != 0 and is_host(parts.hostname or "")
