# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""What fits together on all nodes of a play, or why it does not: what the filter and the action of that name share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.trainyard.core.plugins.plugin_utils import _catalog_files
from ansible_collections.trainyard.core.plugins.plugin_utils._fleet_words import EXPECTED, NAMES, fleet, unwished, wanted
from ansible_collections.trainyard.core.plugins.plugin_utils._locked import locks_of, with_locked_libraries
from ansible_collections.trainyard.core.plugins.plugin_utils._plan_data import conflict_sentences, plan_data, unlocked_sentences
from ansible_collections.trainyard.core.plugins.plugin_utils._words import answer


def fleet_plan(
    hostvars: Mapping[str, Any], *, hosts: Sequence[str], catalogue: str, environments: Mapping[str, Any], locks: str, month: str
) -> dict[str, Any]:
    """Return the plan for some hosts, or the sentences that say why there is none.

    Args:
        hostvars: the variables of all hosts.
        hosts: the names of those to plan for.
        catalogue: folder of the resolver's rows.
        environments: ``catalog_environments``.
        locks: folder of their locks.
        month: such as "2026-11"; it decides which driver branches nobody looks after any more.
    """
    every = {name: {key: hostvars[name][key] for key in (*NAMES, EXPECTED) if key in hostvars[name]} for name in hosts}
    known = {name: host for name, host in every.items() if wanted(host)}
    if unwished(every):
        return {"problems": [unwished(every)], "plan": {}}
    if not known:
        return {"problems": [], "plan": {}}
    for name, host in known.items():
        host["ansible_facts"] = hostvars[name].get("ansible_facts") or {}
        host["gpu_info"] = (hostvars[name].get("plan_gpu_info_result") or {}).get("gpu_info") or {}
    rows = with_locked_libraries(_catalog_files.load(catalogue), locks)
    locked = locks_of(environments, locks)
    try:
        found = answer(rows, *fleet(rows, known), month, locked)
    except ValueError as error:
        return {"problems": [str(error)], "plan": {}}
    if found.explanation:
        return {"problems": conflict_sentences(found.explanation), "plan": {}}
    plan = plan_data(rows, found.plan, locked) if found.plan else {}
    return {"problems": unlocked_sentences(plan, locked), "plan": plan}
