#!/usr/bin/env python3
"""Runs `ansible-test sanity` over the nested collection.

ansible-test makes its environments with a script that brings pip, from a server of Ansible's own. The standard library's
ensurepip brings pip as well, without a download, so it is put where ansible-test looks for that script first; everything
after it is ansible-test's own way.

usage: tools/sanity.py [TEST ...]      all tests that the collection enables, or only those named
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ansible_test._internal.host_configs import VirtualPythonConfig
from ansible_test._internal.python_requirements import get_venv_packages

REPOSITORY = Path(__file__).resolve().parents[1]
COLLECTION = REPOSITORY / "collections" / "ansible_collections" / "trainyard" / "core"
BOOTSTRAP = """\
import subprocess, sys
subprocess.run([sys.executable, "-m", "ensurepip"], check=True)
words = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
subprocess.run([sys.executable, "-m", "pip", "install", *words], check=True)
"""


def main() -> int:
    """Prepare the bootstrap script and run the tests; return ansible-test's exit status."""
    home = REPOSITORY / ".ansible" / "test-home"
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    bin_folder = Path(sys.executable).parent
    environment = {**os.environ, "HOME": str(home), "PATH": f"{bin_folder}:{os.environ['PATH']}", "PYTHONPATH": "", "LC_ALL": "C.UTF-8"}
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    version = get_venv_packages(VirtualPythonConfig(version=python, path=sys.executable))["pip"]
    (cache / f"get_pip_{version.replace('.', '_')}.py").write_text(BOOTSTRAP)
    words = [word for test in sys.argv[1:] for word in ("--test", test)]
    return subprocess.run(
        [str(bin_folder / "ansible-test"), "sanity", "--python", python, *words], cwd=COLLECTION, env=environment, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
