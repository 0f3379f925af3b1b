# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Packages of a repository laid out in a folder without being installed: which ones, in which versions, and whether they are whole.

Starting from one package, those of its dependencies are followed whose names fit a pattern, so that nothing else is ever fetched. Of each,
the oldest version is taken that all who need it accept: it is the one that the first package was released with.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORD = ".trainyard-packages.json"
_NEED = re.compile(r"^\s*(?P<name>[a-z0-9][a-z0-9+.-]+)(?::\w+)?\s*(?:\(\s*(?P<how><<|<=|=|>=|>>)\s*(?P<version>[^\s)]+)\s*\))?")

Compare = Callable[[str, str, str], bool]
"""Says whether one version stands to another as ``<<``, ``<=``, ``=``, ``>=`` or ``>>`` says."""


class PackageTreeError(Exception):
    """Something that a person has to put right; the text says what."""


@dataclass(frozen=True)
class Offer:
    """One version of a package, as a repository offers it.

    Attributes:
        name: the package.
        version: its version.
        needs: what it depends on, each a list of alternatives ``(name, how, version)``; without a version the last two are empty.
        archive: bytes of its archive.
        installed: bytes of its files.
    """

    name: str
    version: str
    needs: tuple[tuple[tuple[str, str, str], ...], ...] = ()
    archive: int = 0
    installed: int = 0


@dataclass(frozen=True)
class Wanted:
    """A tree as it is to be.

    Attributes:
        name: name of its folder.
        present: whether it is to be there.
        package: the package that it starts from.
        version: that package's version, which may hold ``*``.
        follow: patterns of the names of dependencies that belong to it.
        without: patterns of names that do not, although they fit those.
    """

    name: str
    present: bool = True
    package: str = ""
    version: str = "*"
    follow: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def wish(self) -> dict[str, Any]:
        """Return what the tree's record says of it."""
        return {"package": self.package, "version": self.version, "follow": list(self.follow), "without": list(self.without)}

    def has(self, name: str) -> bool:
        """Say whether a dependency belongs to it."""
        fits = any(fnmatch.fnmatchcase(name, one) for one in self.follow)
        return fits and not any(fnmatch.fnmatchcase(name, one) for one in self.without)


def parse_offers(output: str) -> dict[str, list[Offer]]:
    """Read ``apt-cache show``: package -> its versions, in the order of the output."""
    found: dict[str, list[Offer]] = {}
    for text in re.split(r"\n\s*\n", output):
        fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", text, re.M))
        if not {"Package", "Version", "Filename"} <= set(fields):
            continue
        offer = Offer(
            fields["Package"],
            fields["Version"],
            parse_needs(", ".join(fields[one] for one in ("Pre-Depends", "Depends") if fields.get(one))),
            int(fields.get("Size", "0")),
            int(fields.get("Installed-Size", "0")) * 1024,
        )
        versions = found.setdefault(offer.name, [])
        if all(one.version != offer.version for one in versions):
            versions.append(offer)
    return found


def parse_needs(text: str) -> tuple[tuple[tuple[str, str, str], ...], ...]:
    """Read a field of dependencies."""
    groups = []
    for group in text.split(","):
        matches = [match for match in map(_NEED.match, group.split("|")) if match]
        if matches:
            groups.append(tuple((match["name"], match["how"] or "", match["version"] or "") for match in matches))
    return tuple(groups)


def select(wanted: Wanted, offers: Callable[[Sequence[str]], Mapping[str, Sequence[Offer]]], compare: Compare) -> list[Offer]:
    """Return the packages of a tree, sorted by name.

    Args:
        wanted: the tree.
        offers: asks what there is of some packages.
        compare: compares versions.

    Raises:
        PackageTreeError: the first package is not there in the wanted version, or one that it needs is not there.
    """
    known: dict[str, Sequence[Offer]] = dict(offers([wanted.package]))
    first = [one for one in known.get(wanted.package, ()) if fnmatch.fnmatchcase(one.version, wanted.version)]
    if not first:
        there = ", ".join(one.version for one in known.get(wanted.package, ())) or "none"
        raise PackageTreeError(f"{wanted.package} has to have the version {wanted.version}, and there is no such one (known are {there}).")
    chosen = {wanted.package: _edge(first, compare, newest=True)}
    while True:
        limits: dict[str, list[tuple[str, str, str]]] = {}
        for offer in chosen.values():
            for group in offer.needs:
                need = next((one for one in group if wanted.has(one[0])), None)
                if need:
                    limits.setdefault(need[0], []).append((offer.name, need[1], need[2]))
        unknown = sorted(set(limits) - set(known))
        if unknown:
            known.update(dict.fromkeys(unknown, ()))
            known.update(offers(unknown))
        new = {wanted.package: chosen[wanted.package]}
        for name, asked in limits.items():
            if name == wanted.package:
                continue
            fitting = [one for one in known[name] if all(not how or compare(one.version, how, version) for _who, how, version in asked)]
            if not fitting:
                said = ", ".join(f"{who} needs {name} {how} {version}".rstrip() for who, how, version in asked)
                there = ", ".join(one.version for one in known[name]) or "none"
                raise PackageTreeError(f"{said}, and there is no such one (known are {there}).")
            bound = any(how for _who, how, _version in asked)
            new[name] = _edge(fitting, compare, newest=not bound)
        if new == chosen:
            return [chosen[name] for name in sorted(chosen)]
        chosen = new


def _edge(offers: Iterable[Offer], compare: Compare, *, newest: bool) -> Offer:
    """Return the offer of the newest, or of the oldest, version."""
    how = ">>" if newest else "<<"
    edge, *others = offers
    for one in others:
        if compare(one.version, how, edge.version):
            edge = one
    return edge


def record(wanted: Wanted, owner: str, packages: Iterable[Offer], files: Mapping[str, Sequence[Any]]) -> str:
    """Return the text of a tree's record."""
    data = {"owner": owner, "wish": wanted.wish(), "packages": {one.name: one.version for one in packages}, "files": files}
    return json.dumps(data, indent=1, sort_keys=True) + "\n"


def read_record(folder: Path, owner: str) -> dict[str, Any]:
    """Return a tree's record, empty where there is none of this owner."""
    try:
        data = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) and data.get("owner") == owner else {}


def inventory(folder: Path) -> dict[str, list[Any]]:
    """Return what tells the files of a tree from altered ones: of a link its target, of a file its size and the time of its change."""
    found: dict[str, list[Any]] = {}
    for base, folders, names in os.walk(folder):
        for name in [*names, *(one for one in folders if os.path.islink(os.path.join(base, one)))]:
            place = os.path.join(base, name)
            path = os.path.relpath(place, folder)
            state = os.lstat(place)
            if path != RECORD:
                found[path] = [os.readlink(place)] if stat.S_ISLNK(state.st_mode) else [state.st_size, state.st_mtime_ns]
    return found


def differences(folder: Path, wanted: Wanted, owner: str) -> list[str]:
    """Return why a tree has to be made anew, a line each; empty when it is as wanted and whole."""
    data = read_record(folder, owner)
    if not data:
        return ["make it"]
    if data.get("wish") != wanted.wish():
        return [f"make it of {wanted.package} {wanted.version}"]
    then, now = data.get("files", {}), inventory(folder)
    return sorted(f"mend {path}" for path in {*then, *now} if then.get(path) != now.get(path))
