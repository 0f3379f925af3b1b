"""Who may use the cache of packages."""

from __future__ import annotations

from ansible_collections.trainyard.core.plugins.module_utils import _package_cache as core

OTHERS = "# /etc/hosts.allow\nsshd: ALL\n"


def test_the_nodes_are_let_in_and_nobody_else_and_other_daemons_lines_stay() -> None:
    nodes = {"head": {"address": "192.0.2.1", "seen": True}, "node1": {"address": "2001:db8::1", "seen": False}}
    text = core.renewed(OTHERS, nodes)
    assert text == (
        f"{core.BEGIN}\n# head\napt-cacher-ng: 192.0.2.1 : ALLOW\n# node1\napt-cacher-ng: [2001:db8::1] : ALLOW\n"
        f"apt-cacher-ng: ALL : DENY\n{core.END}\n{OTHERS}"
    )
    assert core.renewed(text, nodes) == text
    assert core.renewed(text, {}) == OTHERS


def test_a_node_that_this_run_did_not_see_keeps_its_address_and_one_that_left_loses_it() -> None:
    before = core.renewed(
        "", {name: {"address": f"192.0.2.{number}", "seen": True} for number, name in enumerate(("head", "node1", "gone"))}
    )
    after = core.renewed(before, {"head": {"address": "192.0.2.9", "seen": True}, "node1": {"address": "", "seen": False}})
    assert "# node1\napt-cacher-ng: 192.0.2.1 : ALLOW\n" in after
    assert "192.0.2.9" in after
    assert "gone" not in after
    assert "192.0.2.0" not in after


def test_a_block_without_an_end_takes_nothing_of_somebody_elses_along() -> None:
    assert core.renewed(f"{core.BEGIN}\n{OTHERS}", {}) == OTHERS
