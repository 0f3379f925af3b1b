#!/usr/bin/env python3
# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""How much longer a login shell takes with what the role anaconda puts into /etc/profile.d.

    .venv/bin/python benchmarks/login_shell.py [--rounds 200] [--target 20]

Login shells start in turn: with the role's script, without it, and with conda's own hook read at once, as `conda init` would have it. Each
reads the machine's /etc/profile, and then the script in question from the file that a user's home has for it; conda is a stand-in of the
tests, whose hook is much shorter than the real one. Prints the median of each and what it adds, in milliseconds, for bash and dash; exit
status 1 where the role's script adds more than the target.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests import conda_installer_stand_in  # noqa: E402 - the path above comes first

TEMPLATES = REPOSITORY / "roles" / "anaconda" / "templates" / "etc" / "profile.d"
SHELLS = {"bash": ".bash_profile", "dash": ".profile"}


def script(conda: Path) -> str:
    """Return the role's script for a conda that lies somewhere."""
    templates = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=False)
    templates.filters["ansible.builtin.quote"] = lambda value: shlex.quote(str(value))
    return templates.get_template("trainyard-conda.sh.j2").render(anaconda_path=str(conda), anaconda_store=str(conda.parent))


def login(shell: str, home: Path) -> float:
    """Start a login shell that does nothing, and return its milliseconds."""
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    started = time.perf_counter()
    subprocess.run([shell, "-l", "-c", ":"], env=environment, check=True, stdin=subprocess.DEVNULL)
    return (time.perf_counter() - started) * 1000


def main() -> int:
    """Run the benchmark and return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--target", type=float, default=20.0, help="milliseconds that the role's script may add")
    options = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="trainyard-benchmark-") as work:
        folder = Path(work)
        installer, _sum = conda_installer_stand_in.make(folder, "1.0")
        conda = folder / "conda"
        words = ["bash", str(installer), "-b", "-p", str(conda)]
        subprocess.run(words, env={**os.environ, "HOME": work}, check=True, stdout=subprocess.DEVNULL)
        texts = {"without": "", "with": script(conda), "hook at once": f". {shlex.quote(str(conda))}/etc/profile.d/conda.sh\n"}
        for shell, name in SHELLS.items():
            homes = {}
            for label, text in texts.items():
                homes[label] = folder / f"{shell} {label}"
                homes[label].mkdir()
                (homes[label] / name).write_text(text)
            times: dict[str, list[float]] = {label: [] for label in homes}
            for _round in range(options.rounds):
                for label, home in homes.items():
                    times[label].append(login(shell, home))
            median = {label: statistics.median(found) for label, found in times.items()}
            added = median["with"] - median["without"]
            worst = max(worst, added)
            print(
                f"{shell:5} without {median['without']:6.2f} ms   with {median['with']:6.2f} ms   added {added:5.2f} ms   "
                f"(hook at once: {median['hook at once'] - median['without']:.2f} ms)",
                flush=True,
            )
    print(f"added at most {worst:.2f} ms (wanted: under {options.target:g})")
    return 0 if worst < options.target else 1


if __name__ == "__main__":
    sys.exit(main())
