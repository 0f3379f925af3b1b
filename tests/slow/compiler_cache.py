"""What a compiler makes of the driver's modules, made on this machine's own processor for a virtual one that takes ten times as long.

The kernel's headers of Debian compile by ccache where DEBIAN_KERNEL_USE_CCACHE is set. A container with the same packages at the same paths
fills the cache; the virtual machine then builds by itself, and finds each object that it would compile.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from tests.slow.vm import CACHE, Machine
from trainyard.containers import Image, connect
from trainyard.paths import STATE

FOLDER = STATE / "ccache"
# The kernel of the release, which the virtual machine has at first, and the newest, which it is upgraded to.
COMPILE = f"""
set -e
export DEBIAN_FRONTEND=noninteractive DEBIAN_KERNEL_USE_CCACHE=1 CCACHE_DIR={CACHE}
sed -i 's/ main$/ main contrib non-free non-free-firmware/' /etc/apt/sources.list
apt-get -qq update
old=$(apt-cache madison linux-headers-amd64 | awk '{{print $3}}' | sort -V | head -n 1)
headers=$(apt-cache show linux-headers-amd64=$old | sed -n 's/^Depends: \\(linux-headers-[^ ]*\\).*/\\1/p')
apt-get -qq -y install --no-install-recommends ccache $headers linux-headers-amd64
apt-get -qq -y install --no-install-recommends nvidia-kernel-dkms
chmod -R a+rX {CACHE}
"""


def fill() -> Path:
    """Compile the modules in a container, as far as that was not done before, and return the folder of what came of it."""
    client = connect()
    FOLDER.mkdir(parents=True, exist_ok=True)
    client.containers.run(
        Image().bootstrap(client, lambda _text: None),
        ["sh", "-c", COMPILE],
        volumes=[f"{FOLDER}:{CACHE}"],
        remove=True,
        network_mode="bridge",
    )
    return FOLDER


def hand_over(machine: Machine) -> None:
    """Give a virtual machine what the compiler made."""
    (name,) = machine.nodes
    words = ["ssh", "-F", str(machine.ssh_config), "-o", "BatchMode=yes", name, f"sudo tar -xC {CACHE}"]
    command = f"tar -cC {shlex.quote(str(fill()))} . | {shlex.join(words)}"
    subprocess.run(["bash", "-eo", "pipefail", "-c", command], check=True, stdin=subprocess.DEVNULL)
