"""A stand-in for NVIDIA's package repository: its layout and the names of its driver's packages, made and signed by the tests.

What is in the packages stands in as well: a kernel module that does nothing and is really built by DKMS, a library without content, an
nvidia-smi that finds no driver. apt, dpkg, DKMS, the key and its signatures are real.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

LAYOUT = "compute/cuda/repos/debian12/x86_64"
KEY_NAME = "3bf863cc.pub"
VERSIONS = ("575.57.08", "580.95.05", "580.105.08", "590.44.01")

MODULE = """#include <linux/module.h>
MODULE_DESCRIPTION("Stand-in for the NVIDIA driver; drives nothing");
MODULE_LICENSE("{license}");
MODULE_VERSION("{version}");
static int __init start(void) {{ return 0; }}
static void __exit stop(void) {{ }}
module_init(start);
module_exit(stop);
"""
DKMS = """PACKAGE_NAME="nvidia"
PACKAGE_VERSION="{version}"
MAKE[0]="make -C $kernel_source_dir M=$dkms_tree/$module/$module_version/build modules"
CLEAN="true"
BUILT_MODULE_NAME[0]="nvidia"
DEST_MODULE_LOCATION[0]="/updates/dkms"
AUTOINSTALL="yes"
"""
SMI = """#!/bin/sh
echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
exit 9
"""
LICENSES = {"open": "Dual MIT/GPL", "proprietary": "NVIDIA"}


class Signer:
    """A key of its own, in a folder of its own.

    Attributes:
        fingerprint: 40 hexadecimal digits.
        public: the armoured public key.
    """

    def __init__(self, expires: str = "0", faked_time: str = "") -> None:
        self.home = Path(tempfile.mkdtemp(prefix="gpg-"))  # short: gpg's sockets lie in it
        self.home.chmod(0o700)
        self.time = ["--faked-system-time", faked_time] if faked_time else []
        self.gpg("--passphrase", "", "--quick-generate-key", "Stand-in <stand-in@example.org>", "ed25519", "sign", expires)
        listing = self.gpg("--list-keys", "--with-colons").decode()
        self.fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr"))
        self.public = self.gpg("--armor", "--export")

    def gpg(self, *words: str, data: bytes = b"") -> bytes:
        """Run gpg in the key's folder and return what it printed."""
        command = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback", *self.time, *words]
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout

    def close(self) -> None:
        """Remove the key and stop the agent that gpg started for it."""
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False, capture_output=True)
        shutil.rmtree(self.home, ignore_errors=True)


def package(
    folder: Path,
    name: str,
    version: str,
    fields: Mapping[str, str],
    files: Mapping[str, str | Path],
    scripts: Mapping[str, str] | None = None,
) -> None:
    """Build one package into a folder; of its files the text is given, or ``-> target`` for a link, or a file to copy."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        root.chmod(0o755)
        control = {
            "Package": name,
            "Version": version,
            "Architecture": "amd64",
            "Maintainer": "Stand-in <stand-in@example.org>",
            "Description": "stand-in of Trainyard's tests",
            **fields,
        }
        (root / "DEBIAN").mkdir(mode=0o755)
        (root / "DEBIAN/control").write_text("".join(f"{key}: {value}\n" for key, value in control.items()))
        for script, text in (scripts or {}).items():
            (root / "DEBIAN" / script).write_text(f"#!/bin/sh\nset -e\n{text}\n")
            (root / "DEBIAN" / script).chmod(0o755)
        for path, text in files.items():
            target = root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(text, Path):
                shutil.copy2(text, target)
            elif text.startswith("-> "):
                target.symlink_to(text[3:])
            else:
                target.write_text(text)
                target.chmod(0o755 if text.startswith("#!") else 0o644)
        command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(root), str(folder / f"{name}_{version}_amd64.deb")]
        subprocess.run(command, check=True, capture_output=True)


def module_source(version: str, flavour: str) -> dict[str, str]:
    """Return the files of the kernel module's source for DKMS, by name."""
    return {
        "dkms.conf": DKMS.format(version=version),
        "Makefile": "obj-m := nvidia.o\n",
        "nvidia.c": MODULE.format(version=version, license=LICENSES[flavour]),
    }


def build_packages(folder: Path, versions: Iterable[str] = VERSIONS) -> None:
    """Build the packages of a driver in several versions, and one that the distribution has in an older version."""
    for driver in versions:
        version = f"{driver}-1"
        for flavour, name, other in (
            ("proprietary", "nvidia-kernel-dkms", "nvidia-kernel-open-dkms"),
            ("open", "nvidia-kernel-open-dkms", "nvidia-kernel-dkms"),
        ):
            package(
                folder,
                name,
                version,
                {"Depends": f"dkms, nvidia-kernel-support (= {version})", "Conflicts": other, "Replaces": other, "Source": "nvidia-driver"},
                {f"/usr/src/nvidia-{driver}/{path}": text for path, text in module_source(driver, flavour).items()},
                {
                    "postinst": f'if [ "$1" = configure ]; then /usr/lib/dkms/common.postinst nvidia {driver} "" "$(uname -m)" "$2"; fi',
                    "prerm": f"if [ -d /var/lib/dkms/nvidia/{driver} ]; then dkms remove -m nvidia -v {driver} --all; fi",
                },
            )
        same = {"Source": "nvidia-driver"}
        package(folder, "nvidia-kernel-support", version, same, {"/usr/share/doc/nvidia-kernel-support/branch": driver})
        package(
            folder,
            "libcuda1",
            version,
            same,
            {
                f"/usr/lib/x86_64-linux-gnu/libcuda.so.{driver}": "",
                "/usr/lib/x86_64-linux-gnu/libcuda.so.1": f"-> libcuda.so.{driver}",
            },
        )
        package(folder, "nvidia-smi", version, {**same, "Depends": f"libcuda1 (= {version})"}, {"/usr/bin/nvidia-smi": SMI})
        package(folder, "nvidia-driver-cuda", version, {**same, "Depends": f"libcuda1 (= {version}), nvidia-smi (= {version})"}, {})
        package(folder, "cuda-drivers", version, {"Depends": f"nvidia-driver-cuda (= {version})"}, {})
    package(folder, "tmux", "99.0-1", {}, {"/usr/bin/tmux": "#!/bin/sh\necho not the distribution\n"})


def write_list(packages: Path, where: str, folder: Path) -> None:
    """Write the list of a folder of packages, which the archive has at a path below its root, into another folder."""
    entries = []
    for path in sorted(packages.glob("*.deb")):
        control = subprocess.run(["dpkg-deb", "--field", str(path)], capture_output=True, text=True, check=True).stdout
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        entries.append(f"{control}Filename: {where}/{path.name}\nSize: {path.stat().st_size}\nSHA256: {digest}\n")
    text = "\n".join(entries).encode()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Packages").write_bytes(text)
    (folder / "Packages.gz").write_bytes(gzip.compress(text))


def sign(folder: Path, signer: Signer, head: Mapping[str, str]) -> None:
    """Write and sign what an archive says of itself and of the lists in a folder and below it."""
    fields = {"Architectures": "amd64", "Date": datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S UTC"), **head}
    sums = "".join(
        f" {hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_size} {path.relative_to(folder)}\n"
        for path in sorted(folder.rglob("Packages*"))
    )
    release = "".join(f"{key}: {value}\n" for key, value in fields.items()) + f"SHA256:\n{sums}"
    (folder / "Release").write_text(release)
    (folder / "InRelease").write_bytes(signer.gpg("--clearsign", data=release.encode()))


def publish(folder: Path, signer: Signer, head: Mapping[str, str] | None = None) -> None:
    """Write the list over a folder of packages, and sign it."""
    write_list(folder, ".", folder)
    sign(folder, signer, {"Origin": "NVIDIA", "Label": "NVIDIA CUDA", **(head or {})})
    (folder / KEY_NAME).write_bytes(signer.public)


def make(out: Path) -> None:
    """Make the repository below a folder, beside it an old key of the vendor's, and both fingerprints."""
    folder = out / LAYOUT
    folder.mkdir(parents=True)
    build_packages(folder)
    signer, revoked = Signer(), Signer()
    try:
        publish(folder, signer)
        (out / "fingerprint").write_text(signer.fingerprint)
        (out / "revoked").write_text(revoked.fingerprint)
        (out / "revoked.asc").write_bytes(revoked.public)
        (out / "revoked.gpg").write_bytes(revoked.gpg("--export"))
    finally:
        signer.close()
        revoked.close()


if __name__ == "__main__":
    os.umask(0o022)
    make(Path(sys.argv[1]))
