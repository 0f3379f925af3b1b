"""Every boundary at which something has just changed."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults import sweep
from trainyard.lab import lab

pytestmark = pytest.mark.faults


def test_killed_after_every_change_a_plain_rerun_brings_the_undisturbed_state(tmp_path: Path) -> None:
    wheelhouse = next(iter(lab().mounts))
    here = sweep.bare("faults", tmp_path / "undisturbed", wheelhouse)
    changes = here.whole()["head"]
    undisturbed = here.state()
    here.lab.down()
    assert changes > 10

    def boundary(after: int) -> str:
        """Return what is wrong after a kill there, '' when nothing is."""
        try:
            task = sweep.check(f"faults-{after}", tmp_path / str(after), wheelhouse, after, undisturbed)
        except AssertionError as error:
            return str(error)
        print(f"{after:3d} of {changes}  {task}", flush=True)
        return "" if task else f"there was no change {after}"

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        failures = [failure for failure in pool.map(boundary, range(1, changes + 1)) if failure]
    assert not failures, "\n\n".join(failures)
