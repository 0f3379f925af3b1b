"""The command line: its words, its refusals and its exit status."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest

from trainyard import checks, cli, containers, playbooks, progress, runner, system
from trainyard.errors import TrainyardError
from trainyard.paths import REPOSITORY


def test_help_shows_every_verb_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    for word in ("up", "down", "apply", "verify", "test", "./trainyard apply -i inventory/mylab --check"):
        assert word in said


@pytest.mark.parametrize("words", [[], ["fly"], ["apply"], ["verify"], ["test", "--quick", "--lab"]])
def test_unusable_words_end_with_64(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 64


def test_an_inventory_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["apply", "-i", str(tmp_path / "none")]) == 1
    assert "There is no inventory" in capsys.readouterr().err


def report(passed: bool) -> dict[str, object]:
    """A report as the callback writes it, of one node."""
    proof = {"environment": "jax", "framework": "JAX", "version": "1", "device": "cpu", "accuracy": 0.97, "seconds": 2.0, "passed": passed}
    node = {"name": "head", "reachable": True, "converged": passed, "changed": 0, "environments": [proof], "failures": []}
    return {"passed": passed, "check_mode": False, "complete": True, "nodes": [node]}


@pytest.mark.parametrize("status,passed,expected", [(0, True, 0), (0, False, 1), (2, True, 1), (4, False, 1)])
def test_exit_status_is_0_only_when_all_converged_and_all_was_proven(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int, passed: bool, expected: int
) -> None:
    def ansible(_playbook: str, _inventory: Path, _words: list[str], *, environment: dict[str, str], **_more: object) -> runner.Outcome:
        Path(environment["TRAINYARD_REPORT_JSON"]).write_text(json.dumps(report(passed)))
        return runner.Outcome(status, interrupted=False, output="")

    monkeypatch.setattr(playbooks, "STATE", tmp_path)
    monkeypatch.setattr(playbooks.runner, "run", ansible)
    assert playbooks.run("site.yml", tmp_path) == expected


def test_the_result_begins_with_a_sentence_and_ends_with_the_ways_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same for apply and up: both are `playbooks.run` of site.yml."""
    secret = "Canary-Password-123"
    (tmp_path / "hosts.yml").write_text(
        f"all:\n  hosts:\n    head: {{ansible_host: 192.0.2.10}}\n  vars: {{ansible_user: ann, jupyter_password: {secret}}}\n"
    )
    found = report(True)
    service = {"name": "JupyterLab", "port": 8888, "fingerprint": "AB:CD"}
    found["nodes"][0]["services"] = [service]  # type: ignore[index]

    def ansible(_playbook: str, _inventory: Path, _words: list[str], *, environment: dict[str, str], **_more: object) -> runner.Outcome:
        Path(environment["TRAINYARD_REPORT_JSON"]).write_text(json.dumps(found))
        return runner.Outcome(0, interrupted=False, output="")

    monkeypatch.setattr(playbooks, "STATE", tmp_path / "state")
    monkeypatch.setattr(playbooks.runner, "run", ansible)
    assert playbooks.run("site.yml", tmp_path) == 0
    printed = capsys.readouterr().out
    assert printed.index("1 of 1 node converged, 1 of 1 proof passed.") < printed.index("What trains") < printed.index("Log in:")
    assert "Log in:\n    ssh ann@192.0.2.10\n" in printed
    assert "JupyterLab on head: open a tunnel, then https://127.0.0.1:8888\n    ssh -L 8888:127.0.0.1:8888 ann@192.0.2.10\n" in printed
    assert "    SHA-256 fingerprint of its certificate: AB:CD\n" in printed
    assert "Password of JupyterLab:\n    the value of jupyter_password in the inventory\n" in printed
    assert secret not in printed


@pytest.mark.parametrize("width", [120, 80, 40])
def test_the_table_of_what_trains_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    output = io.StringIO()
    monkeypatch.setattr(playbooks, "console", progress.Terminal(file=output, width=width))
    playbooks.show(report(True))
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    (row,) = [line for line in lines if "jax" in line]
    assert row.split() == (["head", "jax", "1", "cpu", "0.970", "2.0", "trains"] if width >= 80 else ["head", "jax", "1", "trains"])


def test_a_failure_of_many_nodes_is_told_once_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    failure = {"task": "Install the packages", "role": "base", "message": "No space left on device", "what_to_do": "Make room."}
    found = report(False)
    found["nodes"] = [{**found["nodes"][0], "name": f"gpu{number}", "failures": [failure]} for number in range(30)]  # type: ignore[index]
    playbooks.show(found)
    printed = capsys.readouterr().out
    assert printed.count("No space left on device") == 1
    assert "gpu0, gpu1, gpu2, gpu3, gpu4, gpu5 and 24 more: Install the packages: No space left on device\n  -> Make room.\n" in printed
    assert printed.count("FAILED, 0 changed") == 30


def test_the_version_names_the_commit_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    number = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert capsys.readouterr().out.startswith(f"trainyard {number}")
    monkeypatch.setattr(cli, "REPOSITORY", tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "7.8"\n')
    assert cli.version() == "trainyard 7.8", "an unpacked archive has no commit"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert cli.version() == "trainyard 7.8", "nor has a repository without one"
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert cli.version().startswith("trainyard 7.8 (commit ")
    assert commit.startswith(cli.version().removeprefix("trainyard 7.8 (commit ").removesuffix(")"))


def test_a_check_lists_what_would_change_and_shows_no_proof_that_was_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(True)
    node = found["nodes"][0]  # type: ignore[index]
    node["environments"][0]["passed"] = None
    node["changes"] = [
        {"task": "Install the base packages", "role": "base", "items": [], "diff": ""},
        {"task": "Write the settings", "role": "", "items": ["a", "b"], "diff": "--- before\n+++ after\n+line"},
    ]
    playbooks.show({**found, "check_mode": True})
    printed = capsys.readouterr().out
    assert "not run" not in printed
    assert printed.splitlines() == [
        "1 of 1 node without an error, 0 of 1 proof on record.",
        "head         no error, 0 would change",
        "  base: Install the base packages",
        "  Write the settings (a, b)",
        "      --- before",
        "      +++ after",
        "      +line",
    ]
    playbooks.show({**found, "check_mode": False})
    assert "Install the base packages" not in capsys.readouterr().out


def test_an_older_runs_report_does_not_pass_for_this_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report(True)))
    monkeypatch.setattr(playbooks, "STATE", tmp_path)
    monkeypatch.setattr(playbooks.runner, "run", lambda *_words, **_more: runner.Outcome(0, interrupted=False, output="nothing ran"))
    with pytest.raises(TrainyardError, match="did not get as far as a result"):
        playbooks.run("site.yml", tmp_path)


def test_another_runs_result_does_not_pass_for_this_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files: list[str] = []

    def ansible(_playbook: str, _inventory: Path, _words: list[str], *, environment: dict[str, str], **_more: object) -> runner.Outcome:
        files.append(environment["TRAINYARD_REPORT_JSON"])
        mine = len(files) == 1
        if mine:  # while this one runs, another one from the same checkout runs and ends well
            assert playbooks.run("site.yml", tmp_path) == 0
        Path(files[0 if mine else 1]).write_text(json.dumps(report(not mine)))
        return runner.Outcome(2 if mine else 0, interrupted=False, output="")

    monkeypatch.setattr(playbooks, "STATE", tmp_path)
    monkeypatch.setattr(playbooks.runner, "run", ansible)
    assert playbooks.run("site.yml", tmp_path) == 1
    assert json.loads((tmp_path / "report.json").read_text())["passed"] is False
    assert len(set(files)) == 2
    assert [path.name for path in tmp_path.glob("run-*")] == []


def test_an_interruption_ends_with_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(playbooks, "STATE", tmp_path)
    monkeypatch.setattr(playbooks.runner, "run", lambda *_words, **_more: runner.Outcome(254, interrupted=True, output=""))
    assert cli.main(["apply", "-i", str(tmp_path)]) == 130


def test_systemd_gets_a_tree_of_its_own_on_either_version_of_cgroups(tmp_path: Path) -> None:
    systemds = "/sys/fs/cgroup/systemd/trainyard/n:/sys/fs/cgroup/systemd:rw"
    assert containers.systemd_arguments("n", tmp_path)["volumes"] == [systemds]
    for folder in ("memory", "cpu,cpuacct"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tasks").touch()
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    assert containers.systemd_arguments("n", tmp_path)["volumes"] == [
        "/sys/fs/cgroup/memory/trainyard/n:/sys/fs/cgroup/memory:rw",
        "/sys/fs/cgroup/cpu,cpuacct/trainyard/n:/sys/fs/cgroup/cpu,cpuacct:rw",
        systemds,
    ]
    (tmp_path / "cgroup.controllers").touch()
    assert containers.systemd_arguments("n", tmp_path)["volumes"] == []
    assert containers.systemd_arguments("n", tmp_path)["cgroupns"] == "private"


def test_where_the_kernel_uses_apparmor_docker_gets_its_parser_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[dict[str, str]] = []
    monkeypatch.setattr(containers, "APPARMOR", tmp_path / "enabled")
    monkeypatch.setattr(containers, "_answering_client", lambda: "a client" if len(asked) else None)
    monkeypatch.setattr(containers.os, "geteuid", lambda: 0)
    monkeypatch.setattr(containers, "install", asked.append)
    monkeypatch.setattr(containers.subprocess, "run", lambda *_words, **_more: None)
    monkeypatch.setattr(containers.subprocess, "Popen", lambda *_words, **_more: None)
    monkeypatch.setattr(containers, "DAEMON_LOG", tmp_path / "log")
    containers.connect()
    assert "apparmor_parser" not in asked.pop()
    (tmp_path / "enabled").write_text("Y\n")
    containers.connect()
    assert asked.pop()["apparmor_parser"] == "apparmor"


def test_docker_is_started_by_hand_where_the_service_manager_cannot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(containers, "_answering_client", lambda: "a client" if started else None)
    monkeypatch.setattr(containers, "install", lambda _programs: None)
    monkeypatch.setattr(containers, "SYSTEMD", tmp_path)
    monkeypatch.setattr(containers, "DAEMON_LOG", tmp_path / "log")
    monkeypatch.setattr(containers.os, "geteuid", lambda: 0)
    monkeypatch.setattr(containers.subprocess, "run", lambda words, **_more: subprocess.CompletedProcess(words, 1))
    monkeypatch.setattr(containers.subprocess, "Popen", lambda words, **_more: started.append(words))
    assert containers.connect() == "a client"
    assert started == [["dockerd"]]


def test_down_installs_no_docker_and_leaves_the_wheels_that_somebody_put_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(containers, "connect", lambda: pytest.fail("Docker is asked for"))
    monkeypatch.setattr(containers, "_answering_client", lambda: None)
    monkeypatch.setattr(containers.shutil, "which", lambda _program: None)
    said: list[str] = []
    wheels = tmp_path / "lab" / "wheelhouse"
    lab = containers.Lab("nowhere", ["head"], tmp_path / "lab", mounts={wheels: "/srv/wheelhouse"}, say=said.append)
    (wheels / "nested").mkdir(parents=True)
    (tmp_path / "lab" / "secrets").mkdir()
    (tmp_path / "lab" / "id_ed25519").write_text("")
    lab.down()
    assert [path.name for path in (tmp_path / "lab").iterdir()] == ["wheelhouse"]
    assert said == [f"{wheels} is not empty and stays"]
    (wheels / "nested").rmdir()
    lab.down()
    assert not (tmp_path / "lab").exists()


def test_a_changed_recipe_makes_another_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = containers.Image("bookworm").tag
    assert before != containers.Image("trixie").tag
    recipe = tmp_path / "Dockerfile"
    recipe.write_text(containers.RECIPE.read_text() + "\n")
    monkeypatch.setattr(containers, "RECIPE", recipe)
    assert containers.Image("bookworm").tag != before


def test_a_base_from_a_registry_is_of_the_same_release_and_makes_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAINYARD_BASE_IMAGE", raising=False)
    made_here = containers.Image("trixie").tag
    assert containers.Image("trixie").from_registry == ""
    monkeypatch.setenv("TRAINYARD_BASE_IMAGE", "debian")
    assert containers.Image("trixie").from_registry == "debian:trixie"
    assert containers.Image("trixie").tag != made_here


def test_what_cannot_be_installed_is_named_with_the_command_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system.os, "geteuid", lambda: 1000)
    with pytest.raises(
        TrainyardError,
        match=r"Not installed: docker.io. Install with .*, on Debian and Ubuntu: sudo apt-get install -y --no-install-recommends docker.io",
    ):
        system.install({"no-such-program-dockerd": "docker.io"})


def test_the_script_names_the_command_that_helps_where_it_may_not_install(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "trainyard", tmp_path)
    shutil.copy(REPOSITORY / "requirements.lock", tmp_path)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "id").write_text("#!/bin/sh\necho 1000\n")
    (bin_ / "bare").write_text(f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1 ;; esac\nexec {sys.executable} "$@"\n')
    for program in bin_.iterdir():
        program.chmod(0o755)
    done = subprocess.run(
        [str(tmp_path / "trainyard"), "--help"],
        env={"PATH": f"{bin_}:/usr/bin:/bin", "TRAINYARD_PYTHON": str(bin_ / "bare")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "trainyard: Python's venv module is missing. Install it with: sudo apt-get install -y --no-install-recommends python3-venv"
    )
    assert not (tmp_path / ".venv").exists()


def test_the_script_refuses_an_old_python(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && { echo Python 3.9.2; exit 0; }\nexit 1\n')
    old.chmod(0o755)
    done = subprocess.run(
        [str(REPOSITORY / "trainyard"), "--help"],
        env={**os.environ, "TRAINYARD_PYTHON": str(old)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"Python 3.11 or newer is needed; {old} is Python 3.9.2." in done.stderr
    assert "sudo apt-get install -y python3.11 python3.11-venv" in done.stderr
    assert "TRAINYARD_PYTHON=python3.11 " in done.stderr


def test_the_script_reads_paths_from_the_folder_it_is_called_in(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all:\n  hosts:\n\tone:\n")
    (tmp_path / "trainyard.py").write_text("raise SystemExit('a module of the current folder was imported')")
    environment = {**os.environ, "PYTHONHOME": "/nowhere", "PYTHONPATH": str(tmp_path)}
    for words in (["-i", "."], ["-i", "hosts.yml"]):
        command = [str(REPOSITORY / "trainyard"), "apply", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("trainyard: hosts.yml, line 3, column 1: this is not YAML: ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_another_users_checkout_is_left_alone() -> None:
    with tempfile.TemporaryDirectory() as folder:  # not pytest's, into which no other user can look
        Path(folder).chmod(0o755)
        another_users_checkout(Path(folder, "a checkout"))


def another_users_checkout(checkout: Path) -> None:
    checkout.mkdir()
    for name in ("trainyard", "requirements.lock"):
        shutil.copy(REPOSITORY / name, checkout)
    command = [str(checkout / "trainyard"), "--help"]
    done = subprocess.run(command, user=65534, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{checkout} belongs to root" in done.stderr
    assert f"git clone '{checkout}'" in done.stderr
    checkout.chmod(0o777)
    (checkout / ".venv").mkdir(mode=0o777)
    (checkout / ".venv").chmod(0o777)
    (checkout / ".venv" / "kept").touch()
    done = subprocess.run(command, user=65534, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert ".venv belongs to root" in done.stderr
    assert (checkout / ".venv" / "kept").exists()


def test_what_the_usual_run_leaves_out_is_counted_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    usual = {step.name for step in checks.nodes()}
    left_out = checks.faults() + checks.slow()
    assert not usual & {step.name for step in left_out}
    assert "molecule-nvidia_driver" in {step.name for step in left_out}
    assert checks.run([checks.Step("one", ["true"])], left_out) == 0
    said = capsys.readouterr().out
    assert "not run here: faults, slow-cluster_in_vms, slow-cuda, " in said
    assert said.endswith(f"1 passed, 0 failed, {len(left_out)} not run\n")
