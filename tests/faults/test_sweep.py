"""Every boundary at which something has just changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import sweep
from trainyard.lab import lab

pytestmark = pytest.mark.faults


def test_killed_after_every_change_a_plain_rerun_brings_the_undisturbed_state(tmp_path: Path) -> None:
    wheelhouse = next(iter(lab().mounts))
    here = sweep.bare("faults", tmp_path, wheelhouse)
    changes = here.whole()["head"]
    undisturbed = here.state()
    here.lab.down()
    assert changes > 10
    failures, visited = [], []
    for after in range(1, changes + 1):
        try:
            task = sweep.check("faults", tmp_path, wheelhouse, after, undisturbed)
        except AssertionError as error:
            failures.append(str(error))
            continue
        visited.append(f"{after:3d} {task}")
        print(visited[-1], flush=True)
    assert not failures, "\n\n".join(failures)
    assert len(visited) == changes
