"""Environments as the lab's users find them."""

from __future__ import annotations

import json
from typing import Any

import pytest

BASE = "/opt/trainyard/envs"
COMMON = ("numpy", "scipy", "pandas", "matplotlib", "sklearn", "nltk", "PIL", "cv2", "fire", "ipykernel")


def as_user(host: Any, user: str, script: str) -> Any:
    """Run a script in a user's login shell."""
    return host.run("su - %s -c %s", user, script)


def packages(host: Any, name: str) -> str:
    found: str = host.check_output("ls -d %s/%s/lib/python3.*/site-packages", BASE, name)
    return found


@pytest.mark.parametrize("name", ["jax", "course"])
def test_anybody_can_compute_in_it(host: Any, name: str) -> None:
    code = f"import jax, {', '.join(COMMON)}; print(jax.__version__, jax.numpy.arange(4).sum(), jax.devices()[0].platform)"
    done = as_user(host, "bob", f'cd /tmp && {BASE}/{name}/bin/python -c "{code}"')
    assert done.stdout.split() == ["0.10.2", "6", "cpu"], done.stderr


def test_nobody_but_root_can_change_it(host: Any) -> None:
    assert host.check_output("find %s/jax %s/course -perm /022 -not -type l", BASE, BASE) == ""
    assert host.check_output("find %s/jax -not -user root", BASE) == ""
    assert as_user(host, "bob", f"touch {packages(host, 'jax')}/x").rc != 0


def test_the_systems_python_knows_nothing_of_it(host: Any) -> None:
    assert host.run("/usr/bin/python3 -c 'import jax'").rc != 0
    assert host.run("/usr/bin/python3 -c 'import numpy'").rc != 0


def test_files_are_on_the_disk_once_the_compiled_ones_too(host: Any) -> None:
    for file in ("numpy/__init__.py", "numpy/__pycache__/__init__.cpython-*.pyc"):
        inodes = host.check_output(f"stat -c %i {packages(host, 'jax')}/{file} {packages(host, 'course')}/{file}").split()
        assert len(inodes) == 2
        assert inodes[0] == inodes[1], file


def test_activating_and_leaving_it(host: Any) -> None:
    script = "source trainyard-activate course && command -v python && echo $VIRTUAL_ENV && deactivate && echo left:$VIRTUAL_ENV"
    done = as_user(host, "bob", script)
    assert done.stdout.split() == [f"{BASE}/course/bin/python", f"{BASE}/course", "left:"], done.stderr


LAST_WORDS = "python -c 'import os; print(\"said\"); os._exit(0)' | cat"  # which a buffer would keep


def test_what_is_printed_reaches_a_log_at_once(host: Any) -> None:
    assert as_user(host, "bob", f"source trainyard-activate jax && {LAST_WORDS}").stdout == "said\n"
    assert as_user(host, "alice", LAST_WORDS).stdout == "said\n", "who has it active after logging in"
    assert as_user(host, "bob", f"export PYTHONUNBUFFERED=; source trainyard-activate jax && {LAST_WORDS}").stdout == ""


def test_changing_from_one_to_the_other(host: Any) -> None:
    done = as_user(
        host, "bob", "source trainyard-activate course; source trainyard-activate jax; command -v python; deactivate; command -v python"
    )
    assert done.stdout.split()[0] == f"{BASE}/jax/bin/python"
    assert BASE not in "".join(done.stdout.split()[1:])


def test_without_a_name_it_lists_what_there_is(host: Any) -> None:
    done = as_user(host, "bob", "source trainyard-activate")
    assert done.stdout.split("Environments of this machine:")[1].split() == ["course", "jax"], "services are not for users"
    assert as_user(host, "bob", "source trainyard-activate --help").rc == 0


def test_an_unknown_name_is_said_with_the_known_ones(host: Any) -> None:
    done = as_user(host, "bob", "source trainyard-activate jaxx; echo $?; set | grep -c ^_trainyard")
    assert done.stdout.split() == ["1", "0"]
    assert done.stderr.startswith("There is no environment called jaxx. Environments of this machine:")
    assert as_user(host, "bob", "source trainyard-activate ../envs/jax").rc == 1


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_running_it_says_how_to_use_it(host: Any, shell: str) -> None:
    done = host.run("%s /usr/local/bin/trainyard-activate jax", shell)
    assert (done.rc, done.stderr.strip()) == (2, "Usage, in bash or zsh: source trainyard-activate NAME")


def test_a_default_is_active_after_logging_in_for_its_user_alone(host: Any) -> None:
    assert as_user(host, "alice", "command -v python").stdout.strip() == f"{BASE}/jax/bin/python"
    assert BASE not in as_user(host, "bob", "echo $PATH").stdout
    assert host.run("sh -n /etc/profile.d/trainyard-environment.sh").rc == 0


def test_a_login_works_without_the_environment(host: Any) -> None:
    host.check_output("mv %s/jax %s/.away", BASE, BASE)
    try:
        done = as_user(host, "alice", "echo in")
    finally:
        host.check_output("mv %s/.away %s/jax", BASE, BASE)
    assert (done.rc, done.stdout.strip(), done.stderr) == (0, "in", "")


def test_it_says_what_it_is(host: Any) -> None:
    marker = json.loads(host.file(f"{BASE}/course/.trainyard-env.json").content_string)
    assert (marker["owner"], marker["complete"]) == ("framework_env", True)
    assert marker["about"] == {
        "device": "cpu",
        "environment": "jax",
        "kind": "framework",
        "proof": "jax",
        "title": "JAX (course)",
        "variant": "cpu",
    }


def test_the_installer_and_its_cache_are_for_root(host: Any) -> None:
    assert host.file(f"{BASE}/.uv/bin/uv").is_file
    assert not host.file(f"{BASE}/never-was").exists
