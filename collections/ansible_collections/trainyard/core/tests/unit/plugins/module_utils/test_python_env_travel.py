# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""The digest of a folder tells apart what differs, and nothing else; what a server's configuration says; whether anybody answers."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _python_env_travel as travel

MARKER = ".trainyard-env.json"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with a bit of everything."""
    root = tmp_path / "tree"
    (root / "lib" / "a").mkdir(parents=True)
    (root / "lib" / "a" / "one.py").write_text("1\n")
    (root / "lib" / "a" / "two.py").write_text("1\n")
    (root / "lib" / "empty").mkdir()
    (root / "lib64").symlink_to("lib")
    (root / "python").symlink_to("/usr/bin/python3")
    (root / MARKER).write_text("{}")
    return root


def digest(root: Path) -> str:
    return travel.tree_digest(str(root), (MARKER,))


def rename(root: Path) -> None:
    (root / "lib" / "a" / "one.py").rename(root / "lib" / "a" / "three.py")


def retarget(root: Path) -> None:
    (root / "python").unlink()
    (root / "python").symlink_to("/usr/bin/python4")


def unlink(root: Path) -> None:
    (root / "lib64").unlink()
    shutil.copytree(root / "lib", root / "lib64")


def swap(root: Path) -> None:
    """Let a file take the place of an empty folder."""
    (root / "lib" / "empty").rmdir()
    (root / "lib" / "empty").write_text("")


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda root: (root / "lib" / "a" / "one.py").write_text("2\n"),
    "name": rename,
    "one more": lambda root: (root / "lib" / "a" / "more").write_text(""),
    "one less": lambda root: (root / "lib" / "a" / "one.py").unlink(),
    "folder": lambda root: (root / "lib" / "empty").rmdir(),
    "mode": lambda root: (root / "lib" / "a" / "one.py").chmod(0o755),
    "mode of a folder": lambda root: (root / "lib").chmod(0o777),
    "target": retarget,
    "link to a folder": unlink,
    "kind": swap,
    "the marker's name further down": lambda root: (root / "lib" / MARKER).write_text(""),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_makes_another_digest(tree: Path, change: str) -> None:
    before = digest(tree)
    CHANGES[change](tree)
    assert digest(tree) != before


def test_place_times_hard_links_and_the_marker_do_not_count(tree: Path, tmp_path: Path) -> None:
    before = digest(tree)
    other = tmp_path / "elsewhere"
    shutil.copytree(tree, other, symlinks=True)
    os.utime(other / "lib" / "a" / "one.py", (1, 1))
    (other / "lib" / "a" / "two.py").unlink()
    os.link(other / "lib" / "a" / "one.py", other / "lib" / "a" / "two.py")
    (other / MARKER).write_text("another")
    assert digest(other) == before


def test_a_file_that_folders_share_is_read_once(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    shutil.copytree(tree, other, symlinks=True, copy_function=os.link)
    known: travel.Known = {}
    before = travel.tree_digest(str(tree), (MARKER,), known)
    monkeypatch.setattr(travel, "_sum", lambda path: pytest.fail(f"{path} was read again"))
    assert travel.tree_digest(str(other), (MARKER,), known) == before


def test_a_configuration_says_where_it_serves(tmp_path: Path) -> None:
    path = tmp_path / "rsyncd.conf"
    assert travel.server(str(path)) == ""
    path.write_text("# address = no\naddress = 192.0.2.1\nport = 8730\n\n[environments]\npath = /opt/envs\n")
    assert travel.server(str(path)) == "rsync://192.0.2.1:8730/environments"
    path.write_text("address = 2001:db8::1\nport = 8730\n[environments]\n")
    assert travel.server(str(path)) == "rsync://[2001:db8::1]:8730/environments"


@pytest.mark.parametrize("greeting, said", [(b"@RSYNCD: 31.0\n", ""), (b"HTTP/1.1 400 Bad", "is no rsync"), (b"", "is no rsync")])
def test_who_answers_is_found_out(greeting: bytes, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with server.accept()[0] as line:
                line.sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        found = travel.silent(f"rsync://127.0.0.1:{server.getsockname()[1]}/environments")
        thread.join()
    assert found.endswith(said)
    assert bool(found) == bool(said)
    assert "does not answer" in travel.silent("rsync://127.0.0.1:9/environments")
