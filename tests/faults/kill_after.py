"""A callback that kills the controller, with every process it started, right after the Nth task that changed something."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: kill_after
type: aggregate
short_description: kills the controller after the Nth changed task
description: For tests of what an interruption leaves behind. TRAINYARD_KILL_AFTER is N, TRAINYARD_KILL_LOG the file that names the task.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Counts changed results and kills at the wanted one."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "kill_after"

    def __init__(self) -> None:
        super().__init__()
        self.left = int(os.environ.get("TRAINYARD_KILL_AFTER", "0"))
        self.log = os.environ.get("TRAINYARD_KILL_LOG", "")

    def v2_runner_on_ok(self, result: Any) -> None:
        """Take a result; a task that is a loop counts as one."""
        if not result.result.get("changed"):
            return
        self.left -= 1
        if self.left == 0:
            if self.log:
                Path(self.log).write_text(result.task.get_name())
            os.killpg(os.getpgrp(), signal.SIGKILL)
