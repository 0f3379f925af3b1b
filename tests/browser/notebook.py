"""A person in front of a browser: logs in to JupyterLab or TensorBoard through TLS, and uses it.

Headless Chromium, which accepts the one certificate it is told of and no other. What serves the page may be behind an
``ssh -L`` tunnel (:func:`tunnel`), as for a person at a laptop.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, CHROMEDRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
PATIENCE = 90  # seconds; a kernel that imports a framework for the first time takes its time on a busy machine

T = TypeVar("T")


@contextlib.contextmanager
def tunnel(ssh: Sequence[str], node: str, port: int) -> Iterator[int]:
    """Forward a free port of this machine to a loopback port of a node, and give the free port's number.

    Args:
        ssh: the command that reaches nodes, such as ``["ssh", "-F", CONFIG]``.
        node: the node's name for ssh.
        port: the port on the node's loopback.

    Raises:
        ConnectionError: the tunnel could not be made; carries what ssh said.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        local = int(probe.getsockname()[1])
    command = [*ssh, "-N", "-o", "ExitOnForwardFailure=yes", "-o", "ControlPath=none", "-L", f"127.0.0.1:{local}:127.0.0.1:{port}", node]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _wait_for_port(local, process)
        yield local
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _wait_for_port(port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ConnectionError(f"the tunnel ended: {process.communicate()[1]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise ConnectionError("the tunnel did not open within 30 seconds")


@contextlib.contextmanager
def chromium(certificate: str) -> Iterator[webdriver.Chrome]:
    """Start a browser of its own that trusts one certificate (PEM text), and end it afterwards."""
    public = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    pin = base64.b64encode(hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()).decode()
    with tempfile.TemporaryDirectory(prefix="trainyard-browser-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for word in (
            "--headless=new",
            "--no-sandbox",  # root in a container has no other choice
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--no-proxy-server",
            "--window-size=1280,900",
            f"--user-data-dir={profile}",
            f"--ignore-certificate-errors-spki-list={pin}",
        ):
            options.add_argument(word)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER, env={**os.environ, "HOME": profile}))
        try:
            driver.set_page_load_timeout(PATIENCE)
            driver.set_script_timeout(PATIENCE)
            yield driver
        finally:
            driver.quit()


class Jupyter:
    """JupyterLab in a browser.

    Attributes:
        browser: the Selenium driver, for what is not foreseen here.
    """

    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        """Sit down in front of the JupyterLab at ``url``, such as ``https://127.0.0.1:8888``."""
        self.browser, self.url = browser, url.rstrip("/")

    def log_in(self, password: str) -> bool:
        """Type the password into the login page, and return whether it let in."""
        self.browser.get(f"{self.url}/login?next=%2Flab%3Freset")
        self._one("#password_input").send_keys(password, Keys.ENTER)
        self._until(lambda: self._all("#jp-main-dock-panel") or self._all(".message.error"), "an answer to the password")
        return bool(self._all("#jp-main-dock-panel"))

    def login_page(self) -> str:
        """Return what somebody reads who is not logged in."""
        self.browser.get(f"{self.url}/login")
        return self._one("#jupyter-main-app").text

    def kernels(self) -> list[str]:
        """Return the titles of the kernels that the launcher offers for notebooks, in its order."""
        self._open_launcher()
        cards = self._until(lambda: self._all(self._card()), "the launcher's cards")
        return [title for card in cards if (title := card.get_attribute("title"))]

    def run_cell(self, title: str, code: str) -> str:
        """Make a new notebook with the kernel of that title, run one cell in it, throw it away and return what the cell printed.

        A request that never reached the server, for which JupyterLab puts up a dialog, is made once more, as a person would.

        Raises:
            AssertionError: the kernel did not answer in time; carries what the page shows.
        """
        if not self._notebook(title):
            self._throw_away()
            assert self._notebook(title), f"No kernel for {title} twice: {self._dialog()}"
        cell = self._one(".jp-Notebook .jp-CodeCell .cm-content")
        cell.click()
        cell.send_keys(code)
        self._until(self._submitted, "the cell to be taken")
        self._until(lambda: self._prompt() == "[1]:", f"the end of the cell in {title}")
        printed = "\n".join(part.text for part in self._all(".jp-Notebook .jp-OutputArea-output"))
        self._throw_away()
        return printed

    def _notebook(self, title: str) -> bool:
        """Make a new notebook with the kernel of that title, and return whether it got its kernel."""
        self._open_launcher()
        self._one(self._card(title)).click()
        self._one(".jp-Notebook .jp-CodeCell .cm-content")
        self._until(lambda: self._dialog() or self._has_kernel(title), "an idle kernel")
        return not self._dialog()

    def _has_kernel(self, title: str) -> bool:
        """Whether the notebook names its kernel; its indicator alone says idle before the kernel was asked for."""
        idle = self._all('.jp-NotebookPanel .jp-Notebook-ExecutionIndicator[data-status="idle"]')
        return bool(idle) and any(name.text == title for name in self._all(".jp-NotebookPanel .jp-KernelName"))

    def _dialog(self) -> str:
        return " ".join(dialog.text for dialog in self._all(".jp-Dialog-content"))

    def _throw_away(self) -> None:
        """Save nothing, end the open notebook's kernel and delete its file, by the requests that JupyterLab itself would make."""
        notebook = self.browser.current_url.split("/lab/tree/")[1].split("?")[0]
        self.browser.execute_async_script(
            """
            const [notebook, done] = arguments;
            const key = document.cookie.split("; ").find((c) => c.startsWith("_xsrf=")).slice(6);
            const ask = (method, path) => fetch(path, {method, headers: {"X-XSRFToken": key}});
            (async () => {
              const sessions = await (await ask("GET", "/api/sessions")).json();
              for (const session of sessions.filter((s) => s.path === decodeURIComponent(notebook)))
                await ask("DELETE", `/api/sessions/${session.id}`);
              await ask("DELETE", `/api/contents/${notebook}`);
            })().finally(done);
            """,
            notebook,
        )

    def screenshot(self, path: Path) -> None:
        """Keep what the page looks like now (PNG)."""
        self.browser.save_screenshot(str(path))

    def _submitted(self) -> bool:
        """Press Shift-Enter, again if nothing came of it: JupyterLab drops what it is told while it connects to the kernel."""
        self._one(".jp-Notebook .jp-CodeCell .cm-content").send_keys(Keys.SHIFT + Keys.ENTER)
        with contextlib.suppress(TimeoutException):
            WebDriverWait(self.browser, 5).until(lambda _browser: self._prompt() not in {"", "[ ]:"})
            return True
        return False

    def _prompt(self) -> str:
        prompts = self._all(".jp-Notebook .jp-InputPrompt")
        return prompts[0].text if prompts else ""

    def _open_launcher(self) -> None:
        self.browser.get(f"{self.url}/lab?reset")
        self._one(".jp-Launcher-body")

    @staticmethod
    def _card(title: str = "") -> str:
        return '.jp-LauncherCard[data-category="Notebook"]' + (f'[title="{title}"]' if title else "")

    def _all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def _one(self, selector: str) -> WebElement:
        return self._until(lambda: next((found for found in self._all(selector) if found.is_displayed()), None), selector)

    def _until(self, condition: Callable[[], T | None], what: str) -> T:
        message = f"{what} did not appear within {PATIENCE} seconds at {self.browser.current_url}"
        wait = WebDriverWait(self.browser, PATIENCE, poll_frequency=0.2, ignored_exceptions=[StaleElementReferenceException])
        try:
            found: T = wait.until(lambda _browser: condition(), message)
        except Exception as error:
            page = self.browser.find_element(By.TAG_NAME, "body").text
            console = "\n".join(entry["message"] for entry in self.browser.get_log("browser")[-20:])
            raise AssertionError(f"{error}\nThe page shows:\n{page[:2000]}\nThe browser's console:\n{console}") from error
        return found


class TensorBoard:
    """TensorBoard in a browser."""

    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        """Sit down in front of the TensorBoard at ``url``, such as ``https://127.0.0.1:6006``."""
        self.browser, self.url = browser, url.rstrip("/")

    def log_in(self, login: str, password: str) -> bool:
        """Send name and password with every request, as a browser does once they were typed; return whether the page came."""
        header = "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()
        self.browser.execute_cdp_cmd("Network.enable", {})
        self.browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"Authorization": header}})
        self.browser.get(self.url)
        return self.browser.title == "TensorBoard"

    def text(self, expected: str) -> str:
        """Return all that the page shows once it shows the expected words; loads it again now and then, as TensorBoard looks for new logs.

        Raises:
            AssertionError: they do not appear in time.
        """
        deadline = time.monotonic() + PATIENCE
        words = ""
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutException):
                WebDriverWait(self.browser, 10).until(lambda _browser: expected in self._shown())
                return self._shown()
            words = self._shown()
            self.browser.refresh()
        raise AssertionError(f"TensorBoard does not show {expected!r} but:\n{words[:2000]}")

    def _shown(self) -> str:
        return str(self.browser.execute_script("return document.body.innerText"))

    def screenshot(self, path: Path) -> None:
        """Keep what the page looks like now (PNG)."""
        self.browser.save_screenshot(str(path))
