# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Folders of kernels that an older release closed to users."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.trainyard.core.plugins.modules import jupyter_kernels


def test_only_folders_that_not_everybody_can_read_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "jupyter" / "kernels"
    (folder / "lab").mkdir(parents=True)
    (folder / "open").mkdir()
    for path, mode in ((folder.parent, 0o755), (folder, 0o750), (folder / "lab", 0o700), (folder / "open", 0o755)):
        path.chmod(mode)
    assert jupyter_kernels.closed(str(folder), ["lab", "open", "gone"]) == [str(folder), str(folder / "lab")]
