"""Caffe, which Debian 11 was the last to carry, on a node of today: built, proven, in a notebook's kernel, by two users at once, undone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.nodes import frozen_support as support
from tests.nodes.frozen_support import as_user
from tests.support import Play
from trainyard.containers import Lab

pytestmark = pytest.mark.nodes


def run(node: Lab, folder: Path, playbook: str, *words: str) -> Play:
    """Run a playbook on the node, which is to have Caffe."""
    return support.run(node, folder, playbook, {"plan_environments": ["caffe"]}, *words)


@pytest.fixture(scope="module")
def made(node: Lab, tmp_path_factory: pytest.TempPathFactory) -> Play:
    """What site.yml did to a bare node."""
    done = run(node, tmp_path_factory.mktemp("site"), "site.yml")
    assert done.status == 0, done.failures() or done.text[-3000:]
    return done


def test_it_is_proven_to_train(made: Play) -> None:
    (proof,) = made.results[support.PROOFS, "head"]["proofs"]
    assert proof["framework"] == "Caffe"
    assert proof["version"] == "1.0.0"
    assert proof["device"] == "cpu"
    assert proof["accuracy"] >= 0.95


def test_a_second_run_and_check_mode_have_nothing_to_do(made: Play, node: Lab, tmp_path: Path) -> None:
    again = run(node, tmp_path, "site.yml")
    assert again.changed == {"head": 0}, again.text[-3000:]
    checked = run(node, tmp_path, "site.yml", "--check", "--diff")
    assert checked.status == 0, checked.failures()
    assert checked.changed == {"head": 0}


def test_caffe_is_on_everybodys_path_and_works_in_ones_own_folder(made: Play, node: Lab) -> None:
    assert "caffe version 1.0.0" in as_user(node, "alice", "caffe --version")
    script = 'mkdir -p own && cd own && echo mine >file && /opt/trainyard/envs/caffe/bin/python -c \'print(open("file").read(), end="")\''
    assert as_user(node, "alice", script) == "mine\n"
    inside = 'import os; print(os.getuid(), os.path.exists("/home/alice/own/file"), os.access("/usr", os.W_OK))'
    uid = as_user(node, "alice", "id -u").strip()
    assert as_user(node, "alice", f"/opt/trainyard/envs/caffe/bin/python -c '{inside}'").split() == [uid, "True", "False"]


def test_it_is_activated_by_name_and_left_again(made: Play, node: Lab) -> None:
    script = (
        "source trainyard-activate caffe; command -v python; python -c 'import caffe, sys; print(caffe.__version__, sys.version_info[1])'; "
        "deactivate; command -v python3"
    )
    said = node.execute("head", ["su", "-", "bob", "-s", "/bin/bash", "-c", script]).split()
    assert said == ["/opt/trainyard/envs/caffe/bin/python", "1.0.0", "9", "/usr/bin/python3"]


def test_a_cell_runs_in_its_kernel(made: Play, node: Lab) -> None:
    code = "import caffe, os, sys; print(caffe.__version__, sys.version_info[:2], os.getcwd())"
    assert support.cell(node, "alice", "caffe", code) == "1.0.0 (3, 9) /home/alice"


def test_two_users_train_at_once(made: Play, node: Lab) -> None:
    proof = "/opt/trainyard/envs/caffe/bin/python /opt/trainyard/proofs/scripts/train_caffe.py --expect-device cpu"
    script = "".join(f"su - {user} -c '{proof}' >/srv/{user}.json 2>/dev/null & " for user in ("alice", "bob")) + "wait"
    node.execute("head", ["sh", "-c", script])
    for user in ("alice", "bob"):
        result = json.loads(node.execute("head", ["cat", f"/srv/{user}.json"]).splitlines()[-1])
        assert result["accuracy"] >= 0.95, result
        assert result["problem"] == ""


def test_a_program_that_fails_says_so(made: Play, node: Lab) -> None:
    said = as_user(node, "alice", "/opt/trainyard/envs/caffe/bin/python -c 'import sys; sys.exit(7)'; echo $?")
    assert said.strip() == "7"


def test_what_was_damaged_is_put_right(made: Play, node: Lab, tmp_path: Path) -> None:
    node.execute("head", ["sh", "-ec", "rm /usr/local/bin/caffe; echo broken >/opt/trainyard/envs/caffe/bin/enter"])
    done = run(node, tmp_path, "playbooks/frameworks.yml")
    (environment,) = done.results[support.FROZEN, "head"]["environments"]
    assert environment["actions"] == ["write /opt/trainyard/envs/caffe/bin/enter", "write /usr/local/bin/caffe"]
    assert "caffe version 1.0.0" in as_user(node, "bob", "caffe --version")


def test_it_is_undone(made: Play, node: Lab, tmp_path: Path) -> None:
    done = run(node, tmp_path, "playbooks/frameworks.yml", "-e", "trainyard_state=absent")
    assert done.status == 0, done.failures()
    look = (
        "ls -d /opt/trainyard/frozen /opt/trainyard/envs/* /usr/local/bin/caffe 2>/dev/null; dpkg -l bubblewrap mmdebstrap 2>&1 | grep ^ii"
    )
    assert node.execute("head", ["sh", "-c", look], check=False) == ""
