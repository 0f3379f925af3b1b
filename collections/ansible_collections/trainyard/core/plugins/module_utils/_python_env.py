# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Python environments that hold exactly what their locks say: what is on the disk, what is off, and how it is put right.

An environment carries a marker, a file that says whose it is and whether the last work on it came to its end. It is written
before the first change and again after the last one, so that every interruption leaves a trace:

- marker complete: everything was on the disk, synced, when it was written; what has changed since is found by looking.
- marker open, same boot: a process was killed; what it had written is intact, the rest is found by looking.
- marker open, another boot: the machine went down; files may hold anything, so this environment and the cache are made anew.

What comes from the head is gathered beside its place and moved there when all of it has been found to be as it is on the head.
"""

from __future__ import annotations

import base64
import csv
import ctypes
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._host import locks
from ansible_collections.trainyard.core.plugins.module_utils._host.reported import is_word
from ansible_collections.trainyard.core.plugins.module_utils._package_lock import Pin, PythonEnvError, normalise, parse_lock, same_version
from ansible_collections.trainyard.core.plugins.module_utils._package_sources import (
    NO_INDEX,
    index_problem,
    places,
    refused_index,
    surroundings,
    without_credentials,
    wrong_checksums,
)
from ansible_collections.trainyard.core.plugins.module_utils._python_env_travel import (
    FETCH,
    HEAD,
    INDEX,
    LINKED_TO,
    SERVED,
    Known,
    platform,
    silent,
    tree_digest,
)

MARKER = ".trainyard-env.json"
LOCK_COPY = ".trainyard-lock.txt"
UV_LOCK = ".lock"
OF_THE_MACHINE = (MARKER, UV_LOCK)  # lie in an environment's folder, and do not travel
FETCHED = ".fetched-"
INSTALLER, CACHE, GUARD = ".uv", ".cache", ".lock"  # beside the environments, so that wheels and environments share one file system
OWN_TOP_LEVEL = {"__pycache__", "_virtualenv.py", "_virtualenv.pth"}  # made by `uv venv`, recorded by nobody
BYTECODE_FACTOR = 1.2  # what compiled modules add to the recorded files, measured on the heaviest environments

_DIST_INFO = re.compile(r"^(?P<name>.+?)-(?P<version>[^-]+)\.dist-info$")
_TESTS = re.compile(r"^_?tests?$")


@dataclass
class Found:
    """A package that is installed, with what is wrong with it."""

    name: str
    version: str
    folder: str
    recorded: bool = True
    damage: list[str] = field(default_factory=list)


@dataclass
class Plan:
    """How an environment differs from its lock."""

    add: dict[str, str] = field(default_factory=dict)
    remove: dict[str, str] = field(default_factory=dict)
    change: dict[str, tuple[str, str]] = field(default_factory=dict)
    repair: dict[str, str] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.add or self.remove or self.change or self.repair or self.strays or self.leftovers)

    def lines(self) -> list[str]:
        """Return the differences, one line each."""
        return [
            *(f"add {name} {version}" for name, version in sorted(self.add.items())),
            *(f"remove {name} {version}" for name, version in sorted(self.remove.items())),
            *(f"change {name} {old} to {new}" for name, (old, new) in sorted(self.change.items())),
            *(f"repair {name}: {why}" for name, why in sorted(self.repair.items())),
            *(f"remove {name}, which belongs to no package" for name in sorted(self.strays)),
        ]


def read_record(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield path, checksum and size of each file that a RECORD names."""
    lines = text.splitlines()
    for row in csv.reader(lines) if '"' in text else (line.rsplit(",", 2) for line in lines):  # the latter is twice as fast
        if len(row) == 3:
            yield row[0], row[1], row[2]


class _Tree:
    """A folder whose files are looked at by way of their own folder: the kernel walks a long path once for all files there."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._folder: str | None = None
        self._descriptor = -1
        self.inode = 0  # of the file that was looked at last

    def stat(self, path: str) -> os.stat_result:
        """Return the status of a file by its path below the root; raises OSError where there is none."""
        folder, _slash, name = path.rpartition("/")
        if folder != self._folder:
            self.close()
            self._descriptor = os.open(f"{self.root}/{folder}", os.O_PATH)
            self._folder = folder
        state = os.stat(name, dir_fd=self._descriptor)
        self.inode = state.st_ino
        return state

    def close(self) -> None:
        """Let go of the folder that is open."""
        if self._folder is not None:
            os.close(self._descriptor)
            self._folder = None


def file_damage(tree: _Tree, path: str, checksum: str, size: str, since_ns: int) -> str:
    """Return what is wrong with a recorded file, '' when nothing is.

    The content is read only where the file is younger than ``since_ns``, when all was known to be well.
    """
    try:
        state = tree.stat(path)
    except OSError:
        return f"{path} is missing"
    if state.st_size != int(size):
        return f"{path} has {state.st_size} bytes instead of {size}"
    kind, _equals, digest = checksum.partition("=")
    if state.st_mtime_ns > since_ns and kind == "sha256":
        with open(f"{tree.root}/{path}", "rb") as content:
            found = base64.urlsafe_b64encode(hashlib.sha256(content.read()).digest()).rstrip(b"=").decode()
        if found != digest:
            return f"{path} has another content"
    return ""


@dataclass
class _Sound:
    """A package that was found sound.

    Attributes:
        files: by folder, the names of its files and their inodes.
        rows: by path, what its list of files says of each: checksum and size.
        owned: entries of the site that it is in.
    """

    files: dict[str, dict[str, int]] = field(default_factory=dict)
    rows: dict[str, tuple[str, str]] = field(default_factory=dict)
    owned: set[str] = field(default_factory=set)

    def others(self, site: str) -> Iterator[str]:
        """Yield the paths of those files that another environment has not got by a hard link to the very same file."""
        for folder, wanted in self.files.items():
            try:
                there = {entry.name: entry.inode() for entry in os.scandir(f"{site}/{folder}")}
            except OSError:
                there = {}
            for name, _inode in sorted(wanted.items() - there.items()):
                yield f"{folder}/{name}" if folder else name


def scan(site: str, since_ns: int, sound: dict[str, _Sound] | None = None) -> tuple[list[Found], list[str]]:
    """Return the packages in a site-packages folder, and the entries in it that belong to none of them.

    Args:
        site: the folder.
        since_ns: when all in it was known to be well.
        sound: by list of files, packages that were found sound in other environments; this one's are added.
    """
    found, owned, tree = [], set(OWN_TOP_LEVEL), _Tree(site)
    sound = {} if sound is None else sound
    try:
        entries = sorted(entry.name for entry in os.scandir(site))
    except OSError:
        return [], []
    for entry in entries:
        named = _DIST_INFO.match(entry)
        if not named:
            continue
        package = Found(normalise(named["name"]), named["version"], entry)
        found.append(package)
        owned.add(entry)
        try:
            text = Path(site, entry, "RECORD").read_text(encoding="utf-8")
        except (OSError, ValueError):
            text = ""
        if text in sound:
            owned |= sound[text].owned
            package.damage += filter(
                None, (file_damage(tree, path, *sound[text].rows[path], since_ns) for path in sound[text].others(site))
            )
            tree.close()
            continue
        rows, here = list(read_record(text)), _Sound()
        if not rows:
            package.recorded = False
            package.damage.append("its list of files is gone")
            continue
        for path, checksum, size in rows:
            if not path.startswith(".."):
                here.owned.add(path.partition("/")[0])
            if size.isdigit() and not path.endswith(".pyc"):
                damage = file_damage(tree, path, checksum, size, since_ns)
                if damage:
                    package.damage.append(damage)
                else:
                    folder, _slash, name = path.rpartition("/")
                    here.files.setdefault(folder, {})[name] = tree.inode
                    here.rows[path] = checksum, size
        owned |= here.owned
        if not package.damage:
            sound[text] = here
        tree.close()
    return found, [entry for entry in entries if entry not in owned]


def compare(pins: Mapping[str, Pin], found: Sequence[Found], strays: Sequence[str]) -> Plan:
    """Return how what is installed differs from a lock."""
    plan = Plan(strays=list(strays))
    by_name: dict[str, list[Found]] = {}
    for package in found:
        by_name.setdefault(package.name, []).append(package)
        if not package.recorded:
            plan.leftovers.append(package.folder)
    for name, packages in by_name.items():
        version = packages[0].version
        pin = pins.get(name)
        if pin is None:
            plan.remove[name] = version
        elif len(packages) > 1:
            plan.repair[name] = "it is installed twice, as " + " and ".join(package.version for package in packages)
            plan.leftovers += [
                package.folder for package in packages if not same_version(package.version, pin.version) and package.recorded
            ]
        elif not same_version(version, pin.version):
            plan.change[name] = (version, pin.version)
        elif packages[0].damage:
            more = f", and {len(packages[0].damage) - 1} more" if len(packages[0].damage) > 1 else ""
            plan.repair[name] = packages[0].damage[0] + more
    plan.add = {name: pin.version for name, pin in pins.items() if name not in by_name}
    return plan


def sources_by_name(owner: str) -> str:
    """Return by which variables somebody chooses where packages come from."""
    return f"{owner}_index_url (an index of your own, or a mirror) and {owner}_wheelhouse (a folder of wheels)"


def explain(output: str, owner: str, index_url: str, wheelhouse: str) -> str:
    """Return what an installer's failure means and what helps, from what it printed."""
    text = without_credentials(output)
    index = without_credentials(index_url) or "the default Python index"
    ways = sources_by_name(owner)
    mismatch = re.search(
        r"[Hh]ash mismatch for `(?P<what>[^`]+)`\s+Expected:\s+(?P<expected>.*?)\s+Computed:\s+(?P<computed>\S+)", text, re.DOTALL
    ) or re.search(  # pip's words
        r"DO NOT MATCH THE HASHES[^\n]*\n\s+(?P<what>\S+)[^\n]*\n(?P<expected>(?:\s+Expected[^\n]+\n)+)\s+Got\s+(?P<computed>\S+)", text
    )
    if mismatch:
        expected = " or ".join(word for word in mismatch["expected"].split() if word not in {"Expected", "sha256", "or"})
        return (
            f"Wrong checksum: {mismatch['what']} was locked as {expected}, but what came is {mismatch['computed']}. It was not installed. "
            f"It came from {wheelhouse + ' or ' if wheelhouse else ''}{index}: "
            f"put the right file there, or choose another source by {ways}."
        )
    if "No space left on device" in text:
        return f"The disk is full. Make room, or put the environments on a bigger disk by {owner}_path."
    if re.search(r"invalid peer certificate|certificate verify failed|CERTIFICATE_VERIFY_FAILED|UnknownIssuer", text):
        return (
            f"The node does not trust the certificate of {_fetched(text) or index}. "
            f"Add the authority that signed it to base_ca_certificates. The installer said: {_last_words(text)}"
        )
    if re.search(
        r"Request failed after|error sending request|dns error|timed out|HTTP status server error|Retrying \(Retry",
        text,
    ):
        return (
            f"The Python index does not answer: {_fetched(text) or index} was tried 4 times. See that the node reaches it, "
            f"by base_proxy where a proxy is the only way out, or choose another source by {ways}. The installer said: {_last_words(text)}"
        )
    if re.search(r"HTTP status client error \(40[13]|401 Unauthorized|403 Forbidden|missing credentials", text):
        return f"The Python index wants other credentials: {_fetched(text) or index}. Correct those in {owner}_index_url."
    missing = re.search(
        r"[Bb]ecause (?:there is no version of )?(?P<uv>\S+?) (?:was not found|has no wheels|has no usable|and you require)"
        r"|No matching distribution found for (?P<pip>\S+)",
        text,
    )
    if missing:
        return (
            f"{missing['uv'] or missing['pip']} is nowhere to be had: not in {wheelhouse + ' and not in ' if wheelhouse else ''}"
            f"{f'any index, since {owner}_index_url is {NO_INDEX}' if index_url == NO_INDEX else index}. "
            f"Give a source that has it by {ways}."
        )
    return f"The installer failed: {_last_words(text)}"


def _fetched(text: str) -> str:
    found = re.search(r"Failed to (?:fetch|download):? `?(https?://[^\s`]+)", text)
    return found.group(1) if found else ""


def _last_words(text: str) -> str:
    return " ".join(text.split())[-600:]


def readable(size: float) -> str:
    """Return a number of bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"


@dataclass(frozen=True)
class Settings:
    """What holds for all environments of a call.

    Attributes:
        path: folder of the environments.
        owner: whose they are; also what the names of the variables begin with that messages name.
        python: interpreter that they are made with.
        python_to_come: its version where it need not be there yet, as nothing is done now; '' where it has to be.
        installer_requirements: lock of uv.
        index_url: '' for uv's own default, 'none' for no index at all.
        default_index: what an empty ``index_url`` stands for, asked before anything changes; '' where that is not known or not needed.
        authorities: PEM texts of authorities that the node trusts before anything is fetched.
        wheelhouse: folder or URL with wheels, '' for none.
        compile: whether modules are compiled once for all users.
        spare: bytes that have to stay free on the disk.
        patience: seconds to wait for another run.
        offers: what :meth:`Environments.offers` found on another machine, and the ``url`` where that serves it.
    """

    path: str
    owner: str
    python: str = "/usr/bin/python3"
    python_to_come: str = ""
    installer_requirements: str = ""
    index_url: str = ""
    default_index: str = ""
    authorities: Sequence[str] = ()
    wheelhouse: str = ""
    compile: bool = True
    spare: int = 200_000_000
    patience: float = 1800
    offers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """One environment as it is to be."""

    name: str
    requirements: str = ""
    present: bool = True
    python_version: str = ""
    index_url: str = ""
    index_packages: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Return what tells one lock from another."""
        return hashlib.sha256(self.requirements.encode()).hexdigest()


@dataclass
class State:
    """How an environment is.

    Attributes:
        folder: where it is.
        marker: content of its marker, empty without one.
        since_ns: when all was known to be well, 0 if never.
        broken: why its interpreter has to be put in place anew, '' when it is sound.
        anew: why it has to be made from scratch, '' when that is not needed.
        found: what is installed.
        plan: how that differs from the lock.
        source: where it came from, the head or an index.
    """

    folder: Path
    marker: dict[str, Any] = field(default_factory=dict)
    since_ns: int = 0
    broken: str = ""
    anew: str = ""
    found: list[Found] = field(default_factory=list)
    plan: Plan = field(default_factory=Plan)
    source: str = INDEX

    @property
    def exists(self) -> bool:
        """Say whether it has been begun."""
        return bool(self.marker)

    @property
    def unfinished(self) -> bool:
        """Say whether work on it was interrupted."""
        return self.exists and not self.marker.get("complete")

    @property
    def lacking(self) -> bool:
        """Say whether packages have to come, rather than to be mended or to go."""
        return bool(not self.exists or self.unfinished or self.anew or self.plan.add or self.plan.change)

    def off(self, wanted: Wanted) -> bool:
        """Say whether it is not as wanted."""
        return bool(not self.exists or self.unfinished or self.broken or self.anew or self.plan or self.described_otherwise(wanted))

    def described_otherwise(self, wanted: Wanted) -> bool:
        """Say whether its marker tells other things about it."""
        return bool(self.marker.get("about", {}) != dict(wanted.about))

    def actions(self, wanted: Wanted) -> list[str]:
        """Return what has to be done, in words."""
        said = []
        if not self.exists:
            said.append("create it")
        elif self.anew:
            said.append(f"make it anew: {self.anew}")
        elif self.unfinished:
            said.append("finish what was interrupted")
        if self.exists and self.broken and not self.anew:
            said.append(f"put its interpreter in place: {self.broken}")
        said += self.plan.lines()
        if self.exists and self.described_otherwise(wanted):
            said.append("describe it anew")
        return said


@dataclass
class Result:
    """What was, or would be, done to an environment."""

    name: str
    path: str
    changed: bool
    actions: list[str]
    before: list[str]
    after: list[str]
    source: str = ""


class Environments:
    """The environments in a folder, and the work on them.

    Raises:
        PythonEnvError: from every method, where a person has to act.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.base = Path(settings.path)
        self.guard: int | None = None
        self.cleaned: set[str] = set()
        self.sound: dict[str, _Sound] = {}
        self.warnings: list[str] = []
        self._version = ""
        self._fetched: list[Path] = []
        self._silent: str | None = None

    # Looking

    def python_version(self) -> str:
        """Return the version of the interpreter that environments are made with, such as 3.11."""
        return _minor(self._python_release())

    def _python_release(self) -> str:
        if not self._version:
            try:
                done = self._run([self.settings.python, "-I", "-S", "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"])
            except OSError:
                done = None
            if self.settings.python_to_come and not os.path.lexists(self.settings.python):
                return self.settings.python_to_come
            if done is None or done.returncode:
                raise PythonEnvError(f"{self.settings.owner}_python: {self.settings.python} is no Python on this node.")
            self._version = done.stdout.strip()
        return self._version

    def site(self, folder: Path) -> str:
        """Return an environment's folder of packages."""
        return f"{folder}/lib/python{self.python_version()}/site-packages"

    def look(self, wanted: Wanted, *, closely: bool = True) -> State:
        """Return how an environment is; not ``closely`` means that packages are listed, and no file is looked at."""
        state = State(self.base / wanted.name)
        if wanted.present and self.python_version() != (wanted.python_version or self.python_version()):
            raise PythonEnvError(
                f"{self.settings.owner}_python: {self.settings.python} is Python {self.python_version()}, "
                f"but {wanted.name} is locked for {wanted.python_version}."
            )
        state.marker = read_marker(state.folder)
        if not state.marker and _has_content(state.folder):
            if not wanted.present:
                return state
            raise PythonEnvError(
                f"{state.folder} is there already and was not made by {self.settings.owner}. "
                f"Move it away, or choose another name for this environment, or another {self.settings.owner}_path."
            )
        if state.marker.get("owner") not in (None, self.settings.owner) and wanted.present:
            raise PythonEnvError(
                f"{state.folder} belongs to {state.marker.get('owner')}. Choose another name, or another {self.settings.owner}_path."
            )
        if not wanted.present:
            return state if state.marker.get("owner") in (None, self.settings.owner) else State(state.folder)
        pins = parse_lock(wanted.requirements)
        if state.marker:
            state.source = state.marker.get("from", INDEX)
            if state.unfinished and state.marker.get("boot") != boot():
                state.anew = "the machine went down while it was being made"
            state.broken, other = self._interpreter(state.folder) if closely else ("", "")
            state.anew = state.anew or other
            if state.marker.get("complete"):
                state.since_ns = (state.folder / MARKER).stat().st_mtime_ns
        if state.anew or not state.marker:
            state.plan = compare(pins, [], [])
        elif closely:
            state.found, strays = scan(self.site(state.folder), state.since_ns, self.sound)
            state.plan = compare(pins, state.found, strays)
        else:
            state.plan = compare(pins, installed(self.site(state.folder)), [])
        return state

    def _interpreter(self, folder: Path) -> tuple[str, str]:
        """Return why the interpreter is broken, and why all has to be made anew; both '' when all is well."""
        config = _configuration(folder)
        version = _minor(config.get("version_info", config.get("version", "")))
        if version and version != self.python_version():
            return "", f"it has Python {version}, wanted is {self.python_version()}"
        if not version:
            return "pyvenv.cfg is missing or damaged", ""
        if config.get("include-system-site-packages") != "false":
            return "it reads the system's packages too", ""
        if not (folder / "bin" / "activate").is_file():
            return "bin/activate is missing", ""
        stands_on = os.path.realpath(folder / "bin" / "python")
        if stands_on == os.path.realpath(self.settings.python):
            return "", ""  # with such a pyvenv.cfg beside it, a link to what has just told its version need not be started to be believed
        if not self._is_itself(folder):
            return "bin/python does not run", ""
        return ("", "") if stands_on.startswith(f"{folder}/") else (f"it stands on {stands_on}, wanted is {self.settings.python}", "")

    def _is_itself(self, folder: Path) -> bool:
        """Say whether the environment's Python runs and takes the environment for its home, not the system's."""
        try:
            done = self._run([str(folder / "bin" / "python"), "-I", "-c", "import sys; print(sys.prefix)"])
        except OSError:
            return False
        return done.returncode == 0 and done.stdout.strip() == str(folder)

    def marked(self) -> list[tuple[Path, dict[str, Any]]]:
        """Return all environments of the folder that carry a marker, whoever made them."""
        try:
            folders = sorted(Path(entry.path) for entry in os.scandir(self.base) if entry.is_dir(follow_symlinks=False))
        except OSError:
            return []
        found = [(folder, read_marker(folder)) for folder in folders if not folder.name.startswith(".")]
        return [(folder, marker) for folder, marker in found if marker]

    # Judging

    def check_room(self, states: Sequence[tuple[Wanted, State]]) -> int:
        """Return the bytes that the installation will take.

        Raises:
            PythonEnvError: the disk does not have them.
        """
        have: set[tuple[str, str]] = set()
        if (self.base / CACHE).is_dir():  # what another environment has is in the cache and takes no more room
            for folder, _marker in self.marked():
                have |= {(package.name, package.version) for package in installed(self.site(folder))}
        need: dict[tuple[str, str], int] = {}
        for wanted, state in states:
            pins = parse_lock(wanted.requirements)
            for name in (*state.plan.add, *state.plan.change, *state.plan.repair):
                key = (name, pins[name].version)
                if key not in have or name in state.plan.repair:
                    need[key] = pins[name].size
        if not need:
            return 0
        size = sum(need.values()) * BYTECODE_FACTOR
        room = _free(self.base)
        if room < size + self.settings.spare:
            raise PythonEnvError(
                f"The disk of {self.base} has {readable(room)} free, but {', '.join(wanted.name for wanted, _state in states)} "
                f"will take {readable(size)}, and {readable(self.settings.spare)} should stay free. "
                f"Make room, or put the environments on a bigger disk by {self.settings.owner}_path."
            )
        return int(size)

    def offers(self, asked: Iterable[tuple[str, str]]) -> dict[str, dict[str, Any]]:
        """Return what another machine may take over, of those environments that it asked for by name and digest of their locks.

        Each has its ``lock``, the ``platform`` that it is for, and the ``digest`` of its files as they are now. One that is not as its lock
        says is not among them, and is spoken of in :attr:`warnings`.
        """
        found: dict[str, dict[str, Any]] = {}
        known: Known = {}
        for name, lock in asked:
            if not is_word(name):  # other nodes ask; a name that leads out of the folder is none
                continue
            folder = self.base / name
            marker = read_marker(folder)
            if not marker.get("complete") or (marker.get("owner"), marker.get("lock")) != (self.settings.owner, lock):
                continue
            version = _configuration(folder).get("version_info", "")
            site = f"{folder}/lib/python{_minor(version)}/site-packages"
            pins = parse_lock((folder / LOCK_COPY).read_text().replace("===", "=="))
            plan = compare(pins, *scan(site, (folder / MARKER).stat().st_mtime_ns, self.sound))
            if plan:
                self.warnings.append(f"{folder} is not offered to others, since it is not as its lock says: {'; '.join(plan.lines())}.")
                continue
            here = platform(version, f"{folder}/bin/python", str(folder))
            found[name] = {"lock": lock, "platform": here, "digest": tree_digest(str(folder), OF_THE_MACHINE, known)}
        return found

    def lacking(self, wishes: Sequence[Wanted]) -> list[tuple[str, str]]:
        """Return name and digest of the lock of each environment that has packages to come, without looking at single files."""
        states = [(wanted, self.look(wanted, closely=False)) for wanted in wishes if wanted.present]
        return [(wanted.name, wanted.digest) for wanted, state in states if state.lacking]

    def check(self, wishes: Sequence[Wanted]) -> int:
        """Look, without looking at single files, whether all can be made, and return the bytes that it will take."""
        states = [(wanted, self.look(wanted, closely=False)) for wanted in wishes if wanted.present]
        to_do = [(wanted, state) for wanted, state in states if state.plan]
        size = self.check_room(to_do)
        asked = self.settings.index_url or self.settings.default_index
        if to_do and asked not in ("", NO_INDEX):
            problem = index_problem(asked, authorities=self.settings.authorities)
            if problem:
                whose = f"{self.settings.owner}_index_url: {'' if self.settings.index_url else 'the usual index '}"
                raise PythonEnvError(refused_index(whose + without_credentials(asked), problem))
        index = self.settings.index_url or NO_INDEX
        wrong = wrong_checksums(self._to_judge(to_do), self.python_version(), self.settings.wheelhouse, index)
        if wrong:
            raise PythonEnvError(
                f"Wrong checksum: {'; '.join(wrong)}. Put the right files there, or choose another source by "
                f"{sources_by_name(self.settings.owner)}."
            )
        return size

    def _to_judge(self, to_do: Sequence[tuple[Wanted, State]]) -> list[Pin]:
        """Return what is to be fetched, less what the installer's usual index may have: that never replaces a file."""
        pins: dict[Pin, None] = {}
        for wanted, state in to_do:
            locked = parse_lock(wanted.requirements)
            for name in (*state.plan.add, *state.plan.change):
                if self.settings.index_url or name in wanted.index_packages:
                    pins[locked[name]] = None
        return list(pins)

    # Doing

    def apply(self, wishes: Sequence[Wanted], *, dry: bool) -> list[Result]:
        """Bring all environments to what is wanted, and return what was done; ``dry`` only says it."""
        first = [(wanted, self.look(wanted)) for wanted in wishes]
        to_do = [(wanted, state) for wanted, state in first if self._is_off(wanted, state)]
        if to_do:
            self.check_room([(wanted, state) for wanted, state in to_do if wanted.present])
        if not to_do or dry:
            return [self._result(wanted, state) for wanted, state in first]
        self._need_wheelhouse([state for wanted, state in to_do if wanted.present])
        results = {}
        with self._alone():
            self._distrust_cache()
            self._drop_fetched()
            self.sound.clear()
            states = [(wanted, self.look(wanted)) for wanted in wishes]  # another run may have been at work while this one waited
            compiling: tuple[Wanted, State, list[subprocess.Popen[str]]] | None = None
            try:
                for wanted, state in states:
                    results[wanted.name] = self._result(wanted, state)
                    if not self._is_off(wanted, state):
                        continue
                    if not wanted.present:
                        remove_environment(state.folder)
                        continue
                    self._install(wanted, state)
                    results[wanted.name].source = state.source
                    if compiling:
                        self._finish(*compiling)  # the one before, compiled while this one was fetched
                    compiling = (wanted, state, self._compile(state.folder))
            finally:
                if compiling:
                    self._finish(*compiling)
        return [results[wanted.name] for wanted in wishes]

    def remove_all(self, *, dry: bool) -> list[Result]:
        """Remove all environments of this owner, and what they were made with when no other's are left."""
        mine = [folder for folder, marker in self.marked() if marker.get("owner") == self.settings.owner]
        others = [folder for folder, marker in self.marked() if folder not in mine]
        tools = [self.base / name for name in (CACHE, INSTALLER, GUARD) if not others and (self.base / name).exists()]
        if (mine or tools) and not dry:
            with self._alone():
                self._drop_fetched()
                for folder in mine:
                    remove_environment(folder)
                for tool in tools:
                    if tool.is_dir():
                        shutil.rmtree(tool)
                    else:
                        tool.unlink()
                if not _has_content(self.base):
                    self.base.rmdir()
        results = [Result(folder.name, str(folder), True, ["remove it"], [folder.name], []) for folder in mine]
        if tools and not mine:
            results.append(Result("", str(self.base), True, ["remove the installer and its cache"], [tool.name for tool in tools], []))
        return results

    def _is_off(self, wanted: Wanted, state: State) -> bool:
        return state.off(wanted) if wanted.present else state.exists and state.marker.get("owner") in (None, self.settings.owner)

    def _result(self, wanted: Wanted, state: State) -> Result:
        changed = self._is_off(wanted, state)
        if not wanted.present:
            return Result(wanted.name, str(state.folder), changed, ["remove it"] if changed else [], [wanted.name] if changed else [], [])
        before = sorted(f"{package.name} {package.version}" for package in state.found)
        before = [*before, *(f"damaged: {line}" for line in state.plan.lines() if line.startswith("repair"))]
        after = sorted(f"{pin.name} {pin.version}" for pin in parse_lock(wanted.requirements).values())
        source = HEAD if self._offered(wanted, state) else state.source
        return Result(wanted.name, str(state.folder), changed, state.actions(wanted), before, after if changed else before, source)

    def _need_wheelhouse(self, states: Sequence[State]) -> None:
        house = self.settings.wheelhouse
        if states and house.startswith("/") and not os.path.isdir(house):
            raise PythonEnvError(f"{self.settings.owner}_wheelhouse: {house} is no folder on this node.")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder's lock: two runs do not work in one folder at a time, nor a run beside a killed run's uv."""
        host_files.make_folders(self.base)
        os.chmod(self.base, 0o755)
        try:
            with locks.held(self.base / GUARD, "python_env", self.settings.patience) as self.guard:
                yield
        except locks.HeldError as error:
            raise PythonEnvError(f"{self.base}: {error}") from None
        finally:
            self.guard = None

    def _distrust_cache(self) -> None:
        """Drop the cache when the machine went down while something was being written into it."""
        if any(not marker.get("complete") and marker.get("boot") != boot() for _folder, marker in self.marked()):
            shutil.rmtree(self.base / CACHE, ignore_errors=True)

    def _install(self, wanted: Wanted, state: State) -> None:
        """Put an environment's packages in place; its marker stays open."""
        folder, pins = state.folder, parse_lock(wanted.requirements)
        if state.lacking:
            state.source = INDEX
            offer = self._offered(wanted, state)
            if offer and self._take_over(wanted, state, offer):
                return
        self._write_marker(wanted, state, complete=False)
        if state.anew:
            empty(folder, keep=MARKER)
        if not (state.plan or state.broken or state.anew or state.unfinished):
            return
        uv = self._installer()
        write_atomically(folder / LOCK_COPY, "".join(pin.exact + "\n" for pin in pins.values()))
        if state.broken or state.anew or state.unfinished or not (folder / "pyvenv.cfg").is_file():
            self._make(uv, folder)
        self._clear(state)
        left = self._sync(uv, wanted, pins, folder, state.plan)
        if left.repair:  # the cache holds damaged files too: they are the same files, by hard links
            left = self._sync(uv, wanted, pins, folder, left)
        if left:
            empty(folder, keep=MARKER)
            write_atomically(folder / LOCK_COPY, "".join(pin.exact + "\n" for pin in pins.values()))
            self._make(uv, folder)
            left = self._sync(uv, wanted, pins, folder, compare(pins, [], []))
        if left:
            raise PythonEnvError(f"{wanted.name} is not as its lock says after its installation: {'; '.join(left.lines())[:600]}.")

    def _offered(self, wanted: Wanted, state: State) -> Mapping[str, Any]:
        """Return what the head offers in place of what has to come, empty where that does not fit."""
        offer: Mapping[str, Any] = self.settings.offers.get("environments", {}).get(wanted.name, {})
        if not offer or not state.lacking or offer.get("lock") != wanted.digest or not SERVED.match(str(self.settings.offers.get("url"))):
            return {}
        if offer.get("platform") != platform(self._python_release(), self.settings.python, str(state.folder)):
            return {}
        if self._silent is None:
            self._silent = silent(self.settings.offers["url"])
            if self._silent:
                self.warnings.append(f"Environments are made from the index, since the head cannot be asked: {self._silent}.")
        return {} if self._silent else offer

    def _take_over(self, wanted: Wanted, state: State, offer: Mapping[str, Any]) -> bool:
        """Have an environment as it is on the head, or say why that cannot be and leave all as it was."""
        beside = Path(tempfile.mkdtemp(prefix=FETCHED, dir=self.base))  # its own for each run: a killed run's rsync may still be writing
        try:
            problem = self._fetch(wanted, beside, offer)
            if problem:
                self.warnings.append(f"{wanted.name} does not come from the head, and is made from the index: {problem}.")
                return False
            state.source = HEAD
            self._write_marker(wanted, state, complete=False)
            empty(state.folder, keep=MARKER)
            for entry in os.scandir(beside):
                os.rename(entry.path, state.folder / entry.name)
            self._fetched.append(state.folder)
            return True
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _fetch(self, wanted: Wanted, beside: Path, offer: Mapping[str, Any]) -> str:
        """Bring an environment from the head; return why that came to nothing, '' where all of it is here as it is there.

        What an environment here has from there already is linked instead of being fetched.
        """
        others = [*self._fetched, *(other for other, marker in self.marked() if marker.get("complete"))]
        words = ["rsync", *FETCH, *(f"--exclude=/{name}" for name in OF_THE_MACHINE)]
        words += [f"--link-dest={other}" for other in dict.fromkeys(others[:LINKED_TO])]
        try:
            done = self._run([*words, f"{self.settings.offers['url']}/{wanted.name}/", f"{beside}/"], guarded=False)
        except OSError as error:
            return f"rsync cannot be started ({error.strerror})"
        if done.returncode:
            return _last_words(done.stdout)
        if tree_digest(str(beside), OF_THE_MACHINE) != offer["digest"]:
            return "what came has another digest than what is there"
        return "; ".join(compare(parse_lock(wanted.requirements), *scan(self.site(beside), time.time_ns())).lines())

    def _drop_fetched(self) -> None:
        """Remove what killed runs have fetched."""
        for left in self.base.glob(f"{FETCHED}*"):
            shutil.rmtree(left, ignore_errors=True)

    def _make(self, uv: str, folder: Path) -> None:
        """Put an environment's interpreter in place; packages that are there stay."""
        self._must([uv, "venv", "--quiet", "--allow-existing", "--prompt", folder.name, "--python", self.settings.python, str(folder)])

    def _clear(self, state: State) -> None:
        """Take away what uv cannot: packages without a list of files, files that belong to no package."""
        for name in (*state.plan.leftovers, *state.plan.strays):
            path = Path(self.site(state.folder), name)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _forget(self, uv: str, packages: Iterable[str]) -> None:
        """Drop packages from the cache, each once in a call."""
        names = [name for name in packages if name not in self.cleaned]
        if names:
            self._must([uv, "cache", "clean", "--quiet", *names])
            self.cleaned.update(names)

    def _sync(self, uv: str, wanted: Wanted, pins: Mapping[str, Pin], folder: Path, plan: Plan) -> Plan:
        """Have uv install what is missing and remove what is too much; return what is still off."""
        if not self._is_itself(folder):  # else uv would take the system's Python for the environment and change that
            raise PythonEnvError(f"{folder}/bin/python does not run, or is not the environment's own. Remove {folder} and run again.")
        self._forget(uv, plan.repair)
        again = [word for name in plan.repair for word in ("--reinstall-package", name)]
        target = ["--quiet", "--require-hashes", "--only-binary", ":all:", "--python", str(folder / "bin" / "python")]
        offline = ["--no-index"] if self.settings.index_url == NO_INDEX else []
        words = [uv, "pip", "sync", *target, *again, *offline, str(folder / LOCK_COPY)]
        done = self._run(words, self._sources(self.settings.index_url))
        special = [name for name in wanted.index_packages if name in plan.add or name in plan.change or name in plan.repair]
        if done.returncode and special and wanted.index_url and "No solution found" in done.stdout and self.settings.index_url != NO_INDEX:
            # Only now, since a wheelhouse or an own index may have them while the special index is out of reach.
            part = folder / (LOCK_COPY + ".part")
            write_atomically(part, "".join(pins[name].exact + "\n" for name in special))
            step = [uv, "pip", "install", "--no-deps", *target, *again, "-r", str(part)]
            done = self._run(step, self._sources(wanted.index_url))
            part.unlink()
            if done.returncode:
                raise PythonEnvError(explain(done.stdout, self.settings.owner, wanted.index_url, self.settings.wheelhouse))
            done = self._run(words, self._sources(self.settings.index_url))
        if done.returncode:
            raise PythonEnvError(explain(done.stdout, self.settings.owner, self.settings.index_url, self.settings.wheelhouse))
        if (folder / UV_LOCK).exists():
            os.chmod(folder / UV_LOCK, 0o600)  # uv's own; it makes it writable for all, and whoever can open it can make uv wait for ever
        return compare(pins, *scan(self.site(folder), 0 if plan.repair else time.time_ns()))

    def _sources(self, index_url: str) -> dict[str, str]:
        return places(index_url, self.settings.wheelhouse)

    def _compile(self, folder: Path) -> list[subprocess.Popen[str]]:
        """Start compiling an environment's modules, since its users may not write beside them; tests are left out.

        Compiled modules of files that another environment has too (by hard links) are linked from there.
        """
        if not self.settings.compile:
            return []
        others = [other for other, marker in self.marked() if other != folder and marker.get("complete")]
        done_elsewhere = compiled(self.site(other) for other in others)
        left = []
        for source, inode in sources(self.site(folder)):
            target = cached(source, self.python_version())
            known = done_elsewhere.get(inode)
            if known and not os.path.exists(target):
                host_files.make_folders(os.path.dirname(target))
                try:
                    os.link(known, target)
                except OSError:
                    known = None
            if not known:
                left.append(source)
        workers = min(len(os.sched_getaffinity(0)), 1 + len(left) // 50)
        started = []
        for part in range(workers if left else 0):
            with tempfile.TemporaryFile("w+") as names:
                names.writelines(source + "\n" for source in left[part::workers])
                names.seek(0)
                started.append(
                    subprocess.Popen(
                        [str(folder / "bin" / "python"), "-I", "-m", "compileall", "-qq", "-i", "-"],
                        stdin=names, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                        text=True, umask=0o022, env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"}, cwd="/",
                    )
                )  # fmt: skip
        return started

    def _finish(self, wanted: Wanted, state: State, compiling: Sequence[subprocess.Popen[str]]) -> None:
        """Wait for what is being compiled, have all of it on the disk, and close the marker."""
        for process in compiling:
            process.wait()
        sync_disk(self.base)
        self._write_marker(wanted, state, complete=True)

    def _write_marker(self, wanted: Wanted, state: State, *, complete: bool) -> None:
        folder = state.folder
        host_files.make_folders(folder)
        os.chmod(folder, 0o755)  # uv, or a copy, may have made it
        content = {
            "owner": self.settings.owner,
            "lock": wanted.digest,
            "complete": complete,
            "boot": boot(),
            "from": state.source,
            "about": dict(wanted.about),
        }
        write_atomically(folder / MARKER, json.dumps(content, indent=1, sort_keys=True) + "\n")

    def _installer(self) -> str:
        """Return the path of uv, put in place where it is not, or is another version."""
        uv = self.base / INSTALLER / "bin" / "uv"
        pins = parse_lock(self.settings.installer_requirements)
        if "uv" not in pins:
            raise PythonEnvError("installer_requirements: it has to pin uv.")
        try:
            done = self._run([str(uv), "--version"])
            if done.returncode == 0 and done.stdout.split()[1:2] == [pins["uv"].version]:
                return str(uv)
        except OSError:
            pass
        folder = self.base / INSTALLER
        shutil.rmtree(folder, ignore_errors=True)
        done = self._run([self.settings.python, "-I", "-m", "venv", str(folder)])
        if done.returncode:
            raise PythonEnvError(
                f"{self.settings.python} cannot make environments; python3-venv is missing? It said: {_last_words(done.stdout)}"
            )
        write_atomically(folder / LOCK_COPY, "".join(pin.line + "\n" for pin in pins.values()))
        pip = [str(folder / "bin" / "python"), "-I", "-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-compile"]
        step = [*pip, "--require-hashes", "--only-binary", ":all:", "--requirement", str(folder / LOCK_COPY)]
        done = self._run(step, self._sources(self.settings.index_url))
        if done.returncode:
            raise PythonEnvError(explain(done.stdout, self.settings.owner, self.settings.index_url, self.settings.wheelhouse))
        return str(uv)

    def _must(self, words: Sequence[str]) -> None:
        done = self._run(words)
        if done.returncode:
            raise PythonEnvError(explain(done.stdout, self.settings.owner, self.settings.index_url, self.settings.wheelhouse))

    def _run(
        self, words: Sequence[str], environment: Mapping[str, str] | None = None, *, guarded: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command away from everything that a user or the system may have configured.

        One that is ``guarded`` keeps others out of the environments' folder until it ends, also when it outlives this process.
        """
        whole = {
            **surroundings(),
            "NO_COLOR": "1",
            "UV_CACHE_DIR": str(self.base / CACHE),
            "UV_LINK_MODE": "hardlink",
            "UV_NO_CONFIG": "1",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_HTTP_TIMEOUT": "60",
            "UV_HTTP_RETRIES": "3",
            **(environment or {}),
        }
        return subprocess.run(
            list(words), env=whole, cwd="/", umask=0o022, text=True, errors="replace", check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            pass_fds=[] if self.guard is None or not guarded else [self.guard],
        )  # fmt: skip


def installed(site: str) -> list[Found]:
    """Return the packages in a site-packages folder by the names of their folders alone."""
    try:
        named = [_DIST_INFO.match(entry.name) for entry in os.scandir(site)]
    except OSError:
        return []
    return [Found(normalise(match["name"]), match["version"], match.string) for match in named if match]


def sources(site: str) -> Iterator[tuple[str, int]]:
    """Yield each module under a folder, tests left out, with the number of its inode."""
    for folder, names, _files in os.walk(site):
        names[:] = [name for name in names if name != "__pycache__" and not _TESTS.match(name)]
        for entry in os.scandir(folder):
            if entry.name.endswith(".py") and entry.is_file(follow_symlinks=False):
                yield entry.path, entry.inode()


def cached(source: str, version: str) -> str:
    """Return where Python looks for a module's compiled form."""
    folder, name = os.path.split(source)
    return f"{folder}/__pycache__/{name[:-3]}.cpython-{version.replace('.', '')}.pyc"


def compiled(sites: Iterable[str]) -> dict[int, str]:
    """Return the compiled modules of environments by the inode of their source."""
    found = {}
    for site in sites:
        version = Path(site).parent.name.replace("python", "")
        for source, inode in sources(site):
            target = cached(source, version)
            if os.path.exists(target):
                found[inode] = target
    return found


def read_marker(folder: Path) -> dict[str, Any]:
    """Return an environment's marker, {} without one; a damaged one counts as left open by a machine that went down."""
    try:
        content = (folder / MARKER).read_text()
    except OSError:
        return {}
    try:
        found = json.loads(content)
        return found if isinstance(found, dict) and found else {"complete": False}
    except ValueError:
        return {"complete": False}


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content in one step that a power cut does not undo by half."""
    beside = path.with_name(path.name + ".new")
    with open(beside, "w", encoding="utf-8") as new:
        os.fchmod(new.fileno(), 0o644)
        new.write(text)
        new.flush()
        os.fsync(new.fileno())
    os.replace(beside, path)


def empty(folder: Path, keep: str) -> None:
    """Remove everything in a folder but one entry."""
    for entry in os.scandir(folder):
        if entry.name != keep:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


def remove_environment(folder: Path) -> None:
    """Remove an environment, its marker last, so that an interruption leaves something that is known as ours."""
    empty(folder, keep=MARKER)
    (folder / MARKER).unlink()
    folder.rmdir()


def sync_disk(folder: Path) -> None:
    """Have everything on a folder's file system written to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None).syncfs(handle):
            os.sync()
    except AttributeError:
        os.sync()
    finally:
        os.close(handle)


def boot() -> str:
    """Return what tells this start of the machine from others."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _configuration(folder: Path) -> dict[str, str]:
    """Return what an environment's pyvenv.cfg says, empty where there is none or it is damaged."""
    try:
        lines = (folder / "pyvenv.cfg").read_text().splitlines()
    except (OSError, ValueError):
        return {}
    return {key.strip(): value.strip() for key, _equals, value in (line.partition("=") for line in lines)}


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _has_content(folder: Path) -> bool:
    try:
        return any(True for _entry in os.scandir(folder))
    except FileNotFoundError:
        return False


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize
