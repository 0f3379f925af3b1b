# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Work out once what fits all nodes of the play, keep it for the plays that follow, and fail where wishes clash."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.trainyard.core.plugins.plugin_utils._fleet_plan import fleet_plan


class ActionModule(ActionBase):
    """Runs on the controller alone; no node is asked."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _ok, wishes = self.validate_argument_spec(
            {
                "catalogue": {"type": "path", "required": True},
                "environments": {"type": "dict", "required": True},
                "locks": {"type": "path", "required": True},
                "month": {"type": "str", "required": True},
            }
        )
        variables = task_vars or {}
        found = fleet_plan(variables["hostvars"], hosts=variables["ansible_play_hosts_all"], **wishes)
        if found["problems"]:
            return {**result, "failed": True, "msg": " ".join(found["problems"])}
        return {**result, "changed": False, "plan": found["plan"]}
