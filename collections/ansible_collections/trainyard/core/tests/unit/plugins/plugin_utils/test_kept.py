# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tests of what is kept on the controller's disk."""

from __future__ import annotations

from ansible_collections.trainyard.core.plugins.plugin_utils import _kept
from ansible_collections.trainyard.core.plugins.plugin_utils._kept import Kept


def compiled(text):
    """Compile a text."""
    return compile(text, "<module>", "exec")


def never(text):
    """Stand for something that is not to be made again."""
    raise AssertionError(text)


def test_it_is_made_once(tmp_path):
    """The second one comes from the disk, in another process, too."""
    first = Kept(tmp_path / "kept").get("exec", b"import os", compiled)
    second = Kept(tmp_path / "kept").get("exec", b"import os", never)
    assert first == second
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700


def test_another_source_kind_or_type_is_another_thing(tmp_path):
    """Nothing is taken for something else."""
    kept = Kept(tmp_path)
    assert kept.get("length", "four", len) == 4
    assert kept.get("length", "three", len) == 5
    assert kept.get("upper", "four", str.upper) == "FOUR"
    assert kept.get("upper", b"four", bytes.upper) == b"FOUR"


def test_a_damaged_file_is_made_anew(tmp_path):
    """A power cut may leave a file that is empty, or half of it."""
    kept = Kept(tmp_path)
    kept.get("exec", "import os", compiled)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"\xff"):
        path.write_bytes(damaged)
        assert kept.get("exec", "import os", compiled).co_names == ("os",)
        assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_is_no_reason_to_stop(tmp_path):
    """Where nothing can be kept, it is made each time."""
    (tmp_path / "file").write_text("")
    assert Kept(tmp_path / "file" / "kept").get("length", "four", len) == 4


def test_it_does_not_grow_for_ever(tmp_path, monkeypatch):
    """At its limit it starts anew."""
    monkeypatch.setattr(_kept, "LIMIT", 3)
    kept = Kept(tmp_path / "kept")
    for number in range(10):
        assert kept.get("length", "x" * number, len) == number
        assert len(list((tmp_path / "kept").iterdir())) <= 3
