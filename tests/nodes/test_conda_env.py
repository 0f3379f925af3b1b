"""Conda environments on a node, from a channel of real parts on its loopback: made, kept, repaired, refused, exported, removed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import conda_installer_stand_in
from tests.support import Play, ansible_playbook, inventory_of, play
from trainyard.containers import Lab
from trainyard.paths import REPOSITORY

pytestmark = pytest.mark.nodes

TOOLS = "/opt/trainyard/envs/conda-tools"
PREFIX = "/opt/trainyard/envs/paper"
TRUSTING = ["env", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"]
ALIAS = "http://127.0.0.1:8043"
WAIT = f"""
import time, urllib.request
for _ in range(50):
    try:
        urllib.request.urlopen("{ALIAS}")
        break
    except OSError:
        time.sleep(0.2)
"""
PAPER = {"name": "paper", "channels": ["lab"], "dependencies": ["python=3.11", "packaging=24.2", {"pip": ["idna==3.10"]}]}


@pytest.fixture(scope="module")
def channel(node: Lab, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The node with the tools and a channel at its loopback."""
    variables = {
        "framework_env_environments": [],
        "base_ca_certificates": "{{ query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt') }}",
    }
    inventory = inventory_of(node, tmp_path_factory.mktemp("inventory"), variables)
    data = yaml.safe_load(inventory.read_text())
    data["all"]["children"] = {"conda": {"hosts": {"head": None}}}
    inventory.write_text(yaml.safe_dump(data))
    for book in ("base", "frameworks"):
        done = ansible_playbook(REPOSITORY / "playbooks" / f"{book}.yml", inventory, timeout=900)
        assert done.status == 0, done.failures() or done.text[-3000:]
    copy = {"src": str(REPOSITORY / "tests" / "conda_channel.py"), "dest": "/srv/conda_channel.py", "mode": "0644"}
    done = play(node, tmp_path_factory.mktemp("copy"), [{"name": "copy", "ansible.builtin.copy": copy}])
    assert done.status == 0, done.failures()
    node.execute("head", [*TRUSTING, f"{TOOLS}/bin/python", "/srv/conda_channel.py", "/srv/channels/lab", f"{TOOLS}/bin/uv"])
    serve(node, "start")
    return node


def serve(node: Lab, what: str) -> None:
    """Start or stop what serves the channel."""
    if what == "stop":
        node.execute("head", ["systemctl", "stop", "channel.service"])
        return
    server = ["python3", "-m", "http.server", "8043", "--bind", "127.0.0.1", "--directory", "/srv/channels"]
    node.execute("head", ["systemd-run", "--unit=channel", "--collect", *server])
    node.execute("head", ["python3", "-c", WAIT])


def conda_envs(node: Lab, folder: Path, wishes: Sequence[Mapping[str, Any]], *words: str) -> list[dict[str, Any]]:
    """Run the module with one wish after another in a play, `check` among them for a check alone; return what it said to each."""
    tasks: list[dict[str, Any]] = []
    for number, wish in enumerate(wishes):
        given = {"path": PREFIX, "channel_alias": ALIAS, "cache": "/opt/trainyard/conda/.cache", **wish}
        checked = bool(given.pop("check", False))
        if given.get("state") != "absent" and "explicit" not in given:
            given.setdefault("environment", PAPER)
        only = {"check_mode": True} if checked else {}
        tasks.append({"name": str(number), "trainyard.core.conda_env": given, "ignore_errors": True, **only})
    done = play(node, folder, tasks, words)
    assert done.status == 0, done.text[-3000:]
    return [dict(done.results[str(number), "head"]) for number in range(len(tasks))]


def actions(node: Lab, folder: Path, *wishes: Mapping[str, Any], words: Sequence[str] = ()) -> list[list[str]]:
    """Return what the module did, or would do, for each wish."""
    said = conda_envs(node, folder, wishes, *words)
    assert not [one["msg"] for one in said if one.get("failed")]
    return [one["actions"] for one in said]


def refusals(node: Lab, folder: Path, *wishes: Mapping[str, Any]) -> list[str]:
    """Return why the module refused each wish."""
    said = conda_envs(node, folder, wishes)
    assert all(one.get("failed") for one in said), said
    return [str(one["msg"]) for one in said]


def there(node: Lab, pattern: str) -> str:
    """Return what there is by a pattern of paths."""
    return node.execute("head", ["sh", "-c", f"ls -d {pattern} 2>/dev/null || true"]).strip()


def python(node: Lab, script: str, prefix: str = PREFIX) -> str:
    """Run Python in an environment as an ordinary user."""
    return node.execute("head", ["runuser", "-u", "nobody", "--", f"{prefix}/bin/python", "-c", script]).strip()


@pytest.fixture(scope="module")
def paper(channel: Lab, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What was done to make the environment."""
    checked, done = actions(channel, tmp_path_factory.mktemp("make"), {"check": True}, {})
    assert checked == done, "check mode tells the truth"
    return done


def test_it_is_made_of_conda_and_pip(paper: list[str], channel: Lab) -> None:
    assert paper == ["create it", "add packaging 24.2", "add python 3.11.2", "add idna 3.10 (pip)"]
    script = "import sys, ssl, sqlite3, packaging, idna; print(sys.prefix, packaging.__version__, idna.__version__)"
    assert python(channel, script) == f"{PREFIX} 24.2 3.10"


def test_a_second_run_has_nothing_to_do_and_asks_nobody(paper: list[str], channel: Lab, tmp_path: Path) -> None:
    serve(channel, "stop")
    try:
        assert actions(channel, tmp_path, {}, {"check": True}, words=["--diff"]) == [[], []]
    finally:
        serve(channel, "start")


def test_what_was_added_by_hand_stays_unless_it_has_to_be_exact(paper: list[str], channel: Lab, tmp_path: Path) -> None:
    channel.execute("head", [*TRUSTING, f"{TOOLS}/bin/uv", "pip", "install", "--quiet", "--python", f"{PREFIX}/bin/python", "six"])
    exact, gone = {"state": "exact"}, ["remove six 1.17.0 (pip)"]
    assert actions(channel, tmp_path, {}, {**exact, "check": True}, exact, exact, {}) == [[], gone, gone, [], []]


def test_a_change_is_seen_and_made(paper: list[str], channel: Lab, tmp_path: Path) -> None:
    newer = {**PAPER, "dependencies": ["python=3.11", "packaging", "six", {"pip": ["idna==3.11"]}], "variables": {"PAPER": 7}}
    newest = {**newer, "dependencies": ["python=3.11", "packaging>=25", {"pip": ["idna==3.11"]}]}
    # What is there is kept as long as it fits.
    assert actions(channel, tmp_path, {"environment": newer}, {"environment": newest}) == [
        ["add six 1.17.0", "change idna 3.10 to 3.11 (pip)"],
        ["change packaging 24.2=0 to 25.0=0"],
    ]
    assert json.loads(channel.execute("head", ["cat", f"{PREFIX}/conda-meta/state"]))["env_vars"] == {"PAPER": "7"}
    assert python(channel, "import six, packaging; print(packaging.__version__)") == "25.0"
    assert actions(channel, tmp_path, {"state": "exact"}) == [
        ["remove six 1.17.0", "change packaging 25.0=0 to 24.2=0", "change idna 3.11 to 3.10 (pip)"]
    ]


def test_damage_is_repaired(paper: list[str], channel: Lab, tmp_path: Path) -> None:
    site = f"{PREFIX}/lib/python3.11/site-packages"
    channel.execute("head", ["sh", "-c", f"echo broken > {site}/packaging/version.py; rm {site}/idna/core.py"])
    expected = ["repair packaging: its files were changed", "repair idna: idna/core.py is missing (pip)"]
    assert actions(channel, tmp_path, {"check": True}, {}, {}) == [expected, expected, []]
    assert python(channel, "import packaging.version, idna.core; print(1)") == "1"


def test_what_was_interrupted_is_finished(paper: list[str], channel: Lab, tmp_path: Path) -> None:
    """A new one is made beside its place; one that is changed has an open marker."""
    wish = {"path": "/opt/trainyard/envs/begun"}
    channel.execute("head", ["sh", "-c", "mkdir -p /opt/trainyard/envs/.begun.new/conda-meta; echo {} >/opt/trainyard/envs/.begun.new/x"])
    ((first, *_rest),) = actions(channel, tmp_path, wish)
    assert first == "create it"
    assert there(channel, f"{wish['path']}/x") == ""
    spoil = "sed -i 's/true/false/' .trainyard-env.json; : >conda-meta/packaging-24.2-0.json"
    channel.execute("head", ["sh", "-c", f"cd {wish['path']}; {spoil}"])
    gone = {**wish, "state": "absent"}
    finished = ["finish what was interrupted", "add packaging 24.2"]
    assert actions(channel, tmp_path, wish, wish, gone, gone) == [finished, [], ["remove it"], []]


def test_an_export_makes_the_same_again(paper: list[str], channel: Lab, tmp_path: Path) -> None:
    done = play(channel, tmp_path, [{"name": "info", "trainyard.core.conda_env_info": {"path": PREFIX}}])
    assert done.status == 0, done.failures()
    told = done.results["info", "head"]
    assert f"- {ALIAS}/lab" in told["environment"]
    assert "- packaging=24.2=0" in told["environment"]
    assert "- idna==3.10" in told["environment"]
    assert told["requirements"] == "idna==3.10\npackaging==24.2\n"
    wish = {"path": "/opt/trainyard/envs/again", "explicit": told["explicit"], "state": "exact"}
    assert actions(channel, tmp_path, wish, wish) == [["create it", "add packaging 24.2", "add python 3.11.2"], []]
    assert python(channel, "import packaging; print(packaging.__version__)", wish["path"]) == "24.2"
    assert actions(channel, tmp_path, {"path": wish["path"], "state": "absent"}) == [["remove it"]]


WRONG = {
    "unknown key": ({"environment": {**PAPER, "dependancies": []}}, ["dependancies", "dependencies"]),
    "unsatisfiable": (
        {"environment": {**PAPER, "dependencies": ["python=3.11", "packaging=25", "demanding"]}},
        ["demanding", "packaging <24"],
    ),
    "unknown package": ({"environment": {**PAPER, "dependencies": ["python=3.11", "nosuchthing"]}}, ["nosuchthing"]),
    "no spec": ({"environment": {**PAPER, "dependencies": ["python >>3"]}}, ["dependencies", ">>3"]),
    "channel down": (
        {"environment": {**PAPER, "channels": ["http://127.0.0.1:9/none"]}},
        ["did not answer", "127.0.0.1:9", "channel_alias"],
    ),
    "pip": ({"environment": {**PAPER, "dependencies": ["python", {"pip": ["no-such-package-4711"]}]}}, ["pip", "no-such-package-4711"]),
    "checksum": (
        {"explicit": f"@EXPLICIT\n{ALIAS}/lab/noarch/demanding-1.0-0.tar.bz2#{'0' * 64}\n"},
        ["demanding", "hash mismatch", "0" * 64],
    ),
}


def test_what_cannot_be_is_refused_and_nothing_changes(paper: list[str], channel: Lab, tmp_path: Path) -> None:
    """Of an environment that is there, and of one that is not."""
    before = there(channel, "/opt/trainyard/envs/*")
    new = refusals(channel, tmp_path, *[{**wish, "path": "/opt/trainyard/envs/never"} for wish, _words in WRONG.values()])
    said = new + refusals(channel, tmp_path, *[wish for name, (wish, _words) in WRONG.items() if name != "checksum"])
    for message, (_wish, words) in zip(said, [*WRONG.values(), *list(WRONG.values())[:-1]], strict=True):
        assert all(word in message for word in words), message
        assert "Traceback" not in message
    assert there(channel, "/opt/trainyard/envs/*") == before
    assert actions(channel, tmp_path, {}) == [[]]


def test_what_is_somebody_elses_stays(paper: list[str], channel: Lab, tmp_path: Path) -> None:
    folder, users = "/opt/trainyard/envs/folder", "/opt/trainyard/envs/users"
    channel.execute(
        "head", ["sh", "-c", f"mkdir -p {folder} && touch {folder}/file; cp -a {PREFIX} {users}; rm {users}/.trainyard-env.json"]
    )
    wishes = [{"path": folder}, {"path": users}, {"path": users, "state": "absent"}, {"path": TOOLS}]
    for message, word in zip(refusals(channel, tmp_path, *wishes), ["no conda", "adopt", "stays", "another kind"], strict=True):
        assert word in message
    assert actions(channel, tmp_path, {"path": users, "adopt": True}) == [["take it over"]]


def test_a_full_disk_is_said_before(paper: list[str], channel: Lab, tmp_path: Path) -> None:
    channel.execute("head", ["sh", "-c", "mkdir -p /mnt/small && mount -t tmpfs -o size=40m tmpfs /mnt/small"])
    try:
        (said,) = refusals(channel, tmp_path, {"path": "/mnt/small/paper"})
        assert "/mnt/small" in said
        assert "Make room" in said
    finally:
        channel.execute("head", ["umount", "/mnt/small"])


@dataclass
class Role:
    """The role on the node: an installer that stands in for Miniforge's, and environments for everybody."""

    lab: Lab
    inventory: Path

    def run(self, playbook: str, *words: str, environments: list[dict[str, str]], **variables: Any) -> Play:
        """Run a playbook with environments."""
        data = yaml.safe_load(self.inventory.read_text())
        data["all"]["vars"] |= {"anaconda_environments": environments, **variables}
        path = self.inventory.with_name("wishes.yml")
        path.write_text(yaml.safe_dump(data))
        return ansible_playbook(REPOSITORY / "playbooks" / playbook, path, words, timeout=600)


@pytest.fixture(scope="module")
def role(channel: Lab, tmp_path_factory: pytest.TempPathFactory) -> Role:
    """The node with conda, which is a stand-in here."""
    folder = tmp_path_factory.mktemp("role")
    installer, digest = conda_installer_stand_in.make(folder, "26.1.0-0")
    copy = {"src": str(installer), "dest": "/srv/", "mode": "0644"}
    assert play(channel, folder, [{"name": "copy", "ansible.builtin.copy": copy}]).status == 0
    wishes = {
        "anaconda_source": f"/srv/{installer.name}",
        "anaconda_version": "26.1.0-0",
        "anaconda_installer": {"sha256": digest, "size_mb": 3, "installed_mb": 30},
    }
    inventory = inventory_of(channel, folder, wishes)
    data = yaml.safe_load(inventory.read_text())
    data["all"]["children"] = {"conda": {"hosts": {"head": None}}}
    inventory.write_text(yaml.safe_dump(data))
    return Role(channel, inventory)


def test_environments_for_everybody_are_kept_in_step_with_their_files(role: Role, tmp_path: Path) -> None:
    paths = {name: f"/opt/trainyard/envs/{name}" for name in ("shared", "locked")}
    file, lock = tmp_path / "shared.yml", tmp_path / "locked.txt"
    said = {"channels": [f"{ALIAS}/lab"], "dependencies": ["python=3.11", "packaging=24.2"]}
    file.write_text(yaml.safe_dump(said))
    both: list[dict[str, str]] = [{"name": "shared", "file": str(file)}]
    checked = role.run("conda.yml", "--check", "--diff", environments=both)
    assert checked.status == 0, checked.failures() or checked.text[-2000:]
    done = role.run("conda.yml", environments=both)
    assert done.status == 0, done.failures() or done.text[-2000:]
    assert python(role.lab, "import packaging; print(packaging.__version__)", paths["shared"]) == "24.2"

    told = play(role.lab, tmp_path, [{"name": "info", "trainyard.core.conda_env_info": {"path": paths["shared"]}}]).results["info", "head"]
    lock.write_text(told["explicit"])
    both.append({"name": "locked", "file": str(lock)})
    assert role.run("conda.yml", environments=both).changed == {"head": 1}
    assert role.run("conda.yml", environments=both).changed == {"head": 0}
    assert role.run("conda.yml", "--check", "--diff", environments=both).changed == {"head": 0}

    file.write_text(yaml.safe_dump({**said, "dependencies": ["python=3.11", "packaging=25.0"]}))
    assert role.run("conda.yml", environments=both).changed == {"head": 1}
    assert python(role.lab, "import packaging; print(packaging.__version__)", paths["shared"]) == "25.0"
    assert python(role.lab, "import packaging; print(packaging.__version__)", paths["locked"]) == "24.2"

    gone = [both[0], {"name": "locked", "state": "absent"}]
    assert role.run("conda.yml", environments=gone).changed == {"head": 1}
    assert role.run("conda.yml", environments=gone).changed == {"head": 0}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"dependencies": ["python=3.11", "nosuchthing"], "channels": [f"{ALIAS}/lab"]}, ["nosuchthing"]),
        ({"dependencies": ["python=3.11"], "channels": ["defaults"]}, ["anaconda_accept_terms"]),
        ({"dependencies": ["python=3.11"], "platforms": ["linux-64"]}, ["platforms"]),
    ],
    ids=["unsatisfiable", "terms", "unknown key"],
)
def test_a_file_that_cannot_be_is_refused_before_anything_changes(
    role: Role, tmp_path: Path, said: dict[str, Any], words: list[str]
) -> None:
    file = tmp_path / "bad.yml"
    file.write_text(yaml.safe_dump(said))
    done = role.run("conda.yml", environments=[{"name": "bad", "file": str(file)}], anaconda_condarc={"show_channel_urls": True})
    assert done.status != 0
    assert done.changed == {"head": 0}
    assert all(word in done.text for word in words), done.text[-2000:]


def test_the_role_is_undone(role: Role) -> None:
    done = role.run("conda.yml", "-e", "trainyard_state=absent", environments=[])
    assert done.status == 0, done.failures() or done.text[-2000:]
    left = there(role.lab, "/opt/conda /opt/trainyard/conda /opt/trainyard/envs/*").split()
    # What was there before somebody's, what another role brought, and what plays of somebody's own made, stays.
    assert [path.rpartition("/")[2] for path in left] == ["conda-tools", "folder", "paper", "users"]
    assert role.run("conda.yml", "-e", "trainyard_state=absent", environments=[]).changed == {"head": 0}


def test_a_framework_stands_on_condas_python_and_trains(channel: Lab, tmp_path: Path) -> None:
    jax, prefix = "/opt/trainyard/envs/jax", "/opt/trainyard/envs/.conda/python-3.11"
    task = "framework_env : Have the environments exactly as locked", "head"

    def run(playbook: str, *words: str, interpreter: str = "conda", channels: str = f"{ALIAS}/lab") -> Play:
        variables = {
            "framework_env_environments": ["jax"],
            "framework_env_interpreter": interpreter,
            "framework_env_conda_channels": [channels],
            "base_ca_certificates": "{{ query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt') }}",
        }
        return ansible_playbook(REPOSITORY / "playbooks" / playbook, inventory_of(channel, tmp_path, variables), words, timeout=900)

    refused = run("frameworks.yml", channels=f"{ALIAS}/nowhere")
    assert f"{ALIAS}/nowhere" in refused.failures()
    assert refused.changed == {"head": 0}
    foretold = run("frameworks.yml", "--check", "--diff")
    assert foretold.status == 0, foretold.failures() or foretold.text[-2000:]
    assert foretold.results[task]["environments"][0]["actions"][0] == "create it"
    assert not there(channel, f"{jax} {prefix}")

    done = run("frameworks.yml")
    assert done.status == 0, done.failures() or done.text[-2000:]
    assert done.results[task]["environments"] == foretold.results[task]["environments"]
    assert python(channel, "import sys; print(sys.prefix, sys.base_prefix)", jax) == f"{jax} {prefix}"
    assert run("frameworks.yml").changed == {"head": 0}
    proven = run("verify.yml")
    assert proven.status == 0, proven.failures() or proven.text[-2000:]

    back = run("frameworks.yml", interpreter="system")
    assert [one["actions"] for one in back.results[task]["environments"] if one["name"] == "jax"] == [
        [f"put its interpreter in place: it stands on {prefix}/bin/python3.11, wanted is /usr/bin/python3"]
    ]
    assert python(channel, "import sys, jax; print(sys.base_prefix)", jax) == "/usr"
    undone = run("frameworks.yml", "-e", "trainyard_state=absent")
    assert undone.status == 0, undone.failures() or undone.text[-2000:]
    assert not there(channel, f"{jax} /opt/trainyard/envs/.conda")
