# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Variables that begin like a role's and are none: a misspelt name would otherwise be ignored in silence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

OWN = "trainyard_own_variables"
"""Names that the inventory has for other purposes although they begin like a role's."""
SHARED = frozenset({"trainyard_state", "trainyard_checked", "trainyard_untested_platforms", "trainyard_boot_time_command", OWN})
RESULT = "_result"
"""How the names of registered results end."""


def known_variables(roles: Path) -> dict[str, set[str]]:
    """Return role -> its public variables, from the argument specs, the defaults and the variables in a folder of roles."""
    found: dict[str, set[str]] = {"trainyard": set(SHARED)}
    for role in sorted(path for path in roles.iterdir() if path.is_dir()):
        names = found.setdefault(role.name, set())
        for spec in (_load(role / "meta" / "argument_specs.yml").get("argument_specs") or {}).values():
            names.update(spec.get("options") or {})
        for path in (role / "defaults" / "main.yml", *(role / "vars" / "main").glob("*.yml")):
            names.update(_load(path))
    return found


def problems(variables: Mapping[str, Mapping[str, Any]], known: Mapping[str, set[str]]) -> list[str]:
    """Return one sentence for each variable that begins with the name of a role and is no variable of any role.

    Args:
        variables: node -> its variables.
        known: what :func:`known_variables` returns.
    """
    every = set().union(*known.values())
    nodes: dict[str, list[str]] = {}
    for node, own in variables.items():
        ours = set(own.get(OWN) or ())
        for name in own:
            if name not in every and name not in ours and not name.endswith(RESULT) and _role(name, known):
                nodes.setdefault(name, []).append(node)
    return [_sentence(name, where, known) for name, where in sorted(nodes.items())]


def _role(name: str, known: Iterable[str]) -> str:
    """Return the role whose name a variable begins with, the longest of several; '' where there is none."""
    return max((role for role in known if name.startswith(f"{role}_")), key=len, default="")


def _sentence(name: str, nodes: list[str], known: Mapping[str, set[str]]) -> str:
    role = _role(name, known)
    # The role's own names first: those of another role may look more alike by accident.
    near = difflib.get_close_matches(name, known[role], n=1) or difflib.get_close_matches(name, set().union(*known.values()), n=1)
    where = ", ".join(nodes[:3]) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")
    meant = f" Did you mean {near[0]}?" if near else f" roles/{role}/README.md lists those that there are."
    return f"{name} (set for {where}): the role {role} has no such variable.{meant} If the variable is your own, list it in {OWN}."


def _load(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found if isinstance(found, dict) else {}
