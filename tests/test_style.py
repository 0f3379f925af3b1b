"""The house's rules that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
TRACKED = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    if (ROOT / name).is_file()
]
YAML = [path for path in TRACKED if path.suffix in {".yml", ".yaml"}]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tasks(document: Any) -> list[dict[str, Any]]:
    """Return all tasks of a playbook or task file, blocks opened."""
    found = []
    for entry in document if isinstance(document, list) else []:
        if not isinstance(entry, dict):
            continue
        found.append(entry)
        for part in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks"):
            found += tasks(entry.get(part))
    return found


@pytest.mark.parametrize("path", YAML, ids=relative)
def test_no_statements_in_templates_inside_yaml(path: Path) -> None:
    assert "{%" not in path.read_text()


@pytest.mark.parametrize("path", YAML, ids=relative)
def test_no_merge_keys_in_yaml(path: Path) -> None:
    """Ansible warns of a key that overrides a merged one, at every run."""
    assert not re.search(r"^\s*<<:", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", [path for path in YAML if "tasks" in path.parts or path.parent.name == "playbooks"], ids=relative)
def test_no_shell_no_set_fact_no_ignored_errors(path: Path) -> None:
    for task in tasks(yaml.safe_load(path.read_text())):
        name = task.get("name")
        assert not {"ansible.builtin.shell", "ansible.builtin.set_fact", "ansible.builtin.raw"} & set(task), name
        assert not task.get("ignore_errors"), name
        assert "latest" not in str(task.get("state", "")), name


@pytest.mark.parametrize("path", [path for path in YAML if path.parent.name == "playbooks"], ids=relative)
def test_playbooks_compose_roles_and_have_no_tasks_of_their_own(path: Path) -> None:
    for play in yaml.safe_load(path.read_text()):
        assert all("ansible.builtin.import_role" in task for task in play.get("tasks", []))


@pytest.mark.parametrize("path", [path for path in YAML if path.parent.name == "playbooks"], ids=relative)
def test_all_plays_go_by_the_labs_proxy(path: Path) -> None:
    plays = [play for play in yaml.safe_load(path.read_text()) if "hosts" in play]
    assert all(play.get("environment") == "{{ _proxy_environment }}" for play in plays)


def test_site_is_a_list_of_playbooks() -> None:
    assert all(set(play) <= {"name", "ansible.builtin.import_playbook", "vars"} for play in yaml.safe_load((ROOT / "site.yml").read_text()))


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_role_has_the_same_shape(role: Path) -> None:
    assert (role / "README.md").is_file()
    assert (role / "meta" / "main.yml").is_file()
    if role.name == "catalog":
        assert not (role / "tasks").exists(), "data only"
        return
    for part in ("defaults/main.yml", "meta/argument_specs.yml", "tasks/main.yml", "tasks/check.yml"):
        assert (role / part).is_file(), part
    assert "trainyard_state" in (role / "tasks" / "main.yml").read_text(), "every role has its undo"
    for path in (role / "tasks").glob("*.yml"):
        for task in tasks(yaml.safe_load(path.read_text())):
            assert "ansible.builtin.include_role" not in task, "roles never include each other"
            assert "ansible.builtin.import_role" not in task, "roles never include each other"


FOR_ALL_ROLES = {"trainyard_state", "trainyard_checked", "trainyard_untested_platforms"}
"""Variables that no one role has to itself; a role reads them with a default of its own."""


@pytest.mark.parametrize("role", [role for role in ROLES if role.name != "catalog"], ids=lambda role: role.name)
def test_every_variable_is_described_once_and_defaults_stand_in_one_place(role: Path) -> None:
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text()) or {}
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    assert set(specs) == {"main", "check"}
    options = specs["main"]["options"]
    assert specs["check"]["options"] == options
    assert set(defaults) <= set(options), "a default that argument_specs.yml does not describe"
    without = {name for name, option in options.items() if name not in defaults and not option.get("required") and not option.get("no_log")}
    assert without <= FOR_ALL_ROLES, "neither required nor with a default"
    assert not any("default" in option for option in options.values()), "a value stands once, in defaults/main.yml"
    for name in options:
        assert name.startswith(role.name + "_") or name in FOR_ALL_ROLES, name


HOSTS = re.compile("|".join(["files." + "pythonhosted", "pypi" + r"\.org", r"deb" + r"\.debian", "registry" + r"\.npmjs"]))
"""Registries are used by package name through the clients' defaults; written in parts, so that this file does not name them."""


def test_no_registry_of_the_defaults_is_named_and_no_path_of_one_machine() -> None:
    for path in TRACKED:
        if path.suffix in {".png"}:
            continue
        text = path.read_text(errors="replace")
        assert not HOSTS.search(text), relative(path)
        assert "/wo" + "rk/" not in text, relative(path)
        assert "/opt/whe" + "els" not in text, relative(path)


PLUGINS = ROOT / "collections" / "ansible_collections" / "trainyard" / "core" / "plugins"
ON_NODES = [
    path
    for path in TRACKED
    if path.suffix == ".py" and path.is_relative_to(PLUGINS) and path.relative_to(PLUGINS).parts[0] in {"modules", "module_utils"}
]
WRITERS = ("copy", "template", "unarchive", "get_url", "assemble")
EDITORS = ("lineinfile", "blockinfile", "ini_file")
"""They keep the mode of a file that is there."""


@pytest.mark.parametrize("path", [path for path in YAML if {"tasks", "handlers"} & set(path.parts)], ids=relative)
def test_tasks_give_what_they_make_a_mode(path: Path) -> None:
    """A umask of sudo's, 077 for one, would close it to the services and users that it is for."""
    for task in tasks(yaml.safe_load(path.read_text())):
        for module, wish in task.items():
            kind = module.rpartition(".")[2]
            if not isinstance(wish, dict) or wish.get("state") == "absent":
                continue
            makes = {
                "file": wish.get("state") in {"directory", "touch"},
                **dict.fromkeys(WRITERS, True),
                **dict.fromkeys(EDITORS, wish.get("create")),
            }
            assert "mode" in wish or not makes.get(kind), task.get("name")


def calls(node: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Return the calls in a function, but not those in functions inside it, by the last part of their names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield ast.unparse(child.func), child
        if not isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            yield from calls(child)


def makes_a_file(name: str, call: ast.Call) -> bool:
    words = [argument.value for argument in [*call.args, *(word.value for word in call.keywords)] if isinstance(argument, ast.Constant)]
    if name == "os.open":
        return "O_CREAT" in ast.unparse(call)
    if name.rpartition(".")[2] == "open":
        return any(isinstance(word, str) and re.fullmatch("[rbt+]*[wax][wbt+]*", word) for word in words)
    return name.rpartition(".")[2] in {"write_text", "write_bytes", "touch", "copyfile"}


UNSEEN = {
    ("_conda_distribution.py", "_receive"),
    ("_frozen_packages.py", "_write"),
    ("nvidia_runfile.py", "download"),
    ("cuda_proof.py", "prove"),
}
"""Functions that write into a folder of root's own, or what is moved to its place with a mode afterwards."""


PRIVATE = {0o600, 0o700}
"""Modes that no umask takes anything from."""


@pytest.mark.parametrize("path", ON_NODES, ids=relative)
def test_modules_give_what_they_make_a_mode(path: Path) -> None:
    """A umask of sudo's, 077 for one, would close it to the services and users that it is for."""
    tree = ast.parse(path.read_text())
    if path == PLUGINS / "module_utils" / "_host" / "files.py":
        return
    for function in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))]:
        found = list(calls(function))
        for name, call in found:
            where = f"{relative(path)}:{call.lineno}"
            private = any(isinstance(word, ast.Constant) and word.value in PRIVATE for word in ast.walk(call))
            assert name != "os.makedirs", f"{where}: use make_folders of _host/files.py"
            if name.rpartition(".")[2] == "mkdir":
                whole = private and not any(word.arg == "parents" for word in call.keywords)
                assert whole, f"{where}: use make_folders of _host/files.py"
            if makes_a_file(name, call) and not private:
                given = any(other.rpartition(".")[2] in {"chmod", "fchmod", "umask"} for other, _call in found)
                assert given or (path.name, function.name) in UNSEEN, f"{where}: use write of _host/files.py, or give the file a mode"
