"""The resolver's answers, for people: tables, reasons, and what stands against each other."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import Catalog
from ansible_collections.trainyard.core.plugins.plugin_utils._locked import Lock
from ansible_collections.trainyard.core.plugins.plugin_utils._plan_data import NONE, explanation_data, plan_data, unlocked_sentences
from ansible_collections.trainyard.core.plugins.plugin_utils._words import Answer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainyard.progress import console

CONFLICT = 2
"""Exit status where wishes clash."""
PASSED_OVER = 3
"""How many of the choices that were passed over are named without ``--all-reasons``."""
AGAINST = 6
"""How many of the reasons for a conflict are."""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the words about how an answer is shown."""
    verb.add_argument("--json", action="store_true", help="print the answer as JSON")
    verb.add_argument("--all-reasons", action="store_true", help="name everything that was passed over")


def today() -> str:
    """Return the month, such as "2026-11"."""
    return datetime.now(UTC).strftime("%Y-%m")


def show(rows: Catalog, found: Answer, arguments: argparse.Namespace, locks: Sequence[Lock] = ()) -> int:
    """Print an answer as the words of `add_arguments` want it, and return the exit status.

    With ``locks``, what none of them brings is pointed out.
    """
    if found.plan:
        plan = plan_data(rows, found.plan, locks)
        if arguments.json:
            _print_json({"status": "ok", **plan})
        else:
            show_plan(console, plan, every_reason=arguments.all_reasons)
            for sentence in unlocked_sentences(plan, locks) if locks else ():
                console.print(Text(sentence, style="yellow"), soft_wrap=True)
        return 0
    if found.explanation is None:
        raise AssertionError("an answer is a plan or an explanation")
    explanation = explanation_data(rows, found.explanation)
    if arguments.json:
        _print_json({"status": "conflict", **explanation})
    else:
        show_conflict(console, explanation, every_reason=arguments.all_reasons)
    return CONFLICT


def _print_json(data: Mapping[str, Any]) -> None:
    json.dump(data, sys.stdout, indent=2)
    print()


def show_plan(console: Console, plan: Mapping[str, Any], *, every_reason: bool = False) -> None:
    """Print a plan as `plan_data` gives it; nodes that get the same stand together."""
    for names, node in _alike(plan["nodes"]):
        console.print(Text(", ".join(names), style="bold"), Text(f"  {_machine(node)}"), sep="")
        for label, value in _stack(node):
            console.print(f"  {label:<8} {value}", highlight=False, markup=False, soft_wrap=True)
        console.print(_environments(node["environments"]))
        for warning in _warnings(node):
            console.print(Text(f"  ! {warning}", style="yellow"), soft_wrap=True)
        console.print("  why:", highlight=False)
        for reason in node["reasons"]:
            console.print(f"    {_sourced(reason)}", highlight=False, markup=False, soft_wrap=True)
        for name, placed in node["environments"].items():
            over = [reason for reason in placed["reasons"] if reason["text"].startswith("passed over")]
            chosen = [reason for reason in placed["reasons"] if reason not in over]
            for reason in [*chosen, *(over if every_reason else over[:PASSED_OVER])]:
                console.print(f"    {name}: {_sourced(reason)}", highlight=False, markup=False, soft_wrap=True)
            if not every_reason and len(over) > PASSED_OVER:
                console.print(f"    {name}: {len(over) - PASSED_OVER} more passed over (--all-reasons)", highlight=False)
        console.print()
    _fleet(console, plan["fleet"])


def show_conflict(console: Console, explanation: Mapping[str, Any], *, every_reason: bool = False) -> None:
    """Print why there is no plan, as `explanation_data` gives it, and the nearest set that works."""
    for conflict in explanation["conflicts"]:
        console.print(Text("These cannot be had together", style="bold red"), Text(f" on {', '.join(conflict['nodes'])}:"), sep="")
        for wish in conflict["wishes"]:
            console.print(f"  - {wish}", highlight=False, markup=False, soft_wrap=True)
        console.print("because", highlight=False)
        shown = conflict["reasons"] if every_reason else conflict["reasons"][:AGAINST]
        for reason in shown:
            console.print(f"  - {_sourced(reason)}", highlight=False, markup=False, soft_wrap=True)
        if len(shown) < len(conflict["reasons"]):
            console.print(f"  - {len(conflict['reasons']) - len(shown)} more of the kind (--all-reasons)", highlight=False)
        console.print()
    nearest = explanation["nearest"]
    if nearest["plan"] is None:
        console.print("No few changes make it work.")
        return
    console.print(Text("The nearest that works:", style="bold green"), Text(f" {', and '.join(nearest['changes'])}. Then:"), sep="")
    for names, node in _alike(nearest["plan"]["nodes"]):
        console.print(f"  {', '.join(names)}", highlight=False, markup=False)
        for label, value in _stack(node):
            console.print(f"    {label:<8} {value}", highlight=False, markup=False, soft_wrap=True)
        for name, placed in node["environments"].items():
            words = f"{', '.join(placed['requirements'])} on Python {placed['python']} ({placed['device'].upper()})"
            console.print(f"    {name}: {words}", highlight=False, markup=False, soft_wrap=True)


def _alike(nodes: Mapping[str, Any]) -> list[tuple[list[str], Any]]:
    groups: list[tuple[list[str], Any]] = []
    for name, node in nodes.items():
        match = next((names for names, other in groups if other == node), None)
        if match is None:
            groups.append(([name], node))
        else:
            match.append(name)
    return groups


def _machine(node: Mapping[str, Any]) -> str:
    names = [gpu["name"] for gpu in node["gpus"]]
    counted = [f"{names.count(name)} x {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)]
    return f"{node['os']}, {' and '.join(counted) or 'no GPU'}"


def _stack(node: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    driver = node["driver"]
    if driver is None:
        yield "driver", "none"
        return
    if driver["keep"]:
        yield "driver", f"{driver['version']}, the installed one"
    else:
        number = f" ({driver['version']})" if driver["version"] else ""
        yield "driver", f"R{driver['branch']}{number}, {driver['modules']} kernel module, from {driver['source'].replace('_', ' ')}"
    for toolkit in node["toolkits"]:
        inside = [f"{title} {toolkit[key]}" for key, title in (("cudnn", "cuDNN"), ("nccl", "NCCL")) if toolkit[key] != NONE]
        yield "CUDA", " with ".join([toolkit["version"], *([" and ".join(inside)] if inside else [])])
    if not node["toolkits"]:
        yield "CUDA", "none"


def _environments(placed: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2))
    for heading in ("environment", "install", "from", "device", "Python", "CUDA", "cuDNN"):
        table.add_column(heading, overflow="fold")
    for name, one in placed.items():
        index = one["frozen"] or ", ".join(f"index {key}" for key in one["indexes"]) or "the ordinary index"
        python = one["python"] + (f" ({one['python_from']})" if one["python_from"] != "system" else "")
        install = Text("\n".join(one["requirements"]))  # brackets in it are no markup
        table.add_row(name, install, index, one["device"], python, one["cuda"] or "-", one["cudnn"] or "-")
    return table


def _warnings(node: Mapping[str, Any]) -> list[str]:
    return [*node["warnings"], *(f"{name}: {text}" for name, placed in node["environments"].items() for text in placed["warnings"])]


def _sourced(reason: Mapping[str, str]) -> str:
    return reason["text"] + (f"  [{reason['source']}; {reason['trust']}]" if reason.get("source") else "")


def _fleet(console: Console, fleet: Mapping[str, Any]) -> None:
    for one in fleet["held_back"]:
        words = f"{', '.join(one['by'])} hold{'s' if len(one['by']) == 1 else ''} {one['environment']} back at {', '.join(one['now'])}; "
        console.print(Text(f"{words}the others alone could have {', '.join(one['could_be'])}.", style="yellow"), soft_wrap=True)
    for name in fleet["split"]:
        sets = "; ".join(f"{', '.join(one['requirements'])} on {', '.join(one['nodes'])}" for one in fleet["environments"][name])
        console.print(Text(f"{name}: no one wheel set runs on all its nodes: {sets}.", style="yellow"), soft_wrap=True)
