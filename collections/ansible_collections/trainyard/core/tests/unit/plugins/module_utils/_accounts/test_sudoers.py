# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""The file of sudo that makes admins."""

from __future__ import annotations

from ansible_collections.trainyard.core.plugins.module_utils._accounts import sudoers
from ansible_collections.trainyard.core.plugins.module_utils._host import session_limits


def test_the_file_names_each_admin_once_and_is_read_back() -> None:
    text = sudoers.text(["bob.smith", "BOSS", "bob.smith"])
    assert text.splitlines()[1:] == ['"bob.smith" ALL=(ALL:ALL) NOPASSWD: ALL', '"BOSS" ALL=(ALL:ALL) NOPASSWD: ALL']
    assert sudoers.names(text) == ["bob.smith", "BOSS"]
    assert sudoers.text([]) == ""


def test_lines_of_others_make_no_admin_of_ours() -> None:
    assert (
        sudoers.names('eve ALL=(ALL:ALL) NOPASSWD: ALL\n# "eve" ALL=(ALL:ALL) NOPASSWD: ALL\n"eve" ALL=(ALL:ALL) NOPASSWD: /bin/ls\n') == []
    )


def test_the_limits_on_sessions_know_such_an_admin() -> None:
    # What cvtsudoers of sudo 1.9.13 prints of the line.
    rules = """{"User_Specs": [{"User_List": [{"username": "BOSS"}], "Host_List": [{"hostname": "ALL"}], "Cmnd_Specs": [
        {"runasusers": [{"username": "ALL"}], "runasgroups": [{"usergroup": "ALL"}], "Options": [{"authenticate": false}, {"setenv": true}],
         "Commands": [{"command": "ALL"}]}]}]}"""
    assert session_limits.trusted(rules) == (["BOSS"], [])
