"""What the resolver must answer, case by case; the expected values are what the rows' sources say, not what it answered once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.plugin_utils._conflict import Explanation
from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import fits
from ansible_collections.trainyard.core.plugins.plugin_utils._plan import NodePlan
from resolver_support import ask, machine


@dataclass
class Case:
    """A machine, wishes, and what must come of them: versions as specifiers, or a conflict."""

    system: str
    gpus: tuple[str, ...]
    frameworks: tuple[Any, ...]
    words: dict[str, Any] = field(default_factory=dict)
    driver: str = ""  # installed
    kernel: str = ""  # another than the system's own
    branch: int | None = None
    modules: str = ""
    source: str = ""
    toolkit: str = ""
    cudnn: str = ""
    sets: dict[str, str] = field(default_factory=dict)  # environment -> words: "2.14.*", "cuda 12.6", "python 3.11", "device cpu" ...
    warning: str = ""
    clash: tuple[str, ...] = ()
    because: str = ""
    change: tuple[str, ...] = ()


D11, D12, D13, U20, U22, U24, U26 = "debian-11", "debian-12", "debian-13", "ubuntu-20.04", "ubuntu-22.04", "ubuntu-24.04", "ubuntu-26.04"
NEW, OLD = {"modules": "open"}, {"modules": "proprietary"}
PT, TF = ("pytorch",), ("tensorflow",)

CASES = {
    # Each architecture: the branch that drives it, the flavour of the module, and wheels that have code for it.
    "kepler gk110 (K40), Debian 12": Case(
        D12, ("Tesla K40c",), PT, branch=470, source="distribution", warning="R470", sets={"pytorch": "<1.3"}, **OLD
    ),
    "kepler gk210 (K80), Debian 12": Case(
        D12, ("Tesla K80",), PT, branch=470, toolkit="11.8.*", warning="PTX", sets={"pytorch": "<2.4"}, **OLD
    ),
    "kepler gk210 (K80), TensorFlow": Case(D12, ("k80",), TF, branch=470, sets={"tensorflow": "cuda 11.8"}, **OLD),
    "kepler 3.0 (GTX 680) has no PyTorch any more": Case(
        D12, ("GeForce GTX 680",), PT, clash=("framework", "device"), because="no code for"
    ),
    "fermi (GTX 480) has no PyTorch any more": Case(D11, ("GeForce GTX 480",), PT, clash=("framework", "device"), because="no code for"),
    "fermi (GTX 480), Debian 12: no packages of its driver": Case(
        D12, ("GeForce GTX 480",), (), clash=("gpus", "runfile"), because="340 to 390 is older than R545", change=("runfile",)
    ),
    "fermi (GTX 480), Debian 12, by runfile": Case(
        D12, ("GeForce GTX 480",), (), {"driver_sources": ["runfile"]}, branch=390, source="runfile", **OLD
    ),
    "kepler, Debian 13: its repository began with CUDA 13, and the last branch knows no kernel so new": Case(
        D13, ("K80",), (), clash=("gpus",), because="340 to 470 is older than R580, the oldest in NVIDIA's repository for Debian 13"
    ),
    "kepler, Debian 13, by runfile": Case(
        D13,
        ("K80",),
        (),
        {"driver_sources": ["runfile"]},
        clash=("gpus",),
        because="340 to 470 is tested with kernels up to 6.8 at most, as Debian 12 says of 470, and 6.12 boots",
        change=("gpus",),
    ),
    "kepler, Ubuntu 26.04: the kernel is too new for the last branch": Case(U26, ("K80",), (), clash=("gpus",), because="and 7.0 boots"),
    "R550 by NVIDIA's repository and a kernel that Debian's R550 does not know": Case(
        D13, ("A100",), (), {"pins": {"driver": "550"}}, kernel="6.17", clash=("gpus", "pin"), because="and 6.17 boots", change=("pin",)
    ),
    "maxwell (GTX 750 Ti), PyTorch by CUDA 12.6": Case(
        D12, ("10de:1380",), PT, branch=580, toolkit="12.9.*", sets={"pytorch": "2.14.* cuda 12.6 cudnn 9.10.2"}, **OLD
    ),
    "maxwell (GTX 980), TensorFlow before 2.17": Case(D12, ("GeForce GTX 980",), TF, branch=580, sets={"tensorflow": "2.16.*"}, **OLD),
    "pascal (P100)": Case(
        U22, ("Tesla P100",), PT, branch=580, toolkit="12.9.*", cudnn="9.10.2", sets={"pytorch": "2.14.* cuda 12.6"}, **OLD
    ),
    "pascal (GTX 1080 Ti) runs code for 6.0": Case(U24, ("GTX 1080 Ti",), PT, branch=580, sets={"pytorch": "2.14.* cuda 12.6"}, **OLD),
    "pascal (P40), newest TensorFlow": Case(U24, ("Tesla P40",), TF, branch=580, sets={"tensorflow": "2.21.* cudnn 9.10.2"}, **OLD),
    "volta (V100), PyTorch": Case(
        U24, ("Tesla V100",), PT, branch=580, source="distribution", sets={"pytorch": "2.14.* cuda 12.6 cudnn 9.10.2 python 3.12"}, **OLD
    ),
    "volta (Titan V), TensorFlow stays below cuDNN 9.11": Case(
        U24, ("TITAN V",), TF, branch=580, sets={"tensorflow": "2.21.* cudnn 9.10.2"}, **OLD
    ),
    "turing (T4)": Case(U22, ("Tesla T4",), PT, branch=580, toolkit="13.0.*", sets={"pytorch": "2.15.* cuda 13.2"}, **NEW),
    "turing (RTX 2080 Ti)": Case(D12, ("GeForce RTX 2080 Ti",), TF, branch=580, sets={"tensorflow": "2.21.*"}, **NEW),
    "turing without tensor cores (GTX 1660)": Case(D12, ("GTX 1660 SUPER",), PT, branch=580, **NEW),
    "ampere (A100)": Case(D12, ("A100 PCIe 40GB",), PT, branch=580, toolkit="13.0.*", **NEW),
    "ampere (RTX 3090)": Case(D12, ("RTX 3090",), TF, branch=580, sets={"tensorflow": "2.21.* python 3.11"}, **NEW),
    "ampere (A40) runs code for 8.6": Case(U24, ("A40",), PT, branch=580, **NEW),
    "ada (RTX 4090) runs code for 8.6": Case(U24, ("RTX 4090",), PT, branch=580, sets={"pytorch": "2.15.* cuda 13.2"}, **NEW),
    "ada (L40S), TensorFlow": Case(U24, ("L40S",), TF, branch=580, **NEW),
    "hopper (H100)": Case(U24, ("H100 PCIe",), PT, branch=580, **NEW),
    "hopper (H200)": Case(U24, ("H200",), PT, branch=580, sets={"pytorch": "2.15.* cuda 13.2"}, **NEW),
    "blackwell (B200)": Case(U24, ("B200",), PT, branch=580, toolkit="13.0.*", sets={"pytorch": "2.15.* cuda 13.2"}, **NEW),
    "blackwell (RTX 5090)": Case(U24, ("RTX 5090",), PT, branch=580, sets={"pytorch": "2.15.* cuda 13.2"}, **NEW),
    "blackwell, TensorFlow by PTX, which is said": Case(U24, ("RTX 5090",), TF, branch=580, warning="compiled at first use", **NEW),
    "by PCI id": Case(U24, ("10de:1db4",), PT, branch=580, **OLD),
    "by compute capability": Case(U24, ("sm_90",), PT, branch=580, **NEW),
    "two of a kind": Case(U24, ("RTX 3090", "RTX 3090"), PT, branch=580, **NEW),
    # Several GPUs in one machine.
    "pascal beside blackwell: no flavour drives both": Case(
        U24, ("GTX 1080 Ti", "RTX 5090"), PT, clash=("gpus",), because="open one", change=("gpus", "device")
    ),
    "volta beside blackwell: the same": Case(U24, ("V100", "B200"), PT, clash=("gpus",), because="proprietary one"),
    "volta beside ampere share the proprietary module": Case(
        U24, ("V100", "A100"), PT, branch=580, sets={"pytorch": "2.14.* cuda 12.6"}, **OLD
    ),
    "kepler beside ampere: R470 drives both": Case(U22, ("K80", "A100"), PT, branch=470, warning="R470", **OLD),
    "kepler beside ada: no branch drives both": Case(
        U22, ("K80", "RTX 4090"), PT, clash=("gpus",), because="last driver branch for Kepler"
    ),
    "maxwell beside hopper": Case(U24, ("GTX 980", "H100"), PT, branch=580, sets={"pytorch": "cuda 12.6"}, **OLD),
    # CUDA, cuDNN and driver by name.
    "pre-Turing with CUDA 13 is refused": Case(
        U24, ("V100",), PT, {"pins": {"cuda": "13.0"}}, clash=("pin", "gpus"), because="CUDA 13.0 makes no code for V100", change=("pin",)
    ),
    "pre-Turing with a cu130 wheel is refused": Case(
        U24, ("V100",), ("pytorch==2.15.0",), clash=("framework", "device", "pin"), because="no code for V100", change=("pin",)
    ),
    "pascal with CUDA 13 is refused": Case(U24, ("P100",), TF, {"pins": {"cuda": "13"}}, clash=("pin", "gpus"), change=("pin",)),
    "cuDNN 9.11 and Volta": Case(
        U24,
        ("V100",),
        TF,
        {"pins": {"cudnn": ">=9.11"}},
        clash=("framework", "device", "pin"),
        because=">=9.11 is asked for, which does not drive V100",
        change=("pin",),
    ),
    "cuDNN 9.10 and Volta": Case(U24, ("V100",), TF, {"pins": {"cudnn": "9.10"}}, branch=580, sets={"tensorflow": "cudnn 9.10.2"}, **OLD),
    "CUDA 12.6 for all": Case(
        U24,
        ("A100",),
        ("pytorch", "tensorflow"),
        {"pins": {"cuda": "12.6"}},
        toolkit="12.6.*",
        sets={"pytorch": "cuda 12.6", "tensorflow": "cuda 12.6"},
    ),
    "CUDA 13.2 beside R580 works, and PTX is warned of": Case(
        U24, ("A100",), (), {"pins": {"cuda": "13.2", "driver": "580"}}, branch=580, toolkit="13.2.*", warning="PTX"
    ),
    "CUDA 13 beside R535 is refused": Case(
        U24, ("A100",), (), {"pins": {"cuda": "13.0", "driver": "535"}}, clash=("pin", "gpus", "pin"), because="580"
    ),
    "a toolkit without the vendor's repository": Case(
        "debian-12", ("A100",), (), {"driver_sources": ["distribution"]}, branch=535, toolkit="11.8", source="distribution"
    ),
    "CUDA 12.6 without the vendor's repository": Case(
        "debian-12",
        ("A100",),
        (),
        {"driver_sources": ["distribution", "runfile"], "pins": {"cuda": "12.6"}},
        clash=("pin", "gpus", "sources"),
        because="NVIDIA's repository, which is no source",
    ),
    "CUDA 12.2 and a repository that begins with 12.3": Case(
        "debian-12",
        ("A100",),
        (),
        {"pins": {"cuda": "12.2"}},
        clash=("pin", "gpus"),
        because="12.2 is older than 12.3, the oldest in NVIDIA's repository for Debian 12",
        change=("pin",),
    ),
    "CUDA 11.4 and Hopper": Case(U24, ("H100",), (), {"pins": {"cuda": "11.4"}}, clash=("pin", "gpus"), because="makes no code for H100"),
    "CUDA 12.6 and Blackwell": Case(U24, ("B200",), PT, {"pins": {"cuda": "12.6"}}, clash=("pin", "gpus"), change=("pin",)),
    "R580 and Kepler": Case(
        U22, ("K80",), PT, {"pins": {"driver": "580"}}, clash=("gpus", "pin"), because="R470 is the last", change=("pin",)
    ),
    "R470 and Ada": Case(
        U24, ("RTX 4090",), PT, {"pins": {"driver": "470"}}, clash=("gpus", "pin"), because="first driver branch for Ada", change=("pin",)
    ),
    "open module and Volta": Case(
        U24,
        ("V100",),
        PT,
        {"driver_modules": "open"},
        clash=("gpus", "modules"),
        because="open kernel module does not drive",
        change=("modules",),
    ),
    "proprietary module and Blackwell": Case(
        U24, ("B200",), PT, {"driver_modules": "proprietary"}, clash=("gpus", "modules"), change=("modules",)
    ),
    "proprietary module where both would do": Case(U24, ("A100",), PT, {"driver_modules": "proprietary"}, branch=580, **OLD),
    "Debian 13's own driver and Blackwell": Case(
        D13,
        ("B200",),
        PT,
        {"driver_sources": ["distribution"]},
        clash=("gpus", "sources"),
        because="first driver branch for Blackwell",
        change=("sources",),
    ),
    "Debian 12's own driver, end of life": Case(
        D12,
        ("A100",),
        PT,
        {"driver_sources": ["distribution"]},
        modules="proprietary",
        branch=535,
        source="distribution",
        warning="R535",
        sets={"pytorch": "cuda 12.6"},
    ),
    # A kernel that is not the system's own.
    "a kernel that the distribution's modules are made for": Case(
        D12, ("K80",), (), {"driver_sources": ["distribution"]}, kernel="6.7.12-amd64", branch=470, source="distribution"
    ),
    "a kernel newer than the distribution's modules": Case(
        D12,
        ("K80",),
        (),
        {"driver_sources": ["distribution"]},
        kernel="6.12.63+deb12-amd64",
        clash=("gpus",),
        because="470 is tested with kernels up to 6.8 in Debian 12, and 6.12 boots",
        change=("gpus",),
    ),
    "the same, whatever the source": Case(
        D12, ("K80",), (), kernel="6.12.63+deb12-amd64", clash=("gpus",), because="older than R545", change=("gpus",)
    ),
    "a kernel newer than one of the distribution's branches": Case(
        D13, ("A100",), (), {"driver_sources": ["distribution"]}, kernel="6.16", branch=535, source="distribution"
    ),
    "a new kernel and a driver that is there": Case(
        D12, ("A100",), (), {"driver_sources": ["distribution"]}, kernel="6.19", driver="535.309.01", branch=535, source="installed"
    ),
    # An installed driver.
    "an installed driver that will do is left alone": Case(U24, ("A100",), PT, driver="595.71.05", branch=595, source="installed"),
    "an older one that will do is left alone, and the wheel suits it": Case(
        U24, ("A100",), PT, driver="550.163.01", branch=550, source="installed", sets={"pytorch": "cuda 12.6"}
    ),
    "one newer than any row is left alone": Case(U24, ("A100",), PT, driver="625.10.01", branch=625, source="installed"),
    "one that does not drive the GPU is replaced": Case(U24, ("V100",), PT, driver="595.71.05", branch=580, source="distribution"),
    "one that is too old is replaced": Case(U24, ("B200",), PT, driver="535.309.01", branch=580),
    "the newest is wanted": Case(U24, ("A100",), PT, {"driver_policy": "newest"}, driver="550.163.01", branch=580),
    "the newest is wanted, and a newer one is there": Case(
        U24, ("A100",), PT, {"driver_policy": "newest"}, driver="625.10.01", branch=625, source="installed"
    ),
    "it may never be changed, and will not do": Case(
        U24, ("B200",), PT, {"driver_policy": "never"}, driver="535.309.01", clash=("gpus", "policy"), change=("policy",)
    ),
    "none may be installed, and none is": Case(
        U24, ("A100",), PT, {"driver_policy": "never"}, clash=("gpus", "policy"), because="none may be", change=("policy",)
    ),
    "an end-of-life branch that is installed is kept, and warned of": Case(
        U24, ("A100",), PT, driver="535.309.01", branch=535, warning="R535"
    ),
    # Frameworks and Pythons.
    "TensorFlow 2.17 and PyTorch 2.4 in one environment: different CUDA and cuDNN": Case(
        U22,
        ("A100",),
        ("tensorflow==2.17.0+pytorch==2.4.0",),
        clash=("framework", "framework", "together", "device", "pin"),
        change=("together",),
    ),
    "TensorFlow and PyTorch in one environment share CUDA 12": Case(
        U24, ("A100",), ("pytorch+tensorflow",), sets={"pytorch-tensorflow": "cuda 12.6 cudnn 9.10.2"}
    ),
    "TensorFlow and PyTorch with CUDA 13 in one environment": Case(
        U24,
        ("A100",),
        ("pytorch+tensorflow",),
        {"pins": {"cuda": "13.0"}},
        clash=("framework", "device", "pin"),
        because="TensorFlow",
        change=("pin",),
    ),
    "Keras brings TensorFlow": Case(U24, ("A100",), ("keras",), sets={"keras": "3.* cuda 12.9"}),
    "Paddle": Case(U24, ("A100",), ("paddle",), sets={"paddle": "3.3.1"}),
    "JAX with CUDA 13": Case(U24, ("A100",), ("jax",), sets={"jax": "cuda 13.0"}),
    "JAX on Volta stays with CUDA 12": Case(U24, ("V100",), ("jax",), sets={"jax": "cuda >=12,<13"}),
    "Caffe computes on the CPU unless asked otherwise": Case(U24, ("A100",), ("caffe",), branch=580, sets={"caffe": "device cpu"}),
    "Caffe runs in the system that last had it": Case(D12, (), ("caffe",), sets={"caffe": "1.0.0 python 3.9"}),
    "Caffe beside another framework cannot, and comes by conda": Case(
        D12, (), ({"name": "both", "frameworks": ("caffe", "tensorflow")},), sets={"both": "python 3.6"}
    ),
    "Caffe by conda, asked for by the version that only conda calls so": Case(
        D12, (), ("caffe==1.0",), sets={"caffe": "python 3.6 device cpu"}
    ),
    "Caffe as Debian calls its version": Case(D12, (), ("caffe==1.0.0",), sets={"caffe": "python 3.9 device cpu"}),
    "Caffe on a Pascal GPU: conda brings CUDA 9.0 or 8.0": Case(
        D12, ("GTX 1080",), ({"frameworks": "caffe", "device": "gpu"},), sets={"caffe": "device gpu python 3.6 cuda >=8,<9.1"}
    ),
    "Caffe on a Maxwell GPU runs code for 5.0": Case(
        U22, ("GTX 980",), ({"frameworks": "caffe", "device": "gpu"},), sets={"caffe": "device gpu"}
    ),
    "Caffe on a Volta GPU, which came after its builds": Case(
        U24,
        ("V100",),
        ({"frameworks": "caffe", "device": "gpu"},),
        clash=("framework", "device"),
        because="Caffe (conda-gpu) 1.0 has no code for V100 (Volta",
        change=("device",),
    ),
    "Caffe on an Ampere GPU": Case(
        U24,
        ("A100",),
        ({"frameworks": "caffe", "device": "gpu"},),
        clash=("framework", "device"),
        because="Caffe (conda-gpu) 1.0 has no code for A100 (Ampere",
        change=("device",),
    ),
    "a framework on a GPU whose CUDA cannot be had any more": Case(
        D12,
        ("GTX 1080",),
        ("tensorflow==1.7.0",),
        clash=("framework", "device", "pin"),
        because="uses the node's own CUDA 9.0, which is older than 12.3, the oldest in NVIDIA's repository for Debian 12",
        change=("pin",),
    ),
    "no GPU: the CPU, no driver": Case(
        D12, (), ("pytorch", "tensorflow"), sets={"pytorch": "device cpu python 3.11", "tensorflow": "device cpu 2.21.*"}
    ),
    "no GPU, but a GPU is asked for": Case(
        D12, (), ("pytorch",), {"device": "gpu"}, clash=("framework", "device"), because="has no GPU", change=("device",)
    ),
    "a GPU, but the CPU is asked for": Case(D12, ("A100",), ("pytorch",), {"device": "cpu"}, sets={"pytorch": "device cpu"}),
    "Python by name": Case(U24, ("A100",), PT, {"pins": {"python": "3.11"}}, sets={"pytorch": "python 3.11"}),
    "a Python that no release has": Case(
        U24,
        ("A100",),
        ("pytorch==2.14.0",),
        {"pins": {"python": "3.8"}},
        clash=("framework", "pin", "pin"),
        because="Python",
        change=("pin",),
    ),
    "an old system gets a new Python by conda": Case(D11, ("A100",), PT, sets={"pytorch": "python >=3.11"}),
    "a system too new for TensorFlow gets an older Python": Case(U26, ("A100",), TF, sets={"tensorflow": "2.21.* python 3.13"}),
    # The old platform's profile.
    "qingcloud-1.1 on the CPU": Case(
        D12, (), (), {"profile": "qingcloud-1.1"}, sets={"tensorflow": "1.7.0 python 3.6 device cpu", "keras": "2.1.5", "pytorch": "0.3.1"}
    ),
    "qingcloud-1.1, CUDA 9.1: TensorFlow's own wheel is for 9.0": Case(
        U22,
        ("V100",),
        (),
        {"profile": "qingcloud-1.1:cuda-9.1"},
        clash=("framework", "device", "pin"),
        because="CUDA 9.0, not 9.1",
        change=("pin",),
    ),
    "qingcloud-1.1 on Ampere": Case(
        U22, ("A100",), (), {"profile": "qingcloud-1.1:cuda-9.1"}, clash=("gpus", "pin"), because="makes no code for A100"
    ),
    "a modern profile changes nothing": Case(U24, ("V100",), PT, {"profile": "modern"}, branch=580, sets={"pytorch": "2.14.*"}),
    # Enterprise Linux is planned as well as the rows allow.
    "Rocky 9": Case("rocky-9", ("A100",), PT, branch=580, source="nvidia_repository", **NEW),
}


def _check_set(plan: NodePlan, name: str, words: str) -> None:
    placed = next(placed for placed in plan.environments if placed.environment == name)
    values = {"cuda": placed.wheels.cuda, "cudnn": placed.wheels.cudnn, "python": placed.python, "device": placed.wheels.device}
    left = words.split()
    while left:
        word = left.pop(0)
        if word in values:
            wanted, value = left.pop(0), values[word]
        else:
            wanted, value = word, placed.wheels.choices[0].release.version
        assert value == wanted or (wanted[0] in "<>0123456789" and fits(value, wanted.removesuffix(".*"))), (word, value, wanted)


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    case = CASES[name]
    found = ask([machine(case.system, *case.gpus, driver=case.driver, kernel=case.kernel)], *case.frameworks, **case.words)
    if case.clash:
        assert found.plan is None, found.plan
        assert found.explanation
        _check_conflict(case, found.explanation)
        return
    assert found.plan, found.explanation and [(one.wishes, [str(reason) for reason in one.reasons]) for one in found.explanation.conflicts]
    plan = found.plan.nodes[0]
    if case.branch is not None:
        assert plan.driver
        assert plan.driver.branch.branch == case.branch
        assert plan.driver.modules == (case.modules or plan.driver.modules)
        assert plan.driver.source == (case.source or plan.driver.source)
    if not case.gpus:
        assert plan.driver is None
    for wanted, value in (
        (case.toolkit, plan.toolkits and plan.toolkits[0].release.version),
        (case.cudnn, plan.toolkits and plan.toolkits[0].cudnn),
    ):
        assert not wanted or (value and fits(value, wanted.removesuffix(".*")))
    for environment, words in case.sets.items():
        _check_set(plan, environment, words)
    every = " ".join([*plan.warnings, *(text for placed in plan.environments for text in placed.warnings)])
    assert case.warning in every


def _check_conflict(case: Case, explanation: Explanation) -> None:
    clash = explanation.conflicts[0]
    assert sorted(wish.key[0] for wish in clash.wishes) == sorted(case.clash), [wish.text for wish in clash.wishes]
    assert case.because in " ".join(str(reason) for reason in clash.reasons), [str(reason) for reason in clash.reasons]
    assert explanation.changes, "no way out"
    assert explanation.plan
    if case.change:
        assert sorted(wish.key[0] for wish in explanation.changes) == sorted(case.change), [wish.change for wish in explanation.changes]


def test_there_are_enough_cases_to_cover_every_architecture() -> None:
    assert len(CASES) >= 60
