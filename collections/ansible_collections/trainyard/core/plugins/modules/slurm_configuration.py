#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Slurm's configuration on the controller, and a controller that runs with it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slurm_configuration
short_description: Keeps Slurm's configuration on the controller, and a running controller in line with it
version_added: 0.1.0
description:
  - Writes C(slurm.conf), C(gres.conf) and C(cgroup.conf) for a cluster whose other nodes fetch them from the controller (configless).
  - A new configuration is read by Slurm's own tools before it lands. A value that would be more than one value on one line is refused.
  - Where a running controller does not come up with a new configuration, the old one is put back, the controller runs with it again, and
    the task fails with the controller's own message.
  - A running controller is told by C(scontrol reconfigure) where that is enough, and restarted where Slurm demands it; running jobs survive
    both. What it runs with is kept on disk, so that a run that was killed in between is made good by the next one.
  - A change that would end, lose or restart jobs is refused with the variable and the jobs before anything changes, in check mode as well.
    Such are a queue or a node that goes, other cores or GPUs of a node in use, less of its memory than its jobs have, another name of the
    cluster, and other plugins for resources or accounting.
  - What is known of the nodes is kept as well, so that a run which reaches some of them does not lose the others. Nodes that are not named
    any more leave the configuration.
options:
  cluster:
    description: The cluster's name.
    type: str
    required: true
  controller:
    description: The controller's host name, with its address in brackets where that is known.
    type: str
    required: true
  computes:
    description: Names of the nodes that compute.
    type: list
    elements: str
    required: true
  nodes:
    description:
      - What this run knows of them. Each has C(host), C(address), C(hardware), C(unconfined) (see M(trainyard.core.slurm_node_info)),
        C(nvml), C(gpus) (a list of types) and C(gpus_fixed) (whether the inventory said so).
    type: dict
    default: {}
  partitions:
    description: The queues.
    type: list
    elements: dict
    default: []
  config:
    description: Deviations from the defaults, by the names of C(slurm.conf); null takes one away.
    type: dict
    default: {}
  memory_margin:
    description: Per cent of each node's memory that is left to the system.
    type: int
    default: 5
  closed:
    description: Names of nodes that stand in no queue but in one of root's alone, in which they are proven.
    type: list
    elements: str
    default: []
  submits:
    description: Those of O(computes) that stand in no queue at all. Their C(slurmd) keeps the configuration for those who submit there.
    type: list
    elements: str
    default: []
  removed_partitions:
    description: V(wait) keeps a queue that is not named any more and has jobs, closed to new ones, until it is empty. V(refuse) refuses.
    type: str
    choices: [refuse, wait]
    default: refuse
  mail_program:
    description:
      - Path of the program on the controller that sends mail about jobs. Empty takes C(/usr/bin/mail) where that is there.
      - Without any, a job that asks for mail is refused at its submission, by the plugin C(job_submit/lua) where Slurm has it, unless
        O(config) says what is to be done.
    type: str
    default: ""
  leaving:
    description: Nodes that go, whose running jobs somebody waits for before the change is made.
    type: list
    elements: str
    default: []
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would be done and does nothing.
  diff_mode:
    support: full
    description: Shows the files before and after.
"""

EXAMPLES = r"""
- name: Configure the cluster
  trainyard.core.slurm_configuration:
    cluster: lab
    controller: head(192.0.2.10)
    computes: [node1]
    nodes:
      node1: {host: node1, address: 192.0.2.11, hardware: {CPUs: 2, RealMemory: 4000}}
"""

RETURN = r"""
told:
  description: What a running controller needed, V(reconfigure) or V(restart), or empty.
  returned: always
  type: str
unknown:
  description: Nodes that no run has seen so far; they come into the configuration with the first run that reaches them.
  returned: always
  type: list
  elements: str
gpus:
  description: The GPUs that each node has to have, a list of types by its name.
  returned: always
  type: dict
unconfined:
  description: Why jobs are not held in cgroups; empty where they are.
  returned: always
  type: str
emptied:
  description: Queues that are not named any more and take no new jobs until they are empty, each with its jobs.
  returned: always
  type: dict
start_lines:
  description: What a C(slurmd) reads when it starts and never again.
  returned: always
  type: list
  elements: str
"""

import glob
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _secret_file as secret_file
from ansible_collections.trainyard.core.plugins.module_utils import _slurm_conf as slurm_conf
from ansible_collections.trainyard.core.plugins.module_utils import _slurm_jobs as slurm_jobs
from ansible_collections.trainyard.core.plugins.module_utils import _unit as systemd
from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._host import locks, reported

FOLDER = "/etc/slurm"
STATE = "/var/lib/trainyard/slurm"
NAMES = ("slurm.conf", "gres.conf", "cgroup.conf", "job_submit.lua")
USUAL_MAIL = "/usr/bin/mail"
LUA = ("/usr/lib/*/slurm-wlm/job_submit_lua.so", "/usr/lib*/slurm/job_submit_lua.so")
"""Where distributions put Slurm's plugin for programs in Lua."""
UNIT = "slurmctld.service"
SLURMD_UNIT = "/etc/systemd/system/slurmd.service.d/trainyard.conf"
LOG = "/var/log/slurm/slurmctld.log"
PATIENCE = 60.0  # seconds for a controller to answer
ENDING = 30.0  # seconds that a job is given whose cleaning up is all that is left


class ControllerError(Exception):
    """The controller does not run with a configuration; the message says why."""


class Controller:
    """The controller's files and its daemon."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def on_disk(self) -> dict[str, str]:
        """Return the files as they are."""
        return {name: secret_file.read(os.path.join(FOLDER, name)) for name in NAMES}

    def running_with(self) -> dict[str, str] | None:
        """Return the files that a running daemon runs with; None where none runs."""
        systemctl = self.module.get_bin_path("systemctl", required=True)
        unit = systemd.parse_show(self.module.run_command([systemctl, "show", "--property=" + ",".join(systemd.PROPERTIES), UNIT])[1])
        if not unit.active:
            return None
        if not systemd.changed_after(unit.started, [os.path.join(FOLDER, name) for name in NAMES], time.monotonic(), time.time()):
            return self.on_disk()
        return {name: secret_file.read(os.path.join(STATE, name)) for name in NAMES}

    def refuse(self, wanted: dict[str, str]) -> None:
        """Fail where Slurm's own tools do not read the files."""
        beside = os.path.join(FOLDER, ".trainyard")
        host_files.make_folders(beside)
        for name, text in wanted.items():
            host_files.write(os.path.join(beside, name), text, 0o644)
        # Whatever it is asked, scontrol reads the whole configuration first; this question needs no controller.
        rc, output, errors = self.module.run_command(
            ["scontrol", "show", "hostnames", "localhost"],
            environ_update={"SLURM_CONF": os.path.join(beside, "slurm.conf"), "LC_ALL": "C"},
        )
        for name in wanted:
            os.unlink(os.path.join(beside, name))
        os.rmdir(beside)
        if rc:
            said = " ".join((errors or output).replace("scontrol: ", "").split())
            self.module.fail_json(
                msg=f"Slurm does not read the configuration, and nothing was changed ({said}). "
                "Look at slurm_config, and at options in slurm_partitions."
            )

    def apply(self, action: str) -> None:
        """Bring the running daemon in line with what is on disk.

        Raises:
            ControllerError: it does not run with that.
        """
        if action == "restart":
            self.restart()
        # After a restart as well: the nodes' daemons get the new files by it.
        log_size = os.path.getsize(LOG) if os.path.exists(LOG) else 0
        rc, output, errors = self.module.run_command(["scontrol", "reconfigure"])
        if rc:
            raise ControllerError(f"scontrol reconfigure failed: {(errors or output).strip()} {self.fatal(log_size)}".strip())
        self.wait(log_size)

    def restart(self) -> None:
        """Restart the daemon, and wait until it answers.

        Raises:
            ControllerError: it does not.
        """
        log_size = os.path.getsize(LOG) if os.path.exists(LOG) else 0
        self.module.run_command(["systemctl", "reset-failed", UNIT])  # systemd refuses what was started too often
        rc, _output, errors = self.module.run_command(["systemctl", "restart", UNIT])
        if rc:
            raise ControllerError(f"systemctl restart {UNIT} failed: {errors.strip()} {self.fatal(log_size)}".strip())
        self.wait(log_size)

    def wait(self, log_size: int) -> None:
        """Wait until the daemon answers.

        Args:
            log_size: how long its log was before.

        Raises:
            ControllerError: it has ended, or does not answer in time.
        """
        end = time.monotonic() + PATIENCE
        while self.module.run_command(["scontrol", "ping"])[0]:
            ended = self.module.run_command(["systemctl", "is-failed", "--quiet", UNIT])[0] == 0
            if ended or time.monotonic() > end:
                raise ControllerError(f"it {'has ended' if ended else 'does not answer'}. {self.fatal(log_size)}".strip())
            time.sleep(0.5)

    def ran_with(self) -> dict[str, str]:
        """Return the files that the daemon ran with last, where none runs now."""
        kept = {name: secret_file.read(os.path.join(STATE, name)) for name in NAMES}
        return kept if kept["slurm.conf"] else self.on_disk()

    @staticmethod
    def forget_cluster_name(text: str, other: str) -> None:
        """Let a daemon go over to another text of slurm.conf that names the cluster differently; else it would not start."""
        if text and slurm_jobs.value(text, "ClusterName") != slurm_jobs.value(other, "ClusterName"):
            Path(slurm_jobs.value(text, "StateSaveLocation"), "clustername").unlink(missing_ok=True)

    def jobs(self) -> list[slurm_jobs.Job]:
        """Return the jobs that have not ended.

        Raises:
            ControllerError: the daemon does not say.
        """
        return slurm_jobs.parse_jobs(self._ask(*slurm_jobs.SQUEUE), self._names)

    def of_former(self, controller: str, nodes: list[str]) -> list[tuple[slurm_jobs.Change, list[slurm_jobs.Job]]]:
        """Return the jobs that run on nodes of the new cluster for another controller, where this node was one of its nodes.

        Args:
            controller: the new one's host name.
            nodes: the names of the new cluster's nodes.
        """
        former = re.search(r"--conf-server ([^\s\":]+)", secret_file.read(SLURMD_UNIT))
        if not former or former[1] == controller:
            return []
        hosts = {name.partition(".")[0] for name in nodes}
        what = f"the controller would move from {former[1]} to {controller}"
        change = slurm_jobs.Change("slurm_controllers", what, "", lambda job, _use: bool(job.nodes & hosts))
        try:
            return slurm_jobs.losses([change], self.jobs(), {})
        except ControllerError:  # it is gone, and with it what it knew
            return []

    def use(self, jobs: list[slurm_jobs.Job]) -> dict[str, slurm_jobs.Use]:
        """Return what jobs use of their nodes.

        Raises:
            ControllerError: the daemon does not say.
        """
        nodes = sorted({node for job in jobs for node in job.nodes})
        return slurm_jobs.parse_use(self._ask(*slurm_jobs.SHOW_NODE, ",".join(nodes))) if nodes else {}

    def _names(self, short: str) -> frozenset[str]:
        if not re.search(r"[\[,]", short):
            return frozenset({short})
        return frozenset(self._ask("scontrol", "show", "hostnames", short).split())

    def _ask(self, *command: str) -> str:
        rc, output, errors = self.module.run_command(list(command), environ_update={"LC_ALL": "C"})
        if rc:
            raise ControllerError(f"{' '.join(command[:3])}: {(errors or output).strip()}")
        return str(output)

    @staticmethod
    def fatal(log_size: int) -> str:
        """Return why the daemon ended, from its log; empty where that does not say.

        Args:
            log_size: how long the log was before.
        """
        try:
            with open(LOG, encoding="utf-8", errors="replace") as file:
                file.seek(log_size if log_size <= os.path.getsize(LOG) else 0)
                lines = [reported.printable(line.strip(), 300) for line in file if "fatal:" in line]
        except OSError:
            return ""
        return f"{lines[-1]}." if lines else ""


def mail_program(module: AnsibleModule, lua: str) -> str | None:
    """Return the program that sends mail; empty where jobs that ask for mail are to be refused, and None where they cannot be.

    Args:
        module: fails where the program of the inventory is none.
        lua: the text of job_submit.lua, which may be somebody else's.
    """
    program = str(module.params["mail_program"])
    if program and not os.access(program, os.X_OK):
        module.fail_json(
            msg=f"slurm_mail_program: {program} is not a program on the controller. Install one, such as the package bsd-mailx with a mail "
            "server, or set slurm_mail_program to '' to have jobs that ask for mail refused. Nothing was changed."
        )
    if program or os.access(USUAL_MAIL, os.X_OK):
        return program or USUAL_MAIL
    has_plugin = any(glob.glob(pattern) for pattern in LUA)
    return "" if has_plugin and not _is_foreign(lua) else None


def _is_foreign(lua: str) -> bool:
    return bool(lua) and not lua.startswith(slurm_conf.NO_MAIL.partition("\n")[0])


Render = Callable[[list[dict[str, str]]], dict[str, str]]
"""Queues that go once they are empty, as parts of their lines -> the files."""


def judged(
    controller: Controller, running: dict[str, str] | None, render: Render
) -> tuple[dict[str, str], dict[str, list[str]], list[tuple[slurm_jobs.Change, list[slurm_jobs.Job]]]]:
    """Return the files, the queues that go once they are empty with their jobs, and what else would cost jobs.

    Args:
        controller: asked for its jobs, only where a change could cost some.
        running: what a running daemon runs with; None where none runs.
        render: makes the files.

    Raises:
        ControllerError: nobody knows the jobs.
    """
    params, before, wanted = controller.module.params, (running or controller.ran_with())["slurm.conf"], render([])
    if not before:
        return wanted, {}, controller.of_former(params["controller"].partition("(")[0], params["computes"])
    changes = slurm_jobs.changes(before, wanted["slurm.conf"], params["leaving"])
    if not changes or (running is None and not _has_state(before)):
        return wanted, {}, []
    if running is None:
        what = "; ".join(f"{change.variable}: {change.what}" for change in changes)
        raise ControllerError(f"it does not run ({what}). Start it (systemctl start slurmctld), or take that change back.")
    jobs, emptied = controller.jobs(), dict[str, list[str]]()
    if params["removed_partitions"] == "wait":
        stays = {*slurm_jobs.queues(wanted["slurm.conf"]), slurm_conf.PROOF_QUEUE}
        going = {name: line for name, line in slurm_jobs.queues(before).items() if name not in stays}
        emptied = {name: hit for name in going if (hit := [str(job) for job in jobs if name in job.queues])}
        wanted = render([going[name] for name in emptied])
        changes = slurm_jobs.changes(before, wanted["slurm.conf"], params["leaving"])
    return wanted, emptied, slurm_jobs.losses(changes, jobs, controller.use(jobs))


def agreed(controller: Controller, running: dict[str, str] | None, render: Render) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the files and the queues that go once they are empty, as :func:`judged` does; fail where the files would cost jobs."""
    end = time.monotonic() + ENDING
    while True:
        try:
            wanted, emptied, lost = judged(controller, running, render)
        except ControllerError as error:
            controller.module.fail_json(msg=f"Nobody knows the jobs that Slurm's controller would lose: {error} Nothing was changed.")
        if not lost:
            return wanted, emptied
        if time.monotonic() > end or not all(job.is_ending for _change, hit in lost for job in hit):
            controller.module.fail_json(msg=slurm_jobs.refusal(lost))
        time.sleep(0.5)


def _has_state(text: str) -> bool:
    return os.path.exists(os.path.join(slurm_jobs.value(text, "StateSaveLocation"), "job_state"))


def put(path: str, text: str) -> None:
    """Replace a file; one without text goes."""
    if text:
        host_files.write(path, text, 0o644)
    else:
        Path(path).unlink(missing_ok=True)


def put_back(controller: Controller, running: dict[str, str], error: ControllerError) -> None:
    """Have the controller run with what it ran with before, and fail with what it said of the new configuration."""
    controller.forget_cluster_name(controller.on_disk()["slurm.conf"], running["slurm.conf"])
    for name, text in running.items():
        if text or name == "job_submit.lua":
            put(os.path.join(FOLDER, name), text)
    after = "The old configuration is back, and the controller runs with it."
    try:
        controller.restart()
        controller.apply("reconfigure")
    except ControllerError as worse:
        after = f"The old configuration is back, and the controller does not run with that either: {worse}"
    controller.module.fail_json(
        msg=f"Slurm's controller does not run with the new configuration: {error} {after} Look at slurm_config, slurm_partitions and the "
        f"nodes that came or changed; see also {LOG} and journalctl --unit {UNIT}"
    )


@locks.turn("slurm_configuration")
def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "cluster": {"type": "str", "required": True},
            "controller": {"type": "str", "required": True},
            "computes": {"type": "list", "elements": "str", "required": True},
            "nodes": {"type": "dict", "default": {}},
            "partitions": {"type": "list", "elements": "dict", "default": []},
            "config": {"type": "dict", "default": {}},
            "memory_margin": {"type": "int", "default": 5},
            "closed": {"type": "list", "elements": "str", "default": []},
            "submits": {"type": "list", "elements": "str", "default": []},
            "removed_partitions": {"type": "str", "choices": ["refuse", "wait"], "default": "refuse"},
            "mail_program": {"type": "str", "default": ""},
            "leaving": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    params, controller = module.params, Controller(module)
    recorded = os.path.join(STATE, "nodes.json")
    record_text = secret_file.read(recorded)
    before, running = controller.on_disk(), controller.running_with()
    if before["slurm.conf"] and not before["slurm.conf"].startswith(slurm_conf.HEADER):
        module.fail_json(
            msg=f"{FOLDER}/slurm.conf is somebody else's, and was left as it is. Take over what you need of it by slurm_config and "
            "slurm_partitions, and move it away."
        )
    mail = mail_program(module, before["job_submit.lua"])
    try:
        nodes = slurm_conf.merged(params["computes"], params["nodes"], json.loads(record_text or "{}"))

        def render(emptied: list[dict[str, str]]) -> dict[str, str]:
            found = slurm_conf.files(
                params["cluster"],
                params["controller"],
                nodes,
                params["partitions"],
                params["config"],
                params["memory_margin"],
                params["closed"],
                params["submits"],
                emptied,
                mail,
            )
            return {**found, "job_submit.lua": before["job_submit.lua"]} if _is_foreign(before["job_submit.lua"]) else found

        wanted, emptied = agreed(controller, running, render)
    except reported.ReportedError as error:
        module.fail_json(msg=f"{error} Nothing was changed.")
    new_record = json.dumps(nodes, indent=1, sort_keys=True) + "\n"
    action = slurm_conf.demanded(running, wanted) if running is not None else ""
    if not module.check_mode:
        if before != wanted:
            controller.refuse(wanted)
        host_files.make_folders(STATE)
        if running is not None:
            for name, text in running.items():
                if secret_file.read(os.path.join(STATE, name)) != text:
                    host_files.write(os.path.join(STATE, name), text, 0o644)
        controller.forget_cluster_name((running or controller.ran_with())["slurm.conf"], wanted["slurm.conf"])
        if record_text != new_record:
            host_files.write(recorded, new_record, 0o644)
        for name, text in wanted.items():
            if before[name] != text:
                put(os.path.join(FOLDER, name), text)
        if action and running is not None:
            try:
                controller.apply(action)
            except ControllerError as error:
                host_files.write(recorded, record_text or "{}\n", 0o644)
                put_back(controller, running, error)
            for name, text in wanted.items():
                host_files.write(os.path.join(STATE, name), text, 0o644)
    module.exit_json(
        changed=before != wanted or bool(action),
        told=action,
        unknown=[name for name in params["computes"] if name not in nodes],
        gpus={name: node.get("gpus") or [] for name, node in nodes.items()},
        emptied=emptied,
        unconfined=slurm_conf.why_unconfined(nodes),
        start_lines=slurm_conf.start_lines(wanted["slurm.conf"]),
        diff=[
            {"before_header": name, "after_header": name, "before": before[name], "after": wanted[name]}
            for name in NAMES
            if before[name] != wanted[name]
        ],
    )


if __name__ == "__main__":
    main()
