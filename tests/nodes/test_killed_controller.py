"""A sample of the sweep: the controller killed at some boundaries; `./trainyard test --faults` visits them all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import sweep
from trainyard.lab import lab

pytestmark = pytest.mark.nodes

# Services but no framework: every daemon has its part, and a round is short.
SMALL = {**sweep.VARIABLES, "framework_env_environments": [], "framework_env_compile": False}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number of changes and end state of a run that nobody disturbs."""
    here = sweep.bare("killed-sample", tmp_path_factory.mktemp("undisturbed"), wheelhouse(), SMALL)
    changes = here.whole()["head"]
    yield changes, here.state()
    here.lab.down()


def wheelhouse() -> Path:
    return next(iter(lab().mounts))


@pytest.mark.parametrize("part", [0.3, 0.75], ids=["early", "late"])
def test_a_plain_rerun_brings_the_undisturbed_state(undisturbed: tuple[int, dict[str, Any]], tmp_path: Path, part: float) -> None:
    changes, state = undisturbed
    assert sweep.check("killed-sample", tmp_path, wheelhouse(), max(1, round(changes * part)), state, SMALL)
