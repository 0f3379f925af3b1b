# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Works out what a conda environment needs, and puts it in place; run by a Python that has rattler, as a program.

It reads one JSON object and writes one. What is asked for:
    prefix: folder of the environment.           beside: folder to make it in where it is new; its files will say `prefix`.
    channels: URLs, the first one counts most.   cache: folder of downloaded packages.
    specs: what is wanted, as conda writes it.   explicit: [{url, sha256, md5}] instead, nothing is worked out then.
    keep: whether what is there and not wanted stays.
    reinstall: names of packages whose files are damaged.
    dry: whether to do nothing.
The answer is either {"error": kind, "text": why} with one of the kinds spec, solve, channel, package, disk, other; or
    {"added": [...], "removed": [...], "changed": [...], "records": [...]}, each a list of packages.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import hashlib
import importlib
import json
import os
import sys
import urllib.parse
from typing import Any

SUFFIXES = (".conda", ".tar.bz2")


def split(url: str) -> tuple[str, str, str, str, str, str]:
    """Return channel, platform, file name, package, version and build of a package's URL.

    Raises:
        ValueError: it is no package's URL.
    """
    rest, _slash, file = url.rpartition("/")
    channel, _slash, platform = rest.rpartition("/")
    suffix = next((suffix for suffix in SUFFIXES if file.endswith(suffix)), "")
    parts = file.removesuffix(suffix).rsplit("-", 2)
    if not suffix or not channel or len(parts) != 3 or not all(parts):
        raise ValueError(url)
    name, version, build = parts
    return channel, platform, file, name, version, build


def told(record: Any) -> dict[str, Any]:
    """Return what an answer tells about a package."""
    return {
        "name": record.name.normalized,
        "version": str(record.version),
        "build": str(record.build),
        "url": record.url,
        "size": record.size or 0,
        "python": record.name.normalized == "python" or any(need.split()[0] == "python" for need in record.depends),
    }


def identity(record: Any) -> tuple[str, str, str]:
    """Return what makes a package another one."""
    return record.name.normalized, str(record.version), str(record.build)


def differences(before: list[Any], after: list[Any], reinstall: list[str]) -> dict[str, list[Any]]:
    """Return the packages that come, go and change."""
    old = {record.name.normalized: record for record in before}
    new = {record.name.normalized: record for record in after}
    return {
        "added": [told(new[name]) for name in sorted(new.keys() - old.keys())],
        "removed": [told(old[name]) for name in sorted(old.keys() - new.keys())],
        "changed": [
            {**told(new[name]), "before": f"{old[name].version}={old[name].build}"}
            for name in sorted(new.keys() & old.keys())
            if identity(new[name]) != identity(old[name]) or name in reinstall
        ],
        "records": [told(new[name]) for name in sorted(new)],
    }


def local_problem(entry: dict[str, str]) -> str:
    """Return why a package in a folder is not the one that is meant; rattler sees to those that it downloads."""
    path = urllib.parse.unquote(entry["url"].removeprefix("file://"))
    kind = "sha256" if entry.get("sha256") else "md5"
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    return "" if found == entry[kind] else f"hash mismatch of {entry['url']}: expected {entry[kind]}, got {found}"


def explicit_records(rattler: Any, wanted: list[dict[str, str]]) -> list[Any]:
    """Return the packages of an explicit lock."""
    found = []
    for entry in wanted:
        channel, platform, file, name, version, build = split(entry["url"])
        problem = local_problem(entry) if entry["url"].startswith("file://") else ""
        if problem:
            raise OSError(problem)
        digits = build.rpartition("_")[2]
        package = rattler.PackageRecord(
            name,
            version,
            rattler.BuildString(build),
            int(digits) if digits.isdigit() else 0,
            platform,
            sha256=bytes.fromhex(entry.get("sha256", "")) or None,
            md5=bytes.fromhex(entry.get("md5", "")) or None,
        )
        found.append(rattler.RepoDataRecord(package, file, entry["url"], channel))
    return found


def installed(rattler: Any, prefix: str) -> list[Any]:
    """Return the packages of a prefix, less those whose record a power cut has spoilt."""
    found = []
    for path in sorted(glob.glob(f"{glob.escape(prefix)}/conda-meta/*.json")):
        with contextlib.suppress(Exception):
            found.append(rattler.PrefixRecord.from_path(path))
    return found


async def solved(rattler: Any, asked: dict[str, Any], specs: list[Any], before: list[Any], client: Any) -> list[Any]:
    """Work out which packages fulfil what is wanted, with as little change as possible."""
    for piecewise in (True, False):  # rattler 0.28 takes a server's "304 Not Modified" for a piece of an index as a failure
        try:
            found: list[Any] = await rattler.solve(
                sources=asked["channels"],
                specs=specs,
                gateway=rattler.Gateway(
                    cache_dir=os.path.join(asked["cache"], ".repodata"),
                    default_config=rattler.SourceConfig(sharded_enabled=piecewise),
                    client=client,
                ),
                locked_packages=before,
                virtual_packages=[found.into_generic() for found in rattler.VirtualPackage.detect()],
                channel_priority=rattler.ChannelPriority.Strict,
            )
            break
        except importlib.import_module("rattler.exceptions").GatewayError:
            if not piecewise:
                raise
    return found


async def work(rattler: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked and return the answer."""
    prefix, cache = asked["prefix"], asked["cache"]
    before = installed(rattler, prefix)
    client = rattler.Client([rattler.networking.RetryMiddleware(max_retries=3)])
    if asked["explicit"]:
        specs = []
        after = explicit_records(rattler, asked["explicit"])
        if asked["keep"]:
            wanted = {record.name.normalized for record in after}
            after += [record for record in before if record.name.normalized not in wanted]
    else:
        specs = [rattler.MatchSpec(spec) for spec in asked["specs"]]
        named = {spec.name.normalized for spec in specs if spec.name is not None}
        more = [rattler.MatchSpec(record.name.normalized) for record in before if asked["keep"] and record.name.normalized not in named]
        after = await solved(rattler, asked, specs + more, before, client)
    answer = differences(before, after, asked["reinstall"])
    if not asked["dry"] and any(answer[kind] for kind in ("added", "removed", "changed")):
        os.umask(0o022)
        await rattler.install(
            after,
            target_prefix=asked["beside"] or prefix,
            alternative_target_prefix=prefix if asked["beside"] else None,
            cache_dir=cache,
            installed_packages=before,
            reinstall_packages=set(asked["reinstall"]),
            execute_link_scripts=True,
            show_progress=False,
            client=client,
            requested_specs=[spec._match_spec for spec in specs],  # 0.28 does not unwrap them itself
        )
    return answer


def kind_of(error: BaseException) -> str:
    """Return which kind of trouble an error is."""
    name, text = type(error).__name__, str(error)
    if "os error 28" in text or "No space left" in text:
        return "disk"
    if "hash mismatch" in text.lower():
        return "package"
    kinds = {"InvalidMatchSpecError": "spec", "SolverError": "solve", "GatewayError": "channel", "FetchRepoDataError": "channel"}
    return kinds.get(name, "package" if name in ("InstallerError", "LinkError", "PackageCacheError") else "other")


def main() -> None:
    """Read what is asked, and answer."""
    rattler = importlib.import_module("rattler")
    try:
        answer = asyncio.run(work(rattler, json.load(sys.stdin)))
    except Exception as error:
        answer = {"error": kind_of(error), "text": str(error).strip(), "type": type(error).__name__}
    json.dump(answer, sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # rattler's threads may still be at work, which an ordinary end now and then dies of


if __name__ == "__main__":
    main()
