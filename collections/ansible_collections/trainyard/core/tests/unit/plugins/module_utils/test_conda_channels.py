# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""What channels tell before anything could be solved: from a server on loopback, and from folders."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _conda_channels as core


class Channels(http.server.BaseHTTPRequestHandler):
    """Indexes by path, sent packed to those who can read that; a number is a status."""

    indexes: ClassVar[dict[str, bytes | int]] = {}
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        found = self.indexes.get(self.path, 404)
        self.send_response(found if isinstance(found, int) else 200)
        packed = "gzip" in self.headers.get("Accept-Encoding", "")
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if not isinstance(found, int):
            self.wfile.write(gzip.compress(found) if packed else found)

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


@pytest.fixture
def served() -> Iterator[str]:
    """A server of channels; its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Channels)
    Channels.indexes, Channels.asked = {}, []
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def index(*names: str) -> bytes:
    """Return an index that has packages of these names."""
    rows = {f"{name}-1.0-0.tar.bz2": {"name": name, "version": "1.0", "depends": ["nothing"]} for name in names}
    return json.dumps({"info": {}, "packages": rows}, indent=2).encode()


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("python=3.6", "python"),
        ("numpy >=2,<3", "numpy"),
        ("conda-forge::Scikit-Learn", "scikit-learn"),
        ("caffe-gpu=1.0=py36*", "caffe-gpu"),
    ],
)
def test_the_name_in_a_spec(spec: str, name: str) -> None:
    assert core.names_of([spec]) == [name]


def test_channels_that_have_all_between_them(served: str) -> None:
    Channels.indexes = {"/a/linux-64/repodata.json": index("python", "caffe"), "/b/noarch/repodata.json": index("fire")}
    assert core.lacking([f"{served}/a", f"{served}/b"], ["caffe", "python", "fire"]) == ""
    Channels.asked.clear()
    assert core.lacking([f"{served}/a", f"{served}/b"], ["caffe", "python"]) == ""
    assert Channels.asked == ["/a/linux-64/repodata.json"], "no more is read than is needed"


def test_a_channel_that_lacks_something(served: str) -> None:
    Channels.indexes = {"/a/linux-64/repodata.json": index("python", "caffe-gpu", "nothing-more")}
    assert core.lacking([f"{served}/a"], ["python", "caffe", "nothing"]) == f"{served}/a has no caffe, nothing"


def test_what_is_no_channel(served: str, tmp_path: Path) -> None:
    assert core.lacking([f"{served}/nowhere"], ["python"]) == f"{served}/nowhere is no channel: there is no repodata.json below it"
    assert core.lacking([f"file://{tmp_path}"], ["python"]) == f"file://{tmp_path} is no channel: there is no repodata.json below it"
    (tmp_path / "noarch").mkdir()
    (tmp_path / "noarch" / "repodata.json").write_bytes(index("python"))
    assert core.lacking([f"file://{tmp_path}"], ["python"]) == ""


def test_a_channel_that_is_down_is_asked_again(served: str) -> None:
    Channels.indexes = {"/a/linux-64/repodata.json": 503}
    said = core.lacking([served.replace("//", "//user:secret@") + "/a"], ["python"], tries=3, pause=0)
    assert said == f"{served}/a answers with HTTP 503 (3 tries)"
    assert len(Channels.asked) == 3
    assert "does not answer: " in core.lacking(["http://127.0.0.1:9/none"], ["python"], tries=2, pause=0)


def test_a_channel_that_lets_nobody_in_is_asked_once(served: str) -> None:
    Channels.indexes = {"/a/linux-64/repodata.json": 403}
    assert core.lacking([f"{served}/a"], ["python"], pause=0) == f"{served}/a answers with HTTP 403 (1 tries)"


def test_what_is_too_long_to_be_read_gets_the_benefit_of_the_doubt(served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Channels.indexes = {"/a/linux-64/repodata.json": index(*(f"package{number}" for number in range(100)), "python")}
    monkeypatch.setattr(core, "BLOCK", 100)
    assert core.lacking([f"{served}/a"], ["python", "package7"]) == "", "a name is found wherever it stands"
    assert "has no caffe" in core.lacking([f"{served}/a"], ["caffe"])
    monkeypatch.setattr(core, "LONGEST", 1000)
    assert core.lacking([f"{served}/a"], ["caffe"]) == ""
