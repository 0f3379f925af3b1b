# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Folders that the nodes of a cluster share over NFS: exports, systemd's units, who holds a folder, and what cannot be, in words."""

from __future__ import annotations

import ipaddress
import os
import pathlib
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _base as base
from ansible_collections.trainyard.core.plugins.module_utils._host import reported

HEADER = "# Written by Trainyard (role shared_storage).\n"
UNITS = "/etc/systemd/system"
EXPORTS = "/etc/exports.d/trainyard.exports"
SERVER = "/etc/nfs.conf.d/trainyard.conf"
QUIET = "/etc/systemd/system/rpcbind.socket.d/trainyard.conf"
NFS = ("nfs", "nfs4")
OWN_DISK = "/"
"""The type of a folder below which nothing is mounted, nor above it."""
MOUNT_SECONDS = 30
"""How long somebody waits who reaches for a folder whose server does not answer."""

# A client's own root is nobody here, and only a port that root may take is answered.
_EXPORT = "-rw,sync,no_subtree_check,root_squash,secure,sec=sys"
# Hard: what is written while the server is away goes on when it is back. Who shares a folder brings no program of root's and no device.
_MOUNT = ("vers=4", "hard", "nosuid", "nodev")
_PATH = re.compile(r"(/[A-Za-z0-9_][A-Za-z0-9._-]*)+\Z")
_SYSTEM = frozenset(
    [
        "bin",
        "boot",
        "dev",
        "etc",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "lost+found",
        "proc",
        "root",
        "run",
        "sbin",
        "sys",
        "tmp",
        "usr",
        "var",
    ]
)
_SOURCE = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9.-]*):/[A-Za-z0-9._/-]*\Z")
_OPTION = re.compile(r"[a-z0-9_]+(=[A-Za-z0-9._:-]+)?\Z")
_NOT_MINE = {"soft", "softerr", "softreval", "vers", "nfsvers", "minorversion", "proto", "udp", "bg", "suid", "dev"}


# --- exports ---------------------------------------------------------------------------------------------------------


def exports(before: str, folders: Sequence[str], nodes: Mapping[str, Mapping[str, Any]], server: str) -> tuple[str, list[str]]:
    """Return the text of the file with exports, and the nodes that get none since nobody knows their address.

    Args:
        before: the file as it is; a node that this run has not seen keeps the address that stands there.
        folders: what is exported. Without any, and without nodes beside the server, the file is empty.
        nodes: name in the inventory -> what `_hosts.node` returns.
        server: name of the node that exports; it needs none itself.

    Raises:
        ReportedError: a folder, a name or an address is none; the text would be read as more than that.
    """
    known = dict(re.findall(r"^# node (\S+) (\S+)$", before, re.MULTILINE))
    addresses, unknown = {}, []
    for name, node in nodes.items():
        seen = node["seen"] and node["address"]
        address = str(node["address"] if seen else known.get(name) or node["address"])
        if name == server:
            continue
        if address:
            addresses[reported.word("The inventory", name, "name")] = reported.address(name, address, f"address in {EXPORTS}")
        else:
            unknown.append(name)
    if not folders or not addresses:  # a line without a node would be for the whole world
        return "", unknown
    lines = [f"# node {name} {address}" for name, address in addresses.items()]
    lines += [" ".join([reported.path(server, folder, "folder"), _EXPORT, *addresses.values()]) for folder in folders]
    return HEADER + "".join(f"{line}\n" for line in lines), unknown


def unsafe(path: str) -> str:
    """Say why users of a folder could replace each other's files there; '' where they could not, or there is no such folder."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    shared = found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid != 0)
    if not shared or found.st_mode & stat.S_ISVTX:
        return ""
    mode = stat.S_IMODE(found.st_mode)
    return (
        f"shared_storage_folders: {path} has the mode {mode:04o}, so that whoever writes there can rename and replace what belongs to "
        f'others. Add the sticky bit: mode: "{mode | stat.S_ISVTX:04o}"'
    )


def here(folders: Sequence[Mapping[str, Any]], serves: bool, address: str) -> dict[str, list[dict[str, Any]]]:
    """Return the folders that a node has to do with: those that are ``served``, and those that are ``mounted``, with their source.

    Folders that are shared by other means are ``external`` on every node but the server, which alone sets up what is in them.

    Args:
        folders: the role's variable.
        serves: whether the node is the server of those without a source.
        address: that server's.
    """
    server = f"[{address}]" if ":" in address else address
    found: dict[str, list[dict[str, Any]]] = {"served": [], "mounted": [], "external": []}
    for folder in folders:
        path, source = str(folder["path"]), folder.get("source")
        if folder.get("external"):
            found["external"] += [] if serves else [{"path": path}]
        elif serves and not source:
            found["served"].append(dict(folder))
        else:
            found["mounted"].append({"path": path, "source": source or f"{server}:{path}", "options": folder.get("options") or []})
    return found


# --- units -----------------------------------------------------------------------------------------------------------


def unit(path: str) -> str:
    """Return the name that systemd wants for a mount point's units, without the suffix."""
    return "-".join(re.sub(r"[^A-Za-z0-9:_.]", lambda found: f"\\x{ord(found[0]):02x}", part) for part in path.strip("/").split("/"))


def mount_text(path: str, what: str, options: Iterable[str]) -> str:
    """Return the text of the unit that mounts a folder."""
    # Each look at the folder tries anew, however often it failed: with systemd's usual limit the folder would be given up.
    return (
        f"{HEADER}[Unit]\nDescription=Shared folder {_value(path)}\nStartLimitIntervalSec=0\n\n"
        f"[Mount]\nWhat={_value(what)}\nWhere={_value(path)}\nType=nfs4\nOptions={_value(','.join([*_MOUNT, *options]))}\n"
        f"TimeoutSec={MOUNT_SECONDS}\n"
    )


def automount_text(path: str, made: bool) -> str:
    """Return the text of the unit that mounts a folder when somebody looks; ``made`` says that the folder came with it."""
    # Nothing waits for it at boot, and it waits for nothing: the server may come later.
    return (
        f"{HEADER}[Unit]\nDescription=Shared folder {_value(path)}, once it is looked at\nStartLimitIntervalSec=0\n\n"
        f"[Automount]\nWhere={_value(path)}\n\n"
        f"[Install]\nWantedBy=remote-fs.target\n\n[X-Trainyard]\nMadeFolder={'yes' if made else 'no'}\n"
    )


def _value(text: str) -> str:
    return reported.one_line("a unit of a shared folder", text, comments="#;\\%")


def setting(text: str, key: str) -> str:
    """Return the value of a key in a unit's text; empty where it is not there."""
    found = re.search(rf"^{key}=(.*)$", text, re.MULTILINE)
    return found[1] if found else ""


# --- what is mounted, and who holds it -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mount:
    """What is mounted at a path: the topmost of several."""

    source: str
    kind: str


def mounts(text: str) -> dict[str, Mount]:
    """Read ``/proc/self/mountinfo``: path -> what is mounted there."""
    found = {}
    for line in text.splitlines():
        words = [re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), word) for word in line.split()]
        dash = words.index("-", 6)
        found[words[4]] = Mount(words[dash + 2], words[dash + 1])
    return found


def above(path: str) -> list[str]:
    """Return the folders in which a folder is, the nearest first."""
    return [str(folder) for folder in pathlib.PurePosixPath(path).parents]


def holders(path: str, proc: str = "/proc") -> list[str]:
    """Return the processes with an open file, a working directory or a program below a path, as ``name (number)``; never looks into it."""
    found = []
    for number in sorted((entry for entry in os.listdir(proc) if entry.isdigit()), key=int):
        here = os.path.join(proc, number)
        try:
            links = [os.path.join(here, name) for name in ("cwd", "root", "exe")]
            links += [entry.path for entry in os.scandir(os.path.join(here, "fd"))]
            held = {_target(link) for link in links}
            with open(os.path.join(here, "maps"), encoding="utf-8", errors="replace") as file:
                held |= {line.split(maxsplit=5)[-1].strip() for line in file}
            if any(each == path or each.startswith(path + "/") for each in held):
                with open(os.path.join(here, "comm"), encoding="utf-8", errors="replace") as file:
                    found.append(f"{file.read().strip()} ({number})")
        except OSError:
            continue  # it ended meanwhile
    return found


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


# --- wishes ----------------------------------------------------------------------------------------------------------


def problems(wishes: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]], host: str, look: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each thing that cannot be.

    Args:
        wishes: ``folders`` and ``server``, the role's variables, and ``users`` and ``groups`` (node -> its entries of ``base_users`` and
            ``base_groups``).
        nodes: name in the inventory -> what `_hosts.node` returns.
        host: this node's name in the inventory.
        look: what the module nfs_info found there.
    """
    folders: Sequence[Mapping[str, Any]] = wishes["folders"]
    found: list[str] = []
    for folder in folders:
        found += _folder_problems(folder)
    paths = [str(folder["path"]) for folder in folders]
    for number, path in enumerate(paths):
        for other in paths[:number]:
            if path == other:
                found.append(f"shared_storage_folders: {path} stands there twice.")
            elif path.startswith(other + "/") or other.startswith(path + "/"):
                found.append(f"shared_storage_folders: of {other} and {path} one lies in the other. Share the upper one alone.")
    if found:
        return found
    external = [str(folder["path"]) for folder in folders if folder.get("external")]
    own = [str(folder["path"]) for folder in folders if not folder.get("source") and not folder.get("external")]
    for path in external:
        found += _external_problems(path, host, look["folders"].get(path, {}))
    if external and wishes["server"] not in nodes:
        found += _server_problems(wishes["server"], nodes, host, look)
    elif own:
        found += [str(nodes[host]["refused"])] if nodes.get(host, {}).get("refused") else []
        found += _server_problems(wishes["server"], nodes, host, look)
    found += base.number_problems("base_users", wishes["users"], "shared files carry their owner's number")
    found += base.number_problems("base_groups", wishes["groups"], "shared files carry their group's number")
    plan = here(folders, wishes["server"] == host, "")
    mounted = [folder["path"] for folder in plan["mounted"]]
    if look["container"] and len(external) < len(paths):
        return [
            *found,
            f"shared_storage_folders: {host} is a container ({look['container']}), and NFS is for its host's kernel to do. Mount the "
            "folder on the host, hand it to the container, and set external: true for the folder.",
        ]
    needed = (["nfsd"] if plan["served"] else []) + (["nfs"] if mounted else [])
    for what in needed:
        if not look["kernel"][what]:
            found.append(
                f"shared_storage_folders: the kernel {look['kernel']['release']} of {host} has no NFS "
                f"{'server' if what == 'nfsd' else 'client'} (module {what}). Boot a kernel of the distribution's, the newest that is "
                "installed, or install its further modules."
            )
    for path in (path for path in paths if path not in external):
        found += _place_problems(path, path in mounted, host, look["folders"].get(path, {}))
    return found


def _folder_problems(folder: Mapping[str, Any]) -> list[str]:
    path = str(folder.get("path", ""))
    where = f"shared_storage_folders: {path}"
    found = []
    if not _PATH.match(path) or path.split("/")[1] in _SYSTEM:
        found.append(
            f"shared_storage_folders: '{path}' cannot be shared. Say a folder of its own with letters, digits, . _ and - only, such as "
            "/srv/shared or /home; the system's own, such as /etc, /usr and /var, stay each node's."
        )
    if folder.get("source"):
        if not _SOURCE.match(str(folder["source"])):
            found.append(f"{where}: the source '{folder['source']}' is none. Say server and path, such as nas.example:/export/lab.")
        foreign = [key for key in ("owner", "group", "mode") if folder.get(key) is not None]
        if foreign:
            found.append(f"{where}: {foreign[0]} is for the server of {folder['source']} to decide. Leave it away beside source.")
    if folder.get("external"):
        foreign = [key for key in ("source", "owner", "group", "mode", "options") if folder.get(key) is not None]
        if foreign:
            found.append(f"{where}: remove {foreign[0]}. With external: true something else mounts the folder and decides about it.")
    mode = folder.get("mode")
    if mode is not None and not (isinstance(mode, str) and re.match(r"[0-7]{3,4}\Z", mode)):
        found.append(f'{where}: the mode {mode!r} cannot be read. Put it in quotes, in octal, such as "2775".')
    for option in folder.get("options") or []:
        if not _OPTION.match(str(option)):
            found.append(f"{where}: '{option}' is no option of a mount. Say one in each entry, such as noatime.")
        elif str(option).partition("=")[0] in _NOT_MINE:
            found.append(
                f"{where}: the option {option} cannot be set. Folders are mounted with NFS 4 over TCP, hard (soft mounts lose what is "
                "written while the server is away), and without programs of root's or devices."
            )
    return found


def _server_problems(server: str, nodes: Mapping[str, Mapping[str, Any]], host: str, look: Mapping[str, Any]) -> list[str]:
    if server not in nodes:
        return [
            f"shared_storage_server is '{server}', which is none of the nodes that share: {', '.join(nodes) or 'there are none'}. "
            "Name one of them, or give each folder a source."
        ]
    found = []
    for name in (server, host):
        address = str(nodes.get(name, {}).get("address", ""))
        if not address and name == server != host:
            found.append(
                f"shared_storage_server: nobody knows the address of {server} in this run. Give {server} shared_storage_address in the "
                f"inventory, or name it as well: --limit {host},{server}"
            )
        elif not reported.is_address(address) or not _is_one_machines(address):
            found.append(f"shared_storage_address of {name} is '{address}': say the IP address by which the other nodes reach it.")
    if server == host and look["foreign_server"]:
        found.append(
            f"shared_storage_server: {host} has an NFS server already (nfs-kernel-server), whose settings this role would change. Remove "
            "it there, or export the folders there yourself and give each a source."
        )
    return list(dict.fromkeys(found))


def _is_one_machines(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_loopback or parsed.is_unspecified or parsed.is_multicast)


def _external_problems(path: str, host: str, place: Mapping[str, Any]) -> list[str]:
    where, kind = f"shared_storage_folders: {path} on {host}", place.get("kind")
    if kind in ("absent", "file"):
        return [f"{where} is not a folder. Mount it there: external: true is for a folder that all nodes share already."]
    if kind == "link":
        return [f"{where} is a link, or lies below one ({place['holds']}). Name the folder that it leads to."]
    if kind in ("empty", "full") and place["type"] == OWN_DISK:
        return [
            f"{where} is on the node's own disk, so that other nodes do not see what is in it. Mount the shared folder there, or remove "
            "external: true."
        ]
    return []


def _place_problems(path: str, mounted: bool, host: str, place: Mapping[str, Any]) -> list[str]:
    where, kind = f"shared_storage_folders: {path} on {host}", place.get("kind")
    if kind == "link":
        return [f"{where} is a link, or lies below one ({place['holds']}). Name the folder that it leads to."]
    if kind == "file":
        return [f"{where} is no folder. Move it away, or share another folder."]
    if kind == "mount" and (mounted or place["type"] in (*NFS, "autofs")):
        # On the server a disk may well be mounted there; a folder that comes from elsewhere is not its to give.
        return [
            f"{where} has {place['holds']} mounted ({place['type']}), and not by this role. Unmount it and take it out of /etc/fstab, or "
            "share another folder."
        ]
    if kind == "ours" and not mounted:
        return [
            f"shared_storage_server: {host} has {path} from another node ({place['holds']}) and cannot serve it as well. Undo the role "
            "there first (-e trainyard_state=absent), and bring the files over."
        ]
    if kind == "full" and mounted:
        return [
            f"{where} is not empty ({place['holds']}), and what lies there would be hidden. Move it to the shared folder on the server, or "
            "away; an account whose home lies there needs another home first (usermod --move-home --home)."
        ]
    return []
