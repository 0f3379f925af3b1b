"""The lab that `./trainyard up` made, for a browser in front of it."""

from __future__ import annotations

import pytest

from trainyard.containers import Lab
from trainyard.lab import lab


@pytest.fixture(scope="session")
def nodes() -> Lab:
    """The lab's nodes."""
    found = lab()
    assert found.ssh_config.exists(), "There is no lab. Bring it up with: ./trainyard up"
    return found
