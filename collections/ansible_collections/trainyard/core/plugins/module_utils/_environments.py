# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""From the names of environments that an inventory wants to what a node has to get, or to words that say why not."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils._host import reported

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


@dataclass(frozen=True)
class Node:
    """What of a node decides which lock fits: its Python, its processor and its family of distributions."""

    python: str
    architecture: str
    family: str

    @staticmethod
    def of(facts: Mapping[str, Any], python: str = "") -> Node:
        """Return what the facts say; ``python`` ("3.11") wins over the version that Ansible runs with."""
        version = (facts.get("python") or {}).get("version") or {}
        found = f"{version['major']}.{version['minor']}" if version else ""
        return Node(python or found, str(facts.get("architecture") or ""), str(facts.get("os_family") or ""))


@dataclass(frozen=True)
class Wish:
    """One entry of the list of wanted environments."""

    name: str
    environment: str
    variant: str
    state: str


def _variant(catalogue: Mapping[str, Any], wish: Wish) -> Mapping[str, Any]:
    return catalogue.get(wish.environment, {}).get("variants", {}).get(wish.variant) or {}


def lock_name(environment: str, variant: str, node: Node) -> str:
    """Return the file name of a lock."""
    return f"{environment}-{variant}-cp{node.python.replace('.', '')}-{node.architecture}.txt"


def wishes(wanted: Sequence[Any], variant: str, catalogue: Mapping[str, Any], planned: Sequence[Mapping[str, str]] = ()) -> list[Wish]:
    """Return the entries of an inventory's list, short ones (names) filled up and aliases replaced.

    An entry without an environment or variant of its own gets that of the planned one of its name.
    """
    plans = {entry["name"]: entry for entry in planned}
    aliases = {alias: name for name, data in catalogue.items() for alias in data.get("aliases", [])}
    found = []
    for entry in wanted:
        data = {"name": entry} if isinstance(entry, str) else dict(entry)
        name = str(data.get("name") or data.get("environment") or "")
        environment = str(data.get("environment") or name)
        named = "environment" not in data and name in aliases
        name = aliases[name] if named else name
        given = plans.get(name, {}) if "environment" not in data else {}
        found.append(
            Wish(
                name,
                given.get("environment") or aliases.get(environment, environment),
                str(data.get("variant") or given.get("variant") or variant),
                str(data.get("state") or "present"),
            )
        )
    return found


def _near(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def _problem(wish: Wish, catalogue: Mapping[str, Any], kind: str, node: Node, prefix: str) -> str | None:
    """Return why a wish cannot be fulfilled, None when it can."""
    listing = f"{prefix}environments" if kind == "framework" else f"{prefix}services"
    if not NAME.match(wish.name):
        return f"{listing}: '{wish.name}' is no name for an environment; letters, digits, '.', '_' and '-' are allowed."
    if wish.state not in ("present", "absent"):
        return f"{listing}: the state of {wish.name} is '{wish.state}'; allowed are present and absent."
    if wish.state == "absent":
        return None
    known = sorted(name for name, data in catalogue.items() if data.get("kind") == kind)
    if wish.environment not in known:
        near = _near(wish.environment, known)
        return f"{listing}: '{wish.environment}' is not in the catalogue.{near} Known: {', '.join(known)}."
    chosen = catalogue[wish.environment]["variants"][wish.variant]
    if "frozen" in chosen or "conda" in chosen:  # brings its own Python
        return None
    pythons = chosen["pythons"]
    if node.python not in pythons:
        conda = f"have conda bring another Python ({prefix}interpreter: conda and {prefix}python_version: '{pythons[-1]}'), "
        return (
            f"{listing}: {wish.environment} ({wish.variant}) is locked for Python {' and '.join(pythons)}; "
            f"this node has {node.python}. "
            f"Take it out of {listing} for this node, {conda if kind == 'framework' else ''}"
            f"or have tools/lock_envs.py lock it for {node.python}."
        )
    return None


def available(names: Sequence[str], catalogue: Mapping[str, Any], node: Node, variant: str) -> list[str]:
    """Return those names of which the catalogue has this variant for the node's Python.

    A variant that nothing in the catalogue has leaves all of them in, so that it is refused by name and not taken for "nothing to do".
    """
    if not any(variant in catalogue[name]["variants"] for name in names if name in catalogue):
        return list(names)
    rows = {name: catalogue[name]["variants"].get(variant, {}) for name in names}
    return [name for name, row in rows.items() if "frozen" in row or "conda" in row or node.python in row.get("pythons", [])]


def kernel_title(name: str, environment: str, title: str, variant: Mapping[str, Any]) -> str:
    """Return what people read in the notebooks' launcher: ``PyTorch 2.13 (CPU)``, and the name where it is one of the lab's own.

    The version is that of the first requirement, which the catalogue pins.
    """
    first = next(iter(variant.get("requirements", [])), "")
    version = re.sub(r"(\.\d+)\.0$", r"\1", first.partition("==")[2].partition("+")[0])
    product = f"{title} {version}" if version else title
    own = "" if name == environment else f", {name}"
    return f"{product} ({variant['device'].upper()}){own}"


def plan(
    wanted: Sequence[Any],
    services: Sequence[Any],
    catalogue: Mapping[str, Any],
    node: Node,
    services_node: Node,
    *,
    variant: str,
    path: str,
    indexes: Mapping[str, str],
    default_for: Mapping[str, str],
    prefix: str,
    planned: Sequence[Mapping[str, str]] = (),
    conda_services: Sequence[str] = (),
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what is to be done for each environment, and one sentence for each thing that cannot be done.

    ``node`` is what frameworks stand on, ``services_node`` what services do, which may have another Python. ``conda_services``: those that
    are needed where an environment comes by conda.
    """
    problems: list[str] = []
    entries: list[dict[str, Any]] = []
    if not node.python or not node.architecture:
        return [], ["The node's Python and processor are not known: run the play with gather_facts: true."]
    try:  # they name a file of the controller
        for value in (node.python, node.architecture, services_node.python, services_node.architecture):
            reported.word("The node", value, "Python version or processor")
    except reported.ReportedError as error:
        return [], [str(error)]
    frameworks = wishes(wanted, variant, catalogue, planned)
    by_conda = any(wish.state == "present" and "conda" in _variant(catalogue, wish) for wish in frameworks)
    services = [*services, *(name for name in conda_services if by_conda and name not in services)]
    both = [(wish, "framework") for wish in frameworks] + [(wish, "service") for wish in wishes(services, "cpu", catalogue)]
    lacking: dict[str, list[str]] = {}
    for wish, kind in both:
        variants = catalogue.get(wish.environment, {}).get("variants", {wish.variant: None})
        if wish.state == "present" and wish.variant not in variants:
            known = ", ".join(sorted(variants))
            lacking.setdefault(f"{prefix}variant: there is no variant '{wish.variant}' of %s. Known: {known}.", []).append(wish.environment)
            continue
        under = services_node if kind == "service" else node
        problem = _problem(wish, catalogue, kind, under, prefix)
        if problem:
            problems.append(problem)
            continue
        entry: dict[str, Any] = {"name": wish.name, "state": wish.state, "path": f"{path}/{wish.name}"}
        if wish.state == "present":
            data = catalogue[wish.environment]
            chosen = data["variants"][wish.variant]
            if "conda" in chosen:
                entry["conda"] = chosen["conda"]
            if "frozen" in chosen:
                entry["frozen"] = chosen["frozen"]
                under = replace(under, python=chosen["pythons"][0])
            entry.update(
                environment=wish.environment,
                variant=wish.variant,
                kind=kind,
                title=data["title"] if wish.name == wish.environment else f"{data['title']} ({wish.name})",
                kernel_title=kernel_title(wish.name, wish.environment, data["title"], chosen),
                proof=chosen.get("proof", data.get("proof")),
                device=chosen["device"],
                aliases=data.get("aliases", []) if wish.name == wish.environment else [],
                python=under.python,
                lock=lock_name(wish.environment, wish.variant, under) if "requirements" in chosen else "",
                index_url=indexes.get(chosen.get("index", ""), ""),
                index_packages=chosen.get("index_packages", []),
                system_packages=chosen.get("system_packages", {}).get(node.family, []),
            )
        entries.append(entry)
    problems += [text.replace("%s", ", ".join(names)) for text, names in lacking.items()]
    names = [wish.name for wish, _kind in both]
    problems += [f"{prefix}environments: {name} stands there twice." for name in sorted({name for name in names if names.count(name) > 1})]
    choice = sorted(name for entry in entries if entry.get("kind") == "framework" for name in [entry["name"], *entry["aliases"]])
    for user, name in sorted(default_for.items()):
        if name not in choice and not problems:
            problems.append(
                f"{prefix}default_for: {user} is to have '{name}', which is not among this node's environments.{_near(name, choice)} "
                f"Known: {', '.join(choice) or 'none'}."
            )
    return entries, problems
