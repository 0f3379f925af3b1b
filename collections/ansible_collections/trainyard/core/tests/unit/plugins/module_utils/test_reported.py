"""What a node reports never becomes more than one value: no line, no key and no control character comes of it anywhere."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, TypeVar

import jinja2
import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.trainyard.core.plugins.filter.node_addresses import node_addresses
from ansible_collections.trainyard.core.plugins.filter.reported import reported as reported_filter
from ansible_collections.trainyard.core.plugins.filter.slurm_nodes import slurm_nodes
from ansible_collections.trainyard.core.plugins.module_utils import _environments as environments
from ansible_collections.trainyard.core.plugins.module_utils import _hosts as hosts
from ansible_collections.trainyard.core.plugins.module_utils import _nfs as nfs
from ansible_collections.trainyard.core.plugins.module_utils import _report, _report_page, _tls
from ansible_collections.trainyard.core.plugins.module_utils import _slurm_conf as slurm_conf
from ansible_collections.trainyard.core.plugins.module_utils._host import reported
from hypothesis import given, settings
from hypothesis import strategies as st

T = TypeVar("T")
ROLES = Path(__file__).parents[8] / "roles"
EVIL = ["\n", "\r", "\x00", "\x0b", "\x1b[2J", "\x1b]0;t\x07", "\x85", "\u2028", "\u202e", "\ud800", *"#= '\"\\%,;"]
HONEST = ["node2", "192.0.2.3", "fe80::1%", "NVIDIA A100-SXM4-40GB", "/srv/x", "6.1.0-41-amd64", "deb.mirror.example", "../../etc"]
TEXTS = st.one_of(
    st.text(st.characters(), max_size=20),
    st.lists(st.sampled_from(EVIL + HONEST + ["PrologSlurmctld=/tmp/p", "<b>", "&amp;", "[red]"]), max_size=6).map("".join),
)
VALUES = st.one_of(TEXTS, st.integers(), st.booleans(), st.none(), st.lists(TEXTS, max_size=2))
ANYTHING = settings(max_examples=150, deadline=None)


def plain(text: str, but: str = "\n") -> bool:
    """Return whether a terminal can be handed the text."""
    return all(each.isprintable() or each in but for each in text)


def attempt(make: Callable[[], T]) -> T | None:
    """Return what is made; None where it is refused, in words that can be printed."""
    try:
        return make()
    except (AnsibleFilterError, reported.ReportedError) as error:
        said = str(error)
    assert plain(said, but="")
    return None


# --- the kinds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, value",
    [
        ("host name", "gpu-01"),
        ("full host name", "gpu-01.lab.example"),
        ("address", "192.0.2.3"),
        ("address", "2001:db8::1"),
        ("GPU name", "NVIDIA A100-SXM4-40GB (rev. 2)"),
        ("GPU name", "ERR!"),  # what nvidia-smi prints of one that is broken
        ("GPU type", "a100-sxm4_40gb"),
        ("path", "/srv/shared/a.b+c"),
        ("kernel version", "6.1.0-41-amd64"),
        ("kernel version", "6.8.0-31-generic"),
        ("word", "x86_64"),
    ],
)
def test_honest_values_stay_as_they_are(kind: str, value: str) -> None:
    assert reported.KINDS[kind]("node2", value, kind) == value


@pytest.mark.parametrize(
    "kind, value",
    [
        ("host name", "mirror.example"),
        ("host name", "node2\nPrologSlurmctld=/tmp/p #"),
        ("host name", "a" * 64),
        ("host name", "192"),
        ("host name", "-x"),
        ("full host name", "192.0.2.3"),
        ("full host name", "a..b"),
        ("full host name", "a.b\n"),
        ("address", "fe80::1%a\n192.0.2.1 mirror.example"),
        ("address", "127.0.0.1"),
        ("address", "224.0.0.1"),
        ("address", 3221225985),
        ("GPU name", "a\tb"),
        ("GPU type", "a,b"),
        ("path", "/srv/../etc"),
        ("path", "/srv/a b"),
        ("path", "srv"),
        ("kernel version", "6.1/../x"),
        ("word", "../x"),
        ("word", "a/b"),
    ],
)
def test_others_are_refused_by_name(kind: str, value: object) -> None:
    with pytest.raises(reported.ReportedError) as refused:
        reported.KINDS[kind]("node2", value, kind)
    said = str(refused.value)
    assert said.startswith(f"node2 reports the {kind} ")
    assert plain(said, but="")
    assert len(said) < 500


@ANYTHING
@given(VALUES)
def test_any_value_is_one_word_on_one_line_or_refused_in_words_that_can_be_printed(value: object) -> None:
    for kind, check in reported.KINDS.items():
        found = attempt(lambda check=check, kind=kind: check("node2", value, kind))  # type: ignore[misc]
        if found is not None:
            assert found.isascii()
            assert found.isprintable()
            assert not set(found) & set("#\\'\"`$%;" + (" " if kind != "GPU name" else ""))


@ANYTHING
@given(VALUES)
def test_numbers_are_numbers(value: object) -> None:
    try:
        assert reported.number("node2", value, "CPUs", 1, 100) in range(1, 101)
    except reported.ReportedError:
        assert not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 100


@ANYTHING
@given(TEXTS)
def test_what_is_printed_is_printable(text: str) -> None:
    assert plain(reported.printable(text), but="\n\t")
    assert len(reported.printable(text, 10)) <= 14
    assert plain(reported.shown(text), but="")
    reported.printable(text).encode()


# --- files -----------------------------------------------------------------------------------------------------------


def hostvars(liar: Mapping[str, Any], address: str = "") -> dict[str, Any]:
    """Return what a run knows of an honest node1 and of node2."""
    result = {"hardware": {"CPUs": 2, "RealMemory": 4000}, "unconfined": "", "nvml": False}
    return {
        "node1": {
            "ansible_facts": {"hostname": "node1", "fqdn": "node1", "default_ipv4": {"address": "192.0.2.2"}},
            "slurm_node_result": {**result, "host": "node1"},
        },
        "node2": {
            "ansible_facts": {"hostname": "node2", "fqdn": "node2", "default_ipv4": {"address": address or "192.0.2.3"}, **liar},
            "slurm_node_result": {**result, "host": "node2"},
        },
    }


FACTS = st.fixed_dictionaries({}, optional=dict.fromkeys(("hostname", "fqdn", "domain", "nodename", "default_ipv4"), VALUES))


@ANYTHING
@given(FACTS, VALUES)
def test_the_hosts_file_has_the_inventorys_names_alone(liar: dict[str, Any], address: Any) -> None:
    facts = {**liar, "default_ipv4": {"address": address}} if "default_ipv4" not in liar else liar
    nodes = node_addresses(["node1", "node2"], hostvars(facts), "names_and_time_address")
    text, unknown = hosts.renewed("127.0.0.1 localhost\n", nodes)
    first, *inside, last, other, end = text.split("\n")
    assert (first, last, other, end) == (hosts.BEGIN, hosts.END, "127.0.0.1 localhost", "")
    assert inside[0] == "192.0.2.2 node1"
    assert [line.split(" ")[1:] for line in inside[1:]] == ([] if unknown else [["node2"]])
    assert all(reported.is_address(line.split(" ")[0]) for line in inside)
    problems = hosts.problems({"servers": [], "serves_to": []}, nodes, "node2")
    assert all(plain(problem, but="") for problem in problems)
    if "hostname" in facts and facts["hostname"] != "node2":
        assert any(problem.startswith("node2 calls itself ") for problem in problems)


@ANYTHING
@given(st.text(st.characters(), max_size=40), TEXTS, TEXTS)
def test_exports_are_to_addresses_alone(before: str, address: str, folder: str) -> None:
    nodes = {name: {"address": "192.0.2.2", "names": [name], "seen": True} for name in ("head", "node1")}
    nodes["node2"] = {"address": address, "names": ["node2"], "seen": True}
    for folders in (["/srv/shared"], [folder]):
        made = attempt(lambda folders=folders: nfs.exports(f"# node node2 {before}", folders, nodes, "head"))  # type: ignore[misc]
        if made is None:
            continue
        text, unknown = made
        keys = [re.sub(r"[0-9a-f.:]+$", "", line) if line.startswith("# node") else line for line in text.split("\n")]
        assert keys[:2] == [nfs.HEADER.strip(), "# node node1 "]
        assert keys[2:-2] == ([] if unknown else ["# node node2 "])
        assert keys[-2].startswith(f"{folders[0]} -rw,sync,")
        assert all(map(reported.is_address, keys[-2].split(" ")[2:]))


@ANYTHING
@given(VALUES)
def test_rsyncd_answers_addresses_alone(address: Any) -> None:
    engine = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    engine.filters["trainyard.core.reported"] = reported_filter
    template = engine.from_string((ROLES / "framework_env/templates/etc/trainyard/environments/rsyncd.conf.j2").read_text())
    known = hostvars({"default_ipv4": {"address": address}})
    names = ["node1", "node2"]
    given = {"framework_env_cluster": names, "inventory_hostname": "node1", "framework_env_path": "/opt/e", "framework_env_port": 8730}
    given |= {"_framework_env_known": {}}
    text = template.render(hostvars=known, _framework_env_addresses=node_addresses(names, known, "x"), **given)
    honest = template.render(hostvars=hostvars({}), _framework_env_addresses=node_addresses(names, hostvars({}), "x"), **given)
    lines, others = ([line for line in whole.split("\n") if not line.startswith("# node ")] for whole in (text, honest))
    noted = [line.split() for line in text.split("\n") if line.startswith("# node ")]
    assert all(words[:3] == ["#", "node", "node2"] and reported.is_address(words[3]) and len(words) == 4 for words in noted)
    assert len(lines) == len(others)
    assert [line for line in lines if not line.startswith("hosts allow")] == [line for line in others if not line.startswith("hosts allow")]
    (allowed,) = (line.split() for line in lines if line.startswith("hosts allow"))
    assert len(allowed) == 4
    assert allowed[-1] == "node2" or reported.is_address(allowed[-1])


def keys_of(files: Mapping[str, str]) -> list[list[str]]:
    """Return the keys of each line of slurm.conf and gres.conf, as Slurm reads them."""
    lines = [line.partition("#")[0] for name in ("slurm.conf", "gres.conf") for line in re.split(r"[\r\n\x0b\x0c\x85\u2028]", files[name])]
    return [re.findall(r"(?:^|\s)([A-Za-z]+)=", re.sub(r'"[^"]*"', "", line)) for line in lines if line.strip()]


def rendered(names: list[str], known: Mapping[str, Any]) -> dict[str, str]:
    """Return Slurm's files for some nodes."""
    return slurm_conf.files("lab", "head(192.0.2.1)", slurm_conf.merged(names, slurm_nodes(names, known), {}), [], {}, 5)


LOOKED = st.fixed_dictionaries(
    {},
    optional={
        "host": st.one_of(VALUES, st.just("node1")),
        "unconfined": VALUES,
        "nvml": VALUES,
        "hardware": st.one_of(
            VALUES, st.dictionaries(st.one_of(TEXTS, st.sampled_from(["CPUs", "RealMemory", "Boards"])), VALUES, max_size=4)
        ),
    },
)


@ANYTHING
@given(LOOKED, TEXTS, st.lists(TEXTS, max_size=3))
def test_slurms_files_have_the_keys_of_honest_nodes(liar: dict[str, Any], address: str, gpus: list[str]) -> None:
    known = hostvars({"default_ipv4": {"address": address}} if address else {})
    known["node2"]["slurm_node_result"].update(liar)
    known["node2"]["slurm_gpu_result"] = {"gpu_info": {"nvidia_smi": {"gpus": [{"name": gpu} for gpu in gpus]}}}
    found = attempt(lambda: rendered(["node1", "node2"], known))
    if found is None:
        return
    allowed = {"NodeName", "NodeAddr", "CPUs", "Boards", "RealMemory", "Gres", "State", "AutoDetect", "Name", "Type", "File"}
    honest = rendered(["node1"], known)
    before, after = ([keys for keys in keys_of(each) if keys[0] != "NodeName"] for each in (honest, found))
    assert after == before
    assert {key for keys in keys_of(found) if keys[0] == "NodeName" for key in keys} <= allowed
    assert set(re.findall(r"NodeName=(\S*)", found["slurm.conf"] + found["gres.conf"])) <= {"node1", "node2"}


@ANYTHING
@given(TEXTS, st.sampled_from(["host", "address", "gpus", "hardware", "unconfined"]))
def test_a_record_of_an_older_release_is_not_believed_either(value: str, key: str) -> None:
    honest = {"host": "node2", "address": "192.0.2.3", "hardware": {"CPUs": 2, "RealMemory": 4000}, "unconfined": "", "gpus": []}
    record = {**honest, key: [value] if key == "gpus" else {"CPUs": value, "RealMemory": 1} if key == "hardware" else value}
    found = attempt(lambda: slurm_conf.files("lab", "head", slurm_conf.merged(["node2"], {}, {"node2": record}), [], {}, 5))
    if found is None:
        return
    lines = slurm_conf.files("lab", "head", slurm_conf.merged(["node2"], {}, {"node2": honest}), [], {}, 5)
    assert len(found["slurm.conf"].splitlines()) == len(lines["slurm.conf"].splitlines())


@ANYTHING
@given(TEXTS, st.sampled_from(["cluster", "controller", "config", "name", "option", "key", "max_time"]))
def test_a_value_of_the_inventory_is_one_value(value: str, where: str) -> None:
    def files(text: str) -> dict[str, str]:
        config = {text if where == "key" else "KillWait": text if where == "config" else 30}
        queue = {"name": text if where == "name" else "main", "options": {"AllowGroups": text if where == "option" else "lab"}}
        queue["max_time"] = text if where == "max_time" else "30"
        nodes = slurm_conf.merged(["node1"], slurm_nodes(["node1"], hostvars({})), {})
        cluster, controller = text if where == "cluster" else "lab", text if where == "controller" else "head"
        return slurm_conf.files(cluster, controller, nodes, [queue], config, 5)

    found = attempt(lambda: files(value))
    if found is None:
        return
    expected, after = keys_of(files("X")), keys_of(found)
    if where == "key":
        assert len(after) in (len(expected), len(expected) - 1), "it may name a default"
    else:
        assert after == expected


def test_values_that_slurm_takes_still_go_in() -> None:
    config = {"SlurmctldParameters": "enable_configless,idle_on_node_suspend", "TaskPluginParam": '"a b"', "MailProg": None}
    nodes = slurm_conf.merged(["node1"], slurm_nodes(["node1"], hostvars({})), {})
    queue = {"name": "main", "options": {"TRESBillingWeights": '"CPU=1.0,Mem=0.25G"'}}
    text = slurm_conf.files("lab", "head(192.0.2.1)", nodes, [queue], config, 5)["slurm.conf"]
    assert 'TaskPluginParam="a b"\n' in text
    assert 'TRESBillingWeights="CPU=1.0,Mem=0.25G"' in text


def test_two_nodes_of_one_name_never_reach_slurm() -> None:
    nodes = {name: {"host": "ubuntu", "hardware": {"CPUs": 2, "RealMemory": 4000}} for name in ("r17", "r18")}
    with pytest.raises(reported.ReportedError, match="r17 and r18 both have the host name ubuntu"):
        slurm_conf.merged(["r17", "r18"], nodes, {})


@ANYTHING
@given(TEXTS)
def test_units_of_shared_folders_and_requests_for_certificates_have_no_line_more(value: str) -> None:
    honest = nfs.mount_text("/srv/x", "192.0.2.1:/srv/x", [])
    for render in (
        lambda: nfs.mount_text("/srv/x", value, []),
        lambda: nfs.mount_text(value, "192.0.2.1:/srv/x", []),
        lambda: nfs.mount_text("/srv/x", "192.0.2.1:/srv/x", [value]),
    ):
        text = attempt(render)
        if text is None:
            continue
        assert [line.partition("=")[0] for line in text.split("\n")] == [line.partition("=")[0] for line in honest.split("\n")]
    text = attempt(lambda: _tls.request([value]))
    if text is None:
        return
    assert text.count("\n") == _tls.request(["node2"]).count("\n")
    assert text.count(",") == _tls.request(["node2"]).count(",")


@ANYTHING
@given(TEXTS, TEXTS)
def test_no_file_of_the_controller_is_named_by_a_node(python: str, processor: str) -> None:
    row = {"kind": "framework", "title": "T", "variants": {"cpu": {"pythons": [python], "requirements": [], "device": "cpu"}}}
    node = environments.Node(python, processor, "Debian")
    more: Any = {"variant": "cpu", "path": "/opt/e", "indexes": {}, "default_for": {}, "prefix": "framework_env_"}
    entries, problems = environments.plan(["t"], [], {"t": row}, node, node, **more)
    for entry in entries:
        assert "/" not in entry["lock"]
        assert plain(entry["lock"], but="")
    assert entries or problems


# --- the report ------------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Notes the tags of a page with the names of their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[tuple[str, tuple[str, ...]]] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one."""
        self.found.add((tag, tuple(name for name, _value in attrs)))


def tags(page: str) -> set[tuple[str, tuple[str, ...]]]:
    """Return the tags of a page, each with the names of its attributes."""
    reader = Tags()
    reader.feed(page)
    return reader.found


def report_of(text: Any, number: Any = 2) -> dict[str, Any]:
    """Return a report of a node that reports the same everywhere."""
    recorder = _report.Recorder()
    keys = ("distribution", "distribution_version", "kernel", "architecture", "processor_vcpus", "memtotal_mb")
    proof = dict.fromkeys(("environment", "framework", "variant", "version", "device", "device_name", "expected_device", "problem"), text)
    proof |= {"remedy": text, "ran_at": text, "accuracy": number, "seconds": number, "passed": False, "cached": True}
    recorder.seen("node2", {"ansible_facts": {f"ansible_{key}": text for key in keys}, "proofs": [proof]})
    recorder.failed("node2", text, text, {"msg": text, "rc": text})
    run = _report.Run("2026-01-31T12:00:00Z", "2026-01-31T12:01:00Z", 60.0, "site.yml", "", [], False, True)
    return _report.build(recorder, {"node2": {"failures": 1}}, run)


@ANYTHING
@given(TEXTS, st.one_of(st.floats(), st.integers(0, 1)))
def test_the_report_shows_text_as_text(text: str, number: float) -> None:
    report = report_of(text, number)
    page = _report_page.render_html(report)
    assert plain(page, but="\n\t\xa0"), "the page has blanks of its own that do not break"
    assert plain(_report.dump(report))
    assert json.loads(_report.dump(report)) == report
    page.encode()
    assert tags(page) <= tags(_report_page.render_html(report_of("x", 1))) | {("code", ()), ("time", ("datetime",)), ("td", CELL)}


CELL = ("role", "colspan")
"""What a page has where no proof is shown."""


def test_a_report_is_written_whatever_a_node_reports() -> None:
    report = report_of("\ud800\x1b[2J<script>")
    assert report["nodes"][0]["system"] == dict.fromkeys(("distribution", "version", "kernel", "architecture"), "<script>")
    assert "<script>" not in _report_page.render_html(report)
    io.BytesIO().write(_report.dump(report).encode())
