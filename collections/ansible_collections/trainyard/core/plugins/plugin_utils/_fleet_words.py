# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""From an inventory's variables and the nodes' facts to a fleet and its wishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils._host import reported
from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import Catalog
from ansible_collections.trainyard.core.plugins.plugin_utils._plan import Node
from ansible_collections.trainyard.core.plugins.plugin_utils._words import node_of

PREFIX = "plan_"
FLEET_WIDE = ("pins", "profile", "device", "driver_policy", "driver_modules", "driver_sources")
"""Wishes that hold for all nodes, since one plan is made for all of them."""
NAMES = tuple(PREFIX + key for key in (*FLEET_WIDE, "environments", "os", "gpus", "driver", "kernel", "secure_boot"))
"""The variables of an inventory that are read here."""

LISTS = {"environments": "[pytorch, tensorflow]", "gpus": "[RTX 4090]", "driver_sources": "[distribution]"}
"""Those that are lists, with what would be right."""
GROUP = "gpu"
EXPECTED = PREFIX + "expected"
"""Whether a host has to have wishes; the playbooks' variables say so of the group gpu, unless the inventory says otherwise."""
NOTHING_WISHED = (
    "plan_environments: {} belongs to the group gpu, and nothing says what its GPUs are for. Say it in the inventory, such as "
    "plan_environments: [pytorch, tensorflow], or take it out of the group."
)


def wanted(host: Mapping[str, Any]) -> bool:
    """Return whether a host's variables want anything planned."""
    return any(host.get(PREFIX + key) for key in ("environments", "pins", "profile"))


def unwished(hosts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what is wrong where hosts have no wishes and have to have some, "" where nothing is."""
    names = [name for name, host in hosts.items() if host.get(EXPECTED) and not wanted(host)]
    return NOTHING_WISHED.format(", ".join(names)) if names else ""


def fleet(catalog: Catalog, hosts: Mapping[str, Mapping[str, Any]], *, offline: bool = False) -> tuple[list[Node], dict[str, Any]]:
    """Return the nodes and, as `wishes_of` takes them, what is wanted for them.

    Args:
        catalog: the rows.
        hosts: by the host's name its variables ``plan_*``, and what it said of itself: ``ansible_facts`` and ``gpu_info``.
        offline: the inventory's own words (``plan_os``, ``plan_gpus``, ``plan_driver``, ``plan_kernel``, ``plan_secure_boot``) stand for
            what the hosts would say.

    Raises:
        ValueError: a word means nothing, or hosts differ in what has to hold for all.
    """
    for name, host in hosts.items():
        _check(name, host)
    nodes = [_offline(catalog, name, host) if offline else _online(catalog, name, host) for name, host in hosts.items()]
    words: dict[str, Any] = {}
    for key in FLEET_WIDE:
        said = {name: host.get(PREFIX + key) or None for name, host in hosts.items()}
        different = [value for number, value in enumerate(said.values()) if value not in list(said.values())[:number]]
        if len(different) > 1:
            one, other = (next(name for name, value in said.items() if value == unlike) for unlike in different[:2])
            words_of = f"{one} has {different[0]!r} and {other} {different[1]!r}"
            raise ValueError(f"{PREFIX}{key}: {words_of}; it holds for all nodes, so it belongs into group_vars/all.")
        if different and different[0] is not None:
            words[key] = different[0]
    environments: dict[str, dict[str, Any]] = {}
    for name, host in hosts.items():
        for entry in host.get(f"{PREFIX}environments") or []:
            data = {"frameworks": entry} if isinstance(entry, str) else dict(entry)
            key = str(data.get("name") or data.get("frameworks"))
            known = environments.setdefault(key, {**data, "nodes": []})
            if {**known, "nodes": None} != {**data, "nodes": None}:
                raise ValueError(
                    f"{PREFIX}environments: {key} is not the same on {known['nodes'][0]} and {name}; give one of them another name."
                )
            known["nodes"].append(name)
    words["environments"] = list(environments.values())
    return nodes, words


def _check(name: str, host: Mapping[str, Any]) -> None:
    """Refuse values of another kind than they have to be, before any is taken apart."""
    for variable in NAMES:
        value = host.get(variable) or None
        expression = _expression(value)
        if expression:
            raise ValueError(
                f"{variable}: {name} has an expression, '{expression}', and the inventory is read as it stands here: only playbooks such "
                "as site.yml evaluate it. Write what it comes to."
            )
        right = LISTS.get(variable.removeprefix(PREFIX))
        if value is not None and right and not isinstance(value, list | tuple):
            raise ValueError(f"{variable}: {value!r} on {name} is no list; right is such as {right}.")
        if value is not None and variable == f"{PREFIX}pins" and not isinstance(value, Mapping):
            raise ValueError(f"{variable}: {value!r} on {name} is no mapping; right is such as {{cuda: '12.6'}}.")


def _expression(value: Any) -> str:
    """Return the first text in a value that Ansible would evaluate, "" where there is none."""
    if isinstance(value, str):
        return value if "{{" in value or "{%" in value else ""
    parts = [*value, *value.values()] if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return next((found for part in parts if (found := _expression(part))), "")


def _offline(catalog: Catalog, name: str, host: Mapping[str, Any]) -> Node:
    if not host.get(f"{PREFIX}os"):
        raise ValueError(f"{PREFIX}os: it is not known what {name} runs. Say it in the inventory, such as ubuntu-24.04.")
    driver, kernel = (str(host.get(PREFIX + key) or "") for key in ("driver", "kernel"))
    said = host.get(f"{PREFIX}secure_boot") or False
    if not isinstance(said, bool):  # "no" in quotes is a text, and so true in Python
        raise ValueError(f"{PREFIX}secure_boot: {said!r} on {name} is neither true nor false.")
    return _node(catalog, name, host[f"{PREFIX}os"], host.get(f"{PREFIX}gpus") or [], driver=driver, kernel=kernel, secure_boot=said)


def _online(catalog: Catalog, name: str, host: Mapping[str, Any]) -> Node:
    info = host.get("gpu_info") or {}
    system = _system(name, host.get("ansible_facts") or {})
    if not info or not system:
        raise ValueError(f"{name} has not said what it is: gather its facts and run trainyard.core.gpu_info first.")
    driver = (info.get("nvidia_smi") or {}).get("driver_version") or (info.get("modules") or {}).get("version") or ""
    driver = driver and reported.word(name, driver, "driver version")
    devices = [device["device"] for device in info.get("pci") or [] if not device.get("virtual_function")]
    gpus = [f"10de:{reported.word(name, device, 'GPU')}" for device in devices]
    kernel = (info.get("kernels") or {}).get("next") or ""  # none where none could be booted, as in a container
    kernel = kernel and reported.kernel(name, kernel)
    flavour = (info.get("modules") or {}).get("flavour") or ""
    flavour = flavour and reported.word(name, flavour, "flavour of the driver's modules")
    signed_only = info.get("secure_boot") == "enabled"
    return _node(catalog, name, system, gpus, driver=driver, kernel=kernel, secure_boot=signed_only, flavour=flavour)


def _node(catalog: Catalog, name: str, system: str, gpus: Sequence[str], **more: Any) -> Node:
    try:
        return node_of(catalog, name, str(system), [str(gpu) for gpu in gpus], **more)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _system(name: str, facts: Mapping[str, Any]) -> str:
    distribution, full = str(facts.get("distribution") or ""), str(facts.get("distribution_version") or "")
    if not distribution:
        return ""
    system = f"{distribution}-{full if distribution == 'Ubuntu' else facts.get('distribution_major_version') or full}".lower()
    return reported.word(name, system, "distribution")
