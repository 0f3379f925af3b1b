# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What runs on each node of a job: it fetches what is shipped, runs the submitter's hook, and starts the trainers."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import folders, job, launchers, modes, outputs, trainers
from .errors import LOST, NOT_BEGUN, NOT_KEPT, RefusedError
from .known import environments
from .launchers import ports_wanted, private_build, processes
from .meeting import LostError, Meeting
from .network import free_ports, route_to
from .text import printable
from .trainers import Trainer

SAVED_EVERY = 60.0
"""Seconds between two looks for what the script has written beside itself."""
HOOK = "before_hook.sh"
TRAINER = Path(__file__).with_name("trainer.py")
TRAIN_LIST = "train.list"


class UnusableError(Exception):
    """The node cannot start its trainers; says why."""


def main(folder: Path) -> int:
    """Do this node's part of the job whose folder it is, and return its exit status."""
    scratch = Path(tempfile.mkdtemp(prefix=f"trainyard-{os.environ['SLURM_JOB_ID']}-"))
    try:
        return asyncio.run(_main(folder, scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


async def _main(folder: Path, scratch: Path) -> int:
    rank, nodes = int(os.environ["SLURM_NODEID"]), os.environ.pop("TRAINYARD_NODES").split()
    address, _, port = os.environ.pop("TRAINYARD_MEETING").rpartition(":")
    meeting = Meeting(address, int(port), os.environ.pop("TRAINYARD_TOKEN"), rank)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):  # meant for the script, which has got it, too
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)
    line, name = None, os.uname().nodename
    try:
        try:
            wish = await shipped(meeting, scratch)
            apart = not _seen(folder, scratch)
            workspace, results = scratch / "workspace", scratch / "results" if apart else folder
            if apart:
                for path in (results, results / job.CHECKPOINTS):
                    path.mkdir(mode=0o700)
            await go_on(meeting, results, workspace, apart=apart)
            environment = prepared(wish, scratch, results)
        except UnusableError as error:
            print(f"{name}: {error}", flush=True)
            line, _ = await meeting.join({"name": name, "problem": str(error)})
            return NOT_BEGUN
        before = outputs.state(workspace)
        route = route_to(nodes[0] if rank else (nodes[1:] or ["127.0.0.1"])[0])  # the way to oneself is the loopback
        if not route.address.startswith("127."):
            environment |= interfaces(route.interface)
        me = {"name": name, "address": route.address, "ports": free_ports(route.address, ports_wanted(wish))}
        line, present = await meeting.join(me)
        own = processes(
            wish,
            told(present, ports_wanted(wish)),
            rank,
            python=f"{wish['environments']}/{wish['environment']}/bin/python",
            trainer=str(TRAINER),
            run_id=".".join(os.environ.get(f"SLURM_{word}", "0") for word in ("JOB_ID", "STEP_ID", "RESTART_COUNT")),
        )
        running = [await Trainer.start(process, environment, workspace, modes.users()) for process in own]
        saving = asyncio.create_task(_save(workspace, before, results)) if rank == 0 and not apart else None
        status = await trainers.run(running, line, stop)
        if saving:
            saving.cancel()
        with contextlib.suppress(OSError):  # most scripts write nothing there
            Path(environment["TRAINYARD_TENSORBOARD"]).rmdir()
        kept = outputs.keep(workspace, before, results / job.OUTPUTS) if rank == 0 else outputs.listed(workspace, before)
        given = await meeting.give(results) if apart else 0
        await line.say({"bye": {"given": given, **outputs.told(kept)}})
        if given:
            print(f"{name}: checkpoints could not be given back; why stands in job.log", flush=True)
        return status or (NOT_KEPT if given else 0)
    except UnusableError as error:
        assert line
        await line.say({"status": NOT_BEGUN, "why": str(error)})
        return NOT_BEGUN
    except LostError as error:
        print(f"{name}: the job's host {error}", flush=True)
        return LOST
    finally:
        if line:
            await line.close()


async def _save(workspace: Path, before: outputs.State, results: Path) -> None:
    """Keep what the script writes beside itself while it runs: its node may die."""
    while True:
        await asyncio.sleep(SAVED_EVERY)
        await asyncio.to_thread(outputs.keep, workspace, before, results / job.OUTPUTS)


async def go_on(meeting: Meeting, results: Path, workspace: Path, *, apart: bool) -> None:
    """Where the job starts again, put back what an earlier start has kept.

    Raises:
        UnusableError: it finds no room here.
        LostError: the host is not there.
    """
    if apart:
        unpack = ["tar", "--extract", "--no-same-owner", f"--directory={results}"]
        if await meeting.fetch(job.KEPT, unpack):
            raise UnusableError(f"what the job has kept before could not be unpacked into {results}; why stands above.")
    try:
        outputs.restore(results / job.OUTPUTS, workspace)
    except OSError as error:
        raise UnusableError(str(error)) from None


async def shipped(meeting: Meeting, scratch: Path) -> dict[str, Any]:
    """Fetch and unpack what is shipped into a new folder, and return the job's wish.

    Raises:
        UnusableError: it finds no room there.
        LostError: the host is not there.
    """
    for name in ("job", *job.PARTS):
        if name != "job":
            (scratch / name).mkdir()
        unpack = ["tar", "--extract", "--no-same-owner", f"--directory={scratch / name}"]
        if await meeting.fetch(name, ["dd", f"of={scratch / job.WISH}", "status=none"] if name == "job" else unpack):
            raise UnusableError(f"the {name} could not be unpacked into {scratch}; why stands above.")
    return job.read_json(scratch / job.WISH)


def told(present: Sequence[Mapping[str, Any]], ports: int) -> list[launchers.Node]:
    """Read what all nodes told of themselves.

    Raises:
        UnusableError: one of them cannot be.
    """
    try:
        return [launchers.node(each, ports) for each in present]
    except ValueError as error:
        raise UnusableError(f"a node of this job says of itself what cannot be: {printable(str(error))}.") from None


def _seen(folder: Path, scratch: Path) -> bool:
    """Whether this node sees the job's folder, and not another one of the same name, which may be somebody else's."""
    try:
        with folders.opened(folder) as place:
            return folders.read(place / job.WISH) == (scratch / job.WISH).read_bytes()
    except (OSError, RefusedError):
        return False


def prepared(wish: Mapping[str, Any], scratch: Path, results: Path) -> dict[str, str]:
    """Run the submitter's hook, and return the environment for trainers.

    Args:
        wish: the job.
        scratch: where :func:`shipped` put everything.
        results: the folder for what is kept.

    Raises:
        UnusableError: the hook fails, or the environment is not on this node.
    """
    root = Path(wish["environments"]) / wish["environment"]
    if not (root / "bin" / "python").exists():
        there = ", ".join(environments(wish["environments"])) or "none"
        raise UnusableError(f"there is no environment {wish['environment']} on this node; there are: {there}.")
    workspace, thirdparty = scratch / "workspace", scratch / "thirdparty"
    run = f"{getpass.getuser()}-{wish['name']}-{os.environ['SLURM_JOB_ID']}"
    environment = {
        **os.environ,
        "PATH": f"{thirdparty}/bin:{root}/bin:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "VIRTUAL_ENV": str(root),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(temporary(scratch)),
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
        "TRAINYARD_CHECKPOINTS": str(results / job.CHECKPOINTS),
        "TRAINYARD_TENSORBOARD": str(tensorboard(Path(wish["tensorboard"]), run, results)),
        "TRAINYARD_THIRDPARTY": str(thirdparty),
        "TRAINYARD_NUM_PASSES": str(wish["passes"]),
        **{f"TRAINYARD_{name.upper()}_PERIOD": str(wish[f"{name}_period"]) for name in ("log", "dot", "saving")},
    }
    environment.setdefault("OMP_NUM_THREADS", str(max(1, int(os.environ.get("SLURM_CPUS_ON_NODE", "1")) // int(wish["trainers"]))))
    if (workspace / TRAIN_LIST).exists():
        environment["TRAINYARD_TRAIN_LIST"] = str(workspace / TRAIN_LIST)
    build = private_build(str(wish["framework"]), thirdparty)
    if build:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(build), os.environ.get("PYTHONPATH", "")]))
        print(f"{os.uname().nodename}: trains with the {wish['framework']} that was shipped, {build.relative_to(scratch)}", flush=True)
    hook = next((path for path in (thirdparty / HOOK, workspace / HOOK) if path.exists()), None)
    return hooked(hook, thirdparty, workspace, environment, modes.users()) if hook else environment


def temporary(scratch: Path) -> Path:
    """Make the folder for a job's temporary files, which goes with all that the job has on the node."""
    folder = scratch / "tmp"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def tensorboard(logs: Path, run: str, results: Path) -> Path:
    """Return the folder for a run's TensorBoard logs: a new one or its own where TensorBoard's service looks, or one among the results.

    Args:
        logs: the service's folder, in which everybody may have folders; it need not be on this node.
        run: the run's name there.
        results: the folder for what a job keeps.
    """
    own = logs / run
    try:
        own.mkdir(exist_ok=True)
        own.chmod(0o755)  # the service reads it
        folders.check(own)
    except (OSError, RefusedError):
        return results / "tensorboard"
    return own


def hooked(hook: Path, thirdparty: Path, workspace: Path, environment: Mapping[str, str], umask: int) -> dict[str, str]:
    """Run the hook's function, and return the environment with what it exported.

    Raises:
        UnusableError: it fails.
    """
    script = 'set -e; . "$1"; private_script "$2" "$3" >&2; env -0'
    done = subprocess.run(
        ["bash", "-c", script, "hook", hook, thirdparty, workspace],
        cwd=workspace,
        env=dict(environment),
        stdout=subprocess.PIPE,
        umask=umask,
        check=False,
    )
    if done.returncode:
        raise UnusableError(f"{HOOK} has failed with status {done.returncode}; what it said stands above.")
    words = (word.partition("=") for word in done.stdout.decode(errors="surrogateescape").split("\0") if word)
    return {name: value for name, _, value in words if name not in {"_", "SHLVL", "PWD", "OLDPWD"}}


def interfaces(name: str) -> dict[str, str]:
    """Return the variables that keep each library on one network interface."""
    return {"GLOO_SOCKET_IFNAME": name, "TP_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"}
