# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""From people's words (a command line, an inventory) to nodes and wishes; words that mean nothing are refused, naming the nearest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.trainyard.core.plugins.plugin_utils._conflict import Explanation, explain
from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import Catalog, UnknownWordError, fits, specifier, version
from ansible_collections.trainyard.core.plugins.plugin_utils._locked import Lock, lock_for, locked_frameworks, restricted
from ansible_collections.trainyard.core.plugins.plugin_utils._plan import DEVICES, POLICIES, SOURCES, Environment, Node, Plan, Wishes
from ansible_collections.trainyard.core.plugins.plugin_utils._resolver import solve

MODULES = ("", "open", "proprietary")
PINS = ("cuda", "cudnn", "driver", "python")
KEYS = ("environments", "pins", "profile", "device", "driver_policy", "driver_modules", "driver_sources")


@dataclass(frozen=True)
class Answer:
    """What nodes and wishes lead to: a plan, or why there is none."""

    wishes: Wishes
    plan: Plan | None
    explanation: Explanation | None


def answer(catalog: Catalog, nodes: Sequence[Node], words: Mapping[str, Any], today: str, locks: Sequence[Lock] = ()) -> Answer:
    """Resolve what somebody wants for some nodes.

    Args:
        catalog: the rows.
        nodes: the machines.
        words: what is wanted, by the names in `KEYS`; each may be left out.
        today: the month, such as "2026-11".
        locks: builds that are preferred to newer ones wherever they will do.

    Raises:
        ValueError: a word means nothing; the text names the nearest known ones.
    """
    alternatives, best, fewest = wishes_of(catalog, nodes, words), None, 0
    for wishes in alternatives:
        plan = solve(catalog, nodes, wishes, today)
        if isinstance(plan, Plan):
            plan = _as_locked(catalog, nodes, wishes, today, locks) or plan
            lacking = sum(not lock_for(locks, placed) for node in plan.nodes for placed in node.environments) if locks else 0
            if best is None or lacking < fewest:
                best, fewest = Answer(wishes, plan, None), lacking
            if not lacking:
                break
    return best or Answer(alternatives[0], None, explain(catalog, nodes, alternatives[0], today))


def _as_locked(catalog: Catalog, nodes: Sequence[Node], wishes: Wishes, today: str, locks: Sequence[Lock]) -> Plan | None:
    """Return the plan with as many frameworks as possible, the first ones first, as they are locked; None with none."""
    names = [name for name in locked_frameworks(catalog, locks) if locks]

    def plan_of(frameworks: list[str]) -> Plan | None:
        found = solve(restricted(catalog, locks, frameworks), nodes, wishes, today) if frameworks else None
        return found if isinstance(found, Plan) else None

    every = plan_of(names)
    if every:
        return every
    kept: list[str] = []
    found = None
    for name in names:
        with_it = plan_of([*kept, name])
        if with_it:
            kept, found = [*kept, name], with_it
    return found


def node_of(
    catalog: Catalog,
    name: str,
    system: str,
    gpus: Sequence[str] = (),
    driver: str = "",
    secure_boot: bool = False,
    kernel: str = "",
    flavour: str = "",
) -> Node:
    """Return a node from words; ``kernel`` is as ``uname -r`` prints it, or its beginning, ``flavour`` that of the loaded module.

    Raises:
        ValueError: the operating system, a GPU, the driver's version or the kernel's means nothing.
    """
    if driver:
        version(driver)
    line = re.match(r"\d+\.\d+", kernel)
    if kernel and not line:
        raise ValueError(f"kernel: '{kernel}' is no version such as 6.12 or 6.1.0-40-amd64.")
    system_row, cards = catalog.system(system), tuple(catalog.gpu(word) for word in gpus)
    return Node(name, system_row, cards, driver, secure_boot, line[0] if line else "", flavour if driver else "")


def wishes_of(catalog: Catalog, nodes: Sequence[Node], words: Mapping[str, Any]) -> tuple[Wishes, ...]:
    """Return the wishes; several, the preferred one first, where a profile has variants and none is named.

    Raises:
        ValueError: a word means nothing.
    """
    for key in words:
        if key not in KEYS:
            raise UnknownWordError("wish", str(key), KEYS)
    device = _one_of("device", str(words.get("device") or ""), DEVICES)
    names = frozenset(node.name for node in nodes)
    pins: dict[str, str] = {}
    environments = [_environment(catalog, entry, device, names, pins) for entry in words.get("environments") or []]
    for name, wanted in dict(words.get("pins") or {}).items():
        pins[_pin_name(catalog, str(name))] = str(wanted)
    for entry in (environment.name for environment in environments):
        if sum(environment.name == entry for environment in environments) > 1:
            raise ValueError(f"environments: {entry} stands there twice.")
    common = {
        "policy": _one_of("driver_policy", str(words.get("driver_policy") or "if_needed"), POLICIES),
        "modules": _one_of("driver_modules", str(words.get("driver_modules") or ""), MODULES),
        "sources": tuple(_one_of("driver_sources", str(word), SOURCES) for word in words.get("driver_sources") or ()),
        "use_gpus": device != "cpu",
    }
    made = []
    for more, more_pins, pythons in _profile(catalog, nodes, str(words.get("profile") or ""), device, environments):
        every = {**more_pins, **pins}
        for name, wanted in every.items():
            _check_pin(catalog, name, wanted)
        own = () if "python" in pins else tuple(pythons.items())
        made.append(Wishes(tuple(more), tuple(every.items()), pythons=own, **common))  # type: ignore[arg-type]
    return tuple(made)


def _environment(catalog: Catalog, entry: Any, device: str, names: frozenset[str], pins: dict[str, str]) -> Environment:
    data = {"frameworks": entry} if isinstance(entry, str) else dict(entry)
    unknown = [key for key in data if key not in {"name", "frameworks", "device", "nodes"}]
    if unknown:
        raise UnknownWordError("environments", unknown[0], ["name", "frameworks", "device", "nodes"])
    words = data.get("frameworks") or data.get("name") or ""
    frameworks = []
    for word in words.split("+") if isinstance(words, str) else words:
        name, found, wanted = str(word).partition("==")
        frameworks.append(catalog.framework(name))
        if found:
            pins[frameworks[-1]] = wanted
    wanted_on = data.get("nodes")
    for node in wanted_on or ():
        if node not in names:
            raise UnknownWordError("nodes", str(node), names)
    name = str(data.get("name") or "-".join(frameworks))
    own = _one_of("device", str(data.get("device") or device), DEVICES)
    return Environment(name, tuple(dict.fromkeys(frameworks)), own, None if wanted_on is None else frozenset(wanted_on))


def _profile(
    catalog: Catalog, nodes: Sequence[Node], word: str, device: str, environments: list[Environment]
) -> list[tuple[list[Environment], dict[str, str], dict[str, str]]]:
    """Return environments, pins and Pythons beside them for each variant and Python of a profile that suits the nodes, the best first."""
    if not word:
        return [(environments, {}, {})]
    name, _colon, chosen = word.partition(":")
    if name not in catalog.profiles:
        raise UnknownWordError("profile", name, catalog.profiles)
    profile = catalog.profiles[name]
    variants = profile["variants"]
    if chosen and chosen not in variants:
        raise UnknownWordError("profile", word, [f"{name}:{variant}" for variant in variants])
    on_gpu = device != "cpu" and any(node.gpus for node in nodes)
    fitting = [key for key in variants if bool(variants[key].get("cuda")) == on_gpu]  # a GPU is never passed over in silence
    order = [chosen] if chosen else fitting or list(variants)
    beside = {catalog.framework(framework): str(python) for framework, python in (profile.get("python_beside") or {}).items()}
    made: list[tuple[list[Environment], dict[str, str], dict[str, str]]] = []
    for key in order:
        variant = variants[key]
        frameworks = variant.get("frameworks") or {}
        own = "" if variant.get("cuda") or not frameworks else "cpu"
        pins = {catalog.framework(framework): str(number) for framework, number in frameworks.items()}
        pins.update({pin: str(variant[pin]) for pin in ("cuda", "cudnn") if variant.get(pin)})
        wanted = environments or [Environment(framework, (catalog.framework(framework),), device or own) for framework in frameworks]
        made += [(wanted, {**pins, "python": python}, beside) for python in profile.get("python") or ()] or [(wanted, pins, beside)]
    return made


def _pin_name(catalog: Catalog, word: str) -> str:
    name = word.strip().lower()
    name = catalog.aliases.get(name, name)
    if name not in PINS and name not in catalog.frameworks:
        raise UnknownWordError("pin", word, [*PINS, *catalog.frameworks])
    return name


def _check_pin(catalog: Catalog, name: str, wanted: str) -> None:
    """Refuse a pin that no row fulfils: it is a slip of the finger rather than a wish."""
    try:
        specifier(wanted)
    except ValueError as error:
        raise ValueError(f"pin {name}: {error}.") from error
    if name in catalog.frameworks:
        known = [release.version for release in catalog.frameworks[name].releases]
    else:
        known = {
            "cuda": [row.line for row in catalog.cuda_lines] + [row.version for row in catalog.toolkits],
            "cudnn": [row.version for row in catalog.cudnns],
            "driver": [str(row.branch) for row in catalog.branches] + [row.newest for row in catalog.branches if row.newest],
            "python": list(catalog.pythons) + [system.python for system in catalog.systems.values()],
        }[name]
    if name != "driver" and not any(fits(number, wanted) for number in known):
        raise UnknownWordError(f"pin {name}", wanted, known)


def _one_of(what: str, word: str, allowed: Sequence[str]) -> str:
    if word not in allowed:
        raise UnknownWordError(what, word, [choice for choice in allowed if choice])
    return word
