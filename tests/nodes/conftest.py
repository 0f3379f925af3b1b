"""One container with systemd for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from trainyard.containers import Lab
from trainyard.paths import CHECKOUT


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of one node, `head`, taken down afterwards."""
    name = f"{request.path.stem}-{CHECKOUT}".replace("_", "-")
    lab = Lab(name, ["head"], tmp_path_factory.mktemp("lab"), say=lambda _text: None)
    lab.down()  # what an interrupted run left
    lab.up()
    yield lab
    lab.down()
