# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""The environments that are locked: what a plan prefers, since nothing else can be installed exactly as it was tested."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import Build, Catalog, Framework
from ansible_collections.trainyard.core.plugins.plugin_utils._plan import Placed

LIBRARY = re.compile(r"(cudnn|nccl)-(.+)-cu(\d+)-x86_64")
"""Names of the locks of what toolkits are given."""
CUDNN = re.compile(r"^nvidia-cudnn-cu\d+==(\d+\.\d+\.\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Lock:
    """One variant of one of the catalogue's environments.

    ``cudnn``: the version in it, "" for none. ``origin``: where all of it is from: wheels, frozen (an older system), or conda.
    """

    environment: str
    variant: str
    requirements: frozenset[str]
    pythons: tuple[str, ...]
    cudnn: str
    origin: str = "wheels"

    @property
    def name(self) -> str:
        """Return what its files are named after."""
        return f"{self.environment}-{self.variant}"

    def has(self, build: Build) -> bool:
        """Return whether a build of a framework is in it."""
        return build.requirement in self.requirements and (bool(build.follows) or build.origin == self.origin)


def locks_of(environments: Mapping[str, Any], folder: str) -> tuple[Lock, ...]:
    """Return the locks of the catalogue's frameworks, whose files lie in a folder.

    Args:
        environments: ``catalog_environments``.
        folder: with the files that ``tools/lock_envs.py`` wrote.
    """
    found = []
    for name, data in environments.items():
        for variant, row in data["variants"].items() if data["kind"] == "framework" else ():
            if "frozen" in row:
                requirements = frozenset([*row["frozen"]["packages"], *row.get("requirements", [])])
                found.append(Lock(name, variant, requirements, tuple(row["pythons"]), "", "frozen"))
                continue
            if "conda" in row:
                found.append(Lock(name, variant, frozenset(row["conda"]["packages"]), tuple(row["pythons"]), "", "conda"))
                continue
            files = sorted(Path(folder).glob(f"{name}-{variant}-cp*.txt"))
            cudnn = CUDNN.search(files[0].read_text()) if files else None
            found.append(Lock(name, variant, frozenset(row["requirements"]), tuple(row["pythons"]), cudnn[1] if cudnn else ""))
    return tuple(found)


def with_locked_libraries(catalog: Catalog, folder: str) -> Catalog:
    """Return the catalogue with nothing for toolkits but the locked releases of cuDNN and NCCL: the role cuda brings no others.

    Args:
        catalog: the rows.
        folder: with the files that ``tools/lock_envs.py`` wrote.
    """
    names = [LIBRARY.fullmatch(path.stem) for path in Path(folder).glob("*-cu*.txt")]
    return replace(catalog, libraries=frozenset((name[1], name[2], int(name[3])) for name in names if name))


def locked_frameworks(catalog: Catalog, locks: Sequence[Lock]) -> list[str]:
    """Return the frameworks that any lock has a build of."""
    return [name for name, framework in catalog.frameworks.items() if _locked(framework, locks).releases]


def restricted(catalog: Catalog, locks: Sequence[Lock], frameworks: Iterable[str]) -> Catalog:
    """Return the catalogue with nothing but locked builds of some frameworks."""
    changed = {name: _locked(catalog.frameworks[name], locks, catalog.pythons) for name in frameworks}
    return replace(catalog, frameworks={**catalog.frameworks, **changed}, memory={})


def lock_for(locks: Iterable[Lock], placed: Placed) -> Lock | None:
    """Return the lock that brings an environment, the one with the least beside it; None where none does."""
    builds = [choice.build for choice in placed.wheels.choices]
    fitting = [
        lock
        for lock in locks
        if all(map(lock.has, builds)) and placed.python in lock.pythons and (lock.origin == "conda") == (placed.python_from == "conda")
    ]
    return min(fitting, key=lambda lock: len(lock.requirements), default=None)


def _locked(framework: Framework, locks: Sequence[Lock], pythons: Sequence[str] = ()) -> Framework:
    releases = []
    for release in framework.releases:
        builds = [(build, [lock for lock in locks if lock.has(build)]) for build in release.builds]
        kept = tuple(_as_locked(build, having) for build, having in builds if having)
        if kept:
            allowed = {python for _build, having in builds for lock in having for python in lock.pythons}
            others = "".join(f",!={python}.*" for python in pythons if python not in allowed)
            releases.append(replace(release, python=release.python + others, builds=kept))
    return replace(framework, releases=tuple(releases))


def _as_locked(build: Build, locks: Sequence[Lock]) -> Build:
    """Return a build with the cuDNN that was locked rather than the range that its wheels allow."""
    versions = {lock.cudnn for lock in locks if lock.cudnn}
    return replace(build, cudnn=f"=={versions.pop()}.*") if build.cudnn and len(versions) == 1 else build
