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


POLICY = """nvidia-driver-cuda:
  Installed: 575.57.08-1
  Candidate: 580.105.08-1
  Version table:
     590.44.01-1 50
         50 http://127.0.0.1/repos/debian12/x86_64  Packages
     580.105.08-1 1001
         50 http://127.0.0.1/repos/debian12/x86_64  Packages
 *** 575.57.08-1 100
        100 /var/lib/dpkg/status
gone:
  Installed: (none)
  Candidate: (none)
  Version table:
     1.0-1 -1
        500 http://x  Packages
"""


def test_what_apt_would_install_and_what_else_there_is() -> None:
    assert apt.parse_offers(POLICY) == {
        "nvidia-driver-cuda": ("580.105.08-1", ["590.44.01-1", "580.105.08-1", "575.57.08-1"]),
        "gone": ("", ["1.0-1"]),
    }
    assert apt.parse_offers("") == {}


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


# --- what needs what --------------------------------------------------------------------------------------------------

PACKAGES = apt.parse_packages(
    "driver\tii \tdriver-source\t\t, lib (= 1), support--v1, dkms (>= 3)\n"
    "lib\thi \tdriver-source\tlibdriver.so (= 1)\t, libc6\n"
    "support\tii \tsupport\tsupport--v1\t, \n"
    "dkms\tii \tdkms\t\t, gcc | clang, make:any\n"
    "gcc\tii \tgcc\tc-compiler\tlibc6 (>= 2), \n"
    "make\tii \tmake\t\t, libc6\n"
    "libc6\tii \tglibc\t\t, \n"
    "gone\trc \tgone\t\t, gcc\n"
)
ALONG = ["lib", "support", "dkms", "gcc", "make"]


def test_only_installed_packages_are_read_with_their_plain_needs() -> None:
    assert set(PACKAGES) == {"driver", "lib", "support", "dkms", "gcc", "make", "libc6"}
    assert PACKAGES["dkms"].depends == {frozenset({"gcc", "clang"}), frozenset({"make"})}
    assert PACKAGES["lib"].provides == {"libdriver.so"}


def test_what_a_package_that_stays_needs_stays_by_its_name_or_by_what_it_provides() -> None:
    assert apt.removable(PACKAGES, ALONG) == set()
    assert apt.removable(PACKAGES, [*ALONG, "driver"]) == {*ALONG, "driver"}


def test_what_came_along_stays_when_somebody_else_needs_it_by_now() -> None:
    later = apt.parse_packages("build-tools\tii \tbuild-tools\t\t, make, c-compiler | other\n")
    assert apt.removable({**PACKAGES, **later}, [*ALONG, "driver"]) == {"driver", "lib", "support", "dkms"}


def test_an_alternative_that_is_there_is_enough_unless_one_is_careful() -> None:
    both = {**PACKAGES, **apt.parse_packages("user\tii \tuser\t\t, gcc (>= 99) | clang\nclang\tii \tclang\t\t, \n")}
    assert "gcc" in apt.removable(both, [*ALONG, "driver"])
    assert "gcc" not in apt.removable(both, [*ALONG, "driver"], careful=True)


def test_packages_of_one_source_are_found() -> None:
    assert apt.of_the_same_source(PACKAGES, ["lib"]) == {"driver", "lib"}
    assert apt.of_the_same_source(PACKAGES, ["no-such"]) == set()


def test_a_simulation_tells_new_packages_from_newer_ones() -> None:
    output = (
        "Inst libc6 [2.36-9] (2.36-10 Debian:12.11/oldstable [amd64]) []\n"
        "Inst gcc (4:12.2.0-3 Debian:12.11/oldstable [amd64])\nRemv nvidia-smi [535.1]\nConf gcc (4:12.2.0-3 [amd64])\n"
        "Purg nvidia-support [1]\n"
    )
    assert apt.parse_simulation(output) == (["gcc"], ["nvidia-smi", "nvidia-support"])


def test_candidates_are_packages_that_could_be_installed() -> None:
    output = (
        "bash:\n  Installed: 5.2\n  Candidate: 5.2\n  Version table:\n *** 5.2 500\n"
        "left:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\nnew:\n  Installed: (none)\n  Candidate: 1\n  Version table:\n"
    )
    assert apt.parse_candidates(output) == {"bash", "new"}


def test_sources_that_clash_are_explained_and_what_apt_explains_itself_is_not() -> None:
    clash = "E: Conflicting values set for option Signed-By regarding source {0} /: /a.gpg != /b.gpg"
    vendor = apt.advice(clash.format("https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/"))
    assert "grep -rl https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64 /etc/apt" in vendor
    assert "playbooks/gpu.yml" in vendor
    assert apt.advice(clash.format("https://packages.example.org/debian/")).endswith("remove all but one of them.")
    assert apt.advice("E: Unable to locate package nonesuch") == ""
