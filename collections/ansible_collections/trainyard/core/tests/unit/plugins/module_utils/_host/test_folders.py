# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Where root must not work: on a way in which others can put a link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.trainyard.core.plugins.module_utils._host import folders

ME = os.geteuid()


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A folder that only this process's user may write; the folders above it are system ones, or this user's."""
    tmp_path.chmod(0o755)
    return tmp_path


def who(path: Path) -> str:
    return folders.who_else(str(path), root=ME)


def test_a_way_that_is_roots_alone(top: Path) -> None:
    (top / "a" / "b").mkdir(parents=True)
    assert who(top / "a" / "b" / "new") == ""
    assert who(top / "a" / "not" / "there") == ""
    assert who(top / "a" / ".." / "a" / "b") == ""


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o2775])
def test_a_folder_that_others_may_write_is_named(top: Path, mode: int) -> None:
    (top / "open").mkdir()
    (top / "open").chmod(mode)
    assert who(top / "open" / "logs") == str(top / "open")
    assert who(top / "open") == "", "the folder itself may belong to anybody"


def test_in_a_sticky_folder_what_is_roots_is_safe_and_what_is_missing_is_not(top: Path) -> None:
    (top / "tmp").mkdir()
    (top / "tmp").chmod(0o1777)
    (top / "tmp" / "ours").mkdir()
    assert who(top / "tmp" / "ours") == ""
    assert who(top / "tmp" / "ours" / "new") == ""
    assert who(top / "tmp" / "new") == str(top / "tmp")


def test_links_of_roots_are_followed_to_where_they_lead(top: Path) -> None:
    (top / "open").mkdir()
    (top / "open").chmod(0o777)
    (top / "inner").mkdir()
    (top / "way").symlink_to("open")
    (top / "good").symlink_to(top / "inner")
    (top / "round").symlink_to("round")
    assert who(top / "way" / "logs") == str(top / "open")
    assert who(top / "good" / "logs") == ""
    with pytest.raises(folders.FolderError, match="links in a circle"):
        who(top / "round" / "x")


def test_a_link_is_no_folder(top: Path) -> None:
    (top / "link").symlink_to(top)
    with pytest.raises(folders.FolderError, match="is a link or a file"), folders.opened(str(top / "link")):
        pass


@pytest.mark.skipif(ME != 0, reason="only root gives files away")
def test_content_is_given_without_following_links(top: Path) -> None:
    outside = top / "outside"
    outside.write_text("root's")
    home = top / "home"
    (home / "deep" / "er").mkdir(parents=True)
    (home / "deep" / "file").write_text("x")
    (home / "link").symlink_to(outside)
    (home / "folder").symlink_to(top)
    with folders.opened(str(home)) as descriptor:
        folders.give_content(descriptor, 4321, 4322)
    assert outside.stat().st_uid == 0
    assert top.stat().st_uid == 0
    assert home.stat().st_uid == 0, "the folder itself comes last, by its descriptor"
    for path in (home / "deep", home / "deep" / "er", home / "deep" / "file", home / "link", home / "folder"):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (4321, 4322), path
