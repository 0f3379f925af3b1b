"""A toolkit from wheels on a node without a GPU: it compiles, links and loads, and gets in nobody's way."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

HOME = "/usr/local/cuda-13.0"
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
  printf("%zu %d %d", cudnnGetVersion(), nccl, cublasCreate(&blas) == CUBLAS_STATUS_NOT_INITIALIZED);
  nothing<<<1, 1>>>();
  return cudnnGraphVersionCheck() + cudnnOpsVersionCheck() + cudnnCnnVersionCheck() + cudnnAdvVersionCheck();
}
"""


def login(host: Any, script: str) -> Any:
    """Run a script in an ordinary user's login shell."""
    return host.run("su - nobody -s /bin/bash -c %s", f"cd /tmp && {script}")


@pytest.fixture
def program(host: Any) -> str:
    """A program that an ordinary user wrote."""
    host.check_output("printf %%s %s > /tmp/program.cu", PROGRAM)
    return "program.cu"


def test_a_user_compiles_links_and_runs_without_any_further_word(host: Any, program: str) -> None:
    done = login(host, f"nvcc -o /tmp/program-nvcc {program} -lcudnn -lnccl -lcublas && ldd /tmp/program-nvcc && /tmp/program-nvcc")
    assert done.rc == 0, done.stdout + done.stderr
    assert "not found" not in done.stdout
    assert f"libcudnn.so.9 => {HOME}/lib64/libcudnn.so.9" in done.stdout
    assert done.stdout.splitlines()[-1] == "92800 23203 1"


def test_a_host_compiler_links_when_it_is_told_where(host: Any) -> None:
    host.check_output("printf %%s %s > /tmp/host.cpp", "#include <cudnn.h>\nint main() { return cudnnGetVersion() != CUDNN_VERSION; }\n")
    words = "-I$CUDA_HOME/include -L$CUDA_HOME/lib64 -Wl,-rpath,$CUDA_HOME/lib64 -lcudnn"
    done = login(host, f"g++ -o /tmp/host host.cpp {words} && /tmp/host")
    assert done.rc == 0, done.stderr


@pytest.mark.parametrize(
    "library", ["cublas", "cublasLt", "cudart", "cudnn", "cufft", "curand", "cusolver", "cusparse", "nccl", "nvJitLink", "nvrtc"]
)
def test_each_library_has_a_name_for_the_linker_and_finds_what_it_needs(host: Any, library: str) -> None:
    path = f"{HOME}/lib64/lib{library}.so"
    assert host.file(path).is_symlink
    assert "not found" not in host.check_output("ldd %s", path)


def test_the_default_is_found_by_a_login_shell_and_by_its_short_name(host: Any) -> None:
    assert host.check_output("readlink -f /usr/local/cuda") == HOME
    assert login(host, "echo $CUDA_HOME; command -v nvcc").stdout.split() == ["/usr/local/cuda", "/usr/local/cuda/bin/nvcc"]
    assert json.loads(host.file(f"{HOME}/version.json").content_string)["cuda"]["version"] == "13.0.2"


def test_the_loader_is_told_nothing(host: Any) -> None:
    assert not re.search(r"cuda-|cudnn|nccl|cublas", host.check_output("ldconfig -p"))
    assert login(host, "echo path:$LD_LIBRARY_PATH").stdout.strip() == "path:"
    loaded = login(host, "python3 -c 'import ctypes; ctypes.CDLL(\"libcudnn.so.9\")'")
    assert "libcudnn.so.9: cannot open shared object file" in loaded.stderr


def test_what_an_environment_brings_wins_in_it(host: Any) -> None:
    """The environment is a stand-in: a library by cuDNN's name, and one that needs it and looks beside itself, as wheels do."""
    host.check_output("mkdir -p /tmp/env/nvidia/cudnn/lib /tmp/env/framework")
    host.check_output("printf 'int cudnnGetVersion(void) { return 1; }' > /tmp/env/cudnn.c")
    host.check_output("printf 'int cudnnGetVersion(void); int version(void) { return cudnnGetVersion(); }' > /tmp/env/framework.c")
    host.check_output("gcc -shared -o /tmp/env/nvidia/cudnn/lib/libcudnn.so.9 -Wl,-soname,libcudnn.so.9 /tmp/env/cudnn.c")
    beside = "'-Wl,-rpath,$ORIGIN/../nvidia/cudnn/lib'"
    host.check_output(f"gcc -shared -o /tmp/env/framework/f.so /tmp/env/framework.c /tmp/env/nvidia/cudnn/lib/libcudnn.so.9 {beside}")
    seen = login(host, "python3 -c 'import ctypes; print(ctypes.CDLL(\"/tmp/env/framework/f.so\").version())'")
    assert seen.stdout.strip() == "1", seen.stderr


def test_files_are_on_the_disk_once_and_only_root_changes_them(host: Any) -> None:
    wheel = host.check_output("ls /usr/local/lib/trainyard-cuda/13.0/lib/python3*/site-packages/nvidia/cudnn/lib/libcudnn.so.9")
    assert len(set(host.check_output("stat -c %%i %s %s", wheel, f"{HOME}/lib64/libcudnn.so.9").split())) == 1
    assert host.check_output("find %s -perm /022 -not -type l", HOME) == ""
    assert host.check_output("find %s -not -user root", HOME) == ""
    assert host.check_output("find %s -xtype l", HOME) == "", "no link leads nowhere"
    assert host.check_output("find /usr/local -maxdepth 1 -name '.trainyard*'") == "", "nothing is left of the making"


def test_the_proof_says_what_was_proven_and_that_no_gpu_computed(host: Any) -> None:
    proofs = json.loads(host.file(f"{HOME}/.trainyard-proof.json").content_string)["proofs"]
    assert [proof["program"] for proof in proofs] == ["cuda", "cudnn", "nccl"]
    assert not any(proof["ran"] or proof["problem"] for proof in proofs)
    assert proofs[1]["seen"]["cudnn"] == 92800
    assert proofs[2]["seen"]["nccl"] == 23203
