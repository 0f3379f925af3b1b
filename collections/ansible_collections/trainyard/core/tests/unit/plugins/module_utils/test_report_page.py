"""The page's text: whole, escaped, and with nothing that would have to be fetched."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _report, _report_page

FIXTURES = Path(__file__).parents[8] / "tests" / "fixtures" / "report"
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Structure(HTMLParser):
    """Gathers what tests ask for, and fails on tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.seen if tag == name]


@pytest.fixture(params=["passed", "failed", "check", "stopped"])
def page(request: pytest.FixtureRequest) -> str:
    return rendered(request.param)


def rendered(name: str) -> str:
    return _report_page.render_html(_report.load(FIXTURES / f"{name}.json"))


def test_the_page_is_well_formed_and_says_its_language(page: str) -> None:
    structure = Structure(page)
    assert structure.tags("html") == [{"lang": "en"}]
    assert [tag for tag, _attributes in structure.seen if re.fullmatch("h[1-6]", tag)][:2] == ["h1", "h2"]
    assert all(head.get("scope") in {"col", "row"} for head in structure.tags("th"))
    ids = [attributes["id"] for _tag, attributes in structure.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(tag["aria-labelledby"]) for tag in structure.tags("section")} <= set(map(str, ids))


def test_the_page_needs_nothing_beside_it(page: str) -> None:
    structure = Structure(page)
    assert not {tag for tag, _attributes in structure.seen} & {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
    assert not [attributes for _tag, attributes in structure.seen if {"src", "style", "action"} & set(attributes)]
    assert all(re.fullmatch(r"https://127\.0\.0\.1:[0-9]+", str(tag["href"])) for _name, tag in structure.seen if "href" in tag)
    shown = re.sub(r"https://127\.0\.0\.1:[0-9]+", "", page)  # the near ends of tunnels
    assert not re.search(r"url\(|@import|https?:", shown)


def test_a_script_in_a_message_stays_text() -> None:
    assert "&lt;script&gt;document.title" in rendered("failed")
    assert "<script" not in rendered("failed")


def test_every_text_of_a_report_is_escaped() -> None:
    evil = "<img src=x onerror=alert(1)>\"'&"
    report = _report.load(FIXTURES / "failed.json")

    def spoil(value: object) -> object:
        if isinstance(value, dict):
            return {key: spoil(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [spoil(inner) for inner in value]
        return evil if isinstance(value, str) else value

    spoilt = {**report, **{key: spoil(report[key]) for key in report}}
    for node in spoilt["nodes"]:
        node["system"].pop("cores", None)
    text = _report_page.render_html(spoilt)
    Structure(text)
    assert "<img" not in text
    assert '"onerror' not in text


def test_the_summary_comes_first() -> None:
    assert "<h1>3 of 3 nodes converged, 16 of 16 proofs passed.</h1>" in rendered("passed")
    assert "<title>Passed: 3 of 3 nodes converged, 16 of 16 proofs passed - mylab - Trainyard</title>" in rendered("passed")
    assert "<h1>1 of 4 nodes converged, 4 of 6 proofs passed.</h1>" in rendered("failed")
    assert "<h1>Stopped early: 0 of 2 nodes converged.</h1>" in rendered("stopped")
    assert "<h1>2 of 2 nodes without an error, 4 of 6 proofs on record.</h1>" in rendered("check")


def test_what_failed_stands_before_what_trains_and_only_when_something_did() -> None:
    failed = rendered("failed")
    assert failed.index("What failed, and what to do") < failed.index("What trains") < failed.index(">Nodes<")
    assert "not proven to train" not in failed  # it is told environment by environment
    assert "What failed" not in rendered("passed")
    assert "What failed" not in rendered("check")
    assert "A failure stopped the run for all nodes" in rendered("stopped")


def test_a_state_is_never_told_by_colour_alone(page: str) -> None:
    assert re.findall(r'class="mark (?:good|bad|open)"', page)
    assert all(re.search(r">[✓✗○]</span> \S", mark) for mark in re.findall(r'<span class="mark.*?</span>.*?</span>', page))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "ground"),
    [("ink", "ground"), ("ink", "sheet"), ("ink", "code"), ("soft", "ground"), ("soft", "sheet"), ("good", "good-ground"),
     ("bad", "bad-ground"), ("open", "open-ground")],
)  # fmt: skip
def test_text_has_enough_contrast(scheme: str, ink: str, ground: str) -> None:
    blocks = re.findall(r":root \{(.*?)\}", rendered("passed"), re.DOTALL)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", blocks[0 if scheme == "light" else 1]))

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(colours[ink]), luminance(colours[ground])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_ways_in_are_shown_with_the_fingerprint() -> None:
    text = rendered("passed")
    assert "<code>ssh -L 8888:127.0.0.1:8888 head</code>" in text
    assert "<code>AB:" in text
    assert "How to reach the services" not in rendered("failed"), "a report of an older version names none"


def test_the_lab_its_gpus_and_links_to_its_services_are_named() -> None:
    report = _report.load(FIXTURES / "passed.json")
    report["nodes"][2]["gpus"] = ["NVIDIA H200", "NVIDIA H200"]
    text = _report_page.render_html(report)
    assert '<span class="brand">Trainyard · mylab</span>' in text
    assert " - mylab - Trainyard</title>" in text
    assert "<li>2 x NVIDIA H200</li>" in text
    assert text.count('<a href="https://127.0.0.1:8888"') == 1
    older = _report.load(FIXTURES / "failed.json")
    assert "lab" not in older, "a report of an older version"
    assert '<span class="brand">Trainyard</span>' in _report_page.render_html(older)


def test_nodes_that_trained_together_are_named_below_the_table() -> None:
    text = rendered("passed")
    assert "<strong>node1 + node2</strong> together" in text
    assert text.index('id="trains"') < text.index("<strong>node1 + node2</strong> together") < text.index('id="nodes"')
    assert '<span class="small">node1 + node2 together</span>' in text[text.index('id="nodes"') :]


def test_nodes_that_need_somebody_come_first_and_are_open() -> None:
    text = rendered("failed")
    shown = re.findall(r'<details class="node"( open)?>\s*<summary><h3>(.*?)</h3>.*?<span class="mark (\w+)">', text)
    assert [mark for _open, _name, mark in shown] == sorted((mark for _open, _name, mark in shown), key=["bad", "open", "good"].index)
    assert all((mark != "good") == bool(opened) for opened, _name, mark in shown)
    assert {mark for _open, _name, mark in shown} >= {"bad", "good"}


def test_many_services_are_shown_when_somebody_asks() -> None:
    report = _report.load(FIXTURES / "passed.json")
    service = {"name": "JupyterLab", "port": 8888, "fingerprint": "AB:CD"}
    for node in report["nodes"]:
        node["services"] = [service] * 3
    assert "<summary>9 services: tunnels and fingerprints</summary>" in _report_page.render_html(report)
    assert "tunnels and fingerprints" not in rendered("passed")
