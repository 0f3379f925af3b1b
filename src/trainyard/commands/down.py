"""``trainyard down``: takes away all that ``up`` made, and nothing else."""

from __future__ import annotations

import argparse

from trainyard.lab import lab
from trainyard.progress import console


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = verbs.add_parser("down", help="take the lab on this machine away", description=__doc__)
    verb.add_argument("--keep-images", action="store_true", help="keep the node image, so that the next `up` is quicker")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Remove the nodes, their network, the SSH files and, unless they are to be kept, the images."""
    lab().down(images=not arguments.keep_images)
    console.print("The lab is gone. (.venv stays, and so do Docker and other packages that were installed for it.)")
    return 0
