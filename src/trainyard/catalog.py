"""Where the resolver's rows lie."""

from __future__ import annotations

from ansible_collections.trainyard.core.plugins.plugin_utils import _catalog_files
from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import Catalog

from trainyard.paths import REPOSITORY

FOLDER = REPOSITORY / "roles" / "catalog" / "vars" / "stack"


def load() -> Catalog:
    """Return the catalogue."""
    return _catalog_files.load(str(FOLDER))
