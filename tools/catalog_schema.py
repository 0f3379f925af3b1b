# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What the catalogue's rows about GPUs, drivers, CUDA and frameworks have to be: their keys, their order and what they refer to.

A problem is one sentence that names the file and the row: "drivers.yml: 580: trust is 'hearsay', wanted is one of ...".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import Catalog, capability, fits, specifier, version

Data = Mapping[str, Any]
FILES = {
    "gpus": ("catalog_gpu_architectures",),
    "gpu_chips": ("catalog_gpu_chips_about", "catalog_gpu_chips"),
    "drivers": ("catalog_driver_branches",),
    "cuda": ("catalog_cuda_toolkits", "catalog_cuda_minor_compatibility"),
    "cudnn": ("catalog_cudnn_releases",),
    "nccl": ("catalog_nccl_releases",),
    "frameworks": ("catalog_framework_releases", "catalog_framework_indexes"),
    "operating_systems": ("catalog_operating_systems",),
    "profiles": ("catalog_profiles",),
    "pythons": ("catalog_pythons",),
}
"""The tables, in the order in which they stand in their files."""
FILE_OF = {table: f"{name}.yml" for name, tables in FILES.items() for table in tables}


# --- what a value has to be


@dataclass(frozen=True)
class Kind:
    """What a value has to be: the words for it, and the test."""

    words: str
    test: Callable[[Any], bool]

    def many(self) -> Kind:
        """Return the kind of a list of these."""
        return Kind(f"a list; each is {self.words}", lambda value: isinstance(value, list) and all(map(self.test, value)))

    def by(self, key: Kind) -> Kind:
        """Return the kind of a mapping to these."""
        return Kind(
            f"a mapping from {key.words} to {self.words}",
            lambda value: isinstance(value, dict) and all(map(key.test, value)) and all(map(self.test, value.values())),
        )


def matching(pattern: str, words: str) -> Kind:
    """Return the kind of strings of a pattern."""
    return Kind(words, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


def one_of(*words: str) -> Kind:
    """Return the kind of strings that are one of these."""
    return Kind(f"one of {', '.join(words)}", lambda value: isinstance(value, str) and value in words)


def _specifies(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(not value or specifier(value))
    except ValueError:
        return False


NUMBER = r"\d+(\.\d+)+"
TEXT = matching(r"(?s).+", "a text")
WORDS = matching(r".*", "a text or an empty one")
INTEGER = Kind("a whole number", lambda value: type(value) is int)
TRUTH = Kind("true or false", lambda value: type(value) is bool)
VERSION = matching(rf"{NUMBER}((a|b|rc|\.post)\d+)?", 'a version in quotes such as "13.0.2"')
DRIVER = matching(rf"\d+|{NUMBER}", 'a version of the driver in quotes such as "580.65.06"')
LINE = matching(r"\d+\.\d+", 'a version of two numbers in quotes such as "3.12"')
CUDA_PART = matching(r"(\d+(\.\d+)?)?", 'a version of CUDA in quotes such as "12.6", or an empty text')
CAPABILITY = matching(r"\d+\.\d", 'a compute capability in quotes such as "8.6"')
SPECIFIER = Kind("a specifier such as >=12.4,<13, or an empty text", _specifies)
FLAVOURS = one_of("open", "proprietary").many()
MAPPING = Kind("a mapping", lambda value: isinstance(value, dict))
DEVICE = re.compile(r"[0-9a-f]{4} \S.*")

Keys = Mapping[str, Kind]
ORIGIN: Keys = {
    "source": TEXT,
    "seen": matching(r"20\d\d-(0[1-9]|1[0-2])", 'a month in quotes such as "2026-11"'),
    "trust": one_of("primary", "excerpt", "mirror", "secondary", "measured", "inferred"),
}
KEYS: dict[str, Keys] = {
    "catalog_gpu_architectures": {
        "name": TEXT,
        "title": TEXT,
        "compute_capabilities": CAPABILITY.many(),
        "first_cuda": LINE,
        "last_cuda": CUDA_PART,
        "first_driver": INTEGER,
        "last_driver": INTEGER,
        "modules": FLAVOURS,
        **ORIGIN,
    },
    "catalog_driver_branches": {
        "branch": INTEGER,
        "designation": one_of("long_term", "production", "new_feature", "developer", "legacy"),
        "end_of_life": matching(r"(20\d\d-(0[1-9]|1[0-2]))?", 'a month in quotes such as "2026-11", or an empty text'),
        "newest": matching(rf"({NUMBER})?", "a version in quotes, or an empty text"),
        "modules": FLAVOURS,
        **ORIGIN,
    },
    "catalog_cuda_toolkits": {"version": VERSION, "driver": DRIVER, **ORIGIN},
    "catalog_cuda_minor_compatibility": {"cuda": INTEGER, "driver": DRIVER, **ORIGIN},
    "catalog_cudnn_releases": {
        "version": VERSION,
        "cuda": SPECIFIER,
        "driver": DRIVER,
        "compute_capabilities": CAPABILITY.many(),
        **ORIGIN,
    },
    "catalog_nccl_releases": {"version": VERSION, "cuda": INTEGER.many(), **ORIGIN},
}
"""The tables that are lists of rows, and the keys of a row in their order."""
CHIP: Keys = {"compute_capability": CAPABILITY, "devices": TEXT}
FRAMEWORK: Keys = {
    "title": TEXT,
    "aliases": TEXT.many(),
    "default_device": one_of("cpu", "gpu"),
    "releases": Kind("a list of mappings", lambda value: isinstance(value, list) and all(map(MAPPING.test, value))),
}
RELEASE: Keys = {"version": VERSION, "python": SPECIFIER, "requires": SPECIFIER.by(TEXT), "builds": MAPPING.by(TEXT), **ORIGIN}
RELEASE_MORE: Keys = {"unlocked": TEXT}
BUILD: Keys = {
    "cuda": SPECIFIER,
    "cudnn": SPECIFIER,
    "nccl": SPECIFIER,
    "compute_capabilities": CAPABILITY.many(),
    "ptx": CAPABILITY.many(),
    "bundled": TRUTH,
    "requirement": TEXT,
    "index": WORDS,
    "support": one_of("stable", "experimental"),
}
BUILD_MORE: Keys = {"frozen": TEXT, "python": SPECIFIER, "follows": TEXT, **ORIGIN}
SYSTEM: Keys = {
    "title": TEXT,
    "distribution": TEXT,
    "version": matching(r"\d+(\.\d+)?", 'a version in quotes such as "12"'),
    "codename": WORDS,
    "aliases": TEXT.many(),
    "kernel": LINE,
    "python": LINE,
    "driver_sources": MAPPING,
    "cuda_toolkit": CUDA_PART,
    **ORIGIN,
}
SOURCES: Keys = {
    "distribution": Kind("a mapping or null", lambda value: value is None or isinstance(value, dict)),
    "nvidia_repository": Kind("a mapping or null", lambda value: value is None or isinstance(value, dict)),
    "runfile": MAPPING,
}
PACKAGES: Keys = {
    "branches": matching(rf"({NUMBER})?", "a version or an empty text").by(INTEGER),
    "modules": FLAVOURS.by(INTEGER),
    "signed_modules": TRUTH,
}
PACKAGES_MORE: Keys = {"kernels": LINE.by(INTEGER)}
BY_BRANCH = ("branches", "modules", "kernels")
"""Keys of a distribution's packages that have a value for each branch."""
VENDOR_PACKAGES: Keys = {"code": TEXT, "oldest_branch": INTEGER}
VENDOR_PACKAGES_MORE: Keys = {"oldest_toolkit": LINE}
PROFILE: Keys = {"title": TEXT, "variants": MAPPING.by(TEXT)}
PROFILE_MORE: Keys = {"python": LINE.many(), "python_beside": LINE.by(TEXT), **ORIGIN}
VARIANT: Keys = {"frameworks": VERSION.by(TEXT)}
VARIANT_MORE: Keys = {"cuda": CUDA_PART, "cudnn": WORDS}


def keys_of(row: Any, keys: Keys, more: Keys = {}) -> Iterator[str]:  # noqa: B006 - read alone
    """Yield what is wrong with a row's keys and their values; ``more`` may be missing."""
    if not isinstance(row, dict):
        yield f"it is {row!r}, wanted is a mapping"
        return
    known = {**keys, **more}
    yield from (f"{key} is missing" for key in keys if key not in row)
    yield from (f"{key} is not known; known are {', '.join(known)}" for key in row if key not in known)
    yield from (f"{key} is {row[key]!r}, wanted is {kind.words}" for key, kind in known.items() if key in row and not kind.test(row[key]))


# --- rows and their names


def label(table: str, row: Any) -> str:
    """Return how a problem or a summary calls a row of a list: its first key, and for cuDNN the line of CUDA."""
    if not isinstance(row, dict):
        return repr(row)
    text = str(row.get(next(iter(KEYS[table])), "a row without a name"))
    return f"{text} (CUDA {row.get('cuda')})" if table == "catalog_cudnn_releases" else text


def releases(data: Data) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the name of each release's framework, the release's own and the release."""
    for name, framework in data["catalog_framework_releases"].items():
        for release in framework["releases"]:
            yield name, f"{name} {release['version']}", release


def builds(data: Data) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each build and its name: "pytorch 2.9.1 cu128"."""
    for _framework, name, release in releases(data):
        for key, build in release["builds"].items():
            yield f"{name} {key}", build


# --- problems


def shape_problems(data: Data) -> Iterator[tuple[str, str, str]]:
    """Yield table, row and what is wrong with its keys and values."""
    for table in FILE_OF:
        if table not in data:
            yield table, table, "the table is missing"
    for table, keys in KEYS.items():
        for row in data.get(table, []):
            for problem in keys_of(row, keys):
                yield table, label(table, row), problem
    for problem in keys_of(data.get("catalog_gpu_chips_about", {}), ORIGIN):
        yield "catalog_gpu_chips_about", "about", problem
    for name, chip in data.get("catalog_gpu_chips", {}).items():
        for problem in keys_of(chip, CHIP):
            yield "catalog_gpu_chips", name, problem
    for name, framework in data.get("catalog_framework_releases", {}).items():
        found = list(keys_of(framework, FRAMEWORK))
        for release in [] if found else framework["releases"]:
            here = f"{name} {release.get('version')}"
            wrong = list(keys_of(release, RELEASE, RELEASE_MORE))
            for problem in wrong:
                yield "catalog_framework_releases", here, problem
            for key, build in {} if wrong else release["builds"].items():
                for problem in keys_of(build, BUILD, BUILD_MORE):
                    yield "catalog_framework_releases", f"{here} {key}", problem
        for problem in found:
            yield "catalog_framework_releases", name, problem
    for problem in [] if TEXT.by(TEXT).test(data.get("catalog_framework_indexes", {})) else ["it is no mapping from names to addresses"]:
        yield "catalog_framework_indexes", "indexes", problem
    for name, system in data.get("catalog_operating_systems", {}).items():
        for problem in _system_problems(system):
            yield "catalog_operating_systems", name, problem
    for name, profile in data.get("catalog_profiles", {}).items():
        wrong = list(keys_of(profile, PROFILE, PROFILE_MORE))
        for problem in wrong:
            yield "catalog_profiles", name, problem
        for key, variant in {} if wrong else profile["variants"].items():
            for problem in keys_of(variant, VARIANT, VARIANT_MORE):
                yield "catalog_profiles", f"{name} {key}", problem
    if not LINE.many().test(data.get("catalog_pythons", [])):
        yield "catalog_pythons", "pythons", f"it is {data['catalog_pythons']!r}, wanted is {LINE.many().words}"


def _system_problems(system: Any) -> Iterator[str]:
    wrong = list(keys_of(system, SYSTEM))
    yield from wrong
    if not wrong:
        sources = system["driver_sources"]
        wrong = [f"driver_sources: {problem}" for problem in keys_of(sources, SOURCES)]
        yield from wrong
        known = {"distribution": (PACKAGES, PACKAGES_MORE), "nvidia_repository": (VENDOR_PACKAGES, VENDOR_PACKAGES_MORE)}
        for key, (keys, more) in {} if wrong else known.items():
            yield from (f"{key}: {problem}" for problem in keys_of(sources[key], keys, more) if sources[key] is not None)


# --- the order: newest first; what is equally new keeps its order

Newness = Callable[[Any], Any]
NEWNESS: dict[str, Newness] = {
    "catalog_gpu_architectures": lambda row: (row["first_driver"], max(map(capability, row["compute_capabilities"]))),
    "catalog_driver_branches": lambda row: row["branch"],
    "catalog_cuda_toolkits": lambda row: version(row["version"]),
    "catalog_cuda_minor_compatibility": lambda row: row["cuda"],
    "catalog_cudnn_releases": lambda row: version(row["version"]),
    "catalog_nccl_releases": lambda row: version(row["version"]),
}


def newest_first(rows: Iterable[Any], newness: Newness) -> list[Any]:
    """Return rows in their order."""
    return sorted(rows, key=newness, reverse=True)


def in_order(data: Data) -> dict[str, Any]:
    """Return the data with all rows in their order."""
    result = dict(data)
    for table, newness in NEWNESS.items():
        result[table] = newest_first(data[table], newness)
    ages = {
        text: NEWNESS["catalog_gpu_architectures"](row) for row in data["catalog_gpu_architectures"] for text in row["compute_capabilities"]
    }
    chips = sorted(data["catalog_gpu_chips"].items())
    result["catalog_gpu_chips"] = {
        name: {**chip, "devices": "".join(f"{line}\n" for line in sorted(chip["devices"].splitlines()))}
        for name, chip in newest_first(
            chips, lambda item: (ages.get(item[1]["compute_capability"], (0, (0, 0))), capability(item[1]["compute_capability"]))
        )
    }
    result["catalog_framework_releases"] = {
        name: {**row, "releases": newest_first(row["releases"], lambda release: version(release["version"]))}
        for name, row in data["catalog_framework_releases"].items()
    }
    result["catalog_framework_indexes"] = dict(sorted(data["catalog_framework_indexes"].items()))
    families = list(dict.fromkeys(row["distribution"] for row in data["catalog_operating_systems"].values()))
    systems = newest_first(
        data["catalog_operating_systems"].items(), lambda item: (-families.index(item[1]["distribution"]), version(item[1]["version"]))
    )
    result["catalog_operating_systems"] = {name: _system_in_order(row) for name, row in systems}
    result["catalog_pythons"] = newest_first(data["catalog_pythons"], version)
    return result


def _system_in_order(row: dict[str, Any]) -> dict[str, Any]:
    own = row["driver_sources"]["distribution"]
    if own is None:
        return row
    keys = [key for key in BY_BRANCH if key in own]
    by_branch = {key: dict(newest_first(own[key].items(), lambda item: item[0])) for key in keys}
    return {**row, "driver_sources": {**row["driver_sources"], "distribution": {**own, **by_branch}}}


def _names(data: Data) -> Iterator[tuple[str, str, list[str]]]:
    """Yield table, row and the names of the rows in it, for all that has an order and in which a name stands once."""
    for table in NEWNESS:
        yield table, "", [label(table, row) for row in data[table]]
    yield "catalog_gpu_chips", "", list(data["catalog_gpu_chips"])
    for name, chip in data["catalog_gpu_chips"].items():
        yield "catalog_gpu_chips", name, chip["devices"].splitlines()
    for name, framework in data["catalog_framework_releases"].items():
        yield "catalog_framework_releases", name, [release["version"] for release in framework["releases"]]
    yield "catalog_framework_indexes", "", list(data["catalog_framework_indexes"])
    yield "catalog_operating_systems", "", list(data["catalog_operating_systems"])
    for name, system in data["catalog_operating_systems"].items():
        own = system["driver_sources"]["distribution"] or {"branches": {}, "modules": {}}
        for key in (key for key in BY_BRANCH if key in own):
            yield "catalog_operating_systems", f"{name} {key}", list(map(str, own[key]))
    yield "catalog_pythons", "", list(data["catalog_pythons"])


def order_problems(data: Data) -> Iterator[tuple[str, str, str]]:
    """Yield table, row and how it stands out of order, or that it stands twice."""
    for (table, row, names), (_table, _row, wanted) in zip(_names(data), _matching(data), strict=True):
        for name, count in Counter(names).items():
            if count > 1:
                yield table, f"{row} {name}".strip(), f"it stands there {count} times"
        wrong = next(((have, want) for have, want in zip(names, wanted, strict=True) if have != want), None)
        if wrong:
            yield table, f"{row} {wrong[0]}".strip(), f"it stands where {wrong[1]} has its place (newest first)"


def _matching(data: Data) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the names of :func:`_names` as they would stand, in the order of the data as it is."""
    wanted = {(table, row): names for table, row, names in _names(in_order(data))}
    yield from ((table, row, wanted[table, row]) for table, row, _names_now in _names(data))


# --- what rows say of each other


def reference_problems(data: Data) -> Iterator[tuple[str, str, str]]:
    """Yield table, row and which row that it speaks of is not there or contradicts it."""
    branches = {row["branch"] for row in data["catalog_driver_branches"]}
    lines = sorted({".".join(row["version"].split(".")[:2]) for row in data["catalog_cuda_toolkits"]}, key=version)
    known = {text for row in data["catalog_gpu_architectures"] for text in row["compute_capabilities"]}
    for row in data["catalog_gpu_architectures"]:
        for key in ("first_driver", "last_driver"):
            if row[key] not in branches and (row[key] or key == "first_driver"):
                yield "catalog_gpu_architectures", row["name"], f"{key} is {row[key]}, which drivers.yml does not have"
    yield from _chip_problems(data["catalog_gpu_chips"], known)
    for row in data["catalog_driver_branches"]:
        if row["newest"] and not row["newest"].startswith(f"{row['branch']}."):
            yield "catalog_driver_branches", str(row["branch"]), f"newest is {row['newest']}, which is of another branch"
        if "open" in row["modules"] and row["branch"] < 515:
            yield "catalog_driver_branches", str(row["branch"]), "modules has open, which came with 515"
    for row in data["catalog_cuda_toolkits"]:
        if int(row["driver"].split(".")[0]) not in branches:
            yield "catalog_cuda_toolkits", row["version"], f"driver is {row['driver']}, a branch which drivers.yml does not have"
    for row in data["catalog_cudnn_releases"]:
        here = label("catalog_cudnn_releases", row)
        if not any(fits(line, row["cuda"]) for line in lines):
            yield "catalog_cudnn_releases", here, f"no toolkit in cuda.yml is {row['cuda']}"
        for text in sorted(set(row["compute_capabilities"]) - known):
            yield "catalog_cudnn_releases", here, f"gpus.yml has no compute capability {text}"
    yield from _framework_problems(data, lines, known)
    for name, system in data["catalog_operating_systems"].items():
        own = system["driver_sources"]["distribution"] or {"branches": {}, "modules": {}}
        if set(own["branches"]) != set(own["modules"]):
            yield "catalog_operating_systems", name, "branches and modules are not of the same branches"
        for branch in sorted(set(own.get("kernels", {})) - set(own["branches"])):
            yield "catalog_operating_systems", name, f"kernels has {branch}, which branches does not have"
        for branch in sorted(set(own["branches"]) - branches):
            yield "catalog_operating_systems", name, f"branches has {branch}, which drivers.yml does not have"
    numbers = {name: {release["version"] for release in row["releases"]} for name, row in data["catalog_framework_releases"].items()}
    for name, profile in data["catalog_profiles"].items():
        for key, variant in profile["variants"].items():
            for framework, number in variant["frameworks"].items():
                if number not in numbers.get(framework, ()):
                    yield "catalog_profiles", f"{name} {key}", f"frameworks.yml has no {framework} {number}"
            if variant.get("cuda") and variant["cuda"] not in lines:
                yield "catalog_profiles", f"{name} {key}", f"cuda.yml has no toolkit {variant['cuda']}"


def _chip_problems(chips: Mapping[str, Any], known: set[str]) -> Iterator[tuple[str, str, str]]:
    owner: dict[str, str] = {}
    for name, chip in chips.items():
        if chip["compute_capability"] not in known:
            yield "catalog_gpu_chips", name, f"gpus.yml has no compute capability {chip['compute_capability']}"
        for line in chip["devices"].splitlines():
            if not DEVICE.fullmatch(line):
                yield "catalog_gpu_chips", name, f"'{line}' is no device, wanted is such as '1db4 Tesla V100 PCIe 16GB'"
            elif line[:4] in owner:
                yield "catalog_gpu_chips", name, f"device {line[:4]} stands under {owner[line[:4]]} already"
            owner.setdefault(line[:4], name)


def _framework_problems(data: Data, lines: list[str], known: set[str]) -> Iterator[tuple[str, str, str]]:
    table, frameworks = "catalog_framework_releases", data["catalog_framework_releases"]
    for word, count in Counter(word for name, row in frameworks.items() for word in (name, *row["aliases"])).items():
        if count > 1:
            yield table, word, f"{count} frameworks are called so"
    for _framework, name, release in releases(data):
        if not any(fits(python, release["python"]) for python in data["catalog_pythons"]):
            yield table, name, f"no Python in pythons.yml is {release['python']}"
        for other, words in release["requires"].items():
            if not any(fits(row["version"], words) for row in frameworks.get(other, {"releases": []})["releases"]):
                yield table, name, f"it requires {other} {words}, which is not there"
    architectures = Catalog.of({**data, "catalog_operating_systems": {}}).capabilities  # their problems are told elsewhere
    nccls = [row["version"] for row in data["catalog_nccl_releases"]]
    for name, build in builds(data):
        problems = [
            f"gpus.yml has no compute capability {text}" for text in sorted({*build["compute_capabilities"], *build["ptx"]} - known)
        ]
        if build["index"] and build["index"] not in data["catalog_framework_indexes"]:
            problems.append(f"index {build['index']} is not in catalog_framework_indexes")
        if build.get("follows", name.split()[0]) not in frameworks:
            problems.append(f"it follows {build['follows']}, which is not there")
        if bool(build["cuda"]) != bool(build["compute_capabilities"]):
            problems.append("a build has CUDA and compute capabilities, or neither")
        if build["nccl"] and not any(fits(number, build["nccl"]) for number in nccls):
            problems.append(f"nccl.yml has no NCCL {build['nccl']}")
        made_with = [line for line in lines if build["cuda"] and fits(line, build["cuda"])]
        if build["cuda"] and not made_with:
            problems.append(f"no toolkit in cuda.yml is {build['cuda']}")
        for wanted in [] if problems else build["compute_capabilities"]:
            able = [line for line in made_with if architectures[capability(wanted)].has_cuda(line)]
            if not able:
                problems.append(f"no toolkit that is {build['cuda']} makes code for {wanted}")
            elif build["cudnn"] and not any(_serves(row, build["cudnn"], able, wanted) for row in data["catalog_cudnn_releases"]):
                problems.append(f"no cuDNN {build['cudnn']} in cudnn.yml is for {wanted} and one of CUDA {', '.join(able)}")
        yield from ((table, name, problem) for problem in problems)


def _serves(row: Mapping[str, Any], wanted: str, lines: list[str], gpu: str) -> bool:
    """Return whether a release of cuDNN is the wanted one, for one of these lines of CUDA and this GPU."""
    major, minor = capability(gpu)
    return (
        fits(row["version"], wanted)
        and any(fits(line, row["cuda"]) for line in lines)
        and any(have[0] == major and have[1] <= minor for have in map(capability, row["compute_capabilities"]))
    )


def problems(data: Data) -> list[str]:
    """Return what is wrong with the data, a sentence for each; references are looked at when every row is whole."""
    found = list(shape_problems(data))
    if not found:
        found = [*order_problems(data), *reference_problems(data)]
    return [f"{FILE_OF[table]}: {row}: {problem}" for table, row, problem in found]
