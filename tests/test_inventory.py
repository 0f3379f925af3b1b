"""An inventory with a mistake is refused once, by file, line, column and fix, in every verb."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainyard import cli, inventory
from trainyard.paths import REPOSITORY

HOSTS = "all:\n  hosts:\n    gpu1: {ansible_host: 192.0.2.1}\n"
BROKEN = {
    "tab": ("hosts.yml", "all:\n  hosts:\n\tgpu1:\n", "hosts.yml, line 3, column 1", "Indent with spaces"),
    "bracket": ("group_vars/all.yml", "base_groups: [{name: lab}\nbase_users: []\n", "group_vars/all.yml, line 2", "bracket or brace"),
    "a space too few": (
        "hosts.yml",
        "all:\n  hosts:\n    r15:\n   r16:\n",
        "hosts.yml, line 4, column 4",
        "Indent the line like its neighbors",
    ),
    "colon": ("host_vars/gpu1.yml", "comment: Room 3: left\n", "host_vars/gpu1.yml, line 1, column 16", "in quotes"),
    "template": ("group_vars/gpu/x.yml", "a: {{ b }} c\n", "group_vars/gpu/x.yml, line 1", "begins with {{ needs quotes"),
    "quote": ("group_vars/all/base.yml", "a: 'b\nc: d\n", "group_vars/all/base.yml", "quote is not closed"),
    "no suffix": ("group_vars/all", "a: [\n", "group_vars/all, line", "bracket"),
}
VERBS = {
    "apply": [],
    "verify": [],
    "plan": ["--offline"],
    "add-node": ["new", "--address", "192.0.2.9"],
    "remove-node": ["gpu1"],
    "drain": ["gpu1"],
    "resume": ["gpu1"],
    "reboot": [],
}


def written(folder: Path, name: str, text: str) -> Path:
    (folder / "hosts.yml").write_text(HOSTS)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("kind", BROKEN)
def test_a_mistake_is_told_by_file_line_and_fix(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, text, place, fix = BROKEN[kind]
    assert cli.main(["apply", "-i", str(written(tmp_path, name, text))]) == 1
    printed = capsys.readouterr()
    assert place in printed.err
    assert fix in printed.err
    assert printed.err.count("is not YAML") == 1
    assert len(printed.err.splitlines()) <= 5
    assert printed.out == ""


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_refuses_it(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, text, place, _fix = BROKEN["bracket"]
    folder = written(tmp_path, name, text)
    assert cli.main([verb, "-i", str(folder), *VERBS[verb]]) == 1
    assert cli.main([verb, "-i", str(folder / "hosts.yml"), *VERBS[verb]]) == 1  # a file alone has the same variables
    assert capsys.readouterr().err.count(place) == 2


def test_what_is_encrypted_or_no_yaml_is_left_to_ansible(tmp_path: Path) -> None:
    folder = written(tmp_path, "group_vars/all/vault.yml", "$ANSIBLE_VAULT;1.1;AES256\n6162\n")
    written(tmp_path, "group_vars/all/secret.yml", "password: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\n")
    written(tmp_path, "keys/alice.pub", "ssh-ed25519 AAAA")
    written(tmp_path, "group_vars/all/README", "a: [ not yaml")
    inventory.check(folder)
    for name in ("lab", "example"):
        inventory.check(REPOSITORY / "inventory" / name)


def test_the_checkout_is_no_inventory(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["apply", "-i", str(REPOSITORY)]) == 1
    assert "is a folder of playbooks, not an inventory" in capsys.readouterr().err
