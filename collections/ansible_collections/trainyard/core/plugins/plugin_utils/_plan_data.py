# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Plans and explanations as plain data: what the filter returns and what ``--json`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.trainyard.core.plugins.plugin_utils._conflict import Explanation, Wish
from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import Catalog, DriverSource, dotted
from ansible_collections.trainyard.core.plugins.plugin_utils._locked import Lock, lock_for
from ansible_collections.trainyard.core.plugins.plugin_utils._plan import Driver, NodePlan, Placed, Plan, Reason

NONE = "none"
"""What is said where a toolkit gets no cuDNN or NCCL: to the role cuda an empty text would be the first one that it has."""


def plan_data(catalog: Catalog, plan: Plan, locks: Sequence[Lock] = ()) -> dict[str, Any]:
    """Return a plan: per node its driver, CUDA toolkits and environments, each with reasons; then the view over the fleet.

    With ``locks``, each node names those that bring its environments.
    """
    return {
        "nodes": {node.node.name: _node(catalog, node, locks) for node in plan.nodes},
        "fleet": {
            "environments": {name: fleet_view(plan, name) for name in _names(plan)},
            "held_back": [
                {
                    "environment": one.environment,
                    "by": list(one.nodes),
                    "now": list(one.now.requirements),
                    "could_be": list(one.could_be.requirements),
                }
                for one in plan.held_back
            ],
            "split": list(plan.split),
        },
    }


def explanation_data(catalog: Catalog, explanation: Explanation) -> dict[str, Any]:
    """Return why there is no plan: each smallest set of clashing wishes, and the nearest set that works."""
    return {
        "conflicts": [
            {"wishes": [wish.text for wish in one.wishes], "nodes": list(one.nodes), "reasons": _reasons(one.reasons)}
            for one in explanation.conflicts
        ],
        "nearest": {
            "changes": [wish.change for wish in explanation.changes],
            "plan": plan_data(catalog, explanation.plan) if explanation.plan else None,
        },
    }


def conflict_sentences(explanation: Explanation) -> list[str]:
    """Return the clashes and the way out, a sentence each."""
    made = []
    for one in explanation.conflicts:
        because = "; ".join(str(reason) for reason in one.reasons[:4])
        made.append(f"On {_some(one.nodes)} these cannot be had together: {_list(one.wishes)}. Because {because}.")
    if explanation.changes:
        made.append(f"The nearest that works: {', and '.join(wish.change for wish in explanation.changes)}.")
    return made


def unlocked_sentences(plan: Mapping[str, Any], locks: Iterable[Lock]) -> list[str]:
    """Return a sentence for each environment of a plan (as `plan_data` gives it) that no lock brings, and what of the plan can be had."""
    where: dict[tuple[str, str], list[str]] = {}
    to_be_had: dict[str, None] = {}
    for node, data in plan["nodes"].items():
        locked = {lock["name"] for lock in data["locks"]}
        for name, placed in data["environments"].items():
            if name in locked:
                to_be_had[name] = None
                continue
            what = f"{', '.join(placed['requirements'])} for Python {placed['python']}"
            why = f": {placed['unlocked']}" if placed["unlocked"] else ""
            where.setdefault((name, f"{what}, which is not locked, so it cannot be installed as tested{why}"), []).append(node)
    known = ", ".join(lock.name for lock in locks)
    rest = [name for name in to_be_had if name not in {name for name, _what in where}]
    take_out = f"Take it out (plan_environments: [{', '.join(rest)}])" if rest else "Take it out"
    return [
        f"plan_environments: {name} on {_some(tuple(nodes))} comes to {what}. {take_out}, or add it to the catalogue's environments "
        f"and run tools/lock_envs.py. Locked are: {known}."
        for (name, what), nodes in where.items()
    ]


def fleet_view(plan: Plan, name: str) -> list[dict[str, Any]]:
    """Return the wheel sets of an environment, each with the nodes that get it."""
    found: dict[tuple[str, ...], list[str]] = {}
    for node in plan.nodes:
        for placed in node.environments:
            if placed.environment == name:
                found.setdefault(placed.wheels.requirements, []).append(node.node.name)
    return [{"requirements": list(requirements), "nodes": nodes} for requirements, nodes in found.items()]


def _names(plan: Plan) -> list[str]:
    return list(dict.fromkeys(placed.environment for node in plan.nodes for placed in node.environments))


def _node(catalog: Catalog, plan: NodePlan, locks: Sequence[Lock]) -> dict[str, Any]:
    driver = plan.driver
    found = {placed.environment: lock_for(locks, placed) for placed in plan.environments}
    return {
        "os": plan.node.system.name,
        "kernel": plan.node.kernel,
        "gpus": [
            {"name": gpu.name, "architecture": gpu.architecture.name, "compute_capability": dotted(gpu.capability)}
            for gpu in plan.node.gpus
        ],
        "driver": None
        if driver is None
        else {
            "branch": driver.branch.branch,
            "version": driver.version,
            "modules": driver.modules,
            "source": driver.source,
            "sources": [source.name for source in plan.node.system.sources if _may_be_from(driver, source)],
            "signed_modules": driver.signed,
            "keep": driver.source == "installed",
        },
        "toolkits": [{"version": row.release.version, "cudnn": row.cudnn or NONE, "nccl": row.nccl or NONE} for row in plan.toolkits],
        "environments": {placed.environment: _placed(catalog, placed) for placed in plan.environments},
        "locks": [
            {"name": name, "environment": lock.environment, "variant": lock.variant, "lock": lock.name}
            for name, lock in found.items()
            if lock
        ],
        "warnings": list(plan.warnings),
        "reasons": _reasons(plan.reasons),
    }


def _may_be_from(driver: Driver, source: DriverSource) -> bool:
    """Return whether a source is a driver's, or an installed one's as far as anybody knows: the vendor's sources had each once."""
    if driver.source != "installed":
        return driver.source == source.name
    offer = source.offer(driver.branch)
    return source.branches is None or (offer is not None and driver.modules in offer[1])


def _placed(catalog: Catalog, placed: Placed) -> dict[str, Any]:
    wheels = placed.wheels
    indexes = {name: catalog.indexes.get(name, "") for choice in wheels.choices if (name := choice.build.index)}
    return {
        "device": wheels.device,
        "versions": dict(wheels.versions),
        "builds": {choice.release.framework: choice.build.name for choice in wheels.choices},
        "requirements": list(wheels.requirements),
        "indexes": indexes,
        "unlocked": next((choice.release.unlocked for choice in wheels.choices if choice.release.unlocked), ""),
        "frozen": next((choice.build.frozen for choice in wheels.choices if choice.build.frozen), ""),
        "python": placed.python,
        "python_from": placed.python_from,
        "cuda": wheels.cuda,
        "cudnn": wheels.cudnn,
        "bundled": wheels.bundled,
        "warnings": list(placed.warnings),
        "reasons": _reasons(placed.reasons),
    }


def _reasons(reasons: Iterable[Reason]) -> list[dict[str, str]]:
    return [
        {
            "text": str(reason),
            **({"source": reason.fact.source, "seen": reason.fact.seen, "trust": reason.fact.trust} if reason.fact else {}),
        }
        for reason in reasons
    ]


def _list(wishes: Iterable[Wish]) -> str:
    texts = [wish.text for wish in wishes]
    return f"{', '.join(texts[:-1])} and {texts[-1]}" if len(texts) > 1 else "".join(texts)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
