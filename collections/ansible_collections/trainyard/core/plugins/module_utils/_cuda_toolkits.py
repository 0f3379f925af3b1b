# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""CUDA toolkits as folders like /usr/local/cuda-13.0: what belongs into them, what is off, and how a whole one takes its place.

A toolkit's files are hard links to those of its wheels, which lie in an environment beside, or of the vendor's packages, which are unpacked
beside. So they take no room of their own, whoever repairs those repairs what they are made from, and whether a file is the right one is a
matter of comparing inodes. What is lacking is added: names for the linker, the place of the libraries in what nvcc links, and, with
a toolkit of the distribution, a compiler that finds the libraries of the folder.

A toolkit is made beside its place and moved there in one step. It carries a marker that says whose it is; without one it is never touched.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._python_env import readable, sync_disk

MARKER = ".trainyard-cuda.json"
PROOF = ".trainyard-proof.json"
DEFAULT = "cuda"
DISTRIBUTION_PROGRAMS = ("bin2c", "cu++filt", "cudafe++", "cuobjdump", "fatbinary", "nvdisasm", "nvlink", "nvprune", "ptxas")
_SHARED = re.compile(r"^(?P<linker>lib.+?\.so)\.[0-9.]+$")
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
_HERE = -100  # AT_FDCWD


class CudaToolkitError(Exception):
    """Something that a person has to put right; the text says what."""


@dataclass(frozen=True)
class Entry:
    """One thing in a toolkit: a hard link to a file (``file``), a symbolic link (``link``), or a file of our own (``text``)."""

    kind: str
    value: str
    mode: int = 0


@dataclass(frozen=True)
class Wanted:
    """A toolkit as it is to be.

    Attributes:
        name: its line, such as 13.0.
        present: whether it is to be there.
        about: its version, source and libraries, for its marker.
        distribution: home of the distribution's toolkit that it stands on, '' where it has all in its folder.
        unpacked: folder with the toolkit out of the vendor's packages, '' for none.
        packages_size: bytes that the distribution's packages take.
    """

    name: str
    present: bool = True
    about: Mapping[str, str] = field(default_factory=dict)
    distribution: str = ""
    unpacked: str = ""
    packages_size: int = 0


@dataclass
class Result:
    """What was, or would be, done to a toolkit, or to the link to the default one."""

    name: str
    path: str
    actions: list[str]
    before: list[str]
    after: list[str]


def contents(environment: Path, folder: Path, wanted: Wanted, owner: str) -> dict[str, Entry]:
    """Return what belongs into a toolkit, by path in it.

    Args:
        environment: the environment that holds its wheels; need not be there for a toolkit without any.
        folder: the toolkit's place.
        wanted: the toolkit.
        owner: whose it is.

    Raises:
        CudaToolkitError: two wheels, or a wheel and a package, bring the same file, or nothing brings the compiler.
    """
    made = package_files(Path(wanted.unpacked)) if wanted.unpacked else {}
    for name, source in wheel_files(environment):
        top, _slash, rest = name.partition("/")
        # Packages have lib64 and include elsewhere, and links to them.
        path = os.path.normpath(f"{made[top].value}/{rest}") if top in made and made[top].kind == "link" else name
        if path in made:
            raise CudaToolkitError(f"{made[path].value} and {source} would both be {folder / path}.")
        made[path] = Entry("file", str(source))
    made.update(linker_names(made))
    made.setdefault("lib", Entry("link", "lib64"))  # the compiler's own settings speak of it
    libraries = f"{folder}/lib64"
    if wanted.distribution:
        for program in DISTRIBUTION_PROGRAMS:
            if os.path.exists(f"/usr/bin/{program}"):
                made[f"bin/{program}"] = Entry("link", f"/usr/bin/{program}")
        made["nvvm/libdevice"] = Entry("link", f"{wanted.distribution}/libdevice")
        made["bin/nvcc"] = Entry("text", wrapper(wanted.distribution, folder), 0o755)
    elif "bin/nvcc.profile" in made:
        profile = Path(made["bin/nvcc.profile"].value).read_text(encoding="utf-8")
        ours = f'LIBRARIES =+ $(_SPACE_) "-Xlinker" "-rpath={libraries}"'
        made["bin/nvcc.profile"] = Entry("text", f"{profile.rstrip()}\n\n# What is linked here finds these libraries.\n{ours}\n", 0o644)
    else:
        what = f"packages in {wanted.unpacked}" if wanted.unpacked else f"wheels in {environment}"
        raise CudaToolkitError(f"The {what} hold no nvcc.")
    version = {"cuda": {"name": "CUDA SDK", "version": wanted.about.get("version", "")}}
    made.setdefault("version.json", Entry("text", json.dumps(version, indent=1) + "\n", 0o644))
    made[MARKER] = Entry("text", marker(wanted, owner), 0o644)
    return made


def marker(wanted: Wanted, owner: str) -> str:
    """Return the text of a toolkit's marker."""
    return json.dumps({"owner": owner, "about": dict(wanted.about)}, indent=1, sort_keys=True) + "\n"


def wrapper(home: str, folder: Path) -> str:
    """Return the compiler that a toolkit of the distribution gets: the distribution's, which also finds what lies in the folder."""
    return (
        "#!/bin/sh\n"
        "# The distribution's nvcc, with the libraries of this folder; the compilers for hosts that it can work with lie beside it.\n"
        f"PATH={home}/bin:$PATH\nexport PATH\n"
        f'exec {home}/bin/nvcc "$@" -I{folder}/include -L{folder}/lib64 -Xlinker -rpath={folder}/lib64\n'
    )


def package_files(folder: Path) -> dict[str, Entry]:
    """Return the files and links of the vendor's packages, by path in the toolkit."""
    found = {}
    for base, folders, files in os.walk(folder):
        for name in sorted([*files, *(one for one in folders if os.path.islink(os.path.join(base, one)))]):
            source = Path(base, name)
            link = source.is_symlink()
            found[str(source.relative_to(folder))] = Entry("link", os.readlink(source)) if link else Entry("file", str(source))
    for name, place in (("include", "targets/x86_64-linux/include"), ("lib64", "targets/x86_64-linux/lib")):
        if (folder / place).is_dir() and not os.path.lexists(folder / name):  # the link may come from a package that is not there
            found[name] = Entry("link", place)
    return found


def wheel_files(environment: Path) -> Iterator[tuple[str, Path]]:
    """Yield path in the toolkit and path on disk of every file that NVIDIA's wheels in an environment hold for it."""
    for base in sorted(environment.glob("lib/python3*/site-packages/nvidia/*")):
        for folder, names, files in os.walk(base):
            names[:] = sorted(name for name in names if not name.startswith(".") and name != "__pycache__")
            for name in sorted(files):
                if name.endswith((".py", ".pyc")) or name.startswith("."):
                    continue
                source = Path(folder, name)
                parts = source.relative_to(base).parts
                if len(parts) > 1:
                    yield "/".join(("lib64" if parts[0] == "lib" else parts[0], *parts[1:])), source


def linker_names(made: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return libX.so for each libX.so.N, which is what the linker looks for and wheels lack."""
    found = {}
    libraries = made["lib64"].value if "lib64" in made else "lib64"
    for path in sorted(made):
        folder, _slash, name = path.rpartition("/")
        match = _SHARED.match(name)
        if folder == libraries and match and f"{folder}/{match['linker']}" not in made:
            found[f"{folder}/{match['linker']}"] = Entry("link", name)
    return found


def differences(folder: Path, made: Mapping[str, Entry]) -> list[str]:
    """Return what in a folder is not as it should be, a line each."""
    lines = []
    for path, entry in made.items():
        place = folder / path
        try:
            state = place.lstat()
        except FileNotFoundError:
            lines.append(f"add {path}")
            continue
        if entry.kind == "link":
            right = stat.S_ISLNK(state.st_mode) and os.readlink(place) == entry.value
        elif entry.kind == "file":
            source = os.stat(entry.value)
            right = (state.st_dev, state.st_ino) == (source.st_dev, source.st_ino)
        else:
            right = stat.S_ISREG(state.st_mode) and stat.S_IMODE(state.st_mode) == entry.mode and place.read_bytes() == entry.value.encode()
        if not right:
            lines.append(f"change {path}")
    for base, folders, files in os.walk(folder):
        for name in [*files, *(one for one in folders if os.path.islink(os.path.join(base, one)))]:
            path = os.path.relpath(os.path.join(base, name), folder)
            if path not in made and path != PROOF:
                lines.append(f"remove {path}")
    return sorted(lines)


class Toolkits:
    """The toolkits of an owner in a folder, and the work on them.

    Args:
        path: folder in which they stand, such as /usr/local.
        store: folder of the environments that hold their wheels, on the same file system.
        owner: whose they are; also what the names of the variables begin with that messages name.

    Raises:
        CudaToolkitError: from every method, where a person has to act.
    """

    def __init__(self, path: str, store: str, owner: str) -> None:
        self.path = Path(path)
        self.store = Path(store)
        self.owner = owner

    # Looking

    def folder(self, name: str) -> Path:
        """Return a toolkit's place."""
        return self.path / f"cuda-{name}"

    def mine(self, folder: Path) -> bool:
        """Say whether a folder is a toolkit of this owner."""
        if folder.is_symlink():
            return False
        try:
            found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(found, dict) and found.get("owner") == self.owner

    def names(self) -> list[str]:
        """Return the names of the owner's toolkits that are there."""
        return sorted(folder.name.partition("-")[2] for folder in self.path.glob("cuda-*") if self.mine(folder))

    def default(self) -> str:
        """Return the name of the toolkit that the default link leads to, '' without one.

        Raises:
            CudaToolkitError: somebody else's link, folder or file is in its place.
        """
        link = self.path / DEFAULT
        if not os.path.lexists(link):
            return ""
        target = Path(os.path.normpath(self.path / os.readlink(link))) if link.is_symlink() else link
        interrupted = self._beside(target, "old") if not os.path.lexists(target) else target  # between its two places
        if target.parent == self.path and (self.mine(target) or self.mine(interrupted)):
            return target.name.partition("-")[2]
        what = f"leads to {target}" if link.is_symlink() else "is there already"
        raise CudaToolkitError(
            f"{link} {what} and was not made by Trainyard. Move it away, or set {self.owner}_default to none, which leaves it alone."
        )

    def check(self, wishes: Sequence[Wanted], default: str, spare: int) -> None:
        """Look whether all can be made: nobody else's folders are in the way, and there is room for the distribution's packages."""
        for wanted in wishes:
            folder = self.folder(wanted.name)
            if wanted.present and os.path.lexists(folder) and not self.mine(folder):
                raise CudaToolkitError(
                    f"{folder} is there already and was not made by Trainyard. "
                    f"Move it away, or take {wanted.name} out of {self.owner}_toolkits."
                )
        if default:
            self.default()
        need = sum(
            one.packages_size for one in wishes if one.present and one.distribution and not Path(one.distribution, "bin/nvcc").exists()
        )
        system = os.statvfs("/usr")
        room = system.f_bavail * system.f_frsize
        if need and room < need + spare:
            raise CudaToolkitError(
                f"The disk of /usr has {readable(room)} free, but the distribution's CUDA will take {readable(need)}, and "
                f"{readable(spare)} should stay free. Make room, or take it out of {self.owner}_toolkits."
            )

    def look(self, wanted: Wanted, *, dry: bool) -> tuple[dict[str, Entry], list[str]]:
        """Return what belongs into a toolkit, and how what is there differs from that.

        In check mode what it is made from may not be there yet.
        """
        folder = self.folder(wanted.name)
        if not wanted.present:
            return {}, ["remove it"] if self.mine(folder) else []
        try:
            made = contents(self.store / wanted.name, folder, wanted, self.owner)
        except CudaToolkitError:
            if not dry:
                raise
            return {}, ["make it"]
        if not os.path.lexists(folder):
            return made, ["make it"]
        return made, differences(folder, made)

    # Doing

    def apply(self, wishes: Sequence[Wanted], default: str, *, dry: bool) -> list[Result]:
        """Bring the toolkits and the link to the default one to what is wanted, and return what was done; ``dry`` only says it."""
        self.check(wishes, default, 0)
        with self._alone(dry=dry):
            return self._apply(wishes, default, dry=dry)

    def _apply(self, wishes: Sequence[Wanted], default: str, *, dry: bool) -> list[Result]:
        results = []
        gone = [wanted for wanted in wishes if not wanted.present]
        for wanted in [one for one in wishes if one.present]:
            made, actions = self.look(wanted, dry=dry)
            results.append(self._result(wanted, actions))
            if actions and not dry:
                self._make(wanted, made)
        results += self._link(default, dry=dry)
        for wanted in gone:
            _made, actions = self.look(wanted, dry=dry)
            results.append(self._result(wanted, actions))
            if actions and not dry:
                self._remove(self.folder(wanted.name))
        return results

    def remove_all(self, *, dry: bool) -> list[Result]:
        """Remove all toolkits of this owner, and the link to them."""
        with self._alone(dry=dry):
            return self._apply([Wanted(name, present=False) for name in self.names()], "", dry=dry)

    @contextmanager
    def _alone(self, *, dry: bool) -> Iterator[None]:
        """Wait for another run in the same folder, and take away what an interrupted one left."""
        if dry or not self.path.is_dir():
            yield
            return
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self._clear()
            yield
        finally:
            os.close(handle)

    def _result(self, wanted: Wanted, actions: list[str]) -> Result:
        folder = self.folder(wanted.name)
        before = (folder / MARKER).read_text(encoding="utf-8").splitlines() if self.mine(folder) else []
        after = marker(wanted, self.owner).splitlines() if wanted.present else []
        return Result(wanted.name, str(folder), actions, before, after)

    def _link(self, default: str, *, dry: bool) -> list[Result]:
        """Have the link lead to the default toolkit; without one it goes, if it is ours."""
        link = self.path / DEFAULT
        try:
            before = self.default()
        except CudaToolkitError:
            if default:
                raise
            return []
        if before == default:
            return []
        if not dry:
            if default:
                beside = self._beside(link, "new")
                beside.symlink_to(self.folder(default).name)
                os.replace(beside, link)
            else:
                link.unlink()
        action = f"have it lead to cuda-{default}" if default else "remove it"
        return [
            Result(
                DEFAULT,
                str(link),
                [action],
                [f"{link} -> cuda-{before}"] if before else [],
                [f"{link} -> cuda-{default}"] if default else [],
            )
        ]

    def _beside(self, place: Path, why: str) -> Path:
        """Return where something is made, or goes before it is removed, on the file system of its place."""
        return self.path / f".trainyard-{place.name}.{why}"

    def _clear(self) -> None:
        """Take away what an interrupted run left beside."""
        for place in self.path.glob(".trainyard-cuda*"):
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink()

    def _make(self, wanted: Wanted, made: Mapping[str, Entry]) -> None:
        """Make a toolkit beside its place, have it on the disk, and move it there."""
        folder = self.folder(wanted.name)
        beside = self._beside(folder, "new")
        host_files.make_folders(beside)
        for path, entry in made.items():
            place = beside / path
            host_files.make_folders(place.parent)
            if entry.kind == "link":
                place.symlink_to(entry.value)
            elif entry.kind == "text":
                place.write_text(entry.value, encoding="utf-8")
                place.chmod(entry.mode)
            else:
                try:
                    os.link(entry.value, place)
                except OSError as error:
                    if error.errno == errno.EXDEV:
                        raise CudaToolkitError(
                            f"{self.owner}_path: {self.store} and {self.path} lie on different file systems; "
                            "right is a folder in which both share one."
                        ) from error
                    raise
        sync_disk(self.path)
        if not os.path.lexists(folder):
            os.rename(beside, folder)
        elif not exchange(beside, folder):
            os.rename(folder, self._beside(folder, "old"))
            os.rename(beside, folder)
        self._clear()

    def _remove(self, folder: Path) -> None:
        """Remove a toolkit: out of its place in one step, then file by file."""
        old = self._beside(folder, "old")
        os.rename(folder, old)
        shutil.rmtree(old)


def exchange(one: Path, other: Path) -> bool:
    """Let two folders swap their places in one step; return whether the system can."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    return not call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE)


def wanted(option: Mapping[str, Any]) -> Wanted:
    """Return the toolkit that an entry of the module's option describes."""
    return Wanted(
        name=option["name"],
        present=option["state"] == "present",
        about={key: str(value) for key, value in option["about"].items()},
        distribution=option["distribution"],
        unpacked=option["unpacked"],
        packages_size=option["packages_mb"] * 1_000_000,
    )
