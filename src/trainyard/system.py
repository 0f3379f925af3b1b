"""Programs of the distribution that this machine needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

from trainyard.errors import TrainyardError


def install(programs: Mapping[str, str]) -> None:
    """Install the packages of those programs that are not on the PATH.

    Args:
        programs: program -> Debian package that has it.

    Raises:
        TrainyardError: not root, or no Debian or Ubuntu, in which case it names the one command that helps; or the installation failed.
    """
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"  # where an ordinary user's PATH does not look
    missing = sorted({package for program, package in programs.items() if not shutil.which(program, path=search)})
    if not missing:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise TrainyardError(f"Not installed: {', '.join(missing)}. Install with: sudo {' '.join(command)}")
    print(f"· installing {', '.join(missing)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-q"], check=False, capture_output=True, env=environment)
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise TrainyardError(f"{', '.join(missing)} could not be installed:\n{done.stderr[-1500:]}")
