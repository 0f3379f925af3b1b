# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The one form in which the GPU tables of the catalogue are written, so that a new fact is one new line and nothing else changes.

Tables are in block style, rows in flow style and wrapped. A word of letters, digits, dots and dashes stands bare, all other strings in
double quotes. Comments stand above a table; above or within a row they would be lost, so they are refused there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tools import catalog_schema as schema

WIDTH = 150
BARE = re.compile(r"[A-Za-z][\w.-]*", re.ASCII)
PROFILE_KEYS = ("title", "python", "python_beside", "variants", *schema.ORIGIN)
VARIANT_KEYS = ("cuda", "cudnn", "frameworks")

Comments = dict[str, list[str]]
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class FormError(Exception):
    """A file cannot be read without losing something; the text names file and line."""


# --- reading


class _Loader(Loader):  # type: ignore[misc]
    """Refuses a key that stands twice, of which YAML would forget one."""


def _mapping(loader: Any, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key, _value in node.value:
        name = loader.construct_object(key)
        if name in seen:
            raise FormError(f"{key.start_mark.line + 1}: {name} stands there twice")
        seen.add(name)
    return dict(loader.construct_mapping(node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read(path: Path) -> tuple[dict[str, Any], Comments]:
    """Return the tables of a file and the comments above each of them.

    Raises:
        FormError: it is no YAML, a key stands twice, or a comment stands where rewriting would lose it.
    """
    text = path.read_text()
    try:
        data = yaml.load(text, Loader=_Loader)
        return data or {}, _comments(text)
    except FormError as error:
        raise FormError(f"{path.name}:{error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise FormError(f"{path.name}:{mark.line + 1 if mark else 1}: it is no YAML: {getattr(error, 'problem', error)}") from error


def _comments(text: str) -> Comments:
    """Return the comments above each table."""
    blank = list(text)
    for token in yaml.scan(text, Loader=Loader):
        if isinstance(token, yaml.ScalarToken):
            for at in range(token.start_mark.index, token.end_mark.index):
                blank[at] = "\n" if text[at] == "\n" else "_"
    found: Comments = {}
    above: list[str] = []
    for number, (line, outside) in enumerate(zip(text.split("\n"), "".join(blank).split("\n"), strict=True), 1):
        table = re.match(r"(\w+):", line)
        if table:
            found[table[1]], above = above, []
        if outside.startswith("#"):
            above.append(line.rstrip())
        elif "#" in outside:
            raise FormError(f"{number}: a comment beside or between rows is lost when the file is rewritten; put it above the table")
        elif above and line.strip():
            break
    if above:
        raise FormError(f"{number}: a comment that no table follows is lost when the file is rewritten; put it above the table")
    return found


# --- writing


class Flow(dict[Any, Any]):
    """A mapping that is written on one line."""


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _string(dumper: Any, text: str) -> yaml.Node:
    bare = BARE.fullmatch(text) and dumper.resolve(yaml.ScalarNode, text, (True, False)) == "tag:yaml.org,2002:str"
    return yaml.ScalarNode("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None if bare else '"')


def _list(dumper: Any, values: list[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=not any(isinstance(value, dict) for value in values))  # type: ignore[no-any-return]


_Dumper.add_representer(str, _string)
_Dumper.add_representer(list, _list)
_Dumper.add_representer(dict, lambda dumper, row: dumper.represent_mapping("tag:yaml.org,2002:map", row.items(), flow_style=False))
_Dumper.add_representer(Flow, lambda dumper, row: dumper.represent_mapping("tag:yaml.org,2002:map", row.items(), flow_style=True))


def _keyed(row: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return a row with its keys in order; those that are not known come last."""
    return {**{key: row[key] for key in keys if key in row}, **row}


def _release(row: Mapping[str, Any]) -> dict[str, Any]:
    keys = (*schema.BUILD, *schema.BUILD_MORE)
    builds = {name: Flow(_keyed(build, keys)) for name, build in row["builds"].items()}
    return _keyed({**row, "requires": Flow(row["requires"]), "builds": builds}, (*schema.RELEASE, *schema.RELEASE_MORE))


def _system(row: Mapping[str, Any]) -> dict[str, Any]:
    sources = _keyed(row["driver_sources"], schema.SOURCES)
    own, vendors = sources["distribution"], sources["nvidia_repository"]
    if own is not None:
        flows = {key: Flow(own[key]) for key in schema.BY_BRANCH if key in own}
        sources["distribution"] = _keyed({**own, **flows}, (*schema.PACKAGES, *schema.PACKAGES_MORE))
    if vendors is not None:
        sources["nvidia_repository"] = Flow(_keyed(vendors, (*schema.VENDOR_PACKAGES, *schema.VENDOR_PACKAGES_MORE)))
    return _keyed({**row, "driver_sources": {**sources, "runfile": Flow(sources["runfile"])}}, schema.SYSTEM)


def _profile(row: Mapping[str, Any]) -> dict[str, Any]:
    variants = {
        name: _keyed({**variant, "frameworks": Flow(variant["frameworks"])}, VARIANT_KEYS) for name, variant in row["variants"].items()
    }
    beside = {"python_beside": Flow(row["python_beside"])} if "python_beside" in row else {}
    return _keyed({**row, **beside, "variants": variants}, PROFILE_KEYS)


def _shaped(table: str, rows: Any) -> Any:
    """Return a table with its keys in order and its rows marked as such."""
    if table in schema.KEYS:
        return [Flow(_keyed(row, schema.KEYS[table])) for row in rows]
    if table == "catalog_gpu_chips_about":
        return Flow(_keyed(rows, schema.ORIGIN))
    if table == "catalog_gpu_chips":
        return {name: _keyed(chip, schema.CHIP) for name, chip in rows.items()}
    if table == "catalog_framework_releases":
        return {name: _keyed({**row, "releases": list(map(_release, row["releases"]))}, schema.FRAMEWORK) for name, row in rows.items()}
    if table == "catalog_operating_systems":
        return {name: _system(row) for name, row in rows.items()}
    return {name: _profile(row) for name, row in rows.items()} if table == "catalog_profiles" else rows


def _members(text: str) -> list[str]:
    """Return the members of a flow collection: what its commas part, but not those within quotes and further brackets."""
    found, depth = [""], 0
    for token in re.findall(r'"(?:[^"\\]|\\.)*"|[\[{}\]]|, |[^"\[\]{},]+|.', text):
        depth += (token in "[{") - (token in "]}")
        if token == ", " and not depth:
            found[-1] += ","
            found.append("")
        else:
            found[-1] += token
    return found


def _wrapped(line: str) -> Iterator[str]:
    """Yield a line in pieces that are not too wide: broken between members, else at a blank, which YAML folds into one again."""
    start = re.match(r'( *(?:- )?(?:"?[\w.-]+"?: )?)([{\["])', line)
    if len(line) <= WIDTH or not start:
        yield line
        return
    indent = " " * start.end() if start[2] != '"' else " " * (start.end(1) + 1)
    body = _members(line[start.end() :]) if start[2] != '"' else [line[start.end() :]]
    current, first = line[: start.end()], True
    for member in body:
        # A member that has no room even on a line of its own is broken at its blanks, but not behind its key.
        fits = len(indent) + len(member) <= WIDTH
        for number, piece in enumerate([member] if fits else re.split(r"(?<=[^\s\\:]) (?=\S)", member)):
            joint = "" if first else " "
            if not first and (len(current) + len(joint) + len(piece) > WIDTH or (number == 0 and not fits)):
                yield current
                current = indent + piece
            else:
                current += joint + piece
            first = False
    yield current


def render(name: str, data: Mapping[str, Any], comments: Comments) -> str:
    """Return the text of a file; ``name`` is without its suffix."""
    lines = ["---"]
    tables = [*(table for table in schema.FILES[name] if table in data), *(table for table in data if table not in schema.FILES[name])]
    for number, table in enumerate(tables):
        above = comments.get(table, [])
        lines += [*([""] if number and above else []), *above]
        text = yaml.dump({table: _shaped(table, data[table])}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100_000)
        lines += [piece for line in text.splitlines() for piece in _wrapped(line)]
    text = "\n".join(lines) + "\n"
    if yaml.load(text, Loader=Loader) != dict(data):
        raise AssertionError(f"{name}.yml: what was written does not read as what was to be written")
    return text


def difference(name: str, text: str, wanted: str) -> str:
    """Return where a text first differs from its form and in which row, "" where it does not."""
    if text == wanted:
        return ""
    have, want = text.splitlines(), wanted.splitlines()
    at = next((number for number, pair in enumerate(zip(have, want, strict=False)) if pair[0] != pair[1]), min(len(have), len(want)))
    words = want[at].strip() if at < len(want) else "the end of the file"
    row = ""
    for line in want[: at + 1]:
        if found := re.match(r'(?:  - \{\w+: |  (?=[\w.-]+:$)|(?=catalog))"?([\w.-]+)', line):
            row = found[1]
        elif found := re.match(r' {6}- version: "([^"]+)', line):
            row = f"{row.split()[0]} {found[1]}"
    return f"{name}.yml: {row or 'head'}: line {at + 1} is not as tools/catalog_update.py writes it, wanted is: {words}"
