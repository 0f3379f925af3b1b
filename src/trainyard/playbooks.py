"""Running a playbook for a person: live progress, then the table of what trains, then an honest exit status."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from trainyard import runner
from trainyard.errors import TrainyardError
from trainyard.paths import STATE
from trainyard.progress import Progress, console

SITE = "site.yml"
VERIFY = "playbooks/verify.yml"


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the words that every verb with an inventory takes."""
    verb.add_argument("-i", "--inventory", required=True, type=Path, help="inventory file or folder")
    verb.add_argument("--limit", metavar="NODES", help="only these nodes (an Ansible pattern)")
    verb.add_argument("-e", "--extra-vars", action="append", default=[], metavar="VARS", help="variables, as ansible-playbook takes them")
    verb.add_argument("--json", type=Path, metavar="FILE", help="write the result for machines here too")
    verb.add_argument("--html", type=Path, metavar="FILE", help="write the result page here too")


def common(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `run` that those words stand for."""
    return {"limit": arguments.limit, "extra": arguments.extra_vars, "json_file": arguments.json, "html_file": arguments.html}


def run(
    playbook: str,
    inventory: Path,
    *,
    words: Sequence[str] = (),
    limit: str | None = None,
    extra: Sequence[str] = (),
    variables: Mapping[str, Any] | None = None,
    json_file: Path | None = None,
    html_file: Path | None = None,
) -> int:
    """Run a playbook over an inventory and show the result.

    Returns:
        0 when every node converged and every proof that was run passed, else 1; 130 when interrupted.

    Raises:
        TrainyardError: there is no such inventory or playbook.
    """
    if not inventory.exists():
        raise TrainyardError(f"There is no inventory {inventory}. inventory/example shows how one is written.")
    STATE.mkdir(mode=0o700, exist_ok=True)
    report_json, report_html = STATE / "report.json", STATE / "report.html"
    report_json.unlink(missing_ok=True)  # so that nobody takes an older run's result for this one's

    command = [*words]
    if limit:
        command += ["--limit", limit]
    for word in extra:
        command += ["--extra-vars", word]
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
    console.print(f"\nReport: {_short(html_file or report_html)}  ({_short(json_file or report_json)})", highlight=False)
    return 0 if outcome.status == 0 and report["passed"] else 1


def show(report: Mapping[str, Any]) -> None:
    """Print the table node x framework, and what failed."""
    proofs = [(node["name"], proof) for node in report["nodes"] for proof in node["environments"]]
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
        changed = f"{node['changed']} changed"
        state = "unreachable" if not node["reachable"] else "converged" if node["converged"] else "FAILED"
        console.print(f"{node['name']:<12} {state}, {changed}", highlight=False)
        for failure in node["failures"]:
            console.print(Text(f"  {failure['task']}: {failure['message']}", style="red"))
            console.print(Text(f"  -> {failure['what_to_do']}"))


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)
