"""No secret in any output: a canary in every secret variable, looked for wherever something is written down."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.lab.conftest import site
from trainyard.containers import Lab
from trainyard.paths import STATE

pytestmark = pytest.mark.lab

CANARY = "Canary-bird-4711-sings"
# What is looked for stands in a file that is not searched, not in the words of the searching commands.
ON_THE_NODE = f"""
echo {base64.b64encode(CANARY.encode()).decode()} | base64 -d >/dev/shm/canary
grep -rlF -f /dev/shm/canary /etc /var/log /tmp /var/tmp /run /opt/trainyard/proofs /home /root /srv/data /usr/local 2>/dev/null
journalctl --no-pager --output=cat | grep -F -f /dev/shm/canary
cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -F -f /dev/shm/canary
rm /dev/shm/canary
"""

# What is set, and the task that fails of it.
FAILING = {
    "the task that has it": ({"jupyter_environment": "/opt/trainyard/envs/nowhere"}, "jupyter : Keep the hash of the password"),
    "an undefined template": (
        {"jupyter_listen": "{{ nowhere_defined ~ jupyter_password }}"},
        "jupyter : Validating arguments against arg spec 'check' - Refuse what the role could not do, before anything changes",
    ),
}


@pytest.fixture
def variables(tmp_path: Path) -> Path:
    """A file with the canary in every secret variable; not on the command line, where everybody could read it."""
    path = tmp_path / "secrets.json"
    path.write_text(json.dumps({"jupyter_password": CANARY, "tensorboard_password": CANARY}))
    return path


@pytest.mark.parametrize("words", [["--check", "--diff"], ["--diff"]], ids=["check", "real"])
def test_nothing_shows_the_secret(nodes: Lab, variables: Path, words: list[str]) -> None:
    try:
        done = site("-vvv", "--limit", "node2", "-e", f"@{variables}", *words)
        assert done.status == 0, done.failures()
        assert CANARY not in done.text
        assert nodes.execute("node2", ["sh", "-c", ON_THE_NODE]) == ""
        assert CANARY not in (STATE / "report.json").read_text() + (STATE / "report.html").read_text()
    finally:
        if "--check" not in words:
            assert site("--limit", "node2").status == 0


@pytest.mark.parametrize("case", FAILING)
def test_failures_do_not_show_it_either(nodes: Lab, variables: Path, case: str) -> None:
    values, task = FAILING[case]
    done = site("-vvv", "--diff", "--limit", "node2", "-e", f"@{variables}", "-e", json.dumps(values))
    try:
        assert done.status != 0
        assert done.results[task, "node2"].get("failed"), done.results.keys()
        assert CANARY not in done.text
    finally:
        assert site("--limit", "node2").status == 0
