#!/usr/bin/env python3
"""Measures `site.yml` on the running lab with nothing to do: as configured, and with Ansible's own linear strategy and pipelining.

usage: .venv/bin/python benchmarks/second_run.py [ROUNDS]     (after ./trainyard up)
"""

from __future__ import annotations

import statistics
import sys
import tempfile

from timed_site import timed_site


def once(strategy: str | None) -> float:
    """Run site.yml once and return its seconds; it must succeed and change nothing."""
    with tempfile.TemporaryDirectory(prefix="cp") as connections:  # none is left open by the run before, as there is none in the morning
        settings = {"ANSIBLE_SSH_CONTROL_PATH_DIR": connections, **({"ANSIBLE_STRATEGY": strategy} if strategy else {})}
        seconds, done = timed_site("inventory/lab", settings)
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
