"""``trainyard up``: a lab of three nodes on this machine."""

from __future__ import annotations

import argparse

from trainyard import playbooks
from trainyard.lab import INVENTORY, lab
from trainyard.progress import console


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = verbs.add_parser("up", help="bring up a lab of three nodes on this machine", description=__doc__)
    verb.set_defaults(run=run)


def run(_arguments: argparse.Namespace) -> int:
    """Boot the nodes, apply site.yml and show what trains."""
    here = lab(say=lambda text: console.print(f"· {text}"))
    here.up()
    status = playbooks.run(playbooks.SITE, INVENTORY)
    console.print(
        "\nAs a user:   ssh -F .trainyard/lab/ssh_config alice@head    (samples to train: /opt/trainyard/samples)",
        highlight=False,
        soft_wrap=True,
    )
    console.print("Ansible:     . .venv/bin/activate && ansible-playbook site.yml -i inventory/lab", highlight=False, soft_wrap=True)
    return status
