# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Tests of whether a change in a folder is noticed."""

from __future__ import annotations

import os

from ansible_collections.trainyard.core.plugins.module_utils._file_manifest import manifest


def test_changes_are_noticed(tmp_path):
    """A new file, another size, another time; not what is left out, nor in which order folders are read."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("one")

    def now():
        return manifest(tmp_path, lambda path: path == "/left-out")

    first = now()
    (tmp_path / "left-out").write_text("")
    assert now() == first
    (tmp_path / "a" / "other").write_text("")
    second = now()
    assert second != first
    (tmp_path / "a" / "other").unlink()
    assert now() == first
    os.utime(tmp_path / "a" / "file", ns=(1, 1))
    assert now() != first
