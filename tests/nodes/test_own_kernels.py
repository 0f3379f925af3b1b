"""Environments that people make by hand, in the launcher of a real JupyterLab at once: their kernels run, and go with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import Play, ansible_playbook, inventory_of
from trainyard.containers import Lab
from trainyard.paths import REPOSITORY

pytestmark = pytest.mark.nodes

PASSWORD = "canary-and-long-enough-1"
JUPYTERLAB = "/opt/trainyard/envs/jupyterlab"
VARIABLES: dict[str, Any] = {
    "framework_env_environments": [],
    "framework_env_compile": False,  # for speed
    "base_ca_certificates": "{{ query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt') }}",
    "jupyter_lab_name": "lab",  # by default the inventory's folder, of which each test has its own
    "tensorboard_lab_name": "lab",
    "jupyter_password": PASSWORD,
    "jupyter_environment_folders": ["/srv/people/*/envs"],
    "tensorboard_password": PASSWORD,
}

# Runs on the node: logs in over TLS that trusts the service's own certificate and nothing else, then asks the server's interface, or runs
# a cell in a new notebook, as the page does.
CLIENT = """
import http.cookiejar, json, ssl, sys, urllib.error, urllib.parse, urllib.request, uuid
import websocket
password, kernel, cell = sys.argv[1:]
trusted = "/etc/trainyard/jupyter/tls.pem"
cookies = http.cookiejar.CookieJar()
context = ssl.create_default_context(cafile=trusted)
opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), urllib.request.HTTPCookieProcessor(cookies))
def ask(path, data=None, method=None, form=False):
    body = None if data is None else urllib.parse.urlencode(data).encode() if form else json.dumps(data).encode()
    headers = {"X-XSRFToken": key} if method else {}
    return opener.open(urllib.request.Request("https://localhost:8888" + path, body, headers, method=method)).read()
ask("/login")
key = next(cookie.value for cookie in cookies if cookie.name == "_xsrf")
ask("/login", {"password": password, "_xsrf": key}, form=True)
if not kernel:
    print(ask("/api/kernelspecs").decode())
    sys.exit()
try:
    notebook = {"path": "a.ipynb", "name": "a.ipynb", "type": "notebook", "kernel": {"name": kernel}}
    session = json.loads(ask("/api/sessions", notebook, "POST"))
except urllib.error.HTTPError as error:
    print(error.read().decode())
    sys.exit()
socket = websocket.create_connection(f"wss://localhost:8888/api/kernels/{session['kernel']['id']}/channels", timeout=60,
    sslopt={"ca_certs": trusted}, cookie="; ".join(f"{cookie.name}={cookie.value}" for cookie in cookies))
header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "username": "", "session": uuid.uuid4().hex, "version": "5.3"}
content = {"code": cell, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False, "stop_on_error": True}
socket.send(json.dumps({"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell", "buffers": []}))
said = ""
while True:
    message = json.loads(socket.recv())
    if message["parent_header"].get("msg_id") != header["msg_id"]:
        continue
    said += message["content"].get("text", "") + "".join(message["content"].get("traceback", []))
    if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
        break
socket.close()
ask(f"/api/sessions/{session['id']}", method="DELETE")
print(said)
"""
CELL = """
import json, os, shutil, sys, ipykernel, traitlets
names = ("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "PRICE")
print(json.dumps({"prefix": sys.prefix, "python": shutil.which("python"), "ipykernel": ipykernel.__file__,
    "traitlets": traitlets.__version__, "uid": os.getuid(), **{name: os.environ.get(name) for name in names}}))
"""

# What somebody types; pip trusts the node's authorities, as everything else there does.
MAKE = """
set -e
export PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1
python3 -m venv envs/whole
envs/whole/bin/pip -q install --no-compile ipykernel
python3 -m venv project/.venv
project/.venv/bin/pip -q install --no-compile traitlets==5.14.3
python3 -m venv old
old/bin/pip -q install --no-compile traitlets==4.3.3
# A stand-in for what conda makes: a venv that carries conda's marks.
python3 -m venv --without-pip miniforge3/envs/paper
mkdir miniforge3/envs/paper/conda-meta
touch miniforge3/envs/paper/conda-meta/history
echo '{"env_vars": {"PRICE": "$5"}}' >miniforge3/envs/paper/conda-meta/state
python3 -m venv --without-pip broken
ln -sf /nowhere/python3.11 broken/bin/python
"""
# Root's and other people's, one of them closed.
OTHERS = """
for name in alice/envs/open alice/envs/closed bob/envs/open; do python3 -m venv --without-pip /srv/people/$name; done
chmod 700 /srv/people/alice/envs/closed
python3 -m venv --without-pip /opt/trainyard/envs/shared
"""


def run(node: Lab, folder: Path, *words: str, playbook: str = "site.yml", **wishes: Any) -> Play:
    """Run a playbook on the node, which is one for notebooks."""
    inventory = inventory_of(node, folder, {**VARIABLES, **wishes})
    data = yaml.safe_load(inventory.read_text())
    data["all"]["children"] = {"notebooks": {"hosts": {"head": None}}}
    inventory.write_text(yaml.safe_dump(data))
    return ansible_playbook(REPOSITORY / playbook, inventory, words, timeout=1200)


class Notebook:
    """JupyterLab on the node, as its page asks it."""

    def __init__(self, node: Lab) -> None:
        self.node, self.first = node, ""

    def user(self, script: str) -> str:
        """Run a script in a login shell of the account that notebooks run as, and let a second pass, for which an answer counts."""
        return self.node.execute("head", ["runuser", "-l", "jupyter", "-c", f"{script}\nsleep 1"])

    def client(self, kernel: str = "", cell: str = "") -> str:
        """Log in and return what the server says."""
        return self.node.execute("head", [f"{JUPYTERLAB}/bin/python", "-c", CLIENT, PASSWORD, kernel, cell])

    def titles(self) -> dict[str, str]:
        """Return title -> name of the kernels in the launcher."""
        kernels = json.loads(self.client())["kernelspecs"]
        return {kernel["spec"]["display_name"]: name for name, kernel in kernels.items()}

    def run(self, title: str) -> dict[str, Any]:
        """Run a cell in the kernel with that title and return what it saw."""
        said = self.client(self.titles()[title], CELL)
        try:
            answer: dict[str, Any] = json.loads(said)
        except ValueError:
            pytest.fail(said)
        return answer

    def process(self) -> str:
        """Return the number of the server's process."""
        return self.node.execute("head", ["systemctl", "show", "-P", "MainPID", "trainyard-jupyter"]).strip()


@pytest.fixture(scope="module")
def notebook(node: Lab, tmp_path_factory: pytest.TempPathFactory) -> Notebook:
    """JupyterLab, brought by site.yml; nobody has an environment yet."""
    done = run(node, tmp_path_factory.mktemp("site"))
    assert done.status == 0, done.failures() or done.text[-3000:]
    there = Notebook(node)
    assert there.titles() == {"Python 3 (ipykernel)": "python3"}
    there.first = there.process()
    return there


@pytest.fixture(scope="module")
def made(notebook: Notebook) -> Notebook:
    """JupyterLab after people made environments by hand, while it ran."""
    notebook.user(MAKE)
    notebook.node.execute("head", ["sh", "-ec", OTHERS])
    return notebook


def test_all_that_can_be_used_are_kernels_and_nothing_else_is(made: Notebook) -> None:
    assert set(made.titles()) == {
        "whole",
        "project",
        "old (needs: pip install ipykernel)",
        "paper",
        "shared",
        "open (/srv/people/alice/envs/open)",
        "open (/srv/people/bob/envs/open)",
    }
    log = made.node.execute("head", ["journalctl", "--no-pager", "-u", "trainyard-jupyter"])
    assert "/srv/jupyter/broken is no kernel: /srv/jupyter/broken/bin/python leads nowhere, or may not be run" in log
    assert "Traceback" not in log


def test_a_venv_with_ipykernel_runs_with_its_own(made: Notebook) -> None:
    saw = made.run("whole")
    assert saw["ipykernel"].startswith("/srv/jupyter/envs/whole/lib/")
    assert saw["prefix"] == saw["VIRTUAL_ENV"] == "/srv/jupyter/envs/whole"
    assert saw["python"] == "/srv/jupyter/envs/whole/bin/python"
    assert saw["uid"] != 0


def test_a_venv_without_ipykernel_borrows_it_and_keeps_its_own_packages(made: Notebook) -> None:
    saw = made.run("project")
    assert saw["ipykernel"].startswith(f"{JUPYTERLAB}/lib/")
    assert saw["traitlets"] == "5.14.3"
    assert saw["prefix"] == saw["VIRTUAL_ENV"] == "/srv/jupyter/project/.venv"


def test_a_conda_prefix_runs_as_if_activated(made: Notebook) -> None:
    saw = made.run("paper")
    assert saw["CONDA_PREFIX"] == saw["prefix"] == "/srv/jupyter/miniforge3/envs/paper"
    assert (saw["CONDA_DEFAULT_ENV"], saw["PRICE"], saw["VIRTUAL_ENV"]) == ("paper", "$5", None)


@pytest.mark.parametrize("title", ["shared", "open (/srv/people/bob/envs/open)"])
def test_those_of_others_run_as_the_notebooks_account(made: Notebook, title: str) -> None:
    saw = made.run(title)
    assert saw["prefix"] in {"/opt/trainyard/envs/shared", "/srv/people/bob/envs/open"}
    assert str(saw["uid"]) == made.user("id -u").strip()


def test_one_that_lacks_ipykernel_says_so_until_it_has_it(made: Notebook) -> None:
    name = made.titles()["old (needs: pip install ipykernel)"]
    assert "Run this, and try again: /srv/jupyter/old/bin/python -m pip install ipykernel" in made.client(name, CELL)
    made.user("PIP_CERT=/etc/ssl/certs/ca-certificates.crt old/bin/pip -q install --no-compile ipykernel")
    assert made.titles()["old"] == name
    assert made.run("old")["ipykernel"].startswith("/srv/jupyter/old/lib/")


def test_one_that_is_registered_keeps_its_kernel(made: Notebook) -> None:
    made.user("envs/whole/bin/python -m ipykernel install --user --name mine --display-name 'My own'")
    titles = made.titles()
    assert titles["My own"] == "mine"
    assert "whole" not in titles
    made.user("rm -r .local/share/jupyter/kernels/mine")
    assert "whole" in made.titles()


def test_one_that_is_removed_is_gone(made: Notebook) -> None:
    made.user("rm -r project")
    assert "project" not in made.titles()
    assert made.process() == made.first, "the server was never started anew"


def test_a_second_run_has_nothing_to_do(made: Notebook, node: Lab, tmp_path: Path) -> None:
    before = made.process()
    again = run(node, tmp_path)
    assert again.changed == {"head": 0}, again.text[-3000:]
    checked = run(node, tmp_path, "--check", "--diff")
    assert checked.status == 0, checked.failures()
    assert checked.changed == {"head": 0}
    assert made.process() == before
    assert "whole" in made.titles()


def test_a_folder_that_is_no_path_is_refused(made: Notebook, node: Lab, tmp_path: Path) -> None:
    done = run(node, tmp_path, playbook="playbooks/notebooks.yml", jupyter_environment_folders=["envs"])
    assert "jupyter_environment_folders: 'envs' is no absolute path: it must start with /." in done.failures()
    assert done.changed == {"head": 0}


def test_it_can_be_switched_off(made: Notebook, node: Lab, tmp_path: Path) -> None:
    done = run(node, tmp_path, playbook="playbooks/notebooks.yml", jupyter_own_environments=False)
    assert done.status == 0, done.failures()
    assert made.titles() == {"Python 3 (ipykernel)": "python3"}
