# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fail where the nodes of the play have variables that begin like a role's and are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible_collections.trainyard.core.plugins.plugin_utils.checks import variables


class ActionModule(ActionBase):
    """Runs on the controller alone; no node is asked."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.validate_argument_spec({})
        given = task_vars or {}
        hosts = given.get("ansible_play_hosts_all") or []
        roles = next(path for path in map(Path, constants.DEFAULT_ROLES_PATH) if (path / "base").is_dir())
        found = variables.problems({host: given["hostvars"].raw_get(host) for host in hosts}, variables.known_variables(roles))
        return {**result, "changed": False, **({"failed": True, "msg": " ".join(found)} if found else {})}
