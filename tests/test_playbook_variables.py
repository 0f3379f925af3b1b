"""What the inventory sets counts, also where the playbooks work the same variable out from other roles' variables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainyard import runner
from trainyard.paths import REPOSITORY

COMPUTED = [name for name in yaml.safe_load((REPOSITORY / "playbooks" / "group_vars" / "all.yml").read_text()) if not name.startswith("_")]


def variables(inventory: Path) -> dict[str, Any]:
    """Return the variables of the host `one` in playbooks."""
    program = str(Path(sys.executable).parent / "ansible-inventory")
    command = [program, "--playbook-dir", "playbooks", "-i", str(inventory), "--host", "one"]
    done = subprocess.run(command, cwd=REPOSITORY, env={**runner.settings()}, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("place", ["group_vars/all.yml", "group_vars/some.yml", "host_vars/one.yml", "hosts.yml"])
def test_the_inventorys_own_value_counts(tmp_path: Path, place: str) -> None:
    own = dict.fromkeys(COMPUTED, "the inventory's")
    hosts: dict[str, Any] = {"all": {"hosts": {"one": None}, "children": {"some": {"hosts": {"one": None}}}}}
    if place == "hosts.yml":
        hosts["all"]["vars"] = own
    else:
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).write_text(yaml.safe_dump(own))
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(hosts))
    found = variables(tmp_path)
    assert {name: found[name] for name in COMPUTED} == own


def test_without_one_the_playbooks_value_counts(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all: {hosts: {one: }}\n")
    assert "framework_env_path" in variables(tmp_path)["training_environments"]
