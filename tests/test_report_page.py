"""The result page in a browser: on a desk and on a phone, in light and in dark, nothing to scroll sideways, every number in its place."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _report, _report_page
from selenium import webdriver
from selenium.webdriver.common.by import By

from trainyard.paths import REPOSITORY

FIXTURES = REPOSITORY / "tests" / "fixtures" / "report"
CHROMIUM, CHROMEDRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
NAMES = [*sorted(path.stem for path in FIXTURES.glob("*.json")), "thirty"]
WIDTHS = {"desk": 1280, "phone": 360}
GROUND = {"light": "rgb(246, 246, 243)", "dark": "rgb(18, 23, 26)"}


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    yield driver
    driver.quit()


def loaded(name: str) -> dict[str, Any]:
    """Return a report of the fixtures, or one of thirty nodes of which one failed."""
    if name != "thirty":
        return _report.load(FIXTURES / f"{name}.json")
    report = _report.load(FIXTURES / "passed.json")
    gpus = ["NVIDIA A100-SXM4-80GB"] * 4
    nodes = [{**copy.deepcopy(report["nodes"][1]), "name": f"gpu{number:02}", "gpus": gpus} for number in range(30)]
    message = "No space left on device"
    failure = {"task": "Install the packages", "role": "base", "message": message, "what_to_do": _report.what_to_do(message, "gpu17")}
    nodes[17].update(converged=False, environments=[], failures=[failure])
    return {**report, "lab": "physics", "passed": False, "nodes": nodes}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    for name in NAMES:
        (folder / f"{name}.html").write_text(_report_page.render_html(loaded(name)), encoding="utf-8")
    return folder


def show(browser: webdriver.Chrome, page: Path, device: str = "desk", scheme: str = "light") -> None:
    """Open a page as it looks on a device."""
    metrics = {"width": WIDTHS[device], "height": 800, "deviceScaleFactor": 1, "mobile": device == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    browser.get(page.as_uri())


def cells(browser: webdriver.Chrome, table: str) -> list[list[str]]:
    """Return the visible text of a table's body."""
    rows = browser.find_elements(By.CSS_SELECTOR, f"table.{table} tbody tr")
    return [[cell.text for cell in row.find_elements(By.CSS_SELECTOR, "th, td")] for row in rows]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", list(WIDTHS))
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_wider_than_the_screen_and_colours_follow_the_system(
    browser: webdriver.Chrome, pages: Path, name: str, device: str, scheme: str
) -> None:
    show(browser, pages / f"{name}.html", device, scheme)
    browser.execute_script("document.querySelectorAll('details').forEach(details => details.open = true)")
    wide = browser.execute_script(
        "return [...document.querySelectorAll('body *')].filter(e => !e.closest('thead'))"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + .5).map(e => e.outerHTML.slice(0, 200))"
    )
    assert wide == []
    assert browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == GROUND[scheme]
    assert browser.get_log("browser") == []  # nothing was refused, nothing failed to load


def test_the_matrix_holds_what_each_node_proved(browser: webdriver.Chrome, pages: Path) -> None:
    show(browser, pages / "passed.html")
    headings = [heading.text for heading in browser.find_elements(By.CSS_SELECTOR, "table.matrix thead th")]
    assert headings == ["Node", "tensorflow", "pytorch", "keras", "paddle", "jax"]
    rows = cells(browser, "matrix")
    assert [row[0] for row in rows] == ["head", "node1", "node2"]
    assert rows[0][1:3] == ["✓ 0.978\n2.21.0\nCPU · 6.4 s", "✓ 0.973\n2.13.0+cpu\nCPU · 5.7 s"]


def test_on_a_phone_every_value_stands_beside_its_name(browser: webdriver.Chrome, pages: Path) -> None:
    show(browser, pages / "passed.html", "phone")
    browser.find_element(By.CSS_SELECTOR, "details.node summary").click()
    cell = browser.find_element(By.CSS_SELECTOR, "table.environments tbody td")
    assert browser.execute_script("return getComputedStyle(arguments[0], '::before').content", cell) == '"Framework"'
    lines = browser.find_elements(By.CSS_SELECTOR, "table.environments tbody tr:first-child td")[:5]
    assert len({line.location["x"] for line in lines}) == 1
    assert cells(browser, "environments")[0][0] == "tensorflow"


@pytest.mark.parametrize("device", list(WIDTHS))
def test_thirty_nodes_that_passed_take_a_row_each_and_what_failed_comes_first_and_open(
    browser: webdriver.Chrome, pages: Path, device: str
) -> None:
    show(browser, pages / "thirty.html", device)
    nodes = browser.find_elements(By.CSS_SELECTOR, "details.node")
    assert len(nodes) == 30
    assert [node.get_attribute("open") for node in nodes[:2]] == ["true", None]
    assert nodes[0].find_element(By.TAG_NAME, "h3").text == "gpu17"
    heights = {node.size["height"] for node in nodes[1:]}
    assert max(heights) <= 56, "one row"
    assert nodes[1].text.split() == ["gpu00", *(["5/5", "trained"] if device == "desk" else ["5/5"]), "✓", "converged"]
    cut = "return [...document.querySelectorAll('details.node h3')].filter(e => e.scrollWidth > e.clientWidth).length"
    assert browser.execute_script(cut) == 0, "names are whole"
    if device == "phone":
        assert not browser.find_element(By.CSS_SELECTOR, "table.matrix").is_displayed(), "thirty nodes times five frameworks"
        assert browser.execute_script("return document.documentElement.scrollHeight") < 6000
    nodes[1].find_element(By.TAG_NAME, "summary").click()
    assert nodes[1].find_element(By.CSS_SELECTOR, "table.environments").is_displayed()


def test_a_nodes_environments_open_without_a_script(browser: webdriver.Chrome, pages: Path) -> None:
    show(browser, pages / "passed.html")
    assert cells(browser, "environments")[0][0] == ""
    browser.find_element(By.CSS_SELECTOR, "details.node summary").click()
    assert cells(browser, "environments")[0] == ["tensorflow", "TensorFlow 2.21.0", "CPU", "0.978", "6.4", "✓ passed"]


def test_failures_come_first_with_what_to_do_and_run_nothing(browser: webdriver.Chrome, pages: Path) -> None:
    show(browser, pages / "failed.html")
    first = browser.find_element(By.CSS_SELECTOR, "main > section")
    assert first.find_element(By.TAG_NAME, "h2").text == "What failed, and what to do"
    cards = [card.text for card in first.find_elements(By.CSS_SELECTOR, "article")]
    assert [card.splitlines()[0].split()[0] for card in cards] == [
        "gpu02", "gpu02", "login", "storage-with-a-rather-long-name.physics.example.edu",
    ]  # fmt: skip
    assert all("What to do: " in card for card in cards)
    assert "<script>" in cards[2]
    assert browser.title == "Failed: 1 of 4 nodes converged, 4 of 6 proofs passed - Trainyard"
