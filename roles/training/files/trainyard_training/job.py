# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A job's folder at its submitter's: what is shipped, what was wished, and what comes back.

NAME-1/job.json           the wish, as the nodes read it
NAME-1/workspace.tar      and thirdparty.tar: as they were when the job was submitted; gone when it has ended
NAME-1/logs/              job.log, and one file for each node
NAME-1/checkpoints/       what the script keeps; a job that starts again finds it
NAME-1/outputs/           what the script wrote into its workspace on the first node; likewise
NAME-1/result.json        how it ended
"""

from __future__ import annotations

import dataclasses
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import folders
from .errors import RefusedError
from .options import Wish

WISH, RESULT, LOGS, CHECKPOINTS, OUTPUTS = "job.json", "result.json", "logs", "checkpoints", "outputs"
KEPT = "kept"
"""What a job that starts again ships beside its parts: checkpoints and outputs of the start before."""
PARTS = ("workspace", "thirdparty")
KEPT_OUT = {".git", "__pycache__", ".ipynb_checkpoints", ".venv"}
"""Names that are not shipped: history, caches and environments of the submitter's own machine."""


def new_folder(name: str, parent: Path) -> Path:
    """Make the folder NAME-1, or the first number that is free, readable by its owner alone.

    Raises:
        RefusedError: the parent folder cannot be written, or everybody could put something else in the new one's place.
    """
    folders.check_way(parent / name)
    for number in range(1, 100_000):
        folder = parent / f"{name}-{number}"
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        except OSError as error:
            raise RefusedError(f"The job's results belong into {parent}, where no folder can be made: {error.strerror}.") from error
        return folder
    raise RefusedError(f"{parent} has a hundred thousand folders {name}-N. Remove some, or choose another --job-name.")


def fill(folder: Path, wish: Wish, extra: Mapping[str, Any]) -> None:
    """Put the wish and what is to be shipped into a new folder.

    Args:
        folder: made by :func:`new_folder`.
        wish: the job.
        extra: what the nodes are to know beside it.

    Raises:
        NotOwnError: something that is to be shipped is neither the user's nor root's, or others may write there.
    """
    for name in (LOGS, CHECKPOINTS):
        (folder / name).mkdir(mode=0o700)
    words = {**dataclasses.asdict(wish), **extra, "workspace": str(wish.workspace), "thirdparty": str(wish.thirdparty or "")}
    write_json(folder / WISH, words)
    for name in PARTS:
        source: Path | None = getattr(wish, name)
        if source:
            folders.check_way(source)
            with tarfile.open(folder / f"{name}.tar", "w") as archive:
                archive.add(source, arcname=".", filter=_shipped(source))


def _shipped(source: Path) -> Callable[[tarfile.TarInfo], tarfile.TarInfo | None]:
    def keep(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        path = source / member.name
        if path.name in KEPT_OUT or is_job_folder(path) or not (member.isfile() or member.isdir() or member.issym()):
            return None
        # A script, a hook or a module that somebody else left in a folder that is shipped would run in the user's name.
        why = "" if member.issym() else folders.problem(member.uid, member.gid, member.mode, root=True)
        if why:
            raise folders.refusal(path, member.uid, member.gid, member.mode, why)
        return member

    return keep


def parts(folder: Path) -> dict[str, Path]:
    """Return name -> archive of what a job ships, whether it is there or not."""
    return {name: folder / f"{name}.tar" for name in PARTS}


def pack_kept(folder: Path) -> Path:
    """Pack what a job has kept, for nodes that do not see its folder, and return the archive."""
    path = folder / f"{KEPT}.tar"
    with open(folders.write(path), "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
        for name in (CHECKPOINTS, OUTPUTS):
            if (folder / name).is_dir():
                archive.add(folder / name, arcname=name, filter=lambda member: member if member.isfile() or member.isdir() else None)
    return path


def is_job_folder(path: Path) -> bool:
    """Whether a folder is a job's, made here."""
    return (path / WISH).is_file() and (path / CHECKPOINTS).is_dir()


def write_json(path: Path, value: object) -> None:
    """Write a file that others see whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(folders.write(beside), "w") as file:
        file.write(json.dumps(value, indent=1) + "\n")
    beside.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that :func:`write_json` wrote.

    Raises:
        OSError: it is not there, or cannot be read.
        NotOwnError: somebody else may have written it.
    """
    found: dict[str, Any] = json.loads(folders.read(path))
    return found
