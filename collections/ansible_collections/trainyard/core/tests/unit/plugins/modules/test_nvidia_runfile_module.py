"""How the module nvidia_runfile downloads: over real HTTP, from a server that knows parts of files."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.modules import nvidia_runfile

CONTENT = bytes(range(256)) * 4000


class Server(BaseHTTPRequestHandler):
    """Serves one file; ``/whole`` knows no parts, ``/broken`` hangs up in the middle."""

    asked: list[str]

    def do_GET(self) -> None:
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        self.asked.append(self.headers.get("Range", ""))
        start = int(wanted.group(1)) if wanted and self.path != "/whole" else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : len(CONTENT) // 2] if self.path == "/broken" else CONTENT[start:])

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Server.asked = []
    served = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


def download(url: str, part: Path) -> None:
    installer: Any = SimpleNamespace(wish={"sha256": hashlib.sha256(CONTENT).hexdigest()})
    nvidia_runfile.Installer.download(installer, url, part)


@pytest.mark.parametrize(
    "path, have, asked",
    [
        ("/file", None, [""]),
        ("/file", 1000, ["bytes=1000-"]),
        ("/whole", 1000, ["bytes=1000-"]),
        ("/file", len(CONTENT), [f"bytes={len(CONTENT)}-"]),
    ],
)
def test_only_what_is_missing_is_asked_for(server: str, tmp_path: Path, path: str, have: int | None, asked: list[str]) -> None:
    part = tmp_path / "driver.run.part"
    if have is not None:
        part.write_bytes(CONTENT[:have])
    download(f"{server}{path}", part)
    assert part.read_bytes() == CONTENT
    assert Server.asked == asked


def test_a_part_that_is_longer_than_the_file_is_thrown_away(server: str, tmp_path: Path) -> None:
    part = tmp_path / "driver.run.part"
    part.write_bytes(CONTENT + b"more")
    download(f"{server}/file", part)
    assert part.read_bytes() == CONTENT


def test_a_connection_that_breaks_is_told_and_what_came_is_kept(server: str, tmp_path: Path) -> None:
    part = tmp_path / "driver.run.part"
    with pytest.raises(Exception, match=r"broke|IncompleteRead"):
        download(f"{server}/broken", part)
    kept = part.stat().st_size
    assert 0 < kept <= len(CONTENT) // 2
    download(f"{server}/file", part)
    assert part.read_bytes() == CONTENT
    assert Server.asked[-1] == f"bytes={kept}-"
