# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Which driver a wish means on a platform and from a source, and what is wrong with a wish, in words."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _platform

SOURCES = ("distribution", "nvidia_repository", "runfile")
FIRST_OPEN_BRANCH = 515
_KERNEL = re.compile(r"[a-z0-9][a-z0-9+.-]+\Z")
_VERSION = re.compile(r"\d{3}\.\d{2,3}(\.\d{2})?\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def problems(
    wishes: Mapping[str, Any], platforms: Mapping[str, Any], facts: Mapping[str, Any], catalogue: Mapping[str, Any] | None = None
) -> list[str]:
    """Return one sentence for each wish that cannot be had, naming the variable and what would be right.

    Args:
        wishes: the variables of the role nvidia_driver without their prefix.
        platforms: by distribution and major version, such as ``Debian_12``: ``branches``, branch -> modules -> packages; by distribution
            what its releases have in common.
        facts: the node's facts.
        catalogue: the catalogue's platforms, which says what is tested; empty where it was not loaded.
    """
    found = []
    source = wishes["source"]
    if source not in SOURCES:
        return [f"nvidia_driver_source: {source!r} is none of {', '.join(SOURCES[:-1])} and {SOURCES[-1]}."]
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
        *most, last = _platform.known(platforms)
        known = f"{', '.join(most)} and {last}"
        return [
            *found,
            f"nvidia_driver_source: {source!r} is made for {known}, and this node runs {key.replace('_', ' ')}. "
            "Take the node out of the play, or install one of these on it.",
        ]
    if facts.get("architecture") != "x86_64":
        found.append(f"nvidia_driver_source: {source!r} is made for x86_64 only, and this node is {facts.get('architecture')}.")
    refused = _platform.refusal(catalogue, facts, bool(wishes["untested_platforms"])) if catalogue else ""
    if refused:
        return [*found, refused]
    platform = _platform.for_platform(platforms, facts)
    sources = platform.get("sources", SOURCES)
    if source not in sources:
        found.append(
            f"nvidia_driver_source: {source!r} is not made for {key.replace('_', ' ')} yet; right is {' or '.join(sources)} "
            "(in a plan: plan_driver_sources)."
        )
        return found
    if source == "distribution":
        return found + _of_distribution(wishes, platform["branches"], key.replace("_", " "))
    found += _of_vendor(wishes)
    return found + (_of_runfile(wishes) if source == "runfile" else _of_repository(wishes, key))


def _of_distribution(wishes: Mapping[str, Any], branches: Mapping[int, Mapping[str, Any]], name: str) -> list[str]:
    if wishes["version"]:
        return [
            f"nvidia_driver_version: within a branch, {name} decides; right is '', or nvidia_driver_source: nvidia_repository or runfile."
        ]
    branch = int(wishes["branch"]) or next(iter(branches))
    if branch not in branches:
        known = ", ".join(str(one) for one in branches)
        return [f"nvidia_driver_branch: {name} has no packages of branch {branch}; right are {known}, and 0 for the first of them."]
    if wishes["modules"] in {"open", "proprietary"} and wishes["modules"] not in branches[branch]["modules"]:
        others = [str(one) for one, row in branches.items() if wishes["modules"] in row["modules"]]
        way_out = f"set nvidia_driver_branch to {' or '.join(others)}" if others else "no branch of it has them"
        right = " or ".join(branches[branch]["modules"])
        return [
            f"nvidia_driver_modules: {name} has no {wishes['modules']} modules that fit its branch {branch}; right is {right} ({way_out})."
        ]
    return []


def _of_vendor(wishes: Mapping[str, Any]) -> list[str]:
    """Judge what both sources of the vendor need: nothing is guessed there."""
    found = []
    source, branch, version = wishes["source"], int(wishes["branch"]), str(wishes["version"])
    if version and not _VERSION.match(version):
        found.append(f"nvidia_driver_version: {version!r} is no version of a driver; right is such as 580.95.05.")
    elif version and branch and not version.startswith(f"{branch}."):
        found.append(f"nvidia_driver_version: {version} is not of the branch {branch} that nvidia_driver_branch says.")
    if not branch:
        found.append(f"nvidia_driver_branch: {source!r} has many branches; right is the one that the plan chose, such as 580.")
    if not wishes["modules"]:
        found.append(
            f"nvidia_driver_modules: {source!r} has both flavours; right is open for Turing and newer GPUs, proprietary for older ones, "
            "as the plan says."
        )
    elif wishes["modules"] == "open" and 0 < branch < FIRST_OPEN_BRANCH:
        found.append(f"nvidia_driver_modules: branch {branch} has no open modules; right is proprietary.")
    return found


def _of_repository(wishes: Mapping[str, Any], key: str) -> list[str]:
    repository = wishes["repository"]
    if not repository.get("url") and key not in repository.get("urls", {}):
        known = ", ".join(name.replace("_", " ") for name in repository.get("urls", {}))
        return [f"nvidia_driver_repository: no address is known for {key.replace('_', ' ')}, only for {known}; right is {{url: ...}}."]
    return []


def _of_runfile(wishes: Mapping[str, Any]) -> list[str]:
    found = []
    where, digest = str(wishes["runfile"]), str(wishes["runfile_sha256"])
    if not re.match(r"(https?://[^/\s]+|file:)?/\S+\Z", where):
        found.append(
            f"nvidia_driver_runfile: {where!r} is no place of a file; right is a URL, file:/PATH on the node, or a path on the controller."
        )
    if not _SHA256.match(digest):
        found.append(
            f"nvidia_driver_runfile_sha256: {digest!r} is no SHA-256; right are the 64 hexadecimal digits that the vendor publishes."
        )
    if not wishes["version"]:
        found.append("nvidia_driver_version: a runfile holds one version, which has to be named; right is such as 580.95.05.")
    return found


def choice(
    wishes: Mapping[str, Any],
    platform: Mapping[str, Any],
    vendor: Mapping[str, Mapping[str, Any]],
    kernels: Collection[str] = (),
    offered: Collection[str] = (),
) -> dict[str, Any]:
    """Return the driver that a wish means: branch, flavour, packages and their versions, and those of all others that must not stay beside.

    Args:
        wishes: as for `problems`, which has to have found none.
        platform: what the distribution has on the node's platform.
        vendor: what each of the vendor's sources consists of, by source.
        kernels: the node's kernels that can be started.
        offered: packages of ``prebuilt`` that apt could install.
    """
    source = wishes["source"]
    branches = {number: _filled(row, branch=number) for number, row in platform["branches"].items()}
    branch = int(wishes["branch"]) or next(iter(branches))
    row = branches[branch] if source == "distribution" else vendor[source]
    modules = wishes["modules"] or next(iter(row["modules"]))
    optional = list(row.get("optional", []))
    own = [*row["modules"][modules], *row["packages"]]
    version = f"{wishes['version'] or branch}{'-' if wishes['version'] else '.'}*"
    pinned = source == "nvidia_repository"
    further = [str(name) for name in wishes["kernels"]]

    images, headers = ({name: f"linux-{part}-{name}" for name in platform["kernels"]} for part in ("image", "headers"))
    prebuilt = row.get("prebuilt", {}).get(modules, "")
    ready = {name: _filled(prebuilt, kernel=name) for name in [*kernels, *further, *platform["kernels"]]} if prebuilt else {}
    needed = [ready[name] for name in [*kernels, *further] if name in ready]
    lacking = [name for name in needed if name not in offered]
    built = not needed or bool(lacking)
    if built:
        packages = [*own, *(f"linux-headers-{name}" for name in further)]
        beside = headers
    else:
        own = [*needed, *row["packages"]]
        packages = own
        beside = {name: ready[name] for name in platform["kernels"] if ready[name] in offered}

    others = {
        name
        for other in [*branches.values(), row]
        for name in [other["anchor"], *(one for flavour in other["modules"].values() for one in flavour)]
        if name
    }
    held = [] if source == "runfile" else [*own, *optional, *([] if built else [_filled(prebuilt, kernel="*")])]
    return {
        "branch": branch,
        "modules": modules,
        "packages": packages,
        "optional": [*optional, *(f"linux-headers-{name}" for name in (kernels if built else ()))],
        "beside": {images[name]: package for name, package in beside.items()},
        "held": [*held, *images.values(), *headers.values()],
        "versions": dict.fromkeys([*own, *optional], version) if pinned else {},
        "pins": [{"packages": list(row["pinned"]), "version": version}] if pinned else [],
        "replaces": [] if source == "runfile" else [*sorted(others - {row["anchor"], *own}), *platform.get("rivals", [])],
        "prebuilt": list(dict.fromkeys(ready.values())),
        "lacking": lacking,
        "built": built,
    }


def _filled(value: Any, **words: Any) -> Any:
    """Return a row with the placeholders in its texts filled in, such as ``{branch}``."""
    if isinstance(value, Mapping):
        return {key: _filled(one, **words) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_filled(one, **words) for one in value]
    for name, word in words.items():
        value = value.replace(f"{{{name}}}", str(word))
    return value
