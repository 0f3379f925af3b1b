"""What .trainyardignore leaves out is what git would leave out."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies
from trainyard_training import ignored

NAMES = ("a", "b", "a.txt", "b c", "[a]", "!a", "#a", "a*")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the same names on three levels."""
    top: Path = tmp_path_factory.mktemp("tree")
    subprocess.run(["git", "init", "-q", top], check=True)
    (top / "d" / "a").mkdir(parents=True)
    (top / "ab").mkdir()
    for folder in (top, top / "d", top / "d" / "a", top / "ab"):
        for name in NAMES:
            if not (folder / name).exists():
                (folder / name).touch()
    return top


def walked(top: Path, patterns: str) -> set[str]:
    """Return the files that are not left out."""
    among = ignored.rules(patterns)
    found = set()
    for place, below, files in os.walk(top):
        inside = os.path.relpath(place, top).replace(os.sep, "/").removeprefix(".").removeprefix("/")
        below[:] = [name for name in below if name != ".git" and not ignored.left_out(f"{inside}/{name}".lstrip("/"), True, among)]
        found |= {path for name in files if not ignored.left_out(path := f"{inside}/{name}".lstrip("/"), False, among)}
    return found - {"patterns"}


def as_git(top: Path, patterns: str) -> set[str]:
    (top / ".git" / "info" / "exclude").write_text(patterns)
    words = ["git", "-C", str(top), "ls-files", "--others", "--exclude-standard", "-z"]
    return set(filter(None, subprocess.run(words, check=True, capture_output=True, text=True).stdout.split("\0")))


PATTERNS = [
    *("a", "/a", "a/", "d/a", "*.txt", "**/a", "d/**", "**/d/**/a", "d/**/a", "a*", "?", "**", "/**", "***", "d/*", "/", "//", " "),
    *("[ab]", "[!a]", "[a-b].txt", "[", "[]a]", "[]", "[^b]", "[a\\-]", "[[]a]", "\\[a\\]", "a\\*", "\\", "b\\ c", "b c  "),
    *("\\#a", "#a", "\\!a", "!a", "!/a", "!d/", "*", "!*/", "!d/a"),
]


@settings(max_examples=150)
@given(chosen=strategies.lists(strategies.sampled_from(PATTERNS), min_size=1, max_size=4))
def test_patterns_leave_out_what_git_leaves_out(tree: Path, chosen: list[str]) -> None:
    patterns = "\n".join(chosen) + "\n"
    assert walked(tree, patterns) == as_git(tree, patterns)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_pattern_alone_leaves_out_what_git_leaves_out(tree: Path, pattern: str) -> None:
    assert walked(tree, pattern + "\n") == as_git(tree, pattern + "\n")
