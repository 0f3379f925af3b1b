"""`trainyard undo` on a node: one role goes and the others stay, then the rest; nothing goes unasked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import inventory_of, tool
from trainyard.containers import Lab

pytestmark = pytest.mark.nodes

PACKAGE = "tree"
"""One that a fresh node has not."""
MESSAGE = "/etc/profile.d/trainyard-session-limits.sh"
"""What the role session_limits puts on every node, containers among them."""


def has(node: Lab, test: str) -> bool:
    return node.execute("head", ["sh", "-c", f"{test} >/dev/null && echo yes || true"]).strip() == "yes"


def test_one_role_goes_and_the_others_stay_then_everything(node: Lab, tmp_path: Path) -> None:
    inventory = inventory_of(node, tmp_path, {"base_packages": [PACKAGE], "base_groups": [{"name": "lab"}]})
    status, _text = tool(inventory, "apply", "--playbook", "playbooks/base.yml")
    assert status == 0
    assert has(node, f"cat {MESSAGE}")

    assert tool(inventory, "undo")[0] == 64, "nobody was asked"
    status, text = tool(inventory, "undo", "--check", "session_limits")
    assert status == 0
    assert "session_limits: Remove the message for users at a limit" in text
    assert has(node, f"cat {MESSAGE}")

    assert tool(inventory, "undo", "session_limits", "--yes")[0] == 0
    assert not has(node, f"cat {MESSAGE}")
    assert has(node, f"dpkg -s {PACKAGE}"), "the base stays"

    status, text = tool(inventory, "undo", "--yes")
    assert status == 0
    assert not has(node, f"dpkg -s {PACKAGE} | grep '^Status: install ok'")
    assert has(node, "getent group lab"), "groups are people's"
