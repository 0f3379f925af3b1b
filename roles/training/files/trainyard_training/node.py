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
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from . import folders, job, launchers
from .errors import FAILED_BEFORE, LOST, RefusedError
from .known import environments
from .launchers import Process, ports_wanted, private_build, processes
from .meeting import Line, LostError, Meeting
from .network import free_ports, route_to
from .text import printable

NOT_KEPT = 74
"""Exit status where what a script kept did not come back (EX_IOERR)."""
GRACE = 10.0
"""Seconds between asking a process to end and ending it."""
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
    status, line, name = FAILED_BEFORE, None, os.uname().nodename
    try:
        wish = await shipped(meeting, scratch)
        apart = not _seen(folder, scratch)
        results = scratch / "results" if apart else folder
        results.mkdir(mode=0o700, exist_ok=True)
        for part in (job.LOGS, job.CHECKPOINTS):
            (results / part).mkdir(parents=True, exist_ok=True)
        environment = prepared(wish, scratch, results)
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
            folder=results / job.LOGS / f"{name}-launcher",
            run_id=".".join(os.environ.get(f"SLURM_{word}", "0") for word in ("JOB_ID", "STEP_ID", "RESTART_COUNT")),
        )
        status = await _train(own, environment, scratch / "workspace", line, stop, partial(meeting.give, results) if apart else None)
        with contextlib.suppress(OSError):  # most scripts write nothing there
            Path(environment["TRAINYARD_TENSORBOARD"]).rmdir()
    except UnusableError as error:
        print(f"{name}: {error}", flush=True)
    except LostError as error:
        print(f"{name}: the job's host {error}", flush=True)
        status = LOST
    finally:
        if line:
            await line.close()
    return status


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
        results: the folder for checkpoints and launchers' logs.

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
    return hooked(hook, thirdparty, workspace, environment) if hook else environment


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
        folders.check(own)
    except (OSError, RefusedError):
        return results / "tensorboard"
    return own


def hooked(hook: Path, thirdparty: Path, workspace: Path, environment: Mapping[str, str]) -> dict[str, str]:
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
        check=False,
    )
    if done.returncode:
        raise UnusableError(f"{HOOK} has failed with status {done.returncode}; what it said stands above.")
    words = (word.partition("=") for word in done.stdout.decode(errors="surrogateescape").split("\0") if word)
    return {name: value for name, _, value in words if name not in {"_", "SHLVL", "PWD", "OLDPWD"}}


def interfaces(name: str) -> dict[str, str]:
    """Return the variables that keep each library on one network interface."""
    return {"GLOO_SOCKET_IFNAME": name, "TP_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"}


async def _train(
    own: list[Process],
    environment: Mapping[str, str],
    workspace: Path,
    line: Line,
    stop: asyncio.Event,
    give: Callable[[], Awaitable[int]] | None,
) -> int:
    """Start processes, wait for those that lead and for the other nodes, end what is left, and return the exit status.

    What they left is given back, where that has to be done, before the others hear that they are done.
    """
    running = [
        await asyncio.create_subprocess_exec(
            *process.command,
            cwd=workspace,
            env={**environment, **process.environment},
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        for process in own
    ]
    sent_home = asyncio.create_task(line.hear())
    stopped = asyncio.create_task(stop.wait())
    pairs = dict(zip([asyncio.create_task(process.wait()) for process in running], own, strict=True))
    status, told = 0, False
    try:
        while True:
            leading = [task for task, process in pairs.items() if process.leads and not task.done()]
            broken = [task for task in pairs if task.done() and task.result()]
            if broken:
                status = max(task.result() if task.result() > 0 else 128 - task.result() for task in broken)
                for task in broken:
                    print(f"{os.uname().nodename}: {pairs[task].name} has ended with status {task.result()}", flush=True)
            if not told and (status or not leading):
                told = True
                if give and await give():
                    print(f"{os.uname().nodename}: checkpoints and logs could not be given back; why stands in job.log", flush=True)
                    status = status or NOT_KEPT
                await line.say({"status": status})
            if status:
                return status
            await asyncio.wait({sent_home, stopped, *(task for task in pairs if not task.done())}, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                return 128 + signal.SIGTERM
            if sent_home.done():
                return _last_words(sent_home, told)
    finally:
        sent_home.cancel()
        stopped.cancel()
        await _end(running)


def _last_words(sent_home: asyncio.Task[dict[str, Any]], told: bool) -> int:
    """Return the exit status that goes with what the meeting's host said last.

    Raises:
        LostError: it said nothing any more.
    """
    said = sent_home.result().get("end")
    if said != "done":
        print(f"{os.uname().nodename}: ends, since {printable(str(said))}", flush=True)
        return LOST
    return 0 if told else LOST


async def _end(running: list[asyncio.subprocess.Process]) -> None:
    for sign, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        left = [process for process in running if process.returncode is None]
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
        if left:
            await asyncio.wait([asyncio.create_task(process.wait()) for process in left], timeout=patience)
    sys.stdout.flush()
