"""hosts.yml as text: groups, and nodes that come and go with every other byte kept."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
import yaml

from trainyard.errors import TrainyardError
from trainyard.hosts_file import HostsFile, expanded, locate
from trainyard.paths import REPOSITORY

LAB = """\
---
# Our lab.
all:
  hosts:
    head:
      ansible_host: 192.0.2.10   # the one with the disk
  vars:
    ansible_user: 'admin'
  children:
    gpu:
      hosts:
        node1: {ansible_host: 192.0.2.11}
        node2:  # the old one
          ansible_host: 192.0.2.12

        # where notebooks run
    notebooks:
      hosts:
        head:
    cluster:
      children:
        slurm_controller:
          hosts:
            head:
        slurm_compute:  # who computes
          hosts:
            node1:
            node2:

# The end.
"""


def changes(before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in lines if line[:2] not in {"--", "++", "@@"}]


def test_what_the_file_says() -> None:
    file = HostsFile(LAB)
    assert file.controller() == "head"
    assert file.all_of("slurm_compute") == ["node1", "node2"]
    assert file.all_of("cluster") == ["head", "node1", "node2"]
    assert file.hosts()["node2"] == {"ansible_host": "192.0.2.12"}
    assert expanded("gpu[01:03]") == ["gpu01", "gpu02", "gpu03"]


def test_a_node_comes_and_goes_and_every_other_byte_stays() -> None:
    groups = HostsFile(LAB).groups_for()
    assert groups == ["gpu", "slurm_compute"]
    added = HostsFile(LAB).with_node("node3", groups, {"ansible_host": "192.0.2.13", "slurm_closed": True})
    assert changes(LAB, added) == ["+        node3: {ansible_host: 192.0.2.13, slurm_closed: true}", "+            node3:"]
    opened = HostsFile(added).with_variable("node3", "slurm_closed")
    assert changes(LAB, opened) == ["+        node3: {ansible_host: 192.0.2.13}", "+            node3:"]
    assert HostsFile(opened).without_node("node3") == LAB
    assert yaml.safe_load(opened)["all"]["children"]["gpu"]["hosts"]["node3"] == {"ansible_host": "192.0.2.13"}


def test_a_node_in_the_middle_and_the_last_one_go_with_their_own_comments_only() -> None:
    assert changes(LAB, HostsFile(LAB).without_node("node1")) == ["-        node1: {ansible_host: 192.0.2.11}", "-            node1:"]
    gone = changes(LAB, HostsFile(LAB).without_node("node2"))
    assert gone == ["-        node2:  # the old one", "-          ansible_host: 192.0.2.12", "-            node2:"]


@pytest.mark.parametrize("layout", ["plain", "wide", "flow"])
def test_other_ways_to_write_it(layout: str) -> None:
    data = {"all": {"children": {"slurm_controller": {"hosts": {"head": None}}, "slurm_compute": {"hosts": {"a": {"x": [1, 2]}, "b": {}}}}}}
    text = yaml.safe_dump(data, indent=4 if layout == "wide" else 2, sort_keys=False)
    if layout == "flow":
        text = "all:\n  children:\n    slurm_controller: {hosts: {head: }}\n    slurm_compute: {hosts: {a: {x: [1, 2]}, b: {}}}\n"
    added = HostsFile(text).with_node("c", HostsFile(text).groups_for(), {"ansible_host": "192.0.2.3"})
    assert HostsFile(added).hosts()["c"] == {"ansible_host": "192.0.2.3"}
    assert HostsFile(added).without_node("c") == text


def test_groups_of_a_new_node() -> None:
    both = LAB.replace("            node2:\n", "            node2:\n            head:\n")
    assert HostsFile(both).groups_for() == ["slurm_compute"]
    assert HostsFile(both).groups_for("node1") == ["gpu", "slurm_compute"]
    assert HostsFile(both).groups_for("head") == ["notebooks", "slurm_compute"]
    with pytest.raises(TrainyardError, match="--like node9: it does not compute here"):
        HostsFile(LAB).groups_for("node9")
    nested = yaml.safe_dump(
        {"all": {"children": {"slurm_compute": {"children": {"old": {"hosts": {"a": None}}, "new": {"hosts": {"b": None}}}}}}}
    )
    with pytest.raises(TrainyardError, match="Name one like it: --like NODE"):
        HostsFile(nested).groups_for()
    assert HostsFile(nested).groups_for("b") == ["new"]


def test_a_lab_without_a_cluster_is_refused() -> None:
    with pytest.raises(TrainyardError, match="The group slurm_controller has no node"):
        HostsFile("all:\n  hosts:\n    a:\n").controller()


RANGE = """\
all:
  children:
    slurm_compute:
      hosts:
        # the new rack
        gpu[1:3]: {slurm_gpus: [a100]}  # bought together
        # and a guest
        one:
    gpu:
      hosts:
        gpu[1:3]:
"""


def test_a_range_is_written_out_where_one_of_it_goes() -> None:
    assert HostsFile(RANGE).all_of("slurm_compute") == ["gpu1", "gpu2", "gpu3", "one"]
    assert (
        HostsFile(RANGE).without_node("gpu2")
        == """\
all:
  children:
    slurm_compute:
      hosts:
        # the new rack
        gpu1: {slurm_gpus: [a100]}  # bought together
        gpu3: {slurm_gpus: [a100]}
        # and a guest
        one:
    gpu:
      hosts:
        gpu1:
        gpu3:
"""
    )
    assert "gpu2" in HostsFile(RANGE).without_node("gpu1")
    assert HostsFile(RANGE).without_node("one") == RANGE.replace("        one:\n", "")


def test_what_cannot_be_taken_out_is_named() -> None:
    alone = "all:\n  children:\n    slurm_compute:\n      hosts:\n        two:\n        one:\n    alone:\n      hosts:\n        one:\n"
    with pytest.raises(TrainyardError, match="one is the last host of the group alone"):
        HostsFile(alone).without_node("one")


@pytest.mark.parametrize("text, said", [("all: [", "is no YAML"), ("- a\n", "holds no groups")])
def test_what_is_no_inventory_is_refused(text: str, said: str) -> None:
    with pytest.raises(TrainyardError, match=said):
        HostsFile(text)


def test_values_over_several_lines_are_read_and_not_edited() -> None:
    found = HostsFile("all:\n  vars:\n    note: one\n      two\n  hosts:\n    a:\n    b: {ansible_host: 192.0.2.1}\n")
    assert found.hosts() == {"a": {}, "b": {"ansible_host": "192.0.2.1"}}
    with pytest.raises(TrainyardError, match="values over several lines"):
        found.without_node("a")


def test_where_the_hosts_stand(tmp_path: Path) -> None:
    assert locate(REPOSITORY / "inventory" / "example").name == "hosts.yml"
    (tmp_path / "hosts.ini").touch()
    for path in (tmp_path, tmp_path / "hosts.ini"):
        with pytest.raises(TrainyardError, match=r"Write the node into .* the group slurm_compute .* by hand"):
            locate(path)


@pytest.mark.parametrize("lab", ["example", "lab"])
def test_the_inventories_of_this_repository_come_out_as_they_are_written(lab: str) -> None:
    HostsFile((REPOSITORY / "inventory" / lab / "hosts.yml").read_text())
