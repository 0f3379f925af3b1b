"""What others say is shown, and does nothing to the terminal."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, strategies
from trainyard_training import text, watch


@pytest.mark.parametrize(
    "words, shown",
    [
        ("plain, with 中文 and é", "plain, with 中文 and é"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202eback\u2066wards", "\\u202eback\\u2066wards"),
        ("\udc80", "\\udc80"),
        ("\x7f\x00", "\\x7f\\x00"),
    ],
)
def test_what_acts_instead_of_being_seen_is_written_out(words: str, shown: str) -> None:
    assert text.printable(words) == shown


@pytest.mark.parametrize(
    "words, shown",
    [
        ("\x1b[1;38;5;196mred\x1b[0m\tand\r50%\n", "\x1b[1;38;5;196mred\x1b[0m\tand\r50%\n"),
        ("\x1b[2J\x1b[Hgone", "\\x1b[2J\\x1b[Hgone"),
        ("\x1b[6n", "\\x1b[6n"),
        ("\x1bPq\x1b\\", "\\x1bPq\\x1b\\"),
        ("\x1b]52;c;ZXZpbA==\x07", "\\x1b]52;c;ZXZpbA==\\x07"),
        ("\x08\x0b", "\\x08\\x0b"),
    ],
)
def test_a_log_keeps_its_colours_and_moves_no_cursor(words: str, shown: str) -> None:
    assert text.log(words) == shown


@given(strategies.text(strategies.characters()))
def test_nothing_else_ever_comes_through(words: str) -> None:
    assert not {unicodedata.category(letter) for letter in text.printable(words)} & text.UNSEEN
    rest = re.sub(r"\x1b\[[0-9;:]*m|[\t\r\n]", "", text.log(words))
    assert not {unicodedata.category(letter) for letter in rest} & text.UNSEEN


def test_a_log_that_is_followed_grows_its_bars_and_shows_its_lines(tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "node1.log").write_bytes(b"1%\r50%\r100%\n\x1b]0;owned\x07done\n")
    watch.Tails(tmp_path).show()
    assert capsys.readouterr().out == "[node1] 1%\r50%\r100%\n[node1] \\x1b]0;owned\\x07done\n"
