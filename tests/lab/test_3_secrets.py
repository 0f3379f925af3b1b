"""No secret in any output: a canary in every secret variable, looked for wherever something is written down."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
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


class Watch(threading.Thread):
    """Looks at the arguments and environments of all processes, on this machine and in its containers, as long as a run lasts."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.looks = 0
        self.seen: set[str] = set()

    def run(self) -> None:
        """Look, over and over."""
        while not self.over.wait(0.01):
            self.looks += 1
            for process in Path("/proc").glob("[0-9]*"):
                for part in ("cmdline", "environ"):
                    with suppress(OSError):
                        if CANARY.encode() in (process / part).read_bytes():
                            self.seen.add(f"{part} of {(process / 'comm').read_text()}")

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_words: object) -> None:
        self.over.set()
        self.join()


def on_the_controller() -> set[str]:
    """Return the files below the folders for temporary files in which the canary stands; the variables' own file lies in pytest's."""
    # No other file system is read: a base layer that is made meanwhile has its /proc below /tmp, and some files there never end.
    files = ["find", "/tmp", "/var/tmp", str(STATE), "-xdev", "-name", "pytest-*", "-prune", "-o", "-type", "f"]
    words = [*files, "-exec", "grep", "-lF", "--", CANARY, "{}", "+"]
    return set(subprocess.run(words, capture_output=True, text=True, check=False, timeout=600).stdout.splitlines())


@pytest.fixture(autouse=True)
def _nothing_new_on_the_controller() -> Iterator[None]:
    before = on_the_controller()  # a checkout below /tmp, say
    yield
    assert on_the_controller() <= before


@pytest.fixture
def variables(tmp_path: Path) -> Path:
    """A file with the canary in every secret variable; not on the command line, where everybody could read it."""
    path = tmp_path / "secrets.json"
    path.write_text(json.dumps({"jupyter_password": CANARY, "tensorboard_password": CANARY}))
    return path


@pytest.mark.parametrize("words, secret, part", [([CANARY], "", "cmdline"), ([], CANARY, "environ")])
def test_what_is_looked_for_while_a_run_lasts_would_be_seen(words: list[str], secret: str, part: str) -> None:
    with Watch() as watch:
        subprocess.run(["sh", "-c", "sleep 1; :", "sh", *words], env={"PATH": "/usr/bin:/bin", "SECRET": secret}, check=True)
    assert {seen.split()[0] for seen in watch.seen} == {part}


@pytest.mark.parametrize("words", [["--check", "--diff"], ["--diff"]], ids=["check", "real"])
def test_nothing_shows_the_secret(nodes: Lab, variables: Path, words: list[str]) -> None:
    try:
        with Watch() as watch:
            done = site("-vvv", "--limit", "node2,head", "-e", f"@{variables}", *words)
        assert done.status == 0, done.failures()
        assert CANARY not in done.text
        assert watch.seen == set()
        assert watch.looks > 20
        assert nodes.execute("node2", ["sh", "-c", ON_THE_NODE]) == ""
        assert CANARY not in (STATE / "report.json").read_text() + (STATE / "report.html").read_text()
    finally:
        if "--check" not in words:
            assert site("--limit", "node2,head").status == 0


@pytest.mark.parametrize("case", FAILING)
def test_failures_do_not_show_it_either(nodes: Lab, variables: Path, case: str) -> None:
    values, task = FAILING[case]
    done = site("-vvv", "--diff", "--limit", "node2,head", "-e", f"@{variables}", "-e", json.dumps(values))
    try:
        assert done.status != 0
        assert done.results[task, "node2"].get("failed"), done.results.keys()
        assert CANARY not in done.text
    finally:
        assert site("--limit", "node2,head").status == 0
