"""How the strategy reaches a node over SSH: one Python there, started by sudo, and what happens where sudo wants a password."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import Play, play
from trainyard.containers import Lab

pytestmark = pytest.mark.nodes

PASSWORD = "transport canary 4711"
PYTHONS = "ps -eo user=,args= | sed -n 's/^\\([a-z]*\\) .*python3(mitogen:.*/\\1/p' | sort | uniq"


def ask(node: Lab, folder: Path, task: dict[str, Any], **variables: Any) -> tuple[list[str], Play]:
    """Run one task as root unless it says otherwise, and return the lines that its command printed."""
    done = play(node, folder, [{"name": "ask", **task}], **variables)
    return done.results.get(("ask", "head"), {}).get("stdout_lines", []), done


def test_sudo_starts_the_only_python_on_the_node(node: Lab, tmp_path: Path) -> None:
    said, done = ask(node, tmp_path, {"ansible.builtin.shell": PYTHONS})
    assert said == ["root"], done.text


def test_a_task_becomes_another_user(node: Lab, tmp_path: Path) -> None:
    said, done = ask(node, tmp_path, {"ansible.builtin.command": "id -un", "become_user": "nobody"})
    assert said == ["nobody"], done.text


def test_a_task_that_needs_no_root_is_the_login_users(node: Lab, tmp_path: Path) -> None:
    said, done = ask(node, tmp_path, {"ansible.builtin.command": "id -un", "become": False})
    assert said == ["admin"], done.text


def test_where_sudo_wants_a_password_it_is_told(node: Lab, tmp_path: Path) -> None:
    rule = "/etc/sudoers.d/admin"
    node.execute("head", ["sh", "-ec", f"echo 'admin:{PASSWORD}' | chpasswd; cp {rule} /root/rule; echo 'admin ALL=(ALL) ALL' >{rule}"])
    try:
        said, done = ask(node, tmp_path, {"ansible.builtin.command": "id -un"}, ansible_become_password=PASSWORD)
        assert said == ["root"], done.text
        assert PASSWORD not in done.text
        _said, refused = ask(node, tmp_path, {"ansible.builtin.command": "id -un"})
        assert refused.status != 0
        assert "sudo: a password is required" in refused.text
    finally:
        node.execute("head", ["mv", "/root/rule", rule])
