# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which node a job has to have, so that what leads it sees the job's folder."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from . import cluster
from .errors import RefusedError

NETWORK = re.compile(
    r"nfs4?|cifs|smb3|lustre|gpfs|beegfs(_nodev)?|ceph|glusterfs|afs|9p|virtiofs|ocfs2|gfs2|orangefs|pvfs2|wekafs|fuse\..*|fuse"
)
"""Types of file systems that more than one machine sees."""
EXPORTS = (Path("/etc/exports"), Path("/etc/exports.d"))
"""Where a file server says what it gives to others."""


def node(folder: Path, queue: str, shared: Sequence[str]) -> str:
    """Return the name of the node that a job must have; '' where any will do.

    Args:
        folder: for the job's results.
        queue: name of the queue.
        shared: folders that all nodes see, as the inventory says.

    Raises:
        RefusedError: no node of the queue sees the folder.
    """
    real = Path(os.path.realpath(folder))
    if any(real.is_relative_to(place) for place in [*shared, *exported()]):
        return ""
    mount, kind = mounted(real, Path("/proc/self/mountinfo").read_text())
    if NETWORK.fullmatch(kind):
        return ""
    own = os.uname().nodename.partition(".")[0]
    return chosen(real, mount, kind, own, cluster.nodes(queue), queue)


def chosen(folder: Path, mount: str, kind: str, own: str, nodes: Collection[str], queue: str) -> str:
    """Return the node for a folder on a file system of this machine's own; '' where that can't be said.

    Args:
        folder: the job's.
        mount: where its file system is mounted.
        kind: the file system's type.
        own: this machine's name.
        nodes: the queue's.
        queue: its name.

    Raises:
        RefusedError: this machine is none of the queue's, and the folder lies on its root file system.
    """
    if own in nodes:
        return own
    if mount != "/":
        return ""  # a disk of its own may be shared in ways that cannot be seen here
    raise RefusedError(
        f"{folder} lies on the own disk of {own} ({kind}). The nodes of the queue {queue} do not see it: no log and no"
        f" result could come back. Type the command in a folder that they see, or on one of them ({', '.join(sorted(nodes)[:5])}). "
        "An administrator names folders that all nodes see in training_shared_folders."
    )


def mounted(folder: Path, mountinfo: str) -> tuple[str, str]:
    """Return the mount point and the type of the file system that a folder lies on.

    Args:
        folder: without symbolic links.
        mountinfo: what the kernel prints as /proc/self/mountinfo; the last mount of those in the same place counts.
    """
    found = ("/", "")
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        place = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4])
        if folder.is_relative_to(place) and len(place) >= len(found[0]):
            found = (place, after.split()[0])
    return found


def exported(places: Sequence[Path] = EXPORTS) -> list[str]:
    """Return the folders that this machine gives to others by NFS."""
    files = [path for place in places for path in (sorted(place.glob("*.exports")) if place.is_dir() else [place])]
    found = []
    for path in files:
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            continue  # it serves nothing
        found += [line.split()[0].strip('"') for line in lines if line.startswith(("/", '"/'))]
    return found
