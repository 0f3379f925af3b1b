"""What is read out of dpkg's words and locks."""

from __future__ import annotations

import fcntl
import multiprocessing
from pathlib import Path

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _apt as apt

LISTING = "adduser\tii \nlibc6:amd64\tii \ntmux\trc \nscreen\tiU \nvim\tiF \nman-db\tit \nbroken\tiiR\n"


def test_status_is_found_by_the_plain_name_and_by_the_one_with_the_architecture() -> None:
    status = apt.parse_status(LISTING)
    assert status["libc6"] == status["libc6:amd64"] == "ii "


@pytest.mark.parametrize("letters,installed", [("ii ", True), ("hi ", True), ("rc ", False), ("iU ", False), ("iiR", False), ("", False)])
def test_only_a_configured_and_whole_package_counts_as_installed(letters: str, installed: bool) -> None:
    assert apt.is_installed(letters) is installed


def test_half_done_packages_are_named() -> None:
    assert apt.half_done(apt.parse_status(LISTING)) == ["broken", "man-db", "screen", "vim"]


def test_an_interrupted_dpkg_is_seen_from_its_journal(tmp_path: Path) -> None:
    assert not apt.interrupted(str(tmp_path / "none"))
    (tmp_path / "tmp.i").touch()
    assert not apt.interrupted(str(tmp_path))
    (tmp_path / "0004").touch()
    assert apt.interrupted(str(tmp_path))


def test_names_that_would_be_options_or_shell_are_refused() -> None:
    assert apt.invalid_names(["tmux", "libstdc++6", "libc6:i386", "-y", "tmux=1", "Tmux", "a;b"]) == ["-y", "tmux=1", "Tmux", "a;b"]


def _hold(path: str, ready: multiprocessing.synchronize.Event, let_go: multiprocessing.synchronize.Event) -> None:
    with open(path, "w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        ready.set()
        let_go.wait(30)


def test_a_lock_that_another_process_holds_is_waited_for_and_named(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    context = multiprocessing.get_context("fork")
    ready, let_go = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(str(lock), ready, let_go))
    holder.start()
    try:
        assert ready.wait(10)
        assert apt.wait_for_locks(0, [str(tmp_path / "missing"), str(lock)]) == str(lock)
        naps = []

        def nap(seconds: float) -> None:
            naps.append(seconds)
            let_go.set()
            holder.join(10)

        assert apt.wait_for_locks(60, [str(lock)], sleep=nap) == ""
        assert len(naps) == 1
    finally:
        let_go.set()
        holder.join(10)


def test_apts_words_for_a_held_lock_are_recognised() -> None:
    assert apt.says_locked("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4711 (apt-get)")
    assert apt.says_locked("dpkg: error: dpkg frontend lock was locked by another process with pid 3\nE: Unable to lock the directory")
    assert not apt.says_locked("E: Unable to locate package blocks")
