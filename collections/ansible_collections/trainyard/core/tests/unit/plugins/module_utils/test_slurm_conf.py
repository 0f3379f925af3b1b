"""Slurm's configuration: what is rendered, what is refused, what a change demands."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.filter import node_addresses as addresses_filter
from ansible_collections.trainyard.core.plugins.filter import slurm_nodes as nodes_filter
from ansible_collections.trainyard.core.plugins.module_utils import _slurm_conf as slurm_conf
from ansible_collections.trainyard.core.plugins.module_utils._host.reported import ReportedError

# What `slurmd -C` of Debian 12's Slurm printed on a machine with two cores.
HARDWARE = """\
NodeName=head CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=24105
UpTime=0-01:09:44
"""
SMALL = {"CPUs": 2, "Boards": 1, "SocketsPerBoard": 1, "CoresPerSocket": 2, "ThreadsPerCore": 1, "RealMemory": 4000}


def node(host: str, **more: Any) -> dict[str, Any]:
    return {"host": host, "address": "192.0.2.1", "hardware": SMALL, "unconfined": "", "gpus": [], "gpus_fixed": False, **more}


def wishes(**more: Any) -> dict[str, Any]:
    plain = {"cluster_name": "lab", "controllers": ["head"], "computes": ["node1", "node2"], "submits": [], "partitions": []}
    plain |= {"config": {}, "gpus": None, "account": "lab", "mail_program": ""}
    return {**plain, "memory_margin": 5, "host": "node1", "in_run": ["head", "node1"], "users": {}, "state": "present", **more}


def lines(**more: Any) -> list[str]:
    plain: dict[str, Any] = {"nodes": {"node1": node("node1")}, "queues": [], "config": {}, "margin": 5, "closed": []}
    given = {**plain, **more}
    text = slurm_conf.files("lab", "head", given["nodes"], given["queues"], given["config"], given["margin"], given["closed"])["slurm.conf"]
    return text.splitlines()


def test_a_node_is_what_slurmd_says_less_a_margin() -> None:
    hardware = slurm_conf.parse_hardware(HARDWARE)
    assert hardware == {"CPUs": 2, "Boards": 1, "SocketsPerBoard": 1, "CoresPerSocket": 2, "ThreadsPerCore": 1, "RealMemory": 24105}
    assert slurm_conf.node_line(node("gpu1", hardware=hardware), 10) == (
        "NodeName=gpu1 NodeAddr=192.0.2.1 CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 "
        "RealMemory=21694 State=UNKNOWN"
    )
    from_a_record = node("gpu1", hardware=dict(sorted(hardware.items())))
    assert slurm_conf.node_line(from_a_record, 10) == slurm_conf.node_line(node("gpu1", hardware=hardware), 10)
    assert slurm_conf.parse_hardware("") == {}


def test_gpus_have_types_counts_and_files() -> None:
    mixed = node("gpu1", gpus=["a100", "a100", "t4"])
    assert " Gres=gpu:a100:2,gpu:t4:1 " in slurm_conf.node_line(mixed, 5)
    assert slurm_conf.gres_lines({"gpu1": mixed}) == [
        "NodeName=gpu1 Name=gpu Type=a100 File=/dev/nvidia[0-1]",
        "NodeName=gpu1 Name=gpu Type=t4 File=/dev/nvidia2",
    ]
    assert slurm_conf.gres_lines({"gpu1": {**mixed, "nvml": True}})[0] == "NodeName=gpu1 AutoDetect=nvml"
    assert slurm_conf.gres_lines({"cpu1": node("cpu1", nvml=True)}) == []


@pytest.mark.parametrize(
    "product, name",
    [("NVIDIA A100-SXM4-40GB", "a100-sxm4-40gb"), ("Tesla V100", "v100"), ("NVIDIA GeForce RTX 5090", "rtx_5090"), ("", "gpu")],
)
def test_types_of_gpus(product: str, name: str) -> None:
    assert slurm_conf.gpu_type(product) == name


def test_nodes_that_this_run_did_not_see_keep_what_is_known_of_them() -> None:
    record = {"node1": node("node1"), "gone": node("gone")}
    found = slurm_conf.merged(["node1", "node2", "node3"], {"node2": node("node2")}, record)
    assert list(found) == ["node1", "node2"]


def test_a_node_does_not_lose_gpus_unless_the_inventory_says_so() -> None:
    record = {"gpu1": node("gpu1", gpus=["a100", "a100"])}
    assert slurm_conf.merged(["gpu1"], {"gpu1": node("gpu1", gpus=["a100"])}, record)["gpu1"]["gpus"] == ["a100", "a100"]
    assert slurm_conf.merged(["gpu1"], {"gpu1": node("gpu1", gpus=["a100"], gpus_fixed=True)}, record)["gpu1"]["gpus"] == ["a100"]


def test_one_queue_with_every_node_where_none_is_named() -> None:
    assert lines()[-1] == "PartitionName=main Nodes=node1 Default=YES MaxTime=UNLIMITED PriorityTier=10 PriorityJobFactor=10 State=UP"


def test_queues_with_all_that_they_can_have() -> None:
    queues = [
        {"name": "spare", "priority": "low", "preemptible": True, "max_time": "2-0"},
        {"name": "main", "default": True, "default_time": "30", "exclusive": True, "options": {"AllowGroups": "lab"}},
    ]
    found = lines(queues=queues)
    assert found[-2:] == [
        "PartitionName=spare Nodes=node1 Default=NO MaxTime=2-0 PriorityTier=1 PriorityJobFactor=1 PreemptMode=REQUEUE State=UP",
        "PartitionName=main Nodes=node1 Default=YES MaxTime=UNLIMITED DefaultTime=30 PriorityTier=10 PriorityJobFactor=10 "
        "OverSubscribe=EXCLUSIVE PreemptMode=OFF AllowGroups=lab State=UP",
    ]
    assert "PreemptType=preempt/partition_prio" in found


def test_a_queue_whose_nodes_are_yet_to_come_has_none() -> None:
    assert ' Nodes="" ' in lines(queues=[{"name": "later", "nodes": ["node2"]}])[-1]


def test_a_closed_node_stands_in_the_queue_of_the_proofs_alone() -> None:
    both = {"node1": node("node1"), "node2": node("node2")}
    queues = [{"name": "all"}, {"name": "new", "nodes": ["node2"]}, {"name": "spare", "preemptible": True}]
    found = [line.split(" ") for line in lines(nodes=both, queues=queues, closed=["node2"]) if line.startswith("PartitionName=")]
    assert [(words[0], words[1]) for words in found] == [
        ("PartitionName=all", "Nodes=node1"),
        ("PartitionName=new", 'Nodes=""'),
        ("PartitionName=spare", "Nodes=node1"),
        ("PartitionName=trainyard_proof", "Nodes=node1,node2"),
    ]
    assert {"Hidden=YES", "RootOnly=YES", "Default=NO", "PriorityTier=1", "PreemptMode=OFF"} <= set(found[-1])
    opened, closed = (slurm_conf.files("lab", "head", both, queues, {}, 5, names) for names in ((), ("node2",)))
    assert "trainyard_proof" not in opened["slurm.conf"]
    assert slurm_conf.demanded(closed, opened) == "reconfigure"


def test_deviations_replace_defaults_and_null_takes_one_away() -> None:
    found = lines(config={"returntoservice": 0, "SlurmdTimeout": 60, "MailProg": None})
    assert "ReturnToService=0" in found
    assert "SlurmdTimeout=60" in found
    assert not any(line.startswith(("ReturnToService=2", "MailProg")) for line in found)


def test_a_job_has_the_limits_of_its_node_unless_the_inventory_says_which() -> None:
    assert "PropagateResourceLimits=NONE" in lines()
    some = lines(config={"PropagateResourceLimitsExcept": "MEMLOCK"})
    assert [line for line in some if line.startswith("Propagate")] == ["PropagateResourceLimitsExcept=MEMLOCK"]


@pytest.mark.parametrize(
    ("mail", "config", "found"),
    [
        ("/usr/bin/mail", {}, ["MailProg=/usr/bin/mail"]),
        ("/usr/bin/mail", {"MailProg": "/opt/mail"}, ["MailProg=/opt/mail"]),
        ("", {}, ["MailProg=/bin/true", "JobSubmitPlugins=lua"]),
        ("", {"mailprog": "/opt/mail"}, ["MailProg=/opt/mail"]),
        ("", {"JobSubmitPlugins": "logging"}, ["MailProg=/bin/true", "JobSubmitPlugins=logging"]),
        (None, {}, ["MailProg=/bin/true"]),
    ],
)
def test_mail_is_sent_or_refused(mail: str | None, config: dict[str, str], found: list[str]) -> None:
    files = slurm_conf.files("lab", "head", {"node1": node("node1")}, [], config, 5, mail=mail)
    assert [line for line in files["slurm.conf"].splitlines() if line.startswith(("MailProg", "JobSubmit"))] == found
    assert bool(files["job_submit.lua"]) == ("JobSubmitPlugins=lua" in found)


def test_cgroups_where_every_node_has_them() -> None:
    assert "ProctrackType=proctrack/cgroup" in lines()
    held = {"node1": node("node1"), "node2": node("node2", unconfined="is a container")}
    assert "ProctrackType=proctrack/linuxproc" in lines(nodes=held)
    assert slurm_conf.why_unconfined(held) == "node2 is a container"


def test_a_node_that_held_jobs_in_cgroups_does_not_take_the_others_limits_away() -> None:
    record, lying = {"node1": node("node1"), "node2": node("node2")}, {"node2": node("node2", unconfined="is a container")}
    with pytest.raises(ReportedError, match="node2 reports that jobs cannot be held in cgroups there"):
        slurm_conf.merged(["node1", "node2"], lying, record)
    joined = slurm_conf.merged(["node1", "node2"], lying, {"node1": node("node1")})
    assert slurm_conf.why_unconfined(joined) == "node2 is a container", "a new one may, as the README says"
    assert slurm_conf.merged(["node2"], {"node2": node("node2")}, lying)["node2"]["unconfined"] == ""


@pytest.mark.parametrize(
    "change, action",
    [
        ({}, ""),
        ({"config": {"KillWait": 5}}, "reconfigure"),
        ({"queues": [{"name": "other"}]}, "reconfigure"),
        ({"config": {"PriorityType": "priority/basic"}}, "restart"),
        ({"nodes": {"node1": node("node1"), "node2": node("node2")}}, "restart"),
        ({"nodes": {"node1": node("node1", gpus=["t4"])}}, "restart"),
    ],
)
def test_what_a_change_demands(change: dict[str, Any], action: str) -> None:
    plain: dict[str, Any] = {"nodes": {"node1": node("node1")}, "queues": [], "config": {}}
    before, after = (
        slurm_conf.files("lab", "head", each["nodes"], each["queues"], each["config"], 5) for each in (plain, {**plain, **change})
    )
    assert slurm_conf.demanded(before, after) == action


def test_who_only_submits_stands_in_no_queue_and_lends_no_memory() -> None:
    nodes = {"node1": node("node1"), "desk": {**node("desk"), "hardware": {"CPUs": 64, "RealMemory": 64}}}
    text = slurm_conf.files("lab", "head", nodes, [], {}, 5, ["node1"], ["desk"])["slurm.conf"]
    with_desk, without = text.splitlines(), slurm_conf.files("lab", "head", {"node1": node("node1")}, [], {}, 5, ["node1"])["slurm.conf"]
    assert [line for line in with_desk if not line.startswith("NodeName=desk ")] == without.splitlines()
    assert len(with_desk) == len(without.splitlines()) + 1


def test_another_node_does_not_make_the_daemons_of_the_others_start_anew() -> None:
    one, two = lines(), lines(nodes={"node1": node("node1"), "node2": node("node2", gpus=["t4"])})
    assert slurm_conf.start_lines("\n".join(one)) == slurm_conf.start_lines("\n".join(two))
    assert "ProctrackType=proctrack/cgroup" in slurm_conf.start_lines("\n".join(one))


@pytest.mark.parametrize(
    "text, length",
    [("30", 1800), ("1:30", 90), ("12:00:00", 43200), ("2-12", 216000), ("1-0:30", 88200), ("1-0:0:5", 86405), ("infinite", float("inf"))],
)
def test_times_as_slurm_reads_them(text: str, length: float) -> None:
    assert slurm_conf.seconds(text) == length


def test_a_sound_wish_has_no_problems() -> None:
    queues = [{"name": "main", "nodes": ["node1"], "max_time": "1:00:00", "default_time": "10", "priority": "high", "default": True}]
    users = {"head": [{"name": "ada", "uid": 2000}], "node1": [{"name": "ada", "uid": 2000}, {"name": "bob", "state": "absent"}]}
    assert slurm_conf.problems(wishes(partitions=queues, config={"SlurmdTimeout": 60}, gpus=["a100"], users=users)) == []


@pytest.mark.parametrize(
    "wish, said",
    [
        ({"controllers": []}, "slurm_controllers names no node: a cluster has exactly one controller."),
        ({"controllers": ["a", "b"]}, "slurm_controllers names 2 nodes (a, b)"),
        (
            {"in_run": ["node1"]},
            "The controller head is not part of this run, and only it knows the cluster's key. Name it as well: --limit node1,head",
        ),
        ({"computes": [], "host": "head"}, "slurm_computes names no node"),
        ({"host": "spare"}, "spare is in the cluster, and neither controls nor computes nor submits there."),
        ({"cluster_name": "My Lab"}, "slurm_cluster_name is 'My Lab'"),
        ({"memory_margin": 100}, "slurm_memory_margin is 100"),
        ({"account": "root"}, "slurm_account is 'root': it needs lower-case letters"),
        ({"mail_program": "mail"}, "slurm_mail_program is 'mail': it needs the whole path of a program, such as /usr/bin/mail."),
        ({"gpus": ["A 100"]}, "slurm_gpus: 'A 100' is no type of a GPU"),
        ({"config": {"nodename": "x"}}, "slurm_config: nodename follows from slurm_computes"),
        ({"config": {"Slurmd Timeout": 1}}, "slurm_config: 'Slurmd Timeout' is no key of slurm.conf."),
        ({"config": {"TaskPlugin": ["a", "b"]}}, "slurm_config: TaskPlugin needs one value on one line"),
        ({"config": {"KillWait": "30 Prolog=/tmp/p"}}, "slurm_config: KillWait needs one value on one line"),
        ({"config": {"KillWait": "30 # more"}}, "slurm_config: KillWait needs one value on one line"),
        ({"config": {"KillWait": "30\x85Prolog=/tmp/p"}}, "slurm_config: KillWait needs one value on one line"),
        ({"partitions": [{"name": "a", "options": {"AllowGroups": "lab Nodes=ALL"}}]}, "the option 'AllowGroups=lab Nodes=ALL' is not one"),
        ({"partitions": [{"name": "a b"}]}, "slurm_partitions: the name 'a b' of queue 1 cannot be"),
        ({"partitions": [{"name": "ALL"}]}, "slurm_partitions: the name 'ALL' of queue 1 cannot be"),
        ({"partitions": [{"name": "a"}, {"name": "a"}]}, "the queue 'a' stands there twice."),
        ({"partitions": [{"name": "a", "limit": 1}]}, "the queue 'a' has the unknown key limit. Known: name, nodes"),
        ({"partitions": [{"name": "a", "nodes": ["node9"]}]}, "names node9, which does not compute here. Nodes that do: node1, node2."),
        ({"partitions": [{"name": "a", "nodes": []}]}, "the queue 'a' has no nodes."),
        ({"partitions": [{"name": "a", "priority": "urgent"}]}, "has the priority 'urgent'. Allowed: low, normal, high."),
        ({"partitions": [{"name": "a", "max_time": "soon"}]}, "Slurm cannot read the max_time 'soon'."),
        ({"partitions": [{"name": "a", "max_time": 43200}]}, "max_time is 43200. Put it in quotes"),
        (
            {"partitions": [{"name": "a", "max_time": "10", "default_time": "1:00:00"}]},
            "its default_time '1:00:00' is longer than its max_time '10'.",
        ),
        ({"partitions": [{"name": "a", "default": True}, {"name": "b", "default": True}]}, "a and b both say default: true"),
        ({"users": {"head": [{"name": "ada"}]}}, "base_users: the user 'ada' needs a uid (on head)"),
        (
            {"users": {"head": [{"name": "ada", "uid": 1}], "node1": [{"name": "ada", "uid": 2}]}},
            "the user 'ada' has the uid 1 on head and 2 on node1",
        ),
        ({"partitions": [{"name": "trainyard_proof"}]}, "the queue 'trainyard_proof' cannot be: the role makes it"),
    ],
)
def test_what_cannot_be_is_named(wish: dict[str, Any], said: str) -> None:
    (problem,) = slurm_conf.problems(wishes(**wish))
    assert said in problem


def test_what_a_run_found_out() -> None:
    seen = {"slurm_node_result": {"host": "gpu1", "hardware": SMALL, "unconfined": "", "nvml": False}, "ansible_host": "192.0.2.7"}
    smi = {"gpu_info": {"nvidia_smi": {"gpus": [{"name": "Tesla T4"}]}}}
    hostvars: dict[str, Any] = {
        "gpu1": {**seen, "slurm_gpu_result": smi},
        "gpu2": {**seen, "slurm_node_result": {**seen["slurm_node_result"], "host": "gpu2"}, "slurm_gpus": ["v100", "v100"]}
        | {"slurm_address": "10.0.0.2"},
        "absent": {},
    }
    found = nodes_filter.slurm_nodes(["gpu1", "gpu2", "absent", "unknown"], hostvars)
    assert {name: (each["address"], each["gpus"], each["gpus_fixed"]) for name, each in found.items()} == {
        "gpu1": ("192.0.2.7", ["t4"], False),
        "gpu2": ("10.0.0.2", ["v100", "v100"], True),
    }
    assert addresses_filter.node_addresses(["gpu2", "nowhere"], hostvars, "slurm_address")["gpu2"]["address"] == "10.0.0.2"
