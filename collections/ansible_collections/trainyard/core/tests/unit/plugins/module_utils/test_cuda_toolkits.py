"""Toolkits as folders: what belongs into them, what is off, and what an interruption leaves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _cuda_toolkits as core

PROFILE = "TOP = $(_HERE_)/..\n"
WHEELS = {
    "cu13/bin/nvcc": "compiler",
    "cu13/bin/nvcc.profile": PROFILE,
    "cu13/bin/crt/link.stub": "",
    "cu13/include/cuda.h": "",
    "cu13/include/cccl/cuda/std/array": "",
    "cu13/lib/libcudart.so.13": "runtime",
    "cu13/lib/libcudart_static.a": "",
    "cu13/lib/libnvrtc-builtins.so.13.0": "",
    "cu13/lib/libcheckpoint.so": "",
    "cu13/lib/cmake/cccl/cccl-config.cmake": "",
    "cu13/nvvm/bin/cicc": "",
    "cu13/.metadata/provenance.txt": "",
    "cudnn/__init__.py": "",
    "cudnn/include/cudnn.h": "",
    "cudnn/lib/__init__.py": "",
    "cudnn/lib/libcudnn.so.9": "cudnn",
}
NAME = "13.0"
WANTED = core.Wanted(NAME, about={"version": "13.0.2", "source": "wheels", "cudnn": "9.28.0"})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the wheels of one toolkit in the store."""
    for path, text in WHEELS.items():
        wheel_file(tmp_path, path).parent.mkdir(parents=True, exist_ok=True)
        wheel_file(tmp_path, path).write_text(text)
    wheel_file(tmp_path, "cu13/bin/nvcc").chmod(0o755)
    return tmp_path


def wheel_file(place: Path, path: str, name: str = NAME) -> Path:
    return place / "lib/trainyard-cuda" / name / "lib/python3.11/site-packages/nvidia" / path


def toolkits(place: Path, owner: str = "cuda") -> core.Toolkits:
    return core.Toolkits(str(place), str(place / "lib/trainyard-cuda"), owner)


def actions(results: list[core.Result]) -> dict[str, list[str]]:
    return {result.name: result.actions for result in results if result.actions}


def bring(place: Path, *wishes: core.Wanted, default: str = NAME) -> dict[str, list[str]]:
    return actions(toolkits(place).apply(wishes or [WANTED], default, dry=False))


def listing(place: Path) -> list[str]:
    return sorted(entry.name for entry in place.iterdir())


def tree(folder: Path) -> dict[str, Any]:
    """Return every file with its content and every link with its target."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = path.read_text()
    return found


def test_it_looks_as_a_toolkit_does(place: Path) -> None:
    assert bring(place) == {NAME: ["make it"], "cuda": ["have it lead to cuda-13.0"]}
    found = tree(place / "cuda-13.0")
    assert {name for name in found if name.startswith("lib64/lib")} == {
        *("lib64/libcudart.so", "lib64/libcudart.so.13", "lib64/libcudart_static.a", "lib64/libcudnn.so", "lib64/libcudnn.so.9"),
        *("lib64/libnvrtc-builtins.so", "lib64/libnvrtc-builtins.so.13.0", "lib64/libcheckpoint.so"),
    }
    assert found["lib64/libcudnn.so"] == "-> libcudnn.so.9"
    assert found["lib"] == "-> lib64"
    assert {"bin/nvcc", "bin/crt/link.stub", "include/cudnn.h", "include/cuda.h", "include/cccl/cuda/std/array", "nvvm/bin/cicc"} < set(
        found
    )
    assert not [name for name in found if name.endswith(".py") or "metadata" in name]
    assert found["bin/nvcc.profile"].startswith(PROFILE.strip())
    assert f'"-rpath={place}/cuda-13.0/lib64"' in found["bin/nvcc.profile"]
    assert os.readlink(place / "cuda") == "cuda-13.0"
    assert (place / "cuda-13.0/lib64/libcudnn.so.9").samefile(wheel_file(place, "cudnn/lib/libcudnn.so.9"))
    assert os.access(place / "cuda-13.0/bin/nvcc", os.X_OK)
    assert listing(place) == ["cuda", "cuda-13.0", "lib"]


def test_a_second_run_finds_nothing_to_do_and_check_mode_does_nothing(place: Path) -> None:
    assert actions(toolkits(place).apply([WANTED], NAME, dry=True)) == {NAME: ["make it"], "cuda": ["have it lead to cuda-13.0"]}
    assert listing(place) == ["lib"]
    bring(place)
    (place / "cuda-13.0" / core.PROOF).write_text("{}")
    assert bring(place) == {}
    assert actions(toolkits(place).apply([WANTED], NAME, dry=True)) == {}
    elsewhere = core.Wanted("13.4", about={"version": "13.4.1"})
    assert actions(toolkits(place).apply([elsewhere], NAME, dry=True)) == {"13.4": ["make it"]}, "its wheels are not there yet"


@pytest.mark.parametrize(
    "damage, says",
    [
        (lambda folder: (folder / "include/cuda.h").unlink(), "add include/cuda.h"),
        (lambda folder: (folder / "lib64/libcudnn.so").unlink(), "add lib64/libcudnn.so"),
        (lambda folder: (folder / "include/own.h").write_text(""), "remove include/own.h"),
        (lambda folder: (folder / "lib64/libown.so").symlink_to("libcudnn.so.9"), "remove lib64/libown.so"),
        (lambda folder: (folder / "more").symlink_to("include"), "remove more"),
        (lambda folder: (folder / "bin/nvcc.profile").write_text(PROFILE), "change bin/nvcc.profile"),
        (lambda folder: (folder / core.MARKER).write_text('{"owner": "cuda"}'), f"change {core.MARKER}"),
        (lambda folder: replace(folder / "lib64/libcudnn.so.9", "mended"), "change lib64/libcudnn.so.9"),
        (lambda folder: relink(folder / "lib64/libcudnn.so", "libcudart.so.13"), "change lib64/libcudnn.so"),
    ],
)
def test_what_is_off_is_found_and_put_right(place: Path, damage: Any, says: str) -> None:
    bring(place)
    whole = tree(place / "cuda-13.0")
    damage(place / "cuda-13.0")
    assert bring(place) == {NAME: [says]}
    assert tree(place / "cuda-13.0") == whole
    assert listing(place) == ["cuda", "cuda-13.0", "lib"]


def replace(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def test_a_repaired_wheel_is_taken_over(place: Path) -> None:
    bring(place)
    replace(wheel_file(place, "cudnn/lib/libcudnn.so.9"), "repaired")
    assert bring(place) == {NAME: ["change lib64/libcudnn.so.9"]}
    assert (place / "cuda-13.0/lib64/libcudnn.so.9").read_text() == "repaired"


def test_a_system_that_cannot_exchange_folders_is_served_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring(place)
    monkeypatch.setattr(core, "exchange", lambda _one, _other: False)
    (place / "cuda-13.0/include/cuda.h").unlink()
    assert bring(place) == {NAME: ["add include/cuda.h"]}
    assert listing(place) == ["cuda", "cuda-13.0", "lib"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_killed_anywhere_it_leaves_no_half_toolkit_and_a_second_run_finishes(
    place: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    bring(place)
    whole = tree(place / "cuda-13.0")

    class KilledError(BaseException):
        """Nobody catches it."""

    steps = 0
    for kill_at in range(1, 200):
        steps = 0
        (place / "cuda-13.0/include/cuda.h").unlink()
        damaged = tree(place / "cuda-13.0")

        def counted(call: Any, at: int = kill_at) -> Any:
            def step(*words: Any, **more: Any) -> Any:
                nonlocal steps
                steps += 1
                if steps == at:
                    raise KilledError
                return call(*words, **more)

            return step

        with monkeypatch.context() as patch:
            for name in ("link", "rename", "symlink", "mkdir", "chmod", "unlink", "rmdir"):
                patch.setattr(os, name, counted(getattr(os, name)))
            patch.setattr(core, "exchange", counted(core.exchange if exchanges else lambda _one, _other: False))
            try:
                bring(place)
                break
            except KilledError:
                pass
        there = tree(place / "cuda-13.0")
        assert there in (whole, damaged, {} if not exchanges else whole), "half a toolkit stands there"
        bring(place)
        assert tree(place / "cuda-13.0") == whole
        assert listing(place) == ["cuda", "cuda-13.0", "lib"]
    assert steps > 10


def test_others_folders_and_links_are_refused_and_left_alone(place: Path) -> None:
    (place / "cuda-13.0").mkdir()
    with pytest.raises(
        core.CudaToolkitError, match=r"cuda-13\.0 is there already and was not made by Trainyard\. Move it away, or take 13\.0 out of"
    ):
        toolkits(place).check([WANTED], NAME, 0)
    (place / "cuda-13.0").rmdir()
    (place / "cuda").symlink_to("/opt/theirs")
    with pytest.raises(core.CudaToolkitError, match=r"/cuda leads to /opt/theirs and was not made by Trainyard.*cuda_default to none"):
        bring(place)
    assert bring(place, default="") == {NAME: ["make it"]}
    assert toolkits(place).remove_all(dry=False)
    assert os.readlink(place / "cuda") == "/opt/theirs"
    (place / "cuda").unlink()
    (place / "cuda").mkdir()
    with pytest.raises(core.CudaToolkitError, match="/cuda is there already"):
        bring(place)


def test_another_owners_toolkit_is_somebody_elses(place: Path) -> None:
    bring(place)
    with pytest.raises(core.CudaToolkitError, match="was not made by Trainyard"):
        toolkits(place, "other").check([WANTED], "", 0)
    assert toolkits(place, "other").remove_all(dry=False) == []


def test_two_stand_beside_each_other_the_default_moves_and_one_goes(place: Path) -> None:
    wheel_file(place, "cu13/bin", "13.4").mkdir(parents=True)
    wheel_file(place, "cu13/bin/nvcc.profile", "13.4").write_text(PROFILE)
    newer = core.Wanted("13.4", about={"version": "13.4.1"})
    bring(place, WANTED)
    assert bring(place, WANTED, newer, default="13.4") == {"13.4": ["make it"], "cuda": ["have it lead to cuda-13.4"]}
    assert bring(place, core.Wanted("13.4", present=False), WANTED) == {"cuda": ["have it lead to cuda-13.0"], "13.4": ["remove it"]}
    assert listing(place) == ["cuda", "cuda-13.0", "lib"]
    assert bring(place, WANTED, default="") == {"cuda": ["remove it"]}


def test_undo_removes_what_is_ours_and_only_says_so_in_check_mode(place: Path) -> None:
    bring(place)
    (place / "cuda-9.0").mkdir()
    assert actions(toolkits(place).remove_all(dry=True)) == {"cuda": ["remove it"], NAME: ["remove it"]}
    assert (place / "cuda/bin/nvcc").exists()
    toolkits(place).remove_all(dry=False)
    assert listing(place) == ["cuda-9.0", "lib"]
    assert actions(toolkits(place).remove_all(dry=False)) == {}


def test_a_toolkit_of_the_distribution_gets_a_compiler_that_finds_the_libraries_beside_it(place: Path) -> None:
    name = "12.4"
    for path in ("cudnn/lib/libcudnn.so.9", "cudnn/include/cudnn.h"):
        wheel_file(place, path, name).parent.mkdir(parents=True)
        wheel_file(place, path, name).write_text("")
    bring(place, core.Wanted(name, about={"version": "12.4.1"}, distribution="/usr/lib/theirs"), default=name)
    found = tree(place / "cuda-12.4")
    assert found["nvvm/libdevice"] == "-> /usr/lib/theirs/libdevice"
    assert found["lib64/libcudnn.so"] == "-> libcudnn.so.9"
    home = f"{place}/cuda-12.4"
    assert f'exec /usr/lib/theirs/bin/nvcc "$@" -I{home}/include -L{home}/lib64 -Xlinker -rpath={home}/lib64' in found["bin/nvcc"]
    assert os.access(place / "cuda-12.4/bin/nvcc", os.X_OK)


def test_wheels_that_clash_or_lack_the_compiler_are_named(place: Path) -> None:
    wheel_file(place, "cudnn/include/cuda.h").write_text("")
    with pytest.raises(core.CudaToolkitError, match=r"cu13/include/cuda\.h and .*cudnn/include/cuda\.h would both be"):
        bring(place)
    wheel_file(place, "cudnn/include/cuda.h").unlink()
    wheel_file(place, "cu13/bin/nvcc.profile").unlink()
    with pytest.raises(core.CudaToolkitError, match="hold no nvcc"):
        bring(place)


def test_a_toolkit_out_of_packages_keeps_their_shape_and_gets_the_libraries_of_the_wheels(place: Path) -> None:
    """The vendor's packages have include and lib64 as links to a folder of the architecture, or lack them; libraries have several names."""
    unpacked = place / "unpacked/12.9/usr/local/cuda-12.9"
    libraries = unpacked / "targets/x86_64-linux/lib"
    for path, text in {
        "bin/nvcc": "compiler",
        "bin/nvcc.profile": PROFILE,
        "targets/x86_64-linux/include/cuda.h": "",
        "targets/x86_64-linux/lib/libcublas.so.12.9.1": "cublas",
        "version.json": "the vendor's",
    }.items():
        (unpacked / path).parent.mkdir(parents=True, exist_ok=True)
        (unpacked / path).write_text(text)
    (libraries / "libcublas.so.12").symlink_to("libcublas.so.12.9.1")
    (libraries / "libcublas.so").symlink_to("libcublas.so.12")
    (unpacked / "lib64").symlink_to("targets/x86_64-linux/lib")
    for path in ("cudnn/include/cudnn.h", "cudnn/lib/libcudnn.so.9"):
        wheel_file(place, path, "12.9").parent.mkdir(parents=True, exist_ok=True)
        wheel_file(place, path, "12.9").write_text(path)
    wish = core.Wanted("12.9", about={"version": "12.9.1"}, unpacked=str(unpacked))
    assert bring(place, wish, default="12.9") == {"12.9": ["make it"], "cuda": ["have it lead to cuda-12.9"]}
    home = place / "cuda-12.9"
    assert (home / "lib64").is_symlink()
    assert (home / "include/cudnn.h").read_text() == "cudnn/include/cudnn.h"
    assert os.readlink(home / "lib64/libcudnn.so") == "libcudnn.so.9"
    assert (home / "lib64/libcublas.so").read_text() == "cublas"
    assert (home / "version.json").read_text() == "the vendor's"
    assert f"-rpath={home}/lib64" in (home / "bin/nvcc.profile").read_text()
    assert (home / "bin/nvcc").stat().st_ino == (unpacked / "bin/nvcc").stat().st_ino
    assert bring(place, wish, default="12.9") == {}
    (home / "lib64/libcudnn.so").unlink()
    assert bring(place, wish, default="12.9") == {"12.9": ["add targets/x86_64-linux/lib/libcudnn.so"]}
    (unpacked / "bin/nvcc.profile").unlink()
    with pytest.raises(core.CudaToolkitError, match=r"The packages in .*unpacked/12\.9/usr/local/cuda-12\.9 hold no nvcc"):
        bring(place, wish, default="12.9")


def test_room_for_the_distributions_packages_is_judged_before(place: Path) -> None:
    huge = core.Wanted("12.4", distribution=str(place / "nowhere"), packages_size=10**18)
    with pytest.raises(
        core.CudaToolkitError, match=r"The disk of /usr has .* free, but the distribution's CUDA will take 1000000000\.0 GB"
    ):
        toolkits(place).check([huge], "", 0)
    (place / "nowhere/bin").mkdir(parents=True)
    (place / "nowhere/bin/nvcc").write_text("")
    toolkits(place).check([huge], "", 0)
