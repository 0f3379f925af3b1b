# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Every trainer goes through this script, in the framework's own environment: it gives a trainer its rank
and its share, then runs the user's script.

Run by path, with whatever Python the environment has (3.8 or newer); it imports nothing of ours.
"""

import atexit
import logging
import os
import runpy
import sys
import threading
from io import TextIOWrapper
from typing import List

RANKS = (("RANK", "WORLD_SIZE"), ("PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM"), ("TRAINYARD_RANK", "TRAINYARD_WORLD_SIZE"))
"""Where torchrun, Paddle's launcher and ours put a trainer's rank and how many trainers there are."""


def main(words: List[str]) -> None:
    rank, size = next(((os.environ[rank], os.environ[size]) for rank, size in RANKS if rank in os.environ), ("0", "1"))
    os.environ["TRAINYARD_RANK"], os.environ["TRAINYARD_WORLD_SIZE"] = rank, size
    whole = os.environ.get("TRAINYARD_TRAIN_LIST", "")
    if whole:
        os.environ["TRAINYARD_TRAIN_LIST"] = share(whole, int(rank), int(size))
    if "TRAINYARD_LOCAL_RANK" in os.environ:
        os.environ["CUDA_VISIBLE_DEVICES"] = own_device(os.environ.get("CUDA_VISIBLE_DEVICES", ""), int(os.environ["TRAINYARD_LOCAL_RANK"]))
    # Several trainers share a log: a line goes there at once and whole, where Python, unbuffered, would write it bit by bit.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(line_buffering=True, write_through=False)
    sys.argv = list(words)
    sys.path[0] = os.path.dirname(os.path.abspath(words[0]))
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    leave()


def leave() -> None:
    """End a trainer that has done its work, without what comes last in an interpreter's end.

    Frameworks' own threads may still run then. PyTorch's abort the process in one of four runs on some machines, after everything was
    trained and saved ("terminate called without an active exception").
    """
    threading._shutdown()  # type: ignore[attr-defined]  # waits for the script's own threads
    atexit._run_exitfuncs()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream:
            stream.flush()
    os._exit(0)


def share(path: str, rank: int, size: int) -> str:
    """Write every size-th line of a file list, from the rank-th on, beside it, and return its path."""
    with open(path) as file:
        lines = [line for line in file if line.strip()]
    own = f"{path}.{rank}"
    with open(own, "w") as file:
        file.writelines(lines[rank::size])
    return own


def own_device(visible: str, place: int) -> str:
    """Return the GPU of the trainer with a place on its node, of those that Slurm gave the job there."""
    given = [device for device in visible.split(",") if device]
    return given[place % len(given)] if given else str(place)


if __name__ == "__main__":
    main(sys.argv[1:])
