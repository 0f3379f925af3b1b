# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a machine fits a cluster: what add-node refuses is in tests/test_newcomer.py, what a run of the whole lab refuses is here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.filter import admission_problems
from ansible_collections.trainyard.core.plugins.plugin_utils.checks import admission
from ansible_collections.trainyard.core.plugins.plugin_utils.checks.admission import Machine

GIB = 2**30
HEAD = Machine("debian 12", "x86_64", "head", 1000, {"/": 50 * GIB}, slurm="head", munge="0a0a")
NODE = Machine("debian 12", "x86_64", "node1", 1030, {"/": 50 * GIB, "/opt": 50 * GIB})
REPORTED: dict[str, Any] = {
    "os": "debian 12",
    "architecture": "x86_64",
    "host": "node1",
    "clock": 1030,
    "free": {"/": GIB, "/opt": 50 * GIB},
    "gpus": ["NVIDIA A100"],
    "slurm": "",
    "munge": "",
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"clock": 1600},  # the run sets it
        {"slurm": "head", "munge": "0a0a", "free": {"/": 0}},  # a node at work may be nearly full
        {"slurm": "head:6817", "munge": "0b0b"},  # the controller was installed anew
        {"slurm": "", "munge": "0b0b"},
    ],
)
def test_what_a_run_sets_right_is_not_refused(change: dict[str, Any]) -> None:
    assert admission.in_a_run("node1", replace(NODE, **change), HEAD) == []


@pytest.mark.parametrize(
    "change, said",
    [
        ({"os": "debian 13"}, "node1 is debian 13 (x86_64), and the cluster's controller debian 12 (x86_64)"),
        ({"architecture": "aarch64"}, "Install debian 12 on node1"),
        ({"free": {"/": 50 * GIB, "/var": GIB // 2}}, "The disk of node1 is full at /var (0.5 GiB free); 2 GiB are needed."),
        ({"slurm": "other", "munge": "0b0b"}, "node1 is a node of another cluster: its Slurm obeys other"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict[str, Any], said: str) -> None:
    (refusal,) = admission.in_a_run("node1", replace(NODE, **change), HEAD)
    assert said in refusal


def test_the_controller_fits_itself_before_it_has_slurm() -> None:
    bare = replace(HEAD, slurm="", munge="")
    assert admission.in_a_run("head", bare, bare) == []


def test_what_a_machine_reports_is_made_printable() -> None:
    found = admission.machine({**REPORTED, "host": "\x1b[31mnode1", "gpus": ["A100\r"]})
    assert (found.host, found.gpus) == ("node1", ["A100"])


@pytest.mark.parametrize("broken", [{"os": None}, {"free": None}, {"clock": "soon"}])
def test_what_is_no_machine_is_refused(broken: dict[str, Any]) -> None:
    told = {key: value for key, value in {**REPORTED, **broken}.items() if value is not None}
    with pytest.raises(ValueError, match=r"it does not report its|invalid literal"):
        admission.machine(told)


def test_the_filter_compares_what_both_report() -> None:
    (refusal,) = admission_problems.admission_problems(REPORTED, {**REPORTED, "host": "head"}, "node1")
    assert "The disk of node1 is full at / (1.0 GiB free)" in refusal
    assert admission_problems.admission_problems(REPORTED, {}, "node1") == []  # this run has not seen the controller
