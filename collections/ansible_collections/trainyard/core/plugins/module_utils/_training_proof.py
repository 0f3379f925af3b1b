# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Proofs of training: what is run, what its end means, and when an earlier proof still holds."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

NOT_RUN = "not run (check mode)"
GRACE = 10  # seconds between asking a proof that takes too long to stop and killing it
_TIMED_OUT = (124, 128 + signal.SIGKILL)  # timeout(1): it asked and the proof obeyed; it had to kill


class Environment(NamedTuple):
    """An environment that is to be proven.

    Attributes:
        name: what people call it.
        path: its folder; ``bin/python`` in it is its interpreter.
        proof: the proof's script is ``train_<proof>.py``.
        variant: what kind of build it is, such as cpu; only reported.
        device: ``cpu`` or ``gpu``, where the training is expected to run.
    """

    name: str
    path: str
    proof: str
    variant: str
    device: str

    @classmethod
    def from_option(cls, option: Mapping[str, Any]) -> Environment:
        """Return the environment that an entry of the module's option describes."""
        name = str(option["name"])
        return cls(
            name=name,
            path=str(option["path"]),
            proof=str(option.get("proof") or name),
            variant=str(option.get("variant") or ""),
            device=str(option.get("device") or "cpu"),
        )


class Demand(NamedTuple):
    """What every proof has to satisfy.

    Attributes:
        proofs: folder of the proofs' scripts.
        minimum_accuracy: test accuracy to reach, 0..1.
        mnist: an .npz file or a folder of idx files to train on; empty for scikit-learn's digits.
        timeout: seconds that one proof may take.
    """

    proofs: str
    minimum_accuracy: float
    mnist: str
    timeout: int


class End(NamedTuple):
    """How a proof's process ended.

    Attributes:
        returncode: its exit status; negative when a signal ended it.
        stdout: its output, whose last JSON object counts.
        stderr: what it said otherwise.
    """

    returncode: int
    stdout: str
    stderr: str


def problems(wishes: Mapping[str, Any], scripts: Iterable[str]) -> list[str]:
    """Return one sentence for each variable of the role, without its prefix, that asks for what can't be done.

    Args:
        wishes: environments, minimum_accuracy, timeout, user, mnist and path.
        scripts: paths or names of the files that the role has.
    """
    known = proof_names(scripts)
    environments = [Environment.from_option({"path": "", **option}) for option in wishes["environments"]]
    names = [environment.name for environment in environments]
    unknown = sorted({environment.proof for environment in environments} - set(known))
    found = []
    if unknown:
        found.append(f"verification_environments: there is no proof {', '.join(unknown)}. An entry's proof is one of {', '.join(known)}.")
    odd = [name for name in names if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)]
    if odd:
        found.append(f"verification_environments: a name holds letters, digits, '.', '_' and '-' only, unlike {', '.join(map(repr, odd))}.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        found.append(f"verification_environments: {', '.join(twice)} is there twice; each name may stand once.")
    if not 0 < float(wishes["minimum_accuracy"]) <= 1:  # from the command line, numbers come as text
        found.append(f"verification_minimum_accuracy: {wishes['minimum_accuracy']} is not between 0 and 1; 0.95 is usual.")
    if int(wishes["timeout"]) < 1:
        found.append(f"verification_timeout: {wishes['timeout']} is no number of seconds; 600 is usual.")
    if wishes["user"] == "root":
        found.append("verification_user: proofs never run as root; name an ordinary user, such as nobody.")
    if not re.match(r"$|/|https?://", wishes["mnist"]):
        found.append(
            f"verification_mnist: {wishes['mnist']!r} is neither '' (scikit-learn's digits) nor a path on the node that begins with / "
            "nor a URL that begins with http:// or https://."
        )
    if not re.match(r"/[^/]+/[^/]", wishes["path"]):
        found.append(f"verification_path: {wishes['path']!r} is no folder of its own, such as /opt/trainyard/proofs.")
    return found


def proof_names(scripts: Iterable[str]) -> list[str]:
    """Return the proofs among files: ``pytorch`` for ``train_pytorch.py``."""
    return sorted(Path(script).stem[len("train_") :] for script in scripts if Path(script).match("train_*.py"))


def command(environment: Environment, demand: Demand) -> list[str]:
    """Return the command that anybody may run by hand to repeat a proof."""
    line = [f"{environment.path}/bin/python", f"{demand.proofs}/train_{environment.proof}.py", "--expect-device", environment.device]
    line += ["--minimum-accuracy", f"{demand.minimum_accuracy:g}"]
    return [*line, "--mnist", demand.mnist] if demand.mnist else line


def limited_command(environment: Environment, demand: Demand, threads: int) -> list[str]:
    """Return the command with its limits; timeout(1) keeps the limit of time even when whoever started it is gone."""
    return ["timeout", f"--kill-after={GRACE}", str(demand.timeout), *command(environment, demand), "--threads", str(threads)]


def surroundings(home: str, user: str) -> dict[str, str]:
    """Return the process environment of a proof: nothing is inherited from root's."""
    return {
        "HOME": home,
        "LANG": "C.UTF-8",
        "LOGNAME": user,
        "MPLBACKEND": "agg",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": home,
        "USER": user,
    }


def degrees(cores: int, proofs: int, parallel: int = 0) -> tuple[int, int]:
    """Return (proofs at a time, threads for each); ``parallel`` 0 leaves two cores to each proof."""
    at_a_time = max(1, min(parallel or cores // 2, proofs))
    return at_a_time, max(1, min(4, cores // at_a_time))  # more than four threads slow such small networks down


def fingerprint(environment: Environment, demand: Demand, driver: Path = Path("/proc/driver/nvidia/version")) -> str:
    """Return a digest of all that an outcome depends on: scripts, demands, data, what is installed, the GPU's driver."""
    root = Path(environment.path)
    installed = sorted(root.glob("lib/python*/site-packages/*.dist-info")) + sorted(root.glob("conda-meta/*.json"))
    parts: list[Any] = [list(environment), demand.minimum_accuracy, demand.mnist]
    parts += [[path.name, _stamp(path / "RECORD" if path.suffix == ".dist-info" else path)] for path in installed]
    parts += [[path.name, _text(path)] for path in sorted(Path(demand.proofs).glob("*.py"))]
    parts += [os.readlink(root / "root")] if (root / "root").is_symlink() else []  # which root a frozen environment has
    parts += [_text(root / "pyvenv.cfg"), _text(driver), _stamp(Path(demand.mnist)) if demand.mnist else None]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def remember(proof: Mapping[str, Any], digest: str) -> str:
    """Return the text of the state file for a proof."""
    return json.dumps({"fingerprint": digest, "proof": {**proof, "cached": False}}, indent=2) + "\n"


def recall(text: str | None, digest: str) -> dict[str, Any] | None:
    """Return the proof that a state file holds, if it was passed under the same circumstances; None for any other text."""
    try:
        state = json.loads(text or "")
        proof = state["proof"]
        if state["fingerprint"] == digest and proof["passed"] is True:
            return {**proof, "cached": True}
    except (ValueError, KeyError, TypeError):
        pass
    return None


def unproven(environment: Environment, problem: str = "", remedy: str = "") -> dict[str, Any]:
    """Return the result of an environment that no training has run in: failed with a problem, or merely not run."""
    return {
        "environment": environment.name,
        "framework": environment.proof,
        "variant": environment.variant,
        "version": "",
        "device": "",
        "device_name": "",
        "expected_device": environment.device,
        "accuracy": None,
        "seconds": None,
        "passed": False if problem else None,
        "problem": problem or NOT_RUN,
        "remedy": remedy,
        "ran_at": "",
        "cached": False,
    }


def obstacle(environment: Environment, demand: Demand) -> tuple[str, str] | None:
    """Return (problem, remedy) when a proof can't even be started, else None."""
    if not Path(environment.path, "bin", "python").exists():
        return (
            f"the environment is not there: {environment.path}/bin/python does not exist",
            "Make the environment first: run site.yml, or the playbook for frameworks, on this node.",
        )
    if not Path(demand.proofs, f"train_{environment.proof}.py").exists():
        return (
            f"there is no proof named {environment.proof!r} in {demand.proofs}",
            "Name one of: " + ", ".join(proof_names(map(str, Path(demand.proofs).glob("*.py")))) + ".",
        )
    return None


def verdict(environment: Environment, demand: Demand, end: End) -> dict[str, Any]:
    """Return the result that the end of a proof amounts to."""
    returncode, stdout, stderr = end
    result = unproven(environment)
    told = last_object(stdout)
    for key in ("framework", "version", "device", "device_name", "accuracy", "seconds"):
        if key in told:
            result[key] = told[key]
    if isinstance(result["accuracy"], float) and not math.isfinite(result["accuracy"]):
        result["accuracy"] = None  # JSON has no word for it
    problem, remedy = str(told.get("problem") or ""), str(told.get("remedy") or "")
    if returncode in _TIMED_OUT:
        problem = f"the training was not done within {demand.timeout} seconds"
    elif returncode < 0:
        problem = f"the training was ended by {_signal_name(-returncode)}"
    elif not told:
        problem = f"the training ended with status {returncode} and no result: {_last_line(stderr) or 'it said nothing'}"
    elif returncode and not problem:
        problem = f"the training ended with status {returncode}"
    elif not problem and not _is_proof(told, environment, demand):
        problem = f"the training did not show what was expected: device {told.get('device')!r}, accuracy {told.get('accuracy')!r}"
    by_hand = " ".join(command(environment, demand))
    result.update(
        passed=not problem,
        problem=problem,
        remedy=(
            remedy
            or _remedy(problem)
            or _remedy("\n".join(stderr.splitlines()[-5:]))
            or f"See all of what it says by running it by hand on the node: {by_hand}"
        )
        if problem
        else "",
    )
    return result


def _is_proof(told: Mapping[str, Any], environment: Environment, demand: Demand) -> bool:
    accuracy = told.get("accuracy")
    return told.get("device") == environment.device and isinstance(accuracy, (int, float)) and accuracy >= demand.minimum_accuracy


def last_object(text: str) -> dict[str, Any]:
    """Return the last line of JSON that is an object; empty where there is none."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                return found
    return {}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_REMEDIES = (
    (
        r"CUDA out of memory|CUDA_ERROR_OUT_OF_MEMORY|ResourceExhausted|RESOURCE_EXHAUSTED",
        "The GPU's memory is taken: `nvidia-smi` shows by whom. Run the proof again when it is free.",
    ),
    (
        r"SIGILL|[Ii]llegal instruction|AVX instructions",
        "This processor lacks instructions that the build needs, such as AVX: choose an older version or another build.",
    ),
    (
        r"SIGKILL|MemoryError|Cannot allocate memory|bad_alloc",
        "The node ran out of memory: look who uses it with `free -h` and `ps aux --sort=-rss | head`.",
    ),
    (
        r"driver version is insufficient|CUDA driver version|driver .*too old|forward compatibility",
        "The NVIDIA driver is too old for this build's CUDA: raise the driver, or choose an environment for an older CUDA.",
    ),
    (
        r"cannot open shared object file",
        "A system library that the framework needs is not installed: find the package that holds the named file, and add it.",
    ),
    (
        r"ModuleNotFoundError|ImportError|DLL load",
        "The environment lacks a package or is damaged: run the playbook for frameworks again, which repairs it.",
    ),
    (
        r"Permission denied|PermissionError",
        "The user that runs proofs may not read the environment: its folders need mode 0755 up to the root.",
    ),
    (r"No space left", "The disk is full: `df -h /tmp` shows how full."),
    (r"seconds$", "The node may be busy: run the proof again later, or allow more time with verification_timeout."),
)


def _remedy(text: str) -> str:
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, text, re.MULTILINE):
            return remedy
    return ""


def failure_message(proofs: Iterable[Mapping[str, Any]]) -> str:
    """Return what the module says when proofs failed: each with its problem and what to do; empty when none did."""
    proofs = list(proofs)
    failed = [proof for proof in proofs if proof["passed"] is False]
    if not failed:
        return ""
    lines = [f"{proof['environment']}: {proof['problem']}. {proof['remedy']}".rstrip() for proof in failed]
    return "\n".join([f"{len(failed)} of {len(proofs)} environments are not proven to train.", *lines])
