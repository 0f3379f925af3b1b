"""What container nodes receive from outside their lab's network, counted in bytes by the firewall of the machine that they run on."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from trainyard.containers import Lab

TABLE = ["iptables", "--wait", "--table", "mangle"]


class Counters:
    """A rule for each node that counts and lets pass; what nodes send each other, and what this machine sends them, is not counted."""

    def __init__(self, lab: Lab, nodes: Sequence[str]) -> None:
        self.marks = {node: f"trainyard-{lab.name}-{node}" for node in nodes}
        self.rules = []
        for node, mark in self.marks.items():
            network = lab.execute(node, ["ip", "-o", "route", "show", "dev", "eth0", "scope", "link"]).split()[0]
            self.rules.append(["FORWARD", "!", "-s", network, "-d", lab.address(node), "-m", "comment", "--comment", mark])

    def change(self, how: str) -> None:
        """Put the rules there (--insert) or take them away (--delete)."""
        for rule in self.rules:
            subprocess.run([*TABLE, how, *rule], check=True)

    def read(self) -> dict[str, int]:
        """Return the bytes that each node has received from outside so far."""
        said = subprocess.run([*TABLE, "-nvxL", "FORWARD"], check=True, capture_output=True, text=True).stdout
        return {
            node: int(re.findall(rf"^\s*\d+\s+(\d+) .*/\* {re.escape(mark)} \*/", said, re.MULTILINE)[0])
            for node, mark in self.marks.items()
        }


@contextmanager
def counted(lab: Lab, nodes: Sequence[str]) -> Iterator[Counters]:
    """Count while the block runs."""
    found = Counters(lab, nodes)
    found.change("--insert")
    try:
        yield found
    finally:
        found.change("--delete")
