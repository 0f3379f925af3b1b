"""One round of the sweep: a bare node, the controller killed after its Nth change, a plain rerun, and one run more."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults import state
from tests.support import BIN, ansible_playbook, inventory_of
from trainyard.containers import Lab
from trainyard.paths import CHECKOUT, REPOSITORY

# Small, but every role has its part: one environment with its proof, both services, the hardened sshd.
VARIABLES: dict[str, Any] = {
    "framework_env_environments": ["jax"],
    "base_groups": [{"name": "lab"}],
    "base_data_group": "lab",
    "base_users": [
        {
            "name": "alice",
            "groups": ["lab"],
            "keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJrvGRH1a3gwGQ+tT1L2yusnNqXqvFQuduzeYBZqU5TE alice@laptop"],
        }
    ],
    "framework_env_wheelhouse": "/srv/wheelhouse",
    "jupyter_lab_name": "lab",  # by default the inventory's folder, which differs between the runs that are compared
    "tensorboard_lab_name": "lab",
    "jupyter_password": "canary-and-long-enough-1",
    "tensorboard_password": "canary-and-long-enough-1",
    "base_ca_certificates": "{{ query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt') }}",
}


@dataclass
class Round:
    """A bare node and its inventory."""

    lab: Lab
    folder: Path
    variables: Mapping[str, Any]

    @property
    def inventory(self) -> Path:
        """Write the inventory and return its path."""
        path = inventory_of(self.lab, self.folder, self.variables)
        text = path.read_text()
        if "notebooks" not in text:
            path.write_text(text + "  children:\n    notebooks:\n      hosts:\n        head:\n")
        return path

    def whole(self) -> dict[str, int]:
        """Run site.yml to its end and return the number of changes by node."""
        play = ansible_playbook(REPOSITORY / "site.yml", self.inventory, timeout=900)
        assert play.status == 0, play.failures() or play.text[-3000:]
        return dict(play.changed)

    def killed(self, after: int) -> str:
        """Run site.yml, have its controller killed after the Nth change, and return the task's name; '' when it ended before."""
        log = self.folder / "killed-at"
        log.unlink(missing_ok=True)
        subprocess.run(
            [str(BIN / "ansible-playbook"), "site.yml", "-i", str(self.inventory)],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "PYTHONPATH": str(REPOSITORY),
                "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent),
                "ANSIBLE_CALLBACKS_ENABLED": "kill_after",
                "TRAINYARD_KILL_AFTER": str(after),
                "TRAINYARD_KILL_LOG": str(log),
            },
            capture_output=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            timeout=900,
            check=False,
        )
        return log.read_text() if log.exists() else ""

    def state(self) -> dict[str, Any]:
        """Return the node's state."""
        return state.of(self.lab, "head")


def bare(name: str, folder: Path, wheelhouse: Path, variables: Mapping[str, Any] = VARIABLES) -> Round:
    """Boot a bare node under a lab's name, in place of one that was there."""
    folder.mkdir(parents=True, exist_ok=True)
    lab = Lab(f"{name}-{CHECKOUT}", ["head"], folder / "lab", mounts={wheelhouse: "/srv/wheelhouse"}, say=lambda _text: None)
    lab.down()
    lab.up()
    return Round(lab, folder, variables)


def check(
    name: str, folder: Path, wheelhouse: Path, after: int, undisturbed: dict[str, Any], variables: Mapping[str, Any] = VARIABLES
) -> str:
    """Do one round and return the task after which the controller was killed; '' when there is no Nth change.

    Raises:
        AssertionError: the rerun did not bring the node to the undisturbed state, or the third run changed something.
    """
    here = bare(name, folder, wheelhouse, variables)
    try:
        task = here.killed(after)
        if not task:
            return ""
        here.whole()
        differing = state.differences(undisturbed, here.state())
        assert not differing, f"killed after change {after} ({task}), a rerun left: " + json.dumps(differing[:20], indent=1)
        third = here.whole()
        assert third == {"head": 0}, f"killed after change {after} ({task}), the third run changed {third}"
        return task
    finally:
        here.lab.down()
