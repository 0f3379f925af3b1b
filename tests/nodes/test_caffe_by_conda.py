"""Caffe by conda, as a plan asks for it: refused where it cannot be had, made, proven, activated, a kernel, repaired, removed, undone.

The channel is the tests' own. In it Caffe itself is a stand-in (tests/conda_channel.py) and Python is the node's, so the catalogue's entry
is changed in that one word; packages beside it are real, and so is all that Trainyard does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import Play, ansible_playbook, inventory_of, play
from tests.test_catalog import DATA
from tools.lock_envs import LOCKS, pins
from trainyard.containers import Lab
from trainyard.paths import REPOSITORY

pytestmark = pytest.mark.nodes

ALIAS = "http://127.0.0.1:8043"
PREFIX = "/opt/trainyard/envs/caffe"
TOOLS = "/opt/trainyard/envs/conda-tools"
TRUSTING = ["env", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"]
TASK = "framework_env : Have the environments that come by conda", "head"
# What the proof and a kernel need; a real channel's packages name it themselves.
NEEDED = """
asttokens cloudpickle comm debugpy executing h5py ipykernel ipython ipython-pygments-lexers jedi joblib jupyter-client jupyter-core
matplotlib-inline narwhals nest-asyncio2 numpy packaging parso pexpect platformdirs prompt-toolkit psutil ptyprocess pure-eval pygments
python-dateutil pyzmq scikit-learn scipy six stack-data threadpoolctl tornado traitlets typing-extensions wcwidth
"""
BESIDE = NEEDED.split()
VARIABLES = {
    "plan_environments": ["caffe==1.0"],
    "anaconda_accept_terms": True,
    "framework_env_conda_default_channels": [f"{ALIAS}/lab"],
    "framework_env_compile": False,  # for speed
    "base_users": [{"name": "alice", "keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJrvGRH1a3gwGQ+tT1L2yusnNqXqvFQuduzeYBZqU5TE laptop"]}],
    "base_ca_certificates": "{{ query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt') }}",
    "jupyter_password": "canary-and-long-enough-1",
    "tensorboard_password": "canary-and-long-enough-1",
}
CELL = """
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="caffe")
said = []
client.execute_interactive("import caffe, sys; print(caffe.__version__, sys.prefix)",
    timeout=60, output_hook=lambda message: said.append(message["content"].get("text", "")))
client.stop_channels(); manager.shutdown_kernel(now=True)
print("".join(said))
"""


def run(
    node: Lab, folder: Path, playbook: str, *words: str, group: str = "notebooks", more: tuple[str, ...] = (), **variables: Any
) -> Play:
    """Run a playbook on the node, with the catalogue as the channel is, and ``more`` packages in Caffe's environment."""
    catalogue: dict[str, Any] = yaml.safe_load(yaml.safe_dump(DATA["catalog_environments"]))
    conda = catalogue["caffe"]["variants"]["conda"]["conda"]
    assert conda["packages"][:2] == ["python=3.6", "caffe=1.0"]
    conda["packages"] = ["python=3.11", "caffe=1.0", *BESIDE, *more]
    (folder / "catalogue.yml").write_text(yaml.safe_dump({"catalog_environments": catalogue}))
    inventory = inventory_of(node, folder, {**VARIABLES, **variables})
    data = yaml.safe_load(inventory.read_text())
    data["all"]["children"] = {group: {"hosts": {"head": None}}}
    inventory.write_text(yaml.safe_dump(data))
    return ansible_playbook(REPOSITORY / playbook, inventory, ["-e", f"@{folder}/catalogue.yml", *words], timeout=1200)


def serve(node: Lab, what: str) -> None:
    """Start or stop what serves the channel."""
    if what == "start":
        server = ["python3", "-m", "http.server", "8043", "--bind", "127.0.0.1", "--directory", "/srv/channels"]
        node.execute("head", ["systemd-run", "--unit=channel", "--collect", *server])
    else:
        node.execute("head", ["systemctl", "stop", "channel.service"])


def as_alice(node: Lab, script: str) -> str:
    """Run a script in a login shell of a user."""
    return node.execute("head", ["su", "-", "alice", "-s", "/bin/bash", "-c", script])


def there(node: Lab, pattern: str) -> str:
    """Return what there is by a pattern of paths."""
    return node.execute("head", ["sh", "-c", f"ls -d {pattern} 2>/dev/null || true"]).strip()


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "terms": (
        {"anaconda_accept_terms": False},
        ["anaconda_accept_terms: caffe by conda", "Terms of Service", "anaconda_accept_terms: true"],
    ),
    "down": ({}, [f"framework_env_environments: caffe: {ALIAS}/lab does not answer", "framework_env_conda_default_channels"]),
    "a plan for a GPU that is not there": ({"plan_environments": [{"frameworks": "caffe", "device": "gpu"}]}, ["head has no GPU"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bare_node_is_refused_what_it_cannot_have(node: Lab, tmp_path: Path, name: str) -> None:
    variables, words = REFUSED[name]
    refused = run(node, tmp_path, "site.yml", **variables)
    assert refused.status != 0
    assert refused.changed == {"head": 0}
    assert all(word in refused.failures() for word in words), refused.failures()


@pytest.fixture(scope="module")
def channel(node: Lab, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The node with a channel at its loopback, and without what made that."""
    for book in ("base", "frameworks"):
        done = run(
            node, tmp_path_factory.mktemp(book), f"playbooks/{book}.yml", group="conda", plan_environments=[], framework_env_environments=[]
        )
        assert done.status == 0, done.failures() or done.text[-3000:]
    copy = {"src": str(REPOSITORY / "tests" / "conda_channel.py"), "dest": "/srv/conda_channel.py", "mode": "0644"}
    assert play(node, tmp_path_factory.mktemp("copy"), [{"name": "copy", "ansible.builtin.copy": copy}]).status == 0
    locked = pins((LOCKS / "keras-cpu-cp311-x86_64.txt").read_text())
    wheels = [f"{name}=={locked[name]}" for name in BESIDE]
    make = [f"{TOOLS}/bin/python", "/srv/conda_channel.py", "/srv/channels/lab", f"{TOOLS}/bin/uv", "caffe", *wheels]
    node.execute("head", [*TRUSTING, *make])
    gone = run(node, tmp_path_factory.mktemp("gone"), "playbooks/frameworks.yml", "-e", "trainyard_state=absent")
    assert gone.status == 0, gone.failures()
    assert not there(node, "/opt/trainyard/envs/*")
    serve(node, "start")
    return node


def test_a_channel_that_lacks_a_package_is_refused_before_anything_is_there_to_solve_with(channel: Lab, tmp_path: Path) -> None:
    refused = run(channel, tmp_path, "playbooks/preflight.yml", more=("nosuchthing",))
    assert f"framework_env_environments: caffe: {ALIAS}/lab has no nosuchthing" in refused.failures()
    assert not there(channel, "/opt/trainyard/envs/*")


@pytest.fixture(scope="module")
def made(channel: Lab, tmp_path_factory: pytest.TempPathFactory) -> Play:
    """What site.yml did."""
    foretold = run(channel, tmp_path_factory.mktemp("check"), "playbooks/frameworks.yml", "--check", "--diff")
    assert foretold.status == 0, foretold.failures() or foretold.text[-3000:]
    assert foretold.results[TASK]["results"][0]["actions"] == ["create it"]
    assert not there(channel, "/opt/trainyard/envs/*")
    done = run(channel, tmp_path_factory.mktemp("site"), "site.yml")
    assert done.status == 0, done.failures() or done.text[-3000:]
    return done


def test_it_is_a_conda_prefix_and_proven(made: Play, channel: Lab) -> None:
    (proof,) = made.results["verification : Train in each environment", "head"]["proofs"]
    assert (proof["framework"], proof["version"], proof["device"]) == ("Caffe", "1.0.0", "cpu")
    assert proof["accuracy"] >= 0.95
    (done,) = made.results[TASK]["results"]
    assert done["actions"][0] == "create it"
    assert "add caffe 1.0" in done["actions"]
    assert there(channel, f"{PREFIX}/conda-meta/history {PREFIX}/conda-meta/caffe-1.0-0.json").count(PREFIX) == 2


def test_a_second_run_and_check_mode_have_nothing_to_do_and_ask_nobody(made: Play, channel: Lab, tmp_path: Path) -> None:
    serve(channel, "stop")
    try:
        assert run(channel, tmp_path, "site.yml").changed == {"head": 0}
        checked = run(channel, tmp_path, "site.yml", "--check", "--diff")
        assert checked.status == 0, checked.failures()
        assert checked.changed == {"head": 0}
    finally:
        serve(channel, "start")


def test_it_is_activated_by_name_and_left_again(made: Play, channel: Lab) -> None:
    script = (
        "source trainyard-activate caffe; command -v python caffe; python -c 'import caffe; print(caffe.__version__)'; echo $CONDA_PREFIX; "
        "deactivate; command -v python3; echo ${CONDA_PREFIX-none}"
    )
    assert as_alice(channel, script).split() == [f"{PREFIX}/bin/python", f"{PREFIX}/bin/caffe", "1.0.0", PREFIX, "/usr/bin/python3", "none"]
    assert "    caffe\n" in as_alice(channel, "source trainyard-activate --help")


def test_a_cell_runs_in_its_kernel(made: Play, channel: Lab) -> None:
    channel.execute("head", ["sh", "-c", f"cat >/srv/cell.py <<'END'\n{CELL}END\nchmod 644 /srv/cell.py"])
    said = as_alice(channel, "/opt/trainyard/envs/jupyterlab/bin/python /srv/cell.py").split()
    assert said[-2:] == ["1.0.0", PREFIX], "what is before it is the kernel's word about its connection"


def test_what_was_damaged_is_put_right(made: Play, channel: Lab, tmp_path: Path) -> None:
    damage = f"rm {PREFIX}/bin/activate {PREFIX}/lib/python3.11/site-packages/caffe/__init__.py; {PREFIX}/bin/python -m this >/dev/null"
    channel.execute("head", ["sh", "-ec", damage])
    done = run(channel, tmp_path, "playbooks/frameworks.yml")
    assert done.results[TASK]["results"][0]["actions"] == ["repair caffe: its files were changed"]
    assert as_alice(channel, "source trainyard-activate caffe && python -c 'import caffe; print(caffe.TEST)'") == "1\n"


def test_another_variant_of_the_same_name_is_refused(made: Play, channel: Lab, tmp_path: Path) -> None:
    refused = run(channel, tmp_path, "playbooks/preflight.yml", plan_environments=["caffe"])
    assert f"{PREFIX} is there already and is no frozen environment" in refused.failures()
    assert there(channel, f"{PREFIX}/conda-meta/history")


def test_one_is_removed_without_its_variant_being_named(made: Play, channel: Lab, tmp_path: Path) -> None:
    wishes = {"plan_environments": [], "framework_env_environments": [{"name": "caffe", "state": "absent"}]}
    assert run(channel, tmp_path, "playbooks/frameworks.yml", "--check", **wishes).changed == {"head": 1}
    done = run(channel, tmp_path, "playbooks/frameworks.yml", **wishes)
    assert done.status == 0, done.failures()
    assert done.changed == {"head": 1}
    assert not there(channel, PREFIX)
    assert run(channel, tmp_path, "playbooks/frameworks.yml", **wishes).changed == {"head": 0}


def test_the_inventory_may_name_the_variant_and_all_is_undone(made: Play, channel: Lab, tmp_path: Path) -> None:
    wishes = {"plan_environments": [], "framework_env_environments": [{"name": "old", "environment": "caffe", "variant": "conda"}]}
    done = run(channel, tmp_path, "playbooks/frameworks.yml", **wishes)
    assert done.status == 0, done.failures() or done.text[-3000:]
    assert as_alice(channel, "source trainyard-activate old && python -c 'import caffe; print(caffe.TEST)'") == "1\n"
    undone = run(
        channel, tmp_path, "playbooks/frameworks.yml", "-e", "trainyard_state=absent", **{**wishes, "anaconda_accept_terms": False}
    )
    assert undone.status == 0, undone.failures()
    assert not there(channel, "/opt/trainyard/envs/* /opt/trainyard/envs/.conda /usr/local/bin/trainyard-activate")
    assert run(channel, tmp_path, "playbooks/frameworks.yml", "-e", "trainyard_state=absent", **wishes).changed == {"head": 0}
