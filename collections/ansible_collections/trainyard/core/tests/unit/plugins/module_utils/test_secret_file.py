# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Files that nobody else can read at any moment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _secret_file as secret_file


def test_a_file_that_is_not_there_reads_as_nothing(tmp_path: Path) -> None:
    assert secret_file.read(str(tmp_path / "none")) == ""
    assert not secret_file.is_private(str(tmp_path / "none"))


def test_written_whole_and_private_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "secret"
    old = os.umask(0)
    try:
        secret_file.write(str(path), "x\n")
    finally:
        os.umask(old)
    assert (path.read_text(), path.stat().st_mode & 0o7777) == ("x\n", 0o600)
    assert secret_file.is_private(str(path))
    assert [entry.name for entry in path.parent.iterdir()] == ["secret"]


def test_a_file_that_others_may_read_is_not_private(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("x")
    path.chmod(0o640)
    assert not secret_file.is_private(str(path))


def test_what_a_killed_run_left_is_replaced(tmp_path: Path) -> None:
    left = tmp_path / ".secret.new"
    left.write_text("half of someth")
    left.chmod(0o644)
    secret_file.write(str(tmp_path / "secret"), "whole\n")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("secret", "whole\n")]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("")
    (tmp_path / ".secret.new").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match=r"symbolic links|Symbolic link|loop"):
        secret_file.write(str(tmp_path / "secret"), "x")
    assert (tmp_path / "target").read_text() == ""
