#!/usr/bin/env python3
"""Measures the resolver against the size of the fleet: mixed nodes that want five environments, a fleet whose wishes clash, and the
same fleet where locked builds are preferred, which not all of its GPUs can run.

usage: .venv/bin/python benchmarks/resolver.py [NODES ...]     (default: 1 10 100 1000)
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY / "collections")]

from ansible_collections.trainyard.core.plugins.plugin_utils import _catalog_files  # noqa: E402
from ansible_collections.trainyard.core.plugins.plugin_utils._words import answer, node_of  # noqa: E402

from trainyard import catalog  # noqa: E402

GPUS = ("gtx 1080 ti", "tesla p40", "v100", "t4", "a100", "rtx 3090", "rtx 4090", "h100", "b200", "rtx 5090")
SYSTEMS = ("debian-12", "ubuntu-22.04", "ubuntu-24.04")
DRIVERS = ("", "535.309.01", "580.95.05")
FRAMEWORKS = ["pytorch", "tensorflow", "keras", "paddle", "jax"]


def main() -> None:
    """Print seconds, and seconds for each node relative to those of one node."""
    sizes = [int(word) for word in sys.argv[1:]] or [1, 10, 100, 1000]
    started = time.perf_counter()
    catalog.load()
    print(f"catalogue read in {time.perf_counter() - started:.2f} s")
    first = None
    locks = catalog.locks()
    print(f"{'nodes':>6} {'plan':>9} {'conflict':>9} {'locked':>9}   a node, relative to the first line")
    for size in sizes:
        _catalog_files.load.cache_clear()  # nothing remembered from the size before
        rows = catalog.load()
        seconds = []
        clash = {"pins": {"cuda": "13.0"}}
        for words, preferred in (({}, ()), (clash, ()), ({}, locks)):
            started = time.perf_counter()
            nodes = [node_of(rows, f"node{n}", SYSTEMS[n % 3], [GPUS[n % 10]], DRIVERS[n % 7 % 3]) for n in range(size)]
            answer(rows, nodes, {"environments": FRAMEWORKS, **words}, "2026-11", preferred)
            seconds.append(time.perf_counter() - started)
        first = first or seconds[0] / size
        print(f"{size:>6} {seconds[0]:>8.3f}s {seconds[1]:>8.3f}s {seconds[2]:>8.3f}s   {seconds[0] / size / first:.3f}")


if __name__ == "__main__":
    main()
