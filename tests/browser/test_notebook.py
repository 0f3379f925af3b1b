"""A person at a laptop: through the SSH tunnel and TLS into JupyterLab and TensorBoard, with the password and not without."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.common.exceptions import WebDriverException

from tests.browser.notebook import Jupyter, TensorBoard, chromium, tunnel
from trainyard.containers import Lab
from trainyard.lab import HERE

pytestmark = pytest.mark.lab

NODE = "head"
IMPORTS = {"tensorflow": "tensorflow", "pytorch": "torch", "keras": "keras", "paddle": "paddle", "jax": "jax"}
WRITE_A_RUN = """
from tensorboard.summary import Writer
run = Writer("/srv/tensorboard/browser-test")
run.add_scalar("browser_test_loss", 0.5, step=1)
run.close()
"""


def on_node(nodes: Lab, *words: str) -> str:
    """Run a command on the node, over SSH as the admin, and return what it printed."""
    command = ["ssh", "-F", str(nodes.ssh_config), NODE, shlex.join(words)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def certificate(nodes: Lab, service: str) -> str:
    """Return the certificate that a service on the node was given, read on the node."""
    return on_node(nodes, "sudo", "openssl", "x509", "-in", f"/etc/trainyard/{service}/tls.pem")


@pytest.fixture(scope="module")
def password() -> str:
    return (HERE / "secrets" / "notebook_password").read_text().split()[0]


@pytest.fixture(scope="module")
def jupyter(nodes: Lab) -> Iterator[Jupyter]:
    """A browser on JupyterLab's page, by the tunnel that the README names."""
    with tunnel(["ssh", "-F", str(nodes.ssh_config)], NODE, 8888) as port, chromium(certificate(nodes, "jupyter")) as browser:
        yield Jupyter(browser, f"https://127.0.0.1:{port}")


def test_the_login_page_names_the_lab_and_says_where_the_password_is(jupyter: Jupyter) -> None:
    shown = jupyter.login_page()
    assert f"JupyterLab of lab, on {NODE}" in shown
    assert "jupyter_password in the lab's inventory" in shown


def server(nodes: Lab) -> str:
    """Return the number of JupyterLab's process on the node."""
    return on_node(nodes, "systemctl", "show", "-P", "MainPID", "trainyard-jupyter")


def test_a_wrong_password_is_refused(jupyter: Jupyter) -> None:
    assert not jupyter.log_in("not the password")


def test_a_cell_runs_in_the_kernel_of_each_environment(jupyter: Jupyter, nodes: Lab, password: str, tmp_path: Path) -> None:
    assert jupyter.log_in(password)
    specs = (
        on_node(nodes, "sh", "-c", "cat /usr/local/share/jupyter/kernels/*/kernel.json | tr -d '\\n'").replace("}{", "}\n{").splitlines()
    )
    kernels = {spec["metadata"]["trainyard"]: spec for spec in map(json.loads, specs)}
    assert sorted(kernels) == sorted(IMPORTS)
    titles = jupyter.kernels()
    assert set(titles) >= {spec["display_name"] for spec in kernels.values()}
    assert all(re.search(r" [0-9.]+ [(](CPU|GPU)[)]", spec["display_name"]) for spec in kernels.values()), "version and device"
    assert "Python 3 (ipykernel)" not in titles
    assert titles[1:] == sorted(titles[1:], key=str.casefold), "the default first, then by title"
    first = server(nodes)
    assert jupyter.run_cell(titles[0], "import numpy; print(numpy.arange(4).sum())").strip() == "6"
    for name, spec in kernels.items():
        printed = jupyter.run_cell(spec["display_name"], f"import sys, {IMPORTS[name]} as f; print(sys.prefix, f.__version__, 6 * 7)")
        jupyter.screenshot(tmp_path / f"{name}.png")
        assert f"/opt/trainyard/envs/{name} " in printed
        assert printed.rstrip().endswith(" 42")
    assert server(nodes) == first, "JupyterLab ended and was started again between two cells."


def test_tensorboard_shows_a_run_to_who_knows_the_password_only(nodes: Lab, password: str, tmp_path: Path) -> None:
    on_node(nodes, "/opt/trainyard/envs/tensorboard/bin/python", "-c", WRITE_A_RUN)
    try:
        with tunnel(["ssh", "-F", str(nodes.ssh_config)], NODE, 6006) as port, chromium(certificate(nodes, "tensorboard")) as browser:
            page = TensorBoard(browser, f"https://127.0.0.1:{port}")
            assert not page.log_in("lab", "not the password")
            assert page.log_in("lab", password)
            assert "browser-test" in page.text("browser_test_loss")
            page.screenshot(tmp_path / "tensorboard.png")
    finally:
        on_node(nodes, "rm", "-r", "/srv/tensorboard/browser-test")


def test_a_browser_that_does_not_know_the_certificate_is_warned(nodes: Lab) -> None:
    with tunnel(["ssh", "-F", str(nodes.ssh_config)], NODE, 8888) as port, chromium(certificate(nodes, "tensorboard")) as browser:
        with contextlib.suppress(WebDriverException):  # some versions raise, all show the warning
            browser.get(f"https://127.0.0.1:{port}")
        assert browser.title == "Privacy error"
