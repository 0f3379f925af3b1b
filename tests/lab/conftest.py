"""The lab of three nodes, brought up by the command that a newcomer types."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support import Play, ansible_playbook
from trainyard.containers import Lab
from trainyard.lab import INVENTORY, lab
from trainyard.paths import REPOSITORY


def trainyard(*words: str, timeout: float = 2400) -> subprocess.CompletedProcess[str]:
    """Run the script that a newcomer runs."""
    return subprocess.run(
        [str(REPOSITORY / "trainyard"), *words],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def site(*words: str, environment: Mapping[str, str] | None = None) -> Play:
    """Run `ansible-playbook site.yml -i inventory/lab` from the repository's root."""
    return ansible_playbook(Path("site.yml"), INVENTORY.relative_to(REPOSITORY), words, environment, timeout=2400)


@pytest.fixture(scope="session")
def up() -> subprocess.CompletedProcess[str]:
    """What `./trainyard up` printed."""
    done = trainyard("up")
    print(done.stdout, done.stderr)
    return done


@pytest.fixture(scope="session")
def nodes(up: subprocess.CompletedProcess[str]) -> Lab:
    """The lab's nodes."""
    assert up.returncode == 0, up.stdout[-6000:] + up.stderr[-3000:]
    return lab()
