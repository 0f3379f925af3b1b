# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""The catalogue's rows about GPUs, drivers, CUDA and frameworks, as types; and the words that people use for them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

try:  # ansible-core requires it, but ansible-test imports plugins without what ansible-core requires
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version
except ImportError:
    pass

Capability = tuple[int, int]
"""A GPU's compute capability: (8, 6) is 8.6."""

CHANNELS = "conda-"
"""What the names of indexes begin with that are channels of conda's."""

NOISE = {"nvidia", "corporation", "geforce", "gpu", "graphics", "card", "device"}
"""Words in a GPU's name that tell no two of them apart."""
SIZE = re.compile(r"\d+(gb|gib)|hbm\d\w*|pcie|sxm\d?|nvl|mezzanine")
"""Words about memory and sockets: variants of one GPU, with the same instructions."""


class UnknownWordError(ValueError):
    """A word that the catalogue does not know; the text says what it is for and names the nearest known ones."""

    def __init__(self, what: str, word: str, known: Iterable[str], *, also: str = "") -> None:
        choice = sorted(set(known))
        lower = {name.lower(): name for name in choice}
        near = [lower[name] for name in difflib.get_close_matches(word.lower(), list(lower), n=4, cutoff=0.5)]
        if not near and len(choice) <= 20:
            near = choice
        hint = f" Known ones that are near: {', '.join(near)}." if near else ""
        super().__init__(f"{what}: '{word}' is not known.{hint}{' ' + also if also else ''}")


@dataclass(frozen=True)
class Fact:
    """Where a row comes from: its source, when it was read, and how far to trust it."""

    source: str
    seen: str
    trust: str

    @staticmethod
    def of(row: Mapping[str, Any]) -> Fact:
        """Return a row's origin."""
        return Fact(str(row.get("source", "")), str(row.get("seen", "")), str(row.get("trust", "")))


@cache
def version(text: str) -> Version:
    """Return a version, comparable.

    Raises:
        ValueError: it is none.
    """
    try:
        return Version(text)
    except InvalidVersion as error:
        raise ValueError(f"'{text}' is no version") from error


@cache
def specifier(text: str) -> SpecifierSet:
    """Return what a version has to fulfil; a bare version ("12.6") stands for all that begin with it.

    Raises:
        ValueError: the words are neither.
    """
    text = text.strip()
    words = f"=={text}.*" if re.fullmatch(r"\d+(\.\d+)*", text) else f"=={text}" if text[:1].isdigit() else text
    try:
        return SpecifierSet(words)
    except InvalidSpecifier as error:
        raise ValueError(f"'{text}' is neither a version such as 12.6 nor a range such as '>=12.4,<13'") from error


@cache
def fits(text: str, wanted: str) -> bool:
    """Return whether a version fulfils a specifier; an empty specifier is fulfilled by all."""
    return not wanted or specifier(wanted).contains(version(text), prereleases=True)


def capability(text: str) -> Capability:
    """Return "8.6" as (8, 6)."""
    major, _dot, minor = text.partition(".")
    return int(major), int(minor or 0)


def dotted(value: Capability) -> str:
    """Return (8, 6) as "8.6"."""
    return f"{value[0]}.{value[1]}"


@dataclass(frozen=True)
class Architecture:
    """A generation of GPUs: the drivers and CUDA toolkits that know it. ``last_driver`` 0 and ``last_cuda`` "" mean: still going on."""

    name: str
    title: str
    first_cuda: str
    last_cuda: str
    first_driver: int
    last_driver: int
    modules: tuple[str, ...]
    fact: Fact

    def has_driver(self, branch: int) -> bool:
        """Return whether a driver branch drives it."""
        return self.first_driver <= branch and (not self.last_driver or branch <= self.last_driver)

    def has_cuda(self, toolkit: str) -> bool:
        """Return whether a toolkit makes code for it."""
        return fits(toolkit, f">={self.first_cuda}") and (not self.last_cuda or self._not_after(toolkit))

    def _not_after(self, toolkit: str) -> bool:
        parts = self.last_cuda.split(".")
        return version(toolkit).release[: len(parts)] <= tuple(int(part) for part in parts)


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU: how it is called, and what decides which software runs on it."""

    name: str
    capability: Capability
    architecture: Architecture

    def __str__(self) -> str:
        """Return its name and what it is."""
        return f"{self.name} ({self.architecture.title}, compute capability {dotted(self.capability)})"


@dataclass(frozen=True)
class DriverBranch:
    """A branch of the driver (580), how long it is looked after ("2028-06") and the flavours of kernel module that it has."""

    branch: int
    designation: str
    end_of_life: str
    newest: str
    modules: tuple[str, ...]
    fact: Fact

    def ended(self, today: str) -> bool:
        """Return whether nobody looks after it any more in a month ("2026-11")."""
        return self.designation in {"legacy", "ended"} or bool(self.end_of_life and self.end_of_life < today[:7])


@dataclass(frozen=True)
class Toolkit:
    """A release of the CUDA toolkit and the driver it was made with."""

    version: str
    driver: str
    fact: Fact

    @cached_property
    def line(self) -> str:
        """Return its major and minor version, which its folder is named after."""
        return ".".join(self.version.split(".")[:2])

    @property
    def in_wheels(self) -> bool:
        """Return whether the ordinary index has it whole.

        Source: nvidia-cuda-nvcc-cu11 and -cu12 hold ptxas and no nvcc, nvidia-cuda-nvcc 13.0.88 and newer hold it (unpacked, 2026-11).
        """
        return version(self.version).major >= 13


@dataclass(frozen=True)
class Cudnn:
    """A release of cuDNN for one line of CUDA."""

    version: str
    cuda: str
    driver: str
    capabilities: frozenset[Capability]
    fact: Fact


@dataclass(frozen=True)
class Build:
    """One way in which a release of a framework is built.

    ``bundled``: its wheels bring CUDA, else the node's toolkit is used. ``frozen``: the older system that has it and that it runs in, ''
    where it runs in the node's. ``python``: those of its release's Pythons that it is for, '' for all.
    """

    name: str
    cuda: str
    cudnn: str
    nccl: str
    sass: frozenset[Capability]
    ptx: frozenset[Capability]
    bundled: bool
    requirement: str
    index: str
    experimental: bool
    follows: str
    frozen: str
    python: str
    fact: Fact

    @property
    def device(self) -> str:
        """Return what it computes on: gpu, cpu, or "" where another framework decides that."""
        return "" if self.follows else "gpu" if self.cuda else "cpu"

    @property
    def origin(self) -> str:
        """Return where it is from: wheels, frozen (an older system), or conda, from a channel, its Python, too."""
        return "frozen" if self.frozen else "conda" if self.index.startswith(CHANNELS) else "wheels"

    def code_for(self, gpu: Capability) -> str:
        """Return how it has code for a GPU: "sass" (ready), "ptx" (compiled at first use), "" (not at all).

        Ready code runs on its own compute capability and on later ones of the same major version; PTX on all later ones. Source:
        CUDA C++ Programming Guide, binary compatibility and PTX compatibility.
        """
        if any(have[0] == gpu[0] and have[1] <= gpu[1] for have in self.sass):
            return "sass"
        return "ptx" if any(have <= gpu for have in self.ptx) else ""


@dataclass(frozen=True)
class Release:
    """A release of a framework: the Pythons it runs on, what else it needs, its builds, and why none of them is locked ("" not said)."""

    framework: str
    version: str
    python: str
    requires: tuple[tuple[str, str], ...]
    builds: tuple[Build, ...]
    fact: Fact
    unlocked: str = ""


@dataclass(frozen=True)
class Framework:
    """A framework and its releases, newest first."""

    name: str
    title: str
    default_device: str
    releases: tuple[Release, ...]


@dataclass(frozen=True)
class DriverSource:
    """Where an operating system gets drivers from.

    ``branches``: version ("" unknown) and flavours by branch; None for any branch from ``oldest`` on. ``kernels``: by branch the newest
    kernel, such as "6.8", that its modules are known to be built for; a branch that is not in it is said to be for all.
    ``oldest_toolkit``: the oldest CUDA, such as "12.3", that comes from there; "" not known.
    """

    name: str
    branches: tuple[tuple[int, str, tuple[str, ...]], ...] | None
    oldest: int = 0
    signed: bool = False
    kernels: Mapping[int, str] = field(default_factory=dict, hash=False)
    oldest_toolkit: str = ""

    def offer(self, branch: DriverBranch) -> tuple[str, tuple[str, ...]] | None:
        """Return the version ("" unknown) and the flavours that it has of a branch, None when it has none."""
        if self.branches is None:
            return (branch.newest, branch.modules) if branch.branch >= self.oldest else None
        return next(((number, modules) for have, number, modules in self.branches if have == branch.branch), None)


@dataclass(frozen=True)
class System:
    """An operating system: its own Python and CUDA toolkit ("" none), and its sources of drivers, the ones that disturb least first."""

    name: str
    title: str
    python: str
    kernel: str
    cuda_toolkit: str
    sources: tuple[DriverSource, ...]
    fact: Fact

    def why_no_toolkit(self, toolkit: Toolkit, sources: Sequence[str]) -> str:
        """Return why a toolkit cannot be had, as what is said of it; "" where it can.

        It may come as wheels, as the system's own package, or from NVIDIA's repository unless ``sources`` exclude that.
        """
        if toolkit.in_wheels or toolkit.line == self.cuda_toolkit:
            return ""
        vendor = next((source for source in self.sources if source.name == "nvidia_repository"), None)
        if vendor is None or (sources and vendor.name not in sources):
            return "would come from NVIDIA's repository, which is no source"
        if version(toolkit.line) < version(vendor.oldest_toolkit or toolkit.line):
            return f"is older than {vendor.oldest_toolkit}, the oldest in NVIDIA's repository for {self.title}"
        return ""


@dataclass(frozen=True)
class Catalog:
    """All rows, made once from the data of the role ``catalog``. ``memory`` keeps what follows from them alone.

    ``libraries``: what a toolkit can be given, as ("cudnn", "9.28.0", 13) with the major version of CUDA; None for all that there is.
    """

    architectures: tuple[Architecture, ...]
    chips: Mapping[str, Mapping[str, Any]]
    capabilities: Mapping[Capability, Architecture]
    branches: tuple[DriverBranch, ...]
    toolkits: tuple[Toolkit, ...]
    minor: Mapping[int, tuple[str, Fact]]
    cudnns: tuple[Cudnn, ...]
    nccls: tuple[tuple[str, tuple[int, ...], Fact], ...]
    frameworks: Mapping[str, Framework]
    systems: Mapping[str, System]
    pythons: tuple[str, ...]
    profiles: Mapping[str, Any]
    indexes: Mapping[str, str]
    aliases: Mapping[str, str] = field(default_factory=dict)
    system_aliases: Mapping[str, str] = field(default_factory=dict)
    libraries: frozenset[tuple[str, str, int]] | None = None
    memory: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @staticmethod
    def of(data: Mapping[str, Any]) -> Catalog:
        """Return the catalogue from the variables of the role ``catalog``."""
        architectures = []
        capabilities: dict[Capability, Architecture] = {}
        for row in data["catalog_gpu_architectures"]:
            architecture = Architecture(
                row["name"],
                row["title"],
                row["first_cuda"],
                row["last_cuda"],
                int(row["first_driver"]),
                int(row["last_driver"]),
                tuple(row["modules"]),
                Fact.of(row),
            )
            architectures.append(architecture)
            capabilities.update({capability(text): architecture for text in row["compute_capabilities"]})
        frameworks = {name: _framework(name, row) for name, row in data["catalog_framework_releases"].items()}
        systems = {name: _system(name, row) for name, row in data["catalog_operating_systems"].items()}
        return Catalog(
            tuple(architectures),
            data["catalog_gpu_chips"],
            capabilities,
            tuple(
                DriverBranch(int(r["branch"]), r["designation"], r["end_of_life"], r["newest"], tuple(r["modules"]), Fact.of(r))
                for r in data["catalog_driver_branches"]
            ),
            tuple(Toolkit(row["version"], row["driver"], Fact.of(row)) for row in data["catalog_cuda_toolkits"]),
            {int(row["cuda"]): (row["driver"], Fact.of(row)) for row in data["catalog_cuda_minor_compatibility"]},
            tuple(
                Cudnn(r["version"], r["cuda"], r["driver"], frozenset(map(capability, r["compute_capabilities"])), Fact.of(r))
                for r in data["catalog_cudnn_releases"]
            ),
            tuple((row["version"], tuple(map(int, row["cuda"])), Fact.of(row)) for row in data["catalog_nccl_releases"]),
            frameworks,
            systems,
            tuple(data["catalog_pythons"]),
            data["catalog_profiles"],
            data["catalog_framework_indexes"],
            {alias: name for name, row in data["catalog_framework_releases"].items() for alias in row.get("aliases", [])},
            {alias: name for name, row in data["catalog_operating_systems"].items() for alias in row.get("aliases", [])},
        )

    @cached_property
    def devices(self) -> dict[int, tuple[str, Capability]]:
        """Return name and compute capability by PCI device id."""
        found = {}
        for chip in self.chips.values():
            value = capability(chip["compute_capability"])
            for line in chip["devices"].splitlines():
                number, _space, name = line.partition(" ")
                found[int(number, 16)] = (name, value)
        return found

    @cached_property
    def _words(self) -> list[tuple[frozenset[str], str, Capability]]:
        return [(frozenset(_tokens(name)), f"{name} (10de:{number:04x})", value) for number, (name, value) in self.devices.items()]

    def gpu_of(self, name: str, value: Capability) -> Gpu:
        """Return a GPU of a known compute capability."""
        architecture = self.capabilities.get(value)
        if architecture is None:
            raise UnknownWordError("gpu", dotted(value), [dotted(known) for known in self.capabilities])
        return Gpu(name, value, architecture)

    def gpu(self, word: str) -> Gpu:
        """Return the GPU that somebody means: a name ("Tesla V100"), a PCI id ("10de:1db4") or a compute capability ("sm_70").

        Raises:
            UnknownWordError: nothing is called so, or things that differ are.
        """
        pci = re.fullmatch(r"(?:0x)?(?:10de:)?([0-9a-f]{4})", word.strip().lower())
        if pci and int(pci[1], 16) in self.devices and not word.strip().isdigit():
            return self.gpu_of(*self.devices[int(pci[1], 16)])
        number = re.fullmatch(r"(?:sm_|compute_|cc ?)?(\d{1,2})[.]?(\d)", word.strip().lower())
        if number and (int(number[1]), int(number[2])) in self.capabilities:
            return self.gpu_of(f"GPU of compute capability {number[1]}.{number[2]}", (int(number[1]), int(number[2])))
        wanted = _tokens(word)
        for words in (wanted, [token for token in wanted if not SIZE.fullmatch(token)]):
            near = [(len(have), name, value) for have, name, value in self._words if words and have.issuperset(words)]
            exact = [entry for entry in near if entry[0] == len(set(words))] or near
            kinds = sorted({value for _length, _name, value in exact})
            if len(kinds) == 1:
                return self.gpu_of(word.strip(), kinds[0])
            if kinds:
                examples = "; ".join(f"{min(n for _l, n, v in exact if v == kind)} has compute capability {dotted(kind)}" for kind in kinds)
                raise UnknownWordError("gpu", word, [], also=f"It may be GPUs that differ: {examples}. Say the PCI id.")
        raise UnknownWordError(
            "gpu", word, {name for name, _value in self.devices.values()}, also="A PCI id (10de:1db4) or sm_70 is understood too."
        )

    def framework(self, word: str) -> str:
        """Return the catalogue's name of a framework.

        Raises:
            UnknownWordError: there is none of that name.
        """
        name = word.strip().lower()
        name = self.aliases.get(name, name)
        if name not in self.frameworks:
            raise UnknownWordError("framework", word, [*self.frameworks, *self.aliases])
        return name

    def system(self, word: str) -> System:
        """Return an operating system by its name, such as ``ubuntu-24.04``.

        Raises:
            UnknownWordError: there is none of that name.
        """
        name = re.sub(r"[\s_]+", "-", word.strip().lower())
        name = self.system_aliases.get(name, name)
        if name not in self.systems:
            raise UnknownWordError("os", word, [*self.systems, *self.system_aliases])
        return self.systems[name]

    def library(self, name: str, number: str, line: str) -> bool:
        """Return whether a toolkit of a line (12.6) can be given a release of cudnn or nccl."""
        return self.libraries is None or (name, number, int(line.split(".", maxsplit=1)[0])) in self.libraries

    @cached_property
    def tested_kernels(self) -> dict[int, tuple[str, System, int]]:
        """Return by branch the newest kernel ("6.8") that the vendor's own release may work with, and what says so, of which branch.

        Inferred from the distributions' packages: to the vendor's modules they add what newer kernels need, so that the vendor's own know
        no kernel beyond that; and a branch of which none is known ended before the next newer one.
        """
        newest = {row.branch: row.newest for row in self.branches}
        found: dict[int, tuple[str, System, int]] = {}
        for system in self.systems.values():
            for source in system.sources:
                for branch, number, _modules in source.branches or ():
                    kernel = source.kernels.get(branch, "")
                    if kernel and number == newest.get(branch) and version(kernel) > version(found[branch][0] if branch in found else "0"):
                        found[branch] = (kernel, system, branch)
        return {branch: found[min(later)] for branch in newest if (later := [have for have in found if have >= branch])}

    @cached_property
    def cuda_lines(self) -> tuple[Toolkit, ...]:
        """Return the newest release of each line (12.6) of the toolkit, newest first."""
        newest: dict[str, Toolkit] = {}
        for toolkit in sorted(self.toolkits, key=lambda row: version(row.version), reverse=True):
            newest.setdefault(toolkit.line, toolkit)
        return tuple(newest.values())

    def ptx_driver(self, build: Build) -> str:
        """Return the oldest driver that compiles a build's PTX: the one its toolkit was made with.

        Source: CUDA compatibility, "limitations": PTX of a newer toolkit cannot be compiled by an older driver.
        """
        rows = [row for row in self.toolkits if fits(row.line, build.cuda)]
        return min((row.driver for row in rows), key=version)

    def minimum_driver(self, line: str) -> tuple[str, Fact]:
        """Return the oldest driver that runs programs built with a CUDA line (12.6), and where that is said."""
        major = int(line.split(".", maxsplit=1)[0])
        if major in self.minor:
            return self.minor[major]
        row = min((row for row in self.toolkits if row.line == line), key=lambda row: version(row.driver))
        return row.driver, row.fact


def _tokens(name: str) -> list[str]:
    return [token for token in re.split(r"[^a-z0-9]+", name.lower()) if token and token not in NOISE]


def _framework(name: str, row: Mapping[str, Any]) -> Framework:
    releases = []
    for release in row["releases"]:
        fact = Fact.of(release)
        builds = tuple(
            Build(
                key,
                data.get("cuda", ""),
                data.get("cudnn", ""),
                data.get("nccl", ""),
                frozenset(map(capability, data.get("compute_capabilities", []))),
                frozenset(map(capability, data.get("ptx", []))),
                bool(data.get("bundled", False)),
                data["requirement"],
                data.get("index", ""),
                data.get("support", "stable") == "experimental",
                data.get("follows", ""),
                data.get("frozen", ""),
                data.get("python", ""),
                Fact.of(data) if data.get("source") else fact,
            )
            for key, data in release["builds"].items()
        )
        requires = tuple((release.get("requires") or {}).items())
        releases.append(Release(name, release["version"], release["python"], requires, builds, fact, release.get("unlocked", "")))
    return Framework(name, row["title"], row.get("default_device", "gpu"), tuple(releases))


def _system(key: str, row: Mapping[str, Any]) -> System:
    sources: list[DriverSource] = []
    given = row["driver_sources"]
    for name in ("distribution", "nvidia_repository", "runfile"):
        data = given.get(name)
        if data is None:
            continue
        branches = None
        if "branches" in data:
            branches = tuple(
                (int(branch), str(number or ""), tuple(data["modules"][branch])) for branch, number in data["branches"].items()
            )
        kernels = {int(branch): str(kernel) for branch, kernel in data.get("kernels", {}).items()}
        oldest, signed = int(data.get("oldest_branch", 0)), bool(data.get("signed_modules"))
        sources.append(DriverSource(name, branches, oldest, signed, kernels, data.get("oldest_toolkit", "")))
    return System(key, row["title"], row["python"], row["kernel"], row.get("cuda_toolkit") or "", tuple(sources), Fact.of(row))
