"""What a node is like: its files, and whether its daemons run with them. Two nodes can be compared by it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from trainyard.containers import Lab

DOCKER_DNS = "127.0.0.11:"  # Docker's own name server in each container, on another port every time
SCRIPT = Path(__file__).with_name("node_state.py")

# Different on every node by its nature: keys, certificates, salted hashes; times and caches; what apt and systemd keep for themselves.
VOLATILE = re.compile(
    r"/(ssh_host_\w+(\.pub)?|machine-id|ld\.so\.cache|mtab|resolv\.conf|hosts|hostname|[^/]*\.lock|[^/]*-)$"
    r"|/__pycache__(/|$)|\.(pyc|pem|crt|key)$|hash|password|cookie|secret|/fingerprint$|/ssh_known_hosts2$"
    r"|^/etc/(ssl/certs|alternatives|rc.\.d|ca-certificates\.conf|apt|passwd|shadow|group|gshadow|subuid|subgid)(/|$)"
    r"|^/opt/trainyard/(envs/\.cache|proofs/results)(/|$)|^/home/admin/\.ssh/authorized_keys$"
)


def of(lab: Lab, node: str) -> dict[str, Any]:
    """Return a node's state, without what differs on every node by its nature."""
    state: dict[str, Any] = json.loads(lab.execute(node, ["python3", "-c", SCRIPT.read_text()]))
    state["files"] = {path: entry for path, entry in state["files"].items() if not VOLATILE.search(path)}
    state["listening"] = [address for address in state["listening"] if not address.startswith(DOCKER_DNS)]
    return state


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Name what differs between two states."""
    found = []
    for part, mine in one.items():
        theirs = other[part]
        if isinstance(mine, dict):
            found += [
                f"{part}: {key}: {mine.get(key)} != {theirs.get(key)}"
                for key in sorted({*mine, *theirs})
                if mine.get(key) != theirs.get(key)
            ]
        elif mine != theirs:
            found.append(f"{part}: {mine} != {theirs}")
    return found
