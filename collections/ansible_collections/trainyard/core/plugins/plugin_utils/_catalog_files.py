# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""The catalogue's rows about GPUs, drivers, CUDA and frameworks, read from their files."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import Catalog


@lru_cache(maxsize=4)
def load(folder: str) -> Catalog:
    """Return the catalogue that lies in a folder of YAML files.

    Raises:
        OSError: there is no such folder, or a file cannot be read.
    """
    data: dict[str, Any] = {}
    for path in sorted(Path(folder).iterdir()):
        if path.suffix == ".yml":
            data.update(yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    return Catalog.of(data)
