"""``trainyard plan``: an inventory's own words, and what nodes say of themselves, become a fleet and its wishes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.trainyard.core.plugins.plugin_utils._fleet_plan import fleet_plan
from ansible_collections.trainyard.core.plugins.plugin_utils._fleet_words import EXPECTED, NAMES, fleet

from tests.support import ansible_playbook
from trainyard import catalog, cli

WISHES = {"plan_environments": ["pytorch", "tensorflow"]}
HOSTS: dict[str, dict[str, Any]] = {
    "head": {"plan_os": "debian-12"},
    "gpu1": {"plan_os": "ubuntu-24.04", "plan_gpus": ["RTX 4090", "RTX 4090"]},
    "old": {"plan_os": "ubuntu-24.04", "plan_gpus": ["Tesla V100"], "plan_driver": "580.95.05"},
}


def inventory(folder: Path, hosts: dict[str, dict[str, Any]], **variables: Any) -> str:
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"vars": variables, "hosts": hosts}}, sort_keys=False))
    return str(path)


def plan(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = cli.main(["plan", *words])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_offline_an_inventorys_own_words_are_believed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _err = plan(["-i", inventory(tmp_path, HOSTS, **WISHES), "--offline", "--json"], capsys)
    assert status == 0
    answer = json.loads(out)
    assert list(answer["nodes"]) == ["head", "gpu1", "old"]
    assert answer["nodes"]["head"]["driver"] is None
    assert len(answer["nodes"]["gpu1"]["gpus"]) == 2
    assert answer["nodes"]["old"]["driver"]["keep"] is True
    assert answer["fleet"]["held_back"][0]["by"] == ["old"]


def test_offline_the_kernel_and_secure_boot_are_believed_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = {"plan_os": "debian-12", "plan_gpus": ["A100"], "plan_kernel": "6.17.13+deb12-amd64", "plan_secure_boot": True}
    status, out, _err = plan(["-i", inventory(tmp_path, {"a": words}, **WISHES), "--offline", "--json"], capsys)
    assert status == 0
    node = json.loads(out)["nodes"]["a"]
    assert node["kernel"] == "6.17"
    assert any("Secure Boot is on" in warning for warning in node["warnings"])
    inventory(tmp_path, {"a": words}, **WISHES, plan_driver_sources=["distribution"])
    status, out, _err = plan(["-i", str(tmp_path / "hosts.yml"), "--offline"], capsys)
    assert (status, "tested with kernels up to 6.16 in Debian 12, and 6.17 boots" in out) == (2, True), out


def test_every_word_of_the_role_is_read_and_every_word_that_is_read_is_the_roles() -> None:
    role = Path(__file__).parents[1] / "roles/plan"
    options = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    assert {*NAMES, EXPECTED} == set(yaml.safe_load((role / "defaults/main.yml").read_text())) == set(options)


def test_nodes_that_get_the_same_stand_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hosts = {**HOSTS, "gpu2": HOSTS["gpu1"]}
    status, out, _err = plan(["-i", inventory(tmp_path, hosts, **WISHES), "--offline"], capsys)
    assert status == 0
    assert "gpu1, gpu2  ubuntu-24.04, 2 x RTX 4090" in out
    assert "old holds pytorch back at torch==2.14" in out


def test_limit_leaves_the_others_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _err = plan(["-i", inventory(tmp_path, HOSTS, **WISHES), "--offline", "--json", "--limit", "gpu1"], capsys)
    assert status == 0
    assert list(json.loads(out)["nodes"]) == ["gpu1"]


def test_a_conflict_ends_with_2_and_names_the_nodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _err = plan(
        ["-i", inventory(tmp_path, HOSTS, plan_environments=["pytorch"], plan_pins={"cuda": "13.0"}), "--offline"], capsys
    )
    assert status == 2
    assert "These cannot be had together on old:" in out
    assert "CUDA 13.0 makes no code for Tesla V100" in out


@pytest.mark.parametrize(
    "hosts,variables,status,says",
    [
        ({"a": {}}, WISHES, 64, "plan_os: it is not known what a runs"),
        ({"a": {"plan_os": "debian-21"}}, WISHES, 64, "a: os: 'debian-21' is not known. Known ones that are near: debian-13"),
        ({"a": {"plan_os": "debian-12", "plan_gpus": ["RTX 4091"]}}, WISHES, 64, "a: gpu: 'RTX 4091' is not known"),
        ({"a": {"plan_os": "debian-12"}}, {"plan_environments": ["pytroch"]}, 64, "pytorch"),
        ({"a": {"plan_os": "debian-12", "plan_secure_boot": "no"}}, WISHES, 64, "plan_secure_boot: 'no' on a is neither true nor false."),
        ({"a": {"plan_os": "debian-12"}}, {"plan_environments": "{{ x }}"}, 64, "plan_environments: a has an expression, '{{ x }}'"),
        ({"a": {"plan_os": "debian-12"}}, {"plan_environments": ["{{ x }}"]}, 64, "Write what it comes to."),
        ({"a": {"plan_os": "debian-12", "plan_pins": {"cuda": "{{ x }}"}}}, WISHES, 64, "plan_pins: a has an expression, '{{ x }}'"),
        ({"a": {"plan_os": "{{ x }}"}}, WISHES, 64, "plan_os: a has an expression, '{{ x }}'"),
        ({"a": {"plan_os": "debian-12"}}, {"plan_environments": "pytorch"}, 64, "plan_environments: 'pytorch' on a is no list; right is"),
        ({"a": {"plan_os": "debian-12", "plan_gpus": "RTX 4090"}}, WISHES, 64, "plan_gpus: 'RTX 4090' on a is no list"),
        ({"a": {"plan_os": "debian-12", "plan_driver_sources": "runfile"}}, WISHES, 64, "plan_driver_sources: 'runfile' on a is no list"),
        ({"a": {"plan_os": "debian-12", "plan_pins": ["cuda=12"]}}, WISHES, 64, "plan_pins: ['cuda=12'] on a is no mapping"),
        ({"a": {"plan_os": "debian-12", "plan_kernel": "new"}}, WISHES, 64, "a: kernel: 'new' is no version such as 6.12"),
        ({"a": {"plan_os": "debian-12"}}, {}, 1, "wants nothing planned: set plan_environments"),
        (
            {"a": {"plan_os": "debian-12", "plan_pins": {"cuda": "12"}}, "b": {"plan_os": "debian-12"}},
            WISHES,
            64,
            "plan_pins: a has {'cuda': '12'} and b None; it holds for all nodes",
        ),
        (
            {
                "a": {"plan_os": "debian-12", "plan_environments": [{"name": "x", "frameworks": "jax"}]},
                "b": {"plan_os": "debian-12", "plan_environments": [{"name": "x", "frameworks": "keras"}]},
            },
            {},
            64,
            "plan_environments: x is not the same on a and b",
        ),
    ],
)
def test_wrong_words_are_refused_by_name(
    hosts: dict[str, Any], variables: dict[str, Any], status: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, _out, err = plan(["-i", inventory(tmp_path, hosts, **variables), "--offline"], capsys)
    assert (ended, says in err) == (status, True), err


@pytest.mark.parametrize("group", [{"hosts": {"gpu1": {}}}, {"children": {"old": {"hosts": {"gpu1": {}}}}}])
def test_gpu_nodes_without_wishes_are_refused_as_site_yml_does(
    group: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "hosts.yml"
    head = {"plan_os": "debian-12", **WISHES}
    path.write_text(yaml.safe_dump({"all": {"hosts": {"head": head}, "children": {"gpu": group}}}))
    status, _out, err = plan(["-i", str(path), "--offline"], capsys)
    assert status == 64
    (sentence,) = filtered({"head": {**head, **facts("Debian", "12")}, "gpu1": {"plan_expected": True}})["problems"]
    assert err.strip() == f"trainyard: {sentence}"
    expected = yaml.safe_load((Path(__file__).parents[1] / "playbooks/group_vars/all.yml").read_text())["plan_expected"]
    assert expected == "{{ 'gpu' in group_names }}", "what the command has instead of it"


def test_a_gpu_node_that_need_not_have_wishes_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "hosts.yml"
    hosts = {"head": {"plan_os": "debian-12", **WISHES}}
    path.write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": {"gpu": {"hosts": {"gpu1": {"plan_expected": False}}}}}}))
    status, out, _err = plan(["-i", str(path), "--offline", "--json"], capsys)
    assert (status, list(json.loads(out)["nodes"])) == (0, ["head"])


def test_an_inventory_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _out, err = plan(["-i", str(tmp_path / "none"), "--offline"], capsys)
    assert status == 1
    assert "There is no inventory" in err


def facts(distribution: str, version: str, *devices: str, **info: Any) -> dict[str, Any]:
    """What a node says of itself, as the filter finds it among the host's variables."""
    pci = [{"device": device, "virtual_function": False} for device in devices]
    return {
        "ansible_facts": {
            "distribution": distribution,
            "distribution_version": version,
            "distribution_major_version": version.partition(".")[0],
        },
        "plan_gpu_info_result": {"gpu_info": {"pci": pci, "nvidia_smi": {}, "modules": {}, "secure_boot": "disabled", **info}},
    }


def filtered(hostvars: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return fleet_plan(
        hostvars,
        hosts=list(hostvars),
        catalogue=str(catalog.FOLDER),
        environments=catalog.environments(),
        locks=str(catalog.LOCKS),
        month="2026-11",
    )


def test_what_nodes_say_of_themselves_is_planned_for() -> None:
    said = filtered(
        {
            "a": {**WISHES, **facts("Ubuntu", "24.04", "1db4", nvidia_smi={"driver_version": "580.95.05"})},
            "b": {**WISHES, **facts("Debian", "12.11")},
            "c": {**WISHES, **facts("Rocky", "9.6", "2684", modules={"version": "580.95.05"})},
        }
    )
    assert all("which is not locked" in problem for problem in said["problems"])
    nodes = said["plan"]["nodes"]
    assert [nodes[name]["os"] for name in "abc"] == ["ubuntu-24.04", "debian-12", "rhel-9"]
    assert nodes["a"]["gpus"][0]["architecture"] == "volta"
    assert nodes["a"]["driver"]["keep"]
    assert nodes["b"]["driver"] is None
    assert nodes["c"]["driver"]["keep"], "the loaded module's version counts where nvidia-smi does not answer"


def test_a_system_is_known_by_what_its_facts_call_it() -> None:
    names = [("RedHat", "9.6"), ("Rocky", "9.6"), ("AlmaLinux", "9.6"), ("Debian", "13"), ("Ubuntu", "22.04")]
    nodes = filtered({name: {**WISHES, **facts(name, number)} for name, number in names})["plan"]["nodes"]
    assert [node["os"] for node in nodes.values()] == ["rhel-9", "rhel-9", "rhel-9", "debian-13", "ubuntu-22.04"]


def locked(nodes: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return node -> environment -> its lock."""
    return {name: {lock["name"]: lock["lock"] for lock in node["locks"]} for name, node in nodes.items()}


def test_what_is_locked_is_preferred_to_what_is_newer() -> None:
    wishes = {"plan_environments": ["pytorch", "tensorflow", "keras", "jax"]}
    said = filtered(
        {
            "rtx": {**wishes, **facts("Debian", "12.11", "2684")},
            "head": {**wishes, **facts("Debian", "12.11")},
        }
    )
    assert said["problems"] == []
    assert locked(said["plan"]["nodes"]) == {
        "rtx": {"pytorch": "pytorch-cu130", "tensorflow": "tensorflow-cu12", "keras": "keras-cu12", "jax": "jax-cu13"},
        "head": {"pytorch": "pytorch-cpu", "tensorflow": "tensorflow-cpu", "keras": "keras-cpu", "jax": "jax-cpu"},
    }
    environments = said["plan"]["nodes"]["rtx"]["environments"]
    assert environments["pytorch"]["requirements"] == ["torch==2.13.0"], "there are newer ones"
    assert environments["tensorflow"]["cudnn"].startswith("9.10."), "what is in the lock, of all that the wheels allow"


def test_what_only_an_older_system_has_is_planned_frozen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = inventory(tmp_path, {"head": {"plan_os": "debian-12"}}, plan_environments=["caffe", "jax"])
    status, out, _err = plan(["-i", path, "--offline", "--json"], capsys)
    assert status == 0
    node = json.loads(out)["nodes"]["head"]
    assert (node["environments"]["caffe"]["python_from"], node["environments"]["caffe"]["frozen"]) == ("frozen", "Debian 11")
    assert [lock["lock"] for lock in node["locks"]] == ["caffe-cpu", "jax-cpu"]


@pytest.mark.parametrize(
    ("wish", "device", "lock"),
    [
        ("caffe", "", "caffe-cpu"),
        ("caffe==1.0.0", "", "caffe-cpu"),
        ("caffe==1.0", "", "caffe-conda"),
        ({"frameworks": "caffe", "device": "gpu"}, "1b80", "caffe-conda-gpu"),
    ],
    ids=["frozen", "as Debian calls it", "as conda calls it", "on a Pascal GPU"],
)
def test_caffe_comes_by_conda_when_it_is_asked_for_so(wish: Any, device: str, lock: str) -> None:
    said = filtered({"head": {"plan_environments": [wish, "tensorflow"], **facts("Debian", "12.11", *([device] if device else []))}})
    assert said["problems"] == []
    node = said["plan"]["nodes"]["head"]
    assert locked(said["plan"]["nodes"])["head"]["caffe"] == lock
    assert (node["environments"]["caffe"]["python_from"] == "conda") == ("conda" in lock)
    assert node["environments"]["tensorflow"]["python"] == "3.11", "the other environments stand where they would stand without it"


def test_caffe_on_a_gpu_that_came_after_its_builds_is_refused_by_name() -> None:
    said = filtered({"a100": {"plan_environments": [{"frameworks": "caffe", "device": "gpu"}], **facts("Debian", "12.11", "20f1")}})
    (clash, way_out) = said["problems"]
    assert clash.startswith("On a100 these cannot be had together: Caffe and caffe on the GPU.")
    assert "Caffe (conda-gpu) 1.0 has no code for A100" in clash
    assert way_out == "The nearest that works: let caffe compute on the CPU where it cannot use the GPU."


def test_what_is_not_locked_is_said_with_the_nodes_and_what_is() -> None:
    said = filtered({"v100": {"plan_environments": ["tensorflow", "pytorch"], **facts("Debian", "12.11", "1db4")}})
    assert locked(said["plan"]["nodes"]) == {"v100": {"tensorflow": "tensorflow-cu12"}}
    (problem,) = said["problems"]
    assert problem.startswith("plan_environments: pytorch on v100 comes to torch==")
    assert "which is not locked, so it cannot be installed as tested." in problem
    assert "Take it out (plan_environments: [tensorflow]), or add it" in problem
    assert "Locked are: tensorflow-cpu, tensorflow-cu12, tensorflow-cpu-1.7.0, tensorflow-cpu-1.6.0, pytorch-cpu, pytorch-cu130" in problem


PROFILE = {"plan_profile": "qingcloud-1.1:cpu"}
HISTORIC = ["tensorflow", "keras", "caffe"]


def test_of_an_old_profile_what_can_be_had_is_planned_as_locked() -> None:
    said = filtered({"head": {**PROFILE, "plan_environments": HISTORIC, **facts("Debian", "12.11")}})
    assert said["problems"] == []
    assert locked(said["plan"]["nodes"]) == {
        "head": {"tensorflow": "tensorflow-cpu-1.7.0", "keras": "keras-cpu-2.1.5", "caffe": "caffe-cpu"}
    }
    placed = said["plan"]["nodes"]["head"]["environments"]
    assert [(placed[name]["python"], placed[name]["python_from"]) for name in HISTORIC] == [
        ("2.7", "frozen"),
        ("2.7", "frozen"),
        ("3.9", "frozen"),
    ]
    assert placed["caffe"]["warnings"] == ["it has Python 3.9 instead of 2.7, which the profile allows"]
    assert placed["tensorflow"]["warnings"] == []


def test_the_release_of_another_variant_is_planned_on_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wishes = {"plan_profile": "qingcloud-1.1:cuda-8.0", "plan_device": "cpu", "plan_environments": ["tensorflow"]}
    path = inventory(tmp_path, {"old": {"plan_os": "debian-13", "plan_gpus": ["Tesla P100"]}}, **wishes)
    status, out, _err = plan(["-i", path, "--offline", "--json"], capsys)
    (lock,) = json.loads(out)["nodes"]["old"]["locks"]
    assert (status, lock["lock"]) == (0, "tensorflow-cpu-1.6.0")


@pytest.mark.parametrize(
    ("wishes", "says", "helps"),
    [
        (PROFILE, "pytorch on head comes to torch==0.3.1", "the ordinary index has PyTorch from 1.0.0 on"),
        ({**PROFILE, "plan_environments": ["pytorch==0.4.0"]}, "pytorch on head comes to torch==0.4.0", "Take it out, or add it"),
        (
            {**PROFILE, "plan_pins": {"python": "3.6"}, "plan_environments": ["tensorflow", "caffe==1.0"]},
            "tensorflow on head comes to tensorflow==1.7.0 for Python 3.6",
            "(plan_environments: [caffe])",
        ),
    ],
)
def test_what_of_an_old_profile_cannot_be_had_is_refused_with_the_reason(
    wishes: dict[str, Any], says: str, helps: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = filtered({"head": {**wishes, **facts("Debian", "12.11")}})["problems"]
    (problem,) = [problem for problem in problems if says in problem]
    assert helps in problem
    status, out, _err = plan(["-i", inventory(tmp_path, {"head": {"plan_os": "debian-12"}}, **wishes), "--offline"], capsys)
    assert status == 0, "it fits, and is pointed out"
    assert all(problem in " ".join(out.split()) for problem in problems)


@pytest.mark.parametrize(
    ("variant", "says"),
    [
        ("cuda-9.1", "CUDA 9.1 is older than 12.3, the oldest in NVIDIA's repository for Debian 12"),
        ("cuda-8.0", "CUDA 8.0 is older than 12.3"),
    ],
)
def test_an_old_profile_for_gpus_is_refused_with_the_nearest_that_works(variant: str, says: str) -> None:
    problems = filtered({"p100": {"plan_profile": f"qingcloud-1.1:{variant}", **facts("Debian", "12.11", "15f8")}})["problems"]
    assert says in problems[0]
    assert f"give up CUDA {variant[-3:]}" in problems[-1]
    assert "let tensorflow compute on the CPU where it cannot use the GPU" in problems[-1]


def test_a_toolkit_is_given_what_is_locked_and_none_is_said_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hosts = {"old": {"plan_os": "debian-12", "plan_gpus": ["K80"]}}
    words = ["-i", inventory(tmp_path, hosts, plan_profile="modern"), "--offline"]
    status, out, _err = plan([*words, "--json"], capsys)
    assert status == 0
    assert json.loads(out)["nodes"]["old"]["toolkits"] == [{"version": "11.8.0", "cudnn": "none", "nccl": "2.21.5"}]
    _status, out, _err = plan(words, capsys)
    assert "11.8.0 with NCCL 2.21.5" in out
    assert "no cuDNN in CUDA 11.8: what can be had (9.10.2, 8.9.6) does not drive K80" in out


def test_a_pin_is_stronger_than_a_lock() -> None:
    said = filtered({"rtx": {"plan_environments": ["pytorch==2.14.0", "tensorflow"], **facts("Debian", "12.11", "2684")}})
    assert locked(said["plan"]["nodes"]) == {"rtx": {"tensorflow": "tensorflow-cu12"}}


def test_nodes_that_want_nothing_are_left_out_and_of_gpu_nodes_that_is_refused() -> None:
    quiet, wants = facts("Debian", "12.11"), {**WISHES, **facts("Debian", "12.11")}
    quiet.pop("plan_gpu_info_result")
    assert list(filtered({"head": quiet, "a": wants})["plan"]["nodes"]) == ["a"]
    refused = filtered({"gpu1": {**quiet, "plan_expected": True}, "a": wants})
    assert refused["problems"][0].startswith("plan_environments: gpu1 belongs to the group gpu, and nothing says what its GPUs are for.")


def test_the_kernel_that_boots_next_decides_and_without_one_the_systems_own() -> None:
    words = {**WISHES, "plan_driver_sources": ["distribution"]}
    new = {"kernels": {"running": "6.1.0-40-amd64", "next": "6.17.13+deb12-amd64"}}
    none = {"kernels": {"running": "7.0.0-host", "next": ""}}
    refused = filtered({"new": {**words, **facts("Debian", "12.11", "1db4", **new)}})
    assert "535 is tested with kernels up to 6.16 in Debian 12, and 6.17 boots" in " ".join(refused["problems"])
    plan = filtered({"container": {**words, **facts("Debian", "12.11", "1db4", **none)}})["plan"]
    assert plan["nodes"]["container"]["driver"]["branch"] == 535
    assert plan["nodes"]["container"]["kernel"] == "6.1"


def test_secure_boot_prefers_signed_modules_and_warns_where_there_are_none() -> None:
    said = filtered(
        {
            "signed": {**WISHES, **facts("Ubuntu", "24.04", "1db4", secure_boot="enabled")},
            "unsigned": {**WISHES, **facts("Debian", "12.11", "1db4", secure_boot="enabled")},
        }
    )
    nodes = said["plan"]["nodes"]
    assert nodes["signed"]["driver"]["signed_modules"]
    assert nodes["signed"]["warnings"] == []
    assert any("its key has to be enrolled" in text for text in nodes["unsigned"]["warnings"])


def test_the_filter_returns_a_clash_as_sentences_and_nothing_where_nothing_is_wanted() -> None:
    clash = filtered({"a": {**WISHES, "plan_pins": {"cuda": "13.0"}, **facts("Ubuntu", "24.04", "1db4")}})
    assert clash["plan"] == {}
    assert "CUDA 13.0 makes no code for Tesla V100" in clash["problems"][0]
    assert filtered({"a": facts("Ubuntu", "24.04", "1db4")}) == {"problems": [], "plan": {}}
    unknown = filtered({"a": {**WISHES, **facts("Plan9", "4")}})
    assert "a: os: 'plan9-4' is not known" in unknown["problems"][0]


PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: catalog}
    - ansible.builtin.set_fact: {distribution: Debian, distribution_version: "12", distribution_major_version: "12", cacheable: true}
    - trainyard.core.fleet_plan:
        catalogue: "{{ stack }}"
        environments: "{{ catalog_environments }}"
        locks: "{{ locks }}"
        month: "2026-11"
      run_once: true
"""


def test_playbooks_evaluate_what_the_inventory_says(tmp_path: Path) -> None:
    host = {
        "ansible_connection": "local",
        "plan_gpu_info_result": facts("Debian", "12")["plan_gpu_info_result"],
        "plan_environments": "{{ wished }}",
        "wished": ["{{ framework }}"],
        "framework": "pytorch==2.13.0",
        "plan_pins": {"python": "{{ '3.' ~ 11 }}"},
    }
    variables = {"stack": str(catalog.FOLDER), "locks": str(catalog.LOCKS)}
    (tmp_path / "play.yml").write_text(PLAY)
    played = ansible_playbook(tmp_path / "play.yml", Path(inventory(tmp_path, {"a": host}, **variables)))
    assert played.status == 0, played.failures()
    (result,) = [result for result in played.results.values() if "plan" in result]
    node = result["plan"]["nodes"]["a"]
    assert (node["environments"]["pytorch"]["requirements"], node["environments"]["pytorch"]["python"]) == (["torch==2.13.0+cpu"], "3.11")


def test_a_node_that_said_nothing_is_named() -> None:
    with pytest.raises(ValueError, match="a has not said what it is"):
        fleet(catalog.load(), {"a": dict(WISHES)})
