"""The distribution's toolkit with cuDNN and NCCL beside it, on a node without a GPU."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

EXPECTED = {"bookworm": ("11.8", "cudnn 91002 nccl 22105"), "trixie": ("12.4", "cudnn 92800 nccl 23203")}
PROGRAM = """
#include <cstdio>
#include <cudnn.h>
#include <nccl.h>
#include <cublas_v2.h>
__global__ void nothing() {}
int main() {
  int nccl = 0;
  ncclGetVersion(&nccl);
  cublasHandle_t blas;
  printf("cudnn %zu nccl %d", cudnnGetVersion(), nccl);
  nothing<<<1, 1>>>();
  if (cublasCreate(&blas) != CUBLAS_STATUS_NOT_INITIALIZED) return 1;
  return cudnnGraphVersionCheck() + cudnnOpsVersionCheck() + cudnnCnnVersionCheck() + cudnnAdvVersionCheck();
}
"""


@pytest.fixture
def release(host: Any) -> tuple[str, str]:
    """The toolkit's line and what a program says of its libraries."""
    return EXPECTED[host.system_info.codename]


def login(host: Any, script: str) -> Any:
    """Run a script in an ordinary user's login shell."""
    return host.run("su - nobody -s /bin/bash -c %s", f"cd /tmp && {script}")


def test_a_user_compiles_links_and_runs_without_any_further_word(host: Any, release: tuple[str, str]) -> None:
    line, says = release
    host.check_output("printf %%s %s > /tmp/program.cu", PROGRAM)
    done = login(host, "nvcc -o /tmp/program program.cu -lcudnn -lnccl -lcublas && ldd /tmp/program && /tmp/program")
    assert done.rc == 0, done.stdout + done.stderr
    assert "not found" not in done.stdout
    assert f"libcudnn.so.9 => /usr/local/cuda-{line}/lib64/libcudnn.so.9" in done.stdout
    assert re.search(r"libcublas\.so\.\d+ => (/usr)?/lib/x86_64-linux-gnu/", done.stdout), "the distribution's own"
    assert done.stdout.splitlines()[-1] == says


def test_nvcc_is_the_distributions_and_of_the_planned_release(host: Any, release: tuple[str, str]) -> None:
    line, _says = release
    assert login(host, "command -v nvcc").stdout.strip() == "/usr/local/cuda/bin/nvcc"
    assert host.check_output("readlink -f /usr/local/cuda") == f"/usr/local/cuda-{line}"
    assert f"release {line}" in login(host, "nvcc --version").stdout
    about = json.loads(host.file(f"/usr/local/cuda-{line}/.trainyard-cuda.json").content_string)["about"]
    assert about["source"] == "distribution"
    assert host.package("nvidia-cuda-toolkit").is_installed


def test_tools_of_others_find_what_they_ask_for_by_the_short_name(host: Any) -> None:
    for name in ("bin/ptxas", "bin/fatbinary", "bin/cuobjdump", "nvvm/libdevice/libdevice.10.bc", "lib64/libcudnn.so", "include/nccl.h"):
        assert host.file(f"/usr/local/cuda/{name}").exists, name
    assert host.check_output("find /usr/local/cuda/ -xtype l") == "", "no link leads nowhere"


def test_the_loader_is_told_nothing_of_cudnn(host: Any) -> None:
    assert not re.search(r"cuda-|cudnn|nccl", host.check_output("ldconfig -p"))
    assert login(host, "echo path:$LD_LIBRARY_PATH").stdout.strip() == "path:"


def test_the_systems_own_sources_are_as_they_were_and_no_package_is_broken(host: Any) -> None:
    assert "non-free" not in host.file("/etc/apt/sources.list").content_string
    assert host.run("apt-get -q update --error-on=any").rc == 0
    assert host.check_output("dpkg --audit") == ""
    assert host.run("apt-get check").rc == 0
