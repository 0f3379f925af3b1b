# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""The result of a run as one page for people: it needs nothing beside it, no network and no script."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _report

_STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f6f6f3; --sheet: #ffffff; --ink: #1c2428; --soft: #56626b; --line: #dfe2df; --code: #f2f3f0;
  --good: #12603f; --good-ground: #e2f2e8; --bad: #9b2217; --bad-ground: #fce9e6; --open: #6f4c00; --open-ground: #faf0d7;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #12171a; --sheet: #1a2125; --ink: #e5eaec; --soft: #a3b0b8; --line: #2d373d; --code: #11171a;
    --good: #86dcb0; --good-ground: #163528; --bad: #ffa89c; --bad-ground: #43201c; --open: #edcb7c; --open-ground: #3a2f14;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: break-word;
}
main, footer { max-width: 68rem; margin: 0 auto; padding: 0 1.5rem; }
main { padding-top: 3rem; }
h1 {
  font-size: clamp(1.6rem, 1.2rem + 1.8vw, 2.3rem); line-height: 1.2; letter-spacing: -.015em;
  margin: .9rem 0 .8rem; max-width: 34ch; text-wrap: balance;
}
h2 { font-size: 1.2rem; margin: 0 0 1rem; letter-spacing: -.005em; }
h3 { font-size: 1.05rem; margin: 0; min-width: 0; overflow-wrap: anywhere; }
p { margin: .4rem 0; }
section { margin-top: 2.8rem; }
.brand { color: var(--soft); font-weight: 600; letter-spacing: .02em; margin-right: .8rem; }
.soft { color: var(--soft); }
.facts { color: var(--soft); display: flex; flex-wrap: wrap; gap: .1rem 1.4rem; padding: 0; margin: 0; list-style: none; }
.mark { display: inline-block; border-radius: 999px; padding: .1rem .7rem; font-weight: 600; font-size: .9rem; white-space: nowrap; }
.good { color: var(--good); background: var(--good-ground); }
.bad { color: var(--bad); background: var(--bad-ground); }
.open { color: var(--open); background: var(--open-ground); }
.sheet { background: var(--sheet); border: 1px solid var(--line); border-radius: 12px; padding: 1.2rem 1.4rem; }
.sheet + .sheet, .sheet + p { margin-top: 1rem; }
.failure { border-left: 4px solid var(--bad); }
.head { display: flex; flex-wrap: wrap; gap: .3rem .9rem; align-items: baseline; }
pre {
  background: var(--code); border-radius: 8px; padding: .7rem .9rem; margin: .7rem 0; white-space: pre-wrap; overflow-wrap: anywhere;
  font: .88rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
code { font: .9em ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.head + .facts { margin-top: .35rem; }
.scroll { overflow-x: auto; padding: 0; }
table { border-collapse: collapse; width: 100%; }
th[scope=row] { overflow-wrap: anywhere; min-width: 7rem; }
th, td { text-align: left; vertical-align: top; padding: .7rem 1.1rem; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--soft); font-size: .88rem; font-weight: 600; }
.number { text-align: right; }
.small { display: block; color: var(--soft); font-size: .86rem; margin-top: .2rem; }
details { margin-top: .7rem; }
summary { cursor: pointer; color: var(--soft); font-size: .9rem; width: fit-content; border-radius: 4px; }
summary:hover { color: var(--ink); }
:focus-visible { outline: 2px solid var(--good); outline-offset: 2px; }
.changes { margin: .5rem 0 0; padding-left: 1.2rem; }
.changes li { margin: .25rem 0; overflow-wrap: anywhere; }
.list { padding: 0; }
.node { margin: 0; }
.node + .node { border-top: 1px solid var(--line); }
.node > summary {
  display: flex; gap: .3rem .9rem; align-items: center; width: auto; padding: .6rem 1.4rem; color: var(--ink); font-size: 1rem;
}
.node > summary::before { content: "\\25B8"; color: var(--soft); flex: none; }
.node[open] > summary::before { content: "\\25BE"; }
.node > summary::-webkit-details-marker { display: none; }
.node > summary h3 { flex: 1; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.node[open] > summary h3 { overflow-wrap: anywhere; white-space: normal; }
.node > summary .soft { white-space: nowrap; font-size: .9rem; }
.inside { padding: 0 1.4rem 1.2rem; }
a { color: inherit; }
a code { white-space: nowrap; }
.detail { margin: .7rem -1.4rem -1.2rem; overflow-x: auto; }
.detail th, .detail td { padding: .5rem 1.1rem; }
.detail tr > :first-child { padding-left: 1.4rem; }
.detail thead th { border-top: 1px solid var(--line); }
footer { color: var(--soft); font-size: .88rem; margin-top: 3rem; padding-bottom: 3rem; }
@media (min-width: 44.01rem) { .services td:nth-child(2) code { white-space: nowrap; } }
@media (max-width: 44rem) {
  main, footer { padding-left: 1rem; padding-right: 1rem; }
  main { padding-top: 1.6rem; }
  .sheet { padding: 1rem; }
  .scroll { padding: 0; }
  table, tbody, tr, th, td { display: block; width: auto; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
  tr { border-top: 1px solid var(--line); padding: .7rem 1rem; }
  tbody tr:first-child { border-top: 0; }
  th, td, .detail th, .detail td { border: 0; padding: .2rem 0; }
  .wide { display: none; }
  .overview { display: none; }  /* each node has the same below, in a row that opens */
  .list { padding: 0; }
  .node > summary { padding: .6rem 1rem; gap: .6rem; }
  .inside { padding: 0 1rem 1rem; }
  .detail { margin: .8rem -1rem -1rem; }
  .detail tr > :first-child { padding-left: 0; }
  .detail tbody tr:first-child { border-top: 1px solid var(--line); }
  td { display: flex; gap: .8rem; justify-content: space-between; }
  td > div { text-align: right; }
  td::before { content: attr(data-label); color: var(--soft); flex: none; max-width: 50%; overflow-wrap: anywhere; }
  td[colspan]::before { content: none; }
  td, td > div { min-width: 0; }
  .number { text-align: left; }
}
@media print {
  :root {
    --ground: #fff; --sheet: #fff; --ink: #000; --soft: #444; --line: #bbb; --code: #f4f4f4;
    --good: #0c4a30; --good-ground: #fff; --bad: #8a1208; --bad-ground: #fff; --open: #5c3f00; --open-ground: #fff;
  }
  body { font-size: 10pt; }
  main { padding-top: 0; }
  .mark { border: 1px solid currentColor; }
  .sheet, tr { break-inside: avoid; }
  summary { display: none; }
  .node > summary { display: flex; }
  .overview { display: block; }
  details::details-content { content-visibility: visible; block-size: auto; }
  h2 { break-after: avoid; }
}
"""

_GOOD, _BAD, _OPEN = "good", "bad", "open"
_MANY_NODES = 8
"""With more nodes than this the overview has a line for each; versions and devices are in the nodes' details."""
_MANY_SERVICES = 6
"""More services than this are shown when somebody asks for them."""
_SIGNS = {_GOOD: "✓", _BAD: "✗", _OPEN: "○"}


def render_html(report: Mapping[str, Any]) -> str:
    """Return the page for a report."""
    state, word = _state(report)
    text, lab = _report.summary(report), report.get("lab", "")  # which reports of older versions lack
    title = " - ".join(part for part in (f"{word}: {text.rstrip('.')}", lab, "Trainyard") if part)
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        # Whatever a message might hold, nothing is loaded and nothing runs.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{_e(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
        f'<header>\n<p><span class="brand">Trainyard{f" · {_e(lab)}" if lab else ""}</span>{_mark(state, word)}</p>\n<h1>{_e(text)}</h1>',
        _list(_about(report)),
        "</header>",
        _failures(report),
        _matrix(report),
        _services(report),
        _nodes(report),
        "</main>\n<footer>",
        f"<p>Written {_time(report['finished'])}. A framework trains when a small network of its own learns handwritten digits well enough "
        "on the device that was expected. The number is its accuracy on images that it has not seen; seconds count from the start "
        "of Python.</p>",
        "</footer>\n</body>\n</html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _state(report: Mapping[str, Any]) -> tuple[str, str]:
    if not report["passed"]:
        return _BAD, "Failed"
    return (_OPEN, "Check only") if report["check_mode"] else (_GOOD, "Passed")


def _about(report: Mapping[str, Any]) -> list[str]:
    about = [_time(report["started"]), _e(_duration(report["seconds"])), _e(report["playbook"])]
    if report["limit"]:
        about.append(f"limited to {_e(report['limit'])}")
    if report["tags"]:
        about.append(f"tags {_e(', '.join(report['tags']))}")
    about += map(_e, _report.counted(gpu for node in report["nodes"] for gpu in node.get("gpus", [])))
    changed = sum(node["changed"] for node in report["nodes"])
    about.append(
        f"{_report.count(changed, 'change')} {'would be made' if report['check_mode'] else 'made'}" if changed else "nothing changed"
    )
    return about


def _failures(report: Mapping[str, Any]) -> str:
    cards = []
    for node in report["nodes"]:
        broken = [proof for proof in node["environments"] if proof["passed"] is False]
        for failure in node["failures"]:
            if broken and "not proven to train" in failure["message"]:
                continue  # told below, environment by environment
            where = " · ".join(_e(part) for part in (failure["role"], failure["task"]) if part)
            cards.append(_card(node["name"], where, failure["message"], failure["what_to_do"]))
        for proof in broken:
            cards.append(_card(node["name"], f"environment {_e(proof['environment'])}", proof["problem"], proof["remedy"]))
    if not report["complete"]:
        note = "A failure stopped the run for all nodes: what stands here is as far as it came."
        cards.append(f'<p class="soft">{note} Nodes without a failure of their own are to be brought to the end by the next run.</p>')
    if not cards:
        return ""
    return '<section aria-labelledby="failed">\n<h2 id="failed">What failed, and what to do</h2>\n' + "\n".join(cards) + "\n</section>"


def _card(node: str, where: str, message: str, advice: str) -> str:
    return (
        f'<article class="sheet failure">\n<div class="head"><h3>{_e(node)}</h3><span class="soft">{where}</span></div>\n'
        f"<pre>{_e(message)}</pre>\n" + (f"<p><strong>What to do:</strong> {_prose(advice)}</p>\n" if advice else "") + "</article>"
    )


def _matrix(report: Mapping[str, Any]) -> str:
    columns = list(dict.fromkeys(proof["environment"] for proof in _report.all_proofs(report) if not proof.get("nodes")))
    if not columns:
        return ""
    rows, brief = [], len(report["nodes"]) > _MANY_NODES
    for node in _by_urgency(report):
        by_name = {proof["environment"]: proof for proof in node["environments"] if not proof.get("nodes")}
        cells = [_matrix_cell(column, by_name.get(column), brief) for column in columns]
        if not by_name:
            cells = [f'<td role="cell" colspan="{len(columns)}"><span class="soft">no proof was run here</span></td>']
        rows.append(f'<tr role="row"><th scope="row" role="rowheader">{_e(node["name"])}</th>{"".join(cells)}</tr>')
    return (
        '<section class="overview" aria-labelledby="trains">\n<h2 id="trains">What trains</h2>\n'
        '<div class="sheet scroll" tabindex="0" role="region" aria-labelledby="trains">\n'
        f"{_table('matrix', ['Node', *columns], rows)}</div>\n{_together(report)}</section>"
    )


def _together(report: Mapping[str, Any]) -> str:
    """Return a line for each proof of nodes that trained together."""
    lines = []
    for node in report["nodes"]:
        for proof in (proof for proof in node["environments"] if proof.get("nodes")):
            state, word = _proof_state(proof)
            about = [f"{proof['framework']} {proof['version']}", _device(proof), _seconds(proof["seconds"])]
            where = f"<strong>{_e(_report.where(node, proof))}</strong> together"
            lines.append(f"<p>{where} {_mark(state, word)} {_e(' · '.join(filter(None, map(str.strip, about))))}</p>\n")
    return "".join(lines)


def _matrix_cell(column: str, proof: Mapping[str, Any] | None, brief: bool) -> str:
    if proof is None:
        inside = '<span class="soft">not here</span>'
    else:
        state, word = _proof_state(proof)
        lines = [proof["version"], " · ".join(part for part in (_device(proof), _seconds(proof["seconds"])) if part)]
        inside = _mark(state, word) + "".join(f'<span class="small">{_e(line)}</span>' for line in lines if line and not brief)
    return f'<td role="cell" data-label="{_e(column)}"><div>{inside}</div></td>'


def _proof_state(proof: Mapping[str, Any]) -> tuple[str, str]:
    if proof["passed"] is None:
        return _OPEN, "not run"
    return (_GOOD, _accuracy(proof["accuracy"])) if proof["passed"] else (_BAD, "failed")


def _services(report: Mapping[str, Any]) -> str:
    rows = []
    for node in report["nodes"]:
        for service in node.get("services", []):
            command = _report.tunnel(service["port"], node["name"])
            cells = [
                ("Tunnel", f"<code>{_e(command)}</code>"),
                ("Then open", _link(f"https://127.0.0.1:{int(service['port'])}")),
                ("SHA-256 fingerprint of its certificate", f"<code>{_e(service['fingerprint'])}</code>"),
            ]
            inside = "".join(f'<td role="cell" data-label="{label}"><div>{cell}</div></td>' for label, cell in cells)
            name = f"{_e(service['name'])} on {_e(node['name'])}"
            rows.append(f'<tr role="row"><th scope="row" role="rowheader">{name}</th>{inside}</tr>')
    if not rows:
        return ""
    table = _table("services", ["Service", "Tunnel", "Then open", "SHA-256 fingerprint of its certificate"], rows)
    sheet = f'<div class="sheet scroll" tabindex="0" role="region" aria-labelledby="reach">\n{table}</div>\n'
    if len(rows) > _MANY_SERVICES:
        sheet = f"<details>\n<summary>{_report.count(len(rows), 'service')}: tunnels and fingerprints</summary>\n{sheet}</details>\n"
    return (
        f'<section aria-labelledby="reach">\n<h2 id="reach">How to reach the services</h2>\n{sheet}'
        f'<p class="soft">{_e(_report.CERTIFICATE)}</p>\n</section>'
    )


def _link(address: str) -> str:
    return f'<a href="{_e(address)}" rel="noreferrer"><code>{_e(address)}</code></a>'


def _nodes(report: Mapping[str, Any]) -> str:
    return (
        '<section aria-labelledby="nodes">\n<h2 id="nodes">Nodes</h2>\n<div class="sheet list">\n'
        + "\n".join(_node(node, report["check_mode"]) for node in _by_urgency(report))
        + "\n</div>\n</section>"
    )


def _by_urgency(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the nodes, those first that need somebody."""
    return sorted(report["nodes"], key=lambda node: _node_state(node, report["check_mode"])[2])


def _node_state(node: Mapping[str, Any], check_mode: bool) -> tuple[str, str, int]:
    """Return how a node is, in a word, and how urgent that is: 0 comes first."""
    if not node["reachable"]:
        return _BAD, "not reached", 0
    if not node["converged"]:
        return (_BAD, "failed", 0) if node["failures"] else (_OPEN, "not finished", 1)
    if any(proof["passed"] is False for proof in node["environments"]):
        return _BAD, "does not train", 0
    return _GOOD, "no error" if check_mode else "converged", 2


def _node(node: Mapping[str, Any], check_mode: bool) -> str:
    state, word, urgency = _node_state(node, check_mode)
    system, proofs = node["system"], node["environments"]
    about = [
        " ".join(str(system[key]) for key in ("distribution", "version") if key in system),
        f"Linux {system['kernel']}" if "kernel" in system else "",
        str(system.get("architecture", "")),
        _report.count(int(system["cores"]), "core") if "cores" in system else "",
        f"{int(system['memory_mb']) / 1024:.0f} GiB of memory" if "memory_mb" in system else "",
        *_report.counted(node.get("gpus", [])),
        f"{_report.count(node['tasks'], 'task')}, {node['changed']} changed",
        _duration(node["seconds"]) if node["seconds"] >= 1 else "",
    ]
    trained = f'{sum(proof["passed"] is True for proof in proofs)}/{len(proofs)}<span class="wide"> trained</span>' if proofs else ""
    head = f'<summary><h3>{_e(node["name"])}</h3><span class="soft">{trained}</span>{_mark(state, word)}</summary>\n'
    table = ""
    if proofs:
        headings = ["Environment", "Framework", "Device", "Accuracy", "Seconds", "Proof"]
        table = f'<div class="detail">\n{_table("environments", headings, map(_proof_row, proofs))}</div>\n'
    opened = " open" if urgency < 2 or (check_mode and node.get("changes")) else ""
    inside = f"{_list(_e(part) for part in about if part)}{_changes(node, check_mode)}{table}"
    return f'<details class="node"{opened}>\n{head}<div class="inside">\n{inside}</div>\n</details>'


def _changes(node: Mapping[str, Any], check_mode: bool) -> str:
    lines = []
    for change in node.get("changes", []):
        where = f'<span class="soft">{_e(change["role"])}</span> ' if change["role"] else ""
        items = f'<span class="small">{_e(", ".join(change["items"]))}</span>' if change["items"] else ""
        diff = f"<pre>{_e(change['diff'])}</pre>" if change["diff"] else ""
        lines.append(f"<li>{where}{_e(change['task'])}{items}{diff}</li>")
    if not lines:
        return ""
    what = "What would change" if check_mode else "What changed"
    return (
        f'<details{" open" if check_mode else ""}>\n<summary>{what}</summary>\n<ul class="changes">\n{"".join(lines)}\n</ul>\n</details>\n'
    )


def _proof_row(proof: Mapping[str, Any]) -> str:
    state, word = _proof_state(proof)
    build = f'<span class="small">{_e(proof["variant"])} build</span>' if proof["variant"] not in {"", proof["expected_device"]} else ""
    proven = f"{_mark(state, 'passed' if proof['passed'] else word)}"
    if proof["cached"]:
        proven += f'<span class="small">{_time(proof["ran_at"])}; nothing has changed since</span>'
    cells = [
        ("Framework", f"{_e(proof['framework'])} {_e(proof['version'])}{build}", ""),
        ("Device", _e(_device(proof) or "none"), ""),
        ("Accuracy", _e(_accuracy(proof["accuracy"])), "number"),
        ("Seconds", _e("" if proof["seconds"] is None else f"{proof['seconds']:.1f}") or "-", "number"),
        ("Proof", proven, ""),
    ]
    together = f'<span class="small">{_e(" + ".join(proof["nodes"]))} together</span>' if proof.get("nodes") else ""
    row = f'<th scope="row" role="rowheader">{_e(proof["environment"])}{together}</th>' + "".join(
        f'<td role="cell" data-label="{label}"{_class(kind)}><div>{inside}</div></td>' for label, inside, kind in cells
    )
    return f'<tr role="row">{row}</tr>'


def _table(kind: str, headings: Iterable[str], rows: Iterable[str]) -> str:
    # Roles are said although they go without saying: on a narrow screen the style lays rows out as blocks, and some browsers then forget.
    head = "".join(
        f'<th scope="col" role="columnheader"{_class("number" if heading in {"Accuracy", "Seconds"} else "")}>{_e(heading)}</th>'
        for heading in headings
    )
    return (
        f'<table class="{kind}" role="table">\n<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n'
        f'<tbody role="rowgroup">\n' + "\n".join(rows) + "\n</tbody>\n</table>\n"
    )


def _device(proof: Mapping[str, Any]) -> str:
    return str(proof["device_name"] or proof["device"].upper())


def _accuracy(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}\u00a0s"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _time(stamp: str) -> str:
    try:
        moment = datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return _e(stamp)
    return f'<time datetime="{_e(stamp)}">{moment.day} {moment:%B %Y, %H:%M} UTC</time>'


def _list(parts: Iterable[str]) -> str:
    return '<ul class="facts">' + "".join(f"<li>{part}</li>" for part in parts) + "</ul>\n"


def _mark(state: str, word: str) -> str:
    return f'<span class="mark {state}"><span aria-hidden="true">{_SIGNS[state]}</span> {_e(word)}</span>'


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _prose(text: str) -> str:
    """Return escaped text in which `words between backquotes` are set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _e(text))


def _e(value: object) -> str:
    return html.escape(str(value), quote=True)
