"""Records of jobs, as users ask for them."""

from __future__ import annotations

import time
from typing import Any

import pytest


def recorded(host: Any, job: str, fields: str, wanted: str) -> str:
    """Return what is recorded of a job, at last; records come a moment after the job."""
    end = time.monotonic() + 60
    ask = f"sacct --noheader --parsable2 --allocations --jobs={job} --format={fields}"
    while (said := str(host.check_output(ask))) != wanted and time.monotonic() < end:
        time.sleep(0.5)
    return said


def test_a_job_is_recorded_with_its_user_and_its_end(host: Any) -> None:
    job = host.check_output("runuser -u admin -- sh -c 'cd /tmp && sbatch --parsable --wait --output=/dev/null --wrap=\"exit 3\"; true'")
    wanted = "FAILED|admin|3:0|main"
    assert recorded(host, job, "State,User,ExitCode,Partition", wanted) == wanted


def test_the_cluster_is_registered(host: Any) -> None:
    name, address = host.check_output("sacctmgr --noheader --parsable2 show cluster format=cluster,controlhost").split("|")
    assert name == "trainyard"
    assert address  # the controller has said hello


def test_the_database_is_reached_from_the_node_alone_and_without_a_password(host: Any) -> None:
    listening = [line.split()[3] for line in host.check_output("ss -Hltn").splitlines() if line.split()[3].endswith(":3306")]
    assert listening == ["127.0.0.1:3306"]
    settings = host.file("/etc/slurm/slurmdbd.conf")
    assert (settings.user, settings.mode) == ("slurm", 0o600)
    assert "StoragePass" not in settings.content_string
    assert host.run("runuser -u admin -- mariadb --user=slurm slurm_acct_db --execute 'SELECT 1'").rc != 0
    assert host.run("runuser -u slurm -- mariadb slurm_acct_db --execute 'SELECT 1'").rc == 0


@pytest.mark.parametrize("daemon", ["mariadb", "slurmdbd", "slurmctld"])
def test_it_comes_back_after_a_reboot(host: Any, daemon: str) -> None:
    assert host.service(daemon).is_enabled
    assert host.service(daemon).is_running
