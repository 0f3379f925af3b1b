# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""A change in steps, each of which is a call of its own: plan, apply, and after a new login confirm, or else rollback.

The controller's side is ``plugin_utils/_proven_change.py``. One run at a time works on a node, from its plan to its confirmation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils._host import locks

SPARE_SECONDS = 15
"""Between two steps of a run, beyond the time after which the node's timer has restored the former state."""

OPTIONS: dict[str, dict[str, Any]] = {
    "rollback_seconds": {"type": "int", "default": 60},
    "phase": {"type": "str", "choices": ["plan", "apply", "confirm", "rollback", "release"], "default": "plan"},
    "run": {"type": "str", "default": ""},
    "run_by": {"type": "str", "default": ""},
    "abandoned": {"type": "str", "default": ""},
    "patience": {"type": "int", "default": int(locks.PATIENCE)},
    "login_user": {"type": "str", "default": ""},
    "door": {"type": "str", "choices": ["ssh", "local", "other"], "default": "other"},
}
"""What such a module takes besides its own options; the action plugin sets all but the first."""


class RefusalError(Exception):
    """The change is not made, or did not work; the message says why."""


def take(module: Any, name: str, step: Callable[[str], dict[str, Any]], former: str) -> None:
    """Take one step of a module and end it with the result.

    Args:
        module: the AnsibleModule.
        name: what one run at a time works on, such as the module's name.
        step: takes a phase and returns the result; raises RefusalError where it does not work. It is not called for ``release``.
        former: what the rollback restores, as the subject of a sentence, such as ``the old configuration``.
    """
    options = module.params
    phase = "plan" if module.check_mode else options["phase"]
    lease = locks.Lease(name, options["run"], options["run_by"], options["abandoned"])
    first = phase in {"plan", "apply"}
    try:
        with lease.turn(options["patience"] if first else 0):
            result = {"changed": False} if phase == "release" else step(phase)
            if first and result["changed"] and options["run"] and not module.check_mode:
                lease.keep(options["rollback_seconds"] + SPARE_SECONDS)
    except locks.HeldError as error:
        if phase in {"rollback", "release"}:  # that run has found the former state there, and goes on from it
            module.exit_json(changed=False, rolled_back=False)
        late = "" if first else f"The new login was proven too late, and {former} is back. "
        module.fail_json(msg=f"{late or 'Nothing was changed. '}{error}", refusals=[str(error)], holder=error.run)
    except RefusalError as refusal:
        module.fail_json(msg=str(refusal), refusals=[str(refusal)])
    module.exit_json(**result)
