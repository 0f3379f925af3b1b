"""Test equipment: make on this machine's own processor for a virtual one that takes ten times as long to compile.

DKMS runs in the virtual machine and does there all that it does: it unpacks, builds, signs and installs. Where make would stand stands a
program that lets make do the work in a container, which has the same packages at the same paths and sees the machine's /var/lib/dkms: a
folder of this machine's that both have. A power cut ends it in its middle.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from docker.models.containers import Container

from tests.slow.vm import Machine
from trainyard.containers import Image, connect
from trainyard.paths import CHECKOUT, STATE

HERE = Path(__file__).parent
CACHE = STATE / "ccache"
DKMS = "/var/lib/dkms"
PLACE = "/usr/sbin/make"
"""Before the real one in the PATH that DKMS sets for itself."""
PORT = 3632
# The headers of the release's kernel, which the machine has at first, and of the newest, which it is upgraded to.
PREPARE = """
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
old=$(apt-cache madison linux-headers-amd64 | awk '{print $3}' | sort -V | head -n 1)
headers=$(apt-cache show linux-headers-amd64=$old | sed -n 's/^Depends: \\(linux-headers-[^ ]*\\).*/\\1/p')
apt-get -qq -y install --no-install-recommends ccache make libc6-dev $headers linux-headers-amd64
"""


@dataclass(frozen=True)
class Maker:
    """A container with make and a compiler."""

    container: Container

    def run(self, script: str) -> None:
        """Run a shell script in it, which has to succeed."""
        status, output = self.container.exec_run(["sh", "-c", script])
        assert status == 0, f"{script}: {output.decode(errors='replace')[-2000:]}"

    def serve(self, machine: Machine) -> None:
        """Put what stands for make into a virtual machine, and let it have the folder in which DKMS builds."""
        self.container.reload()
        port = self.container.ports[f"{PORT}/tcp"][0]["HostPort"]  # on this machine's loopback alone, which the virtual one reaches
        self.run(f"gcc-12 -static -O2 -DPORT={port} -o {DKMS}/far_make /srv/source/far_make.c")
        line = f"dkms {DKMS} 9p trans=virtio,version=9p2000.L,msize=1048576,cache=mmap 0 0"
        machine.ask(f"mkdir -p {DKMS} && echo '{line}' >> /etc/fstab && mount {DKMS} && mv {DKMS}/far_make {PLACE}")


@contextmanager
def far_make(folder: Path) -> Iterator[Maker]:
    """Start a container with make that sees a folder of this machine as /var/lib/dkms."""
    client = connect()
    CACHE.mkdir(parents=True, exist_ok=True)
    name = f"trainyard-far-make-{CHECKOUT}"
    subprocess.run(["docker", "rm", "-f", name], check=False, capture_output=True)  # what an interrupted run left
    container = client.containers.run(
        Image().ensure(client, lambda _text: None),
        ["sleep", "infinity"],
        name=name,
        detach=True,
        init=True,
        ports={f"{PORT}/tcp": ("127.0.0.1", None)},
        volumes=[f"{folder}:{DKMS}", f"{HERE}:/srv/source:ro", f"{CACHE}:/var/cache/ccache"],
        environment={"CCACHE_DIR": "/var/cache/ccache"},
    )
    try:
        maker = Maker(container)
        maker.run(PREPARE)
        container.exec_run(["python3", "/srv/source/far_make_server.py", str(PORT)], detach=True)
        yield maker
    finally:
        container.remove(force=True, v=True)
