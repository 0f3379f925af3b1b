# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A job's folder at its submitter's: what is shipped, what was wished, and what comes back.

NAME-1/job.json           the wish, as the nodes read it
NAME-1/workspace.tar      and thirdparty.tar: as they were when the job was submitted; gone when it has ended
NAME-1/shipped.json       by what an archive is known that another job may share
NAME-1/submitted.json     the job's number
NAME-1/logs/              job.log, and one file for each node
NAME-1/checkpoints/       what the script keeps; a job that starts again finds it
NAME-1/outputs/           what the script wrote into its workspace on the first node; likewise
NAME-1/result.json        how it ended
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import folders, packing
from .errors import NOT_SEEN, RefusedError
from .options import Wish
from .packing import Part

WISH, RESULT, LOGS, CHECKPOINTS, OUTPUTS = "job.json", "result.json", "logs", "checkpoints", "outputs"
KEPT = "kept"
"""What a job that starts again ships beside its parts: checkpoints and outputs of the start before."""
SUBMITTED = "submitted.json"
PRINTS = "shipped.json"
RUNS = "runs.json"
"""What a sweep's folder has instead of `WISH`."""
PARTS = ("workspace", "thirdparty")


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


def parts(wish: Wish) -> list[Part]:
    """Find what a job ships.

    Raises:
        NotOwnError: something that is to be shipped is neither the user's nor root's, or others may write there.
        OSError: something cannot be read.
    """
    third = [("thirdparty", wish.thirdparty)] if wish.thirdparty else []
    workspace = packing.scan("workspace", wish.workspace, is_results, third[0] if third else None)
    return [workspace, *(packing.scan(name, source, is_results) for name, source in third)]


def fill(folder: Path, wish: Wish, extra: Mapping[str, Any], found: Sequence[Part] | None = None) -> None:
    """Put the wish and what is to be shipped into a new folder.

    Args:
        folder: made by :func:`new_folder`.
        wish: the job.
        extra: what the nodes are to know beside it.
        found: what :func:`parts` found.

    Raises:
        NotOwnError: something that is to be shipped is neither the user's nor root's, or others may write there.
        RefusedError: there is no room for it.
    """
    for name in (LOGS, CHECKPOINTS):
        (folder / name).mkdir(mode=0o700)
    words = {**dataclasses.asdict(wish), **extra, "workspace": str(wish.workspace), "thirdparty": str(wish.thirdparty or "")}
    write_json(folder / WISH, words)
    found = parts(wish) if found is None else found
    packed(folder, [part for part in found if not _shared(part, folder)])
    write_json(folder / PRINTS, {part.name: part.print for part in found})


def packed(folder: Path, left: Sequence[Part]) -> None:
    """Pack parts into a folder, and show progress.

    Raises:
        RefusedError: there is no room for them.
    """
    size, free = sum(part.size for part in left), shutil.disk_usage(folder).free
    if size > free:
        raise RefusedError(
            f"{packing.amount(size)} are to be shipped, and {folder.parent} has {packing.amount(free)} free. "
            f"Leave something out with {packing.IGNORE_FILE}, or submit from a folder with more room."
        )
    progress = packing.Progress(size)
    for part in left:
        packing.pack(part, folder / f"{part.name}.tar", progress.show)
        progress.before += part.size
    progress.end()


def _shared(part: Part, folder: Path) -> bool:
    """Share the archive of another job that ships the same, and return whether there was one; each job removes its own link to it."""
    for tar in folder.parent.glob(f"*/{part.name}.tar"):
        try:
            for path in (tar.parent, tar):
                folders.check(path)
            if read_json(tar.with_name(PRINTS)).get(part.name) == part.print:
                os.link(tar, folder / tar.name, follow_symlinks=False)
                return True
        except (OSError, ValueError, RefusedError):
            continue
    return False


def snapshot(folder: Path) -> dict[str, Path]:
    """Return name -> archive of what a job ships.

    Raises:
        RefusedError: the job had ended, and its archives are gone.
    """
    wanted = [name for name in PARTS if name == "workspace" or read_json(folder / WISH)["thirdparty"]]
    found = {name: folder / f"{name}.tar" for name in wanted}
    if not all(path.exists() for path in found.values()):
        raise RefusedError("What this job shipped was removed when it had ended. Submit it again with cluster_train.", NOT_SEEN)
    return found


def discard(folder: Path) -> None:
    """Remove what a job shipped; what it left behind stays."""
    for name in (*PARTS, KEPT):
        (folder / f"{name}.tar").unlink(missing_ok=True)


def discard_ended(parent: Path, unfinished: Callable[[], Collection[str]]) -> None:
    """Remove what jobs shipped that could not do so themselves, such as one that was cancelled before it began.

    Args:
        parent: folder of jobs' folders.
        unfinished: returns the numbers of this user's jobs that have not ended.
    """
    numbers = {}
    for folder in {tar.parent for name in PARTS for tar in parent.glob(f"*/{name}.tar")}:
        with contextlib.suppress(OSError, KeyError, ValueError, RefusedError):  # one that is being submitted, or somebody else's
            folders.check(folder)
            numbers[folder] = str(read_json(folder / SUBMITTED)["job"])
    still = unfinished() if numbers else ()  # asked last: what was submitted meanwhile is among them
    for folder, number in numbers.items():
        if number not in still:
            discard(folder)


def pack_kept(folder: Path) -> Path:
    """Pack what a job has kept, for nodes that do not see its folder, and return the archive."""
    path = folder / f"{KEPT}.tar"
    with open(folders.write(path), "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
        for name in (CHECKPOINTS, OUTPUTS):
            if (folder / name).is_dir():
                archive.add(folder / name, arcname=name, filter=lambda member: member if member.isfile() or member.isdir() else None)
    return path


def is_results(path: Path) -> bool:
    """Whether a folder is a job's or a sweep's, made here."""
    return ((path / WISH).is_file() and (path / CHECKPOINTS).is_dir()) or (path.name.startswith("sweep-") and (path / RUNS).is_file())


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
