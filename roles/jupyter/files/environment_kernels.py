"""Python environments as Jupyter kernels, found each time that somebody asks which kernels there are.

Jupyter Server's public extension point (``ServerApp.kernel_spec_manager_class``) lets a class of ours answer that. It offers what
it would offer anyway except for the kernel of JupyterLab's own environment, and in addition every venv and every conda prefix in
the usual places of the account that runs the server, and in the places that the configuration names. Finding them reads folders and
small files; no program of an environment is run.
"""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import os
import re
import stat
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion
from traitlets import Bool, List, Unicode

# Below the account's home; * is any folder that is not hidden. The first is also where conda's installers put their base.
PLACES = (
    "*",
    "*/.venv",
    "*/venv",
    "*/envs/*",
    ".venv",
    "envs/*",
    "venvs/*",
    ".virtualenvs/*",
    ".conda/envs/*",
    ".local/share/mamba/envs/*",
    ".local/share/virtualenvs/*",
    ".cache/pypoetry/virtualenvs/*",
    ".pyenv/versions/*",
)
UNSET = "***unset***"  # conda's word for a variable that is noted and not to be set
RECORDED = ".conda/environments.txt"  # where conda notes the prefixes that it makes
MEANINGLESS = {".venv", "venv", ".env", "env"}  # names of folders that say less than the folder they lie in

ENTRIES = 500  # of a folder that are looked at
MOST = 200  # environments that are offered
SMALL = 65536  # characters of a file that are read
FRESH = 1.0  # seconds for which an answer counts: one page asks several times
PATIENCE = 5.0  # seconds that a page waits for an answer; a dead network mount may hold one up for ever

PYTHON = re.compile(r"python(3\.\d+)")
MINORS = range(5, 40)  # of a Python 3 whose program does not say it; not 1, since conda has a link lib/python3.1
NATIVE = "python3"  # jupyter_client's name for the kernel of the Python that runs the server
LAUNCHER = Path(__file__).with_name("borrowed_ipykernel.py")


@dataclass(frozen=True)
class Lender:
    """The ipykernel beside the server, for environments that have none.

    Attributes:
        python: version of the Python that it is for, such as 3.11.
        packages: folder that it lies in, with all that it needs.
        requirements: what it needs.
    """

    python: str
    packages: str
    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def here(cls) -> Lender | None:
        """Return the one of the Python that runs this; None where it has none."""
        try:
            kernel = metadata.distribution("ipykernel")
        except metadata.PackageNotFoundError:
            return None
        needed = (Requirement(line) for line in kernel.requires or ())
        wanted = tuple(one for one in needed if not one.marker or one.marker.evaluate({"extra": ""}))
        return cls(f"{sys.version_info.major}.{sys.version_info.minor}", str(kernel.locate_file("")).rstrip("/"), wanted)

    def suits(self, python: str, packages: Iterable[str]) -> bool:
        """Return whether it works in an environment: same Python, and no package there that is too old or too new for it."""
        if python != self.python:
            return False
        there = installed(packages)
        return all(_fits(one, there.get(canonicalize_name(one.name))) for one in self.requirements)


def _fits(requirement: Requirement, version: str | None) -> bool:
    try:
        return version is None or requirement.specifier.contains(version, prereleases=True)
    except InvalidVersion:
        return False


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Return name and version of the packages in some folders; where one is in two, that of the first counts."""
    found: dict[str, str] = {}
    for folder in packages:
        try:
            infos = [path.stem for path in Path(folder).iterdir() if path.suffix == ".dist-info"]
        except OSError:
            continue
        for package, _dash, version in (info.partition("-") for info in infos):
            found.setdefault(canonicalize_name(package), version)
    return found


@dataclass(frozen=True)
class Environment:
    """An environment, as far as a kernel cares.

    Attributes:
        prefix: its folder, links resolved.
        kind: ``conda`` or ``venv``.
        python: version of its Python, such as 3.11.
        wishes: variables that are to be set in it, as ``conda env config vars set`` notes them.
        command: what starts a kernel in it; empty where there is no ipykernel for it.
        problem: why nothing can run in it; '' where something can.
    """

    prefix: str
    kind: str
    python: str = ""
    wishes: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] = ()
    problem: str = ""

    @property
    def name(self) -> str:
        """Return a name for the kernel that depends on the prefix alone, so that a notebook finds its kernel again."""
        readable = re.sub(r"[^a-z0-9]+", "-", self.label.lower()).strip("-")
        return "-".join(filter(None, [readable[:40], hashlib.sha256(os.fsencode(self.prefix)).hexdigest()[:8]]))

    @property
    def label(self) -> str:
        """Return the name that people know it by."""
        path = Path(self.prefix)
        return path.parent.name if path.name in MEANINGLESS and path.parent.name else path.name

    @property
    def variables(self) -> dict[str, str]:
        """Return the variables that activating it sets; ``${PATH}`` is the server's."""
        prefix = self.prefix.replace("$", "$$")
        path = {"PATH": f"{prefix}/bin:${{PATH}}"}
        if self.kind == "venv":
            return {**path, "VIRTUAL_ENV": prefix}
        name = "base" if os.access(f"{self.prefix}/condabin", os.F_OK) else Path(prefix).name
        return {**{key: value.replace("$", "$$") for key, value in self.wishes}, **path, "CONDA_PREFIX": prefix, "CONDA_DEFAULT_ENV": name}


def read_small(path: str) -> str:
    """Return the beginning of a file.

    Raises:
        OSError: it cannot be read, or is something else, such as a pipe, which would be waited for.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), encoding="utf-8", errors="replace") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path} is no file")
        return file.read(SMALL)


def venv_settings(prefix: str) -> dict[str, str] | None:
    """Return what a venv's ``pyvenv.cfg`` says; None where the folder is no venv."""
    try:
        lines = read_small(f"{prefix}/pyvenv.cfg").splitlines()
    except OSError:
        return None
    return {key.strip().lower(): value.strip() for key, _equals, value in (line.partition("=") for line in lines)}


def conda_wishes(prefix: str) -> tuple[tuple[str, str], ...]:
    """Return the variables that were noted for a conda prefix."""
    try:
        noted = json.loads(read_small(f"{prefix}/conda-meta/state"))["env_vars"]
        return tuple((str(key), str(value)) for key, value in noted.items() if value != UNSET)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ()


def python_version(prefix: str) -> str:
    """Return the version of an environment's Python that has a readable folder of packages there; '' where there is none."""
    # What the link leads to is what runs: after an upgrade of the system's Python that is another than the packages are for.
    named = PYTHON.fullmatch(Path(os.path.realpath(f"{prefix}/bin/python")).name)
    possible = [named[1]] if named else [f"3.{minor}" for minor in MINORS]
    versions = [version for version in possible if os.access(f"{prefix}/lib/python{version}/site-packages", os.R_OK | os.X_OK)]
    return versions[0] if len(versions) == 1 else ""


def inspect(prefix: str, lender: Lender | None) -> Environment | None:
    """Return the environment whose folder ``prefix`` is; None where it is none with a Python."""
    settings = venv_settings(prefix)
    python = f"{prefix}/bin/python"
    kind = "conda" if os.access(f"{prefix}/conda-meta/history", os.R_OK) else "venv"
    if not os.path.lexists(python) if kind == "conda" else settings is None:
        return None
    if not os.access(python, os.X_OK):
        return Environment(prefix, kind, problem=f"{python} leads nowhere, or may not be run")
    version = python_version(prefix)
    if not version:
        return Environment(prefix, kind, problem=f"{python} has no folder of packages for its version, or none that may be read")
    packages = [f"{prefix}/lib/python{version}/site-packages"]
    if settings and settings.get("include-system-site-packages", "").lower() == "true":
        base = Path(settings.get("home", "/usr/bin")).parent
        packages += [f"{base}/lib/python{version}/site-packages", f"/usr/local/lib/python{version}/dist-packages"]
        packages += ["/usr/lib/python3/dist-packages"] if base == Path("/usr") else []
    command: tuple[str, ...] = ()
    if any(os.access(f"{folder}/ipykernel_launcher.py", os.R_OK) for folder in packages):
        command = (python, "-m", "ipykernel_launcher", "-f", "{connection_file}")
    elif lender and lender.suits(version, packages):
        command = (python, str(LAUNCHER), lender.packages, "-f", "{connection_file}")
    return Environment(prefix, kind, version, conda_wishes(prefix) if kind == "conda" else (), command)


def folders_in(folder: str, pattern: str) -> list[str]:
    """Return the folders in a folder whose names match and are not hidden; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            some = itertools.islice((entry for entry in entries if not entry.name.startswith(".")), ENTRIES)
            return sorted(entry.path for entry in some if fnmatch.fnmatchcase(entry.name, pattern) and entry.is_dir())
    except OSError:
        return []


def expand(place: str) -> Iterator[str]:
    """Yield the folders that an absolute path stands for, in which parts may hold a ``*``; some may not exist."""
    fixed, star, rest = place.partition("*")
    if not star:
        yield place
        return
    folder, _slash, beginning = fixed.rpartition("/")
    ending, slash, rest = rest.partition("/")
    for found in folders_in(folder or "/", f"{beginning}*{ending}"):
        yield from expand(found + slash + rest)


def recorded(home: str) -> list[str]:
    """Return the prefixes that conda noted for an account."""
    try:
        lines = read_small(f"{home}/{RECORDED}").splitlines()
    except OSError:
        return []
    return [line.strip() for line in lines[:ENTRIES] if line.startswith("/")]


def search(home: str, places: Iterable[str], hidden: Collection[str], lender: Lender | None) -> Iterator[Environment]:
    """Yield each environment in the usual places of a home, then those in further places, but not the hidden ones."""
    seen = {os.path.realpath(prefix) for prefix in hidden}
    usual = (f"{home}/{place}" for place in PLACES)
    for path in itertools.chain(recorded(home), *map(expand, itertools.chain(usual, places))):
        prefix = os.path.realpath(path)
        if prefix in seen:
            continue
        seen.add(prefix)
        environment = inspect(prefix, lender)
        if environment:
            yield environment


class Finder:
    """Asks for the environments again when the last answer is no longer fresh, and does not wait longer than it has patience.

    The search has a thread of its own: a dead network mount holds that up, and nobody else.
    """

    def __init__(
        self, look: Callable[[], Iterable[Environment]], warn: Callable[[str], None], fresh: float = FRESH, patience: float = PATIENCE
    ) -> None:
        """Find what ``look`` yields; ``warn`` is told when that takes too long."""
        self._look, self._warn, self._fresh, self._patience = look, warn, fresh, patience
        self._known: tuple[Environment, ...] = ()
        self._until = 0.0
        self._complete = False
        self._thread = threading.Thread()

    def environments(self) -> tuple[Environment, ...]:
        """Return the environments."""
        if not self._thread.is_alive() and time.monotonic() >= self._until:
            self._thread = threading.Thread(target=self._run, name="environments", daemon=True)
            self._thread.start()
            self._thread.join(self._patience)
            if self._thread.is_alive():
                self._warn(
                    f"Looking for environments takes longer than {self._patience:g} s: is one of the folders on a network mount that does "
                    "not answer? Until it does, the kernels offered are those that were found before."
                )
        return self._known

    def _run(self) -> None:
        found: list[Environment] = []
        try:
            for environment in itertools.islice(self._look(), MOST):
                found.append(environment)
                if not self._complete:
                    self._known = tuple(found)
            self._known, self._complete = tuple(found), True
        finally:
            self._until = time.monotonic() + self._fresh


def titles(environments: Iterable[Environment], taken: Iterable[str], home: str) -> dict[str, str]:
    """Return prefix -> what people read: the environment's name, with its path where another kernel is called so."""
    environments = list(environments)
    counts = Counter([title.casefold() for title in taken] + [one.label.casefold() for one in environments])
    named = {}
    for one in environments:
        path = f"~{one.prefix.removeprefix(home)}" if one.prefix.startswith(f"{home}/") else one.prefix
        title = one.label if counts[one.label.casefold()] == 1 else f"{one.label} ({path})"
        named[one.prefix] = title if one.command else f"{title} (needs: pip install ipykernel)"
    return named


class EnvironmentKernels(KernelSpecManager):
    """What the server offers as kernels: those with a ``kernel.json``, and the environments that no such kernel is for.

    JupyterLab's own environment has no numpy, so its kernel is offered only where there is no other. Notebooks that name it (most
    notebooks of other people do: it is called python3) get the default kernel.
    """

    default = Unicode("", config=True, help="Name of the kernel that stands in for JupyterLab's own; '' for the first.")
    search = Bool(True, config=True, help="Whether environments that have no kernel.json are found and offered.")

    places: List[str] = List(Unicode(), config=True, help="Further folders that may be environments, absolute; * for any folder.")
    hidden: List[str] = List(Unicode(), config=True, help="Folders of environments that are not to be offered.")

    @cached_property
    def _lender(self) -> Lender | None:
        return Lender.here()

    @cached_property
    def _home(self) -> str:
        return os.path.realpath(Path.home())

    @cached_property
    def _finder(self) -> Finder:
        hidden = [*self.hidden, sys.prefix]  # the server's own has a kernel anyway
        return Finder(lambda: search(self._home, self.places, hidden, self._lender), self.log.warning)

    @cached_property
    def _said(self) -> set[str]:
        return set()

    def _others(self) -> Mapping[str, KernelSpec]:
        """Return the kernels that have a ``kernel.json``."""
        found = {}
        for name in super().find_kernel_specs():
            try:
                found[name] = super().get_kernel_spec(name)
            except NoSuchKernel:
                continue  # it needs something else that is not installed, which the server has said
            except Exception:
                self.log.warning("Error loading kernelspec %r", name, exc_info=True)
        return found

    def _own(self) -> Mapping[str, tuple[Environment, KernelSpec]]:
        """Return the kernels of environments that are found."""
        environments = self._finder.environments() if self.search else ()
        for one in environments:
            if one.problem and one.problem not in self._said:
                self._said.add(one.problem)
                self.log.warning("%s is no kernel: %s", one.prefix, one.problem)
        others = self._others().values()
        # PREFIX/bin/python -> PREFIX; the program itself is a link that leads out of a venv.
        taken = {os.path.realpath(Path(spec.argv[0]).parent.parent) for spec in others if spec.argv and spec.argv[0].startswith("/")}
        usable = [one for one in environments if not one.problem and one.prefix not in taken]
        named = titles(usable, [spec.display_name for spec in others], self._home)
        return {one.name: (one, self._spec(one, named[one.prefix])) for one in usable}

    @property
    def _pictures(self) -> str:
        """Return the folder with the logos that the launcher shows."""
        return f"{self._lender.packages}/ipykernel/resources" if self._lender else str(LAUNCHER.parent)

    def _spec(self, environment: Environment, title: str) -> KernelSpec:
        return self.kernel_spec_class(
            argv=list(environment.command),
            display_name=title,
            language="python",
            env=environment.variables,
            metadata={"debugger": True, "environment": environment.prefix},
            resource_dir=self._pictures,
        )

    def find_kernel_specs(self) -> dict[str, str]:
        """Return the kernels' names and the folders of their logos."""
        own = (name for name in self._own() if not self.allowed_kernelspecs or name in self.allowed_kernelspecs)
        found = {**dict.fromkeys(own, self._pictures), **super().find_kernel_specs()}
        useful = {name: folder for name, folder in found.items() if name != NATIVE or not Path(folder).is_relative_to(sys.prefix)}
        return useful or found

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return what starts a kernel.

        Raises:
            NoSuchKernel: there is none of that name.
            RuntimeError: there is no ipykernel for it; says what to do.
        """
        if kernel_name == NATIVE:
            kernel_name = self._stand_in()
        try:
            return super().get_kernel_spec(kernel_name)
        except NoSuchKernel:
            own = self._own()
            if kernel_name not in own:
                raise
        environment, spec = own[kernel_name]
        if not environment.command:
            raise RuntimeError(
                f"{environment.prefix} has no ipykernel, and JupyterLab's own does not fit its Python {environment.python} or its "
                f"packages. Run this, and try again: {environment.prefix}/bin/python -m pip install ipykernel"
            )
        return spec

    def get_all_specs(self) -> dict[str, Any]:
        """Return all kernels: those that cannot start are listed too, with a title that says what they lack."""
        specs = {**{name: spec for name, (_environment, spec) in self._own().items()}, **self._others()}
        folders = self.find_kernel_specs()
        offered = sorted((name for name in specs if name in folders), key=lambda name: (specs[name].display_name.casefold(), name))
        return {name: {"resource_dir": folders[name], "spec": specs[name].to_dict()} for name in offered}

    def _stand_in(self) -> str:
        """Return the name of the kernel to start for a notebook that names JupyterLab's own."""
        offered = self.get_all_specs()
        if NATIVE in offered:
            return NATIVE
        return self.default if self.default in offered else next(iter(offered), NATIVE)

    def remove_kernel_spec(self, name: str) -> str:
        """Remove a ``kernel.json``; an environment is removed by whoever made it.

        Raises:
            ValueError: the name is that of an environment.
        """
        own = self._own()
        if name in own:
            raise ValueError(f"{name} is the kernel of an environment: remove {own[name][0].prefix}")
        return super().remove_kernel_spec(name)
