"""What a wish for CUDA means, and how a wrong one is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.trainyard.core.plugins.filter.cuda_choice import cuda_choice, released
from ansible_collections.trainyard.core.plugins.module_utils import _cuda_wishes as core

ROLES = Path(__file__).parents[8] / "roles"
LOCKS = ROLES / "catalog/files/locks"
STACK = ROLES / "catalog/vars/stack/cuda.yml"
UNPACKED = "/usr/local/lib/trainyard-cuda-packages"
WHEELS: dict[str, Any] = yaml.safe_load((ROLES / "catalog/vars/main/cuda.yml").read_text())["catalog_cuda_wheels"]
PLATFORMS: dict[str, Any] = yaml.safe_load((ROLES / "cuda/vars/main/platforms.yml").read_text())["_cuda_platforms"]
FACTS = {"distribution": "Debian", "distribution_major_version": "12", "architecture": "x86_64"}
GOOD = {"toolkits": ["13.0"], "source": "wheels", "default": "", "cudnn": "", "nccl": "", "path": "/usr/local"}


def choose(wishes: dict[str, Any], **facts: str) -> tuple[list[core.Toolkit], str, list[str]]:
    return core.choose({**GOOD, **wishes}, core.Offer.of(WHEELS, PLATFORMS, released(str(STACK)), {**FACTS, **facts}))


def filtered(wishes: dict[str, Any]) -> dict[str, Any]:
    return cuda_choice(wishes, wheels=WHEELS, platforms=PLATFORMS, stack=str(STACK), facts=FACTS, locks=str(LOCKS), unpacked=UNPACKED)


@pytest.mark.parametrize("version", ["13.0", 13.0, "13.0.2"])
def test_a_line_and_its_release_mean_the_same(version: str | float) -> None:
    toolkits, default, problems = choose({"toolkits": [version]})
    assert problems == []
    assert default == "13.0"
    assert toolkits == [core.Toolkit("13.0", "13.0.2", "wheels", {"cudnn": "9.28.0", "nccl": "2.32.3"})]


def test_what_a_plan_says_is_had_as_it_says() -> None:
    (toolkit,), _default, problems = choose({"toolkits": ["13.2.2"], "cudnn": "9.28.0", "nccl": "2.32.3"})
    assert problems == []
    assert toolkit.locks("x86_64") == ["cuda-13.2.2-x86_64.txt", "cudnn-9.28.0-cu13-x86_64.txt", "nccl-2.32.3-cu13-x86_64.txt"]


def test_without_a_source_it_is_the_first_that_has_the_toolkit() -> None:
    planned = [{"version": "11.8.0", "cudnn": "8.9.6", "nccl": "2.21.5"}, {"version": "13.0.2", "cudnn": "", "nccl": ""}, "12.9", "13.1.0"]
    toolkits, default, problems = choose({"toolkits": planned, "source": ""})
    assert (problems, default) == ([], "11.8")
    assert [(toolkit.release, toolkit.source) for toolkit in toolkits] == [
        ("11.8.0", "distribution"),
        ("13.0.2", "wheels"),
        ("12.9.1", "nvidia_repository"),
        ("13.1.0", "nvidia_repository"),
    ]
    for never in ("12.7", "10.2"):
        assert choose({"toolkits": [never], "source": ""})[2][0].startswith(
            f"cuda_toolkits: there is no CUDA {never} from any source; right are 13.4.1, "
        )


def test_the_vendors_toolkit_starts_from_its_own_package_and_follows_the_names_of_its_line_alone() -> None:
    choice = filtered({**GOOD, "toolkits": ["12.9", "13.0"], "source": "", "nccl": "none"})
    assert (choice["problems"], choice["repository"], choice["distribution"]) == ([], "present", "")
    (tree,) = choice["trees"]
    without = tree.pop("without")
    assert tree == {"name": "12.9", "state": "present", "package": "cuda-toolkit-12-9", "version": "12.9.1-*", "follow": ["*-12-9"]}
    assert "*nsight*" in without
    assert [one["unpacked"] for one in choice["toolkits"]] == [f"{UNPACKED}/12.9/usr/local/cuda-12.9", ""]
    assert choice["toolkits"][0]["about"] == {"version": "12.9.1", "source": "nvidia_repository", "cudnn": "9.28.0"}
    assert choice["environments"][0]["requirements"].count("nvidia-cudnn-cu12==9.28.0.42 ") == 1


@pytest.mark.parametrize("release, line, libraries", [("12", "11.8", ("9.10.2", "2.21.5")), ("13", "12.4", ("9.28.0", "2.32.3"))])
def test_the_distributions_toolkit_gets_libraries_of_its_own_cuda(release: str, line: str, libraries: tuple[str, str]) -> None:
    (toolkit,), default, problems = choose({"toolkits": [line], "source": "distribution"}, distribution_major_version=release)
    assert (problems, default, toolkit.source) == ([], line, "distribution")
    assert tuple(toolkit.libraries.values()) == libraries


def test_several_each_with_its_own_source_and_libraries() -> None:
    wishes = ["13.4", {"version": "11.8", "source": "distribution", "nccl": "none"}, {"version": "13.0", "state": "absent"}]
    toolkits, default, problems = choose({"toolkits": wishes, "default": "11.8.0"})
    assert (problems, default) == ([], "11.8")
    assert [toolkit.name for toolkit in toolkits if toolkit.present] == ["13.4", "11.8"]
    assert toolkits[1].libraries == {"cudnn": "9.10.2"}


@pytest.mark.parametrize("default, means", [("", "13.4"), ("13.0", "13.0"), ("none", "")])
def test_the_default_is_the_first_unless_another_or_none_is_wanted(default: str, means: str) -> None:
    assert choose({"toolkits": ["13.4", "13.0"], "default": default})[1:] == (means, [])


@pytest.mark.parametrize(
    "wishes, facts, words",
    [
        ({"path": "local"}, {}, "cuda_path: 'local' is no folder; right is one such as /usr/local."),
        ({"source": "runfile"}, {}, "cuda_source: 'runfile' is none of wheels, distribution, nvidia_repository."),
        (
            {"source": "nvidia_repository", "toolkits": ["12.7"]},
            {},
            "cuda_toolkits: there is no CUDA 12.7 from any source; right are 13.4.1, 13.3.1, 13.3.0, ",
        ),
        ({"toolkits": ["newest"]}, {}, "cuda_toolkits: 'newest' is not understood; right is a version such as '13.0' or '13.0.2'"),
        (
            {"toolkits": [{"version": "13.0", "cuddn": "9"}]},
            {},
            "cuda_toolkits: 'cuddn' in {'version': '13.0', 'cuddn': '9'} is not understood",
        ),
        (
            {"toolkits": [{"version": "13.0", "state": "gone"}]},
            {},
            "cuda_toolkits: the state of 13.0 is 'gone'; right are present and absent.",
        ),
        (
            {"toolkits": [{"version": "13.0", "source": "web"}]},
            {},
            "cuda_toolkits: the source of 13.0: 'web' is none of wheels, distribution, nvidia_repository.",
        ),
        (
            {"toolkits": ["13.0.1"]},
            {},
            "cuda_toolkits: there is no CUDA 13.0.1 from wheels; right are 13.4.1, 13.3.1, 13.2.2, 13.1.1, 13.0.2.",
        ),
        ({"toolkits": ["12.9"]}, {}, "13.0.2. The wheels of CUDA before 13 hold no nvcc."),
        ({"toolkits": ["11.8"]}, {}, "hold no nvcc. With cuda_source: distribution it is 11.8.0."),
        (
            {"source": "distribution"},
            {},
            "cuda_toolkits: there is no CUDA 13.0 from Debian 12; right is 11.8.0. With cuda_source: wheels it is 13.0.2.",
        ),
        (
            {"toolkits": ["13.0", "13.0.2"]},
            {},
            "cuda_toolkits: 13.0 stands in it twice; there is one folder cuda-13.0, so right is one of them.",
        ),
        ({"cudnn": "9.10.2"}, {}, "cuda_cudnn: there is no cuDNN 9.10.2 for CUDA 13; right are 9.28.0, '' (the first of them) and none."),
        ({"nccl": "2.21.5"}, {}, "cuda_nccl: there is no NCCL 2.21.5 for CUDA 13; right are 2.32.3, '' (the first of them) and none."),
        (
            {"toolkits": [{"version": "13.0", "cudnn": "8.9"}]},
            {},
            "cuda_toolkits: cudnn of 13.0: there is no cuDNN 8.9 for CUDA 13; right are 9.28.0",
        ),
        ({"default": "12.9"}, {}, "cuda_default: '12.9' is none of cuda_toolkits; right are 13.0, '' (the first of them) and none."),
        (
            {},
            {"distribution": "Ubuntu", "distribution_major_version": "24"},
            "cuda_toolkits: they are made for Debian 12 and Debian 13, and this node runs Ubuntu 24. Leave the list empty for this node.",
        ),
        ({}, {"architecture": "aarch64"}, "cuda_toolkits: they are made for x86_64 only, and this node is aarch64."),
    ],
)
def test_what_cannot_be_had_is_refused_with_what_would_be_right(wishes: dict[str, Any], facts: dict[str, str], words: str) -> None:
    _toolkits, _default, problems = choose(wishes, **facts)
    assert len(problems) == 1
    assert words in problems[0]


def test_a_platform_without_cuda_is_fine_where_none_is_wanted() -> None:
    assert choose({"toolkits": []}, distribution="Ubuntu") == ([], "", [])
    assert choose({"toolkits": [{"version": "13.0", "state": "absent"}]}, distribution="Ubuntu")[2] == []


@pytest.mark.parametrize("release", ["12", "13"])
def test_all_that_is_on_offer_has_its_locks(release: str) -> None:
    offer = core.Offer.of(WHEELS, PLATFORMS, released(str(STACK)), {**FACTS, "distribution_major_version": release})
    for source in core.SOURCES:
        for version in offer.releases(source):
            for library in core.LIBRARIES:
                for known in WHEELS[library]:
                    (toolkit,), _default, problems = core.choose({**GOOD, "toolkits": [version], "source": source, library: known}, offer)
                    assert bool(problems) == (toolkit.major not in WHEELS[library][known])
                    assert all((LOCKS / name).is_file() for name in toolkit.locks("x86_64"))


def test_the_filter_gives_the_modules_what_they_take() -> None:
    wishes = {
        **GOOD,
        "toolkits": [
            {"version": "11.8", "source": "distribution", "cudnn": "none", "nccl": "none"},
            {"version": "13.0", "state": "absent"},
        ],
    }
    choice = filtered(wishes)
    assert choice["problems"] == []
    assert choice["distribution"] == "present"
    assert choice["environments"] == [
        {"name": "11.8", "state": "absent", "requirements": ""},
        {"name": "13.0", "state": "absent", "requirements": ""},
    ]
    assert choice["toolkits"][0]["distribution"] == "/usr/lib/nvidia-cuda-toolkit"
    assert choice["proofs"] == [{"name": "11.8", "programs": ["cuda"]}]
    assert choice["trees"] == [{"name": "13.0", "state": "absent"}]
    assert choice["repository"] == "absent"
    gone = filtered({**wishes, "toolkits": [{"version": "11.8", "state": "absent"}]})
    assert gone["distribution"] == "absent"
    full = filtered(GOOD)
    assert (full["distribution"], full["repository"], full["trees"]) == ("", "", [])
    assert "nvidia-cudnn-cu13==9.28.0.42 --hash=sha256:" in full["environments"][0]["requirements"]
