"""Programs of the distribution that this machine needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

from ansible_collections.trainyard.core.plugins.module_utils._apt import interrupted

from trainyard.errors import TrainyardError

LOCK_SECONDS = 300
"""How long apt waits while another process, such as the first boot's own updates, works with packages."""


def finish_interrupted() -> None:
    """Have dpkg and apt finish what was being installed when the machine went down or somebody ended them; nothing where nothing was."""
    if os.geteuid() != 0 or not shutil.which("dpkg"):
        return
    if not subprocess.run(["dpkg", "--audit"], check=False, capture_output=True).stdout and not interrupted():
        return
    print("· finishing an interrupted installation of packages", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"],
        ["apt-get", "-o", f"DPkg::Lock::Timeout={LOCK_SECONDS}", "install", "-y", "--fix-broken"],
    ):
        subprocess.run(command, check=False, capture_output=True, env=environment)


def install(programs: Mapping[str, str]) -> None:
    """Install the packages of those programs that are not on the PATH.

    Args:
        programs: program -> Debian package that has it.

    Raises:
        TrainyardError: not root, or no Debian or Ubuntu, in which case it names the one command that helps; or the installation failed.
    """
    finish_interrupted()  # a program of a package that is half there would pass for one that is there
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"  # where an ordinary user's PATH does not look
    missing = sorted({package for program, package in programs.items() if not shutil.which(program, path=search)})
    if not missing:
        return
    command = ["apt-get", "-o", f"DPkg::Lock::Timeout={LOCK_SECONDS}", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise TrainyardError(
            f"Not installed: {', '.join(missing)}. Install with your distribution's package manager, on Debian and Ubuntu: "
            f"sudo apt-get install -y --no-install-recommends {' '.join(missing)}"
        )
    print(f"· installing {', '.join(missing)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-q"], check=False, capture_output=True, env=environment)
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise TrainyardError(f"{', '.join(missing)} could not be installed:\n{done.stderr[-1500:]}")
