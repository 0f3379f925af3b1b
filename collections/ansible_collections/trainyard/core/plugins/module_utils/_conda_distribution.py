# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Distributions of conda: each version in a folder of its own, made by its own installer, and one name that leads to the wanted one.

Installers write the folder that they are told into their files, so a version cannot be made beside its place and moved there. It is whole
when its seal is in it, which comes last; what has none is removed and made again. The name, a link, is switched when the version that it is
to lead to is whole. What speaks HTTP is imported where it is used: most runs download nothing, and importing takes its time.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._host import locks

SEAL = ".trainyard-conda.json"  # in a version's folder: that it is whole, and the installer that it was made with
DOWNLOADS = ".download"  # in the store; root's alone
LOCK = ".lock"
MARK = "Written by the role anaconda"  # in the first line of the files that the role writes
DISTRIBUTIONS = ("miniforge", "miniconda", "anaconda")
SPARE = 100_000_000
CHUNK = 1 << 20
TRIES = 4  # rounds over all sources in which nothing came
PAUSE = 2.0  # seconds after the first of them, twice as long after each further one
STALLED = 60.0  # seconds without a byte
ASKED = 20.0  # seconds that a server may take to say whether it has a file
PATIENCE = 3600.0  # seconds that a run waits for another one
PDEATHSIG = 1  # of prctl(2)

_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]+@")
_LIBC = ctypes.CDLL(None)


class CondaDistributionError(Exception):
    """Something that a person has to put right; the text says what."""


@dataclass(frozen=True)
class Wanted:
    """The version that is to be there.

    Attributes:
        distribution: miniforge, miniconda or anaconda.
        version: as its publisher writes it.
        file: name of the installer; ends with .sh, which it insists on.
        sha256: of the installer.
        sources: where it can be had, in order: addresses of the file, or its absolute path on this machine.
        size: bytes of the installer.
        installed: bytes that the version takes.
    """

    distribution: str
    version: str
    file: str
    sha256: str
    sources: tuple[str, ...] = ()
    size: int = 0
    installed: int = 0

    @property
    def name(self) -> str:
        """Return what it is called, also its folder."""
        return f"{self.distribution}-{self.version}"


@dataclass(frozen=True)
class Places:
    """Where things are.

    Attributes:
        link: the name that leads to the wanted version.
        store: folder of the versions.
    """

    link: Path
    store: Path

    def prefix(self, wanted: Wanted) -> Path:
        """Return the folder of a version."""
        return self.store / wanted.name

    @property
    def downloads(self) -> Path:
        """Return the folder of what is being downloaded."""
        return self.store / DOWNLOADS


# --- What there is ----------------------------------------------------------------------------------------------------


def prefix_problem(wanted: Wanted, places: Places) -> str:
    """Return what is to be done to a version, '' where it is whole."""
    prefix = places.prefix(wanted)
    if not os.path.lexists(prefix):
        return f"install {wanted.name}"
    if not is_whole(prefix):
        return f"install {wanted.name} anew: it is not whole"
    return "" if _sealed_sum(prefix) == wanted.sha256 else f"install {wanted.name} anew: it was made by another installer"


def is_whole(prefix: Path) -> bool:
    """Say whether a version's installation came to its end, and its programs are still there."""
    return bool(_sealed_sum(prefix)) and os.access(prefix / "bin" / "conda", os.X_OK)


def _sealed_sum(prefix: Path) -> str:
    try:
        seal = json.loads((prefix / SEAL).read_text())
    except (OSError, ValueError):
        return ""
    return str(seal.get("sha256", "")) if isinstance(seal, dict) else ""


def owner_problem(places: Places, settings: Sequence[Path] = ()) -> str:
    """Return why the link, or a file of settings, cannot be written where it is to be, '' where all can."""
    if os.path.lexists(places.link) and not _is_ours(places):
        what = "leads elsewhere" if places.link.is_symlink() else "is somebody else's"
        return (
            f"{places.link} is there already and {what}. Nothing was done. Move it away, or choose another place for our link "
            "with anaconda_path."
        )
    for path in settings:
        if os.path.lexists(path) and MARK not in _first_line(path):
            return (
                f"{path} is there already and was not written by Trainyard. Nothing was done. Move it away; what it sets for conda "
                "goes into anaconda_condarc."
            )
    return ""


def _is_ours(places: Places) -> bool:
    target = _target(places.link)
    return target is not None and Path(target).parent == places.store


def _first_line(path: Path) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline()
    except OSError:
        return ""


def versions(places: Places) -> list[Path]:
    """Return the folders of all versions in the store, whole or not."""
    pattern = re.compile(f"({'|'.join(DISTRIBUTIONS)})-.+")
    return sorted(path for path in _entries(places.store) if pattern.fullmatch(path.name) and path.is_dir() and not path.is_symlink())


def actions(wanted: Wanted, places: Places) -> list[str]:
    """Return what is to be done, a sentence each."""
    prefix = places.prefix(wanted)
    problem = prefix_problem(wanted, places)
    todo = [problem] if problem else []
    if _target(places.link) != str(prefix):
        todo.append(f"lead {places.link} to {prefix}")
    todo += [f"remove {old}, which is used no more" for old in _old(wanted, places)]
    if not problem and places.downloads.is_dir():
        todo.append(f"remove {places.downloads}")
    return todo


def _old(wanted: Wanted, places: Places) -> list[Path]:
    """Return the other versions, less those that somebody runs."""
    return [prefix for prefix in versions(places) if prefix != places.prefix(wanted) and not in_use(prefix)]


def in_use(prefix: Path) -> bool:
    """Say whether any process runs a program of a version, has a file of it mapped, or was started with it activated.

    Not everywhere may root look at other users' processes: a container may lack that capability. The kernel then tells in another way:
    nobody may write to a program that is running, whoever runs it.
    """
    return any(_is_running(program) for program in _entries(prefix / "bin")) or any(
        _works_in(prefix, process) for process in glob.glob("/proc/[0-9]*")
    )


def _is_running(program: Path) -> bool:
    if program.is_symlink() or not program.is_file():
        return False
    try:
        os.close(os.open(program, os.O_WRONLY))
    except OSError as error:
        return error.errno == errno.ETXTBSY
    return False


def _works_in(prefix: Path, process: str) -> bool:
    inside = f"/{prefix.parent.name}/{prefix.name}/"  # what is before that depends on what is mounted where
    looks: tuple[Callable[[], bool], ...] = (
        lambda: inside in os.readlink(f"{process}/exe"),
        lambda: inside.encode() in _bytes(f"{process}/maps"),
        lambda: inside.encode() in _bytes(f"{process}/cmdline"),
        lambda: f"CONDA_PREFIX={prefix}".encode() in _bytes(f"{process}/environ").split(b"\0"),
    )
    for look in looks:
        with suppress(OSError):  # it has ended, or is not to be looked at
            if look():
                return True
    return False


# --- What is refused before anything changes --------------------------------------------------------------------------


def room_problem(wanted: Wanted, places: Places) -> str:
    """Return why a version that is yet to be made does not fit, '' where it does."""
    if not prefix_problem(wanted, places):
        return ""
    came = max((_size(places.downloads / name) for name in (wanted.file, _part(wanted))), default=0)
    rest = max(wanted.size - came, 0)
    need = wanted.installed + rest
    folder = places.store
    while not folder.exists():
        folder = folder.parent
    state = os.statvfs(folder)
    room = state.f_bavail * state.f_frsize + _tree_size(places.prefix(wanted))  # what is not whole goes before
    if room >= need + SPARE:
        return ""
    return (
        f"The disk of {places.store} has {room / 1e9:.2f} GB free, but {wanted.name} takes {wanted.installed / 1e9:.2f} GB and its "
        f"installer {rest / 1e9:.2f} GB more until it has run. Make room there, or choose a folder on another disk with anaconda_store."
    )


def source_problem(wanted: Wanted, places: Places, pause: Callable[[float], object] = time.sleep) -> str:
    """Return why the installer of a version that is yet to be made cannot be had, '' where it can, as far as asking tells.

    An untrusted certificate does not count: on a new node its authority may be yet to come.
    """
    if not prefix_problem(wanted, places) or (places.downloads / wanted.file).is_file():
        return ""
    from http.client import HTTPException  # noqa: PLC0415
    from ssl import SSLCertVerificationError  # noqa: PLC0415

    said: dict[str, str] = {}
    open_ones = list(wanted.sources)
    for attempt in range(TRIES):
        for source in list(open_ones):
            try:
                problem = _problem_of(source, wanted)
            except (OSError, HTTPException) as error:
                if isinstance(getattr(error, "reason", None), SSLCertVerificationError):
                    return ""
                problem = reason(error)
                if not is_final(error):
                    said[source] = problem
                    continue
            if not problem:
                return ""
            said[source] = problem
            open_ones.remove(source)
        if not open_ones:
            break
        if attempt + 1 < TRIES:
            pause(PAUSE * 2**attempt)
    return _cannot_be_had(wanted, said)


def _problem_of(source: str, wanted: Wanted) -> str:
    """Ask a source for the first byte of the installer, or look at the sum of a file on this machine.

    Raises:
        OSError, HTTPException: it cannot be asked, or does not have it.
    """
    if not source.startswith("/"):
        with _opened(source, "0-0", ASKED):
            return ""
    found = sha256_of(Path(source))
    return "" if found == wanted.sha256 else _other_sum(found, wanted)


def _cannot_be_had(wanted: Wanted, said: dict[str, str]) -> str:
    places = "; ".join(f"{without_credentials(source)}: {problem}" for source, problem in said.items())
    return (
        f"The installer of {wanted.name} cannot be had. {places}. Another way is chosen with anaconda_source: tuna, ustc or aliyun where "
        f"they have it, the URL of a folder that has {wanted.file}, or the path of that file on the node."
    )


def _other_sum(found: str, wanted: Wanted) -> str:
    return f"it has the SHA-256 {found}, and {wanted.sha256} is wanted"


# --- The installer ----------------------------------------------------------------------------------------------------


def fetch(wanted: Wanted, places: Places, pause: Callable[[float], object] = time.sleep) -> Path:
    """Return the path of the installer, whose sum is right; it is downloaded, the rest of it where a part is there already.

    Raises:
        CondaDistributionError: no source has it, the disk is full, or it has another sum.
    """
    host_files.make_folders(places.downloads, 0o700)
    file, part = places.downloads / wanted.file, places.downloads / _part(wanted)
    if file.is_file():
        if sha256_of(file) == wanted.sha256:
            return file
        file.unlink()
    from http.client import HTTPException  # noqa: PLC0415

    said: dict[str, str] = {}
    open_ones = list(wanted.sources)
    tries, most = 0, _size(part)
    while open_ones and tries < TRIES:
        for source in list(open_ones):
            try:
                _take(source, part, wanted)
            except (OSError, HTTPException) as error:
                if getattr(error, "errno", 0) == errno.ENOSPC:
                    raise CondaDistributionError(f"The disk of {places.store} is full. Make room there, or set anaconda_store.") from error
                said[source] = reason(error)
                if is_final(error):
                    open_ones.remove(source)
            else:
                os.replace(part, file)
                return file
        tries = 1 if _size(part) > most else tries + 1  # as long as more comes, it goes on
        most = max(most, _size(part))
        if open_ones and tries < TRIES:
            pause(PAUSE * 2 ** (tries - 1))
    raise CondaDistributionError(f"{_cannot_be_had(wanted, said)} What came is kept, and the next run goes on from there.")


def _take(source: str, part: Path, wanted: Wanted) -> None:
    """Bring a file to its end from one source, and look at its sum.

    Raises:
        CondaDistributionError: it has another sum; it was deleted then.
        OSError, HTTPException: it could not be had; what came is kept.
    """
    resumed = _size(part) > 0
    _receive(source, part)
    found = sha256_of(part)
    if found != wanted.sha256 and resumed:  # what an interruption or another source left may be spoilt: once more from the start
        part.unlink()
        _receive(source, part)
        found = sha256_of(part)
    if found != wanted.sha256:
        part.unlink()
        raise CondaDistributionError(
            f"{without_credentials(source)}: {_other_sum(found, wanted)}. It is another file, or it was altered on the way; it was deleted "
            "and not run. Another way is chosen with anaconda_source; the sum of an installer of your own goes into anaconda_installer."
        )


def _receive(source: str, part: Path) -> None:
    """Copy a file, or receive what is missing of it."""
    if source.startswith("/"):
        shutil.copyfile(source, part)
        return
    import urllib.error  # noqa: PLC0415

    begun = _size(part)
    try:
        answer = _opened(source, f"{begun}-" if begun else "", STALLED)
    except urllib.error.HTTPError as error:
        if error.code == 416 and begun:  # there is no more than what we have; the sum tells whether it is right
            return
        raise
    with answer:
        rest = answer.getcode() == 206
        if rest and not str(answer.headers.get("Content-Range", "")).startswith(f"bytes {begun}-"):
            raise OSError("it answered with another part of the file than it was asked for")
        expected = answer.headers.get("Content-Length")
        came = 0
        with open(part, "ab" if rest else "wb") as file:
            for chunk in iter(lambda: answer.read(CHUNK), b""):
                file.write(chunk)
                came += len(chunk)
    if expected and came < int(expected):
        raise OSError(f"the connection broke after {came} of {expected} bytes")


def _opened(url: str, part: str, timeout: float) -> Any:
    """Open a URL, for a part of what is there ('' for all); only its own server gets the user and password that it carries."""
    import urllib.request  # noqa: PLC0415
    from urllib.parse import unquote, urlsplit  # noqa: PLC0415

    parts = urlsplit(url)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    logins = urllib.request.HTTPPasswordMgrWithPriorAuth()
    if parts.username:
        logins.add_password(None, bare, unquote(parts.username), unquote(parts.password or ""), is_authenticated=True)
    request = urllib.request.Request(bare, headers={"User-Agent": "trainyard"})
    if part:
        request.add_header("Range", f"bytes={part}")
    return urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(logins)).open(request, timeout=timeout)


def install(wanted: Wanted, places: Places, installer: Path, keep: Sequence[int] = ()) -> None:
    """Make a version with its installer, in place of what there was, and seal it when it is on the disk.

    The installer dies with this process. It holds the files ``keep`` open, which are the lock, for as long as a part of it lives, so that
    nobody clears away what it still writes to.

    Raises:
        CondaDistributionError: the installer failed, or what it made does not run.
    """
    prefix = places.prefix(wanted)
    remove_version(prefix)
    scratch = places.downloads / "home"  # the installer writes to the home and the temporary folder of whoever calls it
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    environment = {
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SHELL": "/bin/bash",
        "LC_ALL": "C.UTF-8",
    }
    try:
        output = _run(["bash", str(installer), "-b", "-p", str(prefix)], environment, keep, f"The installer of {wanted.name}")
        if not os.access(prefix / "bin" / "conda", os.X_OK):
            raise CondaDistributionError(f"The installer of {wanted.name} ended well and left no bin/conda in {prefix}: {_tail(output)}")
        _run([str(prefix / "bin" / "conda"), "--version"], environment, keep, f"conda of {wanted.name}")
    except CondaDistributionError:
        remove_version(prefix)
        raise
    (prefix / ".condarc").unlink(missing_ok=True)  # the installer's settings would outdo those in /etc/conda
    secure(prefix)
    os.sync()
    _write(prefix / SEAL, json.dumps({"distribution": wanted.distribution, "version": wanted.version, "sha256": wanted.sha256}) + "\n")


def _run(words: Sequence[str], environment: dict[str, str], keep: Sequence[int], what: str) -> str:
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd="/",
        pass_fds=keep,
        preexec_fn=_prepare,
        check=False,
    )
    output = done.stdout.decode(errors="replace")
    if done.returncode:
        how = f"was killed by signal {-done.returncode}" if done.returncode < 0 else f"failed with the exit status {done.returncode}"
        raise CondaDistributionError(f"{what} {how}: {_tail(output)}")
    return output


def _prepare() -> None:  # pragma: no cover - runs in the child
    os.umask(0o022)
    _LIBC.prctl(PDEATHSIG, signal.SIGKILL)


def _tail(output: str) -> str:
    return " ".join(output.split())[-800:]


def secure(prefix: Path) -> None:
    """Have all files of a version belong to whoever calls this, and nobody else able to write to them."""
    user, group = os.geteuid(), os.getegid()
    for folder, names, files in os.walk(prefix):
        for path in (folder, *(f"{folder}/{name}" for name in [*names, *files])):
            state = os.lstat(path)
            if (state.st_uid, state.st_gid) != (user, group):
                os.chown(path, user, group, follow_symlinks=False)
            if not stat.S_ISLNK(state.st_mode) and state.st_mode & 0o022:
                os.chmod(path, stat.S_IMODE(state.st_mode) & ~0o022)


# --- Bringing it there, and taking it away ----------------------------------------------------------------------------


def apply(wanted: Wanted, places: Places) -> None:
    """Bring the version that is wanted, and take those away that nobody uses any more.

    Raises:
        CondaDistributionError: it could not be fetched or installed, or programs run in one that is to be made anew.
    """
    with _alone(places.store) as lock:
        if prefix_problem(wanted, places):
            if in_use(places.prefix(wanted)):
                raise CondaDistributionError(
                    f"{places.prefix(wanted)} is to be installed anew, and programs run in it. Run again when they have ended."
                )
            install(wanted, places, fetch(wanted, places), keep=[lock.fileno()])
        _link(places.link, str(places.prefix(wanted)))
        for old in _old(wanted, places):
            remove_version(old)
        shutil.rmtree(places.downloads, ignore_errors=True)


def what_is_there(places: Places, settings: Sequence[Path] = ()) -> list[str]:
    """Return what `remove` would do, a sentence each."""
    found = [places.link] if _is_ours(places) else []
    found += [*versions(places), *(path for path in (places.downloads, places.store / LOCK) if path.exists())]
    found += [path for path in settings if MARK in _first_line(path)]
    return [f"remove {path}" for path in found]


def remove(places: Places, settings: Sequence[Path] = ()) -> None:
    """Take away the link, all versions, the store where nothing else is in it, and those files of settings that the role wrote."""
    with _alone(places.store):
        if _is_ours(places):
            places.link.unlink()
        for prefix in versions(places):
            remove_version(prefix)
        shutil.rmtree(places.downloads, ignore_errors=True)
        (places.store / LOCK).unlink(missing_ok=True)
        if not _entries(places.store):
            places.store.rmdir()
    for path in settings:
        if MARK in _first_line(path):
            path.unlink()
        if path.parent.name == "conda" and path.parent.is_dir() and not _entries(path.parent):  # conda's own, unlike that of login shells
            path.parent.rmdir()


def remove_version(prefix: Path) -> None:
    """Remove the folder of a version, its seal first, so that an interruption leaves something that is known not to be whole."""
    if prefix.is_symlink() or prefix.is_file():
        prefix.unlink()
        return
    (prefix / SEAL).unlink(missing_ok=True)
    if prefix.is_dir():
        shutil.rmtree(prefix)


@contextmanager
def _alone(store: Path, pause: Callable[[float], object] = time.sleep) -> Iterator[IO[str]]:
    """Let one run at a time work in the store.

    Raises:
        CondaDistributionError: another one did not come to its end.
    """
    path = store / LOCK
    waited = 0.0
    while True:
        with os.fdopen(locks.open_lock(path), "r+", encoding="utf-8") as lock:
            if _is_locked(lock, path):
                yield lock
                return
        if waited >= PATIENCE:
            raise CondaDistributionError(
                f"Another run, or an installer that it left behind, has been at work in {store} for {PATIENCE / 60:.0f} minutes. "
                f"See who it is with: fuser -v {path}"
            )
        pause(1)
        waited += 1


def _is_locked(lock: IO[str], path: Path) -> bool:
    """Try to lock a file, and say whether that went well and it is still the one at its place: an undo may have removed it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock.fileno()), os.stat(path))
    except OSError:
        return False


# --- Small things -----------------------------------------------------------------------------------------------------


def without_credentials(text: str) -> str:
    """Return a text with the user and password of its URLs left out."""
    return _CREDENTIALS.sub("", text)


def reason(error: Exception) -> str:
    """Return why something could not be had, in a few words."""
    code = getattr(error, "code", None)
    if code is not None:
        return f"the server answered {code} {getattr(error, 'msg', '')}".strip()
    inner = getattr(error, "reason", None) or error
    return without_credentials(str(getattr(inner, "strerror", None) or inner))


def is_final(error: Exception) -> bool:
    """Say whether asking again is of no use: the server knows of no such file or wants another login, or a file is not there."""
    code = getattr(error, "code", None)
    if code is not None:
        return 400 <= code < 500 and code not in {408, 425, 429}
    return isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _part(wanted: Wanted) -> str:
    return f"{wanted.file}.part"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _tree_size(folder: Path) -> int:
    return sum(os.lstat(f"{top}/{name}").st_blocks * 512 for top, _names, files in os.walk(folder) for name in files)


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _target(path: Path) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _write(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".new")
    with open(beside, "w", encoding="utf-8") as new:
        os.fchmod(new.fileno(), 0o644)
        new.write(text)
        new.flush()
        os.fsync(new.fileno())
    os.replace(beside, path)


def _link(path: Path, target: str) -> None:
    if _target(path) == target:
        return
    beside = path.with_name(f".{path.name}.trainyard")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    os.replace(beside, path)
