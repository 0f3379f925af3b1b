"""A node whose only way out is a proxy; the proxy is a stand-in on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.forward_proxy_stand_in import ForwardProxy
from tests.support import Play, ansible_playbook, inventory_of
from trainyard.containers import Lab
from trainyard.paths import REPOSITORY

pytestmark = pytest.mark.nodes

SETTINGS = "/etc/apt/apt.conf.d/80trainyard-proxy"


@pytest.fixture(scope="module")
def proxy(node: Lab) -> Iterator[ForwardProxy]:
    """The proxy, and a node that reaches nothing else."""
    way_out = node.execute("head", ["sh", "-c", "ip -4 route show default | cut -d' ' -f3"]).strip()
    found = ForwardProxy(way_out)
    node.execute("head", ["ip", "route", "del", "default"])
    yield found
    found.close()


def run(node: Lab, folder: Path, *playbooks: str, **variables: Any) -> Play:
    """Run playbooks; the node gets one small package and the environment of TensorBoard."""
    wishes: dict[str, Any] = {
        "base_ca_certificates": "{{ query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt') }}",
        "base_packages": ["less"],
        "framework_env_environments": [],
        "framework_env_services": ["tensorboard"],
        **variables,
    }
    for playbook in playbooks:
        done = ansible_playbook(REPOSITORY / "playbooks" / playbook, inventory_of(node, folder, wishes))
        if done.status:
            break
    return done


def test_without_the_variable_the_refusal_names_it_before_anything_changes(node: Lab, proxy: ForwardProxy, tmp_path: Path) -> None:
    node.execute("head", ["sh", "-c", "rm -rf /var/lib/apt/lists/*"])
    for packages, refused in ((["less"], "apt cannot fetch http"), ([], "framework_env_index_url: the usual index")):
        done = run(node, tmp_path, "preflight.yml", base_packages=packages)
        assert refused in done.failures(), done.text[-2000:]
        assert "base_proxy where a proxy is the only way out" in done.failures()
        assert done.changed == {"head": 0}
    assert proxy.asked == []


def test_a_password_in_it_is_refused_unseen(node: Lab, tmp_path: Path) -> None:
    done = run(node, tmp_path, "preflight.yml", base_proxy="http://alice:Kestrel-7@192.0.2.1:3128")
    assert "base_proxy has a user or a password in it" in done.failures()
    assert "Kestrel-7" not in done.text


def test_packages_and_environments_come_by_the_proxy(node: Lab, proxy: ForwardProxy, tmp_path: Path) -> None:
    done = run(node, tmp_path, "preflight.yml", "base.yml", "frameworks.yml", base_proxy=proxy.url, base_no_proxy=["mirror.example"])
    assert done.status == 0, done.failures() or done.text[-2000:]
    methods = [method for method, _target in proxy.asked]
    assert "GET" in methods, "apt"
    assert "CONNECT" in methods, "uv"
    assert node.execute("head", ["/opt/trainyard/envs/tensorboard/bin/python", "-c", "import tensorboard; print('it is there')"])
    assert proxy.url in node.execute("head", ["apt-config", "dump", "Acquire::https::Proxy"])
    again = run(node, tmp_path, "base.yml", base_proxy=proxy.url, base_no_proxy=["mirror.example"])
    assert again.changed == {"head": 0}


def test_an_empty_value_takes_it_away(node: Lab, tmp_path: Path) -> None:
    done = run(node, tmp_path, "base.yml", base_proxy="")
    assert (done.status, done.changed) == (0, {"head": 1}), done.failures()
    assert node.execute("head", ["sh", "-c", f"ls {SETTINGS} 2>/dev/null || true"]) == ""
