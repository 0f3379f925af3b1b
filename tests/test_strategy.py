"""The project's strategy does what Ansible's own does, small tasks that it does without a process of their own included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
INVENTORY = """\
[all:vars]
ansible_connection=local
ansible_python_interpreter={python}
[all]
one colour=red
two colour=green words='["a", "b"]'
three colour=blue wrong=true
"""
INCLUDED = """\
- name: Say it of what was included
  ansible.builtin.debug: {msg: "{{ word }} of {{ inventory_hostname }}"}
"""
PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: Register what is seen
      ansible.builtin.debug: {msg: "{{ colour | upper }}, {{ '{{ colour }}' }}"}
      register: seen

    - name: Do not say it of red
      ansible.builtin.debug: {var: seen.msg}
      when: colour != 'red'

    - name: Say each word
      ansible.builtin.debug: {msg: "{{ item }} of {{ colour }}"}
      loop: "{{ words | default([]) }}"

    - name: Include for each word
      ansible.builtin.include_tasks: included.yml
      loop: "{{ words | default(['one word']) }}"
      loop_control: {loop_var: word}

    - name: Go on after a failure
      ansible.builtin.assert: {that: colour != 'green', fail_msg: "{{ colour }} will not do"}
      ignore_errors: true

    - name: Rescue
      block:
        - name: Fail on one
          ansible.builtin.fail: {msg: "{{ colour }} is wrong"}
          when: wrong | default(false)
      rescue:
        - name: Know what failed
          ansible.builtin.debug: {msg: "{{ ansible_failed_task.name }}: {{ ansible_failed_result.msg }}"}

    - name: Count as changed
      ansible.builtin.debug: {msg: a change}
      changed_when: colour == 'blue'

    - name: Hide a secret
      ansible.builtin.assert: {that: "'canary' in secret"}
      no_log: true
      vars: {secret: canary}

    - name: Use what is nowhere
      ansible.builtin.assert: {that: nowhere.to.be.found}
      when: colour == 'red'

    - name: Only those that are left
      ansible.builtin.debug: {msg: "{{ ansible_play_hosts }}"}

    - name: Once for all
      ansible.builtin.debug: {msg: "{{ inventory_hostname }}"}
      run_once: true

    - name: Try until it is there
      ansible.builtin.assert: {that: true}
      until: true
      retries: 1
      delay: 0
"""


def played(folder: Path, strategy: str) -> dict[str, object]:
    """Run the playbook with a strategy and return its exit status, what each task said of each node, and the totals."""
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
        "ANSIBLE_STRATEGY": strategy,
        "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "collections"),
    }
    words = [str(BIN / "ansible-playbook"), "play.yml", "-i", "hosts"]
    done = subprocess.run(words, cwd=folder, env=environment, text=True, capture_output=True, check=False)
    assert done.stdout.startswith("{"), done.stderr + done.stdout
    report = json.loads(done.stdout)
    said = [
        (host, task["task"]["name"], json.dumps(result, sort_keys=True))
        for play in report["plays"]
        for task in play["tasks"]
        for host, result in task["hosts"].items()
    ]
    return {"status": done.returncode, "said": sorted(said), "totals": report["stats"]}


def test_small_tasks_end_as_they_do_with_the_linear_strategy(tmp_path: Path) -> None:
    """Templates, conditions, loops, includes, failures, rescues, totals: all is the same."""
    (tmp_path / "hosts").write_text(INVENTORY.format(python=sys.executable))
    (tmp_path / "ansible.cfg").write_text("[defaults]\nstdout_callback = ansible.posix.json\ndeprecation_warnings = false\n")
    (tmp_path / "included.yml").write_text(INCLUDED)
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    stock, ours = played(tmp_path, "linear"), played(tmp_path, "trainyard.core.mitogen_if_present")
    assert ours == stock
    assert stock["status"] == 2  # "red" ends at what is nowhere
    assert {host: (total["ok"], total["skipped"], total["failures"]) for host, total in stock["totals"].items()} == {
        "one": (6, 3, 1),
        "two": (13, 2, 0),
        "three": (10, 2, 0),
    }
