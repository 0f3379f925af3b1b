"""The project's own checks, as steps that run beside each other where cores allow."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainyard.containers import Image, connect, systemd_arguments
from trainyard.errors import TrainyardError
from trainyard.paths import CHECKOUT, REPOSITORY, STATE
from trainyard.progress import console
from trainyard.system import install

LOGS = STATE / "test"
BIN = Path(sys.executable).parent
COLLECTION = REPOSITORY / "collections" / "ansible_collections" / "trainyard" / "core"
RELEASES = ("bookworm", "trixie")

SLOW_SCENARIOS = ("cuda_distribution", "nvidia_driver")
"""Scenarios that fetch or compile too much for the usual run."""
SLOW_NODES = (
    "ansible_versions",
    "caffe_by_conda",
    "conda_env",
    "environments_travel",
    "frozen_environments",
    "historic_profile",
    "killed_controller",
    "node_reboot",
    "nodes_come_and_go",
    "own_kernels",
    "package_cache",
    "public_code",
    "slurm",
    "training",
    "ubuntu_driver",
)
"""Tests of nodes that take too long for it: old distributions are built, whole environments, drivers, Ansibles and clusters come and go."""
BOOKWORM_ALONE = ("nvidia_driver_repository",)
"""Scenarios that would find out nothing more on another release."""
COMPILER_CACHE = "trainyard-compiler-cache"
"""Docker's volume with what the scenarios' compilers made, for all checkouts on this machine, as Docker keeps the images."""

LIMIT = 80 * 60
ALONE_LIMIT = 120 * 60
"""Seconds after which a step is ended: the longest take half of that on two busy cores, so it hangs."""

UNIT = "not nodes and not lab and not security and not faults and not slow"
"""pytest's words for what boots nothing."""

PROGRAMS = {
    "git": "git",
    "gpg": "gnupg",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "sshpass": "sshpass",
    "ssh": "openssh-client",
}
"""What the tests need of the distribution beside what the lab needs."""


@dataclass(frozen=True)
class Step:
    """One command that passes or fails.

    Attributes:
        name: also the name of its log.
        command: words to run in the repository's root.
        environment: variables beside the inherited ones.
        alone: whether nothing else may run beside it.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    alone: bool = False


@dataclass(frozen=True)
class Result:
    """How a step ended; ``skipped`` are the lines in which pytest named skipped tests."""

    step: Step
    passed: bool
    seconds: float
    summary: str
    skipped: Sequence[str]


def quick() -> list[Step]:
    """Linters, types and unit tests."""
    scripts = ["trainyard", ".ci/run", "images/vm/setup"]
    return [
        Step("ruff", [_bin("ruff"), "check", "."]),
        Step("ruff-format", [_bin("ruff"), "format", "--check", "."]),
        Step("mypy", [_bin("mypy")]),
        Step("yamllint", [_bin("yamllint"), "--strict", "."]),
        Step("shellcheck", [_bin("shellcheck"), *scripts]),
        Step("ansible-lint", [_bin("ansible-lint"), "--strict"]),
        Step(
            "unit",
            [sys.executable, "-m", "pytest", "-q", "-m", UNIT, "-n", "2"],
        ),
    ]


def nodes() -> list[Step]:
    """What boots containers: tests of single parts, and the Molecule scenarios."""
    steps = [_tests("nodes", test) for test in _node_files() if test.stem[5:] not in SLOW_NODES]
    return steps + [molecule(name) for name in scenarios() if name not in SLOW_SCENARIOS]


def slow() -> list[Step]:
    """What takes long and much disk, one after another: a driver and CUDA on nodes, and what the usual run leaves out."""
    steps = [_tests("slow", test) for test in _files("slow")]
    steps += [_tests("nodes", test) for test in _node_files() if test.stem[5:] in SLOW_NODES]
    return [replace(step, alone=True) for step in steps + [molecule(name) for name in SLOW_SCENARIOS]]


def _node_files() -> list[Path]:
    return _files("nodes") + _files("cluster")


def _files(kind: str) -> list[Path]:
    return sorted((REPOSITORY / "tests" / kind).glob("test_*.py"))


def _tests(kind: str, file: Path) -> Step:
    return Step(f"{kind}-{file.stem[5:]}", [sys.executable, "-m", "pytest", "-q", "-m", kind, str(file)])


def faults() -> list[Step]:
    """The full sweep of interruptions."""
    return [Step("faults", [sys.executable, "-m", "pytest", "-q", "-s", "-m", "faults", "tests/faults"], alone=True)]


def scenarios() -> list[str]:
    """Return the names of the Molecule scenarios."""
    return sorted(path.parent.name for path in (REPOSITORY / "molecule").glob("*/molecule.yml"))


def molecule(scenario: str, releases: Sequence[str] = (), command: Sequence[str] = ("test",)) -> Step:
    """Return the step that runs a Molecule scenario, on a node for each release of Debian; without releases: on all that it is for.

    The scenario's role is the longest role name that its own name begins with.

    Raises:
        TrainyardError: there is no such scenario.
    """
    if scenario not in scenarios():
        raise TrainyardError(f"There is no scenario {scenario}. There are: {', '.join(scenarios())}")
    roles = [path.name for path in (REPOSITORY / "roles").iterdir() if scenario == path.name or scenario.startswith(path.name + "_")]
    wheelhouse = next((word for word in os.environ.get("PIP_FIND_LINKS", "").split() if Path(word).is_dir()), str(STATE / "wheelhouse"))
    Path(wheelhouse).mkdir(parents=True, exist_ok=True)
    volumes = [f"{wheelhouse}:/srv/wheelhouse:ro", f"{COMPILER_CACHE}:/var/cache/ccache"]
    releases = releases or (RELEASES[:1] if scenario in BOOKWORM_ALONE else RELEASES)
    return Step(
        f"molecule-{scenario}",
        [_bin("molecule"), *command, "-s", scenario],
        {
            "TRAINYARD_ROLE": max(roles, key=len),
            "TRAINYARD_PLATFORMS": json.dumps([_platform(scenario, release, volumes) for release in releases]),
            "MOLECULE_EPHEMERAL_DIRECTORY": str(LOGS / f"molecule-{scenario}"),
            "ANSIBLE_CONFIG": "",  # Molecule writes its own
        },
    )


def _platform(scenario: str, release: str, volumes: Sequence[str]) -> dict[str, object]:
    name = f"trainyard-{scenario}-{release}-{CHECKOUT}".replace("_", "-")
    arguments = systemd_arguments(name)
    return {
        "name": name,
        "hostname": name,  # a node of a cluster calls itself as the inventory does
        "image": Image(release).tag,
        "cgroupns_mode": arguments["cgroupns"],
        "capabilities": arguments["cap_add"],
        "security_opts": arguments["security_opt"],
        "tmpfs": list(arguments["tmpfs"]),
        "volumes": [*arguments["volumes"], *volumes],
        "sysctls": arguments["sysctls"],
        "env": {"DEBIAN_KERNEL_USE_CCACHE": "1", "CCACHE_DIR": "/var/cache/ccache", "CCACHE_MAXSIZE": "1G"},  # used where ccache is
    }


def lab() -> list[Step]:
    """The end-to-end scenario: the lab of three nodes, then a browser in front of it."""
    return [Step("lab", [sys.executable, "-m", "pytest", "-q", "-m", "lab", "--durations=8", "tests/lab", "tests/browser"])]


def security() -> list[Step]:
    """The cluster under attack: one for all its tests."""
    return [Step("security", [sys.executable, "-m", "pytest", "-q", "-m", "security", "--durations=8", "tests/security"])]


def sanity() -> list[Step]:
    """Ansible's own tests of the collection."""
    return [Step("sanity", [sys.executable, "tools/sanity.py"])]


def prepare(containers: bool = True) -> None:
    """Have the programs that the steps need, and the daemon and the images of those with containers."""
    install(PROGRAMS)
    if containers:
        client = connect()
        for release in RELEASES:
            Image(release).ensure(client, lambda text: console.print(f"· {text}", highlight=False))


def run(steps: Sequence[Step], left_out: Sequence[Step] = ()) -> int:
    """Run steps, the ones that may beside each other, and print what became of them, and what was left out; return 0 when all passed."""
    LOGS.mkdir(parents=True, mode=0o700, exist_ok=True)
    results: list[Result] = []
    with ThreadPoolExecutor((os.cpu_count() or 1) + 2) as pool:  # more than cores: they wait for nodes a lot
        for future in as_completed([pool.submit(_run, step) for step in steps if not step.alone]):
            results.append(_show(future.result()))
    results += [_show(_run(step)) for step in steps if step.alone]

    skipped = [line for result in results for line in result.skipped]
    for line in skipped:
        console.print(f"skipped: {line}", highlight=False, markup=False)
    failed = [result.step.name for result in results if not result.passed]
    if failed:
        console.print(f"failed: {', '.join(failed)}; the logs are in {LOGS.relative_to(REPOSITORY)}", highlight=False)
    if left_out:
        console.print(f"not run here: {', '.join(step.name for step in left_out)}", highlight=False, soft_wrap=True)
    tail = f", {len(skipped)} skipped" if skipped else ""
    tail += f", {len(left_out)} not run" if left_out else ""
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed{tail}", flush=True)
    return 1 if failed else 0


def _run(step: Step) -> Result:
    log = LOGS / f"{step.name}.log"
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "NO_COLOR": "1", "COLUMNS": "160", **step.environment}
    limit = ALONE_LIMIT if step.alone else LIMIT
    with log.open("ab") as output:
        output.truncate(0)
        try:
            status = subprocess.run(
                step.command,
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=limit,
            ).returncode
        except subprocess.TimeoutExpired:
            output.write(f"\nEnded: it did not finish in {limit // 60} minutes.\n".encode())
            status = 1
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))
    counts = re.findall(r"^(?:=+ )?(\d+ \w+(?:, \d+ \w+)*) in [\d.]+s", text, re.MULTILINE)
    skipped = re.findall(r"^SKIPPED (.*)$", text, re.MULTILINE)
    return Result(step, status == 0, time.monotonic() - started, counts[-1] if counts else "", skipped)


def _show(result: Result) -> Result:
    verdict = "passed" if result.passed else "FAILED"
    console.print(
        f"{verdict}  {result.step.name:<36} {result.seconds:6.1f} s  {result.summary}", highlight=False, markup=False, soft_wrap=True
    )
    if not result.passed:
        console.print(
            "\n".join((LOGS / f"{result.step.name}.log").read_text(errors="replace").splitlines()[-40:]), highlight=False, markup=False
        )
    return result


def _bin(name: str) -> str:
    return str(BIN / name)
