"""The role ``catalog``'s data, read for the resolver."""

from __future__ import annotations

from typing import Any

import yaml
from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import Catalog

from trainyard.paths import REPOSITORY

FOLDER = REPOSITORY / "roles" / "catalog" / "vars" / "main"


def load() -> Catalog:
    """Return the catalogue."""
    data: dict[str, Any] = {}
    for path in sorted(FOLDER.glob("*.yml")):
        data.update(yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    return Catalog.of(data)
