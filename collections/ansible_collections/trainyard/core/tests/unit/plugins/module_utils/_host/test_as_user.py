# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Work with a user's rights."""

from __future__ import annotations

import os
import pwd
import time
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.module_utils._host import as_user

NOBODY = pwd.getpwnam("nobody")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root takes another user's rights")
def test_it_has_the_users_rights_and_no_others() -> None:
    def look() -> dict[str, Any]:
        return {"ids": [*os.getresuid(), *os.getresgid()], "groups": os.getgroups(), "reads": os.access("/etc/shadow", os.R_OK)}

    found = as_user.run(NOBODY, look)
    assert found["ids"] == [NOBODY.pw_uid] * 3 + [NOBODY.pw_gid] * 3
    assert 0 not in found["groups"]
    assert not found["reads"]
    assert os.geteuid() == 0


def test_an_error_and_a_hang_are_said() -> None:
    def fail() -> dict[str, Any]:
        raise PermissionError("not yours")

    def hang() -> dict[str, Any]:
        time.sleep(60)
        return {}

    me = pwd.getpwuid(os.geteuid())
    with pytest.raises(as_user.UserError, match="not yours"):
        as_user.run(me, fail)
    with pytest.raises(as_user.UserError, match="it took too long"):
        as_user.run(me, hang, seconds=0.2)
    with pytest.raises(as_user.UserError, match="without a result"):
        as_user.run(me, lambda: os._exit(1))
    assert as_user.run(me, lambda: {"much": "x" * 200000})["much"] == "x" * 200000
