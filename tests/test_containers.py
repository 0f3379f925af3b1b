"""What a command in a node printed arrives, also where Docker loses it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError

from trainyard import containers


class Container:
    """A stand-in for Docker's: commands run here, and the first answers are lost."""

    def __init__(self, lost: int) -> None:
        self.lost = lost

    def exec_run(self, words: list[str], **_more: Any) -> SimpleNamespace:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        self.lost -= 1
        return SimpleNamespace(output=b"" if self.lost >= 0 else done.stdout)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(containers, "PRINTED", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda _seconds: None)


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_it_arrives_though_docker_loses_it(lost: int) -> None:
    words = ["sh", "-c", "echo one; echo two >&2; printf three; exit 3"]
    assert containers._run(Container(lost), words) == ("one\ntwo\nthree", 3)


def test_a_node_that_was_stopped_meanwhile_is_no_success() -> None:
    class Stopped(Container):
        def exec_run(self, words: list[str], **_more: Any) -> SimpleNamespace:
            if words[0] == "cat":
                raise APIError("the container is not running")
            return SimpleNamespace(output=b"going down")

    assert containers._run(Stopped(0), ["poweroff"]) == ("going down", None)
