# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Why wishes cannot be met together: the smallest set of them that clashes, and the nearest set that works."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import Catalog
from ansible_collections.trainyard.core.plugins.plugin_utils._plan import SOURCES, Environment, Node, Plan, Reason, Wishes
from ansible_collections.trainyard.core.plugins.plugin_utils._resolver import clashing, failures, solve

Key = tuple[str, ...]
"""Names one wish: ("pin", "cuda"), ("device", environment), ("framework", environment, framework) ..."""

COST = {"pin": 1, "gpus": 5, "policy": 1, "sources": 1, "modules": 1, "together": 2, "runfile": 3, "device": 3, "framework": 4}
"""Of equally many changes the cheaper ones are proposed: a dropped pin costs people less than a GPU or a framework."""
LIMIT = 300
"""How many sets of changes are tried before no nearest one is named."""


@dataclass(frozen=True)
class Wish:
    """One wish that can be given up: what it is, and what giving it up means, in words."""

    key: Key
    text: str
    change: str


@dataclass(frozen=True)
class Conflict:
    """Wishes of which each is needed for the clash, the nodes that have it, and what the rows say against it."""

    wishes: tuple[Wish, ...]
    nodes: tuple[str, ...]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Explanation:
    """All clashes, the fewest changes that end them (() where there are none that few), and the plan they lead to."""

    conflicts: tuple[Conflict, ...]
    changes: tuple[Wish, ...]
    wishes: Wishes | None
    plan: Plan | None


def explain(catalog: Catalog, nodes: Sequence[Node], wishes: Wishes, today: str) -> Explanation:
    """Explain why `solve` found no plan; the arguments are the same."""
    failing = [failure.nodes for failure in failures(catalog, nodes, wishes, today)]
    groups = list(dict.fromkeys(failing))
    every = all_wishes(catalog, nodes, wishes)
    clashes: list[tuple[Wish, ...]] = []
    conflicts: dict[tuple[Wish, ...], tuple[list[str], list[Reason]]] = {}
    for members in groups:
        clash = next((known for known in clashes if _is_smallest(catalog, members[:1], wishes, today, every, known)), None)
        if clash is None:
            clash = _smallest(catalog, members[:1], wishes, today, every, frozenset())
            clashes.append(clash)
        names, reasons = conflicts.setdefault(clash, ([], []))
        names.extend(node.name for node in members)
        for failure in failures(catalog, members[:1], _only(wishes, every, clash), today):
            reasons.extend(failure.reasons)
    changes = _nearest(catalog, [members[0] for members in groups], wishes, today, every, clashes)
    nearest = relaxed(wishes, {wish.key for wish in changes}) if changes else None
    plan = solve(catalog, nodes, nearest, today) if nearest else None
    return Explanation(
        tuple(Conflict(clash, tuple(names), tuple(dict.fromkeys(reasons))) for clash, (names, reasons) in conflicts.items()),
        changes,
        nearest,
        plan if isinstance(plan, Plan) else None,
    )


def all_wishes(catalog: Catalog, nodes: Sequence[Node], wishes: Wishes) -> list[Wish]:
    """Return everything that could be given up."""
    found = []
    for environment in wishes.environments:
        titles = [catalog.frameworks[name].title for name in environment.frameworks]
        for name, title in zip(environment.frameworks, titles, strict=True):
            where = "" if environment.name == name else f" in environment {environment.name}"
            found.append(Wish(("framework", environment.name, name), f"{title}{where}", f"leave out {title}{where}"))
        if len(titles) > 1:
            both = " and ".join(titles)
            found.append(Wish(("together", environment.name), f"{both} in one environment", f"give {both} an environment each"))
        if environment.device in {"", "gpu"}:
            text = f"{environment.name} on the GPU"
            found.append(Wish(("device", environment.name), text, f"let {environment.name} compute on the CPU where it cannot use the GPU"))
    for name, wanted in wishes.pins:
        title = catalog.frameworks[name].title if name in catalog.frameworks else {"cuda": "CUDA", "cudnn": "cuDNN"}.get(name, name)
        found.append(Wish(("pin", name), f"{title} {wanted}", f"give up {title} {wanted}"))
    if wishes.use_gpus and any(node.gpus for node in nodes):
        found.append(Wish(("gpus",), "the GPUs have a driver", "leave the GPUs without a driver"))
    if wishes.policy == "never":
        found.append(Wish(("policy",), "the driver is never changed", "let the driver be changed if needed"))
    if wishes.modules:
        found.append(Wish(("modules",), f"the {wishes.modules} kernel module", f"give up the {wishes.modules} kernel module"))
    if wishes.sources:
        names = " or ".join(wishes.sources)
        found.append(Wish(("sources",), f"drivers from {names} only", "let drivers come from anywhere"))
    elif any(node.gpus for node in nodes):
        way_out = "let drivers come from a runfile too (driver sources), and say which file it is"
        found.append(Wish(("runfile",), "drivers from packages only", way_out))
    return found


def relaxed(wishes: Wishes, given_up: Iterable[Key]) -> Wishes:
    """Return the wishes without some of them; each one given up only ever allows more."""
    keys = set(given_up)
    environments: list[Environment] = []
    for environment in wishes.environments:
        names = tuple(name for name in environment.frameworks if ("framework", environment.name, name) not in keys)
        device = "any" if ("device", environment.name) in keys else environment.device
        if not names:
            continue
        if ("together", environment.name) in keys and len(names) > 1:
            environments += [replace(environment, name=f"{environment.name}-{name}", frameworks=(name,), device=device) for name in names]
        else:
            environments.append(replace(environment, frameworks=names, device=device))
    return Wishes(
        tuple(environments),
        tuple((name, wanted) for name, wanted in wishes.pins if ("pin", name) not in keys),
        "if_needed" if ("policy",) in keys else wishes.policy,
        "" if ("modules",) in keys else wishes.modules,
        SOURCES if keys & {("sources",), ("runfile",)} else wishes.sources,
        wishes.use_gpus and ("gpus",) not in keys,
        wishes.pythons,
    )


def _only(wishes: Wishes, every: Sequence[Wish], kept: Iterable[Wish]) -> Wishes:
    return relaxed(wishes, {wish.key for wish in every} - {wish.key for wish in kept})


def _is_smallest(
    catalog: Catalog, nodes: Sequence[Node], wishes: Wishes, today: str, every: Sequence[Wish], clash: tuple[Wish, ...]
) -> bool:
    """Return whether wishes clash on these nodes, and no longer do without any one of them."""
    return clashing(catalog, nodes, _only(wishes, every, clash), today) and not any(
        clashing(catalog, nodes, _only(wishes, every, [wish for wish in clash if wish != one]), today) for one in clash
    )


def _smallest(
    catalog: Catalog, nodes: Sequence[Node], wishes: Wishes, today: str, every: Sequence[Wish], given_up: frozenset[Key]
) -> tuple[Wish, ...]:
    """Return wishes that clash and of which none can be left out.

    What clashes with the machine's driver alone, or with that and one more wish, is looked for first: no explanation is simpler. Else it is
    the shorter of the sets that are found by leaving out the dear and the cheap wishes first.
    """
    drivers = next((wish for wish in every if wish.key == ("gpus",) and wish.key not in given_up), None)
    for other in [None, *every] if drivers else []:
        kept = tuple(wish for wish in every if wish in (drivers, other) and wish.key not in given_up)
        if clashing(catalog, nodes, _only(wishes, every, kept), today):
            return kept
    found = []
    for sign in (-1, 1):
        away = set(given_up)
        for wish in sorted(every, key=lambda wish, sign=sign: sign * COST[wish.key[0]]):  # type: ignore[misc]
            if wish.key not in away and clashing(catalog, nodes, relaxed(wishes, away | {wish.key}), today):
                away.add(wish.key)
        found.append(tuple(wish for wish in every if wish.key not in away))
    return min(found, key=len)


def _nearest(
    catalog: Catalog,
    nodes: Sequence[Node],
    wishes: Wishes,
    today: str,
    every: Sequence[Wish],
    known: Iterable[tuple[Wish, ...]],
) -> tuple[Wish, ...]:
    """Return the fewest wishes to give up: whatever set it is, it takes one wish out of each clash (a hitting set)."""
    by_key = {wish.key: wish for wish in every}
    clashes = [frozenset(wish.key for wish in clash) for clash in known]
    queue: list[tuple[int, int, tuple[Key, ...]]] = [(0, 0, ())]
    seen: set[frozenset[Key]] = set()
    while queue and len(seen) < LIMIT:
        _count, _cost, keys = heapq.heappop(queue)
        given_up = frozenset(keys)
        if given_up in seen:
            continue
        seen.add(given_up)
        clash = next((keys for keys in clashes if not keys & given_up), None)
        if clash is None:
            if not clashing(catalog, nodes, relaxed(wishes, given_up), today):
                return tuple(by_key[key] for key in keys)
            clash = frozenset(wish.key for wish in _smallest(catalog, nodes, wishes, today, every, given_up))
            clashes.append(clash)
        for key in clash:
            more = tuple(sorted({*keys, key}))
            heapq.heappush(queue, (len(more), sum(COST[one[0]] for one in more), more))
    return ()
