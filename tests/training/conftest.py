"""The training tools make their process private; a test of them leaves the next one as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from trainyard_training import modes


@pytest.fixture(autouse=True)
def same_umask(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give back umask and environment."""
    monkeypatch.setenv(modes.VARIABLE, "022")
    before = os.umask(0o022)
    yield
    os.umask(before)
