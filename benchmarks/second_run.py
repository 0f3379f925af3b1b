#!/usr/bin/env python3
"""Measures `site.yml` on the running lab with nothing to do: as configured, and with Ansible's own linear strategy and pipelining.

usage: .venv/bin/python benchmarks/second_run.py [ROUNDS]     (after ./trainyard up)
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def once(strategy: str | None) -> float:
    """Run site.yml once and return its seconds; it must succeed and change nothing."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # where it is set, Ansible compiles itself anew in each run
    if strategy:
        environment["ANSIBLE_STRATEGY"] = strategy
    with tempfile.TemporaryDirectory(prefix="cp") as connections:  # none is left open by the run before, as there is none in the morning
        environment["ANSIBLE_SSH_CONTROL_PATH_DIR"] = connections
        started = time.monotonic()
        done = subprocess.run(
            [str(BIN / "ansible-playbook"), "site.yml", "-i", "inventory/lab"],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - started
    if done.returncode or done.stdout.count("changed=0") != 3:
        sys.exit(f"this is no run with nothing to do:\n{done.stdout[-2000:]}\n{done.stderr[-1000:]}")
    return seconds


def main() -> None:
    """Measure in turn and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    once(None)
    ours, stock = [], []
    for _ in range(rounds):
        ours.append(once(None))
        stock.append(once("linear"))
        print(f"as configured {ours[-1]:6.1f} s   linear with pipelining {stock[-1]:6.1f} s   ratio {stock[-1] / ours[-1]:.2f}", flush=True)
    ratios = [theirs / mine for mine, theirs in zip(ours, stock, strict=True)]
    print(f"median: {statistics.median(ours):.1f} s against {statistics.median(stock):.1f} s, {statistics.median(ratios):.2f} times faster")


if __name__ == "__main__":
    main()
