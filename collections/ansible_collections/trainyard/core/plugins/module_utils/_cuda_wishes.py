# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Which CUDA toolkits, cuDNN and NCCL an inventory means, where they come from, and what is wrong with a wish, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SOURCES = ("wheels", "distribution", "nvidia_repository")
LIBRARIES = {"cudnn": "cuDNN", "nccl": "NCCL"}
NONE = "none"
_VERSION = re.compile(r"^\d+\.\d+(\.\d+)?$")
_KEYS = ("version", "source", "cudnn", "nccl", "state")


@dataclass(frozen=True)
class Toolkit:
    """One toolkit as it is to be.

    Attributes:
        name: its line, such as 13.0, by which its folder is called.
        release: such as 13.0.2.
        source: one of SOURCES.
        libraries: release by library, cudnn and nccl; one that is not wanted is left out.
        present: whether it is to be there. One that goes has a name and nothing else.
    """

    name: str
    release: str = ""
    source: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)
    present: bool = True

    @property
    def major(self) -> str:
        """Return the major version of its CUDA."""
        return self.name.split(".", maxsplit=1)[0]

    def locks(self, architecture: str) -> list[str]:
        """Return the names of the locks that it is made from."""
        toolkit = [f"cuda-{self.release}-{architecture}.txt"] if self.source == "wheels" else []
        return toolkit + [f"{library}-{release}-cu{self.major}-{architecture}.txt" for library, release in self.libraries.items()]


@dataclass(frozen=True)
class Offer:
    """What can be had on a node.

    Attributes:
        wheels: ``toolkits``: releases; ``cudnn``, ``nccl``: release -> major version of CUDA -> wheel, the preferred release first.
        platforms: by distribution and major version: ``release`` of the distribution's own toolkit.
        known: the releases that the vendor made, the newest first, which its repository is believed to have.
        platform: the node's, such as Debian_12.
        architecture: the node's processor.
    """

    wheels: Mapping[str, Any]
    platforms: Mapping[str, Mapping[str, Any]]
    known: Sequence[str]
    platform: str
    architecture: str

    @staticmethod
    def of(wheels: Mapping[str, Any], platforms: Mapping[str, Any], known: Sequence[str], facts: Mapping[str, Any]) -> Offer:
        """Return what a node with these facts can have."""
        platform = f"{facts.get('distribution')}_{facts.get('distribution_major_version')}"
        return Offer(wheels, platforms, known, platform, str(facts.get("architecture") or ""))

    def releases(self, source: str) -> list[str]:
        """Return the releases of the toolkit that a source has."""
        if source == "nvidia_repository":
            return list(self.known)
        return list(self.wheels["toolkits"]) if source == "wheels" else [self.platforms[self.platform]["release"]]

    def release(self, version: str, source: str) -> str:
        """Return the release of a source that a version or line means, '' where it has none."""
        return next((one for one in self.releases(source) if version in (one, line(one))), "")

    def problems(self) -> list[str]:
        """Return why the node can have nothing at all."""
        node = self.platform.replace("_", " ")
        if self.platform not in self.platforms:
            known = " and ".join(sorted(name.replace("_", " ") for name in self.platforms))
            return [f"cuda_toolkits: they are made for {known}, and this node runs {node}. Leave the list empty for this node."]
        if self.architecture != "x86_64":
            return [
                f"cuda_toolkits: they are made for x86_64 only, and this node is {self.architecture}. Leave the list empty for this node."
            ]
        return []


def choose(wishes: Mapping[str, Any], offer: Offer) -> tuple[list[Toolkit], str, list[str]]:
    """Return the toolkits, the name of the default one ('' for none), and one sentence for each wish that cannot be had.

    Args:
        wishes: the variables of the role cuda without their prefix.
        offer: what the node can have.
    """
    problems = []
    if not str(wishes["path"]).startswith("/") or len(str(wishes["path"])) < 2:
        problems.append(f"cuda_path: '{wishes['path']}' is no folder; right is one such as /usr/local.")
    if wishes["source"] not in ("", *SOURCES):
        problems.append(_wrong_source("cuda_source", str(wishes["source"])))
    if problems:
        return [], "", problems
    toolkits: list[Toolkit] = []
    for entry in wishes["toolkits"]:
        toolkit, wrong = _toolkit(entry, wishes, offer)
        problems += wrong
        if toolkit and any(other.name == toolkit.name for other in toolkits):
            problems.append(
                f"cuda_toolkits: {toolkit.name} stands in it twice; there is one folder cuda-{toolkit.name}, so right is one of them."
            )
        elif toolkit:
            toolkits.append(toolkit)
    there = [toolkit.name for toolkit in toolkits if toolkit.present]
    default = line(str(wishes["default"]))
    if default in ("", NONE):
        return toolkits, there[0] if there and not default else "", list(dict.fromkeys(problems))
    if default not in there and not problems:
        known = f"{', '.join(there)}, " if there else ""
        problems.append(
            f"cuda_default: '{wishes['default']}' is none of cuda_toolkits; right are {known}'' (the first of them) and {NONE}."
        )
    return toolkits, default, list(dict.fromkeys(problems))


def _toolkit(entry: Any, wishes: Mapping[str, Any], offer: Offer) -> tuple[Toolkit | None, list[str]]:
    """Return the toolkit that an entry of the list means, None where it means none, and what is wrong with it."""
    data = dict(entry) if isinstance(entry, Mapping) else {"version": entry}
    version = str(data.get("version", ""))
    unknown = [str(key) for key in data if key not in _KEYS]
    if unknown or not _VERSION.match(version):
        what = f"'{unknown[0]}' in {entry}" if unknown else f"'{version}'"
        return None, [
            f"cuda_toolkits: {what} is not understood; right is a version such as '13.0' or '13.0.2', or a dict of {', '.join(_KEYS)}."
        ]
    state = data.get("state", "present")
    if state not in ("present", "absent"):
        return None, [f"cuda_toolkits: the state of {version} is '{state}'; right are present and absent."]
    if state == "absent":
        return Toolkit(line(version), present=False), []
    if offer.problems():
        return None, offer.problems()
    source = str(data.get("source", wishes["source"]))
    if source not in ("", *SOURCES):
        return None, [_wrong_source(f"cuda_toolkits: the source of {version}", source)]
    source = source or next((one for one in SOURCES if offer.release(version, one)), "")
    release = offer.release(version, source) if source else ""
    if not release:
        return None, [_no_such_release(version, source, offer)]
    name, problems, libraries = line(release), [], {}
    for library in LIBRARIES:
        variable = f"cuda_toolkits: {library} of {version}" if library in data else f"cuda_{library}"
        wanted = str(data.get(library, wishes[library]))
        found, problem = _library(library, wanted, name.split(".", maxsplit=1)[0], variable, offer)
        problems += problem
        if found:
            libraries[library] = found
    return Toolkit(name, release, source, libraries), problems


def _library(library: str, wanted: str, major: str, variable: str, offer: Offer) -> tuple[str, list[str]]:
    """Return the release of a library for a major version of CUDA, '' for none, and what is wrong with the wish."""
    known = [release for release, by_major in offer.wheels[library].items() if major in by_major]
    if wanted == NONE:
        return "", []
    if not wanted and known:
        return known[0], []
    if wanted in known:
        return wanted, []
    right = f"{', '.join(known)}, '' (the first of them) and {NONE}"
    return "", [f"{variable}: there is no {LIBRARIES[library]} {wanted} for CUDA {major}; right are {right}."]


def _no_such_release(version: str, source: str, offer: Offer) -> str:
    where = {"wheels": "from wheels", "distribution": f"from {offer.platform.replace('_', ' ')}"}
    if source not in where:  # the vendor's repository has what the vendor ever released, so that nobody else has more
        return f"cuda_toolkits: there is no CUDA {version} from any source; right {_are(offer.known)}."
    reason = " The wheels of CUDA before 13 hold no nvcc." if source == "wheels" and int(version.split(".", maxsplit=1)[0]) < 13 else ""
    elsewhere = next((f" With cuda_source: {one} it is {found}." for one in SOURCES if (found := offer.release(version, one))), "")
    return f"cuda_toolkits: there is no CUDA {version} {where[source]}; right {_are(offer.releases(source))}.{reason}{elsewhere}"


def _wrong_source(variable: str, source: str) -> str:
    return f"{variable}: '{source}' is none of {', '.join(SOURCES)}."


def line(version: str) -> str:
    """Return the line of a release: 13.0 of 13.0.2."""
    return ".".join(version.split(".")[:2])


def _are(words: Sequence[str]) -> str:
    return f"are {', '.join(words)}" if len(words) > 1 else f"is {words[0]}"
