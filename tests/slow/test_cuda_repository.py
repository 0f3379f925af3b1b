"""CUDA toolkits out of the vendor's packages: side by side, another release, damage, an interruption, and back to nothing.

The repository is a stand-in that the tests make (see cuda_packages_stand_in): its compiler is real and of another release than it says. The
node has no GPU, so that nothing computes. The tests build on each other, in order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import cuda_packages_stand_in
from tests.slow.test_cuda import TASKS, ask, cuda, package_list, state_of_disk
from tests.support import play
from tests.vendor_stand_in import LAYOUT
from trainyard.containers import Lab
from trainyard.paths import CHECKOUT

pytestmark = pytest.mark.slow

SERVER = "http://127.0.0.1:8123"
TREE = "/usr/local/lib/trainyard-cuda-packages"
WISH = ["12.9", {"version": "13.0.1", "cudnn": "9.28.0", "nccl": "2.32.3"}]
BARE = {"cuda_cudnn": "none", "cuda_nccl": "none", "cuda_default": "13.0"}


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vendor's server, as a folder."""
    out = tmp_path_factory.mktemp("vendor")
    out.chmod(0o755)
    cuda_packages_stand_in.make(out, tmp_path_factory.mktemp("wheels"))
    return out


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, stand_in: Path) -> Iterator[Lab]:
    """A node on which the vendor's server is served."""
    name = f"{request.path.stem}-{CHECKOUT}".replace("_", "-")
    lab = Lab(name, ["head"], tmp_path_factory.mktemp("lab"), mounts={stand_in: "/srv/vendor"}, say=lambda _text: None)
    lab.down()
    lab.up()
    ask(lab, f"systemd-run -q --unit vendor python3 -m http.server {SERVER.rpartition(':')[2]} --bind 127.0.0.1 --directory /srv/vendor")
    yield lab
    lab.down()


@pytest.fixture(scope="module")
def repository(stand_in: Path) -> dict[str, Any]:
    """What differs from the catalogue's repository."""
    return {"url": f"{SERVER}/{LAYOUT}/", "fingerprints": [(stand_in / "fingerprint").read_text()]}


@pytest.fixture(scope="module")
def before(node: Lab, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], list[str]]:
    """The node's packages and files before the role was there."""
    assert play(node, tmp_path_factory.mktemp("base"), TASKS[:2], timeout=600).status == 0
    ask(node, "apt-get -q update")
    return package_list(node), state_of_disk(node)


@pytest.mark.parametrize(
    "make, wish, words",
    [
        ("true", {"cuda_toolkits": ["12.7"]}, "cuda_toolkits: there is no CUDA 12.7 from any source; right are 13.4.1, "),
        (
            "true",
            {"cuda_repository": {"url": "mirror"}},
            "cuda_repository: its url 'mirror' is no address of a repository; right is one such as",
        ),
        ("mkdir /usr/local/cuda-12.9", {}, "/usr/local/cuda-12.9 is there already and was not made by Trainyard."),
        (
            "ln -s /etc/alternatives/cuda /usr/local/cuda",
            {},
            "/usr/local/cuda leads to /etc/alternatives/cuda and was not made by Trainyard.",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_before_any_change(
    node: Lab,
    tmp_path: Path,
    before: tuple[dict[str, str], list[str]],
    repository: dict[str, Any],
    make: str,
    wish: dict[str, Any],
    words: str,
) -> None:
    ask(node, make)
    refused = cuda(node, tmp_path, **{"cuda_toolkits": ["12.9"], "cuda_repository": repository, **wish})
    assert words in refused.failures()
    assert refused.changed == {"head": 0}
    ask(node, "rm -df /usr/local/cuda-12.9 /usr/local/cuda")
    assert (package_list(node), state_of_disk(node)) == before


def test_check_mode_says_what_would_come_and_changes_nothing(
    node: Lab, tmp_path: Path, before: tuple[dict[str, str], list[str]], repository: dict[str, Any]
) -> None:
    checked = cuda(node, tmp_path, ("--check", "--diff"), cuda_toolkits=WISH, cuda_repository=repository, **BARE)
    assert checked.status == 0, checked.text
    trees = checked.results["cuda : Have the files of the vendor's packages", "head"]["trees"]
    assert [(tree["name"], tree["actions"]) for tree in trees] == [("12.9", ["make it"]), ("13.0", ["make it"])]
    assert (package_list(node), state_of_disk(node)) == before


def test_a_release_that_the_repository_does_not_have_is_refused_with_what_it_has(
    node: Lab, tmp_path: Path, repository: dict[str, Any], before: tuple[dict[str, str], list[str]]
) -> None:
    for version, words in {
        "12.8": "cuda-toolkit-12-8 has to have the version 12.8.1-*, and there is no such one (known are none)",
        "13.0.0": "cuda-toolkit-13-0 has to have the version 13.0.0-*, and there is no such one (known are 13.0.1-1)",
    }.items():
        refused = cuda(node, tmp_path, cuda_toolkits=[version], cuda_repository=repository, **{**BARE, "cuda_default": ""})
        assert words in refused.failures()
    assert cuda(node, tmp_path, trainyard_state="absent").status == 0
    assert (package_list(node), state_of_disk(node)) == before


def test_two_come_side_by_side_compile_and_link_and_dpkg_is_told_nothing(
    node: Lab, tmp_path: Path, repository: dict[str, Any], before: tuple[dict[str, str], list[str]]
) -> None:
    done = cuda(node, tmp_path, cuda_toolkits=WISH, cuda_repository=repository, **BARE)
    assert done.status == 0, done.text
    trees = {tree["name"]: tree["packages"] for tree in done.results["cuda : Have the files of the vendor's packages", "head"]["trees"]}
    assert trees["12.9"] == {"cuda-toolkit-12-9": "12.9.1-1"} | dict.fromkeys(
        [f"{name}-12-9" for name in cuda_packages_stand_in.PARTS.values()], "12.9.86-1"
    )
    assert not [name for name in package_list(node) if name.startswith(("cuda", "nvidia", "libc6-i386", "libtinfo5"))]
    assert ask(node, "ls /etc/somebody-ran-a-script-of-a-package /etc/ld.so.conf.d/000_cuda.conf 2>/dev/null || true") == ""
    assert "cuda" not in ask(node, "ldconfig -p")
    proofs = json.loads(ask(node, "cat /usr/local/cuda-13.0/.trainyard-proof.json"))["proofs"]
    assert [(proof["program"], proof["problem"]) for proof in proofs] == [("cuda", ""), ("cudnn", ""), ("nccl", "")]
    assert (proofs[1]["seen"]["cudnn"], proofs[2]["seen"]["nccl"]) == (92800, 23203)
    assert ask(node, "readlink /usr/local/cuda; readlink /usr/local/cuda-12.9/lib64").split() == ["cuda-13.0", "targets/x86_64-linux/lib"]
    assert "release 13.0" in ask(node, "su - nobody -s /bin/bash -c 'nvcc --version'")
    assert cuda(node, tmp_path, cuda_toolkits=WISH, cuda_repository=repository, **BARE).changed == {"head": 0}
    assert cuda(node, tmp_path, ("--check",), cuda_toolkits=WISH, cuda_repository=repository, **BARE).changed == {"head": 0}


def test_another_release_takes_the_place_of_the_one_before_although_a_run_was_killed(
    node: Lab, tmp_path: Path, repository: dict[str, Any]
) -> None:
    # As a kill leaves it: part of a download, a tree half unpacked, and one out of its place.
    name = "cuda-nvvm-12-9_12.9.41-1_amd64.deb"
    ask(node, f"mkdir {TREE}/.12.9.archives {TREE}/.12.9.new {TREE}/.12.9.old && cp /bin/true {TREE}/.12.9.new")
    ask(node, f"head -c 1000 /srv/vendor/{LAYOUT}/{name} > {TREE}/.12.9.archives/{name}")
    older = ["12.9.0", WISH[1]]
    done = cuda(node, tmp_path, cuda_toolkits=older, cuda_repository=repository, **BARE)
    assert done.status == 0, done.text
    (tree,) = done.results["cuda : Have the files of the vendor's packages", "head"]["trees"]
    assert tree["packages"]["cuda-nvvm-12-9"] == "12.9.41-1"
    assert json.loads(ask(node, "cat /usr/local/cuda-12.9/version.json"))["cuda"]["version"] == "12.9.0"
    assert ask(node, f"ls -A {TREE}").split() == ["12.9", "13.0"]
    assert cuda(node, tmp_path, cuda_toolkits=older, cuda_repository=repository, **BARE).changed == {"head": 0}


@pytest.mark.parametrize(
    "damage",
    [
        "printf x >> /usr/local/cuda-12.9/bin/ptxas",
        f"rm {TREE}/12.9/usr/local/cuda-12.9/bin/nvlink",
        "rm /usr/local/cuda-12.9/lib64 && mkdir /usr/local/cuda-12.9/lib64",
    ],
)
def test_what_is_damaged_is_put_right(node: Lab, tmp_path: Path, repository: dict[str, Any], damage: str) -> None:
    whole = "cd /usr/local/cuda-12.9 && find . -not -name '.trainyard-*' -printf '%p %s %l\\n' | sort | sha256sum; stat -c %s bin/nvlink"
    seen = ask(node, whole)
    ask(node, damage)
    done = cuda(node, tmp_path, cuda_toolkits=["12.9.0"], cuda_repository=repository, **{**BARE, "cuda_default": "none"})
    assert done.status == 0, done.text
    assert ask(node, whole) == seen
    assert ask(node, f"find {TREE} /usr/local/cuda-12.9 -name ptxas -printf '%i\\n' | sort -u | wc -l") == "2"  # one for each toolkit


def test_one_goes_by_itself_and_the_source_stays_as_long_as_the_driver_wants_it(
    node: Lab, tmp_path: Path, repository: dict[str, Any], before: tuple[dict[str, str], list[str]]
) -> None:
    key = {"key": f"{repository['url']}3bf863cc.pub", "fingerprints": repository["fingerprints"], "url": repository["url"]}
    pins = [{"packages": ["*nvidia*"], "version": "580.*"}]
    drivers = {"name": "driver", "trainyard.core.vendor_repository": {"name": "nvidia", "owner": "nvidia_driver", "pins": pins, **key}}
    assert play(node, tmp_path, [drivers]).status == 0
    gone = cuda(node, tmp_path, cuda_toolkits=[{"version": "12.9", "state": "absent"}, WISH[1]], cuda_repository=repository, **BARE)
    assert gone.status == 0, gone.text
    assert ask(node, f"ls -d /usr/local/cuda* {TREE}/*").split() == ["/usr/local/cuda", "/usr/local/cuda-13.0", f"{TREE}/13.0"]
    again = cuda(node, tmp_path, cuda_toolkits=[{"version": "12.9", "state": "absent"}, WISH[1]], cuda_repository=repository, **BARE)
    assert again.changed == {"head": 0}
    # The undo of one owner leaves the other's source and pins.
    checked = cuda(node, tmp_path, ("--check",), trainyard_state="absent")
    assert checked.status == 0, checked.text
    assert ask(node, "/usr/local/cuda/bin/nvcc --version"), "check mode removed something"
    undone = cuda(node, tmp_path, trainyard_state="absent")
    assert undone.status == 0, undone.text
    assert "580.*" in ask(
        node, "cat /etc/apt/preferences.d/trainyard-nvidia-nvidia-driver.pref /etc/apt/sources.list.d/trainyard-nvidia.sources"
    )
    assert package_list(node) == before[0]
    assert cuda(node, tmp_path, trainyard_state="absent").changed == {"head": 0}
    drivers["trainyard.core.vendor_repository"] = {"name": "nvidia", "owner": "nvidia_driver", "state": "absent"}
    assert play(node, tmp_path, [drivers]).status == 0
    assert (package_list(node), state_of_disk(node)) == before
