# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Packages of an old Python in a root that is being built. What runs there is made up; nodes' tests run the real thing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _frozen_packages as core
from ansible_collections.trainyard.core.plugins.module_utils._package_lock import PythonEnvError

TOOLS = "".join(f"{name}==1.0 --hash=sha256:{'1' * 64} # 10\n" for name in core.TOOLS)
LOCK = TOOLS + f"six==1.17.0 --hash=sha256:{'2' * 64} # 1000\n"


class Ran:
    """What would have been run: words and surroundings, with the requirements that lay there then."""

    def __init__(self, root: Path) -> None:
        self.work = root / core.WORK
        self.calls: list[tuple[str, dict[str, str], list[str]]] = []

    def __call__(self, words: Sequence[str], environment: Mapping[str, str], _sources: core.Sources) -> str:
        if "download" in words:
            (self.work / "pip-1.0-py2.py3-none-any.whl").touch()
        if "venv" in words:
            Path(words[-1]).mkdir()
        file = self.work / Path(words[-1]).name
        pinned = [line.split()[0] for line in file.read_text().splitlines()] if "--requirement" in words else []
        self.calls.append((" ".join(words), dict(environment), pinned))
        return ""


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ran:
    found = Ran(tmp_path)
    monkeypatch.setattr(core, "_run", found)
    return found


def test_the_node_fetches_the_tools_and_the_old_pip_does_the_rest_inside(ran: Ran, tmp_path: Path) -> None:
    core.install(tmp_path, "python2.7", LOCK, core.Sources())
    _venv, fetched, tools, others = ran.calls
    assert "-m pip download" in fetched[0]
    assert "--require-hashes --only-binary :all:" in fetched[0]
    assert fetched[2] == tools[2] == ["pip==1.0", "setuptools==1.0", "wheel==1.0"]
    for words, _environment, _pinned in (tools, others):
        assert words.startswith(f"bwrap --bind {tmp_path} / ")
        assert "-- python2.7 -m pip install --quiet --no-cache-dir --no-deps --require-hashes" in words
    assert tools[1]["PYTHONPATH"] == "/tmp/trainyard/pip-1.0-py2.py3-none-any.whl"
    assert tools[1]["PIP_NO_INDEX"] == "1", "what was fetched is all that it may take"
    assert others[2] == ["six==1.17.0"]
    assert "PYTHONPATH" not in others[1]
    assert list((tmp_path / "tmp").iterdir()) == [], "nothing of it is left in the root"


def test_where_packages_come_from_is_no_argument_of_a_process(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, house = tmp_path / "bundle.pem", tmp_path / "wheels"
    bundle.touch()
    house.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://elsewhere.example")
    core.install(tmp_path, "python2.7", LOCK, core.Sources(index_url="https://me:secret@index.example/simple", wheelhouse=str(house)))
    _venv, fetched, _tools, others = ran.calls
    assert not [words for words, _environment, _pinned in ran.calls if "secret" in words]
    assert fetched[1]["PIP_INDEX_URL"] == others[1]["PIP_INDEX_URL"] == "https://me:secret@index.example/simple"
    assert (fetched[1]["PIP_FIND_LINKS"], others[1]["PIP_FIND_LINKS"]) == (str(house), core.HOUSE)
    assert (fetched[1]["PIP_CERT"], others[1]["PIP_CERT"]) == (str(bundle), core.BUNDLE)
    assert f"--ro-bind {bundle} {core.BUNDLE}" in others[0]
    assert f"--ro-bind {house} {core.HOUSE}" in others[0]
    assert "PIP_EXTRA_INDEX_URL" not in others[1]


def test_a_lock_without_what_installs_it_is_refused(ran: Ran, tmp_path: Path) -> None:
    with pytest.raises(PythonEnvError, match="pip and setuptools and wheel is missing, which installs the others"):
        core.install(tmp_path, "python2.7", "six==1.17.0 --hash=sha256:00", core.Sources())
    assert ran.calls == []


def test_a_command_that_fails_is_explained(tmp_path: Path) -> None:
    words = ["sh", "-c", "echo 'ERROR: No matching distribution found for six==1.17.0'; exit 1"]
    with pytest.raises(PythonEnvError, match=r"six==1\.17\.0 is nowhere to be had: .*x_index_url"):
        core._run(words, {"PATH": "/usr/bin:/bin"}, core.Sources("x"))


def test_another_file_in_the_wheelhouse_is_found_before(tmp_path: Path) -> None:
    wheel = tmp_path / "six-1.17.0-py2-none-any.whl"
    wheel.write_text("another")
    problem = core.Sources("x", "none", str(tmp_path)).problem({"2.7": [LOCK]})
    found = hashlib.sha256(b"another").hexdigest()
    assert problem.startswith(f"Wrong checksum: six==1.17.0 was locked as sha256:{'2' * 64}, but {wheel} is sha256:{found}. Put the right")
    assert core.Sources("x", "none", str(tmp_path)).problem({"3.9": [LOCK]}) == "", "it is for another Python"
    assert core.Sources("x", "none", str(tmp_path)).problem({}) == ""


def test_a_wheelhouse_that_is_not_there_is_refused() -> None:
    assert core.Sources("x", "", "/nowhere").problem({"2.7": [LOCK]}) == "x_wheelhouse: /nowhere is no folder on this node."
