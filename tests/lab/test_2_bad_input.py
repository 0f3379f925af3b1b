"""Bad input: refused before any node changes, by a message that names the variable and what would be right."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.faults import state
from tests.lab.conftest import site
from trainyard.containers import Lab

pytestmark = pytest.mark.lab

CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown framework": ({"framework_env_environments": ["tensorflow", "pytorhc"]}, ["framework_env_environments", "pytorhc", "pytorch"]),
    "unknown variant": ({"framework_env_variant": "tpu"}, ["framework_env_variant", "tpu", "cpu"]),
    "mirror that is none": ({"base_package_mirror": "tunna"}, ["base_package_mirror: 'tunna' is no mirror", "Did you mean tuna?"]),
    "user without a key": ({"base_users": [{"name": "bob"}]}, ["base_users: the user 'bob' has no entry in keys"]),
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
