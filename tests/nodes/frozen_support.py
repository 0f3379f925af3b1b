"""What the tests of frozen environments share: a node for notebooks with two users, scripts as one of them, a notebook's cell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support import Play, ansible_playbook, inventory_of
from trainyard.containers import Lab
from trainyard.paths import REPOSITORY

FROZEN = "framework_env : Have the frozen environments"
PROOFS = "verification : Train in each environment"
VARIABLES = {
    "framework_env_compile": False,  # for speed
    "base_users": [
        {"name": name, "keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJrvGRH1a3gwGQ+tT1L2yusnNqXqvFQuduzeYBZqU5TE laptop"]}
        for name in ("alice", "bob")
    ],
    "base_ca_certificates": "{{ query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt') }}",
    "jupyter_password": "canary-and-long-enough-1",
    "tensorboard_password": "canary-and-long-enough-1",
}
CELL = """
import sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name=sys.argv[1])
said = []
client.execute_interactive(sys.argv[2], timeout=120, output_hook=lambda message: said.append(message["content"]))
client.stop_channels(); manager.shutdown_kernel(now=True)
print("".join(one["text"] for one in said if one.get("name") == "stdout"))
"""


def run(node: Lab, folder: Path, playbook: str, wishes: Mapping[str, Any], *words: str) -> Play:
    """Run a playbook on the node, which is one for notebooks too."""
    inventory = inventory_of(node, folder, {**VARIABLES, **wishes})
    data = yaml.safe_load(inventory.read_text())
    data["all"]["children"] = {"notebooks": {"hosts": {"head": None}}}
    inventory.write_text(yaml.safe_dump(data))
    return ansible_playbook(REPOSITORY / playbook, inventory, words, timeout=1800)


def as_user(node: Lab, user: str, script: str, *, check: bool = True) -> str:
    """Run a script in a login shell of a user."""
    return node.execute("head", ["su", "-", user, "-c", script], check=check)


def cell(node: Lab, user: str, kernel: str, code: str) -> str:
    """Run a notebook's cell in a kernel, as a user, and return what it printed; TensorFlow writes to the terminal beside it."""
    node.execute("head", ["sh", "-c", f"cat >/srv/cell.py <<'END'\n{CELL}END\nchmod 644 /srv/cell.py"])
    return as_user(node, user, f"/opt/trainyard/envs/jupyterlab/bin/python /srv/cell.py {kernel} '{code}' 2>/dev/null").strip()
