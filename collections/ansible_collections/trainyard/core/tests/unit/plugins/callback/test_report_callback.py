"""The report of real runs: of several nodes, of failures with secrets near by, of a run that stopped, of other people's playbooks.

Environments are stood in for by scripts of a few lines, so that no framework is needed here.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible_runner
import pytest

BIN = Path(sys.executable).parent
COLLECTIONS = Path(__file__).parents[7]
USER = "nobody" if os.geteuid() == 0 else Path.home().owner()
CANARY = "canary-7391"

CONFIG = f"""\
[defaults]
inventory = hosts.yml
collections_path = {COLLECTIONS}
callbacks_enabled = trainyard.core.report
strategy = trainyard.core.mitogen_if_present
inject_facts_as_vars = false
[callback_report]
html = results/page.html
"""
HOSTS = """\
all:
  hosts:
    one: {ansible_connection: local}
    two: {ansible_connection: local}
  vars: {ansible_python_interpreter: /usr/bin/python3}
  children:
    away:
      hosts:
        three: {ansible_host: 127.0.0.1, ansible_port: 1, ansible_user: nobody}
"""
PROOF = """\
import json, os, sys
assert os.geteuid() != 0 and os.environ["HOME"] == os.getcwd() and "CANARY" not in os.environ
assert sys.argv[1:3] == ["--expect-device", "cpu"]
open("written-here", "w").close()
print("a framework's chatter")
print(json.dumps({"framework": "Demo", "version": "1", "device": "cpu", "device_name": os.getcwd(), "accuracy": 0.97, "seconds": 0.1}))
"""


@dataclass
class Project:
    """A folder with an ansible.cfg, as a user would have."""

    root: Path

    def play(self, text: str, *words: str, name: str = "site.yml", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook of this text."""
        (self.root / name).write_text(text)
        return self.run("ansible-playbook", name, *words, **environment)

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run one of Ansible's commands here."""
        return subprocess.run(
            [BIN / words[0], *words[1:]],
            cwd=self.root,
            env={**clean_environment(), "CANARY": CANARY, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def report(self) -> dict[str, Any]:
        """Return the report that was written."""
        found: dict[str, Any] = json.loads((self.root / ".trainyard" / "report.json").read_text())
        return found


def clean_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "TRAINYARD_"))}


@pytest.fixture
def project() -> Iterator[Project]:
    # Not under pytest's own folder, which an ordinary user may not enter.
    with tempfile.TemporaryDirectory(prefix="trainyard-report-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        (root / "ansible.cfg").write_text(CONFIG)
        (root / "hosts.yml").write_text(HOSTS)
        (root / "env" / "bin").mkdir(parents=True)
        (root / "env" / "bin" / "python").symlink_to("/usr/bin/python3")
        (root / "proofs").mkdir()
        (root / "proofs" / "train_good.py").write_text(PROOF)
        (root / "proofs" / "train_weak.py").write_text(PROOF.replace("0.97", "0.42"))
        (root / "proofs" / "train_slow.py").write_text("import time; time.sleep(60)\n")
        yield Project(root)


def proofs(root: Path, *environments: str, extra: str = "") -> str:
    entries = "".join(f"          - {{name: {name}, path: {root}/env}}\n" for name in environments)
    return f"""\
    - name: Train
      trainyard.core.training_proof:
        environments:
{entries}        proofs: {root}/proofs
        results: {root}/state/{{{{ inventory_hostname }}}}
        user: {USER}
{extra}"""


def test_a_run_that_passes(project: Project) -> None:
    text = f"""
- hosts: one,two
  gather_facts: true
  gather_subset: ["!all"]
  tasks:
{proofs(project.root, "good")}
- hosts: two
  gather_facts: false
  tasks:
    - ansible.builtin.command: "true"
"""
    done = project.play(text)
    assert done.returncode == 0, done.stdout + done.stderr
    report = project.report()
    assert (report["passed"], report["complete"], report["check_mode"], report["playbook"]) == (True, True, False, "site.yml")
    assert report["lab"] == project.root.name, "the folder of hosts.yml"
    one, two = report["nodes"]
    assert (one["name"], one["converged"], one["tasks"], one["changed"]) == ("one", True, 2, 0)
    assert (two["tasks"], two["changed"]) == (3, 1)
    assert one["seconds"] > 0
    assert one["system"]["kernel"] == os.uname().release
    (proof,) = one["environments"]
    assert (proof["framework"], proof["accuracy"], proof["passed"], proof["cached"]) == ("Demo", 0.97, True, False)
    page = project.root / "results" / "page.html"
    assert "2 of 2 nodes converged, 2 of 2 proofs passed." in page.read_text()
    assert stat.S_IMODE(page.stat().st_mode) == stat.S_IMODE((project.root / ".trainyard" / "report.json").stat().st_mode) == 0o644
    assert done.stdout.endswith("2 of 2 nodes converged, 2 of 2 proofs passed.\nReport: results/page.html and .trainyard/report.json\n"), (
        done.stdout
    )
    assert sorted(path.name for path in page.parent.iterdir()) == ["page.html"]  # nothing half-written stays beside it

    # The proof holds: it is not repeated, in check mode neither, until somebody asks for that.
    assert project.play(text, "--check", "--limit", "one").returncode == 0
    checked = project.report()
    assert (checked["check_mode"], checked["limit"], [node["name"] for node in checked["nodes"]]) == (True, "one", ["one"])
    assert checked["nodes"][0]["environments"] == [{**proof, "cached": True}]
    assert project.play(text.replace("user:", "rerun: true\n        user:"), "--limit", "one").returncode == 0
    assert project.report()["nodes"][0]["environments"][0]["cached"] is False


def test_a_run_that_fails_keeps_secrets_and_says_what_to_do(project: Project) -> None:
    done = project.play(
        f"""
- hosts: all
  gather_facts: false
  vars: {{secret: "{{{{ lookup('ansible.builtin.env', 'CANARY') }}}}"}}
  tasks:
    - name: Say hello
      ansible.builtin.ping:
    - name: Use the secret
      ansible.builtin.fail: {{msg: "cannot use {{{{ secret }}}}"}}
      no_log: true
      when: inventory_hostname == 'one'
    - name: Fail and be forgiven
      ansible.builtin.fail: {{msg: "forgiven"}}
      ignore_errors: true
    - name: Try
      block:
        - name: Fail and be rescued
          ansible.builtin.fail: {{msg: "rescued"}}
      rescue:
        - name: Rescue
          ansible.builtin.debug: {{msg: "fine"}}
{proofs(project.root, "good", "weak", "slow", "missing", extra="        timeout: 1")}
"""
    )
    assert done.returncode != 0
    report = project.report()
    assert not report["passed"]
    one, three, two = report["nodes"]
    assert [(node["name"], node["reachable"], node["converged"]) for node in (one, two, three)] == [
        ("one", True, False), ("two", True, False), ("three", False, False),
    ]  # fmt: skip
    (hidden,) = one["failures"]
    assert (hidden["task"], hidden["message"]) == ("Use the secret", "The message is hidden because the task handles a secret.")
    (unreachable,) = three["failures"]
    assert "nothing listens on the SSH port" in unreachable["what_to_do"], unreachable
    # What was forgiven or rescued is part of a failed node's story, in order.
    assert [failure["task"] for failure in two["failures"]] == ["Fail and be rescued", "Train"]
    good, weak, slow, missing = two["environments"]
    assert good["passed"]
    assert "accuracy 0.42" in weak["problem"]
    assert "within 1 seconds" in slow["problem"]
    assert "there is no proof named 'missing'" in missing["problem"]
    # Ansible's own display shows a failed task's message in spite of no_log; what is ours comes after the recap.
    ours = done.stdout.partition("PLAY RECAP")[2]
    for text in (json.dumps(report), (project.root / "results" / "page.html").read_text(), ours):
        assert CANARY not in text
    assert f"three: {unreachable['what_to_do']}" in ours
    state = project.root / "state" / "two"
    assert good["device_name"].startswith(f"{state}/.work/")  # each runs in a place of its own, and none is left
    assert sorted(path.name for path in state.iterdir()) == [".lock", "good.json", "slow.json", "weak.json"]


def test_a_run_that_one_node_stops_for_all_is_nobodys_success(project: Project) -> None:
    done = project.play(
        """
- hosts: one,two
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - name: Refuse
      ansible.builtin.assert: {that: inventory_hostname != 'one', fail_msg: "base_package_mirror is 'x'; it has to be tuna."}
- hosts: one,two
  gather_facts: false
  tasks:
    - ansible.builtin.command: "true"
"""
    )
    assert done.returncode != 0
    report = project.report()
    assert (report["complete"], report["passed"]) == (False, False)
    assert [(node["name"], node["converged"], len(node["failures"])) for node in report["nodes"]] == [("one", False, 1), ("two", False, 0)]
    assert "it has to be tuna." in (project.root / "results" / "page.html").read_text()


def test_check_mode_on_a_bare_node_runs_nothing_and_says_so(project: Project) -> None:
    play = f"- hosts: one\n  gather_facts: false\n  tasks:\n{proofs(Path('/nonexistent'), 'good')}"
    done = project.play(play, "--check")
    assert done.returncode == 0, done.stdout
    report = project.report()
    (proof,) = report["nodes"][0]["environments"]
    assert (report["passed"], proof["passed"], proof["problem"]) == (True, None, "not run (check mode)")


def test_proofs_never_run_as_root(project: Project) -> None:
    play = f"- hosts: one\n  gather_facts: false\n  tasks:\n{proofs(project.root, 'good')}"
    done = project.play(play.replace(f"user: {USER}", "user: root"))
    assert "proofs run as an ordinary user" in done.stdout
    assert project.play(play.replace(f"user: {USER}", "user: who")).returncode != 0
    assert "The user 'who' that is to run the proofs is not there" in project.report()["nodes"][0]["failures"][0]["message"]


PING = "- hosts: one\n  gather_facts: false\n  tasks: [{ansible.builtin.ping: }]\n"


def test_other_peoples_playbooks_and_single_commands_leave_the_report_alone(project: Project, tmp_path: Path) -> None:
    (tmp_path / "other.yml").write_text(PING)
    assert project.run("ansible-playbook", str(tmp_path / "other.yml")).returncode == 0
    assert project.run("ansible", "one", "-m", "ping").returncode == 0
    assert not (project.root / ".trainyard").exists()


def test_files_may_be_named_or_switched_off(project: Project, tmp_path: Path) -> None:
    done = project.play(PING, TRAINYARD_REPORT_JSON=str(tmp_path / "r.json"), TRAINYARD_REPORT_HTML="")
    assert done.stdout.endswith(f"Report: {tmp_path}/r.json\n")
    assert json.loads((tmp_path / "r.json").read_text())["passed"]
    assert not (project.root / "results").exists()


def test_an_error_in_here_costs_the_report_and_not_the_run(project: Project) -> None:
    (project.root / "results").write_text("a file where a folder should be")
    done = project.play(PING)
    assert done.returncode == 0
    assert "No report is written: " in done.stderr


def test_under_ansible_runner(project: Project, tmp_path: Path) -> None:
    (project.root / "site.yml").write_text(PING)
    done = ansible_runner.run(
        private_data_dir=str(tmp_path),
        project_dir=str(project.root),
        playbook="site.yml",
        quiet=True,
        envvars={"PATH": f"{BIN}:{os.environ['PATH']}", "ANSIBLE_CONFIG": str(project.root / "ansible.cfg")},
        inventory=str(project.root / "hosts.yml"),
    )
    assert done.rc == 0
    assert project.report()["passed"]


CHANGES = """
- hosts: one
  gather_facts: false
  tasks:
    - name: Write files
      ansible.builtin.copy: {dest: "{{ playbook_dir }}/{{ item }}", content: "new line\\n", mode: "0600"}
      loop: [first, second]
    - name: Write a secret
      ansible.builtin.copy: {dest: "{{ playbook_dir }}/secret", content: canary-7391, mode: "0600"}
      diff: false
    - name: Write what is hidden
      ansible.builtin.copy: {dest: "{{ playbook_dir }}/hidden", content: canary-7391, mode: "0600"}
      no_log: true
    - name: Change nothing
      ansible.builtin.debug: {msg: canary-7391}
"""


@pytest.mark.parametrize("words", [("--check",), ("--check", "--diff"), ("--diff",), ()])
def test_what_would_change_is_listed(project: Project, words: tuple[str, ...]) -> None:
    (project.root / "first").write_text("old line\n")
    (project.root / "first").chmod(0o600)
    done = project.play(CHANGES, *words)
    assert done.returncode == 0, done.stdout
    changes = project.report()["nodes"][0]["changes"]
    assert [(change["task"], change["items"]) for change in changes] == [
        ("Write files", ["first", "second"]),
        ("Write a secret", []),
        ("Write what is hidden", []),
    ]
    if "--diff" in words:
        assert "-old line\n+new line" in changes[0]["diff"]
        assert changes[0]["diff"].count("+new line") == 2
    assert [bool(change["diff"]) for change in changes] == ["--diff" in words, False, False]
    for name in (".trainyard/report.json", "results/page.html"):
        text = (project.root / name).read_text()
        assert CANARY not in text
        assert stat.S_IMODE((project.root / name).stat().st_mode) == (0o600 if "--diff" in words else 0o644)
    assert ("What would change" in text) == ("--check" in words)
