"""``trainyard up``: a lab of three nodes on this machine."""

from __future__ import annotations

import argparse
import shlex

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
    config, password = (shlex.quote(playbooks.short(path)) for path in (here.ssh_config, here.state / "secrets" / "notebook_password"))
    console.print(
        f"\nLog in:      ssh -F {config} head"
        f"\nNotebook:    ssh -F {config} -L 8888:127.0.0.1:8888 head     then open https://127.0.0.1:8888"
        f"\nTensorBoard: ssh -F {config} -L 6006:127.0.0.1:6006 head     then open https://127.0.0.1:6006"
        f"\nPassword of both: in {password} (TensorBoard's user is lab)"
        "\nBefore you type it, compare the fingerprint that the browser shows with the one above."
        f"\nAnsible:     . .venv/bin/activate && ansible-playbook site.yml -i inventory/lab",
        highlight=False,
        soft_wrap=True,
    )
    return status
