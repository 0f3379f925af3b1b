"""Environments that become kernels, found among folders made here; no Jupyter is needed, and none of their programs is run."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trainyard.paths import REPOSITORY

SOURCE = REPOSITORY / "roles/jupyter/files/environment_kernels.py"


class Spec:
    """Stands in for jupyter_client's KernelSpec."""

    def __init__(self, **values: Any) -> None:
        self.argv: list[str] = values["argv"]
        self.display_name: str = values["display_name"]
        self.env: dict[str, str] = values.get("env", {})

    def to_dict(self) -> dict[str, Any]:
        """Return what the server tells."""
        return {"argv": self.argv, "display_name": self.display_name}


class NoSuchKernel(KeyError):  # noqa: N818  (the name is theirs)
    """Stands in for jupyter_client's."""


class Manager:
    """Stands in for jupyter_client's KernelSpecManager: the kernels of one folder."""

    kernel_spec_class = Spec
    allowed_kernelspecs: frozenset[str] = frozenset()
    places: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    default = ""
    search = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.log = types.SimpleNamespace(warning=lambda text, *words, **_named: self.said.append(text % words if words else text))

    def find_kernel_specs(self) -> dict[str, str]:
        """Return name -> folder."""
        return {path.parent.name: str(path.parent) for path in self.folder.glob("*/kernel.json")}

    def get_kernel_spec(self, kernel_name: str) -> Spec:
        """Return the kernel of that name."""
        try:
            return Spec(**json.loads((self.folder / kernel_name / "kernel.json").read_text()))
        except FileNotFoundError:
            raise NoSuchKernel(kernel_name) from None

    def remove_kernel_spec(self, name: str) -> str:
        """Say what would be removed."""
        return name


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The module, with stand-ins for what only nodes have."""
    client, spec, traitlets = (types.ModuleType(name) for name in ("jupyter_client", "jupyter_client.kernelspec", "traitlets"))
    vars(spec).update(KernelSpec=Spec, KernelSpecManager=Manager, NoSuchKernel=NoSuchKernel)
    vars(traitlets).update(
        List=lambda *_words, **_named: (), Unicode=lambda *words, **_named: words[0] if words else None, Bool=lambda value, **_named: value
    )
    for module in (client, spec, traitlets):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    loader = importlib.util.spec_from_file_location("environment_kernels", SOURCE)
    assert loader
    assert loader.loader
    module = importlib.util.module_from_spec(loader)
    monkeypatch.setitem(sys.modules, "environment_kernels", module)  # dataclasses look themselves up
    loader.loader.exec_module(module)
    return module


def interpreter(folder: Path, version: str) -> Path:
    """Make a program that says by its name which Python it is, and fails the test that runs it."""
    path = folder / f"python{version}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/false\n")
        path.chmod(0o755)
    return path


def venv(prefix: Path, version: str = "3.11", *packages: str, settings: str = "", system: Path | None = None) -> Path:
    """Make what ``python3 -m venv`` leaves, as far as somebody looks; packages are NAME-VERSION, or ipykernel."""
    site = prefix / f"lib/python{version}/site-packages"
    site.mkdir(parents=True)
    (prefix / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}.2\n{settings}")
    (prefix / "bin").mkdir()
    (prefix / "bin/python").symlink_to(interpreter(system or prefix.parent / ".system", version))
    fill(site, packages)
    return prefix


def conda(prefix: Path, version: str = "3.11", *packages: str) -> Path:
    """Make a stand-in for a conda prefix."""
    site = prefix / f"lib/python{version}/site-packages"
    site.mkdir(parents=True)
    (prefix / "lib/python3.1").symlink_to(f"python{version}")  # as conda does for Pythons from 3.10 on
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta/history").touch()
    (prefix / "bin/python").parent.mkdir()
    (prefix / "bin/python").symlink_to(interpreter(prefix / "bin", version).name)
    fill(site, packages)
    return prefix


def fill(site: Path, packages: tuple[str, ...]) -> None:
    """Put packages into a folder."""
    for package in packages:
        if package == "ipykernel":
            (site / "ipykernel_launcher.py").touch()
        else:
            (site / f"{package}.dist-info").mkdir()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def find(kernels: types.ModuleType, home: Path) -> Callable[..., dict[str, Any]]:
    """Search the home, and return the environments by their folders, below the home by what follows it."""
    lender = kernels.Lender("3.11", "/jupyter", (kernels.Requirement("traitlets>=5.4"), kernels.Requirement("Comm>=0.1.1")))

    def look(*places: str, hidden: tuple[str, ...] = (), lender: Any = lender) -> dict[str, Any]:
        return {one.prefix.removeprefix(f"{home}/"): one for one in kernels.search(str(home), places, hidden, lender)}

    return look


BORROWED = (str(SOURCE.with_name("borrowed_ipykernel.py")), "/jupyter", "-f", "{connection_file}")


@pytest.mark.parametrize(
    "place", ["mine", "envs/mine", "venvs/mine", ".virtualenvs/mine", "project/.venv", "project/venv", ".venv", "miniforge3/envs/mine"]
)
def test_a_venv_in_a_usual_place_is_a_kernel(home: Path, find: Callable[..., dict[str, Any]], place: str) -> None:
    prefix = venv(home / place, "3.9", "ipykernel")
    assert {name: one.command for name, one in find().items()} == {
        place: (f"{prefix}/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}")
    }
    assert find()[place].variables == {"PATH": f"{prefix}/bin:${{PATH}}", "VIRTUAL_ENV": str(prefix)}


@pytest.mark.parametrize("place", ["miniforge3", "miniconda3/envs/mine", "anaconda3/envs/mine", ".conda/envs/mine", "mambaforge"])
def test_a_conda_prefix_in_a_usual_place_is_a_kernel(home: Path, find: Callable[..., dict[str, Any]], place: str) -> None:
    prefix = conda(home / place, "3.12", "ipykernel")
    assert find()[place].command == (f"{prefix}/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}")
    assert find()[place].variables == {
        "PATH": f"{prefix}/bin:${{PATH}}",
        "CONDA_PREFIX": str(prefix),
        "CONDA_DEFAULT_ENV": prefix.name,
    }


def test_the_base_of_conda_is_called_so(home: Path, find: Callable[..., dict[str, Any]]) -> None:
    (conda(home / "miniforge3") / "condabin").mkdir()
    assert find()["miniforge3"].variables["CONDA_DEFAULT_ENV"] == "base"


def test_variables_that_were_noted_for_a_conda_prefix_are_set(home: Path, find: Callable[..., dict[str, Any]]) -> None:
    state = conda(home / "envs/mine") / "conda-meta/state"
    for text in ("", "[]", "{}", '{"env_vars": []}'):
        state.write_text(text)
        assert "CONDA_PREFIX" in find()["envs/mine"].variables
    state.write_text('{"env_vars": {"PRICE": "$5", "GONE": "***unset***", "CONDA_PREFIX": "/wrong"}}')
    variables = find()["envs/mine"].variables
    assert (variables["PRICE"], variables["CONDA_PREFIX"]) == ("$$5", f"{home}/envs/mine")
    assert "GONE" not in variables


def test_what_conda_noted_is_found_wherever_it_is(home: Path, tmp_path: Path, find: Callable[..., dict[str, Any]]) -> None:
    elsewhere = conda(tmp_path / "data/deep/down/here")
    (home / ".conda").mkdir()
    (home / ".conda/environments.txt").write_text(f"{elsewhere}\n\n{tmp_path}/gone\nnonsense\n")
    assert set(find()) == {str(elsewhere)}


def test_further_places_are_searched_and_hidden_ones_are_not(home: Path, tmp_path: Path, find: Callable[..., dict[str, Any]]) -> None:
    both = [venv(tmp_path / f"people/{name}/envs/torch") for name in ("alice", "bob")]
    assert find() == {}
    assert set(find(f"{tmp_path}/people/*/envs/*")) == {str(prefix) for prefix in both}
    assert set(find(f"{tmp_path}/people/a*/envs/*", f"{tmp_path}/none/*")) == {str(both[0])}
    assert set(find(f"{tmp_path}/people/*/envs/*", hidden=(str(both[0]),))) == {str(both[1])}


def test_an_environment_that_two_ways_lead_to_is_one(home: Path, find: Callable[..., dict[str, Any]]) -> None:
    venv(home / "envs/torch")
    (home / "link").symlink_to("envs/torch")
    assert set(find()) == {"envs/torch"}


def test_without_ipykernel_that_of_jupyterlab_is_lent_where_it_fits(home: Path, find: Callable[..., dict[str, Any]]) -> None:
    prefixes = [venv(home / "fits", "3.11", "traitlets-5.4", "numpy-2.0"), conda(home / "conda", "3.11")]
    venv(home / "python", "3.12")
    venv(home / "package", "3.11", "traitlets-5.3.1")
    venv(home / "odd", "3.11", "comm-mine")
    found = find()
    for prefix in prefixes:
        assert found[prefix.name].command == (f"{prefix}/bin/python", *BORROWED)
    assert [found[name].command for name in ("python", "package", "odd")] == [(), (), ()]
    assert all(one.problem == "" for one in found.values())
    assert {one.command for one in find(lender=None).values()} == {()}


def test_what_the_system_has_counts_for_an_environment_that_sees_it(
    home: Path, tmp_path: Path, find: Callable[..., dict[str, Any]]
) -> None:
    base = tmp_path / "base/lib/python3.9/site-packages"
    base.mkdir(parents=True)
    fill(base, ("ipykernel",))
    for name, sees in (("sees", "true"), ("does-not", "false")):
        settings = f"home = {tmp_path}/base/bin\ninclude-system-site-packages = {sees}\n"
        venv(home / name, "3.9", settings=settings)
    assert find()["sees"].command[1:3] == ("-m", "ipykernel_launcher")
    assert find()["does-not"].command == ()


def test_a_broken_environment_is_none(home: Path, find: Callable[..., dict[str, Any]]) -> None:
    system = home / ".system"
    dangling = venv(home / "dangling")
    (dangling / "bin/python").unlink()
    (dangling / "bin/python").symlink_to("/nowhere/python3.11")
    upgraded = venv(home / "upgraded")
    (upgraded / "bin/python").unlink()
    (upgraded / "bin/python").symlink_to(interpreter(system, "3.13"))
    second = venv(home / "second", "2.7")
    half = home / "half"
    half.mkdir()
    (half / "pyvenv.cfg").touch()
    assert {name: one.problem.removeprefix(f"{home}/{name}/bin/python ") for name, one in find().items()} == {
        "dangling": "leads nowhere, or may not be run",
        "half": "leads nowhere, or may not be run",
        "second": "has no folder of packages for its version, or none that may be read",
        "upgraded": "has no folder of packages for its version, or none that may be read",
    }
    assert second.exists()


def test_a_python_that_does_not_say_its_version_is_known_by_its_packages(home: Path, find: Callable[..., dict[str, Any]]) -> None:
    for prefix in (venv(home / "copied", "3.10"), conda(home / "conda", "3.10")):
        (prefix / "bin/python").unlink()
        interpreter(prefix / "bin", "").chmod(0o755)
    assert [one.python for one in find().values()] == ["3.10", "3.10"]


def test_what_is_no_environment_is_passed_over_and_nothing_is_waited_for(home: Path, find: Callable[..., dict[str, Any]]) -> None:
    (home / "notes").mkdir()
    (home / "work.ipynb").touch()
    (home / "r/conda-meta").mkdir(parents=True)
    (home / "r/conda-meta/history").touch()
    (home / "circle").symlink_to(".")
    (home / "trap").mkdir()
    os.mkfifo(home / "trap/pyvenv.cfg")
    (home / "endless").mkdir()
    (home / "endless/pyvenv.cfg").symlink_to("/dev/zero")
    (home / ".conda").mkdir()
    os.mkfifo(home / ".conda/environments.txt")
    assert find() == {}


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """Be nobody for a while, where the tests are run by root, who may read everything."""
    before = os.getresuid()
    if before[1] == 0:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(*before)


def test_what_may_not_be_read_is_passed_over(kernels: types.ModuleType) -> None:
    with tempfile.TemporaryDirectory() as home:
        closed = [venv(Path(home, "envs/closed")), venv(Path(home, "half")) / "lib/python3.11/site-packages", Path(home, "folder")]
        closed[-1].mkdir()
        Path(home).chmod(0o755)
        for path in closed:
            path.chmod(0)
        with without_rights():
            found = list(kernels.search(home, [], [], None))
        for path in closed:
            path.chmod(0o755)
    assert [(Path(one.prefix).name, one.problem.endswith("or none that may be read")) for one in found] == [("half", True)]


def test_of_a_huge_folder_a_part_is_looked_at(home: Path, kernels: types.ModuleType) -> None:
    for number in range(kernels.ENTRIES + 20):
        (home / f"folder{number}").mkdir()
    assert len(kernels.folders_in(str(home), "*")) == kernels.ENTRIES


class Here:
    """The manager at work in a home, beside kernels with a ``kernel.json``."""

    def __init__(self, kernels: types.ModuleType, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setattr(kernels, "FRESH", 0.0)
        self.folder = home / ".local/share/jupyter/kernels"
        self.manager = kernels.EnvironmentKernels(self.folder)
        self.manager.__dict__["_lender"] = kernels.Lender("3.11", "/jupyter")
        self.manager.__dict__["_finder"] = kernels.Finder(
            lambda: kernels.search(str(home), (), (), self.manager._lender), self.manager.log.warning, fresh=0.0
        )

    def registered(self, name: str, program: str, title: str) -> None:
        """Have a kernel as ``python -m ipykernel install`` makes it."""
        (self.folder / name).mkdir(parents=True)
        (self.folder / name / "kernel.json").write_text(json.dumps({"argv": [program, "-m", "x"], "display_name": title}))

    @property
    def titles(self) -> dict[str, str]:
        """Return name -> title of all kernels."""
        return {name: entry["spec"]["display_name"] for name, entry in self.manager.get_all_specs().items()}


@pytest.fixture
def here(kernels: types.ModuleType, home: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    return Here(kernels, home, monkeypatch)


def test_names_are_valid_unique_and_stay(here: Here, home: Path) -> None:
    venv(home / "Ünsere Umgebung 1!")
    venv(home / "envs/torch")
    before = here.titles
    venv(home / "venvs/torch")
    venv(home / "torch/.venv")
    venv(home / "envs" / ("long" * 30))
    venv(home / "日本")
    after = here.titles
    assert set(before) < set(after)
    assert len(after) == 6
    assert all(re.fullmatch(r"[a-z0-9-]{8,49}", name) for name in after)
    assert set(before.values()) == {"Ünsere Umgebung 1!", "torch"}
    assert {"torch (~/envs/torch)", "torch (~/venvs/torch)", "torch (~/torch/.venv)", "日本"} < set(after.values())


def test_a_new_one_appears_and_one_that_is_gone_disappears(here: Here, home: Path) -> None:
    assert here.titles == {}
    prefix = venv(home / "torch")
    (name,) = here.titles
    assert here.manager.get_kernel_spec(name).argv[0] == f"{prefix}/bin/python"
    (prefix / "bin/python").unlink()
    assert here.titles == {}
    with pytest.raises(NoSuchKernel):
        here.manager.get_kernel_spec(name)
    assert here.manager.said == [f"{prefix} is no kernel: {prefix}/bin/python leads nowhere, or may not be run"]


def test_a_kernel_that_is_there_keeps_its_environment_and_its_title(here: Here, home: Path) -> None:
    here.registered("mine", f"{venv(home / 'registered')}/bin/python", "My own")
    here.registered("other", "/usr/bin/elsewhere", "Torch")
    venv(home / "torch")
    assert sorted(here.titles.values()) == ["My own", "Torch", "torch (~/torch)"]
    assert here.manager.find_kernel_specs()["mine"] == str(here.folder / "mine")
    assert here.manager.get_kernel_spec("mine").display_name == "My own"


def test_a_kernel_that_cannot_be_read_hides_no_other(here: Here, home: Path) -> None:
    here.registered("broken", "/usr/bin/python3", "Broken")
    (here.folder / "broken/kernel.json").write_text("{")
    venv(home / "torch")
    assert list(here.titles.values()) == ["torch"]
    assert set(here.manager.said) == {"Error loading kernelspec 'broken'"}


def test_one_that_lacks_ipykernel_says_what_to_do(here: Here, home: Path) -> None:
    prefix = venv(home / "old", "3.6")
    ((name, title),) = here.titles.items()
    assert title == "old (needs: pip install ipykernel)"
    with pytest.raises(RuntimeError, match=re.escape(f"try again: {prefix}/bin/python -m pip install ipykernel")):
        here.manager.get_kernel_spec(name)
    fill(prefix / "lib/python3.6/site-packages", ("ipykernel",))
    assert here.titles == {name: "old"}


def native(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have JupyterLab's own kernel, as its environment brings it."""
    monkeypatch.setattr(sys, "prefix", str(here.folder.parent))
    here.registered("python3", "python", "Python 3 (ipykernel)")


def test_the_kernel_of_jupyterlab_is_offered_only_where_there_is_no_other(here: Here, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native(here, monkeypatch)
    assert here.titles == {"python3": "Python 3 (ipykernel)"}
    assert here.manager.get_kernel_spec("python3").argv[0] == "python"
    venv(home / "torch")
    assert list(here.titles.values()) == ["torch"]


def test_a_notebook_that_names_the_kernel_of_jupyterlab_gets_the_default(here: Here, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native(here, monkeypatch)
    jax, torch = venv(home / "jax"), venv(home / "torch")
    names = {title: name for name, title in here.titles.items()}
    assert here.manager.get_kernel_spec("python3").argv[0] == f"{jax}/bin/python", "the first"
    here.manager.default = names["torch"]
    assert here.manager.get_kernel_spec("python3").argv[0] == f"{torch}/bin/python"
    here.manager.default = "gone"
    assert here.manager.get_kernel_spec("python3").argv[0] == f"{jax}/bin/python"


def test_a_kernel_of_that_name_that_somebody_registered_is_offered(here: Here, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/opt/elsewhere")
    here.registered("python3", f"{venv(home / 'mine')}/bin/python", "Python 3")
    venv(home / "torch")
    assert list(here.titles.values()) == ["Python 3", "torch"]
    assert here.manager.get_kernel_spec("python3").argv[0] == f"{home}/mine/bin/python"


def test_kernels_are_sorted_by_their_titles(here: Here, home: Path) -> None:
    for name in ("b", "C", "a"):
        venv(home / name)
    here.registered("zz", "/usr/bin/elsewhere", "Aa")
    assert list(here.titles.values()) == ["a", "Aa", "b", "C"]


def test_the_search_can_be_switched_off(here: Here, home: Path) -> None:
    here.registered("mine", "/usr/bin/elsewhere", "My own")
    venv(home / "torch")
    here.manager.search = False
    assert list(here.titles.values()) == ["My own"]


def test_an_environment_is_not_removed_as_a_kernel(here: Here, home: Path) -> None:
    venv(home / "torch")
    (name,) = here.titles
    with pytest.raises(ValueError, match=f"remove {home}/torch"):
        here.manager.remove_kernel_spec(name)
    assert here.manager.remove_kernel_spec("other") == "other"


def test_only_allowed_kernels_are_offered(here: Here, home: Path) -> None:
    venv(home / "one")
    venv(home / "two")
    name = next(iter(here.titles))
    here.manager.allowed_kernelspecs = {name}
    assert list(here.titles) == [name]


def test_an_answer_is_fresh_for_a_while(kernels: types.ModuleType) -> None:
    asked: list[int] = []

    def look() -> list[Any]:
        asked.append(1)
        return [kernels.Environment("/a", "venv")]

    finder = kernels.Finder(look, pytest.fail, fresh=60)
    assert finder.environments() is finder.environments()
    assert len(asked) == 1


def test_a_search_that_hangs_holds_nobody_up(kernels: types.ModuleType) -> None:
    go_on, said = threading.Event(), []

    def look() -> Any:
        yield kernels.Environment("/quick", "venv")
        go_on.wait()
        yield kernels.Environment("/slow", "venv")

    finder = kernels.Finder(look, said.append, fresh=0.0, patience=0.2)
    assert [one.prefix for one in finder.environments()] == ["/quick"]
    started = time.monotonic()
    assert [one.prefix for one in finder.environments()] == ["/quick"]
    assert time.monotonic() - started < 0.1
    assert len(said) == 1
    assert "network mount" in said[0]
    go_on.set()
    finder._thread.join()
    assert [one.prefix for one in finder.environments()] == ["/quick", "/slow"]


def test_a_search_that_fails_leaves_what_was_known(kernels: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _arguments: None)
    answers = iter([[kernels.Environment("/a", "venv")], None])
    finder = kernels.Finder(lambda: next(answers), pytest.fail, fresh=0.0)
    assert [[one.prefix for one in finder.environments()] for _ in range(2)] == [["/a"], ["/a"]]


def test_the_lender_is_the_python_that_runs_the_server(kernels: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    site = tmp_path / "site"
    info = site / "ipykernel-7.4.0.dist-info"
    info.mkdir(parents=True)
    needs = ("traitlets>=5.4", "appnope>=0.1.2; platform_system == 'Nothing'", "pytest>=7; extra == 'test'")
    (info / "METADATA").write_text("Name: ipykernel\nVersion: 7.4.0\n" + "".join(f"Requires-Dist: {need}\n" for need in needs))
    monkeypatch.setattr(sys, "path", [str(site)])
    lender = kernels.Lender.here()
    assert lender.packages == str(site)
    assert lender.python == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert [str(one) for one in lender.requirements] == ["traitlets>=5.4"]
    monkeypatch.setattr(sys, "path", [])
    assert kernels.Lender.here() is None
