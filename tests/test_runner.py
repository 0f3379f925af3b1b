"""Ansible inside ansible-runner is configured as it is outside: nothing of ansible.cfg is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainyard import runner
from trainyard.paths import REPOSITORY

Settings = dict[str, Any]
CONFIG_PROGRAM = str(Path(sys.executable).parent / "ansible-config")
RUNNERS_OWN = {
    *("DEFAULT_STDOUT_CALLBACK", "DEFAULT_CALLBACK_PLUGIN_PATH", "DEFAULT_LOAD_CALLBACK_PLUGINS", "BIN_ANSIBLE_CALLBACKS"),
    *("ANSIBLE_NOCOLOR", "ANSIBLE_FORCE_COLOR"),
}
"""What ansible-runner needs to see events, and no colours where the output is no terminal."""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no settings of the person who runs the tests."""
    for name in ("ANSIBLE_CONFIG", "ANSIBLE_HOST_KEY_CHECKING"):
        monkeypatch.delenv(name, raising=False)


def dump(environment: dict[str, str] | None, folder: str | Path) -> Settings:
    """Return Ansible's settings that are not the defaults, as a program in that folder and environment has them."""
    command = [CONFIG_PROGRAM, "dump", "--only-changed", "--type", "base", "--format", "json"]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True)
    entries = json.loads(done.stdout[done.stdout.index("[\n") :])  # the callback of ansible-runner writes control characters first
    return {entry["name"]: entry["value"] for entry in entries if "name" in entry}


@pytest.fixture(params=["playbook", "module"])
def inside(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], Settings]:
    """Return the settings in a run of a playbook and in one of a single module, without any node."""
    found: list[Settings] = []
    init = runner.init_runner

    def prepared(**what: Any) -> Any:
        made = init(**what)

        def run() -> None:
            found.append(dump(made.config.env, made.config.cwd))
            made.rc = 0

        monkeypatch.setattr(made, "run", run)
        monkeypatch.setattr(type(made), "stdout", None)
        return made

    monkeypatch.setattr(runner, "init_runner", prepared)
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("all: {hosts: {nobody: }}\n")

    def settings() -> Settings:
        if request.param == "playbook":
            runner.run("site.yml", inventory, [], lambda _event: None, {})
        else:
            runner.module(inventory, ["nobody"], "ansible.builtin.ping", {})
        return found.pop()

    return settings


def test_nothing_of_ansible_cfg_is_lost(inside: Callable[[], Settings]) -> None:
    outside, seen = dump(None, REPOSITORY), inside()
    assert outside["HOST_KEY_CHECKING"] is True
    assert {name: seen.get(name) for name in outside} == outside
    assert set(seen) - set(outside) <= RUNNERS_OWN


def test_nor_from_another_folder(inside: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert inside()["HOST_KEY_CHECKING"] is True


@pytest.mark.parametrize("value", [True, False])
def test_what_the_user_set_in_the_environment_stays(inside: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch, value: bool) -> None:
    monkeypatch.setenv("ANSIBLE_HOST_KEY_CHECKING", str(value))
    assert inside()["HOST_KEY_CHECKING"] is value


def test_a_configuration_of_the_users_own_replaces_nothing(
    inside: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = tmp_path / "own.cfg"
    own.write_text("[defaults]\nroles_path = /nowhere\nhost_key_checking = false\n")
    outside = dump(None, REPOSITORY)
    monkeypatch.setenv("ANSIBLE_CONFIG", str(own))
    seen = inside()
    assert {name: seen.get(name) for name in outside} == outside


def test_callbacks_of_the_users_own_run_beside_the_report(inside: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_CALLBACKS_ENABLED", "ansible.posix.profile_tasks")
    assert inside()["CALLBACKS_ENABLED"] == ["trainyard.core.report", "ansible.posix.profile_tasks"]


@pytest.mark.parametrize("variable,value", [("LC_ALL", "xx_XX.UTF-8"), ("LC_ALL", "POSIX"), ("LC_CTYPE", "UTF-8"), ("LC_ALL", "")])
def test_ansible_starts_whatever_the_locale(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    command = [CONFIG_PROGRAM, "dump", "--only-changed"]
    environment = {**os.environ, **runner.settings()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
