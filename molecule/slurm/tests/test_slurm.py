"""A cluster of one node, as somebody who submits jobs finds it."""

from __future__ import annotations

from typing import Any

import pytest


def show(host: Any) -> dict[str, str]:
    """Return the configuration that the controller runs with."""
    lines = host.check_output("scontrol show config").splitlines()
    return {key.strip(): value.strip() for key, equals, value in (line.partition("=") for line in lines) if equals}


def test_one_queue_with_the_node(host: Any) -> None:
    said = host.check_output("sinfo --format='%P|%a|%l|%D|%t|%N'").splitlines()
    name = host.check_output("hostname")
    assert said == ["PARTITION|AVAIL|TIMELIMIT|NODES|STATE|NODELIST", f"main*|up|infinite|1|idle|{name}"]


def test_an_ordinary_users_job_runs_as_him(host: Any) -> None:
    said = host.check_output("runuser -u admin -- sh -c 'cd /tmp && srun hostname && srun id -un'").split()
    assert said == [host.check_output("hostname"), "admin"]


def test_the_node_is_described_as_slurm_sees_it(host: Any) -> None:
    seen = dict(word.partition("=")[::2] for word in host.check_output("slurmd -C").split())
    known = dict(word.partition("=")[::2] for word in host.check_output("scontrol --oneliner show node $(hostname)").split())
    assert known["CPUTot"] == seen["CPUs"]
    assert known["CoresPerSocket"] == seen["CoresPerSocket"]
    assert int(known["RealMemory"]) == int(seen["RealMemory"]) * 95 // 100


def test_the_controller_runs_with_what_is_wished(host: Any) -> None:
    config = show(host)
    assert config["AuthType"] == "auth/munge"
    assert config["SlurmctldParameters"] == "enable_configless"
    assert config["ReturnToService"] == "2"
    assert config["SelectTypeParameters"].startswith("CR_CORE_MEMORY")
    # What a container can do; elsewhere it would be proctrack/cgroup. Slurm 24.11 says (null) for task/none.
    assert config["ProctrackType"] == "proctrack/linuxproc"
    assert config["TaskPlugin"] == {"bookworm": "task/none", "trixie": "(null)"}[host.system_info.codename]


def test_the_daemon_takes_its_configuration_from_the_controller(host: Any) -> None:
    pid = host.check_output("systemctl show --property=MainPID --value slurmd")
    assert f"--conf-server {host.check_output('hostname')}" in host.check_output("ps -o args= -p %s", pid)
    assert host.file("/var/lib/slurm/slurmd/conf-cache/slurm.conf").exists


def test_the_key_is_munges_alone(host: Any) -> None:
    key = host.file("/etc/munge/munge.key")
    assert (key.user, key.group, key.mode) == ("munge", "munge", 0o400)
    assert "STATUS:          Success" in host.check_output("sh -c 'munge -n | unmunge'").replace("STATUS:           ", "STATUS:          ")


def test_a_job_that_asks_for_mail_is_refused_where_nothing_sends_it(host: Any) -> None:
    assert not host.file("/usr/bin/mail").exists
    refused = host.run("runuser -u admin -- sh -c 'cd /tmp && sbatch --mail-type=END --wrap=true'")
    assert refused.rc != 0
    assert "--mail-type: this cluster sends no mail." in refused.stderr
    assert host.run("runuser -u admin -- sh -c 'cd /tmp && srun --mail-type=NONE true'").rc == 0


def test_a_job_has_the_limits_of_its_node_and_not_of_the_shell(host: Any) -> None:
    pid = host.check_output("systemctl show --property=MainPID --value slurmd")
    daemon = host.check_output("prlimit --noheadings --output=SOFT --nofile --memlock --stack --pid %s", pid).split()
    said = host.check_output(
        "runuser -u admin -- prlimit --nofile=256 --memlock=4096 --stack=4194304 sh -c 'cd /tmp && srun prlimit "
        "--noheadings --output=SOFT --nofile --memlock --stack'"
    ).split()
    assert said == daemon
    assert not {"256", "4096", "4194304"} & set(said)
    assert daemon[2] == str(8 << 20)


@pytest.mark.parametrize("daemon", ["munge", "slurmctld", "slurmd"])
def test_it_comes_back_after_a_reboot(host: Any, daemon: str) -> None:
    assert host.service(daemon).is_enabled
    assert host.service(daemon).is_running
