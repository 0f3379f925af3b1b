# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Frozen environments: programs of an older distribution, in a root file system of their own that nobody writes to.

A root is built beside its place and moved there when it is whole; its folder is named after what it was made of, so that another recipe
makes another folder, and what runs in the old one goes on. It may hold locked Python packages, too. An environment is a folder like those
of virtual environments: ``bin/activate``, ``bin/PROGRAM`` for each of its programs, and ``root``, a link to the root that they run in.
``bin/enter`` starts a program there by bubblewrap: as the user who calls it, with the user's files, processes, network and GPUs, and the
old distribution's /usr.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils._file_manifest import manifest
from ansible_collections.trainyard.core.plugins.module_utils._frozen_packages import Sources, install
from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._host import locks
from ansible_collections.trainyard.core.plugins.module_utils._package_lock import PythonEnvError, parse_lock
from ansible_collections.trainyard.core.plugins.module_utils._python_env import BYTECODE_FACTOR

MARKER = ".trainyard-env.json"  # the same as that of other environments
SEAL = ".trainyard-frozen.json"  # in a root: that it is whole, and what its files looked like then
OWNER = "frozen_root"
RECIPE = 2  # raised where the way a root is made changes
SPARE = 200_000_000
ORDINARY = Sources()
INSIDE = "/run/nvidia"
"""Where what belongs to the node's GPU driver is seen inside."""
LIBRARIES = " ".join(
    f"{folder}/{name}.so.*"
    for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu/nvidia/current", "/usr/lib64")
    for name in ("libcuda", "libnvcuvid", "libnvidia-*")
)
"""What of the driver computing needs, where Debian, its alternatives, NVIDIA's installer and Enterprise Linux have it."""

ENTER = r"""#!/bin/sh
# Written by Trainyard. Starts a program of an older distribution: as whoever calls it, with all that is theirs, and the old /usr.
name={name}
root=$(readlink -f {environment}/root) || exit
program=${{0##*/}}
if [ "${{TRAINYARD_FROZEN:-}}" = "$name" ]; then # inside already
    PATH=/usr/local/bin:/usr/bin:/bin:{inside}/bin exec "$program" "$@"
fi
# Words are put in front of those that are there, so this is read from below: first the old system, then what is the user's.
here=$(pwd -P)
case $here in
/ | /bin* | /boot* | /etc* | /lib* | /sbin* | /usr* | /var*) here=${{HOME:-/}} ;;
esac
set -- --chdir "$here" -- /usr/bin/env --default-signal=INT "$program" "$@"
for place in /var/tmp "/run/user/$(id -u)" "${{HOME:-/}}"; do
    case $place in # homes elsewhere are in what is bound as a whole already
    /run/* | /var/*) set -- --bind-try "$place" "$place" "$@" ;;
    esac
done
for place in /*; do
    case $place in
    /bin | /boot | /dev | /etc | /lib* | /lost+found | /proc | /run | /sbin | /sys | /usr | /var) ;;
    *)
        if [ -L "$place" ]; then
            set -- --symlink "$(readlink "$place")" "$place" "$@"
        else
            set -- --bind-try "$place" "$place" "$@"
        fi
        ;;
    esac
done
for place in hosts resolv.conf localtime; do
    set -- --ro-bind-try "/etc/$place" "/etc/$place" "$@"
done
set -- --ro-bind-data 8 /etc/passwd --ro-bind-data 9 /etc/group "$@"
# The driver's libraries have to be those of the node's driver. They come one by one, so that nothing else of the node's /usr is seen.
libraries=
for place in {libraries}; do
    [ -e "$place" ] || continue
    libraries={inside}/lib
    set -- --ro-bind "$(readlink -f "$place")" "$libraries/${{place##*/}}" "$@"
done
smi=$(command -v nvidia-smi) && set -- --ro-bind "$(readlink -f "$smi")" "{inside}/bin/nvidia-smi" "$@"
for place in "$root"/*; do
    inside=${{place#"$root"}}
    case $inside in
    /bin | /lib* | /sbin | /usr | /etc)
        if [ -L "$place" ]; then
            set -- --symlink "$(readlink "$place")" "$inside" "$@"
        else
            set -- --ro-bind "$place" "$inside" "$@"
        fi
        ;;
    esac
done
unset LD_LIBRARY_PATH LD_PRELOAD PYTHONHOME PYTHONPATH
[ -z "$libraries" ] || export LD_LIBRARY_PATH="$libraries"
TRAINYARD_FROZEN=$name PATH=/usr/local/bin:/usr/bin:/bin${{smi:+:{inside}/bin}}
export TRAINYARD_FROZEN PATH
trap '' INT # Ctrl-C is for the program inside
exec bwrap --unshare-user-try --die-with-parent --dev-bind /dev /dev --bind /proc /proc --ro-bind /sys /sys "$@" \
    8<<PASSWD 9<<GROUP
$(getent passwd; getent passwd "$(id -u)")
PASSWD
$(getent group; getent group "$(id -g)")
GROUP
"""
ACTIVATE = """\
# Written by Trainyard. Read by a shell, not run: source {environment}/bin/activate
deactivate() {{
    PATH=$_TRAINYARD_OLD_PATH
    PS1=$_TRAINYARD_OLD_PS1
    unset VIRTUAL_ENV _TRAINYARD_OLD_PATH _TRAINYARD_OLD_PS1
    unset -f deactivate
}}
if [ -z "${{_TRAINYARD_OLD_PATH:-}}" ]; then
    _TRAINYARD_OLD_PATH=$PATH
    _TRAINYARD_OLD_PS1=${{PS1:-}}
fi
VIRTUAL_ENV={environment}
PATH={environment}/bin:$_TRAINYARD_OLD_PATH
export VIRTUAL_ENV PATH
[ -n "${{VIRTUAL_ENV_DISABLE_PROMPT:-}}" ] || PS1="({name}) $_TRAINYARD_OLD_PS1"
"""


class FrozenRootError(Exception):
    """Something that a person has to put right; the text says what."""


@dataclass(frozen=True)
class Wanted:
    """One frozen environment as it is to be.

    Attributes:
        name: its name and that of its folder.
        suite: release of Debian that its programs come from, such as bullseye.
        packages: packages of that release.
        programs: names of programs in ``bin``.
        commands: those of them that everybody has without activating anything.
        size: bytes that its root takes without the Python packages.
        about: what its marker tells about it.
        python: interpreter in the root that ``requirements`` are for, such as python2.7.
        requirements: text of a lock of Python packages, '' for none.
    """

    name: str
    present: bool = True
    suite: str = ""
    packages: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    size: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)
    python: str = "python3"
    requirements: str = ""

    @property
    def digest(self) -> str:
        """Return what tells roots apart."""
        pins = sorted(pin.line for pin in parse_lock(self.requirements).values())
        return hashlib.sha256(json.dumps([RECIPE, self.suite, sorted(self.packages), self.python, pins]).encode()).hexdigest()[:12]

    @property
    def room(self) -> float:
        """Return the bytes that the root takes."""
        return self.size + sum(pin.size for pin in parse_lock(self.requirements).values()) * BYTECODE_FACTOR


@dataclass(frozen=True)
class Places:
    """Where things are.

    Attributes:
        environments: folder of the environments.
        store: folder of the roots.
        commands: folder on everybody's PATH.
    """

    environments: Path
    store: Path
    commands: Path = Path("/usr/local/bin")

    def environment(self, wanted: Wanted) -> Path:
        """Return the folder of an environment."""
        return self.environments / wanted.name

    def root(self, wanted: Wanted) -> Path:
        """Return the folder of an environment's root."""
        return self.store / f"{wanted.name}-{wanted.digest}"


def root_problem(root: Path) -> str:
    """Return what is to be done to a root, '' where it is whole and untouched."""
    if not root.is_dir():
        return "build it"
    try:
        seal = json.loads((root / SEAL).read_text())
    except (OSError, ValueError):
        return "build it anew: it is not whole"
    return "" if seal.get("manifest") == _manifest(root) else "build it anew: its files were changed"


def texts(wanted: Wanted, places: Places) -> dict[Path, tuple[str, int]]:
    """Return the files of an environment, its marker last, with their text and mode."""
    folder = places.environment(wanted)
    words = {"name": wanted.name, "environment": str(folder), "inside": INSIDE, "libraries": LIBRARIES}
    marker = {"owner": OWNER, "lock": wanted.digest, "complete": True, "about": dict(wanted.about)}
    return {
        folder / "bin" / "enter": (ENTER.format(**words), 0o755),
        folder / "bin" / "activate": (ACTIVATE.format(**words), 0o644),
        folder / MARKER: (json.dumps(marker, indent=1, sort_keys=True) + "\n", 0o644),
    }


def links(wanted: Wanted, places: Places) -> dict[Path, str]:
    """Return the links of an environment and where they lead."""
    folder = places.environment(wanted)
    return {
        folder / "root": str(places.root(wanted)),
        **{folder / "bin" / program: "enter" for program in wanted.programs},
        **{places.commands / command: str(folder / "bin" / command) for command in wanted.commands},
    }


def owner_problem(wanted: Wanted, places: Places) -> str:
    """Return why an environment cannot be made where it is to be, '' where it can."""
    folder = places.environment(wanted)
    begun = {f"{MARKER}.new"}  # what an interruption may leave before there is a marker
    if _owner(folder) != OWNER and {entry.name for entry in _entries(folder)} - begun:
        return f"{folder} is there already and is no frozen environment. Remove it, or choose another name."
    for path, target in links(wanted, places).items():
        if path.parent == places.commands and os.path.lexists(path) and _target(path) != target:
            return f"{path} is there already and is somebody else's. Move it away."
    return ""


def actions(wanted: Wanted, places: Places) -> list[str]:
    """Return what is to be done, a sentence each, for one environment."""
    folder = places.environment(wanted)
    if not wanted.present:
        there = _owner(folder) == OWNER or _roots(wanted.name, places)
        return ["remove it"] if there else []
    todo = list(filter(None, [root_problem(places.root(wanted))]))
    wrong = [path for path, (text, mode) in texts(wanted, places).items() if not _is(path, text, mode)]
    wrong += [path for path, target in links(wanted, places).items() if _target(path) != target]
    todo += [f"write {path}" for path in wrong]
    todo += [f"remove {path}, which is wanted no more" for path in _old_links(wanted, places)]
    todo += [f"remove {path}, which is used no more" for path in _old_roots(wanted, places)]
    return todo


def of_ours(places: Places) -> list[Wanted]:
    """Return all frozen environments that are there, as to be removed, those among them of which only a root is left."""
    named = {folder.name for folder in _entries(places.environments) if _owner(folder) == OWNER}
    named |= {root.name[:-13] for root in _entries(places.store) if re.search("-[0-9a-f]{12}$", root.name)}
    return [Wanted(name, present=False) for name in sorted(named)]


def room_problem(wishes: Sequence[Wanted], places: Places) -> str:
    """Return why the roots that are yet to be built do not fit, '' where they do."""
    need = sum(wanted.room for wanted in wishes if wanted.present and root_problem(places.root(wanted)))
    folder = places.store
    while not folder.exists():
        folder = folder.parent
    state = os.statvfs(folder)
    room = state.f_bavail * state.f_frsize
    if not need or room >= need + SPARE:
        return ""
    return (
        f"The disk of {places.store} has {room / 1e9:.1f} GB free, but {', '.join(wanted.name for wanted in wishes if wanted.present)} "
        f"will take {need / 1e9:.1f} GB. Make room there."
    )


def sources_problem(wishes: Sequence[Wanted], places: Places, sources: Sources) -> str:
    """Return why the Python packages of roots that are yet to be built cannot be had, as far as that shows before; '' where it does not."""
    locks: dict[str, list[str]] = {}
    for wanted in wishes:
        if wanted.present and wanted.requirements and root_problem(places.root(wanted)):
            locks.setdefault(wanted.python.replace("python", ""), []).append(wanted.requirements)
    return sources.problem(locks)


def apply(wanted: Wanted, places: Places, mirror: str = "", sources: Sources = ORDINARY) -> None:
    """Bring one environment to what is wanted.

    Raises:
        FrozenRootError: the root could not be built.
        PythonEnvError: its Python packages could not be had.
    """
    with _alone(places.store):
        if not wanted.present:
            _remove(wanted, places)
            return
        root = places.root(wanted)
        if root_problem(root):
            if in_use(root):
                raise FrozenRootError(f"{root} is to be built anew, and programs run in it. Run again when they have ended.")
            _build(wanted, root, mirror, sources)
        folder = places.environment(wanted)
        host_files.make_folders(folder)
        if not (folder / MARKER).exists():  # before anything else, so that an interruption leaves something that is known as ours
            _write(folder / MARKER, json.dumps({"owner": OWNER, "complete": False}) + "\n", 0o644)
        host_files.make_folders(folder / "bin")
        for path, (text, mode) in texts(wanted, places).items():
            if path.name == MARKER:
                for link, target in links(wanted, places).items():
                    _link(link, target)
            if not _is(path, text, mode):
                _write(path, text, mode)
        for link in _old_links(wanted, places):
            link.unlink()
        for old in _old_roots(wanted, places):
            shutil.rmtree(old)


def tidy(places: Places, *, dry: bool) -> bool:
    """Remove the folder of the roots where no root is left in it, but perhaps one that was begun; return whether there was one to go."""

    def empty() -> bool:
        return all(entry.name.startswith(".") for entry in _entries(places.store))

    if not places.store.is_dir() or not empty():
        return False
    with contextlib.nullcontext() if dry else _alone(places.store):
        if not dry and empty():  # as before, now that nobody else is at work there
            shutil.rmtree(places.store)
    return True


def _build(wanted: Wanted, root: Path, mirror: str, sources: Sources) -> None:
    """Build a root beside its place, and move it there when it is whole and on the disk."""
    beside = root.with_name(f".{root.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(wanted.packages)}", wanted.suite, str(beside)]
    words += [mirror] if mirror else []
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        shutil.rmtree(beside, ignore_errors=True)
        raise FrozenRootError(f"The system of {wanted.name} could not be built: {' '.join(done.stderr.split())[-800:]}")
    for name in ("hosts", "localtime", "resolv.conf"):  # to be covered by the node's own, which a link cannot be
        path = beside / "etc" / name
        path.unlink(missing_ok=True)
        path.touch(mode=0o644)
    for name in ("machine-id", "hostname"):
        (beside / "etc" / name).unlink(missing_ok=True)
    if wanted.requirements:
        try:
            install(beside, wanted.python, wanted.requirements, sources)
        except PythonEnvError:
            shutil.rmtree(beside, ignore_errors=True)
            raise
    shutil.rmtree(beside / "var" / "lib" / "apt" / "lists", ignore_errors=True)
    os.chmod(beside, 0o755)
    _write(beside / SEAL, json.dumps({"manifest": _manifest(beside)}) + "\n", 0o644)
    os.sync()
    if root.is_dir():
        shutil.rmtree(root)
    beside.rename(root)


def _remove(wanted: Wanted, places: Places) -> None:
    folder = places.environment(wanted)
    for command in _entries(places.commands):
        if (_target(command) or "").startswith(f"{folder}/bin/"):
            command.unlink()
    if _owner(folder) == OWNER:
        for entry in folder.iterdir():
            if entry.name == MARKER:
                continue  # last, so that an interruption leaves something that is known as ours
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        (folder / MARKER).unlink()
        folder.rmdir()
    for root in _roots(wanted.name, places):
        shutil.rmtree(root)


def _roots(name: str, places: Places) -> list[Path]:
    return sorted(path for path in _entries(places.store) if re.fullmatch(re.escape(name) + "-[0-9a-f]{12}", path.name))


def _old_links(wanted: Wanted, places: Places) -> list[Path]:
    """Return links of the environment, among its programs and among everybody's commands, that its recipe does not have any more."""
    programs = places.environment(wanted) / "bin"
    found = [path for path in _entries(programs) if _target(path) == "enter"]
    found += [path for path in _entries(places.commands) if (_target(path) or "").startswith(f"{programs}/")]
    return [path for path in found if path not in links(wanted, places)]


def _old_roots(wanted: Wanted, places: Places) -> list[Path]:
    """Return the environment's roots that nobody runs in any more, less the one that is wanted."""
    return [root for root in _roots(wanted.name, places) if root != places.root(wanted) and not in_use(root)]


def in_use(root: Path) -> bool:
    """Say whether any process has a part of a root mounted."""
    for path in glob.glob("/proc/[0-9]*/mountinfo"):
        try:
            with open(path, encoding="utf-8", errors="replace") as mounts:
                if any(f"/{root.name}/" in line for line in mounts):  # what is before that depends on what is mounted where
                    return True
        except OSError:
            continue
    return False


def _manifest(root: Path) -> str:
    return manifest(root, lambda path: path == f"/{SEAL}")


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _owner(folder: Path) -> str:
    try:
        found = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return ""
    return str(found.get("owner", "")) if isinstance(found, dict) else ""


def _is(path: Path, text: str, mode: int) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text and path.stat().st_mode & 0o777 == mode
    except (OSError, ValueError):
        return False


def _target(path: Path) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _write(path: Path, text: str, mode: int) -> None:
    beside = path.with_name(path.name + ".new")
    with open(beside, "w", encoding="utf-8") as new:
        os.fchmod(new.fileno(), mode)
        new.write(text)
        new.flush()
        os.fsync(new.fileno())
    os.replace(beside, path)


def _link(path: Path, target: str) -> None:
    if _target(path) == target:
        return
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    os.replace(beside, path)


@contextlib.contextmanager
def _alone(store: Path) -> Iterator[None]:
    """Let one run at a time work in the store."""
    path = store / ".lock"
    while True:
        with os.fdopen(locks.open_lock(path), "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists() and os.path.samestat(os.stat(path), os.fstat(lock.fileno())):  # else another run has just removed the store
                yield
                return
