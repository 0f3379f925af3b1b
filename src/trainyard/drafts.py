"""A changed inventory: tried as a draft beside the file, shown, and put in its place."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainyard.progress import console


@contextmanager
def draft(path: Path, text: str) -> Iterator[Path]:
    """Write a text beside an inventory's file, so that its variables count, and remove it afterwards.

    Ansible does not read a hidden file of a folder by itself.
    """
    beside = path.with_name(f".{path.stem}.draft.yml")
    try:
        beside.write_text(text)
        yield beside
    finally:
        beside.unlink(missing_ok=True)


def show_change(path: Path, before: str, after: str) -> None:
    """Show what will stand in the inventory."""
    for line in difflib.unified_diff(before.splitlines(), after.splitlines(), str(path), f"{path} (new)", n=2, lineterm=""):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def replace(path: Path, text: str) -> None:
    """Put a text into a file in one step, with the file's mode."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text)
    beside.chmod(path.stat().st_mode & 0o7777)
    beside.rename(path)
