# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What runs on each node of a job: it unpacks what was shipped, runs the submitter's hook, and starts the trainers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import job
from .errors import LOST
from .launchers import Node, Process, ports_wanted, private_build, processes
from .meeting import Line, LostError, join
from .network import free_ports, route_to

FAILED_BEFORE = 66
"""Exit status where what was shipped, or its hook, cannot be used (EX_NOINPUT)."""
GRACE = 10.0
"""Seconds between asking a process to end and ending it."""
HOOK = "before_hook.sh"
TRAINER = Path(__file__).with_name("trainer.py")
TRAIN_LIST = "train.list"


class UnusableError(Exception):
    """The node cannot start its trainers; says why."""


def main(folder: Path) -> int:
    """Do this node's part of the job whose folder it is, and return its exit status."""
    try:
        wish = job.read_json(folder / job.WISH)
    except OSError as error:
        print(
            f"{os.uname().nodename} does not see {folder} ({error.strerror}): "
            "a job's folder has to lie where all nodes see it, such as a shared home.",
            flush=True,
        )
        return FAILED_BEFORE
    scratch = Path(tempfile.mkdtemp(prefix=f"trainyard-{os.environ['SLURM_JOB_ID']}-"))
    try:
        return asyncio.run(_main(folder, wish, scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


async def _main(folder: Path, wish: Mapping[str, Any], scratch: Path) -> int:
    rank = int(os.environ["SLURM_NODEID"])
    host, _, port = os.environ.pop("TRAINYARD_MEETING").rpartition(":")
    token, second = os.environ.pop("TRAINYARD_TOKEN"), os.environ.pop("TRAINYARD_SECOND")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    status, line = FAILED_BEFORE, None
    try:
        environment = prepared(folder, wish, scratch)
        route = route_to(host if rank else second)  # the way to oneself is the loopback
        address = host if host.startswith("127.") else route.address
        if not address.startswith("127."):
            environment |= interfaces(route.interface)
        me = {"name": os.uname().nodename, "address": address, "ports": free_ports(address, ports_wanted(wish))}
        line, nodes = await join(host, int(port), rank, token, me)
        own = processes(
            wish,
            [Node(**node) for node in nodes],
            rank,
            python=f"{wish['environments']}/{wish['environment']}/bin/python",
            trainer=str(TRAINER),
            folder=folder / job.LOGS / f"{me['name']}-launcher",
            run_id=f"{os.environ['SLURM_JOB_ID']}.{os.environ.get('SLURM_RESTART_COUNT', '0')}",
        )
        status = await _train(own, environment, scratch / "workspace", line, stop)
    except UnusableError as error:
        print(f"{os.uname().nodename}: {error}", flush=True)
    except LostError as error:
        print(f"{os.uname().nodename}: the job's first node {error}", flush=True)
        status = LOST
    finally:
        if line:
            await line.close()
    return status


def prepared(folder: Path, wish: Mapping[str, Any], scratch: Path) -> dict[str, str]:
    """Unpack what was shipped, run the hook, and return the environment for trainers.

    Raises:
        UnusableError: the hook fails, the environment is not on this node, or what was shipped finds no room there.
    """
    root = Path(wish["environments"]) / wish["environment"]
    if not (root / "bin" / "python").exists():
        there = sorted(path.name for path in Path(wish["environments"]).glob("[!.]*") if (path / "bin" / "python").exists())
        raise UnusableError(f"there is no environment {wish['environment']} on this node; there are: {', '.join(there) or 'none'}.")
    for name in job.PARTS:
        (scratch / name).mkdir()
        if (folder / f"{name}.tar").exists():
            words = ["tar", "--extract", "--no-same-owner", f"--directory={scratch / name}", f"--file={folder / name}.tar"]
            if subprocess.run(words, check=False).returncode:
                raise UnusableError(f"the {name} could not be unpacked into {scratch}; why stands above.")
    workspace, thirdparty = scratch / "workspace", scratch / "thirdparty"
    environment = {
        **os.environ,
        "PATH": f"{thirdparty}/bin:{root}/bin:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "VIRTUAL_ENV": str(root),
        "PYTHONUNBUFFERED": "1",
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
        "TRAINYARD_CHECKPOINTS": str(folder / job.CHECKPOINTS),
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


async def _train(own: list[Process], environment: Mapping[str, str], workspace: Path, line: Line, stop: asyncio.Event) -> int:
    """Start processes, wait for those that lead and for the other nodes, end what is left, and return the exit status."""
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
    said = sent_home.result()["end"]
    if said != "done":
        print(f"{os.uname().nodename}: ends, since {said}", flush=True)
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
