# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""What fits together: from nodes and wishes to drivers, CUDA and one wheel set per environment, or to what of it cannot be.

Pure: no files, no clock, no network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import Catalog, Toolkit, fits, version
from ansible_collections.trainyard.core.plugins.plugin_utils._plan import (
    Driver,
    Environment,
    Failure,
    HoldBack,
    Node,
    NodePlan,
    NodeToolkit,
    Placed,
    Plan,
    Reason,
    WheelSet,
    Wishes,
    condensed,
)
from ansible_collections.trainyard.core.plugins.plugin_utils._search import Search, knows


def solve(catalog: Catalog, nodes: Sequence[Node], wishes: Wishes, today: str) -> Plan | tuple[Failure, ...]:
    """Return the plan for a fleet, or everything of it that cannot be.

    Args:
        catalog: the rows.
        nodes: the machines, each name once.
        wishes: what they are to have.
        today: the month, such as "2026-11"; it decides which driver branches nobody looks after any more.
    """
    search = Search(catalog, wishes, today)
    groups = _groups(search, nodes)
    found = _settle(search, groups)
    return tuple(found) if found else _Fleet(search, groups).plan(nodes)


def failures(catalog: Catalog, nodes: Sequence[Node], wishes: Wishes, today: str) -> tuple[Failure, ...]:
    """Return what cannot be, without making a plan of the rest; the arguments are those of `solve`."""
    search = Search(catalog, wishes, today)
    return tuple(_settle(search, _groups(search, nodes)))


def clashing(catalog: Catalog, nodes: Sequence[Node], wishes: Wishes, today: str) -> bool:
    """Return whether anything cannot be, without saying what; the arguments are those of `solve`."""
    search = Search(catalog, wishes, today)
    return any(list(_lacking(search, members[0])) for members in _groups(search, nodes))


def _groups(search: Search, nodes: Sequence[Node]) -> list[tuple[Node, ...]]:
    """Return the nodes by kind: those of one kind get the same."""
    kinds: dict[object, list[Node]] = {}
    for node in nodes:
        kinds.setdefault(search.kind(node), []).append(node)
    return [tuple(members) for members in kinds.values()]


def _settle(search: Search, groups: Sequence[tuple[Node, ...]]) -> list[Failure]:
    """Have each kind of nodes keep its installed driver if every wish can be met with it; return what cannot be met at all."""
    found: list[Failure] = []
    for members in groups:
        candidates = search.drivers(members[0])
        if search.wishes.policy == "if_needed" and len(candidates) > 1 and candidates[0].source == "installed":
            search.settle_for(members[0], candidates[0])
            if not list(_lacking(search, members[0])):
                continue
            search.settle_for(members[0], *candidates)
        found += _failures(search, members)
    return found


def _lacking(search: Search, node: Node) -> Iterator[str]:
    """Yield what a node cannot have, whatever the others have: environments, or "" for the driver or the toolkit."""
    found = False
    for environment in search.wishes.environments:
        if environment.on(node) and not any(search.wheels(environment, [node], device) for device in search.devices(environment, node)):
            found = True
            yield environment.name
    if not found and node.gpus and search.wishes.use_gpus:
        drivers = search.drivers(node)
        if not drivers or (search.wishes.pin("cuda") and not _toolkits(search, node, _newest(drivers), [])):
            yield ""


def _failures(search: Search, members: Sequence[Node]) -> list[Failure]:
    """Return what nodes of one kind cannot have, with the reasons."""
    node, found = members[0], []
    for name in _lacking(search, node):
        why_not: list[Reason] = []
        environment = next((one for one in search.wishes.environments if one.name == name), None)
        if environment:
            for device in search.devices(environment, node):
                next(search.wheel_sets(environment, [node], device, why_not), None)
        elif search.drivers(node):
            _toolkits(search, node, _newest(search.drivers(node)), why_not)
        else:
            search.driver_candidates(node, why_not)
        found.append(Failure(tuple(members), name, tuple(condensed(why_not))))
    return found


def _newest(drivers: Sequence[Driver]) -> Driver:
    return max(drivers, key=lambda driver: driver.age)


def _toolkits(search: Search, node: Node, driver: Driver, why_not: list[Reason]) -> list[Toolkit]:
    """Return the toolkits a node can have beside a driver: those the driver was made for first, each newest first."""
    pin, fitting = search.wishes.pin("cuda"), []
    for row in search.catalog.cuda_lines:
        unable = next((gpu for gpu in node.gpus if not gpu.architecture.has_cuda(row.line)), None)
        least, fact = search.catalog.minimum_driver(row.line)
        if not fits(row.line, pin) and not fits(row.version, pin):
            continue
        if unable:
            why_not.append(Reason(f"makes no code for {unable}", unable.architecture.fact, "CUDA", row.line))
        elif no_source := node.system.why_no_toolkit(row, search.wishes.sources):
            why_not.append(Reason(no_source, node.system.fact, "CUDA", row.line))
        elif not driver.runs(least):
            why_not.append(Reason(f"needs driver {least} or newer, {node.name} can have {driver} at most", fact, "CUDA", row.line))
        else:
            fitting.append(row)
    if not fitting and not why_not:
        known = [row.line for row in search.catalog.cuda_lines]
        why_not.append(Reason(f"the catalogue has no CUDA {pin}; it has {known[-1]} to {known[0]}"))
    return sorted(fitting, key=lambda row: version(row.driver).major > driver.branch.branch)  # stable: newest first stays


@dataclass
class _Fleet:
    """The second half of a search, over kinds of nodes of which each alone can have what it wants."""

    search: Search
    groups: Sequence[tuple[Node, ...]]

    def plan(self, nodes: Sequence[Node]) -> Plan:
        """Return what each node gets."""
        held_back: list[HoldBack] = []
        split: list[str] = []
        chosen: dict[str, dict[str, WheelSet]] = {}
        for environment in self.search.wishes.environments:
            chosen[environment.name] = self._environment(environment, held_back, split)
        plans = {}
        for members in self.groups:
            wheels = {name: sets[members[0].name] for name, sets in chosen.items() if members[0].name in sets}
            first = self._node(members[0], wheels, split)
            for node in members:
                plans[node.name] = first if node is members[0] else _for(node, first)
        return Plan(tuple(plans[node.name] for node in nodes), tuple(held_back), tuple(split))

    def _environment(self, environment: Environment, held_back: list[HoldBack], split: list[str]) -> dict[str, WheelSet]:
        """Return the wheel set for the first node of each kind: one for all if there is one, else one version, else each its own."""
        search = self.search
        by_device: dict[str, list[tuple[Node, ...]]] = {"gpu": [], "cpu": []}
        for members in self.groups:
            if environment.on(members[0]):
                fitting = [device for device in search.devices(environment, members[0]) if search.wheels(environment, [members[0]], device)]
                by_device[fitting[0]].append(members)
        made: dict[str, WheelSet] = {}
        versions: tuple[tuple[str, str], ...] = ()
        for device, kinds in by_device.items():
            if not kinds:
                continue
            firsts = [members[0] for members in kinds]
            own = {node.name: _there(search.wheels(environment, [node], device)) for node in firsts}
            common = (search.wheels(environment, firsts, device, versions) if versions else None) or search.wheels(
                environment, firsts, device
            )
            if common:
                made.update(dict.fromkeys(own, common))
                rest = [node for node in firsts if own[node.name].age > common.age]
                newer = search.wheels(environment, rest, device) if rest and len(rest) < len(firsts) else None
                if newer and newer.age > common.age:
                    slow = tuple(node.name for members in kinds if members[0] not in rest for node in members)
                    held_back.append(HoldBack(environment.name, slow, common, newer))
            else:
                if environment.name not in split:
                    split.append(environment.name)
                oldest = min(own.values(), key=lambda wheels: wheels.age).versions
                same = {node.name: search.wheels(environment, [node], device, oldest) for node in firsts}
                made.update({name: wheels or own[name] for name, wheels in same.items()} if all(same.values()) else own)
            versions = versions or max((made[node.name] for node in firsts), key=lambda wheels: wheels.age).versions
        return made

    def _node(self, node: Node, wheels: Mapping[str, WheelSet], split: Sequence[str]) -> NodePlan:
        search, reasons, warnings = self.search, [], []
        environments = tuple(self._placed(name, wheel_set, node, split) for name, wheel_set in wheels.items())
        on_gpu = {name: wheel_set for name, wheel_set in wheels.items() if wheel_set.device == "gpu"}
        if not node.gpus or not (on_gpu or search.wishes.use_gpus):
            reasons.append(Reason("no driver and no CUDA: " + ("the GPUs are not to be used" if node.gpus else "there is no GPU")))
            return NodePlan(node, None, (), environments, (), tuple(reasons))
        least = max((wheel_set.minimum_driver for wheel_set in on_gpu.values()), key=version, default="0")
        driver = next(driver for driver in search.drivers(node) if driver.runs(least))
        reasons += self._driver_reasons(node, driver, on_gpu, least)
        branch = driver.branch
        if branch.ended(search.today):
            when = f"since {branch.end_of_life}" if branch.end_of_life else "for long"
            kept = "it is kept because it will do" if driver.source == "installed" else "no newer one drives all GPUs and meets all wishes"
            warnings.append(f"driver branch R{branch.branch}: nobody has looked after it {when}; {kept}")
        if node.secure_boot and not driver.signed and driver.source != "installed":
            warnings.append(
                f"Secure Boot is on and driver {driver} is not signed by {node.system.title}: its key has to be enrolled by hand"
            )
        toolkits = self._node_toolkits(node, driver, on_gpu.values(), reasons, warnings)
        return NodePlan(node, driver, tuple(toolkits), environments, tuple(warnings), tuple(reasons))

    def _driver_reasons(self, node: Node, driver: Driver, on_gpu: Mapping[str, WheelSet], least: str) -> list[Reason]:
        branch, reasons = driver.branch, []
        if driver.source == "installed":
            reasons.append(Reason(f"driver {driver.version}: it is installed and will do, so it is left alone"))
        else:
            until = f", looked after until {branch.end_of_life}" if branch.end_of_life else ""
            reasons.append(
                Reason(
                    f"driver {driver}: {branch.designation.replace('_', ' ')} branch{until}, from {driver.source.replace('_', ' ')}",
                    branch.fact,
                )
            )
            if node.driver:
                reasons.append(Reason(f"the installed driver {node.driver} will not do"))
        for gpu in {gpu.architecture.name: gpu for gpu in node.gpus}.values():
            if gpu.architecture.last_driver:
                words = f"not newer than R{gpu.architecture.last_driver}, the last branch for {gpu.architecture.title} ({gpu.name})"
                reasons.append(Reason(words, gpu.architecture.fact))
        for name, wheel_set in on_gpu.items():
            if wheel_set.minimum_driver == least:
                words = (
                    f"not older than {least}: {name} uses CUDA {wheel_set.cuda}{f' and cuDNN {wheel_set.cudnn}' if wheel_set.cudnn else ''}"
                )
                reasons.append(Reason(words, wheel_set.minimum_fact))
                break
        titles = " and ".join(dict.fromkeys(gpu.architecture.title for gpu in node.gpus))
        loaded = f"it is loaded, and drives {titles}" if driver.source == "installed" and node.flavour else f"what drives {titles}"
        reasons.append(Reason(f"{driver.modules} kernel module: {loaded}", node.gpus[0].architecture.fact))
        return reasons

    def _node_toolkits(
        self, node: Node, driver: Driver, sets: Iterable[WheelSet], reasons: list[Reason], warnings: list[str]
    ) -> list[NodeToolkit]:
        why_not: list[Reason] = []
        fitting = _toolkits(self.search, node, driver, why_not)
        own: dict[str, str] = {}
        for wheels in sets:
            if not wheels.bundled:
                own[wheels.cuda] = max(own.get(wheels.cuda, ""), wheels.cudnn, key=lambda number: version(number or "0"))
        chosen = [row for row in self.search.catalog.cuda_lines if row.line in own] + fitting[:1]
        chosen = list(dict.fromkeys(chosen))
        for row in chosen:
            words = (
                "environments without a CUDA of their own use it"
                if row.line in own
                else f"the newest that suits driver {driver} and all GPUs"
            )
            reasons.append(Reason(f"CUDA toolkit {row.version}: {words}", row.fact))
            if version(row.driver).major > driver.branch.branch:
                warnings.append(
                    f"CUDA toolkit {row.line} was made with a newer driver ({row.driver}) than {driver}: its PTX cannot be compiled there"
                )
        return [self._node_toolkit(node, row, own.get(row.line, ""), reasons, warnings) for row in chosen]

    def _node_toolkit(self, node: Node, row: Toolkit, cudnn: str, reasons: list[Reason], warnings: list[str]) -> NodeToolkit:
        """Return a toolkit with the cuDNN that an environment uses there, or the newest for all GPUs, and the newest NCCL."""
        catalog, pin = self.search.catalog, cudnn or self.search.wishes.pin("cudnn")
        words = "environments without one of their own use it" if cudnn else f"the newest for CUDA {row.line} that drives all GPUs"
        every = [
            have
            for have in sorted(catalog.cudnns, key=lambda have: version(have.version), reverse=True)
            if fits(row.line, have.cuda) and (cudnn or catalog.library("cudnn", have.version, row.line))
        ]
        fitting = [have for have in every if all(knows(have, gpu.capability) for gpu in node.gpus)]
        found = next((have for have in fitting if fits(have.version, pin)), None)
        if found:
            reasons.append(Reason(f"cuDNN {found.version} in CUDA {row.line}: {words}", found.fact))
        else:
            unable = next((gpu for gpu in node.gpus if every and not knows(every[0], gpu.capability)), None)
            numbers = ", ".join(dict.fromkeys(have.version for have in fitting or every))
            words = f"{pin} is asked for, to be had is {numbers}" if fitting else "there is none"
            if unable:
                words = f"what can be had ({numbers}) does not drive {unable}"
            reasons.append(Reason(f"no cuDNN in CUDA {row.line}: {words}", every[0].fact if every else None))
            if pin:
                warnings.append(f"CUDA toolkit {row.line} gets no cuDNN: {words}")
        major = int(row.line.split(".", maxsplit=1)[0])
        nccls = [(number, fact) for number, majors, fact in catalog.nccls if major in majors and catalog.library("nccl", number, row.line)]
        if nccls:
            reasons.append(Reason(f"NCCL {nccls[0][0]} in CUDA {row.line}: the newest for CUDA {major}", nccls[0][1]))
        else:
            reasons.append(Reason(f"no NCCL in CUDA {row.line}: there is none for CUDA {major}"))
        return NodeToolkit(row, found.version if found else "", nccls[0][0] if nccls else "")

    def _placed(self, name: str, wheels: WheelSet, node: Node, split: Sequence[str]) -> Placed:
        environment = next(environment for environment in self.search.wishes.environments if environment.name == name)
        python = next(text for text in self.search.pythons(node, environment) if wheels.runs_on(text))
        frozen = next((choice.build.frozen for choice in wheels.choices if choice.build.frozen), "")
        by_conda = any(choice.build.origin == "conda" for choice in wheels.choices)
        python_from = "frozen" if frozen else "system" if python == node.system.python and not by_conda else "conda"
        warnings, reasons = [], []
        for choice in wheels.choices:
            title = f"{self.search.catalog.frameworks[choice.release.framework].title} {choice.release.version}"
            text = f"{title} ({choice.build.name}): {choice.build.requirement}"
            reasons.append(Reason(text, choice.build.fact))
            if choice.build.experimental:
                warnings.append(f"{title} ({choice.build.name}) is called experimental by its makers")
            for gpu in node.gpus if choice.build.device == "gpu" else ():
                if choice.build.code_for(gpu.capability) == "ptx":
                    warnings.append(
                        f"{title} ({choice.build.name}) has no ready code for {gpu.name}: it is compiled at first use, for minutes"
                    )
        if wheels.cudnn:
            reasons.append(
                Reason(f"CUDA {wheels.cuda}, cuDNN {wheels.cudnn}" + (", both in the wheels" if wheels.bundled else ", the node's own"))
            )
        if not fits(python, self.search.wishes.pin("python")):
            warnings.append(f"it has Python {python} instead of {self.search.wishes.pin('python')}, which the profile allows")
        if frozen:
            reasons.append(Reason(f"Python {python} of {frozen}, which it runs in, frozen"))
        elif by_conda:
            reasons.append(Reason(f"Python {python} from conda, as all of it"))
        elif python_from == "conda":
            reasons.append(Reason(f"Python {python} from conda: the system's own {node.system.python} is outside {_pythons(wheels)}"))
        else:
            reasons.append(Reason(f"Python {python}: the system's own", node.system.fact))
        if name in split:
            warnings.append("no one wheel set runs on all nodes, so it cannot train across all of them")
        why_not: list[Reason] = []
        next(self.search.wheel_sets(environment, [node], wheels.device, why_not), None)
        reasons += [Reason(f"passed over: {reason}", reason.fact) for reason in condensed(why_not)]
        return Placed(name, wheels, python, python_from, tuple(dict.fromkeys(warnings)), tuple(reasons))


def _pythons(wheels: WheelSet) -> str:
    return " and ".join(dict.fromkeys(choice.release.python for choice in wheels.choices))


def _there(wheels: WheelSet | None) -> WheelSet:
    if wheels is None:
        raise AssertionError("a node that cannot have an environment is a failure and does not get this far")
    return wheels


def _for(node: Node, plan: NodePlan) -> NodePlan:
    return NodePlan(node, plan.driver, plan.toolkits, plan.environments, plan.warnings, plan.reasons)
