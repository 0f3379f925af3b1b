"""The unit that the role nvidia_driver writes for the persistence daemon of a runfile, with the role's own tasks on a real node.

There is no GPU. The daemon is NVIDIA's own, as Debian packages it, where it is seen to start, to change to its account, and to give up for
want of a driver; and a stand-in that does the same and stays, where it has to run. The tests build on each other, in order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import Play, play
from trainyard.containers import Lab

pytestmark = pytest.mark.nodes

DAEMON = "/usr/bin/nvidia-persistenced"
UNIT = "trainyard-nvidia-persistenced.service"
ACCOUNT = "trainyard-nvpd"
FOLDER = "/run/nvidia-persistenced"
STAND_IN = f"""#!/bin/sh
[ "$1" = --user ] && [ $# = 2 ] || exit 1
mkdir {FOLDER} && chown "$2:" {FOLDER}
setpriv --reuid "$2" --regid "$2" --clear-groups sleep infinity &
"""


def ask(node: Lab, script: str, *, check: bool = True) -> str:
    return node.execute("head", ["sh", "-ec", script], check=check).strip()


def include(node: Lab, folder: Path, part: str, words: tuple[str, ...] = (), loaded: tuple[str, ...] = (), **variables: Any) -> Play:
    """Run a part of the role, where these modules are in the kernel."""
    seen = {"gpu_info": {"modules": {"loaded": list(loaded)}}}
    task = {"name": "part", "ansible.builtin.include_role": {"name": "nvidia_driver", "tasks_from": part}}
    return play(node, folder, [task], words, nvidia_driver_seen_result=seen, **variables)


@pytest.fixture(scope="module", autouse=True)
def daemon(node: Lab) -> None:
    """The daemon and its library without their packages, as the runfile brings them."""
    ask(
        node,
        "sed 's/ main$/ contrib non-free/' /etc/apt/sources.list > /etc/apt/sources.list.d/contrib.list; apt-get -qq update; "
        "apt-get -qq install libtirpc3; cd /tmp && apt-get -qq download nvidia-persistenced libnvidia-cfg1; "
        f"for file in *nvidia*.deb; do dpkg -x $file x; done; mv x{DAEMON} {DAEMON}; "
        "find x -name 'libnvidia-cfg.so.*' -exec mv -t /usr/lib/x86_64-linux-gnu {} +; ldconfig",
    )


def test_the_unit_is_one_that_systemd_understands_and_waits_for_a_gpu(node: Lab, tmp_path: Path) -> None:
    checked = include(node, tmp_path, "persistence", ("--check",))
    assert checked.status == 0, checked.text
    assert ask(node, f"find /etc/systemd -name {UNIT}; getent passwd {ACCOUNT}", check=False) == ""
    done = include(node, tmp_path, "persistence")
    assert done.status == 0, done.text
    assert ask(node, f"systemd-analyze verify {UNIT} 2>&1") == ""
    assert ask(node, f"systemctl is-enabled {UNIT}; systemctl is-active {UNIT}", check=False).split() == ["enabled", "inactive"]
    assert include(node, tmp_path, "persistence").changed == {"head": 0}


def test_nvidias_own_daemon_starts_from_it_and_misses_the_driver_alone(node: Lab, tmp_path: Path) -> None:
    failed = include(node, tmp_path, "persistence", loaded=("nvidia",))
    assert f"systemctl start {UNIT} failed" in failed.failures()
    assert "failed to initialize" in failed.failures()
    said = ask(node, f"journalctl --unit {UNIT} --output=cat")
    account = ask(node, f"id -u {ACCOUNT}")
    assert "Failed to query NVIDIA devices." in said
    assert f"that user {account} has read and write permissions" in said
    assert ask(node, f"ls -d {FOLDER} 2>/dev/null || echo gone") == "gone"


def test_the_daemon_runs_as_its_account_where_there_is_a_gpu(node: Lab, tmp_path: Path) -> None:
    ask(node, f"cat > {DAEMON} << 'END'\n{STAND_IN}END")
    done = include(node, tmp_path, "persistence", loaded=("nvidia",))
    assert done.status == 0, done.text
    assert ask(node, f"ps -o user:32= -p $(systemctl show -P MainPID {UNIT})") == ACCOUNT
    assert include(node, tmp_path, "persistence", loaded=("nvidia",)).changed == {"head": 0}


def test_undo_leaves_nothing_of_it(node: Lab, tmp_path: Path) -> None:
    checked = include(node, tmp_path, "absent", ("--check",), trainyard_state="absent")
    assert checked.status == 0, checked.text
    assert ask(node, f"systemctl is-active {UNIT}") == "active"
    gone = include(node, tmp_path, "absent", trainyard_state="absent")
    assert gone.status == 0, gone.text
    assert ask(node, f"getent passwd {ACCOUNT}; getent group {ACCOUNT}; pgrep -x sleep; ls -d {FOLDER}", check=False) == ""
    assert ask(node, "find /etc/systemd -name '*nvidia*'") == ""
    again = include(node, tmp_path, "absent", trainyard_state="absent")
    assert (again.status, again.changed) == (0, {"head": 0})
