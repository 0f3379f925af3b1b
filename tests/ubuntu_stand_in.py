"""A stand-in for Ubuntu's archive: the names, needs and sections of its driver's and kernels' packages, made and signed by the tests.

In the packages nothing drives anything: kernels are empty files, a module that came "built and signed" holds a version and a licence and no
code, and DKMS builds a module that does nothing with the headers of Debian's kernel. apt, dpkg, DKMS, the key and its signatures are real.
What needs what was read on packages.ubuntu.com, as roles/nvidia_driver/vars/main/platforms.yml says.
"""

from __future__ import annotations

import struct
from pathlib import Path

from tests.vendor_stand_in import LICENSES, SMI, Signer, module_source, package, sign, write_list

CODENAME = "noble"
DRIVERS = {580: ("580.173.02", "restricted"), 535: ("535.309.01", "restricted"), 595: ("595.71.05", "multiverse")}
KERNELS = ("6.8.0-31-generic", "6.8.0-40-generic")
"""Kernels that have modules of every branch."""
BARE_KERNEL = "6.8.0-35-lowlatency"
"""A kernel that has none."""
OS_RELEASE = """PRETTY_NAME="Ubuntu 24.04.3 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.3 LTS (Noble Numbat)"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
UBUNTU_CODENAME=noble
"""
SOURCE = """Types: deb
URIs: {url}
Suites: noble
Components: main
Signed-By: {key}
"""
UNIT = "[Unit]\nDescription=Stand-in for NVIDIA's persistence daemon\n[Service]\nExecStart=/usr/bin/nvidia-persistenced\n"
# Unlike the real ones, they tell DKMS nothing, so that it is for the role to see for which kernels nothing was built.
HEADERS = 'for folder in /usr/src/linux-headers-*-amd64; do ln -sfn "$folder" /lib/modules/{kernel}/build; done'


def module_file(version: str, flavour: str) -> bytes:
    """Return a kernel module with a version and a licence, and without code: an ELF file of the sections that modinfo reads."""
    info = f"version={version}\0license={LICENSES[flavour]}\0signer=Stand-in\0".encode()
    names = b"\0.modinfo\0.shstrtab\0"
    names_at = 64 + len(info)
    table_at = -(-(names_at + len(names)) // 8) * 8
    head = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, table_at, 0, 64, 0, 0, 64, 3, 2)
    section = struct.Struct("<IIQQQQIIQQ")
    table = section.pack(*[0] * 10) + section.pack(1, 1, 2, 0, 64, len(info), 0, 0, 1, 0)
    table += section.pack(10, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
    return (head + info + names).ljust(table_at, b"\0") + table


def build_kernels(folder: Path) -> None:
    """Build kernels, their headers, and what leads to the newest of a flavour."""
    for kernel in (*KERNELS, BARE_KERNEL):
        number, _dash, flavour = kernel.rpartition("-")
        version = f"{number}.{number.rpartition('-')[2]}"
        source = {"Source": "linux"}
        files = {f"/boot/vmlinuz-{kernel}": "", f"/lib/modules/{kernel}/modules.builtin": ""}
        package(folder, f"linux-image-{kernel}", version, source, files)
        package(
            folder,
            f"linux-headers-{kernel}",
            version,
            {**source, "Depends": "linux-headers-amd64"},
            {f"/lib/modules/{kernel}/modules.order": ""},
            {"postinst": HEADERS.format(kernel=kernel), "prerm": f"rm -f /lib/modules/{kernel}/build"},
        )
        package(folder, f"linux-modules-extra-{kernel}", version, {**source, "Depends": f"linux-image-{kernel}"}, {})
        for kind, further in (("image", f", linux-modules-extra-{kernel}"), ("headers", "")):
            needs = {"Source": "linux-meta", "Depends": f"linux-{kind}-{kernel}{further}"}
            package(folder, f"linux-{kind}-{flavour}", version, needs, {})


def build_driver(folder: Path, modules: Path, branch: int, driver: str, scratch: Path) -> None:
    """Build a branch's packages into a folder, and those of its prebuilt modules into another."""
    version = f"{driver}-0ubuntu0.24.04.1"
    kernel_common = f"nvidia-kernel-common-{branch}-server"

    def one(name: str, only: str, needs: str, files: dict[str, str | Path], scripts: dict[str, str] | None = None) -> None:
        fields = {"Source": f"nvidia-graphics-drivers-{branch}-server", **({"Depends": needs} if needs else {})}
        alone = {"Provides": only, "Conflicts": only.partition(",")[0], "Replaces": only.partition(",")[0]} if only else {}
        package(folder, name, version, {**fields, **alone}, files, scripts)

    one(kernel_common, f"nvidia-kernel-common, {kernel_common}-{driver}", "", {})
    library = "/usr/lib/x86_64-linux-gnu/libcuda.so"
    cuda: dict[str, str | Path] = {f"{library}.{driver}": "", f"{library}.1": f"-> libcuda.so.{driver}"}
    one(f"libnvidia-compute-{branch}-server", "libnvidia-compute", f"{kernel_common}-{driver}", cuda)
    one(f"libnvidia-cfg1-{branch}-server", "libnvidia-cfg1", "", {})
    one(f"libnvidia-common-{branch}-server", "libnvidia-common", "", {})
    one(f"libnvidia-gl-{branch}-server", "libnvidia-gl", f"libnvidia-common-{branch}-server", {})
    one(f"nvidia-utils-{branch}-server", "nvidia-utils", f"libnvidia-compute-{branch}-server", {"/usr/bin/nvidia-smi": SMI})
    unit: dict[str, str | Path] = {"/lib/systemd/system/nvidia-persistenced.service": UNIT}
    one(f"nvidia-compute-utils-{branch}-server", "nvidia-compute-utils", f"libnvidia-compute-{branch}-server", unit)

    for flavour, ending in (("proprietary", "server"), ("open", "server-open")):
        source, dkms = (f"nvidia-{part}-{branch}-{ending}" for part in ("kernel-source", "dkms"))
        one(
            source,
            "nvidia-kernel-source",
            "",
            {f"/usr/src/nvidia-{driver}/{path}": text for path, text in module_source(driver, flavour).items()},
        )
        scripts = {
            "postinst": f'if [ "$1" = configure ]; then /usr/lib/dkms/common.postinst nvidia {driver} "" "$(uname -m)" "$2"; fi',
            "prerm": f"if [ -d /var/lib/dkms/nvidia/{driver} ]; then dkms remove -m nvidia -v {driver} --all; fi",
        }
        one(dkms, "nvidia-dkms-kernel", f"dkms, {source}, {kernel_common}", {}, scripts)
        file = scratch / f"{branch}-{flavour}.ko"
        file.write_bytes(module_file(driver, flavour))
        for kernel in KERNELS:
            number, _dash, kind = kernel.rpartition("-")
            revision = f"{number}.{number.rpartition('-')[2]}"
            prebuilt = f"linux-modules-nvidia-{branch}-{ending}"
            restricted = {"Source": "linux-restricted-modules"}
            needs = f"linux-image-{kernel} | linux-image-unsigned-{kernel}, {kernel_common} (>= {driver})"
            where = f"/lib/modules/{kernel}/kernel/nvidia-{branch}srv{'-open' if flavour == 'open' else ''}/nvidia.ko"
            package(modules, f"{prebuilt}-{kernel}", revision, {**restricted, "Depends": needs}, {where: file})
            needs = f"{prebuilt}-{kernel} (= {revision}), {kernel_common} (>= {driver})"
            provides = f"{dkms} (= {version}), nvidia-prebuilt-kernel"
            package(modules, f"{prebuilt}-{kind}", revision, {**restricted, "Depends": needs, "Provides": provides}, {})


def make(out: Path) -> None:
    """Make the archive below a folder, and its key beside it."""
    pool, lists = out / "ubuntu/pool", out / "ubuntu/dists" / CODENAME
    components = ("main", "restricted", "multiverse")
    for component in components:
        (pool / component).mkdir(parents=True)
    build_kernels(pool / "main")
    for branch, (driver, component) in DRIVERS.items():
        build_driver(pool / component, pool / "restricted", branch, driver, out)
    for component in components:
        write_list(pool / component, f"pool/{component}", lists / component / "binary-amd64")
    signer = Signer()
    try:
        sign(
            lists,
            signer,
            {"Origin": "Ubuntu", "Label": "Ubuntu", "Suite": CODENAME, "Codename": CODENAME, "Components": " ".join(components)},
        )
        (out / "key.asc").write_bytes(signer.public)
    finally:
        signer.close()
