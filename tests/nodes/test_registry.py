"""The base layer of the node image from a registry: Debian's own registry server, on loopback, with an image that was pushed there."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound

from trainyard import containers
from trainyard.containers import Image, Lab, connect
from trainyard.paths import CHECKOUT

pytestmark = pytest.mark.nodes

CONFIG = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/images}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address and log of a registry; its program is unpacked, not installed, since the package would start a service of its own."""
    subprocess.run(["apt-get", "-qq", "download", "docker-registry"], cwd=tmp_path, check=True, env={**os.environ, "TMPDIR": "/tmp"})
    (package,) = tmp_path.glob("docker-registry_*.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(tmp_path / "program")], check=True)
    port = free_port()
    (tmp_path / "config.yml").write_text(CONFIG.format(folder=tmp_path, port=port))
    log = tmp_path / "registry.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [str(tmp_path / "program/usr/bin/docker-registry"), "serve", str(tmp_path / "config.yml")],
            stdout=output,
            stderr=output,
            env={"PATH": os.defpath, "OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        yield f"127.0.0.1:{port}", log
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)


def remove(client: docker.DockerClient, *names: str) -> None:
    for name in names:
        with contextlib.suppress(ImageNotFound):
            client.images.remove(name)


def test_the_base_layer_comes_from_a_registry_and_the_rest_of_the_recipe_is_the_same(
    registry: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, log = registry
    client = connect()
    base = Image().bootstrap(client, lambda _text: None)
    name = f"{address}/debian:bookworm"
    recipe = tmp_path / "recipe" / "Dockerfile"
    recipe.parent.mkdir()
    recipe.write_text(containers.RECIPE.read_text() + "# another digest, so that the image is built\n")
    monkeypatch.setattr(containers, "RECIPE", recipe)
    monkeypatch.setenv("TRAINYARD_BASE_IMAGE", f"{address}/debian")
    tag = Image().tag
    lab = Lab(f"test-registry-{CHECKOUT}", ["head"], tmp_path / "state", say=lambda _text: None)
    try:
        mark = f"FROM {base}\nRUN echo {address} > /etc/made-for".encode()  # a layer that nothing else on this machine has
        client.images.build(fileobj=io.BytesIO(mark), tag=name, rm=True, nocache=True)
        client.images.push(name)
        client.images.remove(name)  # so that it has to be fetched
        lab.up()
        assert re.search(r"GET /v2/debian/blobs/", log.read_text())
        assert lab.execute("head", ["cat", "/etc/made-for"]).strip() == address
        assert "running" in lab.execute("head", ["systemctl", "is-system-running", "--wait"], check=False)
    finally:
        lab.down()
        remove(client, tag, name)
