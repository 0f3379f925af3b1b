"""Packages that two owners need: they come with the first and go with the last, whoever that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import play
from trainyard.containers import Lab

pytestmark = pytest.mark.nodes


def wanted(owner: str, name: str, state: str = "present") -> dict[str, Any]:
    return {
        "name": f"{owner} {state}",
        "trainyard.core.packages": {"name": [name] if name else [], "owner": owner, "dependencies": True, "state": state},
    }


def package_list(node: Lab) -> set[str]:
    return set(node.execute("head", ["dpkg-query", "-W", "-f", "${binary:Package} ${db:Status-Abbrev}\n"]).splitlines())


@pytest.mark.parametrize("order", [("one", "other"), ("other", "one")])
def test_what_came_along_with_two_goes_with_the_last(node: Lab, tmp_path: Path, order: tuple[str, str]) -> None:
    before = package_list(node)
    # cpp-12 and cpp-11 share libraries, which come along with the first.
    done = play(node, tmp_path, [wanted("one", "cpp-12"), wanted("other", "cpp-11")])
    assert done.status == 0, done.text
    first = play(node, tmp_path, [wanted(order[0], "", "absent")])
    assert first.status == 0, first.text
    assert len(package_list(node) - before) > 1, "what the other needs stays"
    last = play(node, tmp_path, [wanted(order[1], "", "absent")])
    assert last.status == 0, last.text
    assert package_list(node) == before
    assert play(node, tmp_path, [wanted(owner, "", "absent") for owner in order]).changed == {"head": 0}
