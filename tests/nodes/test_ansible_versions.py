"""Plain ansible-playbook with other releases of ansible-core than the locked one, on the Pythons that pyenv has here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import ansible
import pytest

from tests.support import BIN, inventory_of
from trainyard.containers import Lab
from trainyard.paths import REPOSITORY

pytestmark = pytest.mark.nodes

RELEASES = {"2.18": "3.12", "2.19": "3.12", "2.20": "3.13", "2.21": "3.13"}
"""Release of ansible-core -> Python that it is tried with."""
COLLECTIONS = f"{REPOSITORY / 'collections'}:{Path(ansible.__file__).parents[1]}"


def python(version: str) -> Path:
    """Return pyenv's Python of a version, and count the test as skipped where it has none."""
    found = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python"))
    if not found:
        pytest.skip(f"pyenv has no Python {version} here")
    return found[-1]


@pytest.mark.parametrize("release", RELEASES)
def test_a_node_converges_with_it(node: Lab, tmp_path: Path, release: str) -> None:
    venv = tmp_path / "venv"
    uv = [str(BIN / "uv"), "--quiet"]
    subprocess.run([*uv, "venv", f"--python={python(RELEASES[release])}", str(venv)], check=True)
    subprocess.run([*uv, "pip", "install", f"--python={venv}/bin/python", f"ansible-core=={release}.*", "mitogen==0.3.54"], check=True)
    inventory = inventory_of(node, tmp_path, {"base_packages": ["less"], "base_groups": [{"name": f"lab{release[2:]}"}]})
    texts = []
    for playbook in ("preflight", "base", "hardening", "base"):
        done = subprocess.run(
            [str(venv / "bin" / "ansible-playbook"), f"playbooks/{playbook}.yml", "-i", str(inventory)],
            cwd=REPOSITORY,
            env={**os.environ, "PATH": f"{venv / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": "", "ANSIBLE_COLLECTIONS_PATH": COLLECTIONS},
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
            stdin=subprocess.DEVNULL,
        )
        text = done.stdout + done.stderr
        assert done.returncode == 0, text[-3000:]
        assert "does not support Ansible version" not in text
        assert text.count("Mitogen is not used") == (0 if release in {"2.19", "2.20"} else 1), text
        texts.append(text)
    assert "changed=0" in texts[-1]
