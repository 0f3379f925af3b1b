"""The lab that `./trainyard up` made, and a browser in front of it."""

from __future__ import annotations

import pytest

from trainyard.containers import Lab
from trainyard.lab import lab


@pytest.fixture(scope="session")
def nodes() -> Lab:
    """The lab's nodes; says how to bring them up where there are none."""
    found = lab()
    found.execute("head", ["true"])
    return found
