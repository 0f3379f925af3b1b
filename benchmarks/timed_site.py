"""How long one run of a playbook takes; shared by benchmarks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def timed_site(inventory: Path | str, settings: Mapping[str, str]) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Run `site.yml` with more process environment, and return its seconds and how it ended."""
    return timed_playbook("site.yml", inventory, settings)


def timed_playbook(
    playbook: str, inventory: Path | str, settings: Mapping[str, str], *more: str
) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Run a playbook with more process environment and words, and return its seconds and how it ended."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **settings}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # where it is set, Ansible compiles itself anew in each run
    words = [str(BIN / "ansible-playbook"), playbook, "-i", str(inventory), *more]
    started = time.monotonic()
    done = subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    return time.monotonic() - started, done
