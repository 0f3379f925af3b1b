#!/usr/bin/env python3
# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Write the catalogue's files about GPUs, drivers, CUDA and frameworks: bring them into their form, and take in new facts.

    .venv/bin/python tools/catalog_update.py            bring the files into their form: rows in their order, keys in theirs, wrapped
    .venv/bin/python tools/catalog_update.py --check    change nothing, ask nobody; exit status 1 where something is wrong
    .venv/bin/python tools/catalog_update.py --pci-ids FILE_OR_URL            devices and names of the known chips, from pci.ids
    .venv/bin/python tools/catalog_update.py --driver-releases FILE_OR_URL    branches of the driver, from NVIDIA's releases.json

Nothing is deleted. A list that is not what it should be is refused before any file changes, and so is one that would leave the catalogue
contradicting itself.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "collections"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import version

from tools import catalog_form as form
from tools import catalog_schema as schema

REPOSITORY = Path(__file__).resolve().parent.parent
CATALOG = REPOSITORY / "roles" / "catalog" / "vars" / "stack"
TIME_LIMIT = 60
"""Seconds for all of a list."""
SIZE_LIMIT = 32 * 1024 * 1024
"""Bytes of a list; pci.ids has less than 2 MiB."""
NVIDIA = "10de"
RELEASES_URL = "https://docs.nvidia.com/datacenter/tesla/drivers/releases.json"

# A chip's device in pci.ids: "GA107BM / GN20-P0 [GeForce RTX 3050 Laptop GPU]" is chip GA107, variant BM.
DEVICE = re.compile(r"(?P<word>(?P<chip>[A-Z]{2}[0-9A-F]{3})[A-Z]*)(?: / [\w-]+)?(?: \[(?P<name>.*)\]| (?P<plain>Engineering Sample))?")
NO_GPU = re.compile(r"NVSwitch|^Reserved Dev ID")
OTHER_CHIP = re.compile(r"(?!GT2|NV)(?P<chip>[A-Z]{2}\d[\w-]{2,}?)[A-Z]*(?: / [\w-]+)?(?: \[.*\])?")
"""Chips in general, but for those before Fermi (GT2.., NV..), which no driver of the catalogue drives."""

DESIGNATIONS = {
    "production branch": "production",
    "lts branch": "long_term",
    "long term support branch": "long_term",
    "new feature branch": "new_feature",
}
"""The words of NVIDIA's list, and the catalogue's."""
YEARS = {"production": 1, "new_feature": 1, "long_term": 3}
"""How long a branch is looked after, a new feature branch at most.

Source: https://docs.nvidia.com/datacenter/tesla/drivers/driver-lifecycle.html
"""


class UpdateError(Exception):
    """Nothing was changed, and why."""


# --- lists


def https() -> requests.Session:
    """Return a session that speaks https alone, also where it is led on."""
    session = requests.Session()
    del session.adapters["http://"]
    return session


def fetch(place: str) -> tuple[str, str]:
    """Return a list's text, and the address it came from in the end ("" for a file).

    Raises:
        UpdateError: it cannot be had.
    """
    try:
        if "://" not in place:
            return Path(place).read_bytes().decode(), ""
        if not place.startswith("https://"):
            raise UpdateError(f"{place}: lists are fetched by https only; fetch it yourself and name the file")
        until, content = time.monotonic() + TIME_LIMIT, b""
        with https() as session, session.get(place, timeout=TIME_LIMIT / 4, stream=True) as answer:
            answer.raise_for_status()
            for part in answer.iter_content(65536):
                content += part
                if time.monotonic() > until or len(content) > SIZE_LIMIT:
                    raise UpdateError(f"{place}: it took more than {TIME_LIMIT} seconds or {SIZE_LIMIT // 1024**2} MiB")
            return content.decode(), answer.url
    except (OSError, requests.RequestException) as error:
        raise UpdateError(f"{place}: {error}") from error
    except UnicodeDecodeError as error:
        raise UpdateError(f"{place}: it is no text in UTF-8") from error


def pci_devices(text: str) -> tuple[str, dict[str, str]]:
    """Return the version of a list in the form of pci.ids and NVIDIA's devices in it: {"1db4": "GV100GL [Tesla V100 PCIe 16GB]"}.

    Raises:
        UpdateError: it is no such list.
    """
    number = re.search(r"^#\s*Version:\s*(\d{4}\.\d{2}\.\d{2})\s*$", text, re.MULTILINE)
    found: dict[str, str] = {}
    vendor = ""
    for line in text.splitlines():
        if heading := re.match(r"([0-9a-f]{4})  \S", line):
            vendor = heading[1]
        elif vendor == NVIDIA and (device := re.fullmatch(r"\t([0-9a-f]{4})  (\S.*?)\s*", line)):
            found[device[1]] = device[2]
    if not number or not found:
        raise UpdateError(
            f"not in the form of pci.ids: wanted are a comment '# Version: 2026.10.24', a line '{NVIDIA}  NVIDIA Corporation' "
            "and below it lines of a tab, four hexadecimal digits, two blanks and a name"
        )
    return number[1], found


def driver_releases(text: str) -> dict[int, dict[str, Any]]:
    """Return the branches in a list: {580: {"type": "lts branch", "newest": "580.95.05", "first": "2025-08-04"}}.

    The list is ``{"580": {"type": "lts branch", "driver_info": [{"release_version": "580.95.05", "release_date": "2025-09-30", ...}]}}``.
    A date may be empty, and there is nothing in it about a branch's end.

    Raises:
        UpdateError: it is no such list.
    """
    wanted = (
        'not in the form of releases.json: wanted is {"580": {"type": "lts branch", "driver_info": [{"release_version": "580.95.05", '
        '"release_date": "2025-09-30"}]}}'
    )
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UpdateError(f"{wanted}; it is no JSON: {error}") from error
    if not isinstance(data, dict) or not data:
        raise UpdateError(wanted)
    found = {}
    for key, branch in data.items():
        releases = branch.get("driver_info") if isinstance(branch, dict) else None
        if not re.fullmatch(r"\d{3,4}", key) or not isinstance(releases, list) or not isinstance(branch.get("type"), str):
            raise UpdateError(f"{wanted}; '{key}' is otherwise")
        for release in releases:
            number, date = (release.get("release_version"), release.get("release_date", "")) if isinstance(release, dict) else (None, "")
            if not isinstance(number, str) or not re.fullmatch(rf"{key}(\.\d+)+", number):
                raise UpdateError(f"{wanted}; '{key}' has the release {number!r}")
            if not isinstance(date, str) or not re.fullmatch(r"(\d{4}-\d{2}-\d{2})?", date):
                raise UpdateError(f"{wanted}; '{key}' has a release of {date!r}")
        if releases:
            newest = max((release["release_version"] for release in releases), key=version)
            dates = sorted(release.get("release_date", "") for release in releases)
            found[int(key)] = {"type": branch["type"].strip().lower(), "newest": newest, "first": next(filter(None, dates), "")}
    if not found:
        raise UpdateError(f"{wanted}; there is no release in it")
    return found


# --- facts


def add_devices(data: dict[str, Any], text: str, address: str, seen: str) -> Iterator[str]:
    """Bring the devices of the known chips up to a list in the form of pci.ids, and yield what a person has to know.

    Raises:
        UpdateError: it is no such list, or an older one.
    """
    number, listed = pci_devices(text)
    chips, about = data["catalog_gpu_chips"], data["catalog_gpu_chips_about"]
    before = re.search(r"pci\.ids (\d{4}\.\d{2}\.\d{2})", about["source"])
    if before and number < before[1]:
        raise UpdateError(f"it is of {number}, older than the one of {before[1]} that the catalogue is made from")
    known = {line[:4]: (name, line[5:]) for name, chip in chips.items() for line in chip["devices"].splitlines()}
    unknown: Counter[str] = Counter()
    for device, words in listed.items():
        found = DEVICE.fullmatch(words)
        if not found or found["chip"] not in chips:
            other = OTHER_CHIP.fullmatch(words)
            unknown.update([other["chip"]] if other and device not in known else [])
        elif not NO_GPU.search(found["name"] or ""):
            chip, name = found["chip"], found["name"] or found["plain"] or found["word"]
            if known.get(device, (chip,))[0] != chip:
                yield f"gpu_chips.yml: {device} is {known[device][0]} here and {words} in the list; left as it is"
            else:
                known[device] = (chip, name)
    for name, chip in chips.items():
        chip["devices"] = "".join(f"{device} {text}\n" for device, (owner, text) in known.items() if owner == name)
    if gone := sorted(set(known) - set(listed)):
        more = f" and {len(gone) - 8} more" if len(gone) > 8 else ""
        yield f"gpu_chips.yml: the list no longer has {', '.join(gone[:8])}{more}; left as they are"
    for name, count in sorted(unknown.items()):
        yield f"gpu_chips.yml: {name} is a chip that is not known here ({count} in the list); a row with its compute capability adds it"
    data["catalog_gpu_chips_about"] = {**about, "source": f"pci.ids {number}{f' ({address})' if address else ''}", "seen": seen}


def add_branches(data: dict[str, Any], text: str, address: str, seen: str) -> Iterator[str]:
    """Bring the driver's branches up to NVIDIA's list, and yield what a person has to know.

    A branch that is out of support here (legacy) stays so: the list keeps calling it what it was. When a branch ends is not in the list, so
    that it stays what it is, "" for a new one. A row's source tells where the rest of it is from.

    Raises:
        UpdateError: it is no such list.
    """
    own = urlsplit(address).hostname == urlsplit(RELEASES_URL).hostname
    origin = {"seen": seen, "trust": "primary" if own else "mirror"}
    source = address or f"{RELEASES_URL} (a copy)"
    rows = {row["branch"]: row for row in data["catalog_driver_branches"]}
    for branch, listed in driver_releases(text).items():
        designation = DESIGNATIONS.get(listed["type"])
        if designation is None:
            yield f"drivers.yml: {branch}: the list calls it '{listed['type']}', which is none of {', '.join(DESIGNATIONS)}; left out"
        elif branch not in rows:
            # A branch between two others has the flavours of its elder sister, as far as anybody knows.
            elder = max((have for have in rows if have < branch), default=None)
            modules = rows[elder]["modules"] if elder is not None else ["proprietary"]
            ended = not listed["first"] or f"{int(listed['first'][:4]) + YEARS[designation]}{listed['first'][4:7]}" < seen
            rest = f"(inferred): modules as {elder}" + (", legacy by its first release" if ended else "")
            rows[branch] = {
                "branch": branch,
                "designation": "legacy" if ended else designation,
                "end_of_life": "",
                "newest": listed["newest"],
                "modules": list(modules),
                "source": f"{source}; the rest {rest}",
                **origin,
            }
        else:
            row = rows[branch]
            older = bool(row["newest"]) and version(listed["newest"]) < version(row["newest"])
            if older:
                yield f"drivers.yml: {branch}: the list has nothing newer than {listed['newest']}, here is {row['newest']}, which stays"
            if row["designation"] == "legacy":
                designation = "legacy"
            now = {"designation": designation, "newest": row["newest"] if older else listed["newest"]}
            if {**row, **now} != row or (own and not older):
                rest = re.sub(r"^.*?; the rest (?=\(\w+\): )", "", row["source"])
                rest = rest if rest != row["source"] else f"({row['trust']}): {rest}"
                rows[branch] = {**row, **now, "source": f"{source}; the rest {rest}", **origin}
    data["catalog_driver_branches"] = list(rows.values())


# --- what changed


def _rows(table: str, rows: Any) -> dict[str, dict[str, Any]]:
    """Return the rows of a table by name."""
    if table in schema.KEYS:
        return {schema.label(table, row): row for row in rows}
    if table == "catalog_gpu_chips":
        return {f"{name} {line[:4]}": {"device": line[5:]} for name, chip in rows.items() for line in chip["devices"].splitlines()}
    return {"about": rows} if table == "catalog_gpu_chips_about" else {}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each row of some tables that is new (+) or has changed (~)."""
    for table in after:
        have = _rows(table, before[table])
        for name, row in _rows(table, after[table]).items():
            if name not in have:
                yield f"+ {name}: " + ", ".join(f"{key} {value}" for key, value in row.items() if str(value) not in ("", name))
            elif row != have[name]:
                yield f"~ {name}: " + ", ".join(f"{key} {have[name][key]} -> {row[key]}" for key in row if row[key] != have[name][key])


def write(texts: Mapping[Path, str]) -> None:
    """Write files: all of them beside what is there, then each in its place at once."""
    beside = {path: path.with_name(f".{path.name}.new") for path in texts}
    try:
        for path, text in texts.items():
            beside[path].write_text(text)
        for path in texts:
            beside[path].replace(path)
    finally:
        for path in beside.values():
            path.unlink(missing_ok=True)


# --- the tool


def load() -> tuple[dict[str, dict[str, Any]], dict[str, form.Comments]]:
    """Return the tables and the comments of each file.

    Raises:
        FormError: a file cannot be read without losing something.
    """
    files = {name: form.read(CATALOG / f"{name}.yml") for name in schema.FILES}
    return {name: data for name, (data, _comments) in files.items()}, {name: comments for name, (_data, comments) in files.items()}


def merged(files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the tables of all files."""
    return {table: rows for data in files.values() for table, rows in data.items()}


def check() -> list[str]:
    """Return what is wrong with the files, a line for each."""
    try:
        files, comments = load()
    except (OSError, form.FormError) as error:
        return [str(error)]
    found = schema.problems(merged(files))
    for name, data in files.items():
        if not any(line.startswith(f"{name}.yml: ") for line in found):
            found.append(form.difference(name, (CATALOG / f"{name}.yml").read_text(), form.render(name, data, comments[name])))
    return [line for line in found if line]


def update(options: argparse.Namespace) -> list[str]:
    """Take in what is asked for, write what changes and return the summary.

    Raises:
        UpdateError, FormError, OSError: nothing was changed, and why.
    """
    files, comments = load()
    whole = merged(files)
    if wrong := [f"{schema.FILE_OF[table]}: {row}: {problem}" for table, row, problem in schema.shape_problems(whole)]:
        raise UpdateError("\n".join(wrong))
    after = copy.deepcopy(whole)
    notes: list[str] = []
    for place, add in ((options.pci_ids, add_devices), (options.driver_releases, add_branches)):
        if place:
            text, address = fetch(place)
            try:
                notes += add(after, text, address, options.seen)
            except UpdateError as error:
                raise UpdateError(f"{place}: {error}") from error
    after = schema.in_order(after)
    if wrong := schema.problems(after):
        raise UpdateError("\n".join(["The catalogue would contradict itself:", *wrong]))
    texts, summary = {}, []
    for name, data in files.items():
        path = CATALOG / f"{name}.yml"
        now = {table: after[table] for table in data}
        text = form.render(name, now, comments[name])
        if text != path.read_text():
            texts[path] = text
            lines = list(changes(data, now)) or ["~ the form alone"]
            summary += [f"{path.name}", *(f"  {line}" for line in lines)]
    if not options.dry_run:
        write(texts)
    return [*summary, *notes]


def month(text: str) -> str:
    """Return a month ("2026-11").

    Raises:
        ArgumentTypeError: it is none.
    """
    if not schema.ORIGIN["seen"].test(text):
        raise argparse.ArgumentTypeError(f"'{text}' is no month such as 2026-11")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit status."""
    parser = argparse.ArgumentParser(prog="tools/catalog_update.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; say what is wrong, with exit status 1")
    parser.add_argument("--dry-run", action="store_true", help="change nothing; say what would change")
    parser.add_argument("--pci-ids", metavar="FILE_OR_URL", help="a list in the form of pci.ids")
    parser.add_argument("--driver-releases", metavar="FILE_OR_URL", help=f"NVIDIA's list of data-centre drivers ({RELEASES_URL})")
    parser.add_argument(
        "--seen",
        metavar="YYYY-MM",
        type=month,
        default=datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m"),
        help="default: this month",
    )
    options = parser.parse_args(arguments)
    if options.check:
        if options.pci_ids or options.driver_releases:
            parser.error("--check takes no list")
        found = check()
        print("\n".join(found) or "All files are whole, in order and in their form.")
        return 1 if found else 0
    try:
        summary = update(options)
    except (UpdateError, form.FormError, OSError) as error:
        raise SystemExit(f"Nothing was changed. {error}") from error
    print("\n".join(summary) or "Nothing to change.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
