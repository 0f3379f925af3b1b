"""New homes get the lab's mode; older ones are only reported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _homes as homes
from ansible_collections.trainyard.core.plugins.module_utils import _nfs as nfs


@pytest.mark.parametrize("mode", ["0750", "750", "0700", "0711", "0755"])
def test_modes_that_keep_others_from_writing_are_allowed(mode: str) -> None:
    assert homes.mode_problem(mode) == ""


@pytest.mark.parametrize(
    "mode, said",
    [
        ("0770", "'0770' would let others write"),
        ("0777", "'0777' would let others write"),
        ("488", "'488' is not a mode for homes. Write it in quotes"),  # what YAML makes of 0750 without quotes
        ("0650", "is not a mode for homes"),
        ("u=rwx", "is not a mode for homes"),
        ("", "is not a mode for homes"),
        ("0750\n", "is not a mode for homes"),
    ],
)
def test_other_modes_are_refused_by_the_variables_name(mode: str, said: str) -> None:
    assert homes.mode_problem(mode).startswith("base_home_mode: ")
    assert said in homes.mode_problem(mode)


def test_homes_that_are_more_open_are_named_with_user_path_and_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for user, mode in (("alice", 0o755), ("bob", 0o750), ("carol", 0o700), ("dan", 0o751)):
        (tmp_path / user).mkdir()
        (tmp_path / user).chmod(mode)
    monkeypatch.setattr(homes, "place", lambda user: str(tmp_path / user))
    there, missing = homes.found(["alice", "bob", "carol", "dan", "eve"])
    assert missing == ["eve"]
    open_ones = homes.too_open(there, 0o750)
    assert [home.user for home in open_ones] == ["alice", "dan"]
    said = homes.remark(open_ones, "0750")
    assert f"{tmp_path}/alice of alice (0755), {tmp_path}/dan of dan (0751)" in said
    assert "chmod 0750" in said
    assert homes.remark([], "0750") == ""


def test_a_new_home_is_closed_and_a_link_is_never_followed(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir(mode=0o755)
    homes.close(homes.Home("alice", str(tmp_path / "new"), 0o755), 0o750)
    assert (tmp_path / "new").stat().st_mode & 0o7777 == 0o750
    (tmp_path / "link").symlink_to(tmp_path / "new")
    with pytest.raises(OSError, match="Not a directory"):
        homes.close(homes.Home("bob", str(tmp_path / "link"), 0o755), 0o777)
    assert (tmp_path / "new").stat().st_mode & 0o7777 == 0o750


@pytest.mark.parametrize("text, users", [("", []), ('["alice"]', ["alice"]), ("x", []), ('{"a": 1}', [])])
def test_a_note_that_is_none_is_no_stumbling_block(text: str, users: list[str]) -> None:
    assert homes.noted(text) == users


def test_an_account_to_come_will_have_its_home_where_homes_are() -> None:
    assert homes.place("nobody-of-this-name") == "/home/nobody-of-this-name"
    assert homes.place("root") == "/root"


@pytest.mark.parametrize("mode, warned", [(0o2775, True), (0o3775, False), (0o777, True), (0o1777, False), (0o755, False), (0o2755, False)])
def test_a_shared_folder_without_its_sticky_bit_is_named(tmp_path: Path, mode: int, warned: bool) -> None:
    os.chown(tmp_path, 0, 100)
    tmp_path.chmod(mode)
    said = nfs.unsafe(str(tmp_path))
    assert bool(said) == warned
    assert f'mode: "{mode | 0o1000:04o}"' in said or not warned
    assert nfs.unsafe(str(tmp_path / "nowhere")) == ""
