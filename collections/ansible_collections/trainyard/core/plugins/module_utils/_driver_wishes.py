# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Which driver packages a wish means on a platform, and what is wrong with a wish, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_KERNEL = re.compile(r"[a-z0-9][a-z0-9+.-]+\Z")


def problems(wishes: Mapping[str, Any], platforms: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each wish that cannot be had, naming the variable and what would be right.

    Args:
        wishes: the variables of the role nvidia_driver without their prefix.
        platforms: by distribution and major version, such as ``Debian_12``: ``branches``, branch -> modules -> packages.
        facts: the node's facts.
    """
    found = []
    if wishes["source"] != "distribution":
        found.append(f"nvidia_driver_source: {wishes['source']!r} cannot be had yet; right is 'distribution'.")
    if wishes["reboot"] not in {"never", "if_idle", "now"}:
        found.append(f"nvidia_driver_reboot: {wishes['reboot']!r} is none of never, if_idle and now.")
    if wishes["modules"] not in {"", "open", "proprietary"}:
        found.append(
            f"nvidia_driver_modules: {wishes['modules']!r} is none of proprietary, open and '' (whichever the distribution prefers)."
        )
    found += [
        f"nvidia_driver_kernels: {name!r} is no kernel; "
        "right is what follows linux-headers- in a package's name, such as 6.1.0-40-amd64 or amd64."
        for name in map(str, wishes["kernels"])
        if not _KERNEL.match(name)
    ]
    key = f"{facts.get('distribution')}_{facts.get('distribution_major_version')}"
    if key not in platforms:
        known = " and ".join(sorted(name.replace("_", " ") for name in platforms))
        return [
            *found,
            f"nvidia_driver_source: 'distribution' is made for {known}, and this node runs {key.replace('_', ' ')}. "
            "Take the node out of the play, or install one of these on it.",
        ]
    if facts.get("architecture") != "x86_64":
        found.append(f"nvidia_driver_source: 'distribution' is made for x86_64 only, and this node is {facts.get('architecture')}.")
    branches: Mapping[int, Mapping[str, Any]] = platforms[key]["branches"]
    name = key.replace("_", " ")
    branch = int(wishes["branch"]) or next(iter(branches))
    if branch not in branches:
        known = ", ".join(str(one) for one in branches)
        found.append(f"nvidia_driver_branch: {name} has no packages of branch {branch}; right are {known}, and 0 for the first of them.")
    elif wishes["modules"] in {"open", "proprietary"} and wishes["modules"] not in branches[branch]["modules"]:
        others = [str(one) for one, row in branches.items() if wishes["modules"] in row["modules"]]
        way_out = f"set nvidia_driver_branch to {' or '.join(others)}" if others else "no branch of it has them"
        right = " or ".join(branches[branch]["modules"])
        found.append(
            f"nvidia_driver_modules: {name} has no {wishes['modules']} modules that fit its branch {branch}; right is {right} ({way_out})."
        )
    return found


def choice(wishes: Mapping[str, Any], branches: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the driver that a wish means: branch, flavour, its packages, and those of all others that must not stay beside it.

    Args:
        wishes: as for `problems`, which has to have found none.
        branches: those of the node's platform.
    """
    branch = int(wishes["branch"]) or next(iter(branches))
    row = branches[branch]
    modules = wishes["modules"] or next(iter(row["modules"]))
    packages = [*row["modules"][modules], *row["packages"]]
    others = {
        name
        for other in branches.values()
        for name in [other["anchor"], *(one for flavour in other["modules"].values() for one in flavour)]
    }
    return {"branch": branch, "modules": modules, "packages": packages, "replaces": sorted(others - {row["anchor"], *packages})}
