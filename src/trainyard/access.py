"""How people get into a lab that is up: the ssh command, tunnels to the web services, and where the password is, never what it is. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _report

PASSWORDS = {"JupyterLab": "jupyter_password", "TensorBoard": "tensorboard_password"}
"""Web service -> the variable with its password."""
USERS = {"TensorBoard": ("tensorboard_login", "lab")}
"""Web service -> the variable with the user name that it asks for, and its default."""
NAMED = 3
"""How many nodes have an ssh command of their own shown."""

_FILE = re.compile(r"lookup\(\s*'ansible\.builtin\.password'\s*,\s*inventory_dir\s*~\s*'(?P<path>[^']+)'")
_REFERENCE = re.compile(r"\s*\{\{\s*(?P<name>\w+)\s*\}\}\s*\Z")


def ways_in(report: Mapping[str, Any], hosts: Mapping[str, Mapping[str, Any]], folder: Path) -> list[str]:
    """Return how to get into the nodes of a report and to their web services, line by line.

    Args:
        report: of the run.
        hosts: the nodes' variables as the inventory has them, not evaluated.
        folder: the inventory's.
    """
    up = [node["name"] for node in report["nodes"] if node["converged"]]
    lines = ["Log in:", *(f"    ssh {destination(name, hosts.get(name, {}), folder)}" for name in up[:NAMED])] if up else []
    lines += [f"    and likewise {_report.count(len(up) - NAMED, 'more node')}"] if len(up) > NAMED else []
    services = [(node["name"], service) for node in report["nodes"] for service in node.get("services", [])]
    for name, service in services:
        lines += [
            f"{service['name']} on {name}: open a tunnel, then https://127.0.0.1:{service['port']}",
            f"    {_report.tunnel(service['port'], destination(name, hosts.get(name, {}), folder))}",
            f"    SHA-256 fingerprint of its certificate: {service['fingerprint']}",
        ]
    places: dict[str, dict[str, None]] = {}
    for name, service in services:
        if service["name"] in PASSWORDS:
            variables = hosts.get(name, {})
            login, default = USERS.get(service["name"], ("", ""))
            what = service["name"] + (f" (user {variables.get(login, default)})" if login else "")
            places.setdefault(password(PASSWORDS[service["name"]], variables, folder), {})[what] = None
    for place, what in places.items():
        lines += [f"Password of {' and '.join(what)}:", f"    {place}"]
    if services:
        lines.append(_report.CERTIFICATE)
    return lines


def destination(name: str, variables: Mapping[str, Any], folder: Path) -> str:
    """Return what follows ``ssh`` to reach a node as Ansible does; a part that only Ansible can evaluate is left out."""

    def text(variable: str) -> str:
        value = str(variables.get(variable) or "").replace("{{ inventory_dir }}", str(folder.resolve()))
        return "" if "{{" in value else value

    try:
        options = shlex.split(text("ansible_ssh_common_args"))
    except ValueError:
        options = []
    options = [short(Path(word)) if word.startswith("/") and Path(word).exists() else word for word in options]
    for option, variable in (("-i", "ansible_ssh_private_key_file"), ("-p", "ansible_port")):
        options += [option, text(variable)] if text(variable) else []
    # An ssh_config of the lab's own knows addresses and accounts by the node's name.
    own = "-F" in options
    user = text("ansible_user")
    target = text("ansible_host") or name
    return shlex.join([*options, f"{user}@{target}" if user and not own else target])


def password(variable: str, variables: Mapping[str, Any], folder: Path) -> str:
    """Return where a password is to be found."""
    value = variables.get(variable)
    while isinstance(value, str) and (found := _REFERENCE.match(value)):  # {{ jupyter_password }} leads to that variable
        variable = found["name"]
        variables = {key: other for key, other in variables.items() if other is not value}
        value = variables.get(variable)
    file = _FILE.search(value) if isinstance(value, str) else None
    if file:
        return f"in the file {short(Path(str(folder.resolve()) + file['path']))}"
    return f"the value of {variable} in the inventory" + (" (in a vault)" if isinstance(value, Mapping) else "")


def short(path: Path) -> str:
    """Return a path as one types it from here."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
