# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""The search for what fits: a node's drivers, and the newest wheel set of an environment for some nodes.

Programs run on every driver that is new enough. So the one thing that environments share, the driver, need not be searched over: each
environment is judged by the newest driver that its nodes can have, and the driver itself is chosen afterwards. What is left is one small
search per environment, with backtracking over the frameworks in it, newest first. A general solver would want the same rows as clauses
and could still not say in the field's words why something was left out, which is half of the answer here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import (
    Build,
    Capability,
    Catalog,
    Cudnn,
    DriverBranch,
    DriverSource,
    Fact,
    Gpu,
    fits,
    version,
)
from ansible_collections.trainyard.core.plugins.plugin_utils._plan import Choice, Driver, Environment, Node, Reason, WheelSet, Wishes

DESIGNATIONS = ("long_term", "production", "new_feature", "developer", "legacy")
"""Kinds of driver branches: first the ones for machines that nobody wants to touch often."""


@dataclass
class Search:
    """One search: rows, wishes and the month ("2026-11"), with what was found out already."""

    catalog: Catalog
    wishes: Wishes
    today: str
    _drivers: dict[Any, tuple[Driver, ...]] = field(default_factory=dict)
    _sets: dict[Any, WheelSet | None] = field(default_factory=dict)

    def kind(self, node: Node) -> tuple[Any, ...]:
        """Return what of a node matters here; nodes of one kind get the same answer."""
        environments = frozenset(environment.name for environment in self.wishes.environments if environment.on(node))
        return (
            node.system.name,
            tuple(sorted({gpu.capability for gpu in node.gpus})),
            node.driver,
            node.secure_boot,
            node.kernel,
            node.flavour,
            environments,
        )

    def drivers(self, node: Node) -> tuple[Driver, ...]:
        """Return the drivers that a node may have, the preferred one first.

        An installed one that will do comes before all others, unless the newest is wanted; with the policy ``never`` it is the only one.
        """
        kind = self.kind(node)
        if kind not in self._drivers:
            self._drivers[kind] = tuple(self.driver_candidates(node, []))
        return self._drivers[kind]

    def settle_for(self, node: Node, *drivers: Driver) -> None:
        """Have nodes of this one's kind take one of these drivers from now on."""
        self._drivers[self.kind(node)] = drivers
        self._sets.clear()

    def driver_candidates(self, node: Node, why_not: list[Reason]) -> list[Driver]:
        """Return the drivers that a node may have, and add why it may not have the others."""
        if not node.gpus:
            return []
        flavours = self.flavours(node, why_not)
        found = []
        for branch in self.catalog.branches if flavours else ():
            problem = self._branch_problem(branch, node, flavours)
            if problem:
                why_not.append(problem)
                continue
            for source in node.system.sources:
                offer = source.offer(branch)
                if source.name not in self.wishes.allowed_sources:
                    if offer:
                        why_not.append(Reason(f"drivers may come from {' and '.join(self.wishes.allowed_sources)} only".replace("_", " ")))
                    continue
                if not self._driver_pinned(branch, offer[0] if offer else ""):
                    why_not.append(Reason(f"driver {self.wishes.pin('driver')} is asked for"))
                    continue
                problem = self._source_problem(source, branch, node, flavours)
                if problem:
                    why_not.append(problem)
                elif offer:
                    modules = next(flavour for flavour in flavours if flavour in offer[1])
                    found.append(Driver(branch, offer[0], modules, source.name, source.signed))
        order = [source.name for source in node.system.sources]

        def rank(driver: Driver) -> tuple[Any, ...]:
            branch, ended = driver.branch, driver.branch.ended(self.today)
            kind = 0 if ended else DESIGNATIONS.index(branch.designation)
            return (ended, kind, -branch.branch, node.secure_boot and not driver.signed, order.index(driver.source))

        found.sort(key=rank)
        return self._with_installed(node, found, flavours, why_not)

    def _branch_problem(self, branch: DriverBranch, node: Node, flavours: Sequence[str]) -> Reason | None:
        for gpu in node.gpus:
            kind = gpu.architecture
            if not kind.has_driver(branch.branch):
                last = bool(kind.last_driver) and branch.branch > kind.last_driver
                edge = f"R{kind.last_driver} is the last driver branch" if last else f"R{kind.first_driver} is the first driver branch"
                return Reason(f"{edge} for {kind.title} ({gpu.name})", kind.fact)
        if not set(flavours) & set(branch.modules):
            return Reason(f"has no {' or '.join(flavours)} kernel module", branch.fact, "driver branch", str(branch.branch))
        return None

    def _source_problem(self, source: DriverSource, branch: DriverBranch, node: Node, flavours: Sequence[str]) -> Reason | None:
        """Return why a node cannot have a branch from a source, None also where the source simply has none."""
        offer, words, fact = source.offer(branch), "", node.system.fact
        kernel, says = source.kernels.get(branch.branch, ""), f"in {node.system.title}"
        if source.branches is None and branch.branch in self.catalog.tested_kernels:
            kernel, system, of_branch = self.catalog.tested_kernels[branch.branch]
            says, fact = f"at most, as {system.title} says of {of_branch}", system.fact
        if offer is None and source.branches is None:
            words, fact = f"is older than R{source.oldest}, the oldest in NVIDIA's repository for {node.system.title}", node.system.fact
        elif offer and kernel and version(kernel) < version(node.kernel):
            words = f"is tested with kernels up to {kernel} {says}, and {node.kernel} boots"
        elif offer and not set(flavours) & set(offer[1]):
            words, fact = f"comes without the {' or '.join(flavours)} kernel module from {source.name.replace('_', ' ')}", node.system.fact
        return Reason(words, fact, "driver branch", str(branch.branch)) if words else None

    def _driver_pinned(self, branch: DriverBranch, number: str) -> bool:
        pin = self.wishes.pin("driver")
        return fits(number or str(branch.branch), pin)

    def _with_installed(self, node: Node, found: list[Driver], flavours: Sequence[str], why_not: list[Reason]) -> list[Driver]:
        never = self.wishes.policy == "never"
        if not node.driver:
            if never:
                why_not.append(Reason("no driver is installed, and none may be (driver policy: never)"))
            return [] if never else found
        number = int(version(node.driver).major)
        unknown = DriverBranch(number, "new_feature", "", node.driver, ("open", "proprietary"), Fact("the node itself", "", "measured"))
        branch = next((row for row in self.catalog.branches if row.branch == number), unknown)
        if node.flavour:  # what is loaded is there, whatever the branch's row says of it
            branch = replace(branch, modules=(node.flavour,))
        problem = self._branch_problem(branch, node, [node.flavour] if node.flavour else flavours) if flavours else None
        if not problem and node.flavour and node.flavour not in flavours:
            problem = Reason(f"driver {node.driver} is installed with the {node.flavour} kernel module, wanted is {' or '.join(flavours)}")
        if not problem and not self._driver_pinned(branch, node.driver):
            problem = Reason(f"driver {self.wishes.pin('driver')} is asked for, {node.driver} is installed")
        installed = []
        if problem:
            why_not.append(problem)
        elif flavours:
            installed = [Driver(branch, node.driver, self._flavour_there(node, branch, flavours), "installed")]
        if never:
            if not installed:
                why_not.append(Reason(f"the installed driver {node.driver} may not be changed (driver policy: never)"))
            return installed
        if self.wishes.policy == "newest":
            # Measured by the preferred one: were any newer branch enough, each run would climb to the next.
            return [*found, *installed] if found and found[0].age > version(node.driver) else [*installed, *found]
        return installed + found

    def _flavour_there(self, node: Node, branch: DriverBranch, flavours: Sequence[str]) -> str:
        """Return the flavour of an installed driver: the loaded one, else the one that would have been planned with this branch.

        The role that brought it is told this flavour again on every run, so it has to be one that the driver's source has.
        """
        fitting = [flavour for flavour in flavours if flavour in branch.modules]
        for source in node.system.sources if not node.flavour else ():
            offer = source.offer(branch) if source.name in self.wishes.allowed_sources else None
            for flavour in fitting:
                if offer and flavour in offer[1]:
                    return flavour
        return fitting[0]

    def flavours(self, node: Node, why_not: list[Reason]) -> list[str]:
        """Return the flavours of kernel module that drive all GPUs of a node, the preferred one first."""
        first = node.gpus[0]
        kind = first.architecture
        common = [flavour for flavour in kind.modules if all(flavour in gpu.architecture.modules for gpu in node.gpus)]
        if not common:
            other = next(gpu for gpu in node.gpus if not set(gpu.architecture.modules) & set(kind.modules))
            needs = [
                f"{gpu.name} ({gpu.architecture.title}) needs the {' or '.join(gpu.architecture.modules)} one" for gpu in (first, other)
            ]
            why_not.append(Reason(f"a machine loads one flavour of the kernel module: {needs[0]}, {needs[1]}", kind.fact))
        elif self.wishes.modules and self.wishes.modules not in common:
            why_not.append(Reason(f"the {self.wishes.modules} kernel module does not drive {first.name} ({kind.title})", kind.fact))
            return []
        return [self.wishes.modules] if self.wishes.modules and common else common

    def devices(self, environment: Environment, node: Node) -> tuple[str, ...]:
        """Return what an environment may compute on there, the preferred device first."""
        if environment.device in {"gpu", "cpu"}:
            return (environment.device,)
        if environment.device == "any":
            return ("gpu", "cpu") if node.gpus else ("cpu",)
        wanted = {self.catalog.frameworks[name].default_device for name in environment.frameworks}
        return ("gpu",) if node.gpus and "gpu" in wanted else ("cpu",)

    def pythons(self, node: Node, environment: Environment) -> tuple[str, ...]:
        """Return the Pythons that an environment may have on a node: the node's own first, then others, newest first."""
        every = dict.fromkeys((node.system.python, *self.catalog.pythons))
        return tuple(python for python in every if self.wishes.has_python(python, environment))

    def wheels(
        self, environment: Environment, nodes: Sequence[Node], device: str, versions: tuple[tuple[str, str], ...] = ()
    ) -> WheelSet | None:
        """Return the newest wheel set that runs on all of these nodes, of given versions where some are given."""
        key = (environment.frameworks, device, versions, frozenset(self.kind(node) for node in nodes))
        if key not in self._sets:
            self._sets[key] = next(self.wheel_sets(environment, nodes, device, [], versions), None)
        return self._sets[key]

    def wheel_sets(
        self,
        environment: Environment,
        nodes: Sequence[Node],
        device: str,
        why_not: list[Reason],
        versions: tuple[tuple[str, str], ...] = (),
    ) -> Iterator[WheelSet]:
        """Yield the wheel sets that run on all of these nodes, the newest first; add why those before it were passed over."""
        gpus: tuple[Gpu, ...] = ()
        drivers: dict[str, Driver] = {}
        made_for = 0
        if device == "gpu":
            gpus = tuple({gpu.capability: gpu for node in nodes for gpu in node.gpus}.values())
            preferred = []
            for node in nodes:
                if not node.gpus:
                    why_not.append(Reason(f"{node.name} has no GPU"))
                    return
                candidates = self.drivers(node)
                if not candidates:
                    self.driver_candidates(node, why_not)
                    return
                drivers[node.name] = max(candidates, key=lambda driver: driver.age)
                preferred.append(candidates[0].branch.branch)
            made_for = min(preferred)
        own = [self.pythons(node, environment) for node in nodes]
        every = tuple(dict.fromkeys(python for some in own for python in some))
        if not every:
            why_not.append(Reason(f"no Python {self.wishes.pin('python')} is to be had; there are {', '.join(self.catalog.pythons)}"))
        wanted = dict(versions)

        def extend(pending: tuple[tuple[str, str], ...], chosen: tuple[Choice, ...], pythons: tuple[str, ...]) -> Iterator[WheelSet]:
            if not pending:
                yield from self._finish(chosen, nodes, gpus, drivers, made_for, why_not)
                return
            (name, needs), rest = pending[0], pending[1:]
            for choice in [choice for choice in chosen if choice.release.framework == name]:
                if fits(choice.release.version, needs):
                    yield from extend(rest, chosen, pythons)
                else:
                    last = chosen[-1].release
                    why_not.append(Reason(f"needs {self._name(name)} {needs}", last.fact, self._name(last.framework), last.version))
                return
            for choice in self._choices(name, device, gpus, why_not):
                release, more = choice.release, (*chosen, choice)
                if not fits(release.version, needs) or release.version != wanted.get(name, release.version):
                    continue
                left = tuple(python for python in pythons if fits(python, release.python) and fits(python, choice.build.python))
                frozen = [one for one in more if one.build.frozen]
                systems = {one.build.frozen for one in more if not one.build.follows}
                if not all(any(python in left for python in some) for some in own):
                    words = f"runs on Python {choice.build.python or release.python}"
                    words += f", not on {self.wishes.pin('python')}" if self.wishes.pin("python") else ""
                    why_not.append(Reason(words, release.fact, self._name(name), release.version))
                elif len(systems) > 1:
                    row, words = frozen[0].release, f"runs in {frozen[0].build.frozen}, frozen, and nothing beside it runs elsewhere"
                    why_not.append(Reason(words, row.fact, self._name(row.framework), row.version))
                elif gpus and not self._cuda_lines(more, gpus):
                    why_not.append(self._cuda_clash(more, gpus))
                else:
                    yield from extend(rest + release.requires, more, left)

        order = [name for name in self.catalog.frameworks if name in environment.frameworks]  # whatever order they were named in
        yield from extend(tuple((name, "") for name in order), (), every)

    def _choices(self, name: str, device: str, gpus: Sequence[Gpu], why_not: list[Reason]) -> Iterator[Choice]:
        """Yield the builds of a framework for a device: the newest release first, in it stable ones first, then the newest CUDA."""
        framework, pin = self.catalog.frameworks[name], self.wishes.pin(name)
        known = [release.version for release in framework.releases]
        # A version that is there just as it is written means that one alone: 1.0 and 1.0.0 are equal, and may come from different places.
        pinned = [number for number in known if number == pin] or [number for number in known if fits(number, pin)]
        if not pinned:
            why_not.append(Reason(f"the catalogue has no {framework.title} {pin}; it has {known[-1]} to {known[0]}"))
        for found in self._buildable(name, device, gpus):
            if (found.version if isinstance(found, Reason) else found.release.version) in pinned:
                if isinstance(found, Reason):
                    why_not.append(found)
                else:
                    yield found

    def _buildable(self, name: str, device: str, gpus: Sequence[Gpu]) -> list[Choice | Reason]:
        """Return the builds of a framework for a device, or why one has no code for these GPUs; whatever the wishes, so it is kept."""
        key = (name, device, gpus)
        if key not in self.catalog.memory:
            framework = self.catalog.frameworks[name]
            found: list[Choice | Reason] = []
            for release in framework.releases:
                builds = [build for build in release.builds if build.device in {"", device}]
                if not builds:
                    found.append(Reason(f"has no {device.upper()} build", release.fact, framework.title, release.version))
                for build in sorted(builds, key=_build_rank):
                    choice = Choice(release, build)
                    lacking = [gpu for gpu in gpus if build.device == "gpu" and not build.code_for(gpu.capability)]
                    found.append(
                        Reason(f"has no code for {lacking[0]}", build.fact, self._built(choice), release.version) if lacking else choice
                    )
            self.catalog.memory[key] = found
        return self.catalog.memory[key]  # type: ignore[no-any-return]

    def _cuda_lines(self, chosen: Sequence[Choice], gpus: Sequence[Gpu]) -> list[str]:
        """Return the lines of CUDA that all builds can share on these GPUs, newest first."""
        wanted = [choice.build.cuda for choice in chosen if choice.build.cuda]
        pin = self.wishes.pin("cuda")
        return [
            row.line
            for row in self.catalog.cuda_lines
            if all(fits(row.line, words) for words in wanted)
            and fits(row.line, pin)
            and all(gpu.architecture.has_cuda(row.line) for gpu in gpus)
        ]

    def _cuda_clash(self, chosen: Sequence[Choice], gpus: Sequence[Gpu]) -> Reason:
        """Return why the last of these builds has no CUDA to share with the others, the GPUs and the pin."""
        last, others = chosen[-1], [choice for choice in chosen[:-1] if choice.build.cuda]
        lines = [row.line for row in self.catalog.cuda_lines if fits(row.line, last.build.cuda)]
        outside = next((gpu for gpu in gpus if not any(map(gpu.architecture.has_cuda, lines))), None)
        pin = self.wishes.pin("cuda")
        words = f"uses CUDA {_plain(last.build.cuda)}"
        if outside:
            words += f", which has no code for {outside}"
        elif pin and not any(fits(line, pin) for line in lines):
            words += f", not {_plain(pin)}"
        elif others:
            words += f", {self._built(others[0])} CUDA {_plain(others[0].build.cuda)}"
        return Reason(words, last.build.fact, self._built(last), last.release.version)

    def _finish(
        self,
        chosen: tuple[Choice, ...],
        nodes: Sequence[Node],
        gpus: Sequence[Gpu],
        drivers: dict[str, Driver],
        made_for: int,
        why_not: list[Reason],
    ) -> Iterator[WheelSet]:
        """Yield the wheel sets of these builds: CUDA lines that the preferred driver was made for first, in each the newest cuDNN."""
        if not gpus:
            yield WheelSet(chosen, "cpu")
            return
        subject, number = self._built(chosen[0]), chosen[0].release.version
        if not any(choice.build.cuda for choice in chosen):
            return
        for line in sorted(self._cuda_lines(chosen, gpus), key=lambda line: self._made_with(line) > made_for):  # stable: newest first stays
            least, fact = self.catalog.minimum_driver(line)
            for choice in chosen:
                if any(choice.build.device == "gpu" and choice.build.code_for(gpu.capability) == "ptx" for gpu in gpus):
                    least = max(least, self.catalog.ptx_driver(choice.build), key=version)
            late = next((name for name, driver in drivers.items() if not driver.runs(least)), None)
            if late:
                words = f"needs driver {least} or newer for CUDA {line}, {late} can have {drivers[late]} at most"
                why_not.append(Reason(words, fact, subject, number))
                continue
            no_toolkit = self._no_toolkit(chosen, nodes, line)
            if no_toolkit:
                why_not.append(no_toolkit)
                continue
            wanted = [choice.build.cudnn for choice in chosen if choice.build.cudnn]
            pin = self.wishes.pin("cudnn")
            if not wanted:
                yield WheelSet(chosen, "gpu", line, "", least, fact)
                continue
            for row in self._cudnns(line, [*wanted, pin], gpus):
                more = version(row.driver or "0") > version(least)
                needed = row.driver if more else least
                if all(driver.runs(needed) for driver in drivers.values()):
                    yield WheelSet(chosen, "gpu", line, row.version, needed, row.fact if more else fact)
                    break
            else:
                why_not.append(self._cudnn_clash(chosen, line, gpus))

    def _no_toolkit(self, chosen: Sequence[Choice], nodes: Sequence[Node], line: str) -> Reason | None:
        """Return why builds that use a node's own toolkit cannot have one of a CUDA line there, None where they can or use their own."""
        choice = next((choice for choice in chosen if choice.build.device == "gpu" and not choice.build.bundled), None)
        row = next(row for row in self.catalog.cuda_lines if row.line == line)
        for node in nodes if choice else ():
            words = node.system.why_no_toolkit(row, self.wishes.sources)
            if words and choice:
                text = f"uses the node's own CUDA {line}, which {words}"
                return Reason(text, node.system.fact, self._built(choice), choice.release.version)
        return None

    def _made_with(self, line: str) -> int:
        return next(int(version(row.driver).major) for row in self.catalog.cuda_lines if row.line == line)

    def _cudnns(self, line: str, wanted: Sequence[str], gpus: Sequence[Gpu]) -> list[Cudnn]:
        """Return the releases of cuDNN that fulfil all these words and drive all GPUs, newest first, the least demanding row first."""
        fitting = [
            row
            for row in self.catalog.cudnns
            if fits(line, row.cuda)
            and all(fits(row.version, words) for words in wanted)
            and all(knows(row, gpu.capability) for gpu in gpus)
        ]
        fitting.sort(key=lambda row: version(row.driver or "0"))
        return sorted(fitting, key=lambda row: version(row.version), reverse=True)

    def _cudnn_clash(self, chosen: Sequence[Choice], line: str, gpus: Sequence[Gpu]) -> Reason:
        """Return why the last of these builds has no cuDNN to share with the others, the GPUs and the pin."""
        builds = [choice for choice in chosen if choice.build.cudnn]
        last, pin = builds[-1], self.wishes.pin("cudnn")
        own = last.build.cudnn
        words = f"needs cuDNN {_plain(own)}"
        unable = next((gpu for gpu in gpus if not self._cudnns(line, [own], [gpu])), None)
        other = next((choice for choice in builds[:-1] if not self._cudnns(line, [own, choice.build.cudnn], gpus)), None)
        if unable:
            words += f", which does not drive {unable}"
        elif other:
            words += f", {self._built(other)} cuDNN {_plain(other.build.cudnn)}"
        elif pin:
            too_new = next((gpu for gpu in gpus if not self._cudnns(line, [pin], [gpu])), None)
            words += f"; {_plain(pin)} is asked for" + (f", which does not drive {too_new}" if too_new else "")
        return Reason(words, last.build.fact, self._built(last), last.release.version)

    def _name(self, framework: str) -> str:
        return self.catalog.frameworks[framework].title

    def _built(self, choice: Choice) -> str:
        return f"{self._name(choice.release.framework)} ({choice.build.name})"


def knows(row: Cudnn, gpu: Capability) -> bool:
    """Return whether a release of cuDNN runs on a GPU: it lists its compute capability or an earlier one of the same major version."""
    return any(have[0] == gpu[0] and have[1] <= gpu[1] for have in row.capabilities)


def _build_rank(build: Build) -> tuple[Any, ...]:
    numbers = [version(part.strip("<>=!~ ").removesuffix(".*")) for part in build.cuda.split(",") if part]
    return (build.experimental, tuple(-number for number in max(numbers, default=version("0")).release), build.name)


def _plain(words: str) -> str:
    return words.replace("==", "").replace(".*", "")
