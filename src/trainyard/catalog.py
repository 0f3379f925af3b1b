"""Where the resolver's rows and the environments' locks lie."""

from __future__ import annotations

from typing import Any

import yaml
from ansible_collections.trainyard.core.plugins.plugin_utils import _catalog_files
from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import Catalog
from ansible_collections.trainyard.core.plugins.plugin_utils._locked import Lock, locks_of

from trainyard.paths import REPOSITORY

ROLE = REPOSITORY / "roles" / "catalog"
FOLDER = ROLE / "vars" / "stack"
LOCKS = ROLE / "files" / "locks"


def load() -> Catalog:
    """Return the catalogue."""
    return _catalog_files.load(str(FOLDER))


def environments() -> dict[str, Any]:
    """Return the catalogue's environments, by name."""
    found: dict[str, Any] = yaml.safe_load((ROLE / "vars" / "main" / "environments.yml").read_text())["catalog_environments"]
    return found


def locks() -> tuple[Lock, ...]:
    """Return what is locked of them."""
    return locks_of(environments(), str(LOCKS))
