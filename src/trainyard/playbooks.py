"""Running a playbook for a person: live progress, then the table of what trains, then an honest exit status."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _report
from rich.table import Table
from rich.text import Text

from trainyard import ansible_options, runner
from trainyard.errors import TrainyardError
from trainyard.paths import STATE
from trainyard.progress import Progress, console

SITE = "site.yml"
VERIFY = "playbooks/verify.yml"


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the words that every verb with an inventory takes."""
    verb.add_argument("-i", "--inventory", required=True, type=Path, help="inventory file or folder")
    verb.add_argument("-l", "--limit", metavar="NODES", help="only these nodes (an Ansible pattern)")
    verb.add_argument("--json", type=Path, metavar="FILE", help="write the result for machines here too")
    verb.add_argument("--html", type=Path, metavar="FILE", help="write the result page here too")
    ansible_options.add(verb)


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
        with Progress(f"{playbook} on {inventory}") as progress:
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
    console.print(f"\nReport: {short(html_file or report_html)}  ({short(json_file or report_json)})", highlight=False)
    return 0 if outcome.status == 0 and report["passed"] else 1


def show(report: Mapping[str, Any]) -> None:
    """Print the table node x framework, what changed where that was asked for, and what failed."""
    checked = report.get("check_mode", False)
    proofs = [(node["name"], proof) for node in report["nodes"] for proof in node["environments"]]
    proofs = [(name, proof) for name, proof in proofs if not (checked and proof["passed"] is None)]  # check mode runs none
    if proofs:
        table = Table(title="What trains", title_justify="left")
        for heading in ("node", "environment", "framework", "version", "device"):
            table.add_column(heading)
        table.add_column("accuracy", justify="right")
        table.add_column("seconds", justify="right")
        table.add_column("")
        for node, proof in proofs:
            passed = proof["passed"]
            table.add_row(
                node,
                proof["environment"],
                proof["framework"],
                proof["version"] or "-",
                proof["device"] or "-",
                "-" if proof["accuracy"] is None else f"{proof['accuracy']:.3f}",
                "-" if proof["seconds"] is None else f"{proof['seconds']:.1f}",
                Text("trains", style="green")
                if passed
                else Text("not run" if passed is None else "FAILED", style="yellow" if passed is None else "bold red"),
            )
        console.print(table)
    for node in report["nodes"]:
        changed = f"{node['changed']} {'would change' if checked else 'changed'}"
        state = "unreachable" if not node["reachable"] else "FAILED" if not node["converged"] else "no error" if checked else "converged"
        console.print(f"{node['name']:<12} {state}, {changed}", highlight=False)
        for line in changes(node, checked):
            console.print(line, highlight=False, soft_wrap=True)
        for failure in node["failures"]:
            console.print(Text(f"  {failure['task']}: {failure['message']}", style="red"))
            console.print(Text(f"  -> {failure['what_to_do']}"))
    for line in ways_in(report):
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


def ways_in(report: Mapping[str, Any]) -> list[str]:
    """Return how to reach the web services that a report names, each with the fingerprint to compare before the password is typed."""
    ways = [
        f"{service['name']} on {node['name']}: {_report.tunnel(service['port'], node['name'])}, then open "
        f"https://127.0.0.1:{service['port']}\n    its certificate's SHA-256 fingerprint: {service['fingerprint']}"
        for node in report["nodes"]
        for service in node.get("services", [])
    ]
    return [*ways, _report.CERTIFICATE] if ways else []


def short(path: Path) -> str:
    """Return a path as one types it from here."""
    return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)
