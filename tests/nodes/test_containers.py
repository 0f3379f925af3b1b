"""The lab on this machine: booted again after any interruption, and taken away without touching anything else."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainyard.containers import LABEL, Image, Lab, connect
from trainyard.errors import TrainyardError
from trainyard.paths import CHECKOUT, REPOSITORY

pytestmark = pytest.mark.nodes

NAME = f"test-containers-{CHECKOUT}"
BOOT = f"""
import sys
from pathlib import Path
from trainyard.containers import Lab
Lab({NAME!r}, ["head", "node1"], Path(sys.argv[1]), volumes=["/home"]).up()
"""


def logs_in(lab: Lab, node: str) -> bool:
    done = subprocess.run(
        ["ssh", "-F", str(lab.ssh_config), "-o", "BatchMode=yes", node, "sudo id -u; hostname"], capture_output=True, text=True, check=False
    )
    return done.stdout.split() == ["0", node]


def test_interrupted_anywhere_and_started_again_it_finishes_and_down_leaves_others_alone(tmp_path: Path) -> None:
    client = connect()
    tag = Image().ensure(client)
    lab = Lab(NAME, ["head", "node1"], tmp_path / "state", volumes=["/home"], say=lambda _text: None)
    lab.down()
    stranger = client.containers.create(tag, name="trainyard-somebody-elses", labels={LABEL: "somebody-elses"})
    try:
        for seconds in (0.6, 1.2, 2.0, 3.5):
            boot = subprocess.Popen(
                [sys.executable, "-c", BOOT, str(lab.state)],
                env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY / "src")},
                cwd=REPOSITORY,
            )
            time.sleep(seconds)
            boot.send_signal(signal.SIGKILL)
            boot.wait()
        lab.key.with_suffix(".pub").unlink(missing_ok=True)  # half a key pair
        lab.up()
        assert logs_in(lab, "head")
        assert logs_in(lab, "node1")
        mounts = client.containers.get(f"trainyard-{NAME}-head").attrs["Mounts"]
        volumes = {mount["Name"] for mount in mounts if mount["Destination"] in {"/opt", "/home"}}
        assert len(volumes) == 2
        lab.execute("head", ["sh", "-c", "echo of the head >/home/admin/seen"])
        assert lab.execute("node1", ["cat", "/home/admin/seen"]) == "of the head\n"
        with pytest.raises(TrainyardError, match=r"lacks the shared /srv/more\. Make the lab again: \./trainyard down, then"):
            Lab(NAME, ["head"], lab.state, volumes=["/srv/more"], say=lambda _text: None).up()
        assert lab.key.stat().st_mode & 0o077 == 0
        before = client.containers.get(f"trainyard-{NAME}-head").id
        lab.up()
        assert client.containers.get(f"trainyard-{NAME}-head").id == before

        lab.kill("head")  # a power cut
        lab.up()
        assert logs_in(lab, "head")

        # Another machine under the same name is not let pass for the node.
        lab.execute("node1", ["sh", "-c", "rm /etc/ssh/ssh_host_*; ssh-keygen -A; systemctl restart ssh"])
        assert not logs_in(lab, "node1")
    finally:
        lab.down()
        assert not lab.state.exists()
        assert not client.containers.list(all=True, filters={"label": f"{LABEL}={NAME}"})
        assert not client.networks.list(filters={"label": f"{LABEL}={NAME}"})
        assert not volumes & {volume.name for volume in client.volumes.list()}
        stranger.reload()
        stranger.remove()
