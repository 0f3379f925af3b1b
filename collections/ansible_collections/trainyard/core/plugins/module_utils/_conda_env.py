# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Conda environments that hold what an environment file or an explicit lock says: what is there, what is off, how it is put right.

The work is done by rattler in a Python of its own (_conda_worker.py); the prefixes are ordinary ones, which conda and mamba can go on with.
A new prefix is made beside its place and moved there when its conda packages are whole. A marker, written before the first change and after
the last one, says for what the prefix was made and what its files looked like then: as long as both hold nothing is worked out again.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _conda_channels, _conda_worker
from ansible_collections.trainyard.core.plugins.module_utils._file_manifest import manifest
from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._host import locks
from ansible_collections.trainyard.core.plugins.module_utils._package_lock import Pin, normalise
from ansible_collections.trainyard.core.plugins.module_utils._package_sources import without_credentials
from ansible_collections.trainyard.core.plugins.module_utils._python_env import (
    MARKER,
    Found,
    compare,
    installed,
    read_marker,
    readable,
    remove_environment,
    scan,
    sync_disk,
    write_atomically,
)

OWNER = "conda_env"
KEYS = ("name", "channels", "dependencies", "variables", "prefix")  # of an environment file, as conda documents them
UNPACKED = 5  # times the size of its download that a package takes in the cache and in a prefix together, roughly
SPARE = 200_000_000
BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
PASSED_ON = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE")

_NAME = re.compile(r"^[A-Za-z0-9._-]+$")
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)$", re.M)
_SUM = re.compile(r"^(?:sha256:)?([0-9a-f]{64})$|^([0-9a-f]{32})$")

# What conda's own hook would do, for shells that have none; `deactivate` as in a venv.
ACTIVATE = """\
# Written by Trainyard. Read by a shell, not run: source {prefix}/bin/activate
if [ -n "${{VIRTUAL_ENV:-}}${{_TRAINYARD_OLD_PATH:-}}" ] && command -v deactivate >/dev/null 2>&1; then
    deactivate
fi
deactivate() {{
    {leave}
    PATH=$_TRAINYARD_OLD_PATH
    PS1=$_TRAINYARD_OLD_PS1
    CONDA_PREFIX=$_TRAINYARD_OLD_PREFIX
    CONDA_DEFAULT_ENV=$_TRAINYARD_OLD_NAME
    [ -n "$CONDA_PREFIX" ] || unset CONDA_PREFIX CONDA_DEFAULT_ENV
    unset _TRAINYARD_OLD_PATH _TRAINYARD_OLD_PS1 _TRAINYARD_OLD_PREFIX _TRAINYARD_OLD_NAME
    unset -f deactivate
}}
_TRAINYARD_OLD_PATH=$PATH
_TRAINYARD_OLD_PS1=${{PS1:-}}
_TRAINYARD_OLD_PREFIX=${{CONDA_PREFIX:-}}
_TRAINYARD_OLD_NAME=${{CONDA_DEFAULT_ENV:-}}
PATH={prefix}/bin:$PATH
PS1="({name}) $_TRAINYARD_OLD_PS1"
CONDA_PREFIX={prefix}
CONDA_DEFAULT_ENV={name}
export PATH CONDA_PREFIX CONDA_DEFAULT_ENV
{enter}
"""


class CondaEnvError(Exception):
    """Something that a person has to put right; the text says what."""


@dataclass(frozen=True)
class Channels:
    """Where a channel's name leads.

    Attributes:
        default: channels of an environment file that names none.
        alias: URL below which a channel lies that nothing else is said of.
        custom: name -> URL below which that channel lies.
        defaults: URLs that the name `defaults` stands for.
    """

    default: tuple[str, ...] = ("conda-forge",)
    alias: str = "https://conda.anaconda.org"
    custom: Mapping[str, str] = field(default_factory=dict)
    defaults: tuple[str, ...] = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")

    def urls(self, names: Sequence[str]) -> list[str]:
        """Return the URLs of channels, in order."""
        found: list[str] = []
        for name in names or self.default:
            if name == "defaults":
                if not self.defaults:
                    raise CondaEnvError(
                        "environment: channels has defaults, which stands under Anaconda's terms and is not offered here "
                        "(default_channels). The role anaconda offers it where anaconda_accept_terms is true; "
                        "conda-forge needs no such thing."
                    )
                found += self.defaults
            elif "://" in name:
                found.append(name.rstrip("/"))
            elif name.startswith("/"):
                found.append(f"file://{name.rstrip('/')}")
            elif name != "nodefaults":  # which only says that no others are wanted
                found.append(f"{self.custom.get(name, self.alias).rstrip('/')}/{name}")
        return found


@dataclass(frozen=True)
class Request:
    """What is to be in an environment.

    Attributes:
        specs: packages as conda writes them, such as `numpy >=2`.
        channels: URLs of the channels, the first one counts most.
        pip: packages as pip writes them, for what no channel has.
        variables: what activating it sets.
        explicit: URLs and sums of packages instead, for which nothing is worked out.
        exact: whether what is not wanted goes.
    """

    specs: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    explicit: tuple[Mapping[str, str], ...] = ()
    exact: bool = False

    @property
    def digest(self) -> str:
        """Return what tells requests apart."""
        said = [self.specs, self.channels, self.pip, dict(self.variables), [dict(entry) for entry in self.explicit], self.exact]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def from_environment(said: Mapping[str, Any], channels: Channels, *, exact: bool) -> Request:
    """Return what an environment file, as parsed from YAML, asks for.

    Raises:
        CondaEnvError: it is none, in words that name the key.
    """
    unknown = sorted(str(key) for key in said if key not in KEYS)
    if unknown:
        raise CondaEnvError(f"environment: {', '.join(unknown)} is nothing that an environment file has; there are {', '.join(KEYS)}.")
    named = said.get("channels") or []
    if not _texts(named):
        raise CondaEnvError("environment: channels has to be a list of names or URLs, such as [conda-forge].")
    specs: list[str] = []
    pip: list[str] = []
    for entry in _list(said.get("dependencies"), "dependencies"):
        if isinstance(entry, str):
            specs.append(entry.strip())
        elif isinstance(entry, Mapping) and list(entry) == ["pip"] and _texts(entry["pip"] or []):
            pip += [line.strip() for line in entry["pip"] or []]
        else:
            raise CondaEnvError(
                f"environment: dependencies holds {entry!r}; it may hold texts, such as numpy>=2, and one list of that kind named pip."
            )
    for line in pip:
        if not line or line.startswith(("-", ".", "/")):
            raise CondaEnvError(
                f"environment: dependencies: pip holds {line!r}; packages may stand there, such as requests==2.32.5, no options, no paths."
            )
    variables = said.get("variables") or {}
    if not isinstance(variables, Mapping) or not all(isinstance(value, (str, int, float)) for value in variables.values()):
        raise CondaEnvError("environment: variables has to be names with their values, such as {OMP_NUM_THREADS: 4}.")
    if not specs and not pip:
        raise CondaEnvError("environment: dependencies is empty. Name at least one package, such as python=3.12.")
    if pip and not any(re.match(r"python([^\w.-]|$)", spec.rpartition("::")[2]) for spec in specs):
        raise CondaEnvError("environment: dependencies has a pip section but no python. Add it, such as python=3.12.")
    return Request(
        specs=tuple(specs),
        channels=tuple(channels.urls(named)),
        pip=tuple(pip),
        variables={str(key): str(value) for key, value in variables.items()},
        exact=exact,
    )


def from_explicit(text: str, *, exact: bool) -> Request:
    """Return what an explicit lock asks for: a line @EXPLICIT, then URLs of packages with #sha256 or #md5 behind them.

    Raises:
        CondaEnvError: it is none, in words that name the line.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    if "@EXPLICIT" not in lines:
        raise CondaEnvError("explicit: there is no line @EXPLICIT in it. `conda list --explicit --sha256` writes such a file.")
    found = []
    for line in lines[lines.index("@EXPLICIT") + 1 :]:
        url, _hash, digest = line.partition("#")
        digits = _SUM.match(digest)
        try:
            _conda_worker.split(url)
        except ValueError:
            raise CondaEnvError(f"explicit: {without_credentials(url)} is no URL of a conda package.") from None
        if not digits:
            raise CondaEnvError(
                f"explicit: {without_credentials(url)} has no checksum behind it. `conda list --explicit --sha256` writes them."
            )
        found.append({"url": url, "sha256": digits[1] or "", "md5": digits[2] or ""})
    if not found:
        raise CondaEnvError("explicit: no package follows the line @EXPLICIT.")
    return Request(explicit=tuple(found), exact=exact)


@dataclass(frozen=True)
class Settings:
    """What holds for all environments of a call.

    Attributes:
        tools: environment with rattler and uv.
        cache: folder of downloaded packages, shared by all of them; on the same disk files are shared, too.
        index_url: where pip's packages come from; '' for uv's own default.
        wheelhouse: folder or URL with wheels, '' for none.
        adopt: whether an environment that somebody else made is taken over.
        owner: whose the environments are, such as a role's name; another owner's stay as they are.
        about: what the marker tells about an environment; one that it tells something about gets `bin/activate`.
        size: bytes that it takes, for as long as nothing is there that could work that out.
        places: names of the variables by which somebody chooses where channels lie.
        patience: seconds to wait for another run.
    """

    tools: str
    cache: str
    index_url: str = ""
    wheelhouse: str = ""
    adopt: bool = False
    owner: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    size: int = 0
    places: str = "channel_alias or custom_channels"
    patience: float = 1800


class Environment:
    """One conda environment on this machine."""

    def __init__(self, prefix: str, settings: Settings) -> None:
        """Look at what is at `prefix`."""
        self.prefix = Path(prefix)
        self.settings = settings
        self.marker = read_marker(self.prefix)

    def problem(self) -> str:
        """Return why nothing can be done at the prefix, '' where it can."""
        if self._is_ours():
            return ""
        if self.marker.get("owner") == OWNER:
            return f"{self.prefix} is kept by {self.marker.get('role') or 'nobody known'}. Choose another name."
        if self.marker:
            return (
                f"{self.prefix} is an environment of another kind, kept by {self.marker.get('owner', 'nobody known')}. "
                "Choose another name, or remove that one first (state: absent)."
            )
        if not self.prefix.is_dir():
            return f"{self.prefix} is there already and is no folder. Move it away." if os.path.lexists(self.prefix) else ""
        if not any(self.prefix.iterdir()):
            return ""
        if not (self.prefix / "conda-meta" / "history").is_file():
            return f"{self.prefix} is there already and is no conda environment. Move it away, or choose another name."
        if not self.settings.adopt:
            return f"{self.prefix} is a conda environment that somebody else made. Choose another name, or take it over by adopt: true."
        return ""

    def is_current(self, request: Request) -> bool:
        """Say whether it was made for this very request and no file has changed since."""
        made_for_it = self.marker.get("complete") and self._is_ours() and self.marker.get("lock") == request.digest
        return bool(made_for_it and self._is_described() and self.marker.get("seen") == self._seen())

    def _is_ours(self) -> bool:
        """Say whether it is one of these, and nobody else's."""
        return self.marker.get("owner") == OWNER and self.marker.get("role", "") in ("", self.settings.owner)

    def _is_described(self) -> bool:
        """Say whether its marker tells what it has to tell, and whether it is activated as it has to be."""
        told = (self.marker.get("role", ""), self.marker.get("about", {})) == (self.settings.owner, dict(self.settings.about))
        try:
            return told and (not self.settings.about or self._activate.read_text(encoding="utf-8") == self._activation())
        except (OSError, ValueError):
            return False

    @property
    def _activate(self) -> Path:
        return self.prefix / "bin" / "activate"

    def _activation(self) -> str:
        """Return what activates it: its programs first, then what it has set, then the scripts that its packages brought for that."""
        prefix, variables = shlex.quote(str(self.prefix)), sorted(self._variables().items())

        def scripts(kind: str) -> list[str]:
            return [f". {shlex.quote(path)}" for path in sorted(glob.glob(f"{glob.escape(str(self.prefix))}/etc/conda/{kind}.d/*.sh"))]

        enter = [f"export {name}={shlex.quote(value)}" for name, value in variables] + scripts("activate")
        leave = [*reversed(scripts("deactivate")), *(f"unset {name}" for name, _value in variables)]
        name = shlex.quote(self.prefix.name)
        return ACTIVATE.format(prefix=prefix, name=name, enter="\n".join(enter) or ":", leave="\n    ".join(leave) or ":")

    def check(self, request: Request) -> list[str]:
        """Return what would be done, without doing anything; where the tools are not there yet only what needs none of them."""
        if self.problem():
            raise CondaEnvError(self.problem())
        if self.is_current(request):
            return []
        if not os.access(f"{self.settings.tools}/bin/python", os.X_OK):
            self._judge(request)
            return ["finish it"] if self.marker else ["create it"]
        damaged = self.damaged()
        answer = self._work(request, damaged, dry=True)
        self._need_room(answer)
        pip = self._pip_plan(request, answer)
        return self._actions(request, damaged, answer, pip)

    def apply(self, request: Request) -> list[str]:
        """Bring it to what is wanted; return what was done.

        Raises:
            CondaEnvError: it could not be; what was begun is finished by the next run.
        """
        with self._alone():
            self.marker = read_marker(self.prefix)
            done = self.check(request)
            if not self.is_current(request):
                self._bring(request)
            return done

    def remove(self, *, dry: bool) -> list[str]:
        """Remove it if it is ours."""
        if not os.path.lexists(self.prefix):
            return []
        if not self.marker.get("owner"):
            raise CondaEnvError(f"{self.prefix} was not made here, so it stays. Remove it by hand if nobody needs it.")
        if not self._is_ours():  # another's, who is asked to remove it
            return []
        if not dry:
            with self._alone():
                remove_environment(self.prefix)
        return ["remove it"]

    def listed(self) -> str:
        """Return the packages that are there, a line each."""
        found = [os.path.basename(path)[:-5] for path in glob.glob(f"{glob.escape(str(self.prefix))}/conda-meta/*.json")]
        pip = [f"{package.name}=={package.version}" for package in installed(self._site())] if self._site() else []
        return "".join(f"{line}\n" for line in sorted(found) + sorted(pip))

    def _bring(self, request: Request) -> None:
        new = not (self.prefix / "conda-meta" / "history").is_file()
        if new:
            answer = self._make(request)
        else:
            self._mark(request, complete=False)
            damaged = self.damaged()
            self._repair(damaged)
            answer = self._work(request, damaged, dry=False)
        self._bring_pip(request, answer)
        state = self.prefix / "conda-meta" / "state"  # where conda keeps what activating sets
        if self._variables_wanted(request) != self._variables():
            write_atomically(state, json.dumps({"version": 1, "env_vars": self._variables_wanted(request)}) + "\n")
        if self.settings.about:
            host_files.make_folders(self._activate.parent)
            write_atomically(self._activate, self._activation())
        sync_disk(self.prefix)
        self._mark(request, complete=True)

    def _make(self, request: Request) -> dict[str, Any]:
        """Make it beside its place and move it there; return what is in it."""
        beside = self.prefix.with_name(f".{self.prefix.name}.new")
        shutil.rmtree(beside, ignore_errors=True)
        answer = self._work(request, [], dry=False, beside=str(beside))
        if not beside.is_dir():
            raise CondaEnvError(f"{self.prefix}: nothing came of what was asked for.")
        history = beside / "conda-meta" / "history"  # by which conda knows its environments
        if not history.is_file():
            host_files.write(history, "", 0o644)
        self._mark(request, complete=False, folder=beside)
        sync_disk(beside)
        if self.prefix.is_dir():
            for name in (MARKER, f"{MARKER}.new"):
                (self.prefix / name).unlink(missing_ok=True)
            self.prefix.rmdir()
        beside.rename(self.prefix)
        return answer

    def _repair(self, damaged: Sequence[str]) -> None:
        """Take away what is left of damaged packages, also in the cache, which shares their files, so that they are put in place anew."""
        for record in self._records():
            if record["name"] not in damaged:
                continue
            for entry in record.get("paths_data", {}).get("paths", []):
                with contextlib.suppress(OSError):
                    (self.prefix / entry["_path"]).unlink()
            cached = record.get("extracted_package_dir") or ""
            if cached.startswith(f"{self.settings.cache}/"):
                shutil.rmtree(cached, ignore_errors=True)

    def damaged(self) -> list[str]:
        """Return the packages that are not as they were put in place, by reading all their files."""
        return sorted(name for name, paths in self._files().items() if any(self._is_off(path) for path in paths))

    def _records(self) -> Iterator[dict[str, Any]]:
        """Yield what conda knows of each package, less what a power cut has spoilt: to rattler such a package is not there."""
        for path in sorted(glob.glob(f"{glob.escape(str(self.prefix))}/conda-meta/*.json")):
            with contextlib.suppress(OSError, ValueError):
                record = json.loads(Path(path).read_text(encoding="utf-8"))
                if isinstance(record, dict) and "name" in record:
                    yield record

    def _files(self) -> dict[str, list[dict[str, Any]]]:
        """Return the files of each package, as it was recorded."""
        return {record["name"]: record.get("paths_data", {}).get("paths", []) for record in self._records()}

    def _is_off(self, entry: Mapping[str, Any]) -> bool:
        path = self.prefix / entry["_path"]
        if entry["_path"].endswith(".pyc"):
            return False
        if path.is_symlink() or entry.get("path_type") in ("softlink", "directory"):
            return not os.path.lexists(path)
        expected = entry.get("sha256_in_prefix") or ("" if entry.get("prefix_placeholder") else entry.get("sha256", ""))
        try:
            if not expected:
                return not path.is_file()
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
            return digest.hexdigest() != expected
        except OSError:
            return True

    def _seen(self) -> str:
        return manifest(self.prefix, lambda path: path.endswith(".pyc") or path in (f"/{MARKER}", f"/{MARKER}.new"))

    def _mark(self, request: Request, *, complete: bool, folder: Path | None = None) -> None:
        place = folder or self.prefix
        content: dict[str, Any] = {"owner": OWNER, "role": self.settings.owner, "lock": request.digest, "complete": complete}
        content.update({"about": dict(self.settings.about)} if self.settings.about else {})
        content.update({"seen": self._seen()} if complete else {})
        write_atomically(place / MARKER, json.dumps(content, indent=1, sort_keys=True) + "\n")
        self.marker = content

    def _work(self, request: Request, damaged: Sequence[str], *, dry: bool, beside: str = "") -> dict[str, Any]:
        """Have rattler work out, and unless `dry` do, what is needed."""
        asked = {
            "prefix": str(self.prefix),
            "beside": beside,
            "channels": list(request.channels),
            "cache": self.settings.cache,
            "specs": list(request.specs),
            "explicit": [dict(entry) for entry in request.explicit],
            "keep": not request.exact,
            "reinstall": list(damaged),
            "dry": dry,
        }
        words = [f"{self.settings.tools}/bin/python", "-I", "-c", inspect.getsource(_conda_worker)]
        done = self._run(words, json.dumps(asked))
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise CondaEnvError(f"{self.settings.tools} did not work: {_last_words(done.stderr)}") from None
        if "error" in answer:
            raise CondaEnvError(self._explained(answer, request))
        return answer

    def _explained(self, answer: Mapping[str, str], request: Request) -> str:
        text = without_credentials(answer["text"])
        channels = ", ".join(without_credentials(url) for url in request.channels)
        if answer["error"] == "spec":
            return f"environment: dependencies cannot be read: {text}"
        if answer["error"] == "solve":
            return f"environment: nothing that {channels} have fits all of it (others may be named by {self.settings.places}):\n{text}"
        if answer["error"] == "channel":
            return (
                f"A channel did not answer, tried several times ({channels}). "
                f"A mirror may be named by {self.settings.places}. {_one_line(text)}"
            )
        if answer["error"] == "package":
            return f"A package could not be put in place; nothing of it is used. {_one_line(text)}"
        if answer["error"] == "disk":
            return f"The disk of {self.prefix} or of {self.settings.cache} is full. Make room there and run again. {_one_line(text)}"
        return f"{self.prefix}: {answer.get('type', '')}: {_one_line(text)}"

    def _judge(self, request: Request) -> None:
        """Refuse what can be seen not to work before anything is there that could work it out."""
        self._need_bytes(self.settings.size)
        problem = _conda_channels.lacking(request.channels, _conda_channels.names_of(request.specs)) if request.channels else ""
        if problem:
            raise CondaEnvError(f"{problem}. Other channels, or a mirror, may be named by {self.settings.places}.")

    def _need_room(self, answer: Mapping[str, Any]) -> None:
        self._need_bytes(UNPACKED * sum(entry["size"] for kind in ("added", "changed") for entry in answer[kind]))

    def _need_bytes(self, need: int) -> None:
        for folder in sorted({_existing(self.prefix), _existing(Path(self.settings.cache))}):
            state = os.statvfs(folder)
            room = state.f_bavail * state.f_frsize
            if need and room < need + SPARE:
                raise CondaEnvError(
                    f"The disk of {folder} has {readable(room)} free, but {self.prefix.name} will take about {readable(need)}. "
                    "Make room there."
                )

    def _site(self) -> str:
        return next(iter(sorted(glob.glob(f"{glob.escape(str(self.prefix))}/lib/python3*/site-packages"))), "")

    def _pip_found(self) -> list[Found]:
        """Return the packages that pip or its like put there, with what is wrong with them."""
        site = self._site()
        if not site:
            return []
        inside = os.path.relpath(site, self.prefix)
        of_conda = {path["_path"] for paths in self._files().values() for path in paths}
        found, _strays = scan(site, 0)
        return [package for package in found if not any(path.startswith(f"{inside}/{package.folder}/") for path in of_conda)]

    def _pip_pins(self, request: Request, answer: Mapping[str, Any], found: Sequence[Found]) -> dict[str, Pin]:
        """Work out what the packages of pip's section need, beside what conda brings."""
        if not request.pip:
            return {}
        records = {normalise(entry["name"]): entry["version"] for entry in answer["records"] if entry["python"]}
        version = ".".join(records.get("python", "").split(".")[:2])
        with (
            _lines([*request.pip]) as wanted,
            _lines([f"{name}=={number}" for name, number in records.items() if name != "python"]) as given,
            _lines([f"{package.name}=={package.version}" for package in found]) as before,  # what is there is preferred
        ):
            words = ["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--constraint", given, "--output-file", before]
            done = self._uv([*words, "--python", f"{self.settings.tools}/bin/python", "--python-version", version, wanted])
            if done.returncode:
                raise CondaEnvError(f"environment: dependencies: pip cannot be had: {_last_words(done.stderr, 12)}")
            pins = _PINNED.findall(Path(before).read_text(encoding="utf-8"))
        return {normalise(name): Pin(normalise(name), number, "", 0) for name, number in pins if normalise(name) not in records}

    def _pip_plan(self, request: Request, answer: Mapping[str, Any]) -> Any:
        """Return how what pip put there differs from what is wanted."""
        found = self._pip_found()
        plan = compare(self._pip_pins(request, answer, found), found, [])
        if not request.exact:
            plan.remove.clear()
        return plan

    def _bring_pip(self, request: Request, answer: Mapping[str, Any]) -> None:
        plan = self._pip_plan(request, answer)
        for folder in plan.leftovers:
            shutil.rmtree(Path(self._site(), folder), ignore_errors=True)
        python = ["--quiet", "--python", f"{self.prefix}/bin/python", "--break-system-packages"]
        if plan.remove:
            self._must(["pip", "uninstall", *python, *plan.remove])
        new = {**plan.add, **{name: after for name, (_before, after) in plan.change.items()}}
        again = {package.name: package.version for package in self._pip_found() if package.name in plan.repair}
        if new or again:
            words = [f"{name}=={version}" for name, version in {**again, **new}.items()]
            self._must(
                ["pip", "install", *python, "--no-deps", *[word for name in again for word in ("--reinstall-package", name)], *words]
            )

    def _must(self, words: Sequence[str]) -> None:
        done = self._uv(words)
        if done.returncode:
            raise CondaEnvError(f"environment: dependencies: pip cannot be brought: {_last_words(done.stderr, 12)}")

    def _uv(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return self._run([f"{self.settings.tools}/bin/uv", *words])

    def _run(self, words: Sequence[str], said: str = "") -> subprocess.CompletedProcess[str]:
        """Run a tool away from what a user or the system may have configured."""
        whole = {
            "PATH": os.defpath,
            "HOME": os.environ.get("HOME", "/root"),
            "LC_ALL": "C.UTF-8",
            "NO_COLOR": "1",
            "UV_CACHE_DIR": f"{self.settings.cache}/.uv",
            "UV_NO_CONFIG": "1",
            "UV_PYTHON_DOWNLOADS": "never",
        }
        for name in PASSED_ON:
            for spelling in (name, name.lower()):
                if spelling in os.environ:
                    whole[spelling] = os.environ[spelling]
        bundle = next((path for path in BUNDLES if os.path.exists(path)), "")
        if bundle:
            whole.setdefault("SSL_CERT_FILE", bundle)
        if self.settings.wheelhouse:
            whole["UV_FIND_LINKS"] = self.settings.wheelhouse
        if self.settings.index_url:
            whole["UV_DEFAULT_INDEX"] = self.settings.index_url
        host_files.make_folders(self.settings.cache)
        return subprocess.run(
            words, input=said, env=whole, cwd="/", umask=0o022, capture_output=True, text=True, errors="replace", check=False
        )

    def _actions(self, request: Request, damaged: Sequence[str], answer: Mapping[str, Any], pip: Any) -> list[str]:
        """Return what is to be done, a line each."""
        if not self.marker:
            said = ["create it"] if not (self.prefix / "conda-meta").is_dir() else ["take it over"]
        elif not self.marker.get("complete"):
            said = ["finish what was interrupted"]
        else:
            said = []
        said += [f"add {entry['name']} {entry['version']}" for entry in answer["added"]]
        said += [f"remove {entry['name']} {entry['version']}" for entry in answer["removed"]]
        said += [
            f"repair {entry['name']}: its files were changed"
            if entry["name"] in damaged
            else f"change {entry['name']} {entry['before']} to {entry['version']}={entry['build']}"
            for entry in answer["changed"]
        ]
        said += [f"{line} (pip)" for line in pip.lines()]
        if self.marker.get("complete") and not said and self._variables_wanted(request) != self._variables():
            said.append("set its variables")
        if self.marker.get("complete") and not said and not self._is_described():
            said.append("describe it anew")
        return said

    def _variables_wanted(self, request: Request) -> dict[str, str]:
        """Return what activating it is to set; what somebody else had it set stays, unless it has to be exact."""
        return {**({} if request.exact else self._variables()), **request.variables}

    def _variables(self) -> dict[str, str]:
        try:
            found = json.loads((self.prefix / "conda-meta" / "state").read_text(encoding="utf-8"))
            return dict(found.get("env_vars", {}))
        except (OSError, ValueError, AttributeError):
            return {}

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one run at a time work on the packages and prefixes."""
        host_files.make_folders(self.settings.cache)
        host_files.make_folders(self.prefix.parent)
        deadline = time.monotonic() + self.settings.patience
        path = f"{self.settings.cache}/.lock"
        with os.fdopen(locks.open_lock(path), "r+") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise CondaEnvError(
                            f"Another run has been working for {int(self.settings.patience)} seconds. See who: fuser {path}"
                        ) from None
                    time.sleep(0.2)
            yield


def exported(prefix: str) -> dict[str, str]:
    """Return what is in a prefix as an environment file, an explicit lock, and requirements of pip.

    Raises:
        CondaEnvError: it is no conda environment.
    """
    environment = Environment(prefix, Settings(tools="", cache=""))
    if not (environment.prefix / "conda-meta" / "history").is_file():
        raise CondaEnvError(f"{prefix} is no conda environment: it has no conda-meta/history.")
    records = list(environment._records())
    pip = sorted((package.name, package.version) for package in environment._pip_found())
    channels = list(dict.fromkeys(without_credentials(str(record.get("channel", ""))).rstrip("/") for record in records))
    file = [f"name: {environment.prefix.name}", "channels:", *(f"  - {url}" for url in channels if url), "dependencies:"]
    file += [f"  - {record['name']}={record['version']}={record['build']}" for record in records]
    if pip:
        file += ["  - pip:", *(f"      - {name}=={version}" for name, version in pip)]
    explicit = [
        "@EXPLICIT",
        *(f"{without_credentials(record['url'])}#{record.get('sha256') or record.get('md5', '')}" for record in records),
    ]
    found, _strays = scan(environment._site(), 0) if environment._site() else ([], [])
    return {
        "environment": "\n".join(file) + "\n",
        "explicit": "\n".join(explicit) + "\n",
        "requirements": "".join(f"{package.name}=={package.version}\n" for package in sorted(found, key=lambda package: package.name)),
    }


@contextlib.contextmanager
def _lines(lines: Sequence[str]) -> Iterator[str]:
    """Have lines in a file, and return its path."""
    import tempfile  # noqa: PLC0415 - only where pip has a part

    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        yield file.name


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise CondaEnvError(f"environment: {key} has to be a list, such as [python=3.12, numpy].")
    return value


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def _one_line(text: str) -> str:
    return " ".join(text.split())[:800]


def _last_words(text: str, lines: int = 4) -> str:
    return " ".join(" ".join(text.strip().splitlines()[-lines:]).split())[-800:]
