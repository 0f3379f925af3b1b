#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A service that runs with what is on disk."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_current
short_description: Keeps a systemd service enabled, running, and running with what is on disk
version_added: 0.1.0
description:
  - Restarts a service when its process was started before the last change of its unit files or of the files it reads.
  - The decision is made from the state of the node, not from what this run changed, so a run that was killed between writing a file and
    restarting the daemon is put right by the next one. A handler would have been forgotten.
  - A service that is current is never restarted. What was written while the clock was ahead cannot be told from what is newer than the
    service, which then is restarted once; the files' status change time becomes that of now.
  - A socket unit can be named too. Its service is stopped before the socket is started, restarted or stopped, since systemd cannot take
    over a port that the service holds itself; name the service in a task after it.
options:
  name:
    description: Name of the unit, with its suffix.
    type: str
    required: true
  files:
    description: Files or folders that the service reads when it starts.
    type: list
    elements: path
    default: []
  enabled:
    description: Whether the service starts at boot.
    type: bool
    default: true
  state:
    description: Whether the service is to run.
    type: str
    choices: [started, stopped]
    default: started
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would be done and does nothing.
  diff_mode:
    support: full
    description: Shows the state before and after, and why a restart is due.
extends_documentation_fragment: []
"""

EXAMPLES = r"""
- name: Run the notebook with the configuration that is on disk
  trainyard.core.service_current:
    name: trainyard-jupyter.service
    files: [/etc/trainyard/jupyter]
"""

RETURN = r"""
actions:
  description: What was, or in check mode would be, done, in order.
  returned: always
  type: list
  elements: str
  sample: [daemon-reload, restart]
reasons:
  description: Why a restart was due, as paths that changed after the service started.
  returned: always
  type: list
  elements: str
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _unit as systemd
from ansible_collections.trainyard.core.plugins.module_utils._host import locks


@locks.turn("service_current")
def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "path", "default": []},
            "enabled": {"type": "bool", "default": True},
            "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
        },
        supports_check_mode=True,
    )
    name, wanted = module.params["name"], module.params["state"] == "started"
    systemctl = module.get_bin_path("systemctl", required=True)

    def show() -> systemd.Unit:
        _rc, output, _errors = module.run_command([systemctl, "show", "--property=" + ",".join(systemd.PROPERTIES), name])
        return systemd.parse_show(output)

    unit = show()
    actions: list[str] = []
    reasons: list[str] = []
    files: list[str] = []
    if not unit.loaded and not wanted:
        module.exit_json(changed=False, actions=[], reasons=[])
    if unit.needs_reload or not unit.loaded or systemd.unseen_dropins(name, unit.files):
        actions.append("daemon-reload")
        if not module.check_mode:
            module.run_command([systemctl, "daemon-reload"], check_rc=True)
            unit = show()
    if not unit.loaded and not module.check_mode:
        module.fail_json(msg=f"systemd knows no unit {name}. Its file has to be in place before the service is started.")
    if unit.loaded and unit.enabled != module.params["enabled"]:
        actions.append("enable" if module.params["enabled"] else "disable")
    elif not unit.loaded and module.params["enabled"]:
        actions.append("enable")
    if wanted and not unit.active:
        actions.append("start")
    elif wanted:
        files = [*unit.files, *module.params["files"]]
        reasons = systemd.changed_after(unit.started, files, time.monotonic(), time.time())
        if reasons:
            actions.append("restart")
    elif not unit.idle:
        actions.append("stop")

    if not module.check_mode:
        for action in actions:
            if action == "daemon-reload":
                continue  # done above, before the unit was looked at
            if action == "restart":
                systemd.date_back(files, time.time())
            if name.endswith(".socket") and action in {"start", "restart", "stop"}:
                module.run_command([systemctl, "stop", *unit.triggers], check_rc=bool(unit.triggers))
            if action in {"start", "restart"}:
                # systemd refuses what was started five times in ten seconds, also when each start was wanted.
                module.run_command([systemctl, "reset-failed", name])
            rc, _output, errors = module.run_command([systemctl, action, name])
            if rc:
                _rc, journal, _e = module.run_command(["journalctl", "--no-pager", "--lines=15", "--output=cat", "--unit", name])
                module.fail_json(
                    msg=f"systemctl {action} {name} failed: {errors.strip()}\nIts last words:\n{journal.strip()}\n"
                    f"See them all with: journalctl --unit {name}"
                )
    module.exit_json(
        changed=bool(actions),
        actions=actions,
        reasons=reasons,
        diff={
            "before": f"enabled: {unit.enabled}\nactive: {unit.active if wanted else not unit.idle}\ncurrent: {not reasons}\n",
            "after": f"enabled: {module.params['enabled']}\nactive: {wanted}\ncurrent: True\n",
        },
    )


if __name__ == "__main__":
    main()
