# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""A user's keys, whatever the user has put in their place."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible_collections.trainyard.core.plugins.module_utils._ssh import user_keys

ONE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOne0000000000000000000000000000000000000000 alice@laptop"
TWO = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQTwo111111111111111111111111111111= bob"


def test_keys_are_added_once_and_others_stay() -> None:
    text = user_keys.merged("# mine\n" + TWO + "\n", [ONE, TWO])
    assert text == f"# mine\n{TWO}\n{ONE}\n"
    assert user_keys.merged(text, [ONE, TWO]) == text
    assert user_keys.merged("", []) == ""


def test_a_key_with_other_options_or_comment_is_replaced() -> None:
    other = ONE.replace("alice@laptop", "alice@desk")
    limited = f'from="192.0.2.7" {ONE}'
    assert user_keys.merged(f"{ONE}\n{TWO}\n{limited}\n", [other]) == f"{other}\n{TWO}\n"
    assert user_keys.merged(f"#{ONE}\n", [ONE]) == f"#{ONE}\n{ONE}\n", "a comment lets nobody in"


def test_other_keys_go_where_that_is_asked_for(tmp_path: Path) -> None:
    assert user_keys.merged(f"# mine\n{TWO}\n{ONE}\n", [ONE], exclusive=True) == f"# mine\n{ONE}\n"
    user_keys.ensure(str(tmp_path), [ONE, TWO], look=False)
    second = tmp_path / ".ssh" / "authorized_keys2"
    second.write_text(TWO + "\n")
    assert user_keys.ensure(str(tmp_path), [ONE], look=True, exclusive=True)["changed"]
    assert second.read_text() == TWO + "\n"
    done = user_keys.ensure(str(tmp_path), [ONE], look=False, exclusive=True)
    assert (done["changed"], done["before"].count("bob"), done["after"].count("bob")) == (True, 2, 0)
    assert (tmp_path / ".ssh" / "authorized_keys").read_text() == ONE + "\n"
    assert second.read_text() == ""
    assert not user_keys.ensure(str(tmp_path), [ONE], look=False, exclusive=True)["changed"]


def test_the_file_and_its_folder_are_the_users_alone(tmp_path: Path) -> None:
    assert user_keys.ensure(str(tmp_path), [ONE], look=True)["changed"]
    assert not (tmp_path / ".ssh").exists()
    assert user_keys.ensure(str(tmp_path), [ONE], look=False)["changed"]
    path = tmp_path / ".ssh" / "authorized_keys"
    assert path.read_text() == ONE + "\n"
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)] == [0o600, 0o700]
    assert not user_keys.ensure(str(tmp_path), [ONE], look=False)["changed"]
    assert os.listdir(path.parent) == ["authorized_keys"]


def test_a_link_in_the_place_of_the_file_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir(mode=0o755)
    (tmp_path / "other").write_text(TWO + "\n")
    (tmp_path / ".ssh" / "authorized_keys").symlink_to(tmp_path / "other")
    assert user_keys.ensure(str(tmp_path), [ONE], look=False)["changed"]
    assert (tmp_path / "other").read_text() == TWO + "\n"
    assert not (tmp_path / ".ssh" / "authorized_keys").is_symlink()


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    os.mkfifo(tmp_path / ".ssh" / "authorized_keys")
    with pytest.raises(OSError, match="no regular file"):
        user_keys.ensure(str(tmp_path), [ONE], look=False)
