"""The lab that comes up on this very machine: which nodes it has and where its files lie."""

from __future__ import annotations

import os
from pathlib import Path

from trainyard.containers import Image, Lab, Say
from trainyard.paths import CHECKOUT, REPOSITORY, STATE

INVENTORY = REPOSITORY / "inventory" / "lab"
HERE = STATE / "lab"
NODES = ("head", "node1", "node2")
HOMES = "/home"
"""What all nodes share. In a real lab NFS would do that, and a container's kernel cannot: a volume of Docker's stands in for it."""
WHEELHOUSE = "/srv/wheelhouse"
"""Where the nodes see the wheelhouse; the same path stands in inventory/lab."""


def lab(say: Say = print) -> Lab:
    """Return the lab of this checkout.

    Its wheelhouse is the folder that pip's own PIP_FIND_LINKS names, or .trainyard/lab/wheelhouse, into which wheels may be put.
    """
    named = [Path(word) for word in os.environ.get("PIP_FIND_LINKS", "").split()]
    wheelhouse = next((path for path in named if path.is_dir()), HERE / "wheelhouse")
    if wheelhouse.is_relative_to(HERE):
        wheelhouse.mkdir(parents=True, exist_ok=True)
    return Lab(f"lab-{CHECKOUT}", NODES, HERE, Image(), {wheelhouse.resolve(): WHEELHOUSE}, volumes=[HOMES], say=say)
