"""Which packages a tree takes, in which versions, and when it is whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _package_trees as core

# As apt-cache prints it, the newest first; the last one is what dpkg knows of, without an archive.
SHOWN = """Package: cuda-toolkit-12-9
Version: 12.9.1-1
Architecture: amd64
Installed-Size: 10
Depends: cuda-nvcc-12-9 (>= 12.9.86), cuda-libraries-dev-12-9 (>= 12.9.1), cuda-toolkit-12-9-config-common (= 12.9.79-1), cuda-nsight-12-9
Filename: ./cuda-toolkit-12-9_12.9.1-1_amd64.deb
Size: 3000
SHA256: 00
Description: stand-in
 Depends: on nothing more

Package: cuda-toolkit-12-9
Version: 12.9.0-1
Depends: cuda-nvcc-12-9 (>= 12.9.41)
Filename: ./cuda-toolkit-12-9_12.9.0-1_amd64.deb
Size: 3000

Package: cuda-toolkit-12-9
Version: 12.9.0-0
Status: install ok installed
"""
REST = """Package: cuda-nvcc-12-9
Version: 12.9.100-1
Filename: ./c
Size: 1

Package: cuda-nvcc-12-9
Version: 12.9.86-1
Depends: cuda-crt-12-9, libc6 (>= 2.17), build-essential | cuda-cpp-12-9, cuda-toolkit-config-common (>= 12.9.79)
Filename: ./c
Size: 1

Package: cuda-nvcc-12-9
Version: 12.9.41-1
Filename: ./c
Size: 1

Package: cuda-libraries-dev-12-9
Version: 12.9.1-1
Depends: cuda-crt-12-9 (<< 12.9.90)
Filename: ./c
Size: 1

Package: cuda-crt-12-9
Version: 12.9.100-1
Filename: ./c

Package: cuda-crt-12-9
Version: 12.9.86-1
Filename: ./c

Package: cuda-toolkit-12-9-config-common
Version: 12.9.79-1
Filename: ./c

Package: cuda-cpp-12-9
Version: 1
Filename: ./c
"""
WANTED = core.Wanted("12.9", True, "cuda-toolkit-12-9", "12.9.1-*", ("*-12-9", "*-12-9-*"), ("*nsight*",))


def compare(one: str, how: str, other: str) -> bool:
    """Compare versions of numbers alone; a missing revision is the least."""
    left, right = ([int(part) for part in version.replace("-", ".").split(".")] for version in (one, other))
    return {"<<": left < right, "<=": left <= right, "=": left == right, ">=": left >= right, ">>": left > right}[how]


def select(wanted: core.Wanted, shown: str = SHOWN + "\n" + REST) -> dict[str, str]:
    known = core.parse_offers(shown)

    def offers(names: Sequence[str]) -> Mapping[str, Sequence[core.Offer]]:
        return {name: known[name] for name in names if name in known}

    return {one.name: one.version for one in core.select(wanted, offers, compare)}


def test_what_apt_shows_is_read_and_what_cannot_be_fetched_is_passed_over() -> None:
    newest, older = core.parse_offers(SHOWN)["cuda-toolkit-12-9"]
    assert (newest.version, newest.archive, newest.installed, older.version) == ("12.9.1-1", 3000, 10240, "12.9.0-1")
    assert newest.needs[2] == (("cuda-toolkit-12-9-config-common", "=", "12.9.79-1"),)
    assert newest.needs[3] == (("cuda-nsight-12-9", "", ""),)
    assert core.parse_needs("aa:any (>= 1) | bb, cc [amd64]") == ((("aa", ">=", "1"), ("bb", "", "")), (("cc", "", ""),))


def test_each_part_is_the_one_that_the_release_came_with_and_other_names_are_never_followed() -> None:
    assert select(WANTED) == {
        "cuda-toolkit-12-9": "12.9.1-1",
        "cuda-nvcc-12-9": "12.9.86-1",
        "cuda-libraries-dev-12-9": "12.9.1-1",
        "cuda-crt-12-9": "12.9.86-1",
        "cuda-toolkit-12-9-config-common": "12.9.79-1",
        "cuda-cpp-12-9": "1",
    }
    older = core.Wanted("12.9", True, "cuda-toolkit-12-9", "12.9.0-*", WANTED.follow, WANTED.without)
    assert select(older) == {"cuda-toolkit-12-9": "12.9.0-1", "cuda-nvcc-12-9": "12.9.41-1"}


def test_a_release_or_a_part_that_is_not_there_is_said_with_what_is() -> None:
    with pytest.raises(
        core.PackageTreeError, match=r"cuda-toolkit-12-9 has to have the version 12\.9\.2-\*, .*known are 12\.9\.1-1, 12\.9\.0-1"
    ):
        select(core.Wanted("12.9", True, "cuda-toolkit-12-9", "12.9.2-*"))
    with pytest.raises(core.PackageTreeError, match=r"cuda-toolkit-12-9 needs cuda-nvcc-12-9 >= 12\.9\.86.*known are none"):
        select(WANTED, SHOWN)


def test_a_tree_is_whole_until_a_file_is_altered_added_or_lost_or_another_wish_comes(tmp_path: Path) -> None:
    assert core.differences(tmp_path, WANTED, "cuda") == ["make it"]
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr/one").write_text("1")
    (tmp_path / "usr/two").symlink_to("one")
    (tmp_path / core.RECORD).write_text(core.record(WANTED, "cuda", [core.Offer("a", "1")], core.inventory(tmp_path)))
    assert core.differences(tmp_path, WANTED, "cuda") == []
    assert core.read_record(tmp_path, "cuda")["packages"] == {"a": "1"}
    assert core.differences(tmp_path, WANTED, "other") == ["make it"]
    assert core.differences(tmp_path, core.Wanted("12.9", True, "cuda-toolkit-12-9", "12.9.0-*"), "cuda") == [
        "make it of cuda-toolkit-12-9 12.9.0-*"
    ]
    (tmp_path / "usr/one").write_text("12")
    (tmp_path / "usr/two").unlink()
    (tmp_path / "usr/more").write_text("")
    assert core.differences(tmp_path, WANTED, "cuda") == ["mend usr/more", "mend usr/one", "mend usr/two"]
