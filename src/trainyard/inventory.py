"""An inventory's files before Ansible reads them: whether they are there, and are YAML; and what Ansible reads there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from trainyard import runner
from trainyard.errors import TrainyardError
from trainyard.paths import REPOSITORY

YAML = {".yml", ".yaml"}
VAULT = "$ANSIBLE_VAULT;"
EXAMPLE = f"{REPOSITORY / 'inventory' / 'example'} shows how one is written."


def check(inventory: Path) -> None:
    """Refuse an inventory that cannot be read.

    Raises:
        TrainyardError: it is not there, or one of its files is not YAML; names the file, the line, the column and the fix.
    """
    if not inventory.exists():
        raise TrainyardError(f"There is no inventory {inventory}. {EXAMPLE}")
    if inventory.resolve() == REPOSITORY or (inventory.is_dir() and (inventory / "site.yml").exists()):
        raise TrainyardError(
            f"{inventory} is a folder of playbooks, not an inventory. Name the inventory's own folder, such as inventory/mylab."
        )
    for path in _files(inventory):
        problem = syntax_problem(path)
        if problem:
            raise TrainyardError(problem)


def _files(inventory: Path) -> Iterator[Path]:
    """Return the YAML files that Ansible reads for an inventory, hosts first."""
    folder = inventory if inventory.is_dir() else inventory.parent
    yield from sorted(path for path in folder.iterdir() if path.suffix in YAML) if inventory.is_dir() else [inventory]
    for name in ("group_vars", "host_vars"):
        yield from sorted(path for path in (folder / name).rglob("*") if path.is_file() and path.suffix in {*YAML, ""})


def syntax_problem(path: Path) -> str:
    """Say what is wrong with a file's YAML, where, and what to do; '' where nothing is, or where it is no YAML by its name."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        return f"{path}: the file is not in UTF-8 (byte {error.start}). Save it again as UTF-8."
    except OSError as error:
        return f"{path}: the file cannot be read: {error.strerror}."
    if text.startswith(VAULT) or (path.suffix not in YAML and path.parent.name not in {"group_vars", "host_vars"}):
        return ""
    try:
        for _document in yaml.compose_all(text, Loader=yaml.SafeLoader):
            pass
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        lines = text.splitlines() or [""]
        line, column = (min(mark.line, len(lines) - 1), mark.column) if mark else (0, 0)
        shown = lines[line].replace("\t", "→")
        began = f" (began in line {error.context_mark.line + 1})" if error.context_mark and error.context_mark.line != line else ""
        return (
            f"{path}, line {line + 1}, column {column + 1}: this is not YAML: {error.problem}{began}.\n    {shown}\n    {' ' * column}^\n"
            f"{_fix(shown, f'{error.context} {error.problem}')}"
        )
    except yaml.YAMLError as error:
        return f"{path}: this is not YAML: {error}"
    return ""


def _fix(line: str, problem: str) -> str:
    """Return what to do about a line that YAML refuses."""
    for sign, advice in (
        ("→", "A tab (shown as →) is in the line. Indent with spaces."),
        ("flow", "A bracket or brace is not closed, or a comma is missing."),
        ("quoted", "A quote is not closed."),
        ("mapping values are not allowed", "Put a value with ': ' in it in quotes, and write each entry on a line of its own."),
        ("undefined alias", "A value that begins with * needs quotes."),
        ("cannot start any token", "A value that begins with @, %, & or a backquote needs quotes."),
    ):
        if sign in (line if sign == "→" else problem):
            return advice
    if "{{" in line:
        return 'A value that begins with {{ needs quotes: name: "{{ other }}".'
    return "Indent the line like its neighbors, and write each entry as `name: value`."


def listing(inventory: Path, limit: str | None = None) -> dict[str, Any]:
    """Return what ansible-inventory lists: groups, and in _meta.hostvars the hosts' variables as they are written, not evaluated.

    Raises:
        TrainyardError: it cannot be read, or it has no host.
    """
    command = [str(Path(sys.executable).parent / "ansible-inventory"), "-i", str(inventory), "--list"]
    done = subprocess.run(
        [*command, *runner.extra_words(), *(["--limit", limit] if limit else [])],
        env={**os.environ, **runner.settings()},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise TrainyardError(f"The inventory {inventory} cannot be read:\n{done.stderr.strip()[-1500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    if not hosts_of(found):
        raise TrainyardError(f"The inventory {inventory} has no host{f' that {limit} means' if limit else ''}.")
    return found


def hosts_of(listed: Mapping[str, Any], group: str = "") -> list[str]:
    """Return the hosts of a listing, or of one of its groups with the groups in it, each once."""
    if group in {"", "all"}:
        return list(dict.fromkeys(name for key, data in listed.items() if key != "_meta" for name in data.get("hosts", [])))
    data = listed.get(group, {})
    below = [name for child in data.get("children", []) for name in hosts_of(listed, child)]
    return list(dict.fromkeys([*data.get("hosts", []), *below]))
