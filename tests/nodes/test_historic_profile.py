"""A profile of 2018 on a node of today: what can be had is built, proven and undone, what cannot is refused before, with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.nodes.frozen_support import FROZEN, PROOFS, as_user, cell, run
from tests.support import Play
from trainyard.containers import Lab

pytestmark = pytest.mark.nodes

PROFILE = {"plan_profile": "qingcloud-1.1:cpu"}
OLDER: dict[str, Any] = {"name": "tensorflow-1.6", "environment": "tensorflow", "variant": "cpu-1.6.0"}  # of another variant of the profile
WISHES = {
    **PROFILE,
    "plan_environments": ["tensorflow", "keras", "caffe"],
    "framework_env_environments": ["tensorflow", "keras", "caffe", OLDER],
}
VERSIONS = {"tensorflow": "1.7.0", "tensorflow-1.6": "1.6.0", "keras": "2.1.5 (tensorflow 1.7.0)", "caffe": "1.0.0"}
ENVIRONMENTS = "/opt/trainyard/envs"
LIBRARIES = "/usr/lib/x86_64-linux-gnu"


def test_the_whole_of_it_is_refused_before_anything_changes(node: Lab, tmp_path: Path) -> None:
    done = run(node, tmp_path, "site.yml", PROFILE)
    said = done.failures()
    assert "pytorch on head comes to torch==0.3.1" in said, said
    assert "the ordinary index has PyTorch from 1.0.0 on" in said
    assert "Take it out (plan_environments: [tensorflow, keras, caffe])" in said
    assert done.changed == {"head": 0}
    assert node.execute("head", ["sh", "-c", "ls -d /opt/trainyard 2>/dev/null"], check=False) == ""


@pytest.fixture(scope="module")
def made(node: Lab, tmp_path_factory: pytest.TempPathFactory) -> Play:
    """What site.yml did to a bare node."""
    done = run(node, tmp_path_factory.mktemp("site"), "site.yml", WISHES)
    assert done.status == 0, done.failures() or done.text[-3000:]
    return done


@pytest.mark.parametrize("name", VERSIONS)
def test_it_is_proven_to_train(made: Play, name: str) -> None:
    proof = next(proof for proof in made.results[PROOFS, "head"]["proofs"] if proof["environment"] == name)
    assert (proof["version"], proof["device"], proof["problem"]) == (VERSIONS[name], "cpu", "")
    assert proof["accuracy"] >= 0.95
    assert proof["seconds"] > 0


def test_a_second_run_and_check_mode_have_nothing_to_do(made: Play, node: Lab, tmp_path: Path) -> None:
    again = run(node, tmp_path, "site.yml", WISHES)
    assert again.changed == {"head": 0}, again.text[-3000:]
    checked = run(node, tmp_path, "site.yml", WISHES, "--check", "--diff")
    assert checked.status == 0, checked.failures()
    assert checked.changed == {"head": 0}


def test_its_python_is_the_one_that_is_activated_by_name(made: Play, node: Lab) -> None:
    script = "source trainyard-activate tensorflow; python -c 'import sys, tensorflow as tf; print(sys.version_info[:2], tf.__version__)'"
    assert node.execute("head", ["su", "-", "bob", "-s", "/bin/bash", "-c", script]).strip() == "((2, 7), '1.7.0')"
    both = "import subprocess, sys; print(sys.version_info[0], subprocess.check_output(['python', '-c', 'import keras']))"
    assert as_user(node, "bob", f'{ENVIRONMENTS}/keras/bin/python -c "{both}" 2>/dev/null').strip() == "(2, '')"


def test_what_one_has_at_hand_is_there(made: Play, node: Lab) -> None:
    names = "numpy, scipy, pandas, matplotlib, sklearn, nltk, PIL, cv2, fire, ipykernel, tensorflow"
    for name in ("tensorflow", "tensorflow-1.6", "keras"):
        assert as_user(node, "alice", f"{ENVIRONMENTS}/{name}/bin/python -c 'import {names}; print(cv2.__version__[0])'").strip() == "4"


def test_a_cell_runs_in_its_kernel(made: Play, node: Lab) -> None:
    code = (
        "import tensorflow as tf, sys, os; print(tf.Session().run(tf.constant(6) * 7), tf.__version__, sys.version_info[:2], os.getcwd())"
    )
    assert cell(node, "alice", "tensorflow-1.6", code) == "(42, '1.6.0', (2, 7), '/home/alice')"


def test_the_drivers_libraries_of_the_node_are_seen_inside_and_nothing_else_of_it(made: Play, node: Lab) -> None:
    # Stand-ins, since no GPU is here: the node's zlib by the name of the driver's library, and a script by that of nvidia-smi.
    cuda, smi = f"{LIBRARIES}/libcuda.so.1", "/usr/bin/nvidia-smi"
    node.execute("head", ["sh", "-ec", f"cp {LIBRARIES}/libz.so.1 {cuda}; printf '#!/bin/sh\\necho stand-in\\n' >{smi}; chmod 755 {smi}"])
    code = (
        "import ctypes, os, subprocess, tensorflow; cuda = ctypes.CDLL('libcuda.so.1'); cuda.zlibVersion.restype = ctypes.c_char_p; "
        "print(cuda.zlibVersion(), os.listdir(os.environ['LD_LIBRARY_PATH']), os.path.exists('" + cuda + "'), "
        "subprocess.check_output('nvidia-smi'))"
    )
    version = node.execute("head", ["python3", "-c", "import zlib; print(zlib.ZLIB_RUNTIME_VERSION)"]).strip()
    said = as_user(node, "alice", f'{ENVIRONMENTS}/tensorflow/bin/python -c "{code}"').strip()
    node.execute("head", ["rm", cuda, smi])
    assert said == f"('{version}', ['libcuda.so.1'], False, 'stand-in\\n')"
    without = as_user(node, "alice", f"{ENVIRONMENTS}/tensorflow/bin/python -c \"import os; print(os.environ.get('LD_LIBRARY_PATH'))\"")
    assert without.strip() == "None"


def test_one_goes_by_its_name_alone(made: Play, node: Lab, tmp_path: Path) -> None:
    wishes = {**WISHES, "framework_env_environments": ["tensorflow", "keras", "caffe", {"name": "tensorflow-1.6", "state": "absent"}]}
    done = run(node, tmp_path, "playbooks/frameworks.yml", wishes)
    assert done.status == 0, done.failures()
    actions = {one["name"]: one["actions"] for one in done.results[FROZEN, "head"]["environments"]}
    assert actions == {"tensorflow": [], "keras": [], "caffe": [], "tensorflow-1.6": ["remove it"]}
    assert "tensorflow-1.6" not in node.execute("head", ["ls", "/opt/trainyard/frozen", ENVIRONMENTS])
    again = run(node, tmp_path, "playbooks/frameworks.yml", wishes)
    assert again.changed == {"head": 0}


def test_it_is_undone(made: Play, node: Lab, tmp_path: Path) -> None:
    done = run(node, tmp_path, "playbooks/frameworks.yml", WISHES, "-e", "trainyard_state=absent")
    assert done.status == 0, done.failures()
    left = node.execute("head", ["sh", "-c", f"ls -d /opt/trainyard/frozen {ENVIRONMENTS}/* 2>/dev/null"], check=False)
    assert left == ""
