# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Load the node's firewall, and prove from the controller that a new login works under it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.trainyard.core.plugins.plugin_utils._proven_change import ProvenChange


class ActionModule(ProvenChange):
    """Calls the module of the same name in phases, with a new login between them."""

    MODULE = "trainyard.core.node_firewall"
    FORMER = "The former firewall"

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task, and name the nodes that are not admitted since nobody knows their address."""
        result = super().run(tmp, task_vars)
        if result.get("unknown") and not result.get("failed"):
            names = ", ".join(result["unknown"])
            warning = (
                f"{self._vars.get('inventory_hostname')} does not admit {names} yet: no address is known. Run it for these nodes as "
                "well, or give them names_and_time_address in the inventory."
            )
            result["warnings"] = [*result.get("warnings", []), warning]
        return result

    def advice(self, user: str) -> str:
        """Return what to do where a new login does not work."""
        return (
            f"'{user}' has to be able to log in before the firewall changes, and under it. The firewall admits SSH on sshd's own ports. "
            "Where the way to sshd leads over another port of this node, add that to node_firewall_open_ports."
        )

    def warning(self, applied: Mapping[str, Any]) -> str:
        """Return which listeners have just been closed to outsiders."""
        if not applied.get("closes"):
            return ""
        return (
            f"{self._vars.get('inventory_hostname')}: {', '.join(applied['closes'])} can be reached from the cluster only from now on. "
            "To open one of them to everybody, add it to node_firewall_open_ports."
        )
