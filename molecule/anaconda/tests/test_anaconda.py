"""conda as the lab's users find it. The installer, and with it conda itself, is a stand-in."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

STORE = "/opt/trainyard/conda"
VERSION = f"{STORE}/miniforge-26.7.2-0"


def login(host: Any, script: str, user: str = "bob", shell: str = "/bin/bash") -> Any:
    """Run a script in a user's login shell."""
    return host.run("su - %s -s %s -c %s", user, shell, script)


@pytest.mark.parametrize("user", ["bob", "root"])
@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/sh"])
def test_a_login_knows_conda_and_mamba_and_the_systems_programs_stay_first(host: Any, user: str, shell: str) -> None:
    done = login(host, "conda --version && mamba && command -v python3 && conda info --base && echo $PATH", user, shell)
    lines = done.stdout.splitlines()
    assert lines[:4] == ["conda 26.7.2-0", "hooked mamba", "/usr/bin/python3", VERSION], done.stderr
    assert lines[4].split(":")[-1] == "/opt/conda/condabin"
    assert lines[4].count("conda") == 2
    assert done.stderr == ""


def test_a_script_finds_it_too(host: Any) -> None:
    assert login(host, "printf '#!/bin/sh\\nset -eu\\nconda --version\\n' >s && chmod 755 s && ./s").stdout == "conda 26.7.2-0\n"


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/sh"])
def test_a_user_makes_an_environment_at_home_and_activates_it(host: Any, shell: str) -> None:
    login(host, "conda create -n own")
    done = login(host, "set -eu; conda activate own; greet; conda deactivate; echo $PATH; command -v greet || echo gone", "bob", shell)
    assert done.stdout.splitlines()[0] == "hello from own", done.stderr
    assert done.stdout.splitlines()[2] == "gone"
    assert host.file("/home/bob/.conda/envs/own/conda-meta/history").user == "bob"


def test_who_put_all_of_it_on_the_path_activates_as_well(host: Any) -> None:
    login(host, "conda create -n other")
    for folder in ("/opt/conda/bin", f"{VERSION}/bin"):
        assert login(host, f"PATH={folder}:$PATH; conda activate other && greet").stdout == "hello from other\n"


def test_an_environment_for_everybody_is_found_by_its_name(host: Any) -> None:
    host.check_output("mkdir -p /opt/trainyard/envs/shared/bin")
    assert login(host, "conda activate shared && echo $CONDA_PREFIX").stdout.strip() == "/opt/trainyard/envs/shared"


def test_another_conda_that_comes_first_is_meant(host: Any) -> None:
    login(host, "mkdir -p mine && printf '#!/bin/sh\\necho my own\\n' >mine/conda && chmod 755 mine/conda")
    assert login(host, "PATH=$HOME/mine:$PATH; conda --version").stdout == "my own\n"


def test_a_login_works_without_it(host: Any) -> None:
    host.check_output("mv /opt/conda /opt/conda.away")
    try:
        done = login(host, "echo in:$PATH; command -v conda || echo none")
    finally:
        host.check_output("mv /opt/conda.away /opt/conda")
    assert "conda" not in done.stdout.splitlines()[0]
    assert (done.stdout.splitlines()[1], done.stderr) == ("none", "")


def test_nobody_but_root_can_change_it(host: Any) -> None:
    assert host.check_output("readlink /opt/conda") == VERSION
    assert host.check_output("find %s -perm /022 -not -type l", STORE) == ""
    assert host.check_output("find %s -not -user root -o -not -group root", STORE) == ""
    assert login(host, f"touch {VERSION}/x").rc != 0


def test_nothing_is_left_of_the_making(host: Any) -> None:
    assert sorted(host.check_output("ls -A %s", STORE).split()) == [".lock", "miniforge-26.7.2-0"]
    assert not host.file(f"{VERSION}/.condarc").exists, "it would outdo the system's"
    assert not host.file("/root/.conda").exists


def test_its_settings_are_the_usual_ones_the_mirrors_and_ones_own(host: Any) -> None:
    path = host.file("/etc/conda/.condarc")
    assert (path.user, path.mode) == ("root", 0o644)
    cloud = "https://mirrors.tuna.tsinghua.edu.cn/anaconda/cloud"
    assert yaml.safe_load(path.content_string) == {
        "channels": ["conda-forge"],
        "channel_priority": "strict",
        "auto_activate_base": False,
        "envs_dirs": ["~/.conda/envs", "/opt/trainyard/envs"],
        "pkgs_dirs": ["~/.conda/pkgs"],
        "custom_channels": {"conda-forge": cloud, "pytorch": cloud},
        "default_channels": [f"https://mirrors.tuna.tsinghua.edu.cn/anaconda/pkgs/{name}" for name in ("main", "r", "msys2")],
        "remote_read_timeout_secs": 120,
    }
