"""Two labs whose hosts have the same names share no SSH connection."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from trainyard import runner
from trainyard.paths import REPOSITORY


def control_path(folder: Path, address: str) -> str:
    """Return where ssh keeps its connection to the host `head` of a lab, whose ssh_config leads to an address."""
    folder.mkdir()
    (folder / "ssh_config").write_text(f"Host head\n  HostName {address}\n")
    every = {"ansible_ssh_common_args": f"-F {folder}/ssh_config", "ansible_ssh_executable": str(folder / "ssh")}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"head": every}}}))
    # A stand-in for ssh that asks the real one what it would do, and reaches nobody.
    (folder / "ssh").write_text(f'#!/bin/sh\nssh -G "$@" | grep -i ^controlpath >> {folder}/path\nexit 255\n')
    (folder / "ssh").chmod(0o755)
    command = [str(Path(sys.executable).parent / "ansible"), "head", "-i", str(folder / "hosts.yml"), "-m", "ansible.builtin.ping"]
    environment = runner.settings() | {"HOME": str(folder), "ANSIBLE_STRATEGY": "linear"}
    subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, check=False)
    return (folder / "path").read_text().splitlines()[0]


def test_the_head_of_one_lab_is_not_taken_for_that_of_another(tmp_path: Path) -> None:
    one, other = control_path(tmp_path / "one", "192.0.2.1"), control_path(tmp_path / "other", "192.0.2.2")
    assert Path(one.split()[1]).name != Path(other.split()[1]).name
