# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is made of source texts and comes out the same each time, kept on the controller's disk from one run to the next."""

from __future__ import annotations

import contextlib
import hashlib
import marshal
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT = 2000  # files; one playbook needs some 200


class Kept:
    """A folder of things made of source texts. Where it cannot be read or written they are made anew, and nothing is said.

    Attributes:
        folder: its path; only its owner may look into it.
    """

    def __init__(self, folder: Path) -> None:
        """Use a folder, which need not be there yet."""
        self.folder = folder

    def get(self, kind: str, source: str | bytes, make: Callable[[str | bytes], Any]) -> Any:
        """Return what is made of a source text: what was made of it before, else what `make` returns.

        Args:
            kind: tells apart what is made of the same text.
            source: the text.
            make: makes it; returns what marshal can write (texts, numbers, code).
        """
        text = source if isinstance(source, bytes) else source.encode("utf-8", "surrogateescape")
        name = hashlib.sha256(f"{kind} {type(source).__name__} {sys.version}\n".encode() + text).hexdigest()
        path = self.folder / name
        with contextlib.suppress(OSError, ValueError, EOFError, TypeError):
            return marshal.loads(path.read_bytes())
        made = make(source)
        with contextlib.suppress(OSError):
            self._write(path, marshal.dumps(made))
        return made

    def _write(self, path: Path, content: bytes) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if sum(1 for _entry in self.folder.iterdir()) >= LIMIT:  # made of sources that were changed since; cheap to make again
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as beside:
            beside.write(content)
        Path(beside.name).replace(path)
