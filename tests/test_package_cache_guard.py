"""What keeps the cache of packages within its size, on folders of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from trainyard.paths import REPOSITORY

SOURCE = REPOSITORY / "roles/package_cache/files/package_cache_guard.py"
MIB = 1024**2


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The program as a module; no daemon runs, and the disk has room."""
    spec = importlib.util.spec_from_file_location("package_cache_guard", SOURCE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "package_cache_guard", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "daemons", lambda: iter(()))
    return module


def package(folder: Path, name: str, used: int, mebibytes: int = 1) -> Path:
    """Make a package as the cache keeps it, last used at some second."""
    path = folder / "archive" / name
    path.parent.mkdir(exist_ok=True)
    for each, text in ((path, b"x" * mebibytes * MIB), (Path(f"{path}.head"), b"HTTP/1.1 200 OK")):
        each.write_bytes(text)
        os.utime(each, (used, used))
    return path


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_what_fits_stays(guard: types.ModuleType, tmp_path: Path) -> None:
    package(tmp_path, "a.deb", 1)
    assert guard.look(tmp_path, 10 * MIB, 0) == 0
    assert left(tmp_path) == {"a.deb", "a.deb.head"}


def test_what_was_used_longest_ago_goes_first_with_what_was_written_about_it(guard: types.ModuleType, tmp_path: Path) -> None:
    for number in range(8):
        package(tmp_path, f"{number}.deb", used=100 - number)
    assert guard.look(tmp_path, 5 * MIB, 0) > 3 * MIB
    assert left(tmp_path) == {name for number in range(4) for name in (f"{number}.deb", f"{number}.deb.head")}
    assert guard.look(tmp_path, 5 * MIB, 0) == 0, "steady"


def test_small_files_count_as_the_inodes_that_they_use_up(guard: types.ModuleType, tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"{number}.deb").write_bytes(b"x")
    guard.look(tmp_path, MIB, 0)
    assert len(left(tmp_path)) < MIB // guard.ENTRY


def test_the_disk_keeps_room_for_others(guard: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for number in range(4):
        package(tmp_path, f"{number}.deb", used=100 - number)
    monkeypatch.setattr(guard, "free", lambda _folder: 10 * MIB)
    guard.look(tmp_path, 100 * MIB, 12 * MIB)
    assert left(tmp_path) == {"0.deb", "0.deb.head", "1.deb", "1.deb.head"}


def test_a_daemon_that_holds_what_was_removed_is_ended(guard: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = package(tmp_path, "slow.deb", 1, mebibytes=8)
    with subprocess.Popen(
        [sys.executable, "-c", f"open({str(path)!r}); f = open({str(path)!r}); print(1, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as daemon:
        assert daemon.stdout
        daemon.stdout.readline()
        monkeypatch.setattr(guard, "daemons", lambda: iter([daemon.pid]))
        guard.look(tmp_path, 20 * MIB, 0)
        assert daemon.poll() is None
        path.unlink()
        assert guard.held(tmp_path, daemon.pid) >= 8 * MIB
        guard.look(tmp_path, 20 * MIB, 0)
        assert daemon.wait(10) == -15


@pytest.mark.parametrize(("text", "expected"), [("20G", 20 * 1024**3), ("500M", 500 * MIB), ("1T", 1024**4)])
def test_sizes(guard: types.ModuleType, text: str, expected: int) -> None:
    assert guard.size(text) == expected
