"""What the resolver's tests share: the real catalogue, a fixed month, and nodes in a few words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.trainyard.core.plugins.plugin_utils._catalog_files import load
from ansible_collections.trainyard.core.plugins.plugin_utils._plan import Node
from ansible_collections.trainyard.core.plugins.plugin_utils._words import Answer, answer, node_of

TODAY = "2026-11"
FOLDER = next(path for path in Path(__file__).resolve().parents if (path / "roles").is_dir()) / "roles" / "catalog" / "vars" / "stack"
CATALOG = load(str(FOLDER))


def machine(system: str, *gpus: str, driver: str = "", name: str = "node", kernel: str = "", flavour: str = "") -> Node:
    """Return a node."""
    return node_of(CATALOG, name, system, gpus, driver, kernel=kernel, flavour=flavour)


def ask(nodes: Sequence[Node], *frameworks: Any, **words: Any) -> Answer:
    """Return the answer for some nodes."""
    return answer(CATALOG, nodes, {"environments": list(frameworks), **words}, TODAY)
