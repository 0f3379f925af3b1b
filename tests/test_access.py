"""How people get in, as it is told at the end of a run: commands that reach the node, and where the password is, never what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainyard import access

CANARY = "Canary-Password-123"
LOOKUP = "{{ lookup('ansible.builtin.password', inventory_dir ~ '/.secrets/notebook_password', length=24) }}"


def node(name: str, *, converged: bool = True, services: tuple[str, ...] = ()) -> dict[str, Any]:
    ports = {"JupyterLab": 8888, "TensorBoard": 6006}
    found = [{"name": service, "port": ports[service], "fingerprint": "AB:CD"} for service in services]
    return {"name": name, "converged": converged, "services": found}


@pytest.mark.parametrize(
    "variables,expected",
    [
        ({}, "gpu1"),
        ({"ansible_host": "192.0.2.1", "ansible_user": "ann"}, "ann@192.0.2.1"),
        ({"ansible_host": "192.0.2.1", "ansible_port": 2222}, "-p 2222 192.0.2.1"),
        ({"ansible_ssh_private_key_file": "~/a key"}, "-i '~/a key' gpu1"),
        ({"ansible_ssh_common_args": "-J jump@192.0.2.9", "ansible_user": "ann"}, "-J jump@192.0.2.9 ann@gpu1"),
        ({"ansible_ssh_common_args": "-F '{{ inventory_dir }}/ssh_config'", "ansible_user": "ann"}, "-F FOLDER/ssh_config gpu1"),
        ({"ansible_host": "{{ lookup('env', 'HERE') }}", "ansible_user": "{{ who }}"}, "gpu1"),
        ({"ansible_ssh_common_args": "-o 'not closed"}, "gpu1"),
    ],
)
def test_the_command_reaches_the_node_as_ansible_does(tmp_path: Path, variables: dict[str, Any], expected: str) -> None:
    assert access.destination("gpu1", variables, tmp_path) == expected.replace("FOLDER", str(tmp_path))


@pytest.mark.parametrize(
    "variables,expected",
    [
        ({"jupyter_password": LOOKUP}, "in the file FOLDER/.secrets/notebook_password"),
        ({"jupyter_password": "{{ notebooks }}", "notebooks": LOOKUP}, "in the file FOLDER/.secrets/notebook_password"),
        ({"jupyter_password": CANARY}, "the value of jupyter_password in the inventory"),
        ({"jupyter_password": "{{ secret }}", "secret": CANARY}, "the value of secret in the inventory"),
        ({"jupyter_password": {"__ansible_vault": CANARY}}, "the value of jupyter_password in the inventory (in a vault)"),
        ({"jupyter_password": "{{ jupyter_password }}"}, "the value of jupyter_password in the inventory"),
        ({"jupyter_password": "{{ a }}", "a": "{{ jupyter_password }}"}, "the value of jupyter_password in the inventory"),
        ({}, "the value of jupyter_password in the inventory"),
    ],
)
def test_a_password_is_never_shown(tmp_path: Path, variables: dict[str, Any], expected: str) -> None:
    shown = access.password("jupyter_password", variables, tmp_path)
    assert shown == expected.replace("FOLDER", str(tmp_path))
    assert CANARY not in shown


def test_nodes_that_failed_are_not_offered_and_thirty_take_few_lines(tmp_path: Path) -> None:
    report = {"nodes": [node("bad", converged=False), *(node(f"gpu{number}") for number in range(30))]}
    lines = access.ways_in(report, {}, tmp_path)
    assert lines == ["Log in:", "    ssh gpu0", "    ssh gpu1", "    ssh gpu2", "    and likewise 27 more nodes"]


def test_each_service_has_its_tunnel_and_its_fingerprint_and_each_password_one_line(tmp_path: Path) -> None:
    report = {"nodes": [node(name, services=("JupyterLab", "TensorBoard")) for name in ("head", "node1")]}
    lines = access.ways_in(report, {"head": {"ansible_host": "192.0.2.1"}}, tmp_path)
    assert lines[3:6] == [
        "JupyterLab on head: open a tunnel, then https://127.0.0.1:8888",
        "    ssh -L 8888:127.0.0.1:8888 192.0.2.1",
        "    SHA-256 fingerprint of its certificate: AB:CD",
    ]
    assert sum("certificate: AB:CD" in line for line in lines) == 4
    assert [line for line in lines if line.startswith("Password")] == ["Password of JupyterLab:", "Password of TensorBoard (user lab):"]


def test_one_password_of_both_services_is_named_once(tmp_path: Path) -> None:
    report = {"nodes": [node("head", services=("JupyterLab", "TensorBoard"))]}
    variables = {"jupyter_password": LOOKUP, "tensorboard_password": "{{ jupyter_password }}", "tensorboard_login": "ann"}
    lines = access.ways_in(report, {"head": variables}, tmp_path)
    place = lines.index("Password of JupyterLab and TensorBoard (user ann):")
    assert lines[place + 1] == f"    in the file {tmp_path}/.secrets/notebook_password"
    assert access.ways_in({"nodes": [node("head", converged=False)]}, {}, tmp_path) == []
