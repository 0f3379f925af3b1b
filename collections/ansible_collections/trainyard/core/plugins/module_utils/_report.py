# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""The result of a run: gathered as it happens, kept as JSON, with advice on what failed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.trainyard.core.plugins.module_utils._host.reported import printable

SCHEMA = 1
HIDDEN = "The message is hidden because the task handles a secret."
_LONGEST_MESSAGE = 2000  # characters
_LONGEST_DIFF = 20_000


class ReportError(Exception):
    """A file is no report; the message says why."""


# ---------------------------------------------------------------------------------------------------------------- gathering


class Run(NamedTuple):
    """What is to be told about a run as a whole.

    Attributes:
        started: when, in UTC, as 2026-01-31T12:00:00Z.
        finished: likewise.
        seconds: how long it took.
        playbook: the playbook's name.
        limit: the pattern that the run was limited to; empty for none.
        tags: the tags that it was limited to.
        check_mode: whether it only looked.
        complete: whether it came to its end; false when a failure stopped it for all nodes.
        lab: the inventory's name.
    """

    started: str
    finished: str
    seconds: float
    playbook: str
    limit: str
    tags: list[str]
    check_mode: bool
    complete: bool
    lab: str = ""


class Recorder:
    """Gathers what happens to each node."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.systems: dict[str, dict[str, Any]] = {}
        self.gpus: dict[str, list[str]] = {}
        self.proofs: dict[str, dict[str, dict[str, Any]]] = {}
        self.services: dict[str, dict[str, dict[str, Any]]] = {}
        self.failures: dict[str, list[dict[str, str]]] = {}
        self.changes: dict[str, list[dict[str, Any]]] = {}

    def took(self, node: str, seconds: float) -> None:
        """Add what one task took."""
        self.seconds[node] = self.seconds.get(node, 0.0) + seconds

    def seen(self, node: str, result: Mapping[str, Any]) -> None:
        """Keep what a task's result says about the node: facts, GPUs, proofs, web services."""
        facts = result.get("ansible_facts")
        if isinstance(facts, Mapping):
            self.systems.setdefault(node, {}).update(system_of(facts))
        gpus = gpus_of(result)
        if gpus is not None:
            self.gpus[node] = gpus
        for proof in proofs_of(result):
            self.proofs.setdefault(node, {})[proof["environment"] + (" together" if "nodes" in proof else "")] = proof
        service = service_of(result)
        if service:
            self.services.setdefault(node, {})[service["name"]] = service

    def changed(self, node: str, task: str, role: str, result: Mapping[str, Any], diff: str = "") -> None:
        """Keep that a task changed a node, or would: the items of its loop that did, and the difference as text."""
        entry = {"task": _clean(task), "role": _clean(role), "items": items_of(result), "diff": printable(printable(diff), _LONGEST_DIFF)}
        self.changes.setdefault(node, []).append(entry)

    def failed(self, node: str, task: str, role: str, result: Mapping[str, Any]) -> None:
        """Keep a failure."""
        message = message_of(result)
        self.failures.setdefault(node, []).append(
            {"task": _clean(task), "role": _clean(role), "message": message, "what_to_do": what_to_do(message, node)}
        )


def build(recorder: Recorder, stats: Mapping[str, Mapping[str, int]], run: Run) -> dict[str, Any]:
    """Return the report of a run.

    Args:
        recorder: what happened.
        stats: for each node, the counts in Ansible's own terms: ok, changed, failures, unreachable, ...
        run: about the run as a whole.
    """
    nodes = []
    for name in sorted(stats):
        counts = stats[name]
        reachable = not counts.get("unreachable")
        well = reachable and not counts.get("failures")
        nodes.append(
            {
                "name": name,
                "reachable": reachable,
                "converged": well and run.complete,
                "changed": counts.get("changed", 0),
                "tasks": counts.get("ok", 0) + counts.get("failures", 0) + counts.get("unreachable", 0),
                "seconds": round(recorder.seconds.get(name, 0.0), 1),
                "system": recorder.systems.get(name, {}),
                "gpus": recorder.gpus.get(name, []),
                "environments": list(recorder.proofs.get(name, {}).values()),
                "services": list(recorder.services.get(name, {}).values()),
                "changes": recorder.changes.get(name, []),
                # A failure that a rescue has dealt with is none.
                "failures": [] if well else recorder.failures.get(name, []),
            }
        )
    report: dict[str, Any] = {"schema": SCHEMA, **run._asdict(), "seconds": round(run.seconds, 1), "passed": False, "nodes": nodes}
    report["passed"] = _passed(report)
    return report


def _passed(report: Mapping[str, Any]) -> bool:
    """Check mode runs no proof, so there one that was not run is no failure."""
    accepted = (True, None) if report["check_mode"] else (True,)
    return bool(report["nodes"]) and all(
        node["converged"] and all(proof["passed"] in accepted for proof in node["environments"]) for node in report["nodes"]
    )


_FACTS: dict[str, tuple[str, type]] = {
    "distribution": ("ansible_distribution", str),
    "version": ("ansible_distribution_version", str),
    "kernel": ("ansible_kernel", str),
    "architecture": ("ansible_architecture", str),
    "cores": ("ansible_processor_vcpus", int),
    "memory_mb": ("ansible_memtotal_mb", int),
}


def system_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a node is, as far as gathered facts tell."""
    found = {key: facts.get(fact) for key, (fact, kind) in _FACTS.items() if isinstance(facts.get(fact), kind)}
    return {key: printable(value, 60) if isinstance(value, str) else value for key, value in found.items()}


_MOST_GPUS = 64


def gpus_of(result: Mapping[str, Any]) -> list[str] | None:
    """Return the names of a node's GPUs; without a driver, what the PCI bus tells. None where a result says nothing of GPUs."""
    found = result.get("gpu_info")
    if not isinstance(found, Mapping):
        return None
    smi = found.get("nvidia_smi")
    named = _mappings(smi.get("gpus")) if isinstance(smi, Mapping) else []
    devices = [device for device in _mappings(found.get("pci")) if device.get("device") and not device.get("virtual_function")]
    names = [gpu.get("name") or "GPU without a name" for gpu in named] or [f"NVIDIA GPU 10de:{device['device']}" for device in devices]
    return [printable(name, 60) for name in names[:_MOST_GPUS]]


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def counted(names: Iterable[str]) -> list[str]:
    """Return each name once, with how often it is there: 4 x NVIDIA A100."""
    every = list(names)
    return [f"{every.count(name)} x {name}" if every.count(name) > 1 else name for name in dict.fromkeys(every)]


_PROOF: dict[str, tuple[type, ...]] = {
    "environment": (str,),
    "framework": (str,),
    "variant": (str,),
    "version": (str,),
    "device": (str,),
    "device_name": (str,),
    "expected_device": (str,),
    "accuracy": (int, float, type(None)),
    "seconds": (int, float, type(None)),
    "passed": (bool, type(None)),
    "problem": (str,),
    "remedy": (str,),
    "ran_at": (str,),
    "cached": (bool,),
}


def proofs_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the proofs of training that a task's result holds; ``nodes`` names those that trained together, where it was not one alone."""
    found = result.get("proofs")
    if not isinstance(found, list):
        return []
    return [
        {
            **{key: _clean(proof[key]) if isinstance(proof[key], str) else proof[key] for key in _PROOF},
            **({"nodes": list(map(_clean, proof["nodes"]))} if isinstance(proof.get("nodes"), list) else {}),
        }
        for proof in found
        if isinstance(proof, Mapping)
        and all(isinstance(proof.get(key), types) for key, types in _PROOF.items())
        and all(math.isfinite(proof[key] or 0) for key in ("accuracy", "seconds"))
    ]


def service_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the web service whose certificate a task's result holds: name, port, fingerprint; empty where it holds none."""
    found = result.get("web_service")
    types = {"name": str, "port": int, "fingerprint": str}
    if not isinstance(found, Mapping) or not all(isinstance(found.get(key), kind) for key, kind in types.items()):
        return {}
    return {key: _clean(found[key]) if kind is str else found[key] for key, kind in types.items()}


CERTIFICATE = (
    "A browser warns of a self-made certificate once. Compare the fingerprint that it shows (view the certificate in the warning) with "
    "this one before you type the password."
)


def tunnel(port: int, node: str) -> str:
    """Return the command that leads to a web service of a node. It names an address: ``localhost`` may lead to another one."""
    return f"ssh -L {port}:127.0.0.1:{port} {node}"


def items_of(result: Mapping[str, Any]) -> list[str]:
    """Return the names of the items of a loop that changed something; of an item that is more than a word only what names it."""
    found = []
    for item in result.get("results") or []:
        if isinstance(item, Mapping) and item.get("changed"):
            value = item.get("_ansible_item_label", item.get("item"))
            if item.get("censored") or item.get("_ansible_no_log"):
                value = "hidden"
            elif isinstance(value, Mapping):
                value = next((value[key] for key in ("name", "path", "dest") if key in value), "")
            if isinstance(value, (str, int, float)) and value != "":
                found.append(printable(_clean(value), 100))
    return found


def message_of(result: Mapping[str, Any]) -> str:
    """Return why a task failed; of a loop, why its items did. Secrets stay hidden: nothing but messages is looked at."""
    if result.get("censored") or result.get("_ansible_no_log"):
        return HIDDEN
    items = result.get("results")
    failed = [item for item in items if isinstance(item, Mapping) and item.get("failed")] if isinstance(items, list) else []
    if failed:
        messages = list(dict.fromkeys(message_of(item) for item in failed))
        return _clean("\n".join(messages[:5] + ([f"... and {len(messages) - 5} more"] if len(messages) > 5 else [])))
    message = _clean(result.get("msg") or "The task failed without a message.")
    return f"{message} (status {_clean(result['rc'])})" if message == "non-zero return code" and "rc" in result else message


def _clean(value: object) -> str:
    """Return text without colours, control characters and excess length."""
    return printable(printable(value).strip(), _LONGEST_MESSAGE)


# ------------------------------------------------------------------------------------------------------------------- advice

_NO_SECRET = "Nothing was sent to it."
_COMPARE = (
    "look at the fingerprint on the machine itself, at its console: `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` "
    "(or ssh_host_rsa_4096_key.pub)."
)
_CONFIRM = (
    "log in once with `ssh ADDRESS` and answer yes only if ssh shows that same fingerprint. ADDRESS is `ansible_host` of {node} in the "
    "inventory; use the ssh options that the inventory has for it."
)
_ADVICE = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for \S+ has changed",
        f"The host key of {{node}} has changed: another machine may be answering at its address. {_NO_SECRET} Do not go on before you know "
        f"why. If the node was installed again, {_COMPARE} Then remove the old key (`ssh-keygen -R ADDRESS`) and {_CONFIRM}",
    ),
    (
        r"No \S+ host key is known for|authenticity of host .* can't be established|not found in known_hosts",
        f"The host key of {{node}} is not in your known_hosts file. {_NO_SECRET} To confirm the key, {_COMPARE} Then {_CONFIRM}",
    ),
    (
        r"[Hh]ost key verification failed|unrecognized or\s+mismatching host key|SSH requested permission to accept unknown host key|"
        r"host key (is )?(not|unknown)|HostKeyError",
        f"The host key of {{node}} is not in your known_hosts file, or differs from the one there. {_NO_SECRET} To confirm the key, "
        f"{_COMPARE} If the node is new to you, {_CONFIRM} If you had logged in to it before, its key has changed, and another machine may "
        "be answering at its address: do not go on before you know why. If the node was installed again, remove the old key first "
        "(`ssh-keygen -R ADDRESS`).",
    ),
    (
        r"Permission denied \(|Authentication fail|Permission denied, please try again|PasswordError|Too many authentication failures|"
        r"SSH password was requested, but none specified|SSH authentication is incorrect|SSH password is incorrect",
        "The node refuses the login. Try it by hand with `ssh -v`, as the user that `ansible_user` (or `--user`) names and with the key "
        "that `ansible_ssh_private_key_file` (or `--private-key`) names. The public key has to be in that user's `~/.ssh/authorized_keys` "
        "on the node. A key with a passphrase needs an agent: `ssh-add FILE`. A node that takes passwords only: `--ask-pass`.",
    ),
    (
        r"Could not resolve hostname|Name or service not known.*ssh|nodename nor servname|Temporary failure in name resolution.*ssh",
        "The controller knows no address for {node}. Correct the name in the inventory, or give its address as `ansible_host`.",
    ),
    (
        r"Connection refused",
        "The node is there, but nothing listens on the SSH port. Look at its console whether sshd runs (`systemctl status ssh`) "
        "and whether `ansible_port` is right.",
    ),
    (
        r"No route to host|Network is unreachable|Connection timed out|Operation timed out|Timeout exceeded|timed out.*ssh",
        "The node does not answer. Look whether it is switched on and whether its address in the inventory is right: `ping {node}`. "
        "A firewall that drops SSH looks the same.",
    ),
    (
        r"[Ii]ncorrect sudo password|sudo password is incorrect",
        "sudo on the node refuses the password that was given. Run again with `--ask-become-pass`, and type the password of the user that "
        "`ansible_user` names.",
    ),
    (
        r"[Mm]issing sudo password|password is required|sudo: a password|not in the sudoers|may not run sudo",
        "The user that `ansible_user` names may not become root without a password. Run again with `--ask-become-pass`, or let the user "
        "run sudo without one, as root on the node: `echo 'USER ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/USER`. A user who has no sudo at "
        "all has to join the group first: `usermod -aG sudo USER`.",
    ),
    (
        r"sudo: (command )?not found|sudo: No such file|No such file or directory: 'sudo'",
        "The node has no sudo. As root on the node: `apt-get install sudo`, then `usermod -aG sudo USER`. Or log in as root, with "
        "`ansible_user: root` in the inventory.",
    ),
    (
        r"python3?(\.\d+)?: ((command )?not found|No such file)|No such file or directory.*python|interpreter.*(not found|discover)",
        "The node has no Python. As root on the node: `apt-get install python3`.",
    ),
    (
        r"Could not get lock|[Uu]nable to (acquire|lock)|dpkg frontend lock|lock.*(apt|dpkg)|(apt|dpkg).*lock",
        "Another program installs packages on the node. `ps aux | grep -E 'apt|dpkg|unattended'` shows which; run again when it is done.",
    ),
    (
        r"dpkg was interrupted|dpkg --configure -a|Unmet dependencies|unmet dependencies|broken packages",
        "The node's packages are half installed. On the node: `dpkg --configure -a && apt-get -f install`, then run again.",
    ),
    (
        r"No space left on device|[Nn]ot enough (free )?(disk )?space|disk (is )?full",
        "A disk is full, perhaps that of /tmp. On the node, `df -h` shows which, and `du -xh --max-depth=2 / | sort -h | tail` shows what "
        "fills it.",
    ),
    (
        r"certificate verify failed|CERTIFICATE_VERIFY_FAILED|invalid peer certificate|UnknownIssuer|unable to get local issuer",
        "The node does not trust the certificate it was shown. Where a proxy signs TLS anew, name its authority's PEM file in "
        "`base_ca_certificates`. Look also at the node's clock.",
    ),
    (
        r"Temporary failure (in name resolution|resolving)|Failed to fetch|Could not resolve '|error sending request|dns error|"
        r"Unable to connect to|Connection (reset|aborted)|HTTP Error 5\d\d|Bad Gateway|Service Unavailable|url[o]pen error",
        "The node could not fetch something. Try the address that the message names with `curl -I` on the node: look at its DNS and its "
        "way out. Where a proxy is the only one, set `base_proxy`. Or name a mirror nearer by (`base_package_mirror`, "
        "`framework_env_index_url`).",
    ),
    (
        r"does not match|hash mismatch|[Cc]hecksum",
        "What was fetched is not what was expected. Fetch it again; if it persists, the mirror serves something else: name another one.",
    ),
    (r"not proven to train", "What is wrong, and what to do, stands with each environment that failed."),
    (r"is undefined|undefined variable", "Set the variable that the message names, in the inventory's group_vars."),
    (
        f"^{re.escape(HIDDEN)}",
        "Look at what the task is about: its name says it, and the node's journal (`journalctl -n 100`) often says why. "
        "Then run the same command again.",
    ),
)
_OTHERWISE = "Mend what the message names, then run the same command again: what is done is not done twice. `-vvv` shows every detail."


def what_to_do(message: str, node: str) -> str:
    """Return the next step after a failure: a known symptom's cure, else what always holds."""
    for pattern, advice in _ADVICE:
        if re.search(pattern, message):
            return advice.replace("{node}", node)
    return _OTHERWISE


# ------------------------------------------------------------------------------------------------------------------ reading


def load(path: str | Path) -> dict[str, Any]:
    """Return the report in a file.

    Raises:
        ReportError: there is none, or it is of a kind that this version does not know.
    """
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} holds no report: {error}") from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise ReportError(f"{path} holds no report of schema {SCHEMA}.")
    return report


def dump(report: Mapping[str, Any]) -> str:
    """Return the text of a report's file."""
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"


def summary(report: Mapping[str, Any]) -> str:
    """Return the result in a sentence."""
    nodes = report["nodes"]
    proofs = all_proofs(report)
    well = sum(node["converged"] for node in nodes)
    passed = sum(proof["passed"] is True for proof in proofs)
    if not nodes:
        return "No node was reached by the run."
    first = f"{well} of {count(len(nodes), 'node')} {'without an error' if report['check_mode'] else 'converged'}"
    second = f", {passed} of {count(len(proofs), 'proof')} {'on record' if report['check_mode'] else 'passed'}" if proofs else ""
    return f"{'' if report['complete'] else 'Stopped early: '}{first}{second}."


def where(node: Mapping[str, Any], proof: Mapping[str, Any]) -> str:
    """Return where a proof trained: on its node, or on several together."""
    return " + ".join(proof.get("nodes") or []) or str(node["name"])


def all_proofs(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the proofs of all nodes."""
    return [proof for node in report["nodes"] for proof in node["environments"]]


def count(number: int, word: str) -> str:
    """Return a number with its noun: 1 node, 2 nodes."""
    return f"{number} {word}{'' if number == 1 else 's'}"
