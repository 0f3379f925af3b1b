"""How Ansible is run: what must not be shared between two labs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainyard import runner


def test_two_labs_whose_hosts_have_the_same_names_share_no_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    class Done:
        rc, stdout = 0, None

    def run(**words: Any) -> Done:
        seen.append(words)
        return Done()

    monkeypatch.setattr("ansible_runner.run", run)
    for name in ("one", "other", "one"):
        runner.module(tmp_path / name, ["head"], "ansible.builtin.ping", {})
    folders = [words["envvars"]["ANSIBLE_SSH_CONTROL_PATH_DIR"] for words in seen]
    assert folders[0] != folders[1]
    assert folders[0] == folders[2]
    assert len(folders[0]) < 40, "a socket's path has 108 characters at most, the home before it included"
