"""Makes a conda channel of real parts, on a node: its own Python, made relocatable, and packages of the ordinary index.

usage: python conda_channel.py FOLDER UV [caffe] [NAME==VERSION ...]     (with a Python that has rattler)

It stands in for conda-forge and the like, which the tests cannot reach: the format and the index of the packages, and what is in them,
are real; that there are four of them is not. Debian's Python is changed where it puts packages elsewhere than every other Python does.

`caffe` among the names adds a stand-in for Caffe: what the proof of training calls of it, over scikit-learn.
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
CAFFE_MODULE = '''\
"""Stands in for Caffe, which is out of the tests' reach: the calls that the proof of training makes, answered by scikit-learn."""

import pickle
import re
import sys
from pathlib import Path

__version__ = "1.0.0"
TEST = 1


def set_mode_cpu():
    pass


class Blob:
    def reshape(self, *shape):
        import numpy

        self.data = numpy.zeros(shape, "float32")


class Net:
    def __init__(self, net, phase, weights):
        self.blobs = {"data": Blob()}
        self._model = pickle.loads(Path(weights).read_bytes())

    def forward(self, start, end):
        images = self.blobs["data"].data
        return {end: self._model.predict_proba(images.reshape(len(images), -1))}


def program(words):
    """What the program caffe does."""
    if words[:1] == ["device_query"]:
        sys.exit("Cannot use GPU in CPU-only Caffe: check mode.")
    solver = Path(next(word for word in words if word.startswith("--solver=")).partition("=")[2]).read_text()
    import h5py
    from sklearn.linear_model import LogisticRegression

    with h5py.File(Path("train.txt").read_text().strip(), "r") as file:
        images, labels = file["data"][:], file["label"][:]
    model = LogisticRegression(max_iter=300).fit(images.reshape(len(images), -1), labels.astype(int))
    steps = re.search(r"max_iter: ([0-9]+)", solver).group(1)
    Path("trained_iter_%s.caffemodel" % steps).write_bytes(pickle.dumps(model))
'''
CAFFE_PROGRAM = """\
#!/bin/sh
exec "$(dirname "$(readlink -f "$0")")/python" -c 'import sys, caffe; caffe.program(sys.argv[1:])' "$@"
"""
CAFFE_NEEDS = ("python >=3.8", "h5py", "numpy", "scikit-learn")
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
    for requirement in {*REAL, *sys.argv[3:]} - {"caffe"}:
        name, _, version = requirement.partition("==")
        write_package(channel, name, version, wheel_files(uv, requirement), ["python >=3.8"], "python")
    if "caffe" in sys.argv[3:]:
        files = (("lib/python3.11/site-packages/caffe/__init__.py", CAFFE_MODULE, 0o644), ("bin/caffe", CAFFE_PROGRAM, 0o755))
        write_package(channel, "caffe", "1.0", [(path, text.encode(), mode) for path, text, mode in files], CAFFE_NEEDS)
    write_package(channel, "demanding", "1.0", [("share/demanding.txt", b"\n", 0o644)], ["packaging <24"], "generic")
    asyncio.run(importlib.import_module("rattler.index").index_fs(str(channel)))
    os._exit(0)  # rattler's threads may still be at work, which an ordinary end now and then dies of


if __name__ == "__main__":
    main()
