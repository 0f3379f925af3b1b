# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Values that differ between distributions: which ones hold on a node, and whether Trainyard knows the node's system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class UnknownPlatformError(ValueError):
    """Nothing is known for a node's operating system; the text names what is."""


def known(platforms: Mapping[str, Any]) -> list[str]:
    """Return the platforms that a mapping covers, readable and sorted.

    A platform is covered when an entry of its own (``Debian_12``) says so, be it empty; entries without a version only
    hold what several have in common.
    """
    return sorted(key.replace("_", " ") for key in platforms if "_" in key)


def for_platform(platforms: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values for a node: those of its family, over them its distribution's, over them its release's.

    Raises:
        UnknownPlatformError: the release has no entry, or the facts do not say what it is.
    """
    distribution = str(facts.get("distribution") or "")
    release = f"{distribution}_{facts.get('distribution_major_version') or ''}"
    if not distribution:
        raise UnknownPlatformError("The node's operating system is not known: run the play with gather_facts: true.")
    if release not in platforms:
        raise UnknownPlatformError(
            f"The node runs {release.replace('_', ' ').strip()}, which Trainyard does not know. Known: {', '.join(known(platforms))}."
        )
    merged: dict[str, Any] = {}
    for key in (str(facts.get("os_family") or ""), distribution, release):
        merged.update(platforms.get(key) or {})
    return merged


def refusal(platforms: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any], untested: bool) -> str:
    """Say why nothing is done on a node's system; '' where it is one of the catalogue's that is tested, or is wanted all the same.

    Args:
        platforms: by distribution and major version, each with ``title``, ``codename`` and ``tested``.
        facts: the node's facts.
        untested: whether the inventory wants systems that no test ran on.
    """
    distribution, major = facts.get("distribution"), facts.get("distribution_major_version")
    row = platforms.get(f"{distribution}_{major}")
    # Between Ubuntu 24.04 and 24.10 the codename tells.
    if row is None or facts.get("distribution_release") not in {None, "", row["codename"]}:
        tested = ", ".join(str(platform["title"]) for platform in platforms.values() if platform["tested"])
        others = ", ".join(str(platform["title"]) for platform in platforms.values() if not platform["tested"])
        return (
            f"This node runs {distribution} {facts.get('distribution_version') or major}, which Trainyard does not know. Known: {tested}"
            + (f"; with trainyard_untested_platforms: true also {others}" if others else "")
            + ". Take the node out of the inventory, or install one of these on it."
        )
    if row["tested"] or untested:
        return ""
    return (
        f"This node runs {row['title']}, on which nothing of Trainyard ran yet. To try it all the same, set "
        "trainyard_untested_platforms: true for this node; else take it out of the inventory."
    )
