"""Runs on a node as root and prints what it is like as JSON. Standard library only."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TOPS = ("/etc", "/usr/local", "/opt/trainyard", "/srv/data", "/home", "/var/lib/trainyard")
UNITS = ("ssh.service", "trainyard-jupyter.service", "trainyard-tensorboard.service")


def run(*words: str) -> str:
    """Return what a command prints."""
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def entry(path: Path) -> list[str]:
    """Return a file's mode, owner and digest of its content."""
    info = path.lstat()
    digest = ""
    if path.is_symlink():
        digest = str(path.readlink())
    elif path.is_file():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return [oct(info.st_mode), str(info.st_uid), digest]


def tree(top: str) -> list[str]:
    """Return a digest of the names, modes and owners in an installed package, compiled modules left out."""
    digest, count = hashlib.sha256(), 0
    for folder, names, leaves in os.walk(top):
        names[:] = sorted(name for name in names if name != "__pycache__")
        for name in [*names, *sorted(leaves)]:
            if not name.endswith(".pyc"):
                info = os.lstat(f"{folder}/{name}")
                digest.update(f"{folder}/{name} {info.st_mode} {info.st_uid}\n".encode())
                count += 1
    return [f"{count} files", digest.hexdigest()[:16]]


def unit(name: str) -> dict[str, str]:
    """Return whether systemd runs a unit and knows its present file."""
    shown = run("systemctl", "show", "--property=ActiveState,UnitFileState,NeedDaemonReload", name)
    return dict(line.split("=", 1) for line in shown.splitlines())


def runs_with(name: str) -> bool:
    """Say whether a service's process is younger than its unit and all of its configuration: it runs with what is on the disk."""
    process = run("systemctl", "show", "--property=MainPID", "--value", name).strip()
    if process in ("", "0"):
        return False
    ticks = int(Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[19])
    booted = next(int(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    started = booted + ticks / os.sysconf("SC_CLK_TCK")
    configuration = [
        Path("/etc/systemd/system", name),
        *Path("/etc/trainyard", name.removeprefix("trainyard-").removesuffix(".service")).rglob("*"),
    ]
    return all(path.lstat().st_mtime < started + 1 for path in configuration if path.is_file())


def offered() -> list[str]:
    """Return what the live sshd offers: algorithms, and ways to log in."""
    keys = [path.read_text().split()[:2] for path in Path("/etc/ssh").glob("ssh_host_*_key.pub")]
    with tempfile.NamedTemporaryFile("w", dir="/run") as known:
        known.writelines(f"node {kind} {key}\n" for kind, key in keys)
        known.flush()
        words = ["-vv", "-o", "BatchMode=yes", "-o", "HostKeyAlias=node", "-o", f"UserKnownHostsFile={known.name}"]
        words += ["-o", "GlobalKnownHostsFile=/dev/null", "-o", "PreferredAuthentications=none", "nobody@127.0.0.1", "true"]
        said = subprocess.run(["ssh", *words], capture_output=True, text=True, check=False).stderr
    proposal = said.partition("peer server KEXINIT proposal")[2].partition("kex: algorithm")[0]
    ways = re.findall(r"Authentications that can continue: .*", said)
    return [line.partition(": ")[2] for line in proposal.splitlines() if ": " in line] + ways


def main() -> None:
    """Print the state."""
    files: dict[str, list[str]] = {}
    for top in TOPS:
        for folder, names, leaves in os.walk(top):
            names[:] = [name for name in names if name != ".cache"]  # gigabytes, and nobody's configuration
            if folder.endswith("/site-packages"):
                files |= {f"{folder}/{name}": tree(f"{folder}/{name}") for name in names}
                names.clear()
            files |= {f"{folder}/{name}": entry(Path(folder, name)) for name in names + leaves}
    state = {
        "files": files,
        "units": {name: unit(name) for name in UNITS},
        "sshd": dict(line.split(" ", 1) for line in run("sshd", "-T").splitlines() if " " in line),
        "offered by sshd": offered(),
        "run with their configuration": {name: runs_with(name) for name in UNITS[1:]},
        "listening": sorted({line.split()[3] for line in run("ss", "-Hltn").splitlines()}),
        "accounts": sorted(line.split(":")[0] for line in Path("/etc/passwd").read_text().splitlines()),
        "timers": [line for line in run("systemctl", "list-timers", "--all", "--no-legend").splitlines() if "trainyard" in line],
        "dpkg": run("dpkg", "--audit"),
    }
    json.dump(state, sys.stdout)


main()
