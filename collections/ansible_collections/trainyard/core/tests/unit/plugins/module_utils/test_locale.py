# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""The locale is set where nobody set one, and taken away again."""

from __future__ import annotations

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _locale

OURS = f"{_locale.MARK}LANG=C.UTF-8\nLANG=C.UTF-8\n"


@pytest.mark.parametrize("text", ["", "# a comment\n", "LANGUAGE=de\n", "LANG=\n", 'LANG=""\n', "#LANG=de_DE.UTF-8\n", "LC_TIME=C\n"])
def test_it_is_set_where_there_is_none_and_taken_away_again(text: str) -> None:
    after = _locale.renewed(text, [], "C.UTF-8")
    assert after == text + OURS
    assert _locale.renewed(after, [], "C.UTF-8") == after
    assert _locale.renewed(after, [], "") == text


@pytest.mark.parametrize("text", ["LANG=de_DE.UTF-8\n", 'LANG="de_DE.UTF-8"', "export LANG=C\n", "# x\n  LC_ALL=C\n"])
def test_one_that_somebody_set_is_never_overridden(text: str) -> None:
    assert _locale.renewed(text, [], "C.UTF-8") == text
    assert _locale.renewed("", ["PATH=/bin\n", text], "C.UTF-8") == ""


def test_one_that_somebody_sets_later_wins() -> None:
    changed = OURS.replace("\nLANG=C.UTF-8", "\nLANG=de_DE.UTF-8")
    assert _locale.renewed(changed, [], "C.UTF-8") == changed
    assert _locale.renewed(changed, [], "") == changed
    assert _locale.renewed(f"{OURS}LANG=de_DE.UTF-8\n", [], "C.UTF-8") == "LANG=de_DE.UTF-8\n"
    assert _locale.renewed(OURS, ["LANG=de_DE.UTF-8\n"], "C.UTF-8") == ""


def test_another_one_takes_its_place() -> None:
    assert _locale.renewed(OURS, [], "en_US.UTF-8") == OURS.replace("C.UTF-8", "en_US.UTF-8")


def test_a_file_without_a_last_line_break_gets_one() -> None:
    assert _locale.renewed("LANGUAGE=de", [], "C.UTF-8") == f"LANGUAGE=de\n{OURS}"
