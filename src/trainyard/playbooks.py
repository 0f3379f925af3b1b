"""Running a playbook for a person: live progress, then the table of what trains, then an honest exit status."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _report
from rich import box
from rich.table import Table
from rich.text import Text

from trainyard import access, ansible_options, runner
from trainyard import inventory as inventory_files
from trainyard.access import short
from trainyard.errors import TrainyardError
from trainyard.paths import STATE
from trainyard.progress import Progress, console, phases_of

SITE = "site.yml"
VERIFY = "playbooks/verify.yml"
NAMED = 6
"""How many nodes with the same failure are named."""
ROOM_FOR_DETAILS = 64
"""Columns from which on the table of what trains has devices and numbers."""


def add_arguments(verb: argparse.ArgumentParser, *, tags: bool = True) -> None:
    """Add the arguments that every verb with an inventory takes, with Ansible's tags or without."""
    verb.add_argument("-i", "--inventory", required=True, type=Path, help="inventory file or folder")
    verb.add_argument("-l", "--limit", metavar="NODES", help="only these nodes (an Ansible pattern)")
    verb.add_argument("--json", type=Path, metavar="FILE", help="write the result for machines here too")
    verb.add_argument("--html", type=Path, metavar="FILE", help="write the result page here too")
    ansible_options.add(verb, playbook=tags)


def common(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `run` that those words stand for."""
    return {"limit": arguments.limit, "json_file": arguments.json, "html_file": arguments.html}


def run(
    playbook: str,
    inventory: Path,
    *,
    words: Sequence[str] = (),
    limit: str | None = None,
    variables: Mapping[str, Any] | None = None,
    json_file: Path | None = None,
    html_file: Path | None = None,
) -> int:
    """Run a playbook over an inventory and show the result.

    Returns:
        0 when every node converged and every proof that was run passed, else 1; 130 when interrupted.

    Raises:
        TrainyardError: there is no such playbook.
    """
    STATE.mkdir(mode=0o700, exist_ok=True)
    report_json, report_html = STATE / "report.json", STATE / "report.html"
    report_json.unlink(missing_ok=True)  # so that nobody takes an older run's result for this one's

    command = [*words]
    if limit:
        command += ["--limit", limit]
    if variables:
        command += ["--extra-vars", json.dumps(dict(variables))]
    # In a folder of its own, since another run from this checkout may be at work: the one's result must not pass for the other's.
    with tempfile.TemporaryDirectory(prefix="run-", dir=STATE) as folder:
        own_json, own_html = Path(folder, "report.json"), Path(folder, "report.html")
        with Progress(f"{playbook} on {short(inventory)}", phases_of(playbook)) as progress:
            outcome = runner.run(
                playbook,
                inventory,
                command,
                on_event=progress.event,
                environment={"TRAINYARD_REPORT_JSON": str(own_json), "TRAINYARD_REPORT_HTML": str(own_html)},
            )
        if outcome.interrupted:
            raise KeyboardInterrupt
        if not own_json.exists():
            console.print(outcome.output[-4000:], highlight=False, markup=False)
            raise TrainyardError("The playbook did not get as far as a result. Ansible's output is above.")
        report = json.loads(own_json.read_text())
        for source, target, asked in ((own_json, report_json, json_file), (own_html, report_html, html_file)):
            if asked:
                asked.write_text(source.read_text())
            if source.exists():
                source.replace(target)
    show(report)
    if not report["check_mode"] and (playbook == SITE or any(node.get("services") for node in report["nodes"])):
        _show_ways_in(report, inventory)
    console.print(f"\nReport: {short(html_file or report_html)}  ({short(json_file or report_json)})", highlight=False)
    return 0 if outcome.status == 0 and report["passed"] else 1


def show(report: Mapping[str, Any]) -> None:
    """Print the result in a sentence, the table node x framework, what changed where that was asked for, and what failed."""
    console.print(Text(_report.summary(report), style="bold green" if report["passed"] else "bold red"))
    checked = report.get("check_mode", False)
    proofs = [(_report.where(node, proof), proof) for node in report["nodes"] for proof in node["environments"]]
    proofs.sort(key=lambda found: len(found[1].get("nodes") or []))  # those on several nodes come last
    proofs = [(name, proof) for name, proof in proofs if not (checked and proof["passed"] is None)]  # check mode runs none
    if proofs:
        table = Table(title="What trains", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        roomy = console.width >= ROOM_FOR_DETAILS
        for heading in ("node", "environment", "version", *(("device",) if roomy else ())):
            table.add_column(heading, overflow="fold")
        for heading in ("accuracy", "seconds") if roomy else ():
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        for node, proof in proofs:
            details = [
                proof["device"] or "-",
                "-" if proof["accuracy"] is None else f"{proof['accuracy']:.3f}",
                "-" if proof["seconds"] is None else f"{proof['seconds']:.1f}",
            ]
            word, style = {True: ("trains", "green"), False: ("FAILED", "bold red"), None: ("not run", "yellow")}[proof["passed"]]
            table.add_row(node, proof["environment"], proof["version"] or "-", *(details if roomy else ()), Text(word, style=style))
        console.print(table)
    for node in report["nodes"]:
        changed = f"{node['changed']} {'would change' if checked else 'changed'}"
        state = "unreachable" if not node["reachable"] else "FAILED" if not node["converged"] else "no error" if checked else "converged"
        console.print(f"{node['name']:<12} {state}, {changed}", highlight=False)
        for line in changes(node, checked):
            console.print(line, highlight=False, soft_wrap=True)
    for (task, message, advice), names in failures(report).items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        console.print(Text(f"\n{', '.join(names[:NAMED])}{more}: {task}: {message}", style="red"))
        console.print(Text(f"  -> {advice}"))


def failures(report: Mapping[str, Any]) -> dict[tuple[str, str, str], list[str]]:
    """Return each failure, as task, message and what to do, with the nodes that have it."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for node in report["nodes"]:
        for failure in node["failures"]:
            found.setdefault((failure["task"], failure["message"], failure["what_to_do"]), []).append(node["name"])
    return found


def _show_ways_in(report: Mapping[str, Any], inventory: Path) -> None:
    """Print how to get in; a command stays whole, so that it can be copied."""
    try:
        hosts = inventory_files.listing(inventory)["_meta"]["hostvars"]
    except TrainyardError:  # the run itself got by; names are known in any case
        hosts = {}
    console.print()
    for line in access.ways_in(report, hosts, inventory if inventory.is_dir() else inventory.parent):
        console.print(line, highlight=False, soft_wrap=True)


def changes(node: Mapping[str, Any], checked: bool) -> list[str]:
    """Return what would change on a node, task by task; in a run that does it, only changes whose difference was asked for."""
    lines = []
    for change in node.get("changes", []):
        if checked or change["diff"]:
            items = f" ({', '.join(change['items'])})" if change["items"] else ""
            lines.append(f"  {change['role']}: {change['task']}{items}" if change["role"] else f"  {change['task']}{items}")
            lines += [f"      {line}" for line in change["diff"].splitlines()]
    return lines
