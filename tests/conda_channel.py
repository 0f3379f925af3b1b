"""Makes a conda channel of real parts, on a node: its own Python, made relocatable, and packages of the ordinary index.

usage: python conda_channel.py FOLDER UV [NAME==VERSION ...]     (with a Python that has rattler)

It stands in for conda-forge and the like, which the tests cannot reach: the format and the index of the packages, and what is in them,
are real; that there are four of them is not. Debian's Python is changed where it puts packages elsewhere than every other Python does.
"""

import asyncio
import hashlib
import importlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

PYTHON = Path("/usr/bin/python3.11")
LIBRARY = Path("/usr/lib/python3.11")
REAL = ("packaging==24.2", "packaging==25.0", "six==1.17.0")
DEBIANS, PYTHONS_OWN = b"prefix_scheme = 'posix_local'", b"prefix_scheme = 'posix_prefix'"  # where it installs packages
LEFT_OUT = ("EXTERNALLY-MANAGED", "sitecustomize.py")


def write_package(
    channel: Path, name: str, version: str, files: Iterable[tuple[str, bytes, int]], depends: Sequence[str] = (), noarch: str = ""
) -> None:
    """Write a package with files, each a path in the prefix, its content (of a link, its target) and its mode, 0 for a link."""
    platform = "noarch" if noarch else "linux-64"
    index = {"name": name, "version": version, "build": "0", "build_number": 0, "depends": list(depends), "subdir": platform}
    if noarch == "python":
        index["noarch"] = noarch
    (channel / platform).mkdir(parents=True, exist_ok=True)
    path = channel / platform / f"{name}-{version}-0.tar.bz2"
    listed = []
    with tarfile.open(path, "w:bz2", compresslevel=1) as archive:

        def add(file: str, content: bytes, mode: int = 0o644) -> None:
            entry = tarfile.TarInfo(file)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))

        for file, content, mode in files:
            if not mode:
                entry = tarfile.TarInfo(file)
                entry.type, entry.linkname = tarfile.SYMTYPE, content.decode()
                archive.addfile(entry)
                listed.append({"_path": file, "path_type": "softlink"})
                continue
            add(file, content, mode)
            digest = hashlib.sha256(content).hexdigest()
            listed.append({"_path": file, "path_type": "hardlink", "sha256": digest, "size_in_bytes": len(content)})
        add("info/index.json", json.dumps(index).encode())
        add("info/paths.json", json.dumps({"paths_version": 1, "paths": listed}).encode())
        add("info/files", "".join(f"{entry['_path']}\n" for entry in listed).encode())
        add("info/about.json", b"{}")
        if noarch == "python":
            add("info/link.json", json.dumps({"noarch": {"type": "python"}, "package_metadata_version": 1}).encode())


def python_files() -> Iterable[tuple[str, bytes, int]]:
    """Yield the files of the node's Python."""
    yield "bin/python3.11", PYTHON.read_bytes(), 0o755
    for name in ("python", "python3"):
        yield f"bin/{name}", b"python3.11", 0
    yield "lib/python3.11/dist-packages", b"site-packages", 0  # where it looks for them, which is compiled into it
    for path in sorted(LIBRARY.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.suffix != ".pyc" and path.name not in LEFT_OUT:
            content = path.read_bytes()
            if path == LIBRARY / "sysconfig.py":
                content = content.replace(DEBIANS, PYTHONS_OWN)
            yield f"lib/python3.11/{path.relative_to(LIBRARY)}", content, 0o644


def wheel_files(uv: str, requirement: str) -> list[tuple[str, bytes, int]]:
    """Return the files of a package of the ordinary index."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--python", str(PYTHON), "--target", folder, requirement], check=True)
        found = [(path, path.relative_to(folder)) for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        return [
            (f"site-packages/{name}", path.read_bytes(), 0o644) for path, name in found if name.parts[0] != "bin" and name.name != ".lock"
        ]


def main() -> None:
    """Make the channel."""
    channel, uv = Path(sys.argv[1]), sys.argv[2]
    write_package(channel, "python", "3.11.2", python_files())
    for requirement in {*REAL, *sys.argv[3:]}:
        name, _, version = requirement.partition("==")
        write_package(channel, name, version, wheel_files(uv, requirement), ["python >=3.8"], "python")
    write_package(channel, "demanding", "1.0", [("share/demanding.txt", b"\n", 0o644)], ["packaging <24"], "generic")
    asyncio.run(importlib.import_module("rattler.index").index_fs(str(channel)))
    os._exit(0)  # rattler's threads may still be at work, which an ordinary end now and then dies of


if __name__ == "__main__":
    main()
