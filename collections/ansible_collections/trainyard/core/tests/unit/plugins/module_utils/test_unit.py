"""When a daemon runs with something older than what is on disk."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ansible_collections.trainyard.core.plugins.module_utils import _unit as systemd

SHOW = """\
LoadState=loaded
ActiveState=active
UnitFileState=enabled
NeedDaemonReload=no
FragmentPath=/etc/systemd/system/demo.service
DropInPaths=/etc/systemd/system/demo.service.d/a.conf /run/systemd/system/demo.service.d/b.conf
ExecMainStartTimestamp=Fri 2026-11-20 10:00:00 UTC
ExecMainStartTimestampMonotonic=81500000
"""


def test_a_units_state_and_files_are_read() -> None:
    unit = systemd.parse_show(SHOW)
    assert (unit.loaded, unit.active, unit.enabled, unit.needs_reload, unit.started) == (True, True, True, False, 81.5)
    assert unit.files[0] == "/etc/systemd/system/demo.service"
    assert len(unit.files) == 3


def test_a_unit_that_systemd_does_not_know() -> None:
    unit = systemd.parse_show("LoadState=not-found\nActiveState=inactive\nUnitFileState=\nExecMainStartTimestampMonotonic=0\n")
    assert (unit.loaded, unit.active, unit.enabled, unit.started, unit.files) == (False, False, False, 0.0, ())


def test_a_socket_has_no_process_and_knows_its_service() -> None:
    unit = systemd.parse_show(
        "LoadState=loaded\nActiveState=active\nSubState=listening\nUnitFileState=enabled\nTriggers=demo.service\n"
        "ActiveEnterTimestampMonotonic=81500000\nFragmentPath=/etc/systemd/system/demo.socket\n"
    )
    assert (unit.active, unit.started, unit.triggers) == (True, 81.5, ("demo.service",))
    assert systemd.parse_show(SHOW + "ActiveEnterTimestampMonotonic=99000000\n").started == 81.5, "of a service its process counts"


def test_a_service_that_crashes_in_a_loop_counts_neither_as_running_nor_as_idle() -> None:
    waits = systemd.parse_show("LoadState=loaded\nActiveState=activating\nSubState=auto-restart\n")
    assert (waits.active, waits.idle) == (False, False)
    starts = systemd.parse_show("LoadState=loaded\nActiveState=activating\nSubState=start\n")
    assert (starts.active, starts.idle) == (True, False)
    assert systemd.parse_show("LoadState=loaded\nActiveState=failed\nSubState=failed\n").idle


def test_only_files_that_changed_after_the_start_count(tmp_path: Path) -> None:
    folder = tmp_path / "conf.d"
    folder.mkdir()
    file = folder / "a.conf"
    file.write_text("1")
    now, wall = time.monotonic(), time.time()
    assert systemd.changed_after(now + 1, [str(file), str(folder)], now + 2, wall + 2) == []
    assert systemd.changed_after(now - 10, [str(file)], now, wall) == [str(file)]


def test_a_file_copied_with_an_old_modification_time_counts_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "a.conf"
    file.write_text("1")
    os.utime(file, (0, 0))
    assert systemd.changed_after(time.monotonic() - 10, [str(file)], time.monotonic(), time.time()) == [str(file)]


def test_a_file_inside_a_folder_and_a_missing_file_count(tmp_path: Path) -> None:
    (tmp_path / "new.conf").write_text("1")
    since = time.monotonic() - 10
    assert systemd.changed_after(since, [str(tmp_path)], time.monotonic(), time.time()) == [str(tmp_path)]
    assert systemd.changed_after(since, [str(tmp_path / "gone")], time.monotonic(), time.time()) == [str(tmp_path / "gone")]


def test_what_was_written_while_the_clock_was_ahead_counts_once(tmp_path: Path) -> None:
    file = tmp_path / "a.conf"
    file.write_text("1")
    earlier, paths = time.time() - 600, [str(file), str(tmp_path), str(tmp_path / "gone")]  # the clock was set back by ten minutes
    assert systemd.changed_after(time.monotonic(), paths[:2], time.monotonic(), earlier) == paths[:2]
    before = file.stat()
    time.sleep(0.02)  # as fine as the kernel dates files
    systemd.date_back(paths, earlier)
    after = file.stat()
    assert after.st_ctime > before.st_ctime
    assert (after.st_mode, after.st_mtime) == (before.st_mode, before.st_mtime)
    systemd.date_back(paths, time.time())
    assert file.stat().st_ctime == after.st_ctime, "what is not ahead stays as it is"


def test_a_drop_in_that_systemd_has_not_read_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "chrony.service.d"
    assert systemd.unseen_dropins("chrony.service", [], str(tmp_path)) == []
    folder.mkdir()
    (folder / "trainyard.conf").write_text("")
    (folder / "note.txt").write_text("")
    path = str(folder / "trainyard.conf")
    assert systemd.unseen_dropins("chrony.service", [], str(tmp_path)) == [path]
    assert systemd.unseen_dropins("chrony.service", [path], str(tmp_path)) == []
