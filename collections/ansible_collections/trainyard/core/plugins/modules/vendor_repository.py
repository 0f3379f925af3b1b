#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A vendor's package repository, once, with its own key, and never in the way of other packages."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vendor_repository
short_description: Takes packages from a vendor's repository, once, with a key that counts for it alone
version_added: 0.1.0
description:
  - Writes one deb822 source with C(Signed-By), the key beside it, and preferences that keep the repository from taking over packages that
    other sources have. The key is judged by its fingerprint; apt reads the repository in a folder of its own first, and where it complains,
    nothing is changed and the complaint is explained.
  - Sources of the same repository that are there already, which make apt stop with C(Conflicting values set for option Signed-By) or
    C(NO_PUBKEY), are commented out where they stand, each line with C(# Set aside by Trainyard (NAME)).
  - Keys that were revoked are taken out of apt's keyrings; the keyring as it was stays beside under the ending C(.trainyard-NAME.save),
    which apt reads over.
  - Several owners may want the same repository. When the last one wants it no more, all files go, and what was set aside comes back.
options:
  name:
    description: Name of the repository, which is part of the names of its files.
    type: str
    required: true
  owner:
    description: Who wants it, such as the name of a role.
    type: str
    required: true
  url:
    description: Its address, of the vendor's server or a mirror of it, C(https://), C(http://) or C(file:/).
    type: str
    default: ''
  suite:
    description: Its suite; one that ends with C(/) is a flat repository without components.
    type: str
    default: /
  components:
    description: Its components.
    type: list
    elements: str
    default: []
  architectures:
    description: Architectures to take packages of; those of dpkg where it is empty.
    type: list
    elements: str
    default: []
  key:
    description:
      - Where its key is, C(https://), C(http://) or C(file:/), or the key itself, armoured.
      - Looked at when the node does not have a key with the right fingerprints.
    type: str
    default: ''
  fingerprints:
    description: Fingerprints of the keys that must be in the file, all of them and no others.
    type: list
    elements: str
    default: []
  key_sha256:
    description: SHA-256 of the key's file, checked when it is fetched; '' for none.
    type: str
    default: ''
  revoked:
    description: Fingerprints or key ids that are to be trusted no more, for any repository.
    type: list
    elements: str
    default: []
  supersedes:
    description:
      - Beginnings of addresses whose sources this one takes the place of, whatever their protocol, beside its own address; mirrors and
        predecessors.
    type: list
    elements: str
    default: []
  pins:
    description: Versions of packages that this owner wants, from wherever they are, also where they are older than what is installed.
    type: list
    elements: dict
    default: []
    suboptions:
      packages:
        description: Names, which may hold C(*) and C(?), or C(src:NAME) for all that is built from a source package.
        type: list
        elements: str
        required: true
      version:
        description: The version, which may hold C(*).
        type: str
        required: true
  priority:
    description: Priority of all else that it has. Below 100, it never takes the place of what is installed.
    type: int
    default: 50
  state:
    description: Whether this owner wants the repository.
    type: str
    choices: [present, absent]
    default: present
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would change and does nothing; the repository is not asked.
  diff_mode:
    support: full
    description: Shows every file before and after; of keyrings the fingerprints.
"""

EXAMPLES = r"""
- name: Take branch 580 of the driver from the vendor
  trainyard.core.vendor_repository:
    name: nvidia
    owner: nvidia_driver
    url: https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/
    key: https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/3bf863cc.pub
    fingerprints: [EB693B3035CD5710E231E123A4B469963BF863CC]
    pins: [{packages: ["*nvidia*"], version: 580.*}]
"""

RETURN = r"""
set_aside:
  description: Sources of others that are, or in check mode would be, set aside, by file.
  returned: always
  type: dict
revoked:
  description: Keyrings of others out of which revoked keys were, or in check mode would be, taken.
  returned: always
  type: list
  elements: str
put_back:
  description: Files of others that were, or in check mode would be, put back.
  returned: always
  type: list
  elements: str
left:
  description: Files that were changed since by somebody else, so that what was saved of them stays beside them.
  returned: always
  type: list
  elements: str
"""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.trainyard.core.plugins.module_utils import _apt as apt
from ansible_collections.trainyard.core.plugins.module_utils import _openpgp as openpgp
from ansible_collections.trainyard.core.plugins.module_utils import _vendor_repository as repository
from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._host import locks

APT = Path("/etc/apt")
SOURCES = APT / "sources.list.d"
PREFERENCES = APT / "preferences.d"
KEYS = APT / "keyrings"
KEYRINGS = (APT / "trusted.gpg.d", KEYS, Path("/usr/share/keyrings"))
OWNERS = Path("/var/lib/trainyard/repositories")
ENVIRONMENT = {"LC_ALL": "C.UTF-8"}
PATIENCE = 600  # seconds to wait for another apt
KEY_BYTES = 1 << 20  # a key is some kilobytes; what is longer is something else
READABLE = re.compile(r"[A-Za-z0-9_.-]+\Z")  # names of files that apt reads


class Repository:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        wish = module.params
        self.wish = wish
        self.name, self.owner = wish["name"], wish["owner"]
        self.source = SOURCES / f"trainyard-{self.name}.sources"
        self.key = KEYS / f"trainyard-{self.name}.gpg"
        self.preferences = PREFERENCES / f"trainyard-{self.name}.pref"
        self.pins = PREFERENCES / f"trainyard-{self.name}-{self.owner.replace('_', '-')}.pref"
        self.owners = OWNERS / self.name
        self.mark = f"# Set aside by Trainyard ({self.name}): "
        self.saved = f".trainyard-{self.name}.save"  # apt passes over files with this ending without a word
        self.words = f"Made by Trainyard ({self.name})."
        self.diff: list[dict[str, str]] = []
        self.result: dict[str, Any] = {"changed": False, "set_aside": {}, "revoked": [], "put_back": [], "left": []}

    def fail(self, text: str) -> None:
        """Stop with a sentence."""
        self.module.fail_json(msg=text, **self.result)

    def change(self, path: Path, before: str, after: str) -> bool:
        """Note a change; return whether there is one to be made now."""
        if before == after:
            return False
        self.diff.append({"before_header": str(path), "after_header": str(path), "before": before, "after": after})
        self.result["changed"] = True
        return not self.module.check_mode

    def put(self, path: Path, after: str) -> None:
        """Give a file this text, or none where it is empty."""
        if self.change(path, _text(path), after):
            _write(path, after.encode("utf-8", "surrogateescape"))

    # --- the two states

    def present(self) -> None:
        """Have the repository for this owner."""
        aside = list(self.duplicates())
        key, content = self.wanted_key()
        pin = repository.read_pin(_text(self.preferences))
        source = repository.source_file(
            self.words, self.wish["url"], self.wish["suite"], self.wish["components"], self.wish["architectures"], str(self.key)
        )
        new = key is not None or not pin or source != _text(self.source)
        if new and not self.module.check_mode:
            pin = self.read(content, source)
        elif new:
            pin = pin or repository.pin_of({}, urlsplit(self.wish["url"]).hostname or "")
        wants = [(one["packages"], f"version {one['version']}", repository.BRANCH_PRIORITY) for one in self.wish["pins"]]
        if not (self.owners / self.owner).exists():
            self.result["changed"] = True
            if not self.module.check_mode:
                _write(self.owners / self.owner, b"")  # first, so that the undo knows of an interrupted run
        for path, after, uris in aside:
            self.result["set_aside"][str(path)] = uris
            self.put(path, after)
        if key is not None and self.change(self.key, _fingerprints(self.key), key):
            _write(self.key, content)
        self.put(self.preferences, repository.preferences(self.words, [(["*"], pin, self.wish["priority"])]))
        self.put(self.pins, repository.preferences(self.words, wants))
        self.put(self.source, source)
        self.revoke()
        if new and not self.module.check_mode:
            self.fetch([], f"Dir::Etc::sourcelist={self.source}", "Dir::Etc::sourceparts=/dev/null", "APT::Get::List-Cleanup=0")

    def absent(self) -> None:
        """Have it no more for this owner, and not at all when nobody else wants it."""
        others = [path for path in self.owners.glob("[!.]*") if path.name != self.owner]
        if not (self.owners / self.owner).exists():
            return
        self.put(self.pins, "")
        if not others:
            self.put(self.source, "")
            self.put(self.preferences, "")
            if self.change(self.key, _fingerprints(self.key), ""):
                self.key.unlink()
            for path in _sources():
                before = _text(path)
                after = repository.put_back(before, self.mark)
                if before != after:
                    self.result["put_back"].append(str(path))
                    self.put(path, after)
            self.restore()
        self.result["changed"] = True
        if not self.module.check_mode:
            (self.owners / self.owner).unlink()
            if not others:
                shutil.rmtree(self.owners)

    # --- sources of others

    def duplicates(self) -> Iterator[tuple[Path, str, list[str]]]:
        """Yield the files that name the repository beside ours: path, text without those sources, and their addresses."""
        prefixes = [self.wish["url"], *self.wish["supersedes"]]
        for path in _sources():
            if path == self.source:
                continue
            before = _text(path)
            try:
                after, uris = repository.set_aside(before, path.suffix == ".sources", prefixes, self.mark)
            except repository.MixedSourceError as error:
                self.fail(
                    f"{path}: one entry names this repository together with {error}. Split it into one entry for each, and run again. "
                    "Nothing was done."
                )
            if uris:
                yield path, after, uris

    # --- keys

    def wanted_key(self) -> tuple[str | None, bytes]:
        """Return the key's fingerprints, or None where the right one is there, and its bytes; it is fetched outside check mode."""
        wanted = {repository.bare(one) for one in self.wish["fingerprints"]}
        described = "".join(f"{one}\n" for one in sorted(wanted))
        if _fingerprints(self.key) == described:
            return None, self.key.read_bytes()
        if self.module.check_mode:
            return described, b""
        raw = self.raw_key()
        digest = hashlib.sha256(raw).hexdigest()
        if self.wish["key_sha256"] and digest != self.wish["key_sha256"]:
            self.fail(f"key_sha256: the key's file has the SHA-256 {digest}, and {self.wish['key_sha256']} is wanted. Nothing was done.")
        try:
            found = openpgp.certificates(raw)
        except openpgp.NoKeyError as error:
            self.fail(f"key: what was found there is no file of public keys: {error}. Nothing was done.")
        if {one.fingerprint for one in found} != wanted:
            self.fail(
                f"fingerprints: the file holds the key {', '.join(one.fingerprint or 'of an unknown kind' for one in found)}, and "
                f"{', '.join(sorted(wanted))} is wanted. It is another key than the one that was asked for: find out why. Nothing was done."
            )
        return described, b"".join(one.content for one in found)

    def raw_key(self) -> bytes:
        """Fetch the key."""
        where: str = self.wish["key"]
        if not where:
            self.fail("key: the node does not have the repository's key yet; right is its address, or the key itself, armoured.")
        if where.lstrip().startswith(openpgp.ARMOUR.decode()):
            return where.encode()
        try:
            if where.startswith("file:/"):
                with open("/" + where[5:].lstrip("/"), "rb") as file:
                    return file.read(KEY_BYTES)
            if re.match(r"https?://", where):
                content: bytes = open_url(where, timeout=60, http_agent="trainyard").read(KEY_BYTES)
                return content
        except Exception as error:
            self.fail(f"key: {where} cannot be read: {error}. Nothing was done.")
        self.fail(f"key: {where[:60]!r} is neither https://, http:// nor file:/, and no armoured key either.")
        return b""

    def revoke(self) -> None:
        """Take revoked keys out of apt's keyrings."""
        for path in _keyrings():
            try:
                after = openpgp.without(path.read_bytes(), self.wish["revoked"])
            except (openpgp.NoKeyError, OSError):
                continue  # apt cannot read it either
            if after is None:
                continue
            self.result["revoked"].append(str(path))
            if self.change(path, _fingerprints(path), "".join(f"{one}\n" for one in _list(after))):
                saved = path.with_name(path.name + self.saved)
                if not saved.exists():
                    _copy(path, saved)
                if after:
                    _write(path, after)
                else:
                    path.unlink()

    def restore(self) -> None:
        """Put keyrings back as they were, unless somebody changed them since."""
        for folder in (APT, *KEYRINGS):
            for saved in sorted(folder.glob(f"*{self.saved}")):
                path = saved.with_name(saved.name[: -len(self.saved)])
                if path.is_file() and path.read_bytes() == saved.read_bytes():  # interrupted before anything was taken out
                    self.result["changed"] = True
                    if not self.module.check_mode:
                        saved.unlink()
                    continue
                lost = set(_fingerprints(saved).split()) - set(_fingerprints(path).split())
                if set(_fingerprints(path).split()) - set(_fingerprints(saved).split()) or not lost:
                    self.result["left"].append(str(saved))
                    continue
                self.result["put_back"].append(str(path))
                if self.change(path, _fingerprints(path), _fingerprints(saved)):
                    saved.rename(path)

    # --- apt

    def read(self, key: bytes, source: str) -> str:
        """Have apt read the repository in a folder of its own; return what to pin it by.

        Nothing of the node's is touched: a wrong key or an old mirror is seen before anything changes.
        """
        folder = Path(tempfile.mkdtemp(prefix="trainyard-repository-"))
        try:
            folder.chmod(0o755)  # apt reads as an account of its own
            host_files.make_folders(folder / "lists" / "partial")
            _write(folder / "key.gpg", key)
            _write(folder / "it.sources", source.replace(str(self.key), str(folder / "key.gpg")).encode())
            self.fetch(
                ["--error-on=any"],
                f"Dir::Etc::sourcelist={folder / 'it.sources'}",
                "Dir::Etc::sourceparts=/dev/null",
                f"Dir::State::lists={folder / 'lists'}",
                "Dir::Cache::pkgcache=",
                "Dir::Cache::srcpkgcache=",
            )
            heads = sorted((folder / "lists").glob("*Release"))
            release = repository.release_fields(heads[0].read_text(errors="replace")) if heads else {}
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return repository.pin_of(release, urlsplit(self.wish["url"]).hostname or "")

    def fetch(self, words: list[str], *options: str) -> None:
        """Run apt-get update with options."""
        apt.wait_for_locks(PATIENCE)
        command = ["apt-get", "-q", "update", "--error-on=any", *words, *(word for option in options for word in ("-o", option))]
        rc, output, errors = self.module.run_command(command, environ_update=ENVIRONMENT)
        if rc:
            self.fail(f"url: {self.wish['url']} cannot be used. {repository.complaint(f'{errors}{output}')}")


def _sources() -> list[Path]:
    """Return the files in which apt looks for sources."""
    found = [path for pattern in ("*.list", "*.sources") for path in SOURCES.glob(pattern) if READABLE.match(path.name)]
    return [path for path in [APT / "sources.list", *sorted(found)] if path.is_file()]


def _keyrings() -> list[Path]:
    """Return the files in which apt looks for keys, or that a source may name."""
    found = [path for folder in KEYRINGS for pattern in ("*.gpg", "*.asc") for path in sorted(folder.glob(pattern))]
    return [path for path in [APT / "trusted.gpg", *found] if path.is_file()]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="surrogateescape") if path.is_file() else ""


def _list(content: bytes) -> list[str]:
    try:
        return [one.fingerprint for one in openpgp.certificates(content)]
    except openpgp.NoKeyError:
        return []


def _fingerprints(path: Path) -> str:
    """Return the fingerprints in a keyring, one a line; nothing where it is none."""
    return "".join(f"{one}\n" for one in sorted(_list(path.read_bytes()))) if path.is_file() else ""


def _write(path: Path, content: bytes) -> None:
    """Replace a file in one step; without content it goes, unless it is to be empty from the start."""
    if not content and path.exists():
        path.unlink()
        return
    mode = path.stat().st_mode & 0o7777 if path.exists() else 0o644
    host_files.make_folders(path.parent)
    beside = path.with_name(f".{path.name}.new")  # apt reads no hidden files
    beside.write_bytes(content)
    beside.chmod(mode)
    beside.replace(path)


def _copy(path: Path, to: Path) -> None:
    beside = to.with_name(f".{to.name}.new")
    shutil.copy2(path, beside)
    beside.replace(to)


@locks.turn("vendor_repository", 600)
def main() -> None:
    """Entry point."""
    strings: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "owner": {"type": "str", "required": True},
            "url": {"type": "str", "default": ""},
            "suite": {"type": "str", "default": "/"},
            "components": strings,
            "architectures": strings,
            "key": {"type": "str", "default": "", "no_log": False},
            "fingerprints": strings,
            "key_sha256": {"type": "str", "default": "", "no_log": False},
            "revoked": strings,
            "supersedes": strings,
            "pins": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "packages": {"type": "list", "elements": "str", "required": True},
                    "version": {"type": "str", "required": True},
                },
            },
            "priority": {"type": "int", "default": 50},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    found = repository.problems(module.params)
    if found:
        module.fail_json(msg=" ".join(found))
    work = Repository(module)
    if module.params["state"] == "present":
        work.present()
    else:
        work.absent()
    module.exit_json(diff=work.diff, **work.result)


if __name__ == "__main__":
    main()
