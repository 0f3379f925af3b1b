"""What holds for every answer, over made-up fleets and wishes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from ansible_collections.trainyard.core.plugins.plugin_utils._conflict import all_wishes, explain, relaxed
from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import fits, version
from ansible_collections.trainyard.core.plugins.plugin_utils._plan import Environment, Node, NodePlan, Plan, Wishes
from ansible_collections.trainyard.core.plugins.plugin_utils._resolver import failures, solve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from resolver_support import CATALOG, TODAY, machine

CARDS = ("k80", "gtx 980", "p100", "gtx 1080", "v100", "t4", "a100", "rtx 3090", "rtx 4090", "h100", "b200", "rtx 5090")
SYSTEMS = ("debian-12", "debian-13", "ubuntu-22.04", "ubuntu-24.04", "rhel-9")
PINS = {
    "cuda": ("11.8", "12.6", "13.0", ">=12"),
    "cudnn": ("9.10", ">=9.11", "8"),
    "driver": ("470", "535", "580", ">=550"),
    "python": ("3.11", "3.12", "3.8"),
    "pytorch": ("2.4", "2.14", "1.13"),
    "tensorflow": ("2.17", "2.21", "1.15"),
}
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def fleets(draw: st.DrawFn, largest: int = 4) -> list[Node]:
    """Between one and a few machines, some with several GPUs, some with a driver."""
    made = []
    for number in range(draw(st.integers(1, largest))):
        cards = draw(st.lists(st.sampled_from(CARDS), max_size=2))
        driver = draw(st.sampled_from(("", "", "470.256.02", "535.309.01", "580.95.05", "625.1.1"))) if cards else ""
        kernel = draw(st.sampled_from(("", "", "6.9", "6.16.3+deb13-amd64", "7.0")))
        flavour = draw(st.sampled_from(("", "open", "proprietary")))
        made.append(machine(draw(st.sampled_from(SYSTEMS)), *cards, driver=driver, name=f"node{number}", kernel=kernel, flavour=flavour))
    return made


@st.composite
def wish_lists(draw: st.DrawFn) -> Wishes:
    """Environments of one or two frameworks, and a few pins."""
    groups = draw(
        st.lists(
            st.sampled_from((("pytorch",), ("tensorflow",), ("pytorch", "tensorflow"), ("jax",), ("keras",), ("caffe",))),
            max_size=3,
            unique=True,
        )
    )
    device = draw(st.sampled_from(("", "", "gpu", "cpu", "any")))
    environments = tuple(Environment("-".join(names), names, device) for names in groups)
    names = draw(st.lists(st.sampled_from(sorted(PINS)), max_size=2, unique=True))
    return Wishes(
        environments,
        tuple((name, draw(st.sampled_from(PINS[name]))) for name in names),
        draw(st.sampled_from(("if_needed", "if_needed", "newest", "never"))),
        draw(st.sampled_from(("", "", "open", "proprietary"))),
        draw(st.sampled_from(((), (), ("distribution",)))),
        draw(st.booleans()),
    )


def check(node: NodePlan, wishes: Wishes) -> None:
    """Assert that what a node gets violates no row and no wish; written from the rows, not with the search's own functions."""
    gpus, driver = node.node.gpus, node.driver
    if driver:
        branch = driver.branch.branch
        for gpu in gpus:
            kind = gpu.architecture
            assert kind.first_driver <= branch <= (kind.last_driver or branch)
            assert driver.modules in kind.modules
        assert driver.modules in driver.branch.modules
        assert wishes.modules in {"", driver.modules}
        assert fits(driver.version or str(branch), wishes.pin("driver"))
        if driver.source == "installed":
            assert driver.version == node.node.driver
            assert driver.modules == (node.node.flavour or driver.modules)
        else:
            assert wishes.policy != "never"
            assert not wishes.sources or driver.source in wishes.sources
            (source,) = (source for source in node.node.system.sources if source.name == driver.source)
            assert version(source.kernels.get(branch, "99")) >= version(node.node.kernel)
    else:
        assert not node.toolkits
        assert not gpus or not wishes.use_gpus
    for toolkit in node.toolkits:
        for gpu in gpus:
            line = toolkit.release.line
            assert version(gpu.architecture.first_cuda) <= version(line)
            assert not gpu.architecture.last_cuda or version(line).release[:1] <= version(gpu.architecture.last_cuda).release[:1]
    for placed in node.environments:
        wheels = placed.wheels
        for choice in wheels.choices:
            assert fits(placed.python, choice.release.python)
            assert fits(choice.release.version, wishes.pin(choice.release.framework))
            needs = dict(choice.release.requires)
            for other in wheels.choices:
                assert fits(other.release.version, needs.pop(other.release.framework, ""))
            assert not needs, "something that it needs is missing"
            if choice.build.device != "gpu":
                continue
            assert fits(wheels.cuda, choice.build.cuda)
            if not choice.build.bundled:
                assert any(
                    fits(row.release.line, choice.build.cuda) and fits(row.cudnn or "0", choice.build.cudnn) for row in node.toolkits
                )
            assert not choice.build.cudnn or fits(wheels.cudnn, choice.build.cudnn)
            for gpu in gpus:
                ready = {have for have in choice.build.sass if have[0] == gpu.capability[0] and have <= gpu.capability}
                assert ready or any(have <= gpu.capability for have in choice.build.ptx)
        assert fits(placed.python, wishes.pin("python"))
        if placed.python_from != "frozen":
            by_conda = any(choice.build.origin == "conda" for choice in wheels.choices)
            assert (placed.python_from == "conda") == (by_conda or placed.python != node.node.system.python)
        if wheels.device == "gpu":
            assert driver
            assert fits(wheels.cuda, wishes.pin("cuda"))
            least = {13: "580", 12: "525", 11: "450.80.02"}.get(int(wheels.cuda.split(".")[0]), "0")
            assert version(driver.version or f"{driver.branch.branch}.999") >= version(least)
            if wheels.cudnn:
                rows = [row for row in CATALOG.cudnns if row.version == wheels.cudnn and fits(wheels.cuda, row.cuda)]
                assert all(
                    any(have[0] == gpu.capability[0] and have <= gpu.capability for row in rows for have in row.capabilities)
                    for gpu in gpus
                )
        else:
            assert {choice.build.device for choice in wheels.choices} <= {"cpu", ""}


def device_is_as_wished(plan: Plan, wishes: Wishes) -> None:
    """Assert that no environment computes on the CPU in silence."""
    for node in plan.nodes:
        for placed in node.environments:
            wish = next(one for one in wishes.environments if one.name == placed.environment)
            if wish.device in {"gpu", "cpu"}:
                assert placed.wheels.device == wish.device
            if wish.device == "" and node.node.gpus and wish.frameworks != ("caffe",):
                assert placed.wheels.device == "gpu"


@FEW
@given(fleets(), wish_lists())
def test_an_answer_violates_no_row_and_no_wish(nodes: list[Node], wishes: Wishes) -> None:
    plan = solve(CATALOG, nodes, wishes, TODAY)
    if isinstance(plan, Plan):
        assert [node.node for node in plan.nodes] == nodes
        for node in plan.nodes:
            check(node, wishes)
            assert {placed.environment for placed in node.environments} == {one.name for one in wishes.environments}
        device_is_as_wished(plan, wishes)


@FEW
@given(fleets(2), wish_lists(), st.data())
def test_giving_up_a_wish_never_turns_an_answer_into_a_conflict(nodes: list[Node], wishes: Wishes, data: st.DataObject) -> None:
    every = all_wishes(CATALOG, nodes, wishes)
    if failures(CATALOG, nodes, wishes, TODAY) or not every:
        return
    given_up = data.draw(st.sets(st.sampled_from([wish.key for wish in every])))
    assert not failures(CATALOG, nodes, relaxed(wishes, given_up), TODAY)


def essence(answer: Any) -> Any:
    """Return what of an answer must not depend on the order of words."""
    if not isinstance(answer, Plan):
        return sorted((node.name, failure.environment) for failure in answer for node in failure.nodes)
    return sorted(
        (
            node.node.name,
            node.driver,
            node.toolkits,
            sorted(
                (placed.environment, placed.wheels.requirements, placed.python, placed.wheels.cuda, placed.wheels.cudnn)
                for placed in node.environments
            ),
        )
        for node in answer.nodes
    )


def with_its_driver(plan: NodePlan) -> Node:
    """Return a node as it is once it has what was planned for it."""
    driver = plan.driver
    if driver is None or driver.source == "installed":
        return plan.node
    return replace(plan.node, driver=driver.version or f"{driver.branch.branch}.10.01", flavour=driver.modules)


@FEW
@given(fleets(3), wish_lists())
def test_what_was_planned_is_planned_again_once_it_is_there(nodes: list[Node], wishes: Wishes) -> None:
    first = solve(CATALOG, nodes, wishes, TODAY)
    if not isinstance(first, Plan):
        return
    again = solve(CATALOG, [with_its_driver(node) for node in first.nodes], wishes, TODAY)
    assert isinstance(again, Plan)
    for before, after in zip(first.nodes, again.nodes, strict=True):
        assert after.toolkits == before.toolkits
        assert [(placed.wheels.requirements, placed.python) for placed in after.environments] == [
            (placed.wheels.requirements, placed.python) for placed in before.environments
        ]
        if before.driver and after.driver:
            assert after.driver.source == "installed"
            assert (after.driver.branch.branch, after.driver.modules) == (before.driver.branch.branch, before.driver.modules)


@FEW
@given(fleets(3), wish_lists(), st.randoms(use_true_random=False))
def test_the_order_of_wishes_and_nodes_is_irrelevant(nodes: list[Node], wishes: Wishes, random: Any) -> None:
    environments, pins, others = list(wishes.environments), list(wishes.pins), list(nodes)
    environments = [replace(one, frameworks=tuple(random.sample(one.frameworks, len(one.frameworks)))) for one in environments]
    others = [replace(one, gpus=tuple(random.sample(one.gpus, len(one.gpus)))) for one in others]
    for words in (environments, pins, others):
        random.shuffle(words)
    shuffled = Wishes(tuple(environments), tuple(pins), wishes.policy, wishes.modules, wishes.sources, wishes.use_gpus)
    assert essence(solve(CATALOG, nodes, wishes, TODAY)) == essence(solve(CATALOG, others, shuffled, TODAY))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(fleets(1), wish_lists())
def test_a_clash_is_minimal_and_the_nearest_set_is_the_nearest(nodes: list[Node], wishes: Wishes) -> None:
    if not failures(CATALOG, nodes, wishes, TODAY):
        return
    every = all_wishes(CATALOG, nodes, wishes)
    keys = {wish.key for wish in every}
    found = explain(CATALOG, nodes, wishes, TODAY)
    for conflict in found.conflicts:
        clash = {wish.key for wish in conflict.wishes}
        assert failures(CATALOG, nodes, relaxed(wishes, keys - clash), TODAY), "it clashes"
        for key in clash:
            assert not failures(CATALOG, nodes, relaxed(wishes, keys - clash | {key}), TODAY), "each of them is needed for that"
    assert found.plan, "there is always a way out: give up everything"
    fewer = len(found.changes) - 1
    for some in itertools.combinations(sorted(keys), fewer):
        assert failures(CATALOG, nodes, relaxed(wishes, some), TODAY), f"giving up {some} would have been enough"
