"""A Slurm cluster on kernels of its own, for what no container shows: jobs held in cgroups, clocks that are set, and reboots.

The tests build on each other, in order.
"""

from __future__ import annotations

import shlex
import time

import pytest

from tests.slow.pair import PATIENCE, Pair, fails, says
from tests.slow.vm import Machine
from tests.support import tool

pytestmark = pytest.mark.slow

VARIABLES = {"slurm_accounting": True, "slurm_config": {"JobAcctGatherFrequency": 2}}
OFF = 600  # seconds by which a clock is wrong
# Fills as many MiB as it is told and keeps them for some seconds.
FILL = "import sys, time; filled = bytes([1]) * (int(sys.argv[1]) << 20); time.sleep(float(sys.argv[2]))"


def submit(pair: Pair, words: str, script: str) -> str:
    """Submit a job of ada's and return its number."""
    return says(pair.head, "ada", f"cd /tmp && sbatch --parsable --output=/dev/null {words} --wrap {shlex.quote(script)}")


def until(machine: Machine, script: str, wanted: str, seconds: float = 120) -> None:
    """Wait until a script prints something."""
    end = time.monotonic() + seconds
    while (said := machine.attempt(script).stdout.strip()) != wanted:
        assert time.monotonic() < end, f"{script}: {said}"
        time.sleep(1)


def ended(pair: Pair, job: str, fields: str = "State") -> str:
    """Wait until the records tell of a job's end, and return some of its fields."""
    ask = f"sacct --noheader --parsable2 --allocations --jobs={job} --format="
    end = time.monotonic() + 180
    while pair.head.ask(f"{ask}State") in {"", "PENDING", "RUNNING"}:
        assert time.monotonic() < end, pair.head.ask(f"scontrol show job {job}")
        time.sleep(1)
    return pair.head.ask(f"{ask}{fields}")


def test_a_clock_that_is_off_is_set_and_the_cluster_holds_jobs_in_cgroups(pair: Pair) -> None:
    pair.node1.ask(f"date --set='+{OFF} seconds'")
    based = pair.apply("base.yml")
    assert based.status == 0, based.failures() or based.text[-3000:]
    done = pair.apply("cluster.yml")
    assert done.status == 0, done.failures() or done.text[-3000:]
    times = [int(machine.ask("date +%s")) for machine in (pair.head, pair.node1)]
    assert abs(times[0] - times[1]) < OFF / 10, "logins take their time as well"
    assert "-x" not in pair.node1.ask("ps -o args= -C chronyd").split()
    assert done.results["slurm : Configure the cluster", "head"]["unconfined"] == ""
    said = pair.head.ask("scontrol show config | grep -E '^(ProctrackType|TaskPlugin) ' | tr -s ' '").splitlines()
    assert [line.rstrip() for line in said] == ["ProctrackType = proctrack/cgroup", "TaskPlugin = task/affinity,task/cgroup"]
    assert pair.head.ask("sinfo -h -o '%P %t %N'") == "main* idle node1"


def test_a_second_run_changes_nothing(pair: Pair) -> None:
    # What was written under the wrong clock seems to be newer than the daemons: they read it anew, once.
    assert pair.apply("cluster.yml").status == 0
    again = pair.apply("cluster.yml")
    assert (again.status, again.changed) == (0, {"head": 0, "node1": 0}), again.failures() or again.text[-3000:]


def test_a_job_that_takes_more_memory_than_its_own_is_ended_and_its_neighbour_is_not(pair: Pair) -> None:
    neighbour = submit(pair, "-n1 --mem=200", f"python3 -c '{FILL}' 50 15")
    until(pair.head, f"squeue -h -j {neighbour} -o %T", "RUNNING")
    greedy = submit(pair, "-n1 --mem=100", f"python3 -c '{FILL}' 300 60")
    assert ended(pair, greedy) == "OUT_OF_MEMORY"
    assert ended(pair, neighbour, "State,ExitCode") == "COMPLETED|0:0"
    peaks = pair.head.ask(f"sacct --noheader --parsable2 --jobs={neighbour}.batch --format=MaxRSS --units=M")
    assert 50 <= float(peaks.rstrip("M")) <= 200, "what it needed is on record"


def test_a_job_has_the_cores_that_it_asked_for_and_no_other(pair: Pair) -> None:
    own = "grep Cpus_allowed_list /proc/self/status | cut -f 2"
    assert says(pair.head, "ada", "cd /tmp && srun -n1 -c1 --mem=50 nproc") == "1"
    # Who asks the kernel for all of them gets his own.
    assert says(pair.head, "ada", "cd /tmp && srun -n1 -c1 --mem=50 taskset -c 0,1 nproc") == "1"
    jobs = [submit(pair, "-n1 -c1 --mem=50", f"{own} > /tmp/cores-{number}; sleep 5") for number in (1, 2)]
    assert [ended(pair, job) for job in jobs] == ["COMPLETED", "COMPLETED"]
    assert sorted(pair.node1.ask("cat /tmp/cores-1 /tmp/cores-2").split()) == ["0", "1"]


def test_nothing_of_a_job_stays_however_it_hides(pair: Pair) -> None:
    pair.node1.ask("systemd-run --quiet --uid=ada --unit=ada-works sleep 601")
    job = submit(pair, "-n1 --mem=50", "setsid -f env -i sleep 602; setsid -f nohup sleep 603; exit 0")
    assert ended(pair, job) == "COMPLETED"
    until(pair.head, "squeue -h -t all -o %T | grep -c COMPLETING || true", "0")
    until(pair.node1, "pgrep -u ada -a sleep | cut -d ' ' -f 2-", "/usr/bin/sleep 601", 30)
    pair.node1.ask("systemctl stop ada-works")


def test_a_node_reboots_and_what_waits_runs_then(pair: Pair) -> None:
    before, running = pair.node1.boot_id(), submit(pair, "--exclusive", "sleep 20")
    until(pair.head, f"squeue -h -j {running} -o %T", "RUNNING")
    waiting = submit(pair, "--exclusive", "true")
    status, said = tool(pair.inventory, "reboot", "node1", "--deadline", "5m", timeout=PATIENCE)
    assert status == 0, said
    assert "node1: rebooted, takes jobs" in said
    assert pair.node1.boot_id() != before
    assert ended(pair, running) == "COMPLETED", "it was waited for"
    assert ended(pair, waiting) == "COMPLETED"


def test_a_node_that_lost_its_power_takes_jobs_again_and_the_job_is_repeated(pair: Pair) -> None:
    job = submit(pair, "--requeue", "sleep 20")
    until(pair.head, f"squeue -h -j {job} -o %T", "RUNNING")
    pair.node1.cut_power()
    pair.node1.switch_on()
    until(pair.head, "sinfo -h -o %T -n node1 | sed s/mixed/idle/", "idle", 180)
    state = f"scontrol --oneliner show job {job} | grep -oE '(JobState|Restarts)=[A-Z0-9]+' | paste -s"
    until(pair.head, state, "JobState=COMPLETED\tRestarts=1", 300)  # Slurm holds a job back for two minutes first
    drained = pair.head.ask("scontrol update NodeName=node1 State=DRAIN Reason='a fan rattles' && sinfo -h -n node1 -o '%T %E'")
    assert drained == "drained a fan rattles"
    pair.node1.cut_power()
    pair.node1.switch_on()
    pair.node1.wait_for("systemctl is-active slurmd", "slurmd did not start", seconds=120)
    time.sleep(20)
    assert pair.head.ask("sinfo -h -n node1 -o %E") == "a fan rattles"
    pair.head.ask("scontrol update NodeName=node1 State=RESUME")


def test_the_head_reboots_under_a_job(pair: Pair) -> None:
    job = submit(pair, "", "sleep 60; echo done > /tmp/under-reboot")
    until(pair.head, f"squeue -h -j {job} -o %T", "RUNNING")
    pair.head.reboot()
    until(pair.head, "sinfo -h -o '%t %N' -n node1", "mix node1", 180)
    assert ended(pair, job, "State,ExitCode") == "COMPLETED|0:0"
    assert pair.node1.ask("cat /tmp/under-reboot") == "done"
    assert pair.apply("cluster.yml").changed == {"head": 0, "node1": 0}
    assert "Unable to contact" not in fails(pair.head, "ada", "cd /tmp && srun -n 99 hostname")


def test_a_job_reaches_its_own_gpu_and_no_other(pair: Pair) -> None:
    # A stand-in for nvidia-smi, and device files without a driver: opening one fails in one way, and in another where it is forbidden.
    pair.node1.ask("printf '#!/bin/sh\\necho GPU 0:\\necho GPU 1:\\n' > /usr/bin/nvidia-smi && chmod +x /usr/bin/nvidia-smi")
    done = pair.apply("cluster.yml", slurm_gpus=["a100", "a100"])
    assert done.status == 0, done.failures() or done.text[-3000:]
    look = "for gpu in 0 1; do (: < /dev/nvidia$gpu) 2>&1 | sed 's/.*nvidia//'; done; sleep 3"
    jobs = [submit(pair, f"-n1 --mem=50 --gpus=1 --output=/tmp/gpu-{number}", look) for number in (1, 2)]
    assert [ended(pair, job) for job in jobs] == ["COMPLETED", "COMPLETED"]
    there, forbidden = "No such device or address", "Operation not permitted"
    said = sorted(pair.node1.ask(f"cat /tmp/gpu-{number}") for number in (1, 2))
    assert said == [f"0: {there}\n1: {forbidden}", f"0: {forbidden}\n1: {there}"]


def test_undo(pair: Pair) -> None:
    off = pair.apply("cluster.yml", trainyard_state="absent")
    assert off.status == 0, off.failures() or off.text[-3000:]
    for machine in (pair.head, pair.node1):
        machine.ask("! ls /usr/sbin/slurmd /usr/sbin/slurmctld /usr/sbin/munged /usr/sbin/chronyd /etc/slurm/slurm.conf 2>/dev/null")
        assert machine.ask("dpkg --audit; systemctl --failed --no-legend") == ""
    again = pair.apply("cluster.yml", trainyard_state="absent")
    assert (again.status, again.changed) == (0, {"head": 0, "node1": 0})
