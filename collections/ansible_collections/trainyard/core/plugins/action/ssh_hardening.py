# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Harden sshd, and prove from the controller that a new login works before the old way is given up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.trainyard.core.plugins.plugin_utils._proven_change import ProvenChange


class ActionModule(ProvenChange):
    """Calls the module of the same name in phases, with a new login between them."""

    MODULE = "trainyard.core.ssh_hardening"

    def advice(self, user: str) -> str:
        """Return what to do where a new login does not work."""
        return f"the key that Ansible uses (ansible_ssh_private_key_file) must let '{user}' in."

    def new_ports(self, applied: Mapping[str, Any]) -> list[int] | None:
        """Return the ports where sshd listens after the change."""
        return list(applied["ports"])

    def warning(self, applied: Mapping[str, Any]) -> str:
        """Return which port the inventory has to name from now on, where it is another one."""
        port = self._connection.get_option("port")
        if not port or int(port) in applied["ports"]:
            return ""
        return f"sshd listens on port {applied['ports'][0]} now: set ansible_port to it for {self._vars.get('inventory_hostname')}."
