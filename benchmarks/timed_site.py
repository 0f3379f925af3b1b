"""How long one run of `site.yml` takes; shared by the benchmarks of the first and the second run."""

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
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **settings}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # where it is set, Ansible compiles itself anew in each run
    words = [str(BIN / "ansible-playbook"), "site.yml", "-i", str(inventory)]
    started = time.monotonic()
    done = subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    return time.monotonic() - started, done
