# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What users refuse to find out only when the job has waited for a night: a message that says what is wrong and what would be right."""

from __future__ import annotations

USAGE = 64
"""Exit status for words that cannot be used (EX_USAGE)."""
NOT_BEGUN = 66
"""Exit status where what was shipped, or its hook, cannot be used (EX_NOINPUT)."""
UNAVAILABLE = 69
"""Exit status for a cluster that does not answer (EX_UNAVAILABLE)."""
NOT_SEEN = 72
"""Exit status of a job whose first node does not see its folder (EX_OSFILE)."""
NOT_KEPT = 74
"""Exit status where what a script kept did not come back (EX_IOERR)."""
LOST = 75
"""Exit status of a job whose nodes lost each other (EX_TEMPFAIL)."""
LAUNCH_FAILED = 128 + 53
"""Exit status that stands for Slurm's own 0:53: a node could not start the job."""
STOPPED = 143
"""Exit status of a job that was told to end (128 and SIGTERM, as shells have it)."""
INTERRUPTED = 130
"""Exit status after Ctrl-C, as of a shell."""
NOT_OWN = 77
"""Exit status where a folder or a file is somebody else's, or others may write there (EX_NOPERM)."""


class RefusedError(Exception):
    """The request cannot be carried out; nothing was submitted.

    Attributes:
        status: exit status for the command line.
    """

    def __init__(self, message: str, status: int = USAGE) -> None:
        super().__init__(message)
        self.status = status
