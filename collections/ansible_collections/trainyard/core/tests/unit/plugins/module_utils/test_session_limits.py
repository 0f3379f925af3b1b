"""Limits on login sessions: the files, who is free of them, and whom they would hit."""

from __future__ import annotations

import json

import pytest
from ansible_collections.trainyard.core.plugins.module_utils._host import session_limits as core

GIB = 2**30
LIMITS = core.Limits("50%", 4096, 50)
NEW = core.Usage(memory=GIB, tasks=20, memory_limit=core.NONE, tasks_limit=core.NONE)


@pytest.mark.parametrize(
    ("memory", "expected"), [("50%", 8 * GIB), ("3G", 3 * GIB), ("512M", GIB // 2), ("4096", 4096), ("infinity", core.NONE)]
)
def test_memory_is_read_as_systemd_reads_it(memory: str, expected: int) -> None:
    assert core.Limits(memory, 1, 1).bytes(16 * GIB) == expected


@pytest.mark.parametrize(
    ("memory", "tasks", "weight", "message"),
    [
        ("half", 4096, 50, "session_limits_memory: 'half' is not an amount of memory. Use bytes such as 16G"),
        ("50%\nTasksMax=1", 4096, 50, "is not an amount of memory"),
        ("120%", 4096, 50, "session_limits_memory: '120%' is not between 5% and 100%."),
        ("64M", 4096, 50, "session_limits_memory: '64M' is too little to log in"),
        ("50%", 20, 50, "session_limits_tasks: 20 processes are too few"),
        ("50%", 4096, 0, "session_limits_cpu_weight: 0 is not between 1 and 10000."),
    ],
)
def test_what_no_session_could_live_with_is_refused_by_name(memory: str, tasks: int, weight: int, message: str) -> None:
    (problem,) = core.problems(memory, tasks, weight)
    assert message in problem


@pytest.mark.parametrize("memory", ["50%", "16G", "256M", "infinity"])
def test_ordinary_limits_are_allowed(memory: str) -> None:
    assert core.problems(memory, 4096, 50) == []


def test_what_would_be_ended_is_found() -> None:
    total = 16 * GIB
    assert core.over(NEW, LIMITS, total) == []
    assert core.over(core.Usage(9 * GIB, 20, core.NONE, core.NONE), LIMITS, total) == ["9.0 GiB of memory (limit 8.0)"]
    assert core.over(core.Usage(GIB, 5000, core.NONE, core.NONE), LIMITS, total) == ["5000 processes (limit 4096)"]
    assert core.over(core.Usage(int(7.9 * GIB), 20, core.NONE, core.NONE), LIMITS, total), "too close: it may grow meanwhile"


def test_who_fills_a_limit_up_does_not_get_rid_of_it() -> None:
    assert core.over(core.Usage(8 * GIB, 4096, 8 * GIB, 4096), LIMITS, 16 * GIB) == []


def test_a_limit_that_is_lowered_leaves_the_one_that_was_there() -> None:
    text = core.running(core.Usage(9 * GIB, 20, 12 * GIB, core.NONE))
    assert f"MemoryMax={12 * GIB}\n" in text
    assert "TasksMax=infinity\n" in text


def test_files_name_everybody_and_those_without_limits() -> None:
    files = core.wanted(LIMITS, {"root": 0, "admin": 1000}, {1001: NEW})
    assert list(files) == [
        "/run/systemd/system/user-1001.slice.d/70-trainyard-running.conf",
        "/etc/systemd/system/user-0.slice.d/60-trainyard-unlimited.conf",
        "/etc/systemd/system/user-1000.slice.d/60-trainyard-unlimited.conf",
        "/etc/systemd/system/user-.slice.d/50-trainyard.conf",
    ]
    assert "MemoryMax=50%\nMemorySwapMax=0\nTasksMax=4096\nCPUWeight=50\n" in files[core.EVERYBODY]
    assert core.wanted(None, {"root": 0}, {}) == {}


def test_sudo_tells_who_may_do_everything() -> None:
    everything = {"runasusers": [{"username": "ALL"}], "Commands": [{"command": "ALL"}]}
    one = {"runasusers": [{"username": "root"}], "Commands": [{"command": "/usr/sbin/reboot"}]}
    as_bob = {"runasusers": [{"username": "bob"}], "Commands": [{"command": "ALL"}]}
    rules = json.dumps(
        {
            "User_Specs": [
                {
                    "User_List": [{"username": "ops"}, {"usergroup": "wheel2"}, {"username": "not", "negated": True}],
                    "Cmnd_Specs": [everything],
                },
                {"User_List": [{"username": "alice"}], "Cmnd_Specs": [one, as_bob]},
                {"User_List": [{"username": "ALL"}], "Cmnd_Specs": [everything]},
            ]
        }
    )
    assert core.trusted(rules) == (["ops"], ["wheel2"])
    assert core.trusted("") == core.trusted("no json") == ([], [])


def test_systemd_reads_files_that_it_does_not_know_yet() -> None:
    shown = "Id=user-1001.slice\nNeedDaemonReload=no\nDropInPaths=/usr/lib/x.conf {0}\n"
    known = core.parse_slices(shown.format(core.EVERYBODY) + "\nId=user-.slice\nDropInPaths=\n")
    assert set(known) == {1001}
    files = core.wanted(LIMITS, {"root": 0}, {})
    assert not core.stale(known, files)
    assert core.stale(core.parse_slices(shown.format("")), files), "a run that was cut off after the files"
    assert core.stale(known, core.wanted(LIMITS, {"bob": 1001}, {}))
    assert core.stale(core.parse_slices(shown.replace("=no", "=yes").format(core.EVERYBODY)), files)
    assert core.stale({}, files), "nobody is logged in, so nobody knows"


def test_what_the_kernel_only_caches_does_not_count() -> None:
    assert core.held("anon 100\nfile 99999\nshmem 20\nslab_unreclaimable 3\n", "7") == 130
    assert core.held("cache 99999\nrss 1\ntotal_cache 99999\ntotal_rss 50\ntotal_shmem 5\n") == 55
    assert core.held("") == 0
    assert core.limit("max\n") == core.limit("") == core.NONE
    assert core.limit("4096\n") == 4096
