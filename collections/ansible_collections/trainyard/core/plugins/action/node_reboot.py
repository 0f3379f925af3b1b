# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Reboot a node once nobody needs it, with its scheduler knowing, and see that it came back sound."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible.executor.module_common import _apply_action_arg_defaults
from ansible.plugins.action import ActionBase
from ansible_collections.trainyard.core.plugins.module_utils import _driver_verdict

GPU_INFO = "trainyard.core.gpu_info"
PEOPLE = "ps -eo uid=,user:64="
# The node that has been rebooted and has not come back sound so far. The folder is this run's alone, and all its processes share it.
UNSOUND = Path(constants.DEFAULT_LOCAL_TMP, "trainyard-node-reboot")


class ActionModule(ActionBase):
    """Drains, asks whether the node is idle, reboots, proves, resumes; with ``throttle: 1`` the nodes of a cluster go one by one.

    The first one that does not come back sound is the last: what broke it, such as a driver, would break the others as well.
    """

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        self._vars = task_vars or {}
        _spec, wish = self.validate_argument_spec(
            argument_spec={
                "only_if_idle": {"type": "bool", "default": True},
                "account": {"type": "str", "default": "root"},
                "drain_seconds": {"type": "int", "default": 0},
                "proof": {"type": "list", "elements": "str", "default": []},
                "reason": {"type": "str", "default": "trainyard reboots this node"},
                "boot_time_command": {"type": "str"},
                "reboot_timeout": {"type": "int", "default": 600},
            }
        )
        result.update(changed=False, rebooted=False, hindrances=[], drained=False)
        unsound = UNSOUND.read_text() if UNSOUND.exists() else ""
        if unsound not in {"", self._host()}:
            return {**result, "hindrances": [f"{unsound} has not come back sound from its reboot"]}
        scheduler = self._slurm("drained", wish, wait_seconds=wish["drain_seconds"], give_up=wish["only_if_idle"])
        hindrances = list(scheduler["hindrances"]) if wish["only_if_idle"] else []
        if wish["only_if_idle"] and not hindrances:
            hindrances = self._busy(wish["account"])
        if hindrances:
            if scheduler["own"]:
                self._slurm("resumed", wish)
            return {**result, "hindrances": hindrances}

        if not self._task.check_mode:
            UNSOUND.write_text(self._host())  # before, since not every way to fail leads back to here
        done = self._reboot(wish)
        result.update(done, drained=bool(scheduler["own"]))
        if result.get("failed"):
            if not result["rebooted"]:
                UNSOUND.unlink(missing_ok=True)
            return {**result, "msg": f"{result.get('msg', '')} {self._stays(scheduler)}".strip()}
        if wish["proof"] and not self._task.check_mode:
            proof = self._execute_module(module_name="ansible.builtin.command", module_args={"argv": wish["proof"]}, task_vars=self._vars)
            if proof.get("failed") or proof.get("rc"):
                result["proof"] = "\n".join(str(proof[key]) for key in ("stdout", "stderr") if proof.get(key)) or str(proof.get("msg", ""))
                result["warnings"] = [f"{shlex.join(wish['proof'])} fails after the reboot. {self._stays(scheduler)}".strip()]
                return result
        UNSOUND.unlink(missing_ok=True)
        if scheduler["own"] and not self._task.check_mode:
            back = self._slurm("resumed", wish)
            result["drained"] = bool(back.get("failed"))
            if back.get("failed"):
                result["warnings"] = [f"{back['msg']} {self._stays(scheduler)}"]
        return result

    def _host(self) -> str:
        return str(self._vars["inventory_hostname"])

    def _slurm(self, state: str, wish: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Drain or resume; a scheduler that does not answer is a hindrance."""
        found: dict[str, Any] = self._execute_module(
            module_name="trainyard.core.slurm_node", module_args={"state": state, "reason": wish["reason"], **more}, task_vars=self._vars
        )
        if found.get("failed") and "hindrances" not in found:
            raise AnsibleError(f"slurm_node failed: {found.get('msg')}")
        return found

    def _busy(self, account: str) -> list[str]:
        words = _apply_action_arg_defaults(GPU_INFO, self._task, {}, self._templar)
        found = self._execute_module(module_name=GPU_INFO, module_args=words, task_vars=self._vars)
        if found.get("failed"):
            raise AnsibleError(f"gpu_info failed: {found.get('msg')}")
        people = self._low_level_execute_command(PEOPLE)
        if people["rc"]:
            return [f"{PEOPLE} failed, so that nobody knows whose processes run"]
        return _driver_verdict.busy(found["gpu_info"], str(people["stdout"]).splitlines(), account)

    def _reboot(self, wish: dict[str, Any]) -> dict[str, Any]:
        """Reboot by Ansible's own action."""
        task = self._task.copy()
        task.args = {"msg": f"{wish['reason']}.", "reboot_timeout": wish["reboot_timeout"]}
        if wish["boot_time_command"]:
            task.args["boot_time_command"] = wish["boot_time_command"]
        action = self._shared_loader_obj.action_loader.get(
            "ansible.builtin.reboot",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        found: dict[str, Any] = action.run(task_vars=self._vars)
        return found

    @staticmethod
    def _stays(scheduler: dict[str, Any]) -> str:
        return f"The node {scheduler['node']} stays drained in Slurm until that is mended." if scheduler["own"] else ""
