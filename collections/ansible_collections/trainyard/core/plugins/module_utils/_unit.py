# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""What systemd says of a unit, and whether its process runs with what lies on disk now."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NeedDaemonReload",
    "FragmentPath",
    "DropInPaths",
    "ExecMainStartTimestamp",
    "ExecMainStartTimestampMonotonic",
    "ActiveEnterTimestampMonotonic",
    "Triggers",
)


@dataclass(frozen=True)
class Unit:
    """The part of ``systemctl show`` that decides what is to be done.

    Attributes:
        active: it runs, or is about to for the first time.
        idle: nothing runs and nothing will by itself. A service that waits to be started again is neither active nor idle.
        started: when the main process, or a unit without one, was started, in seconds of CLOCK_MONOTONIC; 0 when it never was.
        files: the unit's own files on disk.
        triggers: the units that it starts, such as a socket's service.
    """

    loaded: bool
    active: bool
    idle: bool
    enabled: bool
    needs_reload: bool
    started: float
    files: tuple[str, ...]
    triggers: tuple[str, ...] = ()


def parse_show(text: str) -> Unit:
    """Read ``systemctl show --property=...`` of one unit."""
    values = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
    files = [path for path in [values.get("FragmentPath", ""), *values.get("DropInPaths", "").split()] if path]
    return Unit(
        loaded=values.get("LoadState") == "loaded",
        # A service that crashes and waits to be started again is "activating"; it does not run.
        active=values.get("ActiveState") in {"active", "reloading", "activating"} and values.get("SubState") != "auto-restart",
        idle=values.get("ActiveState") in {"inactive", "failed"},
        enabled=values.get("UnitFileState") in {"enabled", "static", "alias", "generated", "indirect"},
        needs_reload=values.get("NeedDaemonReload") == "yes",
        started=int(values.get("ExecMainStartTimestampMonotonic", values.get("ActiveEnterTimestampMonotonic")) or 0) / 1e6,
        files=tuple(files),
        triggers=tuple(values.get("Triggers", "").split()),
    )


def unseen_dropins(name: str, files: Iterable[str], root: str = "/etc/systemd/system") -> list[str]:
    """Return drop-ins of a unit that systemd has not read: of a folder that is new it knows nothing, nor says that a reload is due."""
    try:
        entries = sorted(os.listdir(os.path.join(root, name + ".d")))
    except FileNotFoundError:
        return []
    there = [os.path.join(root, name + ".d", entry) for entry in entries if entry.endswith(".conf")]
    return [path for path in there if path not in set(files)]


def changed_after(started: float, paths: Iterable[str], monotonic: float, wall: float) -> list[str]:
    """Return the paths whose inode changed after ``started``, or that are gone.

    The change time (ctime) is compared, which a copied modification time cannot fake.

    Args:
        started: start of the process, seconds of CLOCK_MONOTONIC.
        paths: files, or folders, of which every file counts.
        monotonic: CLOCK_MONOTONIC now.
        wall: CLOCK_REALTIME now; turns the one clock into the other even where the wall clock was set meanwhile.
    """
    since = wall - (monotonic - started)
    later = []
    for path in paths:
        try:
            times = [os.stat(each).st_ctime for each in _with_files(path)]
        except FileNotFoundError:
            later.append(path)
            continue
        if max(times) > since:
            later.append(path)
    return later


def date_back(paths: Iterable[str], wall: float) -> None:
    """Give what was written while the clock was ahead the time of now, so that it does not look changed until that hour comes.

    Args:
        paths: as for :func:`changed_after`.
        wall: CLOCK_REALTIME now.
    """
    for path in paths:
        with suppress(FileNotFoundError):
            for each in _with_files(path):
                status = os.stat(each)
                if status.st_ctime > wall:
                    os.chmod(each, stat.S_IMODE(status.st_mode))


def _with_files(path: str) -> list[str]:
    return [path, *(entry.path for entry in os.scandir(path))] if os.path.isdir(path) else [path]
