"""From what happened on the nodes to one result, and from a failure to what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _report

RUN = _report.Run("2026-03-14T09:20:11Z", "2026-03-14T09:27:31Z", 440.04, "site.yml", "", [], check_mode=False, complete=True)
WELL = {"ok": 40, "changed": 3, "failures": 0, "unreachable": 0, "skipped": 2, "rescued": 0}
PROOF = {
    "environment": "torch",
    "framework": "PyTorch",
    "variant": "cpu",
    "version": "2.13.0+cpu",
    "device": "cpu",
    "device_name": "CPU",
    "expected_device": "cpu",
    "accuracy": 0.97,
    "seconds": 5.7,
    "passed": True,
    "problem": "",
    "remedy": "",
    "ran_at": "2026-03-14T09:26:53Z",
    "cached": False,
}


def recorded(**proof: Any) -> _report.Recorder:
    recorder = _report.Recorder()
    recorder.seen("head", {"proofs": [{**PROOF, **proof}]})
    return recorder


def test_web_services_are_reported_with_what_to_compare() -> None:
    recorder = recorded()
    service = {"name": "JupyterLab", "port": 8888, "fingerprint": "AB:CD"}
    recorder.seen("head", {"web_service": {**service, "secret": "canary"}})
    recorder.seen("head", {"web_service": service})
    for other in (None, {"name": "x", "port": "8888", "fingerprint": "AB"}, {"name": "x"}):
        recorder.seen("head", {"web_service": other})
    (node,) = _report.build(recorder, {"head": WELL}, RUN)["nodes"]
    assert node["services"] == [service]


def test_gpus_are_named_as_the_driver_does_or_by_the_bus_and_the_last_look_counts() -> None:
    pci = [{"device": "2330"}, {"device": "2330"}, {"device": "2330", "virtual_function": True}, {}, "x"]
    recorder = recorded()
    recorder.seen("head", {"gpu_info": {"pci": pci, "nvidia_smi": {"gpus": []}}})
    (node,) = _report.build(recorder, {"head": WELL}, RUN)["nodes"]
    assert node["gpus"] == ["NVIDIA GPU 10de:2330", "NVIDIA GPU 10de:2330"]
    recorder.seen("head", {"gpu_info": {"pci": pci, "nvidia_smi": {"gpus": [{"name": "NVIDIA H200\x1b[2J"}, {"name": ""}, None]}}})
    recorder.seen("head", {"gpu_info": "nonsense"})
    (node,) = _report.build(recorder, {"head": WELL}, RUN)["nodes"]
    assert node["gpus"] == ["NVIDIA H200", "GPU without a name"]
    assert _report.counted(["a", "b", "a"]) == ["2 x a", "b"]


def test_a_tunnel_names_an_address_since_localhost_may_be_another() -> None:
    assert _report.tunnel(8888, "head") == "ssh -L 8888:127.0.0.1:8888 head"


def test_a_run_in_which_all_is_well() -> None:
    recorder = recorded()
    recorder.took("head", 1.25)
    recorder.took("head", 2.0)
    recorder.seen(
        "head", {"ansible_facts": {"ansible_distribution": "Debian", "ansible_kernel": "6.1", "ansible_env": {"TOKEN": "canary"}}}
    )
    report = _report.build(recorder, {"head": WELL}, RUN)
    assert report == {
        "schema": 1,
        "started": "2026-03-14T09:20:11Z",
        "finished": "2026-03-14T09:27:31Z",
        "seconds": 440.0,
        "playbook": "site.yml",
        "limit": "",
        "tags": [],
        "check_mode": False,
        "complete": True,
        "lab": "",
        "passed": True,
        "nodes": [
            {
                "name": "head",
                "reachable": True,
                "converged": True,
                "changed": 3,
                "tasks": 40,
                "seconds": 3.2,
                "system": {"distribution": "Debian", "kernel": "6.1"},
                "gpus": [],
                "environments": [PROOF],
                "services": [],
                "changes": [],
                "failures": [],
            }
        ],
    }
    assert _report.summary(report) == "1 of 1 node converged, 1 of 1 proof passed."


@pytest.mark.parametrize(
    ("proof", "counts", "run", "passed"),
    [
        ({}, {}, {}, True),
        ({"passed": False}, {}, {}, False),
        ({"passed": None}, {}, {}, False),
        ({"passed": None}, {}, {"check_mode": True}, True),
        ({"passed": False}, {}, {"check_mode": True}, False),
        ({}, {"failures": 1}, {}, False),
        ({}, {"unreachable": 1}, {}, False),
        ({}, {}, {"complete": False}, False),
    ],
)
def test_a_run_passes_only_when_every_node_converged_and_every_proof_passed(
    proof: dict[str, Any], counts: dict[str, int], run: dict[str, Any], passed: bool
) -> None:
    report = _report.build(recorded(**proof), {"head": {**WELL, **counts}, "node1": WELL}, RUN._replace(**run))
    assert report["passed"] is passed


def test_no_node_is_no_pass() -> None:
    report = _report.build(_report.Recorder(), {}, RUN)
    assert not report["passed"]
    assert _report.summary(report) == "No node was reached by the run."


def test_the_later_of_two_proofs_counts() -> None:
    recorder = recorded(passed=False)
    recorder.seen("head", {"proofs": [PROOF]})
    assert recorder.proofs["head"] == {"torch": PROOF}


@pytest.mark.parametrize(
    "found", [None, "x", [None], [{"environment": "torch"}], [{**PROOF, "accuracy": "high"}], [{**PROOF, "passed": 1}]]
)
def test_what_is_no_proof_is_not_taken_for_one(found: Any) -> None:
    assert _report.proofs_of({"proofs": found}) == []


def test_only_known_keys_of_a_proof_are_kept() -> None:
    assert _report.proofs_of({"proofs": [{**PROOF, "token": "canary"}]}) == [PROOF]


def test_a_proof_of_several_nodes_stands_beside_that_of_one_and_names_them() -> None:
    recorder = _report.Recorder()
    recorder.seen("head", {"proofs": [PROOF]})
    recorder.seen("head", {"proofs": [{**PROOF, "nodes": ["node1", "node\x1b[31m2"]}]})
    alone, together = recorder.proofs["head"].values()
    assert "nodes" not in alone
    assert _report.where({"name": "head"}, alone) == "head"
    assert _report.where({"name": "head"}, together) == "node1 + node2"


def test_a_failure_that_was_rescued_is_none() -> None:
    recorder = _report.Recorder()
    recorder.failed("head", "Try", "base", {"msg": "no"})
    (node,) = _report.build(recorder, {"head": {**WELL, "rescued": 1}}, RUN)["nodes"]
    assert (node["converged"], node["failures"]) == (True, [])


def test_a_run_that_stopped_for_all_leaves_no_node_converged() -> None:
    recorder = _report.Recorder()
    recorder.failed("head", "Refuse", "base", {"msg": "base_package_mirror is 'x'"})
    report = _report.build(recorder, {"head": {**WELL, "failures": 1}, "node1": WELL}, RUN._replace(complete=False))
    assert [node["converged"] for node in report["nodes"]] == [False, False]
    assert _report.summary(report) == "Stopped early: 0 of 2 nodes converged."


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"msg": "it broke"}, "it broke"),
        ({"msg": "non-zero return code", "rc": 4, "stderr": "canary", "cmd": "canary"}, "non-zero return code (status 4)"),
        ({}, "The task failed without a message."),
        ({"censored": "hidden", "msg": "canary"}, _report.HIDDEN),
        ({"_ansible_no_log": True, "msg": "canary"}, _report.HIDDEN),
        ({"msg": "\x1b[31mred\x1b[0m\x00 line\r\n next"}, "red line\n next"),
        (
            {
                "msg": "One or more items failed",
                "results": [{"failed": True, "msg": "first"}, {"msg": "fine"}, {"failed": True, "msg": "second"}],
            },
            "first\nsecond",
        ),
        ({"results": [{"failed": True, "censored": "hidden", "item": "canary"}]}, _report.HIDDEN),
    ],
)
def test_of_a_failure_nothing_but_the_message_is_kept(result: dict[str, Any], message: str) -> None:
    assert _report.message_of(result) == message


def test_a_long_message_is_cut() -> None:
    assert len(_report.message_of({"msg": "x" * 100_000})) < 2100


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("Failed to connect to the host via ssh: WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!", "Do not go on before you know why"),
        (
            "Failed to connect to the host via ssh: No ED25519 host key is known for node1 and you have requested strict checking.\r\n"
            "Host key verification failed.",
            "is not in your known_hosts file. Nothing was sent to it",
        ),
        (
            "Child start failed: [Errno 2] No such file or directory: 'sudo'. Command was: sudo -u root -- /usr/bin/python3",
            "The node has no sudo",
        ),
        ("Failed to connect to the host via ssh: Host key verification failed.", "is not in your known_hosts file, or differs from"),
        (
            "Host key checking is enabled, and SSH reported an unrecognized or mismatching host key.",
            "ADDRESS is `ansible_host` of node1 in the inventory",
        ),
        ("Failed to connect to the host via ssh: admin@10.0.0.7: Permission denied (publickey).", "authorized_keys"),
        ("EOF on stream; last 100 lines received:\nadmin@10.0.0.7: Permission denied (publickey,password).", "authorized_keys"),
        ("Failed to connect to the host via ssh: ssh: connect to host 10.0.0.7 port 22: No route to host", "ping node1"),
        ("Failed to connect to the host via ssh: ssh: connect to host 10.0.0.7 port 22: Connection timed out", "ping node1"),
        ("Connection timed out.", "ping node1"),
        ("Failed to connect to the host via ssh: ssh: connect to host 10.0.0.7 port 22: Connection refused", "systemctl status ssh"),
        ("Failed to connect to the host via ssh: ssh: Could not resolve hostname node1: Name or service not known", "ansible_host"),
        ("Missing sudo password", "--ask-become-pass"),
        ("sudo: a password is required", "--ask-become-pass"),
        ("/bin/sh: 1: /usr/bin/python3: not found", "apt-get install python3"),
        ("Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4711 (unattended-upgr)", "unattended"),
        ("E: dpkg was interrupted, you must manually run 'dpkg --configure -a'", "apt-get -f install"),
        ("OSError: [Errno 28] No space left on device", "df -h"),
        ("Temporary failure resolving 'deb.example.org'", "base_package_mirror"),
        ("error sending request for url (https://pypi.example.org/simple/numpy/)", "framework_env_index_url`)"),
        ("certificate verify failed: unable to get local issuer certificate", "base_ca_certificates"),
        ("2 of 5 environments are not proven to train.\njax: ...", "with each environment"),
        ("'jupyter_password' is undefined", "group_vars"),
        (_report.HIDDEN, "journalctl"),
        ("base_package_mirror is 'x'; it has to be one of tuna, ustc, aliyun or a URL.", "run the same command again"),
    ],
)
def test_known_symptoms_have_a_cure(message: str, advice: str) -> None:
    assert advice in _report.what_to_do(message, "node1")


@pytest.mark.parametrize(
    "message",
    ["WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!", "Host key verification failed.", "an unrecognized or mismatching host key."],
)
def test_a_changed_host_key_is_compared_before_the_old_one_is_removed(message: str) -> None:
    advice = _report.what_to_do(message, "node1")
    assert advice.index("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub") < advice.index("ssh-keygen -R ADDRESS")


def test_what_changes_is_named_by_task_and_item() -> None:
    recorder = _report.Recorder()
    loop = {
        "results": [
            {"changed": True, "item": "one"},
            {"changed": False, "item": "two"},
            {"changed": True, "item": {"name": "bob", "password": "canary"}},
            {"changed": True, "item": {"password": "canary"}},
            {"changed": True, "_ansible_item_label": "label", "item": {"password": "canary"}},
            {"changed": True, "item": "canary", "_ansible_no_log": True},
        ]
    }
    recorder.changed("head", "Make \x1b[31mit", "base", loop, "--- before\n+++ after\n\x1b[32m+new\x1b[0m")
    assert recorder.changes["head"] == [
        {"task": "Make it", "role": "base", "items": ["one", "bob", "label", "hidden"], "diff": "--- before\n+++ after\n+new"}
    ]


def test_a_report_is_read_back(tmp_path: Path) -> None:
    report = _report.build(recorded(), {"head": WELL}, RUN)
    (tmp_path / "report.json").write_text(_report.dump(report), encoding="utf-8")
    assert _report.load(tmp_path / "report.json") == report


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}'])
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(_report.ReportError, match=r"report\.json holds no report"):
        _report.load(tmp_path / "report.json")


def test_a_report_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(_report.ReportError, match="No such file"):
        _report.load(tmp_path / "none.json")
