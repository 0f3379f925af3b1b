# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""A timer on the node that restores the former state, unless a new login is proven in time."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.trainyard.core.plugins.module_utils._host import files

UNITS = "/etc/systemd/system"
WANTS = UNITS + "/timers.target.wants"
LONGEST = 20.0
"""Seconds to wait for a restore that is already running."""


@dataclass(frozen=True)
class Rollback:
    """The way back from one change.

    Attributes:
        unit: name of the timer and its service, without a suffix.
        folder: where the script and the copies of files are, on a disk, so that they outlive a reboot.
        what: what is restored, such as "sshd's former configuration".
    """

    unit: str
    folder: str
    what: str

    @property
    def script_path(self) -> str:
        """Return the path of the script that restores."""
        return f"{self.folder}/restore.sh"

    @property
    def armed(self) -> bool:
        """Return whether a change still waits for its proof."""
        return os.path.exists(self.script_path)

    def script(self, saved: Mapping[str, str], gone: Sequence[str], then: str) -> str:
        """Return the script, which restores files, has them used, and then removes itself.

        Args:
            saved: path -> the copy that is to be put there.
            gone: paths that did not exist before.
            then: shell commands that have the restored files used, in lines.
        """
        quote = shlex.quote
        steps = [
            f"cp -p {quote(copy)} {quote(path + '.old')} && mv -f {quote(path + '.old')} {quote(path)}"
            for path, copy in sorted(saved.items())
        ]
        steps += [f"rm -f {quote(path)}" for path in sorted(gone)]
        lines = [*(steps or [":"]), self._disable, *then.splitlines(), self._clear]
        body = "\n".join(f"    {line}" if line else "" for line in lines)
        return (
            "#!/bin/sh\n"
            f"# Written by Trainyard: restores {self.what} unless a new login is proven in time.\n"
            f"restore() {{\n{body}\n}}\nrestore\nexit\n"
        )

    def units(self, seconds: int) -> dict[str, str]:
        """Return the service and the timer that run the script after this many seconds, and as long after a reboot."""
        return {
            f"{UNITS}/{self.unit}.service": f"[Unit]\nDescription=Restore {self.what}\n"
            f"[Service]\nType=oneshot\nExecStart=/bin/sh {self.script_path}\n",
            f"{UNITS}/{self.unit}.timer": f"[Unit]\nDescription=Restore {self.what} unless a new login is proven\n"
            f"[Timer]\nOnActiveSec={seconds}s\nAccuracySec=1s\n[Install]\nWantedBy=timers.target\n",
        }

    @property
    def _disable(self) -> str:
        return f"systemctl stop {self.unit}.timer; rm -f {WANTS}/{self.unit}.timer"

    @property
    def _clear(self) -> str:
        return f"rm -rf {self.folder}; rm -f {UNITS}/{self.unit}.timer {UNITS}/{self.unit}.service; systemctl daemon-reload"

    # --- on the node -------------------------------------------------------------------------------------------

    def copy_path(self, number: int) -> str:
        """Return where the copy of a file goes."""
        return f"{self.folder}/{number}"

    def begin(self) -> None:
        """Make the folder for the copies, empty."""
        shutil.rmtree(self.folder, ignore_errors=True)
        files.make_folders(self.folder, 0o700)

    def arm(self, script: str, seconds: int) -> None:
        """Write the script and the units, and start the timer.

        Raises:
            OSError: a file could not be written.
            RuntimeError: systemd could not start the timer; carries its message.
        """
        for path, text in {self.script_path: script, **self.units(seconds)}.items():
            files.write(path, text, 0o700 if path == self.script_path else 0o644)
        files.make_folders(WANTS)
        link = f"{WANTS}/{self.unit}.timer"
        if not os.path.islink(link):
            os.symlink(f"../{self.unit}.timer", link)
        for words in (["daemon-reload"], ["restart", f"{self.unit}.timer"]):
            done = subprocess.run(["systemctl", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"The timer that would restore {self.what} could not be started: {done.stderr.strip()}")

    def hold(self) -> None:
        """Stop the timer, and wait for a restore that is already running."""
        self._run("systemctl", "stop", f"{self.unit}.timer")
        end = time.monotonic() + LONGEST
        while self._run("systemctl", "show", "-P", "ActiveState", f"{self.unit}.service") == "activating" and time.monotonic() < end:
            time.sleep(0.1)

    def restore(self) -> bool:
        """Restore now; False where there is nothing to restore."""
        self.hold()
        if not self.armed:
            return False
        self._run("/bin/sh", self.script_path)
        return True

    def forget(self) -> None:
        """Keep the change: disarm the timer, and remove its files and the copies."""
        for step in (self._disable, self._clear):
            self._run("/bin/sh", "-c", step)

    @staticmethod
    def _run(*words: str) -> str:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
        return done.stdout.strip()
