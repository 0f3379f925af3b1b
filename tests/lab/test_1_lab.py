"""End to end: from nothing to models that train on three nodes; again, with nothing to do; and looking without touching."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from tests.lab.conftest import site, trainyard
from tests.support import ansible_playbook
from trainyard.containers import Lab
from trainyard.lab import INVENTORY
from trainyard.paths import REPOSITORY, STATE

pytestmark = pytest.mark.lab

NODES = ["head", "node1", "node2"]
# The digits that scikit-learn brings, in MNIST's shape and Keras' layout: a stand-in for the real ones, which no index here has.
MNIST = """
import numpy
from sklearn.datasets import load_digits
bunch = load_digits()
images = numpy.pad((numpy.kron(bunch.images, numpy.ones((1, 3, 3))) * 255 / 16).astype("uint8"), ((0, 0), (2, 2), (2, 2)))
order = numpy.random.RandomState(0).permutation(len(images))
images, labels = images[order], bunch.target.astype("uint8")[order]
numpy.savez("mnist.npz", x_train=images[:1400], y_train=labels[:1400], x_test=images[1400:], y_test=labels[1400:])
"""
FRAMEWORKS = ["tensorflow", "pytorch", "keras", "paddle", "jax"]


def test_up_ends_with_every_framework_trained_on_every_node(up: subprocess.CompletedProcess[str], nodes: Lab) -> None:
    report = json.loads((STATE / "report.json").read_text())
    assert report["passed"]
    for node in report["nodes"]:
        accuracy = {proof["environment"]: proof["accuracy"] for proof in node["environments"] if not proof.get("nodes")}
        assert sorted(accuracy) == sorted(FRAMEWORKS)
        assert min(accuracy.values()) >= 0.95
    assert sorted(node["name"] for node in report["nodes"]) == NODES
    assert len(re.findall(r"\d +trains *$", up.stdout, re.MULTILINE)) == 16, up.stdout
    assert "ssh -L 8888:127.0.0.1:8888 -F .trainyard/lab/ssh_config head" in up.stdout
    fingerprint = nodes.execute("head", ["cat", "/etc/trainyard/jupyter/fingerprint"]).strip()
    assert f"SHA-256 fingerprint of its certificate: {fingerprint}" in up.stdout


def test_up_ends_with_a_training_on_two_nodes_together(up: subprocess.CompletedProcess[str], nodes: Lab) -> None:
    report = json.loads((STATE / "report.json").read_text())
    (proof,) = [proof for node in report["nodes"] for proof in node["environments"] if proof.get("nodes")]
    assert proof["nodes"] == ["node1", "node2"]
    assert (proof["framework"], proof["passed"]) == ("PyTorch", True)
    assert proof["accuracy"] >= 0.95
    assert re.search(r"^ *node1 \+ node2 +pytorch .* trains *$", up.stdout, re.MULTILINE), up.stdout
    assert "<strong>node1 + node2</strong> together" in (STATE / "report.html").read_text()


def test_homes_are_the_same_on_all_nodes(nodes: Lab) -> None:
    nodes.execute("head", ["runuser", "-u", "alice", "--", "sh", "-c", "umask 077; echo from the head >~/shared.txt"])
    try:
        for node in NODES:
            assert nodes.execute(node, ["runuser", "-u", "alice", "--", "cat", "/home/alice/shared.txt"]) == "from the head\n"
        assert nodes.execute("node1", ["stat", "-c", "%a %U", "/home/alice", "/home/alice/.ssh"]) == "750 alice\n700 alice\n"
    finally:
        nodes.execute("node2", ["rm", "/home/alice/shared.txt"])


def test_the_readmes_lines_on_many_nodes_work_as_they_are(nodes: Lab) -> None:
    lines = {name: commands((REPOSITORY / name).read_text(), "cluster_train ") for name in ("README.md", "README.zh-CN.md")}
    assert lines["README.md"] == lines["README.zh-CN.md"]
    assert sum("cluster_train --" in line for line in lines["README.md"]) == 2
    nodes.execute("head", ["runuser", "-u", "alice", "--", "mkdir", "/home/alice/readme"])
    try:
        for line in lines["README.md"]:
            ssh = ["ssh", "-F", str(nodes.ssh_config), "-o", "BatchMode=yes", "alice@head", f"cd readme && {line}"]
            done = subprocess.run(ssh, capture_output=True, text=True, check=False, timeout=600, stdin=subprocess.DEVNULL)
            assert done.returncode == 0, f"{line}:\n{done.stdout}\n{done.stderr}"
            if "cluster_train" in line:
                (result,) = [json.loads(found) for found in re.findall(r'\{.*"accuracy".*\}', done.stdout)]
                assert len(result["hosts"]) == 2, done.stdout
    finally:
        nodes.execute("head", ["rm", "-r", "/home/alice/readme"])


def commands(text: str, word: str) -> list[str]:
    """Return the commands of the block of a README that has a word in it, without the remarks behind them."""
    block = next(block for block in re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE) if word in block)
    return [re.split(r"\s+#\s", line)[0].strip() for line in block.splitlines()]


def test_a_second_run_changes_nothing(nodes: Lab) -> None:
    started = time.monotonic()
    again = site()
    print(f"second run: {time.monotonic() - started:.1f} s")
    assert again.status == 0, again.failures()
    assert again.changed == dict.fromkeys(NODES, 0), again.text[-4000:]


def test_up_again_changes_nothing_and_trains_nothing_again(nodes: Lab) -> None:
    again = trainyard("up")
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-1000:]
    assert re.findall(r"^(\S+)\s+converged, 0 changed$", again.stdout, re.MULTILINE) == NODES, again.stdout[-3000:]
    report = json.loads((STATE / "report.json").read_text())
    assert {proof["cached"] for node in report["nodes"] for proof in node["environments"]} == {True}


def test_check_mode_reports_no_change_and_no_error(nodes: Lab) -> None:
    checked = site("--check", "--diff")
    assert checked.status == 0, checked.failures()
    assert checked.changed == dict.fromkeys(NODES, 0)


def test_the_plain_linear_strategy_works_as_well(nodes: Lab) -> None:
    plain = site("--limit", "head", environment={"ANSIBLE_STRATEGY": "linear"})
    assert plain.status == 0
    assert plain.changed == {"head": 0}


def test_a_tag_runs_all_tasks_of_its_role_and_none_of_the_others(nodes: Lab) -> None:
    tagged = site("--limit", "head", "--tags", "tensorboard")
    assert tagged.status == 0
    assert tagged.changed == {"head": 0}
    tasks = {task for task, _node in tagged.results}
    assert "tensorboard : Run the service with what is on disk" in tasks
    assert "jupyter : Run the service with what is on disk" not in tasks


def test_plan_asks_the_nodes_what_they_are(nodes: Lab) -> None:
    inventory = STATE / "planned"  # as deep in the checkout as the real one, whose paths are relative
    shutil.copytree(INVENTORY, inventory, dirs_exist_ok=True)
    (inventory / "group_vars" / "all" / "plan.yml").write_text("plan_environments: [pytorch]\n")
    done = trainyard("plan", "-i", str(inventory), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    planned = json.loads(done.stdout)["nodes"]
    assert list(planned) == NODES
    assert {node["os"] for node in planned.values()} == {"debian-12"}
    assert {node["environments"]["pytorch"]["python"] for node in planned.values()} == {"3.11"}


def test_verify_trains_again_and_writes_both_reports(nodes: Lab, tmp_path: Path) -> None:
    done = trainyard(
        "verify", "-i", "inventory/lab", "--limit", "node2", "--json", str(tmp_path / "r.json"), "--html", str(tmp_path / "r.html")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (node,) = json.loads((tmp_path / "r.json").read_text())["nodes"]
    assert [proof["cached"] for proof in node["environments"]] == [False] * 5
    page = (tmp_path / "r.html").read_text()
    assert "node2" in page
    assert "<script" not in page


def test_mnist_comes_from_a_url_or_a_path(nodes: Lab) -> None:
    make = f"mkdir -p /srv/mnist && cd /srv/mnist && /opt/trainyard/envs/jax/bin/python -c '{MNIST}'"
    nodes.execute("node2", ["sh", "-c", f"{make} && (setsid python3 -m http.server 8077 --bind 127.0.0.1 >/tmp/mnist.log 2>&1 &)"])
    try:
        for source in ("http://127.0.0.1:8077/mnist.npz", "/srv/mnist/mnist.npz"):
            wishes = {
                "verification_mnist": source,
                "verification_path": "/opt/trainyard/proofs-mnist",
                "verification_environments": [{"name": "jax", "path": "/opt/trainyard/envs/jax"}],
            }
            words = ["--limit", "node2", "-e", json.dumps(wishes)]
            done = ansible_playbook(Path("playbooks/verify.yml"), INVENTORY.relative_to(REPOSITORY), words)
            assert done.status == 0, done.failures()
            proof = json.loads(nodes.execute("node2", ["cat", "/opt/trainyard/proofs-mnist/results/jax.json"]))["proof"]
            assert proof["accuracy"] >= 0.95
            again = ansible_playbook(Path("playbooks/verify.yml"), INVENTORY.relative_to(REPOSITORY), words)
            assert (again.status, again.changed) == (0, {"node2": 0})
        assert "GET /mnist.npz" in nodes.execute("node2", ["cat", "/tmp/mnist.log"])
    finally:
        nodes.execute("node2", ["sh", "-c", "pkill -f '[h]ttp.server 8077'; rm -rf /srv/mnist /opt/trainyard/proofs-mnist; true"])


def test_a_gpu_that_is_expected_and_not_used_fails_the_run(nodes: Lab) -> None:
    wishes = {
        "verification_path": "/opt/trainyard/proofs-gpu",
        "verification_environments": [{"name": "jax", "path": "/opt/trainyard/envs/jax", "device": "gpu"}],
    }
    try:
        words = ["--limit", "node2", "-e", json.dumps(wishes)]
        done = ansible_playbook(Path("playbooks/verify.yml"), INVENTORY.relative_to(REPOSITORY), words)
        assert done.status != 0
        assert "jax: a GPU was expected, but this build of JAX can use the CPU only" in done.failures()
    finally:
        nodes.execute("node2", ["rm", "-rf", "/opt/trainyard/proofs-gpu"])


def test_both_services_answer_on_the_network_with_a_certificate_of_ones_own(nodes: Lab, tmp_path: Path) -> None:
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=node2 -addext subjectAltName=DNS:node2"
    subprocess.run([*words.split(), "-keyout", "own.key", "-out", "own.pem"], cwd=tmp_path, check=True, capture_output=True)
    wishes = {
        f"{role}_{name}": value
        for role in ("jupyter", "tensorboard")
        for name, value in (
            ("listen", "0.0.0.0"),
            ("tls_certificate", str(tmp_path / "own.pem")),
            ("tls_key", str(tmp_path / "own.key")),
        )
    }
    try:
        opened = site("--limit", "node2,head", "--tags", "jupyter,tensorboard,node_firewall", "-e", json.dumps(wishes))
        assert opened.status == 0, opened.failures()
        trusts = ssl.create_default_context(cafile=str(tmp_path / "own.pem"))
        for port, path, status in ((8888, "/login", 200), (6006, "/", 401)):
            deadline = time.monotonic() + 60
            while True:
                try:
                    plain = socket.create_connection((nodes.address("node2"), port), timeout=10)
                    with plain, trusts.wrap_socket(plain, server_hostname="node2") as secured:
                        secured.sendall(f"GET {path} HTTP/1.0\r\nHost: node2\r\n\r\n".encode())
                        answer = secured.recv(100).decode()
                    break
                except ConnectionRefusedError:
                    assert time.monotonic() < deadline, f"nobody listens on {port}"
                    time.sleep(0.5)
            assert f" {status} " in answer.splitlines()[0], answer
    finally:
        assert site("--limit", "node2,head").status == 0
    listening = nodes.execute("node2", ["ss", "-Hltn"])
    assert "127.0.0.1:8888" in listening
    assert "0.0.0.0:8888" not in listening, "and only the node itself is let in again"


def test_apply_says_what_a_stray_pip_install_would_cost_and_repairs_it(nodes: Lab) -> None:
    jax = "/opt/trainyard/envs/jax/bin/python"
    nodes.execute("head", ["/opt/trainyard/envs/.uv/bin/uv", "pip", "uninstall", "--python", jax, "scipy"])
    checked = trainyard("apply", "-i", "inventory/lab", "--limit", "head", "--check")
    assert checked.returncode == 0, checked.stdout
    assert re.search(r"^head\s+no error, 1 would change$", checked.stdout, re.MULTILINE), checked.stdout
    assert "  framework_env: Have the environments exactly as locked" in checked.stdout
    done = trainyard("apply", "-i", "inventory/lab", "--limit", "head")
    assert done.returncode == 0, done.stdout
    assert "import scipy" not in nodes.execute(
        "head", ["/opt/trainyard/envs/jax/bin/python", "-c", "import scipy; print(scipy.__version__)"]
    )


def test_ctrl_c_ends_a_run_and_all_that_it_started_and_the_same_command_goes_on(nodes: Lab) -> None:
    words = [str(REPOSITORY / "trainyard"), "apply", "-i", "inventory/lab"]
    run = subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    assert run.stdout
    for line in run.stdout:
        if "Bring every node to the base" in line:
            break
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the whole of what is in the foreground
    rest = run.communicate(timeout=60)[0]
    assert run.returncode == 130, rest
    assert "interrupted; the same command again goes on from here" in rest
    left = subprocess.run(["pgrep", "-s", str(run.pid), "-a"], capture_output=True, text=True, check=False).stdout
    assert left == ""
    done = trainyard("apply", "-i", "inventory/lab")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("converged, 0 changed") == len(NODES)


def test_a_node_that_does_not_answer_fails_the_run_and_is_named_before_others_change(nodes: Lab) -> None:
    nodes.kill("node2")
    try:
        done = trainyard("apply", "-i", "inventory/lab")
        assert done.returncode == 1
        assert re.search(r"node2\s+unreachable", done.stdout), done.stdout
        assert re.search(r"head\s+\S+, 0 changed", done.stdout), done.stdout
    finally:
        nodes.start("node2")


def test_services_come_back_after_a_reboot(nodes: Lab) -> None:
    nodes.restart("node2")
    for unit in ("trainyard-jupyter.service", "trainyard-tensorboard.service"):
        deadline = time.monotonic() + 60
        while nodes.execute("node2", ["systemctl", "is-active", unit], check=False).strip() != "active":
            assert time.monotonic() < deadline, unit
            time.sleep(0.5)
    done = site("--limit", "node2,head")
    assert done.status == 0, done.failures()
    # Docker writes a container's /etc/hosts anew when it starts; nothing else is to change.
    assert {key for key, result in done.results.items() if result.get("changed")} <= {
        ("names_and_time : Know the other nodes by name", "node2")
    }
