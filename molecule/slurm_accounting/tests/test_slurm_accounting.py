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


def submit(host: Any, user: str, words: str) -> str:
    """Submit a job that needs the whole node, and return its number."""
    return str(host.check_output(f"runuser -u {user} -- sh -c 'cd /tmp && sbatch --parsable --output=/dev/null --exclusive {words}'"))


def test_the_labs_users_have_an_association_each(host: Any) -> None:
    said = host.check_output("sacctmgr --noheader --parsable2 show associations where cluster=trainyard format=account,user")
    assert sorted(said.split()) == ["lab|", "lab|Bob", "lab|admin", "lab|games", "root|", "root|root"]


def test_hours_on_gpus_are_counted(host: Any) -> None:
    said = host.check_output("scontrol show config").splitlines()
    (counted,) = [line for line in said if line.startswith("AccountingStorageTRES ")]
    assert "gres/gpu" in counted.partition("=")[2].strip().split(",")


def test_who_used_how_much_is_reported(host: Any) -> None:
    """Slurm adds up whole hours that are over: the jobs' records are moved to one, and its daemon adds up when it starts."""
    job = submit(host, "admin", '--wait --wrap="sleep 2"')
    assert recorded(host, job, "State,Account", "COMPLETED|lab") == "COMPLETED|lab"
    host.check_output("systemctl stop slurmdbd")
    moved = ", ".join(f"{name}={name}-7200" for name in ("time_submit", "time_eligible", "time_start", "time_end"))
    for change in (
        f"UPDATE trainyard_job_table SET {moved} WHERE time_end > 0",
        "UPDATE trainyard_assoc_table SET creation_time=creation_time-86400",
        "UPDATE trainyard_event_table SET time_start=time_start-14400",
        "DELETE FROM trainyard_last_ran_table",
    ):
        host.check_output(f"mariadb slurm_acct_db --execute '{change}'")
    host.check_output("systemctl start slurmdbd")
    end = time.monotonic() + 60
    ask = "sreport --noheader --parsable2 -t Seconds user top start=now-1days end=now format=login,account,used"
    while not (said := host.run(ask).stdout.strip()) and time.monotonic() < end:
        time.sleep(0.5)
    login, account, used = said.split("|")
    assert (login, account) == ("admin", "lab")
    assert int(used) >= 2


def test_a_user_with_nine_waiting_jobs_does_not_keep_the_next_one_waiting(host: Any) -> None:
    """Once Slurm has counted what admin's running job uses, within a minute, the other's job is the next, though it came last."""
    try:
        submit(host, "admin", '--wrap="sleep 600"')
        waiting = [submit(host, "admin", "--wrap=true") for _ in range(9)]
        last = submit(host, "games", "--wrap=true")
        ask = "squeue --noheader --states=PENDING --sort=-p --format=%i"
        end = time.monotonic() + 150
        while (order := host.check_output(ask).split())[0] != last:
            assert time.monotonic() < end, host.check_output("sprio --long")
            time.sleep(0.5)
        assert sorted(order) == sorted([*waiting, last]), "all of them wait"
    finally:
        host.run("scancel --user=admin,games")


@pytest.mark.parametrize("daemon", ["mariadb", "slurmdbd", "slurmctld"])
def test_it_comes_back_after_a_reboot(host: Any, daemon: str) -> None:
    assert host.service(daemon).is_enabled
    assert host.service(daemon).is_running
