"""CUDA toolkits on a real node: refusals, two side by side, an interruption, damage, what environments bring, and back to nothing.

The node is a container without a GPU, so that nothing computes. The tests build on each other, in order.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import BIN, Play, inventory_of, play
from trainyard.containers import Lab
from trainyard.paths import REPOSITORY

pytestmark = pytest.mark.slow

SMALL = {"cuda_cudnn": "none", "cuda_nccl": "none"}
TASKS = [
    {"name": "catalogue", "ansible.builtin.import_role": {"name": "catalog"}},
    {
        "name": "base",
        "ansible.builtin.include_role": {"name": "base"},
        "vars": {"base_ca_certificates": "{{ query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt') }}"},
    },
    {"name": "role", "ansible.builtin.include_role": {"name": "cuda"}},
]


def cuda(node: Lab, folder: Path, words: tuple[str, ...] = (), **variables: Any) -> Play:
    """Apply the role; it fetches some GB."""
    return play(node, folder, [TASKS[0], TASKS[2]], words, timeout=1800, **variables)


def ask(node: Lab, script: str) -> str:
    return node.execute("head", ["sh", "-c", script]).strip()


def package_list(node: Lab) -> dict[str, str]:
    """Return every package that dpkg knows of with its state, removed ones with their configuration left among them."""
    lines = ask(node, "dpkg-query -W -f '${binary:Package} ${db:Status-Abbrev}\\n'").splitlines()
    return {line.split()[0]: line.split()[1] for line in lines}


def state_of_disk(node: Lab) -> list[str]:
    """Return the files where CUDA has some."""
    return ask(node, "find /usr/local /etc/apt /etc/profile.d /etc/ld.so.conf.d /usr/lib/cuda* /opt 2>/dev/null | sort").splitlines()


@pytest.fixture(scope="module")
def before(node: Lab, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], list[str]]:
    """The node's packages and files before the role was there; the base brings the certificates that fetching needs."""
    assert play(node, tmp_path_factory.mktemp("base"), TASKS[:2], timeout=600).status == 0
    return package_list(node), state_of_disk(node)


@pytest.mark.parametrize(
    "variables, words",
    [
        ({"cuda_toolkits": ["12.7"]}, "cuda_toolkits: there is no CUDA 12.7 from any source; right are 13.4.1, "),
        ({"cuda_toolkits": ["13.0"], "cuda_cudnn": "9.10.2"}, "cuda_cudnn: there is no cuDNN 9.10.2 for CUDA 13; right are 9.28.0, ''"),
        ({"cuda_toolkits": ["13.0"], "cuda_default": "13.4"}, "cuda_default: '13.4' is none of cuda_toolkits; right are 13.0, ''"),
        (
            {"cuda_toolkits": ["12.9"], "cuda_source": "wheels"},
            "cuda_toolkits: there is no CUDA 12.9 from wheels; right are 13.4.1, 13.3.1, 13.2.2, 13.1.1, 13.0.2. The wheels of CUDA "
            "before 13 hold no nvcc. With cuda_source: nvidia_repository it is 12.9.1.",
        ),
        ({"cuda_toolkits": ["13.0"], "cuda_index_url": "tsinghua"}, "cuda_index_url: 'tsinghua' is no index; right are '', "),
        ({"cuda_toolkits": ["13.0"], "cuda_path": "/dev/shm"}, "The disk of /dev/shm/lib/trainyard-cuda has "),
    ],
)
def test_what_cannot_be_had_is_refused_before_any_change(
    node: Lab, tmp_path: Path, before: tuple[dict[str, str], list[str]], variables: dict[str, Any], words: str
) -> None:
    refused = cuda(node, tmp_path, **variables)
    assert words in refused.failures()
    assert refused.changed == {"head": 0}
    assert (package_list(node), state_of_disk(node)) == before


@pytest.mark.parametrize(
    "make, words",
    [
        ("mkdir /usr/local/cuda-13.0", "/usr/local/cuda-13.0 is there already and was not made by Trainyard."),
        ("mkdir /usr/local/cuda", "/usr/local/cuda is there already and was not made by Trainyard."),
        ("ln -s /opt/cuda /usr/local/cuda", "/usr/local/cuda leads to /opt/cuda and was not made by Trainyard."),
    ],
)
def test_what_somebody_else_put_there_is_left_alone(
    node: Lab, tmp_path: Path, before: tuple[dict[str, str], list[str]], make: str, words: str
) -> None:
    ask(node, make)
    refused = cuda(node, tmp_path, cuda_toolkits=["13.0"])
    assert words in refused.failures()
    assert refused.changed == {"head": 0}
    place = make.rpartition(" ")[2]
    ask(node, f"test -e {place} -o -L {place} && rm -d {place}")
    assert state_of_disk(node) == before[1]


def test_without_a_wish_nothing_is_done_and_that_is_said(node: Lab, tmp_path: Path, before: tuple[dict[str, str], list[str]]) -> None:
    done = cuda(node, tmp_path)
    assert (done.status, done.changed) == (0, {"head": 0})
    assert "No CUDA toolkit is wanted on head" in done.text


def test_check_mode_says_what_would_come_and_changes_nothing(node: Lab, tmp_path: Path, before: tuple[dict[str, str], list[str]]) -> None:
    checked = cuda(node, tmp_path, ("--check", "--diff"), cuda_toolkits=["13.0"])
    assert checked.status == 0, checked.text
    assert checked.results["cuda : Have each toolkit in its folder", "head"]["toolkits"][0]["actions"] == ["make it"]
    assert (package_list(node), state_of_disk(node)) == before


def test_a_controller_killed_while_it_works_leaves_no_half_toolkit_and_a_second_run_finishes(
    node: Lab, tmp_path: Path, before: tuple[dict[str, str], list[str]]
) -> None:
    book = tmp_path / "killed.yml"
    header = {"hosts": "all", "become": True, "gather_facts": True, "vars": {**SMALL, "cuda_toolkits": ["13.0"]}}
    book.write_text(yaml.safe_dump([{**header, "tasks": [TASKS[0], TASKS[2]]}], sort_keys=False))
    process = subprocess.Popen(
        [str(BIN / "ansible-playbook"), str(book), "-i", str(inventory_of(node, tmp_path))],
        cwd=REPOSITORY, env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 900
    wheels = "ls /usr/local/lib/trainyard-cuda/13.0/lib/python3*/site-packages 2>/dev/null || true"
    while process.poll() is None and time.monotonic() < deadline and "nvidia" not in ask(node, wheels):
        time.sleep(0.2)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert "cuda-13.0" not in ask(node, "ls /usr/local")
    done = cuda(node, tmp_path, cuda_toolkits=["13.0"], **SMALL)
    assert done.status == 0, done.text
    assert "release 13.0" in ask(node, "/usr/local/cuda/bin/nvcc --version")
    again = cuda(node, tmp_path, cuda_toolkits=["13.0"], **SMALL)
    assert (again.status, again.changed) == (0, {"head": 0})


def test_a_library_that_joins_later_comes_without_the_toolkit_being_away(node: Lab, tmp_path: Path) -> None:
    done = cuda(node, tmp_path, cuda_toolkits=["13.0"], cuda_nccl="none")
    assert done.status == 0, done.text
    assert ask(node, "ls /usr/local/cuda/lib64/libcudnn.so /usr/local/cuda/include/cudnn.h")
    proofs = json.loads(ask(node, "cat /usr/local/cuda/.trainyard-proof.json"))["proofs"]
    assert [proof["program"] for proof in proofs] == ["cuda", "cudnn"]


def test_two_stand_side_by_side_and_the_default_moves(node: Lab, tmp_path: Path) -> None:
    both = ["13.0", {"version": "13.4.1", "cudnn": "none"}]
    done = cuda(node, tmp_path, cuda_toolkits=both, cuda_nccl="none", cuda_default="13.4")
    assert done.status == 0, done.text
    assert ask(node, "readlink /usr/local/cuda") == "cuda-13.4"
    for line in ("13.0", "13.4"):
        assert f"release {line}" in ask(node, f"/usr/local/cuda-{line}/bin/nvcc --version")
    again = cuda(node, tmp_path, cuda_toolkits=both, cuda_nccl="none", cuda_default="13.4")
    assert (again.status, again.changed) == (0, {"head": 0})
    gone = cuda(node, tmp_path, cuda_toolkits=["13.0", {"version": "13.4", "state": "absent"}], cuda_nccl="none")
    assert gone.status == 0, gone.text
    assert ask(node, "cd /usr/local && ls -d cuda* && readlink cuda").splitlines() == ["cuda", "cuda-13.0", "cuda-13.0"]


@pytest.mark.parametrize(
    "damage",
    [
        "printf x >> /usr/local/cuda-13.0/lib64/libcudnn.so.9",
        "rm /usr/local/cuda-13.0/lib64/libcudnn.so /usr/local/cuda-13.0/bin/nvcc.profile",
        "cp /bin/true /usr/local/cuda-13.0/bin/more && rm /usr/local/cuda-13.0/include/cuda.h",
        "rm /usr/local/cuda",
    ],
)
def test_what_is_damaged_is_put_right(node: Lab, tmp_path: Path, damage: str) -> None:
    whole = "cd /usr/local && find cuda cuda-13.0 -not -name '.trainyard-*' -printf '%p %s %l\\n' | sort"
    seen = ask(node, whole)
    ask(node, damage)
    assert ask(node, whole) != seen
    done = cuda(node, tmp_path, cuda_toolkits=["13.0"], cuda_nccl="none")
    assert done.status == 0, done.text
    assert ask(node, whole) == seen


def test_an_environment_with_its_own_cudnn_loads_that_one(node: Lab, tmp_path: Path) -> None:
    """Another release of cuDNN as a wheel in an environment, loaded as frameworks do it, from a login shell."""
    uv = "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt /usr/local/lib/trainyard-cuda/.uv/bin/uv --no-cache"
    ask(node, f"{uv} venv -q /opt/env && {uv} pip install -q --no-deps --python /opt/env/bin/python nvidia-cudnn-cu13==9.20.0.48")
    script = """
import ctypes, glob, re
library = ctypes.CDLL(glob.glob('/opt/env/lib/python3*/site-packages/nvidia/cudnn/lib/libcudnn.so.9')[0])
library.cudnnGetVersion.restype = ctypes.c_size_t
print(library.cudnnGetVersion(), library.cudnnOpsVersionCheck())
print(*sorted(set(re.findall(r'/\\S*libcudnn\\S*', open('/proc/self/maps').read()))))
"""
    ask(node, f"printf %s {shlex.quote(script)} > /opt/env/ask.py")
    said = ask(node, "su - nobody -s /bin/bash -c 'nvcc --version && /opt/env/bin/python /opt/env/ask.py'").splitlines()
    assert said[-2] == "92000 0"
    assert "libcudnn_ops" in said[-1]
    assert "/usr/local" not in said[-1]
    ask(node, "rm -r /opt/env")


def test_undo_leaves_packages_and_files_as_they_were_and_what_somebody_asked_for_since(
    node: Lab, tmp_path: Path, before: tuple[dict[str, str], list[str]]
) -> None:
    packages, files = before
    ask(node, "apt-get -qq -y install make && mkdir /usr/local/cuda-9.0")
    checked = cuda(node, tmp_path, ("--check",), trainyard_state="absent")
    assert checked.status == 0, checked.text
    assert ask(node, "/usr/local/cuda/bin/nvcc --version"), "check mode removed something"
    gone = cuda(node, tmp_path, trainyard_state="absent")
    assert gone.status == 0, gone.text
    assert package_list(node) == {**packages, "make": "ii"}
    assert state_of_disk(node) == sorted([*files, "/usr/local/cuda-9.0"])
    again = cuda(node, tmp_path, trainyard_state="absent")
    assert (again.status, again.changed) == (0, {"head": 0})
    ask(node, "rmdir /usr/local/cuda-9.0 && apt-get -qq -y purge make")


def test_the_distributions_toolkit_comes_and_goes_with_all_of_its_packages(
    node: Lab, tmp_path: Path, before: tuple[dict[str, str], list[str]]
) -> None:
    done = cuda(node, tmp_path, cuda_toolkits=[{"version": "11.8", "source": "distribution"}], cuda_nccl="none")
    assert done.status == 0, done.text
    assert "release 11.8" in ask(node, "/usr/local/cuda/bin/nvcc --version")
    assert package_list(node)["nvidia-cuda-toolkit"] == "ii"
    # Listed as absent, it goes by itself; a toolkit from wheels stays.
    wishes = [{"version": "13.0", "cudnn": "none"}, {"version": "11.8", "state": "absent"}]
    changed = cuda(node, tmp_path, cuda_toolkits=wishes, cuda_nccl="none")
    assert changed.status == 0, changed.text
    assert "nvidia-cuda-toolkit" not in package_list(node)
    assert "release 13.0" in ask(node, "/usr/local/cuda/bin/nvcc --version")
    assert cuda(node, tmp_path, trainyard_state="absent").status == 0
    assert (package_list(node), state_of_disk(node)) == before
