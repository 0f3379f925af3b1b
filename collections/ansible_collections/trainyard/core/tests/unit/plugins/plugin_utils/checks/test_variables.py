# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Misspelt variables of roles are named, with the nearest that there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.trainyard.core.plugins.plugin_utils._fleet_words import NAMES
from ansible_collections.trainyard.core.plugins.plugin_utils.checks import variables

ROOT = Path(__file__).parents[9]
KNOWN = variables.known_variables(ROOT / "roles")


def found(own: dict[str, Any]) -> str:
    return " ".join(variables.problems({"gpu1": own}, KNOWN))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("base_packge_mirror", "base_package_mirror"),
        ("jupyter_pasword", "jupyter_password"),
        ("slurm_partition", "slurm_partitions"),
        ("ssh_hardening_enable", "ssh_hardening_enabled"),
        ("plan_enviroments", "plan_environments"),
        ("trainyard_stat", "trainyard_state"),
        ("names_and_time_server", "names_and_time_servers"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_nearest(name: str, meant: str) -> None:
    assert found({name: 1}) == (
        f"{name} (set for gpu1): the role {variables._role(name, KNOWN)} has no such variable. "
        f"Did you mean {meant}? If the variable is your own, list it in trainyard_own_variables."
    )


def test_names_that_are_none_of_ours_are_left_alone() -> None:
    assert found({"ansible_host": 1, "my_base_url": 1, "_base_x": 1, "base_users_result": {}, "based_on": 1, "group_names": []}) == ""
    assert found({"base_url": 1, "trainyard_own_variables": ["base_url"]}) == ""
    assert "base_url (set for gpu1)" in found({"base_url": 1})


def test_nodes_are_counted() -> None:
    nodes = {f"gpu{number}": {"base_url": 1} for number in range(1, 7)}
    assert "base_url (set for gpu1, gpu2, gpu3 and 3 more)" in variables.problems(nodes, KNOWN)[0]


def test_all_that_playbooks_and_examples_set_is_known() -> None:
    assert found(dict.fromkeys(NAMES, 1)) == ""
    paths = [ROOT / "playbooks" / "group_vars" / "all.yml", *ROOT.glob("inventory/*/group_vars/*/*.yml")]
    for path in paths:
        own = yaml.safe_load(path.read_text()) or {}
        assert found(own) == "", path
