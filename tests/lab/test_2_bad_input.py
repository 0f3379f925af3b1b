"""Bad input: refused before any node changes, by a message that names the variable and what would be right."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.faults import state
from tests.lab.conftest import site
from trainyard.containers import Lab

pytestmark = pytest.mark.lab

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJrvGRH1a3gwGQ+tT1L2yusnNqXqvFQuduzeYBZqU5TE"
BOB: dict[str, Any] = {"name": "bob", "keys": [KEY]}
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown framework": ({"framework_env_environments": ["tensorflow", "pytorhc"]}, ["framework_env_environments", "pytorhc", "pytorch"]),
    "unknown variant": ({"framework_env_variant": "tpu"}, ["framework_env_variant", "tpu", "cpu"]),
    "mirror that is none": ({"base_package_mirror": "tunna"}, ["base_package_mirror: 'tunna' is no mirror", "Did you mean tuna?"]),
    "misspelt variable": ({"base_packge_mirror": "tuna"}, ["base_packge_mirror", "Did you mean base_package_mirror?"]),
    "user without a key": ({"base_users": [{"name": "bob"}]}, ["base_users: the user 'bob' has no entry in keys"]),
    "group that does not exist": (
        {"base_users": [{**BOB, "groups": ["labb"]}]},
        ["'bob' is to be in the group 'labb'", "Did you mean lab?"],
    ),
    "number of the admin": ({"base_users": [{**BOB, "uid": 1000}]}, ["base_users: the user 'bob' has the uid 1000, which belongs to"]),
    "comment with a colon": ({"base_users": [{**BOB, "comment": "Bob: room 3"}]}, ["base_users: the user 'bob' has the comment"]),
    "keys as text": ({"base_users": [{**BOB, "keys": KEY}]}, ["base_users: the user 'bob' has text in keys, which has to be a list"]),
    "plain password": ({"base_users": [{**BOB, "password_hash": "secret"}]}, ["password_hash that is not a hash", "mkpasswd"]),
    "name of digits": ({"base_users": [{**BOB, "name": "20231234"}]}, ["a name of digits alone", "such as u20231234"]),
    "group with a blank": ({"base_groups": [{"name": "GPU users"}]}, ["base_groups: the group 'GPU users' has a name that is not allowed"]),
    "gid of another": (
        {"base_groups": [{"name": "lab2", "gid": 1000}]},
        ["base_groups: the group 'lab2' has the gid 1000, which belongs to"],
    ),
    "group of the data": (
        {"base_data_group": "labb"},
        ["base_data_group: neither this node nor base_groups has a group 'labb'", "mean lab?"],
    ),
    "packages as text": ({"base_packages": "[]"}, ["base_packages: this is text, and has to be a list"]),
    "weak password on loopback": ({"jupyter_password": "short"}, ["jupyter_password", "12"]),
    "weak password on the network": ({"jupyter_listen": "0.0.0.0", "jupyter_password": "short"}, ["jupyter_password", "12"]),
    "no password": ({"jupyter_password": ""}, ["jupyter_password"]),
    "certificate without its key": ({"jupyter_tls_certificate": "/etc/ssl/certs/ca-certificates.crt"}, ["jupyter_tls_key"]),
    "list where a word belongs": ({"framework_env_variant": ["cpu"]}, ["framework_env_variant"]),
    "unknown ssh profile": ({"ssh_hardening_profile": "paranoid"}, ["ssh_hardening_profile", "modern", "cis"]),
    "certificate authority that is not there": (
        {"base_ca_certificates": ["/nowhere/ca.pem"]},
        ["base_ca_certificates: /nowhere/ca.pem cannot be read"],
    ),
    "wishes that clash": (
        {"plan_environments": ["pytorch"], "plan_device": "gpu"},
        ["cannot be had together: PyTorch and pytorch on the GPU", "has no GPU", "let pytorch compute on the CPU"],
    ),
    "unknown framework in the plan": ({"plan_environments": ["pytorhc"]}, ["framework: 'pytorhc' is not known", "pytorch"]),
    "index that is down": (
        {"framework_env_environments": [{"name": "extra", "environment": "jax"}], "framework_env_index_url": "http://127.0.0.1:9/simple"},
        ["framework_env_index_url: http://127.0.0.1:9/simple does not answer", "(4 tries)"],
    ),
    "full disk": (
        {"framework_env_environments": [{"name": "extra", "environment": "jax"}], "framework_env_path": "/dev/shm/envs"},
        ["The disk of /dev/shm/envs has", "by framework_env_path"],
    ),
    "mirror with a typing error in its URL": (
        {"base_package_mirror": "htp://mirror"},
        ["base_package_mirror: 'htp://mirror' is no mirror"],
    ),
}


@pytest.fixture(scope="module")
def before(nodes: Lab) -> dict[str, Any]:
    """A node before anything was refused."""
    return state.of(nodes, "head")


@pytest.mark.parametrize("case", CASES)
def test_refused_by_name_and_nothing_changed(nodes: Lab, before: dict[str, Any], case: str) -> None:
    variables, says = CASES[case]
    refused = site("-e", json.dumps(variables))
    assert refused.status != 0
    for words in says:
        assert words in refused.failures(), refused.failures() or refused.text[-3000:]
    assert set(refused.changed.values()) == {0}
    assert state.differences(before, state.of(nodes, "head")) == []


def test_a_wrong_checksum_is_refused(nodes: Lab) -> None:
    wheel = "/srv/wrong/torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl"
    for node in nodes.nodes:
        nodes.execute(node, ["mkdir", "/srv/wrong"])
    try:
        nodes.execute("node1", ["sh", "-c", f"echo another >{wheel}"])
        before = {node: state.of(nodes, node) for node in nodes.nodes}
        extra = [{"name": "extra", "environment": "pytorch"}]
        refused = site("-e", json.dumps({"framework_env_environments": extra, "framework_env_wheelhouse": "/srv/wrong"}))
        assert refused.status != 0
        assert "Wrong checksum: torch==2.13.0+cpu was locked as sha256:" in refused.failures()
        assert f"but {wheel} is sha256:" in refused.failures()
        assert "framework_env_wheelhouse (a folder of wheels)" in refused.failures()
        assert set(refused.changed.values()) == {0}
        assert [state.differences(before[node], state.of(nodes, node)) for node in nodes.nodes] == [[], [], []]
    finally:
        for node in nodes.nodes:
            nodes.execute(node, ["rm", "-r", "/srv/wrong"])


def test_an_unsupported_platform_is_refused(nodes: Lab) -> None:
    release = nodes.execute("node1", ["cat", "/usr/lib/os-release"])
    edit = 's/^VERSION_ID=.*/VERSION_ID="99"/; s/^VERSION=.*//; s/^PRETTY_NAME=.*//'
    nodes.execute("node1", ["sh", "-c", f"sed -i '{edit}' /usr/lib/os-release; echo 99 >/etc/debian_version"])
    try:
        refused = site()
        assert refused.status != 0
        assert (
            "which Trainyard does not know. Known: Debian 12, Debian 13; with trainyard_untested_platforms: true also Ubuntu"
            in refused.failures()
        )
        assert set(refused.changed.values()) == {0}
    finally:
        nodes.execute("node1", ["sh", "-c", f"cat >/usr/lib/os-release <<'END'\n{release}END\necho 12.11 >/etc/debian_version"])


def test_a_node_of_another_cluster_is_refused_as_add_node_would(nodes: Lab) -> None:
    theirs = "head -c 128 /dev/urandom >/etc/munge/munge.key; echo 'SLURMD_OPTIONS=\"--conf-server elsewhere\"' >>/etc/default/slurmd"
    nodes.execute("node1", ["sh", "-c", f"cp -a /etc/munge/munge.key /etc/default/slurmd /root; {theirs}"])
    try:
        refused = site()
        assert refused.status != 0
        assert (
            "node1 is a node of another cluster: its Slurm obeys elsewhere, and its munge key is not the one of head." in refused.failures()
        )
        assert set(refused.changed.values()) == {0}
    finally:
        nodes.execute("node1", ["sh", "-c", "mv /root/munge.key /etc/munge/munge.key; mv /root/slurmd /etc/default/slurmd"])
