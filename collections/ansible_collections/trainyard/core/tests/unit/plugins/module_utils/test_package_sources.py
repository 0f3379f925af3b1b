# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""What folders and indexes tell of their files before anything is fetched."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _package_sources as core
from ansible_collections.trainyard.core.plugins.module_utils._package_lock import Pin, parse_lock

GOOD = hashlib.sha256(b"good").hexdigest()
BAD = hashlib.sha256(b"bad").hexdigest()
WHEEL = "some_pkg-1.0-py3-none-any.whl"
WRONG = f"some-pkg==1.0 was locked as sha256:{GOOD}, but {{}} is sha256:{BAD}"


def pins(*names: str) -> list[Pin]:
    """Return packages locked as the good file."""
    return list(parse_lock("".join(f"{name}==1.0 --hash=sha256:{GOOD}\n" for name in names or ("Some_Pkg",))).values())


def wrong(wheelhouse: str = "", index: str = "none") -> list[str]:
    return core.wrong_checksums(pins(), "3.11", wheelhouse, index)


class Index(http.server.BaseHTTPRequestHandler):
    """Pages by path: content type and text, or a status, or a place to go to."""

    pages: ClassVar[dict[str, Any]] = {}
    asked: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, str(self.headers.get("Authorization"))))
        page = self.pages.get(self.path, 404)
        self.send_response(page if isinstance(page, int) else 302 if isinstance(page, str) else 200)
        if isinstance(page, str):
            self.send_header("Location", page)
        if isinstance(page, tuple):
            self.send_header("Content-Type", page[0])
        self.end_headers()
        if isinstance(page, tuple):
            self.wfile.write(page[1].encode())

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


def html(*offers: tuple[str, str]) -> tuple[str, str]:
    links = "".join(f'<a href="../files/{name}{"#sha256=" + digest if digest else ""}">{name}</a>\n' for name, digest in offers)
    return "text/html", f"<!DOCTYPE html><html><body>{links}</body></html>"


def as_json(*offers: tuple[str, str]) -> tuple[str, str]:
    files = [{"filename": name, "url": name, "hashes": {"sha256": digest} if digest else {}} for name, digest in offers]
    return "application/vnd.pypi.simple.v1+json", json.dumps({"files": files})


@pytest.fixture
def served() -> Iterator[str]:
    """An index; its host and port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
    Index.pages, Index.asked = {}, []
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("page", [html, as_json])
class TestIndex:
    def test_the_locked_file_is_well(self, served: str, page: Any) -> None:
        Index.pages = {"/simple/some-pkg/": page((WHEEL, BAD), (WHEEL.replace("1.0-", "1.0-1-"), GOOD))}
        assert wrong(index=f"http://{served}/simple/") == []

    def test_another_file_of_the_version_is_named(self, served: str, page: Any) -> None:
        Index.pages = {"/simple/some-pkg/": page((WHEEL, BAD), (WHEEL.replace("1.0", "1.1"), GOOD))}
        assert wrong(index=f"http://{served}/simple") == [WRONG.format(WHEEL)]

    def test_an_index_that_tells_no_sums_gets_the_benefit_of_the_doubt(self, served: str, page: Any) -> None:
        Index.pages = {"/simple/some-pkg/": page((WHEEL, ""))}
        assert wrong(index=f"http://{served}/simple") == []

    @pytest.mark.parametrize(
        "other",
        [
            "some_pkg-1.0-cp310-cp310-any.whl",
            "some_pkg-1.0-cp311-cp311-linux_riscv64.whl",
            "other-1.0-py3-none-any.whl",
            "some_pkg-1.0.tar.gz",
        ],
    )
    def test_files_that_are_not_for_this_machine_do_not_count(self, served: str, page: Any, other: str) -> None:
        Index.pages = {"/simple/some-pkg/": page((other, BAD))}
        assert wrong(index=f"http://{served}/simple") == []

    @pytest.mark.parametrize(
        "mine", ["some_pkg-1.0-cp311-cp311-any.whl", "some_pkg-1.0-cp39-abi3-any.whl", "Some.Pkg-1.0-py2.py3-none-any.whl"]
    )
    def test_files_that_are_for_it_do(self, served: str, page: Any, mine: str) -> None:
        Index.pages = {"/simple/some-pkg/": page((mine, BAD))}
        assert wrong(index=f"http://{served}/simple") == [WRONG.format(mine)]


@pytest.mark.parametrize(
    "answer", [503, 401, 404, ("application/vnd.pypi.simple.v1+json", '{"meta": '), ("application/json", '{"files": 3}')]
)
def test_an_index_that_does_not_answer_well_is_not_judged_here(served: str, answer: Any) -> None:
    Index.pages = {"/simple/some-pkg/": answer}
    assert wrong(index=f"http://{served}/simple") == []
    assert Index.asked, "it was asked"


def test_a_password_goes_to_the_index_and_to_nobody_else(served: str) -> None:
    login = "Basic " + base64.b64encode(b"alice:twe:et").decode()
    elsewhere = f"http://localhost:{served.rpartition(':')[2]}/elsewhere/"
    Index.pages = {"/simple/some-pkg/": elsewhere, "/elsewhere/": html((WHEEL, BAD))}
    assert wrong(index=f"http://alice:twe%3Aet@{served}/simple") == [WRONG.format(WHEEL)]
    assert Index.asked == [("/simple/some-pkg/", login), ("/elsewhere/", "None")]


class TestWheelhouse:
    def test_a_folder_is_read(self, tmp_path: Path) -> None:
        (tmp_path / WHEEL).write_bytes(b"bad")
        assert wrong(str(tmp_path)) == [WRONG.format(tmp_path / WHEEL)]
        assert wrong(f"file://{tmp_path}") == [WRONG.format(tmp_path / WHEEL)]
        (tmp_path / WHEEL).write_bytes(b"good")
        assert wrong(str(tmp_path)) == []
        assert wrong(f"{tmp_path}/nowhere") == []

    def test_where_the_index_has_the_locked_file_a_wrong_one_in_the_folder_does_not_matter(self, tmp_path: Path, served: str) -> None:
        (tmp_path / WHEEL).write_bytes(b"bad")
        Index.pages = {"/simple/some-pkg/": html((WHEEL, GOOD))}
        assert wrong(str(tmp_path), f"http://{served}/simple") == []
        Index.pages = {}
        assert wrong(str(tmp_path), f"http://{served}/simple") == [WRONG.format(tmp_path / WHEEL)]

    def test_where_the_folder_has_the_locked_file_no_index_is_asked(self, tmp_path: Path, served: str) -> None:
        (tmp_path / WHEEL).write_bytes(b"good")
        assert wrong(str(tmp_path), f"http://{served}/simple") == []
        assert Index.asked == []

    def test_a_page_of_links_is_read_once(self, served: str) -> None:
        Index.pages = {"/wheels/": html((WHEEL, BAD), ("other-1.0-py3-none-any.whl", BAD))}
        found = core.wrong_checksums(pins("some-pkg", "other"), "3.11", f"http://{served}/wheels/", "none")
        assert [line.split("==")[0] for line in found] == ["some-pkg", "other"]
        assert len(Index.asked) == 1


def test_without_a_source_to_judge_nothing_is_judged() -> None:
    assert wrong() == []
    assert core.wrong_checksums([], "3.11", "/srv", "http://127.0.0.1:9/") == []


class Troubled(http.server.BaseHTTPRequestHandler):
    """An index in trouble, then one that wants a password."""

    statuses: ClassVar[list[int]] = []
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(str(self.headers.get("Authorization")))
        self.send_response(self.statuses.pop(0))
        self.end_headers()

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    "statuses, problem",
    [([503, 503], "answers with HTTP 503 (2 tries)"), ([503, 200], ""), ([404], ""), ([401], "")],
)
def test_whether_an_index_answers(statuses: list[int], problem: str) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), Troubled)
    Troubled.statuses, Troubled.asked = [*statuses], []
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        assert core.index_problem(f"http://alice:tweet@127.0.0.1:{server.server_port}/simple", 2, 0) == problem
        assert set(Troubled.asked) == {"None"}, "no password is sent"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def signed(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Serve an index by TLS; return its URL, and the certificate."""
    pem = tmp_path / "index.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        str(pem),
        "-out",
        str(tmp_path / "cert.pem"),
        *names,
    ]
    subprocess.run(words, check=True, capture_output=True)
    server = http.server.HTTPServer(("127.0.0.1", 0), Troubled)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Troubled.statuses, Troubled.asked = [200] * 3, []
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"https://localhost:{server.server_port}/simple", (tmp_path / "cert.pem").read_text()
    server.shutdown()
    server.server_close()


def test_an_index_that_the_node_will_not_trust_is_found_out_beforehand(
    signed: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url, authority = signed
    (tmp_path / "bundle").touch()
    monkeypatch.setattr(core, "BUNDLES", (str(tmp_path / "bundle"),))
    problem = core.index_problem(url, 1, 0, authorities=[])
    assert problem.startswith("shows a certificate that the node does not trust (self")
    assert "name that authority's PEM file in base_ca_certificates" in core.refused_index("framework_env_index_url: x", problem)
    assert core.index_problem(url, 1, 0, authorities=[authority]) == "", "base_ca_certificates has it"
    assert core.index_problem(url, 1, 0) == "", "nobody said what is yet to come"
    monkeypatch.setattr(core, "BUNDLES", ("/nowhere",))
    assert core.index_problem(url, 1, 0, authorities=[]) == "", "a new node trusts nobody yet"


def test_the_way_out_is_named() -> None:
    assert "base_proxy where a proxy is the only way out" in core.refused_index("x_index_url: y", "does not answer: timed out")


def test_credentials_are_left_out_of_what_is_said() -> None:
    assert core.without_credentials("see https://alice:secret@host/simple and http://x@y/") == "see https://host/simple and http://y/"
