# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Package sources as apt itself understands them, and a source file for components that they lack."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ansible_collections.trainyard.core.plugins.module_utils._host import reported

_FIELDS = ("SOURCESENTRY", "REPO_URI", "RELEASE", "COMPONENT", "ORIGIN", "CODENAME")
_FIELD, _RECORD = "\x1f", "\x1e"
INDEX_FORMAT = _FIELD.join(f"$({name})" for name in _FIELDS) + _RECORD
"""For ``apt-get indextargets --format``, to be read by `parse_indexes`."""


@dataclass(frozen=True)
class Index:
    """A component of an archive that apt takes packages from.

    Attributes:
        file: the file that names it.
        uri: the archive.
        suite: as the source names it, such as ``bookworm-security``.
        origin: who made the archive, as it says itself; empty where its lists were not fetched yet.
        codename: as the archive says itself; empty likewise.
    """

    file: str
    uri: str
    suite: str
    component: str
    origin: str
    codename: str


def parse_indexes(output: str) -> list[Index]:
    """Read what ``apt-get indextargets`` prints with `INDEX_FORMAT`."""
    found = []
    for record in output.split(_RECORD):
        # A field that is not known is printed as its own name.
        values = ["" if re.fullmatch(r"\$\([A-Z_]+\)", value) else value.strip("\n") for value in record.split(_FIELD)]
        if len(values) == len(_FIELDS):
            found.append(Index(values[0].rpartition(":")[0], *values[1:]))
    return found


def complete(named: Iterable[Index], all_of_them: Iterable[Index]) -> list[Index]:
    """Return every index once, with the names that its archive gives itself where these are known."""
    known = {(index.file, index.uri, index.suite, index.component): index for index in named}
    for index in all_of_them:
        known.setdefault((index.file, index.uri, index.suite, index.component), index)
    return list(known.values())


def signed_by(text: str, deb822: bool, uri: str, suite: str) -> str:
    """Return what a source file demands an archive to be signed with: key files, fingerprints or a key of many lines; empty for nothing.

    apt does not tell this, so the file is read.

    Args:
        text: the file.
        deb822: whether it is of the newer format, in a file that ends in ``.sources``.
        uri: the archive.
        suite: as the file names it.
    """
    if not deb822:
        for line in text.splitlines():
            match = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)", line)
            if match and match.group(2).rstrip("/") == uri.rstrip("/") and match.group(3).strip("/") == suite.strip("/"):
                return next((word.partition("=")[2] for word in (match.group(1) or "").split() if word.startswith("signed-by=")), "")
        return ""
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in {" ", "\t"}:
                fields[name] = fields.get(name, "") + "\n" + line.strip()
            else:
                name = line.partition(":")[0].strip().lower()
                fields[name] = line.partition(":")[2].strip()
        uris = [one.rstrip("/") for one in fields.get("uris", "").split()]
        if uri.rstrip("/") in uris and suite in fields.get("suites", "").split():
            return fields.get("signed-by", "").strip()
    return ""


def lacking(indexes: Iterable[Index], origin: str, codename: str, components: Sequence[str], ours: str) -> list[tuple[Index, list[str]]]:
    """Return the distribution's archives that a node takes packages from, each with those components that it does not take.

    Args:
        indexes: what the node takes.
        origin: the distribution, as its archives call themselves.
        codename: its release; updates and security fixes belong to it, backports do not. Ubuntu's backports say the release's own codename.
        components: the wanted ones.
        ours: our own source file, which does not count.
    """
    suites = {codename, f"{codename}-updates", f"{codename}-security"}
    archives: dict[tuple[str, str], list[Index]] = {}
    for index in indexes:
        pocket = index.suite.partition("-")[2]
        if (
            index.file != ours
            and (index.codename or index.suite) in suites
            and pocket in {"", "updates", "security"}
            and index.origin in {origin, ""}
        ):
            archives.setdefault((index.uri, index.suite), []).append(index)
    found = []
    for taken in archives.values():
        have = {index.component: index for index in taken}
        if "main" in have:
            found.append((have["main"], [name for name in components if name not in have]))
    return found


def source_file(archives: Iterable[tuple[Index, Collection[str], str]], head: str) -> str:
    """Return the text of a deb822 file with components of archives; empty where nothing is lacking.

    Args:
        archives: archive, components, and what it has to be signed with, which apt wants to be the same in all sources of an archive.
        head: a comment.
    """
    stanzas = []
    for index, components, key in archives:
        if components:
            lines = key.split("\n")
            demand = "".join(f"\n {line}" for line in lines) if len(lines) > 1 else f" {key}"
            stanzas.append(
                f"Types: deb\nURIs: {index.uri}\nSuites: {index.suite}\nComponents: {' '.join(components)}\n"
                + (f"Signed-By:{demand}\n" if key else "")
            )
    return f"# {head}\n" + "\n".join(stanzas) if stanzas else ""


def release_files(uris: str) -> dict[str, list[str]]:
    """Read ``apt-get update --print-uris``: each repository's signed release file -> what may be there instead.

    A repository that is trusted without a signature may have an index of packages alone.
    """
    urls = re.findall(r"^'(https?://[^'\s]+)'", uris, re.MULTILINE)
    found = {}
    for url in urls:
        folder, _slash, name = url.rpartition("/")
        if name == "InRelease":
            index = next((other for other in urls if other.startswith(f"{folder}/") and re.search(r"/Packages(\.\w+)?$", other)), "")
            plain = re.sub(r"\.\w+$", "", index)
            found[url] = [f"{folder}/Release", *(plain + ending for ending in ("", ".xz", ".gz") if index)]
    return found


def complaint(output: str) -> str:
    """Return what apt's helper complains of, on one line."""
    lines = [line[3:].strip() for line in output.splitlines() if line.startswith("E: ") and line != "E: Download Failed"]
    return reported.printable(lines[-1] if lines else "no message", 300)
