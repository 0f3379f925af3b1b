# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Slurm's configuration, made of nodes, queues and deviations; what is wrong with them in words; and what a change of it demands."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _base as base
from ansible_collections.trainyard.core.plugins.module_utils._host import reported

Values = dict[str, Any]

PROGRAMS = "/usr/local/lib/trainyard/slurm"
PRIORITIES = {"low": 1, "normal": 10, "high": 100}
DEFAULTS: Values = {
    "SlurmUser": "slurm",
    "AuthType": "auth/munge",
    "CredType": "cred/munge",
    "StateSaveLocation": "/var/lib/slurm/slurmctld",
    "SlurmdSpoolDir": "/var/lib/slurm/slurmd",
    "SlurmctldLogFile": "/var/log/slurm/slurmctld.log",
    "SlurmdLogFile": "/var/log/slurm/slurmd.log",
    "SlurmctldPidFile": "/run/slurmctld.pid",
    "SlurmdPidFile": "/run/slurmd.pid",
    "SlurmctldParameters": "enable_configless",
    # What a node lacks is for the health check to say; slurmd stays up.
    "SlurmdParameters": "config_overrides",
    # Always, since a daemon learns it only when it starts: the first node with a GPU disturbs no other.
    "GresTypes": "gpu",
    "SelectType": "select/cons_tres",
    "SelectTypeParameters": "CR_Core_Memory",
    # Without accounting there is no fair share: the queue's priority and a job's age count.
    "PriorityType": "priority/multifactor",
    "PriorityWeightPartition": 10000,
    "PriorityWeightAge": 1000,
    # A job that no queue can ever start is refused at once.
    "EnforcePartLimits": "ANY",
    # A node that lost its power or its network comes back by itself, or a job that needs it would wait for somebody; what somebody drained
    # stays so.
    "ReturnToService": 2,
    "HealthCheckProgram": f"{PROGRAMS}/health",
    "HealthCheckInterval": 300,
    "Prolog": f"{PROGRAMS}/health",
    "Epilog": f"{PROGRAMS}/epilog",
    "MailProg": "/bin/true",
    # A job has the limits of its node's daemon, and not those of the shell that it was submitted from.
    "PropagateResourceLimits": "NONE",
    # A process of a job step that fails ends the step: the others would wait for it until the time limit.
    "KillOnBadExit": 1,
}
CONFINED: Values = {"ProctrackType": "proctrack/cgroup", "TaskPlugin": "task/affinity,task/cgroup"}
UNCONFINED: Values = {"ProctrackType": "proctrack/linuxproc", "TaskPlugin": "task/none"}
CGROUP = "ConstrainCores=yes\nConstrainRAMSpace=yes\nConstrainDevices=yes\n"
HEADER = "# Written by Trainyard (role slurm).\n"
NO_MAIL = """\
-- Written by Trainyard (role slurm). Without a mail program --mail-type would be taken and nothing sent.
function slurm_job_submit(job, _queues, _uid)
   if job.mail_type and job.mail_type ~= 0 then
      slurm.log_user("--mail-type: this cluster sends no mail. Submit without it. (For admins: slurm_mail_program)")
      return slurm.ERROR
   end
   return slurm.SUCCESS
end
function slurm_job_modify(_job, _record, _queues, _uid)
   return slurm.SUCCESS
end
return slurm.SUCCESS
"""
"""Slurm's controller asks this program of each job; it is read by the plugin job_submit/lua."""

PROOF_QUEUE = "trainyard_proof"
"""The queue in which closed nodes are proven: root's alone, not shown, and there only while a node is closed."""

OWN_KEYS = {"ClusterName": "slurm_cluster_name", "SlurmctldHost": "slurm_controllers", "NodeName": "slurm_computes"} | {
    "PartitionName": "slurm_partitions",
    "GresTypes": "slurm_gpus",
}
"""Keys of slurm.conf that other variables of the role are for."""

_BY_RECONFIGURE = """
    BatchStartTimeout CompleteWait DefMemPerCPU DefMemPerNode Epilog HealthCheckInterval HealthCheckNodeState HealthCheckProgram
    InactiveLimit JobRequeue KillOnBadExit KillWait MaxMemPerCPU MaxMemPerNode MessageTimeout MinJobAge OverTimeLimit PartitionName
    PriorityFavorSmall PriorityMaxAge PriorityWeightAge PriorityWeightFairshare PriorityWeightJobSize PriorityWeightPartition
    PriorityWeightQOS Prolog ResvOverRun ReturnToService SlurmctldDebug SlurmctldTimeout SlurmdDebug SlurmdTimeout
    UnkillableStepTimeout WaitTime
"""
RECONFIGURED = frozenset(_BY_RECONFIGURE.split())
"""Keys that Slurm takes up by `scontrol reconfigure`; for all others its controller is restarted, which running jobs survive."""
SLURMD_STARTS_ANEW = (
    "AuthType",
    "CredType",
    "ProctrackType",
    "TaskPlugin",
    "JobAcctGatherType",
    "SlurmdSpoolDir",
    "SlurmdPort",
    "SlurmctldPort",
    "SlurmctldHost",
    "SlurmdParameters",
    "GresTypes",
)
"""Keys that a slurmd reads when it starts and never again."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,30}\Z")
_CLUSTER = re.compile(r"[a-z][a-z0-9_-]{0,39}\Z")
_TIME = re.compile(r"(?:(?P<days>\d+)-(?P<hours>\d+)(?::(?P<minutes>\d+)(?::(?P<seconds>\d+))?)?|(?P<plain>\d+(?::\d+){0,2}))\Z")
_ENDLESS = {"INFINITE", "UNLIMITED"}
_MOST = 65533  # what Slurm's numbers of 16 bits hold
_HARDWARE = dict.fromkeys(("CPUs", "Boards", "SocketsPerBoard", "CoresPerSocket", "ThreadsPerCore"), _MOST) | {"RealMemory": 2**30}
"""What a node's line says of its hardware, in that order, each with the most that is believed; memory in MiB."""
_GPUS = 64  # the most that a node has: more than any machine's
# Slurm reads further keys behind a blank, a comment behind #, and after a backslash the next line as the same one.
_VALUE = r"(?:[^\s\"#\\]*|\"[^\"#\\]*\")\Z"
_ASSIGNMENT = re.compile(rf"[A-Za-z]+={_VALUE}")
_QUEUE_KEYS = ("name", "nodes", "max_time", "default_time", "priority", "preemptible", "exclusive", "default", "options")


def seconds(text: str) -> float:
    """Return the seconds of one of Slurm's time limits, such as ``30``, ``1:30:00`` or ``2-12``.

    Raises:
        ValueError: Slurm does not read it so.
    """
    if text.upper() in _ENDLESS:
        return float("inf")
    found = _TIME.match(text)
    if not found:
        raise ValueError(text)
    if found["plain"] is None:
        days, hours, minutes, rest = (int(found[part] or 0) for part in ("days", "hours", "minutes", "seconds"))
        return ((days * 24 + hours) * 60 + minutes) * 60 + rest
    numbers = [int(number) for number in found["plain"].split(":")]
    if len(numbers) == 3:
        return (numbers[0] * 60 + numbers[1]) * 60 + numbers[2]
    return numbers[0] * 60 + (numbers[1] if len(numbers) == 2 else 0)


def problems(wishes: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each thing that cannot be.

    Args:
        wishes: the role's variables without their prefix (cluster_name, controllers, computes, submits, partitions, config, gpus,
            memory_margin, account, mail_program), and ``host`` (this node's name in the inventory), ``in_run`` (the nodes that this run
            reaches), ``users`` (node -> its users, each with name and perhaps uid and state) and ``state``.
    """
    controllers, computes = list(wishes["controllers"]), list(wishes["computes"])
    found = []
    if len(controllers) != 1:
        what = "names no node" if not controllers else f"names {len(controllers)} nodes ({', '.join(controllers)})"
        found.append(f"slurm_controllers {what}: a cluster has exactly one controller. Put one node into the group slurm_controller.")
    elif controllers[0] not in wishes["in_run"]:
        found.append(
            f"The controller {controllers[0]} is not part of this run, and only it knows the cluster's key. "
            f"Name it as well: --limit {wishes['host']},{controllers[0]}"
        )
    if not computes and wishes["state"] == "present":
        found.append("slurm_computes names no node: nothing could compute. Put nodes into the group slurm_compute.")
    if wishes["host"] not in {*controllers, *computes, *wishes["submits"]}:
        found.append(
            f"{wishes['host']} is in the cluster, and neither controls nor computes nor submits there. "
            "Put it into the group slurm_controller, slurm_compute or slurm_submit, or take it out of the group cluster."
        )
    if not _CLUSTER.match(str(wishes["cluster_name"])):
        found.append(
            f"slurm_cluster_name is '{wishes['cluster_name']}': it needs lower-case letters, digits, - and _, a letter first, 40 at most."
        )
    if not _CLUSTER.match(str(wishes["account"])) or wishes["account"] == "root":
        found.append(
            f"slurm_account is '{wishes['account']}': it needs lower-case letters, digits, - and _, a letter first, 40 at most, and cannot "
            "be root."
        )
    mail = str(wishes["mail_program"])
    if mail and not (mail.startswith("/") and _is_assignment(f"MailProg={mail}")):
        found.append(f"slurm_mail_program is {reported.shown(mail)}: it needs the whole path of a program, such as /usr/bin/mail.")
    margin = wishes["memory_margin"]
    if not isinstance(margin, int) or isinstance(margin, bool) or not 0 <= margin < 100:
        found.append(f"slurm_memory_margin is {margin!r}: say a whole number of per cent from 0 to 99.")
    found += [
        f"slurm_gpus: '{gpu}' is no type of a GPU: letters, digits, - and _ only, such as a100."
        for gpu in wishes["gpus"] or []
        if not re.match(r"[A-Za-z0-9_-]+\Z", str(gpu))
    ]
    found += _config_problems(wishes["config"])
    found += _queue_problems(wishes["partitions"], computes)
    found += base.number_problems("base_users", wishes["users"], "Slurm runs jobs under the number")
    return found


def _config_problems(config: Mapping[str, Any]) -> list[str]:
    found = []
    for key, value in config.items():
        own = next((variable for name, variable in OWN_KEYS.items() if name.lower() == key.lower()), "")
        if own:
            found.append(f"slurm_config: {key} follows from {own} and cannot be set here.")
        elif not re.match(r"[A-Za-z]+\Z", key):
            found.append(f"slurm_config: '{key}' is no key of slurm.conf.")
        elif isinstance(value, (dict, list)) or not _is_assignment(f"{key}={value}"):
            found.append(
                f"slurm_config: {key} needs one value on one line; parts of it are joined by commas. One with blanks stands in double "
                f"quotes, and none has a quote, a backslash or # inside; it is {reported.shown(value)}."
            )
    return found


def _queue_problems(queues: Sequence[Mapping[str, Any]], computes: Sequence[str]) -> list[str]:
    found = []
    seen: set[str] = set()
    for number, queue in enumerate(queues, 1):
        name = str(queue.get("name", ""))
        where = f"slurm_partitions: the queue '{name}'"
        if not _NAME.match(name) or name.upper() in {"DEFAULT", "ALL"}:
            rule = "letters, digits, - and _; a letter first; not ALL or DEFAULT"
            found.append(f"slurm_partitions: the name '{name}' of queue {number} cannot be ({rule}).")
        if name == PROOF_QUEUE:
            found.append(f"{where} cannot be: the role makes it, for nodes with slurm_closed. Take another name.")
        if name in seen:
            found.append(f"{where} stands there twice.")
        seen.add(name)
        unknown = sorted(set(queue) - set(_QUEUE_KEYS))
        if unknown:
            found.append(f"{where} has the unknown key {unknown[0]}. Known: {', '.join(_QUEUE_KEYS)}.")
        strangers = [str(node) for node in queue.get("nodes") or [] if node not in computes]
        if strangers:
            found.append(f"{where} names {', '.join(strangers)}, which does not compute here. Nodes that do: {', '.join(computes)}.")
        if "nodes" in queue and not queue["nodes"]:
            found.append(f"{where} has no nodes. Leave nodes away for all of them.")
        if queue.get("priority", "normal") not in PRIORITIES:
            found.append(f"{where} has the priority '{queue['priority']}'. Allowed: {', '.join(PRIORITIES)}.")
        found += [
            f"{where}: the option {reported.shown(f'{key}={value}')} is not one key and one value; blanks stand in double quotes, and #, a "
            "quote or a backslash cannot be in it."
            for key, value in (queue.get("options") or {}).items()
            if not _is_assignment(f"{key}={value}")
        ]
        found += _time_problems(queue, where)
    defaults = [str(queue.get("name")) for queue in queues if queue.get("default")]
    if len(defaults) > 1:
        found.append(f"slurm_partitions: {' and '.join(defaults)} both say default: true; a job without a queue can go to one alone.")
    return found


def _time_problems(queue: Mapping[str, Any], where: str) -> list[str]:
    found, limits = [], {}
    for key in ("max_time", "default_time"):
        if key not in queue:
            continue
        if not isinstance(queue[key], str):
            # Without quotes YAML makes 43200 of 12:00:00, which Slurm would take for minutes.
            found.append(f"{where}: {key} is {queue[key]!r}. Put it in quotes, such as '12:00:00'.")
            continue
        try:
            limits[key] = seconds(queue[key])
        except ValueError:
            found.append(
                f"{where}: Slurm cannot read the {key} '{queue[key]}'. Say '30' (minutes), '12:00:00', '2-12' (days-hours) or 'UNLIMITED'."
            )
    if len(limits) == 2 and limits["default_time"] > limits["max_time"]:
        found.append(f"{where}: its default_time '{queue['default_time']}' is longer than its max_time '{queue['max_time']}'.")
    return found


def parse_hardware(text: str) -> dict[str, int]:
    """Read the first line of ``slurmd -C``; empty where it says nothing."""
    words = dict(word.partition("=")[::2] for word in text.partition("\n")[0].split())
    return {key: int(words[key]) for key in _HARDWARE if words.get(key, "").isdigit()}


def gpu_type(product: str) -> str:
    """Return a type for Slurm of a product's name: ``NVIDIA A100-SXM4-40GB`` is ``a100-sxm4-40gb``."""
    words = [word for word in re.split(r"[^a-z0-9-]+", product.lower()) if word not in {"", "nvidia", "tesla", "geforce"}]
    return "_".join(words)[:64] or "gpu"


def checked(name: str, node: Mapping[str, Any]) -> Values:
    """Return what is known of a node, each value checked, and nothing else.

    Args:
        name: in the inventory.
        node: what the node reported, or what an earlier run recorded of it.

    Raises:
        ReportedError: a value could not stand in Slurm's configuration.
    """
    hardware, gpus = ({**node["hardware"]} if isinstance(node.get("hardware"), Mapping) else {}), [*(node.get("gpus") or [])]
    for key in ("CPUs", "RealMemory") if hardware else ():
        hardware.setdefault(key, None)
    return {
        "host": reported.host_name(name, node.get("host")),
        "address": reported.address(name, node["address"]) if node.get("address") else "",
        "hardware": {key: reported.number(name, hardware[key], key, 1, most) for key, most in _HARDWARE.items() if key in hardware},
        "unconfined": " ".join(reported.printable(node.get("unconfined") or "", 100).split()),
        "nvml": node.get("nvml") is True,
        "gpus": [reported.gpu_type(name, each) for each in gpus[: reported.number(name, len(gpus), "number of GPUs", 0, _GPUS)]],
        "gpus_fixed": node.get("gpus_fixed") is True,
    }


def merged(wanted: Sequence[str], known: Mapping[str, Values], record: Mapping[str, Values]) -> dict[str, Values]:
    """Return the nodes to describe: those wanted that this run has seen, or that an earlier one had.

    A node does not lose GPUs by this: one with fewer than before has a fault, which is for the health check to say.

    Raises:
        ReportedError: a value of a node could not stand in Slurm's configuration, two nodes have one name, or one that could hold jobs in
            cgroups reports that it cannot, which would take all others' limits away.
    """
    found = {}
    for name in wanted:
        new, old = known.get(name) or {}, record.get(name) or {}
        if not new.get("hardware"):
            new = old
        elif not new.get("gpus_fixed") and len(new.get("gpus") or []) < len(old.get("gpus") or []):
            new = {**new, "gpus": old["gpus"]}
        if not new:
            continue
        found[name] = checked(name, new)
        if old.get("hardware") and not old.get("unconfined") and found[name]["unconfined"]:
            raise reported.ReportedError(
                f"{name} reports that jobs cannot be held in cgroups there ({found[name]['unconfined']}), and an earlier run "
                "found that they can. Slurm knows but one way for all nodes, so that the others would lose their limits as well. "
                "Boot it with cgroup v2. If it has to be so, take it out of the cluster for one run first."
            )
    owners: dict[str, str] = {}
    for name, node in found.items():
        if owners.setdefault(node["host"], name) != name:
            raise reported.ReportedError(
                f"{owners[node['host']]} and {name} both have the host name {node['host']}, and Slurm knows a node by it. Give one of them "
                "another one: sudo hostnamectl set-hostname NAME there, and the same name in the inventory."
            )
    return found


def _is_assignment(text: str) -> bool:
    return bool(_ASSIGNMENT.match(text)) and text.isprintable()


def _line(*words: str) -> str:
    """Return a line of slurm.conf or gres.conf, of which each part is one key with one value.

    Raises:
        ReportedError: Slurm would read a part as more, such as another key, a comment or another line.
    """
    for word in words:
        if not _is_assignment(word):
            raise reported.ReportedError(
                f"Slurm's configuration: {reported.shown(word)} is not one key with one value on one line, and is not written there. "
                "Correct it in the inventory or on the node that it is from."
            )
    return " ".join(words)


def why_unconfined(nodes: Mapping[str, Values]) -> str:
    """Say why jobs cannot be held in cgroups; empty where they can on every node."""
    reasons = [f"{name} {node['unconfined']}" for name, node in nodes.items() if node.get("unconfined")]
    return "; ".join(reasons)


def _groups(types: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return runs of equal types: type, first index, count."""
    runs: list[tuple[str, int, int]] = []
    for index, name in enumerate(types):
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1], runs[-1][2] + 1)
        else:
            runs.append((name, index, 1))
    return runs


def node_line(node: Mapping[str, Any], margin: int) -> str:
    """Return the line of slurm.conf for a node; ``margin`` per cent of its memory are left to the system."""
    hardware = dict(node["hardware"])
    hardware["RealMemory"] = max(1, hardware["RealMemory"] * (100 - margin) // 100)
    words = [f"NodeName={node['host']}", f"NodeAddr={node['address']}"] if node.get("address") else [f"NodeName={node['host']}"]
    words += [f"{key}={hardware[key]}" for key in _HARDWARE if key in hardware]
    if node.get("gpus"):
        counts: dict[str, int] = {}
        for name in node["gpus"]:
            counts[name] = counts.get(name, 0) + 1
        words.append("Gres=" + ",".join(f"gpu:{name}:{count}" for name, count in counts.items()))
    return _line(*words, "State=UNKNOWN")


def gres_lines(nodes: Mapping[str, Values]) -> list[str]:
    """Return the lines of gres.conf: which device files are which GPUs, and on which nodes NVML says which cores are near them."""
    found = []
    for node in nodes.values():
        if node.get("nvml") and node.get("gpus"):
            found.append(_line(f"NodeName={node['host']}", "AutoDetect=nvml"))
        for name, first, count in _groups(node.get("gpus") or []):
            files = f"/dev/nvidia{first}" if count == 1 else f"/dev/nvidia[{first}-{first + count - 1}]"
            found.append(_line(f"NodeName={node['host']}", "Name=gpu", f"Type={name}", f"File={files}"))
    return found


def queue_line(queue: Mapping[str, Any], hosts: Mapping[str, str], is_default: bool, preempting: bool) -> str:
    """Return the line of slurm.conf for a queue.

    Args:
        queue: an entry of ``slurm_partitions``.
        hosts: name in the inventory -> name in Slurm, of every node that is described.
        is_default: whether jobs without a queue go there.
        preempting: whether any queue of the cluster gives way to others.
    """
    named = [hosts[node] for node in queue.get("nodes") or hosts if node in hosts]
    # A queue whose nodes are all yet to come has none so far; without the word it would be refused.
    words = [f"PartitionName={queue['name']}", f"Nodes={','.join(named) or chr(34) * 2}", f"Default={'YES' if is_default else 'NO'}"]
    tier = PRIORITIES[queue.get("priority", "normal")]
    words += [f"MaxTime={queue.get('max_time', 'UNLIMITED')}"]
    words += [f"DefaultTime={queue['default_time']}"] if "default_time" in queue else []
    words += [f"PriorityTier={tier}", f"PriorityJobFactor={tier}"]
    words += ["OverSubscribe=EXCLUSIVE"] if queue.get("exclusive") else []
    words += [f"PreemptMode={'REQUEUE' if queue.get('preemptible') else 'OFF'}"] if preempting else []
    words += [f"{key}={value}" for key, value in (queue.get("options") or {}).items()]
    return _line(*words, "State=UP")


def emptied_line(queue: Mapping[str, str], hosts: Collection[str], preempting: bool) -> str:
    """Return the line of slurm.conf for a queue that takes no new jobs and goes once it is empty.

    Args:
        queue: the parts of its line so far, name first.
        hosts: names in Slurm of the nodes that may stand in queues.
        preempting: whether any queue of the cluster gives way to others.
    """
    named = [host for host in queue.get("Nodes", "").split(",") if host in hosts]
    parts = {**queue, "Nodes": ",".join(named) or '""', "Default": "NO"}
    if preempting:  # else it would give way as well
        parts.setdefault("PreemptMode", "OFF")
    parts.pop("State", None)
    return _line(*(f"{key}={value}" for key, value in parts.items()), "State=DRAIN")


def proof_line(hosts: Mapping[str, str], preempting: bool) -> str:
    """Return the line of slurm.conf for the queue of the proofs, with all nodes, so that whichever is free takes part.

    Nothing ranks lower, so that a proof neither takes a job's place nor ends one.
    """
    words = [f"PartitionName={PROOF_QUEUE}", f"Nodes={','.join(hosts.values())}", "Default=NO", "Hidden=YES", "RootOnly=YES"]
    words += ["MaxTime=30", f"PriorityTier={min(PRIORITIES.values())}", *(["PreemptMode=OFF"] if preempting else []), "State=UP"]
    return _line(*words)


def files(
    cluster: str,
    controller: str,
    nodes: Mapping[str, Values],
    queues: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    margin: int,
    closed: Sequence[str] = (),
    submits: Sequence[str] = (),
    emptied: Sequence[Mapping[str, str]] = (),
    mail: str | None = "",
) -> dict[str, str]:
    """Return the configuration's files, name -> text.

    Args:
        cluster: the cluster's name.
        controller: the controller's host name, perhaps with its address in brackets.
        nodes: what :func:`merged` found.
        queues: ``slurm_partitions``; one called ``main`` where there is none.
        config: deviations from the defaults; null takes a default away.
        margin: per cent of each node's memory for the system.
        closed: nodes that stand in no queue but the one of the proofs.
        submits: nodes that stand in none at all.
        emptied: queues that are not requested any more and still have jobs, the parts of each line so far.
        mail: the program that sends mail; empty to refuse jobs that ask for mail, None to leave that to `config`.

    Raises:
        ReportedError: a value would be read as more than one.
    """
    queues = queues or [{"name": "main"}]
    preempting = any(queue.get("preemptible") for queue in queues) or any(queue.get("PreemptMode") == "REQUEUE" for queue in emptied)
    values: Values = {"ClusterName": cluster, "SlurmctldHost": controller, **DEFAULTS}
    values.update(UNCONFINED if why_unconfined(nodes) else CONFINED)
    computing = [node for name, node in nodes.items() if name not in submits]
    if computing:  # a job that asks for no memory gets its cores' share of the smallest node's
        values["DefMemPerCPU"] = min(
            max(1, node["hardware"]["RealMemory"] * (100 - margin) // 100 // node["hardware"]["CPUs"]) for node in computing
        )
    if preempting:
        values.update({"PreemptType": "preempt/partition_prio", "PreemptMode": "REQUEUE"})
    asked = {key.lower() for key in config}
    if "propagateresourcelimitsexcept" in asked:  # Slurm takes one of the two alone
        del values["PropagateResourceLimits"]
    refuses_mail = mail == "" and not {"mailprog", "jobsubmitplugins"} & asked
    values.update({"MailProg": mail} if mail else {"JobSubmitPlugins": "lua"} if refuses_mail else {})
    spelled = {key.lower(): key for key in values}
    values.update({spelled.get(key.lower(), key): value for key, value in config.items()})
    default = next((queue["name"] for queue in queues if queue.get("default")), queues[0]["name"])
    hosts = {name: node["host"] for name, node in nodes.items() if name not in submits}
    lines = [_line(f"{key}={value}") for key, value in values.items() if value is not None]
    lines += [node_line(node, margin) for node in nodes.values()]
    opened = {name: host for name, host in hosts.items() if name not in closed}
    lines += [queue_line(queue, opened, queue["name"] == default, preempting) for queue in queues]
    lines += [emptied_line(queue, opened.values(), preempting) for queue in emptied]
    lines += [proof_line(hosts, preempting)] if opened != hosts else []
    return {
        "slurm.conf": HEADER + "".join(f"{line}\n" for line in lines),
        "gres.conf": HEADER + "".join(f"{line}\n" for line in gres_lines(nodes)),
        "cgroup.conf": HEADER + CGROUP,
        "job_submit.lua": NO_MAIL if refuses_mail else "",
    }


def start_lines(text: str) -> list[str]:
    """Return those lines of slurm.conf that a slurmd reads when it starts and never again."""
    return [line for line in text.splitlines() if line.partition("=")[0] in SLURMD_STARTS_ANEW]


def demanded(running: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """Return what a controller that runs with some files needs to run with others: '', 'reconfigure' or 'restart'."""
    if running == wanted:
        return ""
    before, after = (set(each.get("slurm.conf", "").splitlines()) for each in (running, wanted))
    keys = {line.partition("=")[0] for line in before ^ after if line}
    others = {name for name in {*running, *wanted} - {"slurm.conf"} if running.get(name) != wanted.get(name)}
    return "restart" if others or keys - RECONFIGURED else "reconfigure"
