#!/usr/bin/env python3
"""How long conda environments take: made from the cache against `python -m venv` and pip of the same packages, and looked at again.

    .venv/bin/python benchmarks/conda_environments.py [ENVIRONMENTS]     (as root on Debian 12, which the tests' channel is made from)

Both begin with what they need in their caches. The channel is one that the tests make of the machine's Python and of packages of the
ordinary index. Then ten environments, or as many as are asked for, are looked at by Ansible with nothing to do, as site.yml does it.
Prints seconds and a ratio; exit status 1 where the second look takes more than 2 s.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "collections")]

from ansible_collections.trainyard.core.plugins.module_utils import _conda_env as core  # noqa: E402 - the paths above come first

PYTHON = "/usr/bin/python3.11"
PACKAGES = {"numpy": "2.2.6", "scipy": "1.15.3", "packaging": "25.0", "six": "1.17.0"}
TARGET = 2.0


def run(*words: str | Path, **environment: str) -> str:
    """Run a command and return what it printed."""
    whole = {**os.environ, **environment}
    whole.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run([str(word) for word in words], env=whole, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{words}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def tools(folder: Path) -> Path:
    """Make the environment that does the work."""
    (lock,) = (REPOSITORY / "roles" / "catalog" / "files" / "locks").glob(f"conda-tools-cpu-cp311-{os.uname().machine}.txt")
    pins = folder / "tools.txt"
    pins.write_text("".join(line.partition(" # ")[0] + "\n" for line in lock.read_text().splitlines() if "==" in line))
    run(PYTHON, "-m", "venv", folder / "tools")
    run(folder / "tools/bin/pip", "install", "--quiet", "--require-hashes", "-r", pins)
    return folder / "tools"


def by_pip(folder: Path) -> float:
    """Make an environment with venv and pip, its cache filled before, and return the seconds."""
    words = ["-m", "pip", "install", "--quiet", *(f"{name}=={version}" for name, version in PACKAGES.items())]
    seconds = 0.0
    for name in ("first", "second"):
        started = time.monotonic()
        run(PYTHON, "-m", "venv", folder / name)
        run(folder / name / "bin/python", *words, PIP_CACHE_DIR=str(folder / "cache"), PIP_DISABLE_PIP_VERSION_CHECK="1")
        seconds = time.monotonic() - started
    return seconds


def look_again(folder: Path, prefixes: list[Path], request: dict[str, object], settings: core.Settings) -> float:
    """Return the seconds that Ansible's task takes which looks at environments with nothing to do."""
    task = {
        "name": "look",
        "trainyard.core.conda_env": {
            "path": "{{ item }}",
            "environment": request,
            "state": "exact",
            "cache": settings.cache,
            "tools": settings.tools,
        },
        "loop": [str(prefix) for prefix in prefixes],
    }
    book = folder / "look.yml"
    book.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    words = [Path(sys.executable).parent / "ansible-playbook", book, "-i", "localhost,", "-c", "local"]
    quiet = {"TRAINYARD_REPORT_JSON": "", "TRAINYARD_REPORT_HTML": "", "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}
    said = run(*words, **quiet, ANSIBLE_PYTHON_INTERPRETER=PYTHON)
    (played,) = json.loads(said[said.index("{") :])["plays"][0]["tasks"]
    if any(result["changed"] for result in played["hosts"]["localhost"]["results"]):
        sys.exit("this is no run with nothing to do")
    start, end = (time.strptime(played["task"]["duration"][which][:19], "%Y-%m-%dT%H:%M:%S") for which in ("start", "end"))
    fractions = [float("0" + played["task"]["duration"][which][19:].rstrip("Z")) for which in ("start", "end")]
    return time.mktime(end) - time.mktime(start) + fractions[1] - fractions[0]


def main() -> int:
    """Measure and print; return the exit status."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory(prefix="trainyard-benchmark-") as work:
        folder = Path(work)
        where = tools(folder)
        channel = folder / "channel"
        wheels = [f"{name}=={version}" for name, version in PACKAGES.items()]
        run(where / "bin/python", REPOSITORY / "tests" / "conda_channel.py", channel, where / "bin/uv", *wheels)
        settings = core.Settings(tools=str(where), cache=str(folder / "cache"))
        said: dict[str, object] = {
            "channels": [str(channel)],
            "dependencies": ["python=3.11", *(f"{name}={version}" for name, version in PACKAGES.items())],
        }
        request = core.from_environment(said, core.Channels(), exact=True)
        prefixes = [folder / "envs" / str(number) for number in range(count + 1)]
        core.Environment(str(prefixes[0]), settings).apply(request)
        started = time.monotonic()
        core.Environment(str(prefixes[1]), settings).apply(request)
        ours, pip = time.monotonic() - started, by_pip(folder)
        print(f"from the cache: ours {ours:.1f} s   venv and pip {pip:.1f} s   {pip / ours:.1f} times faster", flush=True)
        for prefix in prefixes[2:]:
            core.Environment(str(prefix), settings).apply(request)
        again = look_again(folder, prefixes[1:], said, settings)
        print(f"{count} environments, nothing to do: {again:.2f} s   (wanted: under {TARGET:g} s)")
    return 0 if again < TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
