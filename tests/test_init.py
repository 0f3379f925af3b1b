"""A new inventory by six questions: whatever is answered, it can be read and planned, and holds exactly the servers that were named."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pexpect
import pytest
import yaml
from ansible_collections.trainyard.core.plugins.plugin_utils import _fleet_words
from ansible_collections.trainyard.core.plugins.plugin_utils._words import answer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainyard import access, answers, catalog, cli, inventory, new_inventory, playbooks
from trainyard.commands import init, plan
from trainyard.errors import TrainyardError
from trainyard.hosts_file import HostsFile
from trainyard.new_inventory import AnswerError, Answers
from trainyard.paths import REPOSITORY

LAB = Answers({"head": "192.0.2.10", "gpu1": "192.0.2.11", "gpu2": "2001:db8::12"}, ("gpu1", "gpu2"), "ann", "head", ("pytorch",), "tuna")
BIN = Path(sys.executable).parent


def written(folder: Path, made: Answers) -> Path:
    init.write(folder, new_inventory.files(made, "inventory/mylab"))
    return folder


def offline(folder: Path) -> None:
    """Plan as `trainyard plan --offline` does, without the search."""
    hosts = plan.inventory_hosts(folder)
    nodes, _wishes = _fleet_words.fleet(catalog.load(), hosts, offline=True)
    assert [node.name for node in nodes] == list(hosts)


def test_the_hosts_of_a_cluster_are_written_like_this(tmp_path: Path) -> None:
    folder = written(tmp_path / "lab", LAB)
    assert (folder / "hosts.yml").read_text() == (
        "---\n"
        "# The servers, and what each one is for. A server has to be in your own ~/.ssh/known_hosts: log in once by hand and compare\n"
        "# its host key. Then: ./trainyard apply -i inventory/mylab --check\n"
        "all:\n"
        "  hosts:\n"
        "    head: {ansible_host: 192.0.2.10}\n"
        "    gpu1: {ansible_host: 192.0.2.11}\n"
        '    gpu2: {ansible_host: "2001:db8::12"}\n'
        "  children:\n"
        "    gpu:  # with NVIDIA GPUs: they get the driver\n"
        "      hosts:\n"
        "        gpu1:\n"
        "        gpu2:\n"
        "    notebooks:  # where JupyterLab and TensorBoard run\n"
        "      hosts:\n"
        "        head:\n"
        "    cluster:  # a server's name here is its host name (hostname -s), or names_and_time_hostname sets it\n"
        "      children:\n"
        "        slurm_controller:  # exactly one, which may compute as well\n"
        "          hosts:\n"
        "            head:\n"
        "        slurm_compute:\n"
        "          hosts:\n"
        "            gpu1:\n"
        "            gpu2:\n"
    )
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        ".secrets/.gitignore",
        "group_vars/all/base.yml",
        "group_vars/all/connection.yml",
        "group_vars/all/notebooks.yml",
        "group_vars/all/plan.yml",
        "hosts.yml",
    ]


def test_ansible_reads_the_groups_and_variables_and_no_secret_as_a_host(tmp_path: Path) -> None:
    folder = written(tmp_path / "lab", LAB)
    inventory.check(folder)
    (folder / ".secrets" / "notebook_password").write_text("not-a-host\n")
    listed = inventory.listing(folder)
    assert set(inventory.hosts_of(listed)) == set(LAB.servers)
    assert inventory.hosts_of(listed, "cluster") == ["head", "gpu1", "gpu2"]
    assert inventory.hosts_of(listed, "gpu") == ["gpu1", "gpu2"]
    head = listed["_meta"]["hostvars"]["head"]
    assert head["ansible_user"] == "ann"
    assert head["base_package_mirror"] == head["framework_env_index_url"] == "tuna"
    assert access.password("tensorboard_password", head, folder) == f"in the file {folder}/.secrets/notebook_password"
    offline(folder)


def test_the_password_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    folder = written(tmp_path / "lab", LAB)
    command = [BIN / "ansible", "-i", folder, "head,gpu1", "-c", "local", "-m", "ansible.builtin.debug", "-a", "var=tensorboard_password"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    file = folder / ".secrets" / "notebook_password"
    password = file.read_text().strip()
    assert len(password) == 24
    assert done.stdout.count(password) == 2
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    subprocess.run(["git", "init", "-q", folder], check=True)
    ignored = subprocess.run(["git", "-C", folder, "status", "--porcelain", "-uall"], capture_output=True, text=True, check=True).stdout
    assert ".secrets" not in ignored


def test_every_framework_that_is_offered_can_be_planned() -> None:
    names = init.frameworks()
    assert {"pytorch", "tensorflow"} <= set(names)
    assert new_inventory.frameworks_of(init.DEFAULT_FRAMEWORKS, names) == ("pytorch", "tensorflow")
    rows = catalog.load()
    for name in names:
        hosts = {"head": {"plan_os": "debian-12", "plan_environments": [name]}}
        assert answer(rows, *_fleet_words.fleet(rows, hosts, offline=True), answers.today()).plan, name


names_ = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
addresses = st.one_of(
    st.just(""), st.ip_addresses().map(str), st.from_regex(r"[a-z][a-z0-9]{0,8}(\.[a-z][a-z0-9]{0,8}){0,2}", fullmatch=True)
)


@st.composite
def labs(draw: st.DrawFn) -> Answers:
    """Return answers as a person may give them, each by way of its own reader."""
    pairs = draw(st.dictionaries(names_ | st.sampled_from(["on", "yes", "null", "true", "e1", "n"]), addresses, min_size=1, max_size=5))
    typed = draw(st.sampled_from([", ", ",", " "])).join(f"{name}={address}" if address else name for name, address in pairs.items())
    try:
        servers = new_inventory.servers_of(typed)
    except AnswerError:
        servers = {"head": "192.0.2.1"}
    some = st.lists(st.sampled_from(sorted(servers)), unique=True)
    return Answers(
        servers,
        new_inventory.chosen_of(draw(st.one_of(st.sampled_from(["all", "none"]), some.map(",".join))), servers),
        new_inventory.account_of(draw(st.from_regex(r"[a-z_][a-z0-9_-]{0,12}", fullmatch=True).filter(lambda name: name != "root"))),
        new_inventory.controller_of(draw(st.sampled_from(["none", *servers])), servers),
        new_inventory.frameworks_of(
            draw(st.lists(st.sampled_from(["pytorch", "torch", "jax", "keras"]), min_size=1).map(",".join)), init.frameworks()
        ),
        new_inventory.mirror_of(draw(st.sampled_from(["none", "", "tuna", "ustc", "aliyun"])), ["tuna", "ustc", "aliyun"]),
    )


@given(labs())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_answered_is_written_as_it_was_meant(made: Answers) -> None:
    texts = new_inventory.files(made, "inventory/mylab")
    data = {name: yaml.safe_load(text) for name, text in texts.items() if name.endswith(".yml")}
    tree = data["hosts.yml"]["all"]
    assert {name: (values or {}).get("ansible_host", "") for name, values in tree["hosts"].items()} == dict(made.servers)
    children = tree["children"]
    assert tuple((children["gpu"] or {}).get("hosts", {})) == tuple(made.gpus)
    assert set(children["notebooks"]["hosts"]) <= set(made.servers)
    assert ("cluster" in children) == bool(made.controller)
    if made.controller:
        parts = children["cluster"]["children"]
        assert list(parts["slurm_controller"]["hosts"]) == [made.controller]
        assert {*parts["slurm_controller"]["hosts"], *parts["slurm_compute"]["hosts"]} == set(made.servers)
    assert data["group_vars/all/connection.yml"] == {"ansible_user": made.account}
    assert data["group_vars/all/plan.yml"]["plan_environments"] == list(made.frameworks)
    assert data["group_vars/all/base.yml"]["base_package_mirror"] == made.mirror
    assert HostsFile(texts["hosts.yml"]).hosts().keys() == made.servers.keys(), "add-node and remove-node edit it"
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts.items():
            path = Path(folder, "lab", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        inventory.check(Path(folder, "lab"))


@pytest.mark.parametrize("odd", ["on", "yes", "null", "n", "e1"])
def test_ansible_takes_words_of_yaml_for_names(tmp_path: Path, odd: str) -> None:
    folder = written(tmp_path / "lab", Answers({odd: "192.0.2.1"}, (odd,), "yes", odd))
    listed = inventory.listing(folder)
    assert inventory.hosts_of(listed) == [odd]
    assert listed["_meta"]["hostvars"][odd]["ansible_user"] == "yes"


SERVERS = {"head": "192.0.2.10", "gpu1": ""}


@pytest.mark.parametrize(
    "read,text,message",
    [
        (new_inventory.servers_of, "", "Name at least one server"),
        (new_inventory.servers_of, "Head=192.0.2.1", "'Head' is not a host name"),
        (new_inventory.servers_of, "gpu[1:4]=192.0.2.1", "Write each server by itself"),
        (new_inventory.servers_of, "gpu=192.0.2.1", "'gpu' has a meaning of its own"),
        (new_inventory.servers_of, "localhost", "'localhost' has a meaning of its own"),
        (new_inventory.servers_of, "a=192.0.2.300", "'192.0.2.300' of a is not an IP address or a host name"),
        (new_inventory.servers_of, "a=", "'' of a is not an IP address"),
        (new_inventory.servers_of, "a=b c", ""),
        (new_inventory.servers_of, "a=192.0.2.1,a=192.0.2.2", "'a' is in the list twice"),
        (new_inventory.servers_of, "a=192.0.2.1,b=192.0.2.1", "a and b have the same address, 192.0.2.1"),
        (new_inventory.servers_of, "a=$(id)", "'$(id)' of a is not an IP address"),
        (lambda text: new_inventory.chosen_of(text, SERVERS), "gpu2", "There is no server 'gpu2'. Did you mean 'gpu1'"),
        (lambda text: new_inventory.controller_of(text, SERVERS), "head,gpu1", "one server that schedules"),
        (lambda text: new_inventory.controller_of(text, SERVERS), "haed", "Did you mean 'head'"),
        (new_inventory.account_of, "root", "Not root"),
        (new_inventory.account_of, "Ann Lee", "'Ann Lee' is not an account"),
        (lambda text: new_inventory.frameworks_of(text, init.frameworks()), "pytroch", "Did you mean 'pytorch'? Known: "),
        (lambda text: new_inventory.frameworks_of(text, init.frameworks()), ",", "at least one framework"),
        (lambda text: new_inventory.mirror_of(text, ["tuna", "ustc"]), "tsinghua", "no mirror 'tsinghua'. Known: none, tuna"),
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_used_is_refused_with_the_reason(read: object, text: str, message: str) -> None:
    if not message:
        assert read(text) == {"a": "b", "c": ""}  # type: ignore[operator]
        return
    with pytest.raises(AnswerError) as refused:
        read(text)  # type: ignore[operator]
    assert message in str(refused.value)


def trainyard(*words: str, folder: Path) -> pexpect.spawn:
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}/src:{REPOSITORY}/collections"}
    command = ["-m", "trainyard", *words]
    return pexpect.spawn(
        sys.executable, command, cwd=str(folder), env=environment, encoding="utf-8", timeout=60, dimensions=(40, 100), echo=False
    )


def test_on_a_terminal_a_wrong_answer_is_asked_again_and_the_next_commands_are_named(tmp_path: Path) -> None:
    child = trainyard("init", "./my lab", folder=tmp_path)
    for question, prompt, typed in (
        ("name=address", "  > ", "head=192.0.2.10, Gpu1=192.0.2.11"),
        ("'Gpu1' is not a host name", "  > ", "head=192.0.2.10, gpu1=192.0.2.11"),
        ("NVIDIA GPUs", "  [none] > ", "gpu1"),
        ("account", "] > ", "ann"),
        ("Slurm", "  [none] > ", "head"),
        ("frameworks", f"  [{init.DEFAULT_FRAMEWORKS}] > ", ""),
        ("mirror", "  [none] > ", "tuna"),
    ):
        child.expect_exact(question)
        child.expect_exact(prompt)
        child.sendline(typed)
    text = child.read()
    child.close()
    assert child.exitstatus == 0, text
    for command in ("ssh ann@192.0.2.10", "ssh ann@192.0.2.11", "ssh-keygen -lf", "./trainyard apply -i 'my lab' --check"):
        assert command in text
    offline(tmp_path / "my lab")


def test_ctrl_d_writes_nothing(tmp_path: Path) -> None:
    child = trainyard("init", "./lab", folder=tmp_path)
    child.expect("> ")
    child.sendeof()
    child.read()
    child.close()
    assert child.exitstatus == 130
    assert list(tmp_path.iterdir()) == []


def test_without_a_terminal_nothing_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", str(tmp_path / "lab")]) == 64
    assert "there is no terminal" in capsys.readouterr().err
    assert not (tmp_path / "lab").exists()


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lab").mkdir()
    for words in (["init", str(tmp_path / "lab")], ["init", str(tmp_path / "lab"), "--example"], ["init", "example"]):
        assert cli.main(words) == 1
        assert "is there already and is left alone" in capsys.readouterr().err
    assert list((tmp_path / "lab").iterdir()) == []
    with pytest.raises(TrainyardError, match="there already"):
        init.write(tmp_path / "lab", new_inventory.files(LAB, "x"))


@pytest.mark.parametrize("name", ["", "..", "my lab", "-x", "a\nb"])
def test_a_name_that_is_none_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", "--example", "--", name]) == 64
    assert "is not a name for a lab" in capsys.readouterr().err


def test_the_example_is_copied_whole(tmp_path: Path) -> None:
    assert cli.main(["init", str(tmp_path / "lab"), "--example"]) == 0
    example = REPOSITORY / "inventory" / "example"
    for path in example.rglob("*"):
        if path.is_file():
            assert (tmp_path / "lab" / path.relative_to(example)).read_bytes() == path.read_bytes()


def test_a_lab_without_a_slash_goes_into_the_checkout() -> None:
    assert init.folder_of("mylab") == REPOSITORY / "inventory" / "mylab"
    assert playbooks.short(init.folder_of("./x")) in {"x", str(Path("x").absolute())}
