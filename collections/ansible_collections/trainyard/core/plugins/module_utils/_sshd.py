# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What sshd's configuration should be, and what that means for whoever wants to log in: pure functions.

Configuration files are passed around as a dict of path to text, so that a change can be judged by sshd itself in a copy
before anything lands in /etc/ssh.
"""

from __future__ import annotations

import base64
import datetime
import fnmatch
import posixpath
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils._host.rollback import Rollback
from ansible_collections.trainyard.core.plugins.module_utils._host.steps import RefusalError

Files = dict[str, str]
Effective = dict[str, list[str]]

HOME = "/etc/ssh"
MAIN = HOME + "/sshd_config"
FOLDER = HOME + "/sshd_config.d"
# sshd keeps the first value it reads and reads a folder in the order of the C locale. The second name is for a folder in
# which something sorts before the first.
DROP_INS = (FOLDER + "/00-trainyard.conf", FOLDER + "/!00-trainyard.conf")
MODULI = HOME + "/moduli"
STRONG_MODULI = HOME + "/moduli.trainyard"
ED25519_KEY = HOME + "/ssh_host_ed25519_key"
RSA_KEY = HOME + "/ssh_host_rsa_4096_key"
RSA_BITS = 4096
MODULI_BITS = 3072

STATE = "/var/lib/trainyard/ssh_hardening"
REPAIRED = STATE + "/before-repair"

_FIRST = "# Trainyard put the next line first, so that its drop-in wins."
_MOVED = "# Trainyard moved this to the top: "
_BROKEN = "# Trainyard switched this off, sshd refuses it: "

# Ordered as ssh-audit's hardened policies of Debian 12 and 13 demand. Where the server knows ML-KEM (OpenSSH 9.9 and newer),
# only post-quantum exchanges are left.
_HYBRID = ["sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com"]
_GENERATIONS: dict[bool, dict[str, Any]] = {
    True: {
        "KexAlgorithms": ["mlkem768x25519-sha256", *_HYBRID],
        "MACs": ["hmac-sha2-512-etm@openssh.com", "hmac-sha2-256-etm@openssh.com", "umac-128-etm@openssh.com"],
    },
    False: {
        "KexAlgorithms": [
            *_HYBRID,
            "curve25519-sha256",
            "curve25519-sha256@libssh.org",
            "diffie-hellman-group16-sha512",
            "diffie-hellman-group18-sha512",
            "diffie-hellman-group-exchange-sha256",
        ],
        "MACs": ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "umac-128-etm@openssh.com"],
    },
}
_COMMON: dict[str, Any] = {
    "PubkeyAuthentication": True,
    "PasswordAuthentication": False,
    "KbdInteractiveAuthentication": False,
    "HostbasedAuthentication": False,
    "GSSAPIAuthentication": False,
    "PermitRootLogin": False,
    "PermitEmptyPasswords": False,
    "PermitUserEnvironment": False,
    "IgnoreRhosts": True,
    "StrictModes": True,
    "UsePAM": True,
    "X11Forwarding": False,
    "PermitTunnel": False,
    "GatewayPorts": False,
    "HostKeyAlgorithms": [
        "sk-ssh-ed25519-cert-v01@openssh.com",
        "ssh-ed25519-cert-v01@openssh.com",
        "rsa-sha2-512-cert-v01@openssh.com",
        "rsa-sha2-256-cert-v01@openssh.com",
        "sk-ssh-ed25519@openssh.com",
        "ssh-ed25519",
        "rsa-sha2-512",
        "rsa-sha2-256",
    ],
    "RequiredRSASize": 2048,
}
PROFILES: dict[str, dict[str, Any]] = {
    "modern": {
        **_COMMON,
        "Ciphers": [
            "chacha20-poly1305@openssh.com",
            "aes256-gcm@openssh.com",
            "aes256-ctr",
            "aes192-ctr",
            "aes128-gcm@openssh.com",
            "aes128-ctr",
        ],
    },
    "cis": {
        **_COMMON,
        # The benchmark counts ChaCha20 (for CVE-2023-48795) and UMAC as weak; ssh-audit's policies demand both.
        "Ciphers": ["aes256-gcm@openssh.com", "aes256-ctr", "aes192-ctr", "aes128-gcm@openssh.com", "aes128-ctr"],
        "MACs": ["hmac-sha2-512-etm@openssh.com", "hmac-sha2-256-etm@openssh.com"],
        "LogLevel": "VERBOSE",
        "MaxAuthTries": 4,
        "MaxSessions": 10,
        "MaxStartups": "10:30:60",
        "LoginGraceTime": 60,
        "ClientAliveInterval": 15,
        "ClientAliveCountMax": 3,
        "Banner": "/etc/issue.net",
        "AllowAgentForwarding": False,
        "AllowTcpForwarding": "local",
    },
}

# Keywords whose values go on a line each; of those in the second set the values are joined by commas, of all others by spaces.
_REPEATED = {"acceptenv", "hostkey", "hostcertificate", "listenaddress", "port", "setenv", "subsystem"}
_COMMAS = {
    "casignaturealgorithms",
    "ciphers",
    "hostbasedacceptedalgorithms",
    "hostkeyalgorithms",
    "kexalgorithms",
    "macs",
    "pubkeyacceptedalgorithms",
}
# What a Match block may set: repeated in a `Match all` block of ours, which is the first one and so beats all others.
_MATCHABLE = {
    "allowagentforwarding", "allowstreamlocalforwarding", "allowtcpforwarding", "authenticationmethods", "authorizedkeyscommand",
    "authorizedkeyscommanduser", "authorizedkeysfile", "authorizedprincipalscommand", "authorizedprincipalsfile", "banner",
    "casignaturealgorithms", "clientalivecountmax", "clientaliveinterval", "disableforwarding", "gatewayports", "gssapiauthentication",
    "hostbasedacceptedalgorithms", "hostbasedauthentication", "ignorerhosts", "kbdinteractiveauthentication", "loglevel", "maxauthtries",
    "maxsessions", "passwordauthentication", "permitemptypasswords", "permitrootlogin", "permittty", "permittunnel", "permituserrc",
    "pubkeyacceptedalgorithms", "pubkeyauthentication", "rekeylimit", "trustedusercakeys", "x11forwarding",
}  # fmt: skip
WHO = ("allowusers", "allowgroups", "denyusers", "denygroups")


@dataclass(frozen=True)
class Setting:
    """One effective line of a configuration file."""

    path: str
    number: int
    keyword: str
    values: tuple[str, ...]
    matched: bool

    @property
    def place(self) -> str:
        """Return file and line, as sshd writes them."""
        return f"{self.path} line {self.number}"


@dataclass
class Account:
    """What the node knows about a user."""

    name: str
    uid: int = 1000
    groups: Sequence[str] = ()
    shell: str = "/bin/bash"
    shell_runs: bool = True
    password: str = "*"
    expires: int | None = None
    keys: int = 0
    key_files: Sequence[str] = field(default_factory=list)


# --- reading -------------------------------------------------------------------------------------------------------


def _lines(text: str) -> Iterator[tuple[int, str, list[str]]]:
    for number, raw in enumerate(text.splitlines(), 1):
        found = re.match(r"\s*([A-Za-z][A-Za-z0-9]*)(?:\s*=\s*|\s+|$)(.*)", raw)
        if found:
            try:
                values = shlex.split(found[2], comments=True)
            except ValueError:
                values = found[2].split()
            yield number, found[1].lower(), values


def absolute(pattern: str) -> str:
    """Return an Include pattern as sshd reads it: what is relative lies in /etc/ssh."""
    return pattern if pattern.startswith("/") else f"{HOME}/{pattern}"


def include_patterns(text: str) -> list[str]:
    """Return the patterns of all Include lines, absolute."""
    return [absolute(value) for _number, keyword, values in _lines(text) if keyword == "include" for value in values]


def included(files: Iterable[str], pattern: str) -> list[str]:
    """Return which of these paths a pattern includes, in sshd's order."""
    folder, name = posixpath.split(absolute(pattern))
    return sorted(
        path
        for path in files
        if fnmatch.fnmatchcase(posixpath.dirname(path), folder)
        and posixpath.dirname(path).count("/") == folder.count("/")
        and fnmatch.fnmatchcase(posixpath.basename(path), name)
        and (name.startswith(".") or not posixpath.basename(path).startswith("."))
    )


def settings(files: Mapping[str, str], path: str = MAIN, matched: bool = False, depth: int = 0) -> Iterator[Setting]:
    """Yield all settings in the order in which sshd reads them, through the includes."""
    for number, keyword, values in _lines(files.get(path, "")):
        if keyword == "match":
            matched = values[:1] != ["all"] or len(values) > 1 or path in DROP_INS
        elif keyword == "include" and depth < 16:
            for pattern in values:
                for other in included(files, pattern):
                    yield from settings(files, other, matched, depth + 1)
        else:
            yield Setting(path, number, keyword, tuple(values), matched)


def effective(output: str) -> Effective:
    """Return what `sshd -T` printed: keyword to its values, one for each line."""
    found: Effective = {}
    for line in output.splitlines():
        keyword, _space, value = line.strip().partition(" ")
        if re.fullmatch(r"[a-z0-9]+", keyword):
            found.setdefault(keyword, []).append(value)
    return found


# --- what is wanted ------------------------------------------------------------------------------------------------


def wanted_settings(profile: str, deviations: Mapping[str, Any], keys: Sequence[str], defaults: Effective) -> dict[str, list[str]]:
    """Return the profile with the deviations over it: keyword to its lines. None takes a keyword out.

    Args:
        profile: its name.
        deviations: keyword to a string, number, bool or list.
        keys: paths of the host keys to offer.
        defaults: effective configuration of an empty file, which shows what this sshd knows.

    Raises:
        RefusalError: a deviation is none that a drop-in can carry.
    """
    mlkem = any("mlkem768x25519-sha256" in value for value in defaults.get("kexalgorithms", []))
    merged: dict[str, Any] = {"HostKey": list(keys), **_GENERATIONS[mlkem], **PROFILES[profile]}
    merged = {name: value for name, value in merged.items() if name.lower() in defaults}
    for name, value in deviations.items():
        where = f"ssh_hardening_config.{name}"
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", str(name)) or name.lower() in {"match", "include"}:
            raise RefusalError(f"{where} can't be set here: give keywords of sshd_config(5) except Match and Include.")
        if isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(item, (Mapping, list)) for item in value)):
            raise RefusalError(f"{where} must be a string, a number, true or false, or a list of those; got {value!r}.")
        if value in ([], "") and name.lower() in ("allowusers", "allowgroups"):
            raise RefusalError(f"{where} names nobody, so nobody could log in: name the admin's account, or leave {name} out.")
        if any(set("\n\r\0") & set(str(item)) for item in (value if isinstance(value, list) else [value])):
            raise RefusalError(f"{where} must be on one line.")
        for other in [other for other in merged if other.lower() == name.lower()]:
            del merged[other]
        if value not in (None, "", []):
            merged[str(name)] = value
    if any("group-exchange" in str(value) for name, value in merged.items() if name.lower() == "kexalgorithms"):
        merged = {**({} if any(name.lower() == "modulifile" for name in deviations) else {"ModuliFile": STRONG_MODULI}), **merged}
    return {name: _values(name, value) for name, value in sorted(merged.items(), key=lambda item: item[0].lower())}


def _values(name: str, value: Any) -> list[str]:
    items = [{True: "yes", False: "no"}.get(item, str(item)) if isinstance(item, bool) else str(item) for item in _as_list(value)]
    if name.lower() in _REPEATED:
        return items
    return [("," if name.lower() in _COMMAS else " ").join(items)]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def drop_in(profile: str, wanted: Mapping[str, Sequence[str]]) -> str:
    """Return the drop-in's text."""
    lines = [f"# Written by Trainyard (profile {profile}). Deviations go into ssh_hardening_config; edits here are lost."]
    lines += [f"{name} {value}" for name, values in wanted.items() for value in values]
    again = [f"    {name} {value}" for name, values in wanted.items() if name.lower() in _MATCHABLE for value in values]
    if again:
        lines += [
            "",
            "# Once more for every connection: the first Match block wins, so that none elsewhere loosens these.",
            "Match all",
            *again,
        ]
    return "\n".join(lines) + "\n"


def rsa_bits(public_key: str) -> int:
    """Return the size of an RSA key in bits, from its public half; 0 if it is of another kind."""
    try:
        kind, encoded = public_key.split()[:2]
        blob = base64.b64decode(encoded)
    except ValueError:
        return 0
    if kind != "ssh-rsa":
        return 0
    parts, offset = [], 0
    while offset + 4 <= len(blob):
        length = int.from_bytes(blob[offset : offset + 4], "big")
        parts.append(blob[offset + 4 : offset + 4 + length])
        offset += 4 + length
    return int.from_bytes(parts[2], "big").bit_length() if len(parts) == 3 else 0


def host_keys(present: Sequence[tuple[str, str]]) -> list[str]:
    """Choose the host keys to offer among those in use (path, public half): what clients know stays where it is good enough.

    An RSA key below 4096 bits makes place for a new one in a file of its own.
    """
    ed25519 = next((path for path, public in present if public.startswith("ssh-ed25519 ")), ED25519_KEY)
    rsa = next((path for path, public in present if rsa_bits(public) >= RSA_BITS), RSA_KEY)
    return [ed25519, rsa]


def strong_moduli(text: str) -> str:
    """Return the lines of a moduli file whose prime is long enough; column five is the length less one."""
    kept = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 7 and not line.startswith("#") and int(fields[4]) >= MODULI_BITS - 1:
            kept.append(line)
    return "".join(line + "\n" for line in kept)


# --- changing the files --------------------------------------------------------------------------------------------


def remove(files: Mapping[str, str]) -> Files:
    """Return the files without what Trainyard put there; lines that sshd refused stay switched off."""
    found = {path: text for path, text in files.items() if path not in DROP_INS}
    lines = found.get(MAIN, "").splitlines(keepends=True)
    kept: list[str] = []
    for line in lines:
        if kept and kept[-1].rstrip() == _FIRST:
            kept.pop()
        else:
            kept.append(line[len(_MOVED) :] if line.startswith(_MOVED) else line)
    found[MAIN] = "".join(kept)
    return found


def place(files: Mapping[str, str], text: str) -> Files:
    """Return the files with the drop-in in the first place.

    The Include that reads it is the first line of sshd_config: moved there when it stands later, added when there is none.
    """
    found = remove(files)
    others = [path for path in found if posixpath.dirname(path) == FOLDER]
    path = DROP_INS[0] if all(other > DROP_INS[0] for other in others) else DROP_INS[1]
    found[path] = text
    lines = found[MAIN].splitlines(keepends=True)
    reading = list(_lines(found[MAIN]))
    top = [number for number, keyword, values in _before_match(reading) if keyword == "include" and _covers(values, path)]
    if not (top and reading[0][0] == top[0]):
        first = [f"{_FIRST}\n", f"Include {path}\n"]
        if top:
            patterns = next(values for number, _keyword, values in reading if number == top[0])
            first[1] = "Include " + " ".join(f'"{pattern}"' if " " in pattern else pattern for pattern in patterns) + "\n"
        for number in top:
            lines[number - 1] = _MOVED + lines[number - 1]
        found[MAIN] = "".join(first + lines)
    return found


def _covers(patterns: Sequence[str], path: str) -> bool:
    return any(included([path], pattern) for pattern in patterns)


def _before_match(lines: Iterable[tuple[int, str, list[str]]]) -> Iterator[tuple[int, str, list[str]]]:
    for line in lines:
        if line[1] == "match":
            return
        yield line


def switch_off(files: Mapping[str, str], path: str, number: int) -> Files:
    """Return the files with one line commented out, its text kept behind the mark."""
    lines = files[path].splitlines(keepends=True)
    lines[number - 1] = _BROKEN + lines[number - 1]
    return {**files, path: "".join(lines)}


def staged(files: Mapping[str, str], root: str) -> Files:
    """Return copies of the files for a folder of their own, so that sshd can judge them there: the includes lead into it."""
    found = {}
    for path, text in files.items():
        lines = text.splitlines(keepends=True)
        for number, keyword, values in _lines(text):
            if keyword == "include":
                lines[number - 1] = "Include " + " ".join(f'"{root}{absolute(value)}"' for value in values) + "\n"
        found[root + path] = "".join(lines)
    return found


def complaint(errors: str, root: str = "") -> tuple[str, int, str] | None:
    """Return file, line and reason of the first line that sshd refuses, from what `sshd -t` printed."""
    for line in errors.splitlines():
        found = re.match(re.escape(root) + r"(/\S+?):? line (\d+):?\s*(.*)", line.strip())
        if found and "Deprecated option" not in line and "Unsupported option" not in line:
            return found[1], int(found[2]), found[3]
    return None


# --- judging -------------------------------------------------------------------------------------------------------


def overridden(
    files: Mapping[str, str],
    wanted: Iterable[str],
    expected: Effective,
    actual: Effective,
    *,
    whose: str = "",
    options: Sequence[str] = (),
) -> list[str]:
    """Say of each of our keywords that has another value than wanted what it is and which line makes it so.

    Args:
        files: the configuration.
        wanted: our keywords.
        expected: effective values of the drop-in alone.
        actual: effective values of the whole.
        whose: for which account that is; empty for the global part.
        options: the daemon's own options, which beat all files.
    """
    found = []
    for name in wanted:
        keyword = name.lower()
        ours, theirs = expected.get(keyword, []), actual.get(keyword, [])
        if keyword == "listenaddress":  # in whatever order the resolver gave them
            ours, theirs = sorted(ours), sorted(theirs)
        if ours == theirs or (keyword == "hostkey" and theirs[: len(ours)] == ours):
            continue
        lines = [line for line in settings(files) if line.keyword == keyword and line.path not in DROP_INS and (whose or not line.matched)]
        where = "a default of this sshd wins"
        if any(keyword in option.lower() for option in options) or (keyword == "port" and "-p" in str(options)):
            where = f"the daemon's own option ({' '.join(options)}) wins; look for SSHD_OPTS in /etc/default/ssh. Take that option out"
        elif lines:
            where = f"{lines[0].place} wins. Take that line out, or put the value into ssh_hardening_config.{name}"
        found.append(f"{name} would be '{', '.join(theirs)}'{f' for {whose}' if whose else ''} instead of '{', '.join(ours)}': {where}.")
    return found


def listed(patterns: Sequence[str], names: Sequence[str]) -> bool:
    """Return whether a list such as that of AllowUsers or DenyGroups means one of some names."""
    for pattern in patterns:
        if pattern.startswith("!") and any(fnmatch.fnmatchcase(name, pattern[1:].partition("@")[0]) for name in names):
            return False
    return any(fnmatch.fnmatchcase(name, pattern.partition("@")[0]) for pattern in patterns for name in names)


def kept_out(account: Account, rules: Effective, today: int) -> list[str]:
    """Say why this account could not log in with a key under these effective rules; empty when nothing stands against it.

    Args:
        account: the account.
        rules: effective configuration for it.
        today: days since 1970, as the shadow file counts.
    """

    def rule(keyword: str) -> str:
        return " ".join(rules.get(keyword, []))

    found = []
    names = {"users": [account.name], "groups": list(account.groups)}
    for keyword in WHO:
        patterns, kind = rule(keyword).split(), keyword[-6:] if keyword.endswith("groups") else "users"
        shown = {"allowusers": "AllowUsers", "allowgroups": "AllowGroups", "denyusers": "DenyUsers", "denygroups": "DenyGroups"}[keyword]
        if keyword.startswith("allow") and patterns and not listed(patterns, names[kind]):
            found.append(
                f"{shown} ({' '.join(patterns)}) does not let '{account.name}' in, the account of this connection: "
                f"add it to ssh_hardening_config.{shown}, or to the line in sshd's configuration that says so."
            )
        # A denial for some hosts only is the proof's business.
        elif keyword.startswith("deny") and listed([pattern for pattern in patterns if "@" not in pattern], names[kind]):
            found.append(
                f"{shown} ({' '.join(patterns)}) keeps '{account.name}' out, the account of this connection: take it out of {shown}."
            )
    if account.uid == 0 and rule("permitrootlogin") in {"no", "forced-commands-only"}:
        found.append(
            f"This connection logs in as root, and PermitRootLogin is to be '{rule('permitrootlogin')}': "
            "make an admin with a key and sudo and set ansible_user to it; until there is one, "
            "set PermitRootLogin to prohibit-password in ssh_hardening_config."
        )
    if rule("usepam") == "no" and account.password.startswith("!"):
        found.append(
            f"The account '{account.name}' is locked (its password begins with '!'), and without PAM sshd lets no locked account in: "
            f"leave UsePAM out of ssh_hardening_config, or unlock it without a password: usermod -p '*' {account.name}"
        )
    if account.expires is not None and 0 <= account.expires <= today:
        day = datetime.date(1970, 1, 1) + datetime.timedelta(days=account.expires)
        found.append(f"The account '{account.name}' expired on {day}: no new login would work. Renew it with: chage -E -1 {account.name}")
    if not account.shell_runs or posixpath.basename(account.shell) in {"nologin", "false"}:
        found.append(
            f"The account '{account.name}' has the shell {account.shell}, which lets nobody in: usermod -s /bin/bash {account.name}"
        )
    other_keys = rule("authorizedkeyscommand") not in {"", "none"} or rule("trustedusercakeys") not in {"", "none"}
    by_password = "yes" in (rule("passwordauthentication"), rule("kbdinteractiveauthentication"))
    if not account.keys and not other_keys and not by_password:
        found.append(
            f"'{account.name}' has no key on this node, and passwords are being switched off: put its public key into "
            f"{' or '.join(account.key_files)} (base_users does) and connect with it instead of ansible_password, "
            "or set PasswordAuthentication to true in ssh_hardening_config."
        )
    if rule("pubkeyauthentication") == "no" and not by_password:
        found.append("Neither keys nor passwords would be let in: leave PubkeyAuthentication out of ssh_hardening_config.")
    return found


def _replacement(tokens: Mapping[str, str]) -> Callable[[re.Match[str]], str]:
    return lambda token: tokens[token[0]]


def key_files(account: str, home: str, uid: int, rules: Effective) -> list[str]:
    """Return the paths of an account's authorized_keys under these rules."""
    found = []
    for pattern in " ".join(rules.get("authorizedkeysfile", [])).split():
        if pattern == "none":
            continue
        path = re.sub(r"%[%huU]", _replacement({"%%": "%", "%h": home, "%u": account, "%U": str(uid)}), pattern)
        found.append(posixpath.join(home, path))
    return found


def count_keys(text: str) -> int:
    """Return how many keys an authorized_keys file holds."""
    return sum(1 for line in text.splitlines() if line.strip() and not line.strip().startswith("#"))


def listen_targets(rules: Effective) -> list[tuple[str, int]]:
    """Return the (address, port) pairs that sshd would listen on."""
    found = []
    for value in rules.get("listenaddress", []):
        match = re.match(r"\[?([^\]]*?)\]?:(\d+)(?:\s|$)", value)
        if match:
            found.append((match[1], int(match[2])))
    return found


def socket_ports(listen: str) -> set[int]:
    """Return the ports of a socket unit, from what systemctl shows of its Listen property."""
    return {int(port) for port in re.findall(r"(?:^|[:\s])(\d+) \(Stream\)", listen)}


def kexinit(payload: bytes) -> dict[str, list[str]]:
    """Return what a server offers, from its SSH_MSG_KEXINIT (RFC 4253, section 7.1).

    Raises:
        ValueError: the bytes are no such message.
    """
    if not payload or payload[0] != 20:
        raise ValueError("not an SSH_MSG_KEXINIT")
    offset, lists = 17, []
    for _list in range(6):
        length = int.from_bytes(payload[offset : offset + 4], "big")
        lists.append(payload[offset + 4 : offset + 4 + length].decode("ascii").split(","))
        offset += 4 + length
    return {"kexalgorithms": lists[0], "hostkeyalgorithms": lists[1], "ciphers": lists[3], "macs": lists[5]}


def still_offered(offer: Mapping[str, Sequence[str]], rules: Effective) -> list[str]:
    """Say what a live daemon offers that its configuration does not have: it runs with another one."""
    found = []
    for keyword, offered in offer.items():
        allowed = ",".join(rules.get(keyword, [])).split(",")
        extra = [name for name in offered if name not in allowed and not name.startswith(("kex-strict-", "ext-info-"))]
        if extra:
            found.append(f"the running sshd still offers {', '.join(extra)} ({keyword})")
    return found


def daemon_options(title: str) -> list[str]:
    """Return the options that the listening daemon was started with and that beat its files, from its process title."""
    words = shlex.split(title.partition("sshd: ")[2].partition(" [listener]")[0]) if "[listener]" in title else []
    found: list[str] = []
    for number, word in enumerate(words):
        if word in {"-o", "-p"}:
            found += words[number : number + 2]
        elif re.match(r"-[op].", word):
            found.append(word)
    return found


# --- the way back --------------------------------------------------------------------------------------------------


ROLLBACK = Rollback("trainyard-ssh-rollback", STATE + "/rollback", "sshd's former configuration")


def renewal(service: str, sshd: str, verb: str = "reload") -> str:
    """Return the shell commands that have sshd use the files that were restored.

    Args:
        service: systemd's unit of sshd.
        sshd: its program.
        verb: what makes systemd give the daemon its configuration anew.
    """
    return f"""mkdir -p /run/sshd
if {sshd} -t; then
    systemctl {verb} {service} || true
    sleep 1
    if ! systemctl is-active --quiet {service}; then
        systemctl reset-failed {service} || true
        systemctl start {service}
    fi
fi"""
