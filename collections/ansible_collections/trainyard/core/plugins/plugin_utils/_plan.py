# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""The resolver's words: what a lab has and wants (nodes, wishes), and what it is answered (a plan, or failures)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import (
    Build,
    DriverBranch,
    Fact,
    Gpu,
    Release,
    System,
    Toolkit,
    fits,
    version,
)

POLICIES = ("if_needed", "newest", "never")
DEVICES = ("", "gpu", "cpu", "any")
SOURCES = ("distribution", "nvidia_repository", "runfile")
"""Where drivers may come from. A runfile only where it is wished: which file it is, somebody has to say."""


@dataclass(frozen=True)
class Node:
    """A machine: its GPUs, its operating system, the driver it has now ("" none), whether it boots signed modules only, the line of the
    kernel that it boots ("" the system's own), and the flavour of the kernel module that is loaded ("" not known)."""

    name: str
    system: System
    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    secure_boot: bool = False
    own_kernel: str = ""
    flavour: str = ""

    @property
    def kernel(self) -> str:
        """Return the line of the kernel that it boots, such as "6.12"."""
        return self.own_kernel or self.system.kernel


@dataclass(frozen=True)
class Environment:
    """Frameworks that are to live together. ``device``: gpu, cpu, "any" (the GPU if possible), "" (the GPU where a node has one)."""

    name: str
    frameworks: tuple[str, ...]
    device: str = ""
    nodes: frozenset[str] | None = None

    def on(self, node: Node) -> bool:
        """Return whether a node is to have it."""
        return self.nodes is None or node.name in self.nodes


@dataclass(frozen=True)
class Wishes:
    """What a lab wants.

    ``pins``: a version or range by name: cuda, cudnn, driver, python, or a framework. ``policy``: when an installed driver is changed:
    if_needed, newest, never. ``modules``: open, proprietary, or "" for what fits. ``sources``: where drivers may come from, () packages.
    ``use_gpus``: every node with GPUs gets a driver, also where no environment needs one. ``pythons``: by framework one that its
    environment may have beside the pinned one.
    """

    environments: tuple[Environment, ...] = ()
    pins: tuple[tuple[str, str], ...] = ()
    policy: str = "if_needed"
    modules: str = ""
    sources: tuple[str, ...] = ()
    use_gpus: bool = True
    pythons: tuple[tuple[str, str], ...] = ()

    @property
    def allowed_sources(self) -> tuple[str, ...]:
        """Return where drivers may come from."""
        return self.sources or SOURCES[:2]

    def pin(self, name: str) -> str:
        """Return the pin of something, "" where there is none."""
        return dict(self.pins).get(name, "")

    def has_python(self, python: str, environment: Environment) -> bool:
        """Return whether an environment may have a Python."""
        return fits(python, self.pin("python")) or any((name, python) in self.pythons for name in environment.frameworks)


@dataclass(frozen=True)
class Reason:
    """Why something was chosen or left out: of what ("PyTorch (cu130)", in one version) what is so, and the row that says it."""

    text: str
    fact: Fact | None = None
    subject: str = ""
    version: str = ""

    def __str__(self) -> str:
        """Return it as one sentence without a full stop."""
        return " ".join(part for part in (self.subject, self.version, self.text) if part)


def condensed(reasons: Iterable[Reason]) -> list[Reason]:
    """Return the reasons once each, those that hold for several versions of one thing as one ("2.9.0 to 2.14.0")."""
    versions: dict[tuple[str, str], list[str]] = {}
    first: dict[tuple[str, str], Reason] = {}
    for reason in reasons:
        key = (reason.subject, reason.text)
        first.setdefault(key, reason)
        if reason.version and reason.version not in versions.setdefault(key, []):
            versions[key].append(reason.version)
    made = []
    for key, reason in first.items():
        span = sorted(versions.get(key, []), key=version)
        words = span[0] if len(span) == 1 else f"{span[0]} to {span[-1]}" if span else ""
        made.append(Reason(reason.text, reason.fact, reason.subject, words))
    return made


@dataclass(frozen=True)
class Driver:
    """A driver for a node. ``version`` is "" where the source's exact version is not in the catalogue."""

    branch: DriverBranch
    version: str
    modules: str
    source: str
    signed: bool = False

    @property
    def age(self) -> Any:
        """Return what to compare: greater is newer."""
        return version(self.version or str(self.branch.branch))

    def runs(self, minimum: str) -> bool:
        """Return whether it is at least as new as that; a branch whose exact version is open counts as its newest."""
        return self.age >= version(minimum) if self.version else self.branch.branch >= version(minimum).major

    def __str__(self) -> str:
        """Return it as people write it."""
        return f"R{self.branch.branch}" + (f" ({self.version})" if self.version else "")


@dataclass(frozen=True)
class Choice:
    """One framework's release and build."""

    release: Release
    build: Build


@dataclass(frozen=True)
class WheelSet:
    """What an environment consists of. ``cuda`` is a line such as 12.6; it, ``cudnn`` and the driver it needs are "" for the CPU."""

    choices: tuple[Choice, ...]
    device: str
    cuda: str = ""
    cudnn: str = ""
    minimum_driver: str = ""
    minimum_fact: Fact | None = None

    @property
    def requirements(self) -> tuple[str, ...]:
        """Return what to install."""
        return tuple(choice.build.requirement for choice in self.choices)

    def runs_on(self, python: str) -> bool:
        """Return whether all of it runs on a Python."""
        return all(fits(python, choice.release.python) and fits(python, choice.build.python) for choice in self.choices)

    @property
    def bundled(self) -> bool:
        """Return whether the wheels bring CUDA."""
        return all(choice.build.bundled for choice in self.choices if choice.build.device == "gpu")

    @property
    def versions(self) -> tuple[tuple[str, str], ...]:
        """Return the frameworks' versions, by name."""
        return tuple((choice.release.framework, choice.release.version) for choice in self.choices)

    @property
    def age(self) -> tuple[Any, ...]:
        """Return what to compare two sets of the same frameworks by: greater is newer."""
        return (*(version(choice.release.version) for choice in self.choices), version(self.cuda or "0"))

    def __str__(self) -> str:
        """Return it in a line."""
        return ", ".join(self.requirements)


@dataclass(frozen=True)
class Placed:
    """An environment on one node. ``python_from``: system (the node's own), conda, or frozen (of the older system that it runs in)."""

    environment: str
    wheels: WheelSet
    python: str
    python_from: str
    warnings: tuple[str, ...]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class NodeToolkit:
    """A CUDA toolkit on a node, and the cuDNN and NCCL in it ("" none)."""

    release: Toolkit
    cudnn: str
    nccl: str


@dataclass(frozen=True)
class NodePlan:
    """What a node gets; the first toolkit is its default. Without GPUs that are to be used it gets no driver and no toolkit."""

    node: Node
    driver: Driver | None
    toolkits: tuple[NodeToolkit, ...]
    environments: tuple[Placed, ...]
    warnings: tuple[str, ...]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class HoldBack:
    """Nodes without which the other nodes' wheel set of an environment would be newer."""

    environment: str
    nodes: tuple[str, ...]
    now: WheelSet
    could_be: WheelSet


@dataclass(frozen=True)
class Plan:
    """The answer for a fleet. ``split``: environments for which no one wheel set runs on all their nodes."""

    nodes: tuple[NodePlan, ...]
    held_back: tuple[HoldBack, ...]
    split: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """What could not be had on nodes: an environment, or ("") the driver or toolkit themselves; and what stood against it."""

    nodes: tuple[Node, ...]
    environment: str
    reasons: tuple[Reason, ...]
