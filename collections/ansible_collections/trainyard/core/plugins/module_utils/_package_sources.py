# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""What sources of Python packages tell before anything is fetched from them.

Nothing here is Ansible's open_url, and what speaks HTTP is imported where it is used: most runs ask nobody, and importing takes its time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

from ansible_collections.trainyard.core.plugins.module_utils._package_lock import Pin, normalise, same_version

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

NO_INDEX = "none"
BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
PASSED_ON = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
INDEX_TRIES = 4  # as uv does
UNTRUSTED = "shows a certificate that the node does not trust"
ASKED_AT_ONCE = 8
PAGE_TYPES = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"  # PEP 691
PAGE_BYTES = 30_000_000  # the longest page of the catalogue's packages has 4 million

_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]+@")

# What a source offers of one version: file name and SHA-256, '' where it publishes none.
Offer = tuple[str, str]


def without_credentials(text: str) -> str:
    """Return a text with the user and password of its URLs left out."""
    return _CREDENTIALS.sub("", text)


def surroundings() -> dict[str, str]:
    """Return a process environment for installers, away from everything that a user or the system may have configured."""
    found = {
        "PATH": os.defpath,
        "HOME": os.environ.get("HOME", "/root"),
        "LC_ALL": "C.UTF-8",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_DEFAULT_TIMEOUT": "60",
        "PIP_RETRIES": "3",
    }
    for name in PASSED_ON:
        for spelling in (name, name.lower()):
            if spelling in os.environ:
                found[spelling] = os.environ[spelling]
    bundle = os.environ.get("SSL_CERT_FILE") or next((path for path in BUNDLES if os.path.exists(path)), "")
    return {**found, "SSL_CERT_FILE": bundle, "PIP_CERT": bundle} if bundle else found


def places(index_url: str, wheelhouse: str) -> dict[str, str]:
    """Return where uv and pip look, for their environment; a URL may hold a password, which has no place among a process's arguments."""
    found: dict[str, str] = {}
    if wheelhouse:
        found.update(UV_FIND_LINKS=wheelhouse, PIP_FIND_LINKS=wheelhouse)
    if index_url == NO_INDEX:
        found.update(PIP_NO_INDEX="1")
    elif index_url:
        found.update(UV_DEFAULT_INDEX=index_url, PIP_INDEX_URL=index_url)
    return found


def index_problem(url: str, tries: int = INDEX_TRIES, pause: float = 2, authorities: Sequence[str] | None = None) -> str:
    """Return why an index of packages cannot be asked, '' where anything answers there that is no server in trouble.

    Credentials are not sent.

    Args:
        url: the index.
        tries: how often it is asked.
        pause: seconds between two tries.
        authorities: PEM texts that the node will trust, next to those that it trusts already. Without them, and on a node that has no
            authorities at all yet, an untrusted certificate does not count.
    """
    import http.client  # noqa: PLC0415
    import ssl  # noqa: PLC0415
    import urllib.error  # noqa: PLC0415
    import urllib.request  # noqa: PLC0415

    problem = ""
    judged = authorities is not None and any(os.path.exists(path) for path in BUNDLES)
    context = ssl.create_default_context()
    for pem in authorities or ():
        context.load_verify_locations(cadata=pem)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
    for attempt in range(tries):
        try:
            with opener.open(bare(url), timeout=20):
                return ""
        except urllib.error.HTTPError as error:
            if error.code < 500:
                return ""
            problem = f"answers with HTTP {error.code}"
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                return f"{UNTRUSTED} ({reason.verify_message})" if judged else ""
            problem = f"does not answer: {reason}"
        if attempt + 1 < tries:
            time.sleep(pause)
    return f"{problem} ({tries} tries)"


def refused_index(index: str, problem: str) -> str:
    """Return the sentences that refuse an index for what :func:`index_problem` returned."""
    if problem.startswith(UNTRUSTED):
        return (
            f"{index} {problem}. Where a proxy signs TLS anew, or the index has an authority of its own, name that authority's PEM file in "
            "base_ca_certificates. Check the node's clock too."
        )
    return f"{index} {problem}. See that the node reaches it, by base_proxy where a proxy is the only way out, or name another index."


def wrong_checksums(pins: Sequence[Pin], python: str, wheelhouse: str, index_url: str) -> list[str]:
    """Return which packages no source has as they are locked, although one offers another file for that very version.

    A source that does not tell its files' sums, or cannot be asked, gets the benefit of the doubt: the installer judges what it fetches.

    Args:
        pins: what is to be installed.
        python: version of Python that it is for, such as 3.11; wheels for others, and for other machines, do not count.
        wheelhouse: folder or URL with wheels, '' for none.
        index_url: 'none' for none.
    """
    index = "" if index_url == NO_INDEX else index_url.rstrip("/")
    if not pins or not (wheelhouse or index):
        return []
    house = urlsplit(wheelhouse).path if wheelhouse.startswith("file://") else wheelhouse
    opener = opener_for(url for url in (house, index) if "://" in url)
    names = _wheels(house) if house.startswith("/") else []
    listed = _offers_of_page(opener, house) if "://" in house else []

    def offers(pin: Pin) -> Iterator[Offer]:
        """Yield what is offered for a package, the nearest first; an unknown sum where a source does not tell."""
        for name, _digest in _fitting([(name, "") for name in names], pin, python):
            yield f"{house}/{name}", _sum_of_file(f"{house}/{name}")
        yield from _fitting(listed, pin, python)
        if index:
            yield from _fitting(_offers_of_page(opener, f"{index}/{pin.name}/"), pin, python)

    def problem(pin: Pin) -> str:
        wrong = None
        for name, digest in offers(pin):
            if digest in ("", *pin.hashes):
                return ""
            wrong = wrong or f"{name} is sha256:{digest}"
        return f"{pin.name}=={pin.version} was locked as sha256:{' or sha256:'.join(sorted(pin.hashes))}, but {wrong}" if wrong else ""

    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        return [found for found in pool.map(problem, pins) if found]


def _wheels(folder: str) -> list[str]:
    """Return the wheels of a folder; that there is no such folder is said by what installs from it."""
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(".whl"))
    except OSError:
        return []


def _sum_of_file(path: str) -> str:
    """Return a file's SHA-256, '' where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as content:
            while block := content.read(1_000_000):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()


class _Links(HTMLParser):
    """The links of a page."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.offers: list[Offer] = []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        """Note a link to a file with the sum that its fragment may tell."""
        target = next((value for name, value in attrs if tag == "a" and name == "href" and value), "")
        parts = urlsplit(urljoin(self.url, target))
        kind, _equals, digest = parts.fragment.partition("=")
        self.offers.append((unquote(parts.path.rpartition("/")[2]), digest if kind == "sha256" else ""))


def _offers_of_page(opener: OpenerDirector, url: str) -> list[Offer] | None:
    """Return the files that a page of packages lists, None where it cannot be had."""
    import http.client  # noqa: PLC0415
    import urllib.error  # noqa: PLC0415
    import urllib.request  # noqa: PLC0415

    try:
        with opener.open(urllib.request.Request(bare(url), headers={"Accept": PAGE_TYPES}), timeout=20) as answer:
            text = answer.read(PAGE_BYTES).decode("utf-8", "replace")
            if "json" in answer.headers.get("Content-Type", ""):
                return [(file["filename"], file.get("hashes", {}).get("sha256", "")) for file in json.loads(text)["files"]]
            links = _Links(answer.url)
            links.feed(text)
            return links.offers
    except urllib.error.HTTPError as error:
        return [] if error.code == 404 else None
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return None


def _fitting(offers: Iterable[Offer] | None, pin: Pin, python: str) -> list[Offer]:
    """Return the wheels of a pin's version that fit this machine; what nobody could list may be anything."""
    if offers is None:
        return [("", "")]
    found = []
    for name, digest in offers:
        parts = name.removesuffix(".whl").split("-")  # name-version[-build]-python-abi-platform
        if len(parts) < 5 or not name.endswith(".whl") or normalise(parts[0]) != pin.name or not same_version(parts[1], pin.version):
            continue
        major, _dot, minor = python.partition(".")
        pythons = {f"py{major}", f"py{major}{minor}", f"cp{major}{minor}"}
        pythons |= {f"cp{major}{older}" for older in range(int(minor)) if "abi3" in parts[-2]}
        if pythons & set(parts[-3].split(".")) and any(tag == "any" or tag.endswith(os.uname().machine) for tag in parts[-1].split(".")):
            found.append((name, digest))
    return found


def opener_for(urls: Iterable[str]) -> OpenerDirector:
    """Return what opens URLs with the user and password that they carry; no other place gets those, also none that they redirect to."""
    import urllib.request  # noqa: PLC0415

    logins = urllib.request.HTTPPasswordMgrWithPriorAuth()
    for url in urls:
        parts = urlsplit(url)
        if parts.username:
            logins.add_password(None, bare(url), unquote(parts.username), unquote(parts.password or ""), is_authenticated=True)
    return urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(logins))


def bare(url: str) -> str:
    """Return a URL without the user and password in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
