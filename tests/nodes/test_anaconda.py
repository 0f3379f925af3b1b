"""conda on a real node: refusals before anything changes, downloads and installers that are killed, upgrades under a program, undo.

The installers, and with them conda itself, are stand-ins, served on the node by a server that misbehaves when it is told to.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import conda_installer_stand_in
from tests.support import Play, ansible_playbook, inventory_of, put_module_utils
from trainyard.containers import Lab
from trainyard.paths import REPOSITORY

pytestmark = pytest.mark.nodes

URL = "http://127.0.0.1:8124"
STORE = "/opt/trainyard/conda"
OLD, NEW = "26.1.0-0", "26.7.2-0"
DRIVE = """
import json, pathlib, sys
sys.path.insert(0, "/srv")
from ansible_collections.trainyard.core.plugins.module_utils import _conda_distribution as core
core.apply(core.Wanted(**json.loads(sys.argv[1])), core.Places(pathlib.Path("/opt/conda"), pathlib.Path("/opt/trainyard/conda")))
"""
TRACES = "ls -Ald /opt/conda /opt/conda/* /opt/trainyard/conda/* /etc/conda/.* /etc/profile.d/trainyard* 2>/dev/null"


@dataclass
class Site:
    """The node, and what is served there."""

    lab: Lab
    folder: Path
    sums: dict[str, str]

    def root(self, script: str, *, check: bool = True) -> str:
        """Run a script as root, beside SSH."""
        return self.lab.execute("head", ["sh", "-ec", script], check=check)

    def login(self, user: str, script: str, shell: str = "/bin/bash") -> str:
        """Run a script in a user's login shell, and return what it printed."""
        return self.lab.execute("head", ["su", "-", user, "-s", shell, "-c", script], check=False)

    def put(self, path: str, text: str) -> None:
        """Write a file."""
        self.root(f"echo {base64.b64encode(text.encode()).decode()} | base64 -d >{path}")

    def serve(self, mode: str = "") -> None:
        """Have the server do as a mode says, and forget what it was asked."""
        self.root(f"printf '%s' '{mode}' >/srv/conda/mode; : >/srv/conda/asked")

    def asked(self) -> list[str]:
        """Return the requests of installers, each with its Range."""
        return [line.partition(" ")[2] for line in self.root("cat /srv/conda/asked").splitlines()]

    def run(self, version: str, *words: str, playbook: str = "conda.yml", **variables: Any) -> Play:
        """Run a playbook on the node, which is in the group conda."""
        installer = {"sha256": self.sums[version], "size_mb": 3, "installed_mb": 30}
        wishes = {"anaconda_source": URL, "anaconda_version": version, "anaconda_installer": installer, **variables}
        inventory = inventory_of(self.lab, self.folder, wishes)
        data = yaml.safe_load(inventory.read_text())
        data["all"]["children"] = {"conda": {"hosts": {"head": None}}}
        inventory.write_text(yaml.safe_dump(data))
        return ansible_playbook(REPOSITORY / "playbooks" / playbook, inventory, words)

    def drive(self, version: str) -> None:
        """Start the module's core on the node, without Ansible around it, so that it can be killed."""
        file = f"Miniforge3-{version}-Linux-x86_64.sh"
        wish = {"distribution": "miniforge", "version": version, "file": file, "sha256": self.sums[version], "sources": [f"{URL}/{file}"]}
        self.put("/srv/wish", json.dumps(wish))
        self.root('systemd-run -q --collect -p KillMode=process --unit drive python3 /srv/drive.py "$(cat /srv/wish)"')

    def wait(self, condition: str) -> None:
        """Wait until a shell's condition holds on the node."""
        deadline = time.monotonic() + 120
        while "yes" not in self.root(f"if {condition}; then echo yes; fi", check=False):
            assert time.monotonic() < deadline, condition
            time.sleep(0.1)


@pytest.fixture(scope="module")
def site(node: Lab, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A node with a user and the server, and no conda."""
    sums = {}
    here = Site(node, tmp_path_factory.mktemp("site"), sums)
    here.root("mkdir /srv/conda; useradd -m -s /bin/bash alice")
    for version in (OLD, NEW):
        # Made on the node, for its installers have megabytes that nobody need carry there.
        path, sums[version] = conda_installer_stand_in.make(here.folder, version)
        here.put("/srv/head", path.read_bytes()[: -conda_installer_stand_in.PADDING].decode())
        pad = f"import random, sys; sys.stdout.buffer.write(random.Random('{version}').randbytes({conda_installer_stand_in.PADDING}))"
        here.root(f'python3 -c "{pad}" >/srv/tail; cat /srv/head /srv/tail >/srv/conda/{path.name}')
    here.put("/srv/conda/server.py", conda_installer_stand_in.SERVER)
    put_module_utils(node.execute, "head", "_conda_distribution.py")
    here.put("/srv/drive.py", DRIVE)
    here.root("systemd-run -q --unit conda python3 /srv/conda/server.py /srv/conda 8124")
    here.serve()
    return here


# --- Refused before anything changes ----------------------------------------------------------------------------------

REFUSED = {
    "terms": ({"anaconda_distribution": "miniconda"}, r"anaconda_accept_terms: Miniconda stands under Anaconda's Terms of Service"),
    "terms of a channel": ({"anaconda_channels": ["defaults"]}, r"anaconda_channels: defaults are Anaconda's channels"),
    "down": ({"anaconda_source": "http://127.0.0.1:9"}, r"http://127.0.0.1:9/Miniforge3-\S+: Connection refused\..*anaconda_source"),
    "not there": ({"anaconda_source": f"{URL}/elsewhere", "anaconda_version": "1"}, r"anaconda_version: the catalogue has no installer"),
    "unknown version": ({"anaconda_version": "99.1-0", "anaconda_installer": {}}, r"it has 26.7.2-0, 26.1.0-0, 25.3.1-0\."),
    "no mirror": ({"anaconda_mirror": "thu"}, r"anaconda_mirror: 'thu' is no mirror of channels; right are '', tuna, ustc, aliyun, and"),
    "no source": ({"anaconda_source": "aliyun"}, r"anaconda_source: 'aliyun' does not have Miniforge; right are '', tuna, ustc, the URL"),
    "no file": ({"anaconda_source": "/srv/nothing.sh"}, r"/srv/nothing.sh: No such file or directory\. Another way"),
    "wrong file": ({"anaconda_source": "/etc/passwd"}, r"/etc/passwd: it has the SHA-256 [0-9a-f]{64}, and [0-9a-f]{64} is wanted"),
    "room": ({"anaconda_installer": {"installed_mb": 10**9}}, r"GB free, but miniforge-26.1.0-0 takes 1000000\.00 GB .* anaconda_store"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_by_a_message_that_names_the_variable(site: Site, name: str) -> None:
    variables, said = REFUSED[name]
    done = site.run(OLD, **variables)
    assert done.status != 0
    assert re.search(said, done.failures()), done.failures()
    assert done.changed == {"head": 0}
    assert site.root(TRACES, check=False) == ""


def test_a_small_disk_is_refused_with_numbers(site: Site) -> None:
    site.root("mkdir -p /mnt/small; mount -t tmpfs -o size=100m tmpfs /mnt/small")
    try:
        done = site.run(OLD, anaconda_store="/mnt/small/conda")
    finally:
        site.root("umount /mnt/small")
    assert "The disk of /mnt/small/conda has 0.10 GB free, but miniforge-26.1.0-0 takes 0.03 GB and its installer" in done.failures()


def test_a_conda_of_somebody_elses_is_named_by_the_preflight_of_all_and_left_alone(site: Site) -> None:
    site.root("mkdir -p /opt/conda/bin; echo mine >/opt/conda/bin/conda")
    before = site.root(TRACES, check=False)
    authorities = "{{ query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt') }}"
    done = site.run(OLD, playbook="preflight.yml", framework_env_environments=[], base_ca_certificates=authorities)
    assert done.status != 0
    assert "/opt/conda is there already and is somebody else's. Nothing was done. Move it away, or" in done.failures(), done.text[-2000:]
    assert site.root(TRACES, check=False) == before
    site.root("rm -r /opt/conda; mkdir /etc/conda; echo 'channels: [mine]' >/etc/conda/.condarc")
    done = site.run(OLD)
    assert "/etc/conda/.condarc is there already and was not written by Trainyard" in done.failures()
    assert site.root("cat /etc/conda/.condarc") == "channels: [mine]\n"
    site.root("rm -r /etc/conda")


def test_check_mode_says_what_would_be_done_and_does_nothing(site: Site) -> None:
    done = site.run(OLD, "--check", "--diff")
    assert done.status == 0, done.failures()
    assert done.changed == {"head": 3}
    assert done.results["anaconda : Have the distribution", "head"]["actions"] == [
        f"install miniforge-{OLD}",
        f"lead /opt/conda to {STORE}/miniforge-{OLD}",
    ]
    assert site.root(TRACES, check=False) == ""


# --- Downloading and installing ---------------------------------------------------------------------------------------


def test_an_altered_file_is_not_run(site: Site) -> None:
    done = site.run(OLD, anaconda_installer={"sha256": "0" * 64, "installed_mb": 30})
    said = done.failures()
    for part in (site.sums[OLD], "0" * 64, f"{URL}/Miniforge3-{OLD}-Linux-x86_64.sh", "anaconda_source", "anaconda_installer", "not run"):
        assert part in said
    assert site.root(f"ls -A {STORE} {STORE}/.download").split() == [f"{STORE}:", ".download", ".lock", f"{STORE}/.download:"]


@pytest.fixture(scope="module")
def made(site: Site) -> Play:
    """What a run did after one that was killed in the middle of its download, and one whose source went down."""
    site.serve("slow")
    site.drive(OLD)
    part = f"{STORE}/.download/Miniforge3-{OLD}-Linux-x86_64.sh.part"
    site.wait(f"[ -e {part} ] && [ $(stat -c %s {part}) -gt 500000 ]")
    site.root("systemctl kill -s KILL drive")
    site.serve("cut:900000")
    done = site.run(OLD)
    assert done.status == 0, done.failures() or done.text[-3000:]
    return done


def test_a_killed_download_goes_on_where_it_was(made: Play, site: Site) -> None:
    asked = site.asked()
    assert asked[0] == "bytes=0-0", "preflight's question"
    starts = [int(text.removeprefix("bytes=").rstrip("-")) for text in asked[1:]]
    assert starts[0] >= 500_000
    assert [later - earlier for earlier, later in itertools.pairwise(starts)] == [900_000] * (len(starts) - 1)


def test_a_second_run_and_check_mode_have_nothing_to_do(made: Play, site: Site) -> None:
    site.serve("broken")  # nobody is asked
    again = site.run(OLD)
    assert (again.status, again.changed) == (0, {"head": 0}), again.failures()
    checked = site.run(OLD, "--check", "--diff")
    assert (checked.status, checked.changed) == (0, {"head": 0}), checked.failures()
    assert site.asked() == []


@pytest.mark.parametrize("user", ["alice", "root"])
def test_a_login_knows_it_and_the_systems_programs_stay_first(made: Play, site: Site, user: str) -> None:
    said = site.login(user, "type conda | head -1; command -v python3; conda --version; echo $PATH").splitlines()
    assert said[:3] == ["conda is a function", "/usr/bin/python3", f"conda {OLD}"]
    assert said[3].split(":")[-1] == "/opt/conda/condabin"


def test_root_owns_all_and_users_only_read(made: Play, site: Site) -> None:
    assert site.root(f"find -L {STORE} /opt/conda -not -user root -o -not -group root -o -perm /022") == ""
    assert site.root("ls -A /root").find(".conda") == -1


def test_an_installer_that_fails_says_why_and_the_old_version_stays(made: Play, site: Site) -> None:
    site.serve()
    site.root("touch /run/conda-installer-fails")
    done = site.run(NEW)
    site.root("rm /run/conda-installer-fails")
    assert f"The installer of miniforge-{NEW} failed with the exit status 1: " in done.failures()
    assert "ERROR: no space left, said the stand-in" in done.failures()
    assert site.login("alice", "conda --version") == f"conda {OLD}\n"
    assert site.root(f"ls {STORE}") == f"miniforge-{OLD}\n"


def test_whoever_kills_an_installation_leaves_no_installer_behind(made: Play, site: Site) -> None:
    site.root("touch /run/conda-installer-stops")
    site.drive(NEW)
    try:
        site.wait(f"[ -p {STORE}/miniforge-{NEW}/pkgs/never ]")
    finally:  # else it would keep its lock, and every later test would wait for that
        site.root("systemctl kill -s KILL --kill-whom=main drive; rm /run/conda-installer-stops")
    site.wait("! systemctl is-active -q drive")
    assert site.root("pgrep -f '[b]ash .*Miniforge3' || echo none") == "none\n"
    assert site.login("alice", "conda --version") == f"conda {OLD}\n"


# --- Upgrading and undoing --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def upgraded(made: Play, site: Site) -> Play:
    """What an upgrade did after one that was killed, while a program of the old version ran and a shell was open."""
    site.login("alice", "conda create -n own")
    site.root("systemd-run -q --unit program --uid alice /opt/conda/bin/python -c 'import time; time.sleep(3600)'")
    script = "conda activate own; touch /tmp/open; while [ ! -e /tmp/go ]; do sleep 0.1; done; conda deactivate; conda --version >/tmp/said"
    site.root(f"systemd-run -q --unit shell --uid alice -p WorkingDirectory=/home/alice -E HOME=/home/alice bash -lc '{script}'")
    site.wait("[ -e /tmp/open ]")
    done = site.run(NEW)
    assert done.status == 0, done.failures() or done.text[-3000:]
    return done


def test_the_new_version_is_there_for_everybody_and_the_old_one_for_its_program(upgraded: Play, site: Site) -> None:
    assert upgraded.results["anaconda : Have the distribution", "head"]["actions"] == [
        f"install miniforge-{NEW} anew: it is not whole",
        f"lead /opt/conda to {STORE}/miniforge-{NEW}",
    ]
    assert site.login("alice", "conda --version") == f"conda {NEW}\n"
    assert site.root(f"ls {STORE}").split() == [f"miniforge-{OLD}", f"miniforge-{NEW}"]
    assert site.root("systemctl is-active program") == "active\n"
    assert site.run(NEW).changed == {"head": 0}


def test_the_old_version_goes_when_its_program_has_ended(upgraded: Play, site: Site) -> None:
    site.root("systemctl stop program")
    done = site.run(NEW)
    assert done.results["anaconda : Have the distribution", "head"]["actions"] == [f"remove {STORE}/miniforge-{OLD}, which is used no more"]
    assert site.root(f"ls {STORE}") == f"miniforge-{NEW}\n"
    assert site.run(NEW).changed == {"head": 0}


def test_a_shell_that_was_open_goes_on(upgraded: Play, site: Site) -> None:
    site.root("touch /tmp/go")
    site.wait("[ -s /tmp/said ]")
    assert site.root("cat /tmp/said") == f"conda {NEW}\n"


def test_a_users_environment_survives(upgraded: Play, site: Site) -> None:
    assert site.login("alice", "conda activate own && greet") == "hello from own\n"


def test_another_source_changes_nothing(upgraded: Play, site: Site) -> None:
    assert site.run(NEW, anaconda_source="").changed == {"head": 0}


def test_it_is_undone(upgraded: Play, site: Site) -> None:
    done = site.run(NEW, "-e", "trainyard_state=absent")
    assert done.status == 0, done.failures()
    assert site.root(TRACES, check=False) == ""
    assert site.root(f"ls -d {STORE} /etc/conda 2>/dev/null", check=False) == ""
    assert site.root("ls /home/alice/.conda/envs") == "own\n"
    assert "not found" in site.login("alice", "conda --version 2>&1")
    assert site.run(NEW, "-e", "trainyard_state=absent").changed == {"head": 0}
