# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Values that differ between distributions: which ones hold on a node."""

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
