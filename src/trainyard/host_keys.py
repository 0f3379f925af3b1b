"""Host keys of machines that nobody has logged in to so far: shown, confirmed, and only then known."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainyard.errors import TrainyardError
from trainyard.progress import console


def make_known(name: str, words: Sequence[str], host: str, wanted: str = "") -> None:
    """Have a host's key in known_hosts, so that host key checking stays on.

    Args:
        name: of the node, for people.
        words: options for ssh, as Ansible would give them.
        host: the address.
        wanted: the fingerprint that it must have, such as ``SHA256:...``; without one a person is asked.

    Raises:
        TrainyardError: it does not answer, or its key is another one or nobody confirmed it.
    """
    done = subprocess.run(["ssh", "-G", *words, host], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise TrainyardError(f"ssh does not take its options for {name}: {done.stderr.strip()}")
    settings: dict[str, str] = {}
    for line in done.stdout.splitlines():
        key, _blank, value = line.partition(" ")
        settings.setdefault(key, value)
    entry = entry_name(settings, host)
    files = [Path(path).expanduser() for key in ("userknownhostsfile", "globalknownhostsfile") for path in settings.get(key, "").split()]
    if any(_knows(file, entry) for file in files):
        return  # a key that changed is for ssh to refuse
    real, port = settings.get("hostname", host), settings.get("port", "22")
    scan = subprocess.run(["ssh-keyscan", "-T", "10", "-p", port, real], capture_output=True, text=True, check=False)
    lines = [line.split(" ", 1)[1] for line in scan.stdout.splitlines() if line and not line.startswith("#")]
    if not lines:
        raise TrainyardError(f"{name} does not answer at {real}, port {port}. Is it on, is sshd running, and is the address right?")
    prints = {fingerprint(line): line for line in lines}
    if wanted:
        if wanted not in prints:
            raise TrainyardError(
                f"The host key of {name} is not {wanted}: {real} has {', '.join(prints)}. Do not go on before you know why."
            )
        chosen = prints[wanted]
    else:
        shown, chosen = next((each for each in prints.items() if each[1].startswith("ssh-ed25519 ")), next(iter(prints.items())))
        console.print(
            f"{real} is not known so far. Its host key: {shown} ({chosen.split()[0]})", highlight=False, markup=False, soft_wrap=True
        )
        how = f"Compare on the machine (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then give it: --host-key {shown}"
        if not sys.stdin.isatty():
            raise TrainyardError(f"The host key of {name} is not known. {how}")
        if (
            console.input("Does the machine itself show the same (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub)? Type yes: ").strip()
            != "yes"
        ):
            raise TrainyardError(f"The host key of {name} was not confirmed. {how}")
    target = files[0] if files else Path("~/.ssh/known_hosts").expanduser()
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with target.open("a", encoding="utf-8") as file:
        file.write(f"{entry} {chosen}\n")


def entry_name(settings: Mapping[str, str], host: str) -> str:
    """Return the name under which ssh looks a host up in known_hosts."""
    if settings.get("hostkeyalias", "none") != "none":
        return settings["hostkeyalias"]
    real, port = settings.get("hostname", host), settings.get("port", "22")
    return real if port == "22" else f"[{real}]:{port}"


def fingerprint(line: str) -> str:
    """Return the fingerprint of a public key, ``SHA256:...``."""
    done = subprocess.run(["ssh-keygen", "-lf", "-"], input=f"{line}\n", capture_output=True, text=True, check=True)
    return done.stdout.split()[1]


def _knows(file: Path, entry: str) -> bool:
    return file.is_file() and subprocess.run(["ssh-keygen", "-F", entry, "-f", str(file)], capture_output=True, check=False).returncode == 0
