"""Files and folders that are the same under any umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.trainyard.core.plugins.module_utils._host import files


@pytest.fixture(params=[0o000, 0o022, 0o027, 0o077], autouse=True)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_folder_that_is_made_has_its_mode(tmp_path: Path) -> None:
    files.make_folders(tmp_path / "a" / "b" / "c", 0o700)
    assert [mode(tmp_path / each) for each in ("a", "a/b", "a/b/c")] == [0o755, 0o755, 0o700]
    files.make_folders(tmp_path / "a" / "b" / "c")
    assert mode(tmp_path / "a" / "b" / "c") == 0o700, "one that exists stays as it is"


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(FileExistsError):
        files.make_folders(tmp_path / "a")


def test_a_file_and_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "x.conf"
    files.write(path, "one\n", 0o644)
    files.write(str(path), "two\n", 0o640)
    assert (path.read_text(), mode(path), mode(path.parent)) == ("two\n", 0o640, 0o755)
    assert os.listdir(path.parent) == ["x.conf"]
