"""An inventory's hosts.yml as text: who is in which group, and nodes that come and go with everything else kept to the byte.

Pure but for `locate`, which looks where the file is.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.inventory import detect_range, expand_hostname_range
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import CommentMark, YAMLError
from ruamel.yaml.tokens import CommentToken

from trainyard.errors import TrainyardError

CONTROLLER = "slurm_controller"
COMPUTE = "slurm_compute"
INDENTATIONS = ((2, 2, 0), (2, 4, 2), (4, 4, 2), (4, 2, 0))
"""Of mappings, of sequences and of the dash in these, as people write them."""


def locate(inventory: Path) -> Path:
    """Return the file of an inventory in which its hosts stand.

    Raises:
        TrainyardError: there is none, or none that can be edited.
    """
    path = inventory / "hosts.yml" if inventory.is_dir() else inventory
    if path.suffix not in {".yml", ".yaml"} or not path.is_file():
        raise TrainyardError(
            f"{inventory} is neither a YAML file nor a folder with hosts.yml, and only these are edited. Write the node into (or out "
            f"of) the group {COMPUTE} and its other groups by hand, then: ./trainyard apply -i {inventory} --limit NODE,CONTROLLER"
        )
    return path


class HostsFile:
    """The text of a hosts.yml, and what it says.

    Raises:
        TrainyardError: it is no YAML, or holds no groups.
    """

    def __init__(self, text: str) -> None:
        self.text, best = text, -2
        for mapping, sequence, offset in INDENTATIONS:
            reader = YAML()
            reader.preserve_quotes = True
            reader.width = 4096
            reader.indent(mapping=mapping, sequence=sequence, offset=offset)
            reader.explicit_start = text.lstrip().startswith("---") or "\n---" in text
            try:
                tree = reader.load(text)
            except YAMLError as error:
                raise TrainyardError(f"The inventory is no YAML: {error}") from error
            if not isinstance(tree, CommentedMap):
                raise TrainyardError("The inventory holds no groups: it begins with `all:` and its children.")
            dumped = _dumped(reader, tree).splitlines()
            alike = sum(one == other for one, other in zip(dumped, text.splitlines(), strict=False))
            if len(dumped) != len(text.splitlines()):
                alike = -1
            if alike > best:
                best, self._yaml, self._tree, self._plain = alike, reader, tree, dumped
        self._joined = best < 0

    def _edited(self) -> str:
        """Return the text with what was changed in the tree since, and every other line as it was written.

        Raises:
            TrainyardError: lines would be joined, or the result would not mean what it is to mean.
        """
        if self._joined:
            raise TrainyardError("The inventory has values over several lines, which an edit would join. Write each on one line first.")
        after, written = _dumped(self._yaml, self._tree).splitlines(), self.text.splitlines()
        lines: list[str] = []
        for what, first, last, start, end in SequenceMatcher(None, self._plain, after, autojunk=False).get_opcodes():
            lines += written[first:last] if what == "equal" else after[start:end]
        text = "".join(f"{line}\n" for line in lines)
        try:
            sound = YAML(typ="safe").load(text) == YAML(typ="safe").load("\n".join(after))
        except YAMLError:
            sound = False
        if not sound:
            raise TrainyardError("The inventory's indentation differs from place to place. Make it the same everywhere first.")
        return text

    def _groups(self, tree: Mapping[str, Any] | None = None) -> Iterator[tuple[str, CommentedMap]]:
        """Yield every group that is written out, as often as it stands there."""
        for name, group in (self._tree if tree is None else tree).items():
            if isinstance(group, CommentedMap):
                yield str(name), group
                yield from self._groups(group.get("children") or {})

    def members(self) -> dict[str, list[str]]:
        """Return the hosts that stand in each group itself, ranges written out."""
        found: dict[str, list[str]] = {}
        for name, group in self._groups():
            found.setdefault(name, []).extend(host for key in group.get("hosts") or {} for host in expanded(str(key)))
        return found

    def all_of(self, group: str) -> list[str]:
        """Return the hosts of a group and of the groups in it."""
        found: dict[str, None] = {}
        for name, data in self._groups():
            if name == group:
                found.update(dict.fromkeys(host for key in data.get("hosts") or {} for host in expanded(str(key))))
                for child in data.get("children") or {}:
                    found.update(dict.fromkeys(self.all_of(str(child))))
        return list(found)

    def hosts(self) -> dict[str, dict[str, Any]]:
        """Return every host with the variables that stand beside it."""
        found: dict[str, dict[str, Any]] = {}
        for _name, group in self._groups():
            for key, variables in (group.get("hosts") or {}).items():
                for host in expanded(str(key)):
                    found.setdefault(host, {}).update(variables or {})
        return found

    def controller(self) -> str:
        """Return the node that schedules.

        Raises:
            TrainyardError: there is none, or more than one.
        """
        found = self.all_of(CONTROLLER)
        if len(found) != 1:
            said = f"{len(found)} nodes" if found else "no node"
            raise TrainyardError(f"The group {CONTROLLER} has {said}, and a cluster has exactly one. Name it there and apply that.")
        return found[0]

    def groups_for(self, like: str = "") -> list[str]:
        """Return the groups for a new node: those of another node, or those that all nodes which compute share.

        Raises:
            TrainyardError: no such node, or none of the groups would make it compute.
        """
        members, computes = self.members(), self.all_of(COMPUTE)
        if not computes:
            raise TrainyardError(f"The group {COMPUTE} has no node: there is no cluster to add to. Make one with ./trainyard apply first.")
        if like and like not in computes:
            raise TrainyardError(f"--like {like}: it does not compute here. Nodes that do: {', '.join(computes)}")
        alike = {like} if like else set(computes)
        found = [name for name, hosts in members.items() if alike <= set(hosts) and name not in {CONTROLLER, "all", "ungrouped"}]
        if not any(name == COMPUTE or self._leads(name) for name in found):
            raise TrainyardError(f"The nodes of {COMPUTE} share no group in which a new one would compute. Name one like it: --like NODE")
        return found

    def _leads(self, group: str) -> bool:
        """Return whether a group's nodes compute."""
        return bool(self.members().get(group)) and set(self.all_of(group)) <= set(self.all_of(COMPUTE)) and group in self._below(COMPUTE)

    def _below(self, group: str) -> set[str]:
        children = {str(child) for name, data in self._groups() if name == group for child in data.get("children") or {}}
        return children.union(*(self._below(child) for child in children))

    def with_node(self, node: str, groups: Sequence[str], variables: Mapping[str, Any]) -> str:
        """Return the text with a node in groups; its variables stand where it first appears."""
        edited, left = HostsFile(self.text), dict.fromkeys(groups)
        for name, group in edited._groups():
            if name in left and group.get("hosts"):
                own = CommentedMap(variables) if len(left) == len(set(groups)) else None
                if own is not None:
                    own.fa.set_flow_style()
                _append(group["hosts"], node, own)
                del left[name]
        return edited._edited()

    def without_node(self, node: str) -> str:
        """Return the text without a node; the others of a range in which it stands are written out.

        Raises:
            TrainyardError: it is the last one of a group.
        """
        edited = HostsFile(self.text)
        for name, group in edited._groups():
            hosts = group.get("hosts") or CommentedMap()
            for key in list(hosts):
                if node in (others := expanded(str(key))):
                    others.remove(node)
                    _write_out(hosts, key, others)
                    _drop(hosts, key)
            if "hosts" in group and group["hosts"] is not None and not group["hosts"]:
                raise TrainyardError(f"{node} is the last host of the group {name}. Take the group out of the inventory by hand first.")
        return edited._edited()

    def with_variable(self, node: str, key: str, value: Any = None) -> str:
        """Return the text with a variable of a node set, or without it where the value is None."""
        edited = HostsFile(self.text)
        for _name, group in edited._groups():
            hosts = group.get("hosts") or {}
            if isinstance(hosts.get(node), CommentedMap) and (value is None or key in hosts[node]):
                if value is None:
                    hosts[node].pop(key, None)
                else:
                    hosts[node][key] = value
        return edited._edited()


def _dumped(writer: YAML, tree: CommentedMap) -> str:
    out = io.StringIO()
    writer.dump(tree, out)
    return out.getvalue()


def expanded(key: str) -> list[str]:
    """Return the hosts that a key such as gpu[1:4] means, as Ansible reads it."""
    try:
        return [str(host) for host in expand_hostname_range(key)] if detect_range(key) else [key]
    except AnsibleError:
        return [key]


def _append(hosts: CommentedMap, node: str, variables: CommentedMap | None) -> None:
    """Add a key at the end; a comment or blank line that ends the mapping belongs to what follows, and stays behind the new key."""
    last = list(hosts)[-1] if hosts else None
    tail = None
    if last is not None and not hosts.fa.flow_style():
        owner, key = _last_leaf(hosts, last)
        comments = owner.ca.items.get(key)
        if comments and len(comments) > 2 and comments[2]:
            token = comments[2]
            own, line, rest = token.value.partition("\n")
            if rest:
                token.value, tail = own + line, rest
                if not own.strip():
                    owner.ca.items.pop(key)
    hosts[node] = variables
    if tail is not None:
        hosts.ca.items[node] = [None, None, CommentToken("\n" + tail, CommentMark(0), None), None]


def _write_out(hosts: CommentedMap, key: Any, members: Sequence[str]) -> None:
    """Add a range's hosts before it, each with the range's variables; its own comment stays with the first."""
    position, variables = list(hosts).index(key), hosts[key]
    for member in reversed(members):
        hosts.insert(position, member, copy.deepcopy(variables))
    comments = hosts.ca.items.get(key)
    own = comments[2].value.partition("\n")[0].strip() if members and comments and len(comments) > 2 and comments[2] else ""
    if own:
        hosts.yaml_add_eol_comment(own, members[0])


def _last_leaf(tree: CommentedMap, key: Any) -> tuple[CommentedMap, Any]:
    """Return where ruamel keeps what follows a key's value: at the last key of the value."""
    value = tree[key]
    if isinstance(value, CommentedMap) and value and not value.fa.flow_style():
        return _last_leaf(value, list(value)[-1])
    return tree, key


def _drop(hosts: CommentedMap, key: Any) -> None:
    """Remove a key with its own comment; what follows its line stays, behind the key before it."""
    keys = list(hosts)
    position = keys.index(key)
    owner, leaf = _last_leaf(hosts, key)
    comments = owner.ca.items.get(leaf)
    rest = comments[2].value.partition("\n")[2] if comments and len(comments) > 2 and comments[2] else ""
    token = comments[2] if rest and comments else None
    del hosts[key]
    hosts.ca.items.pop(key, None)
    if rest and token is not None and position:
        before_owner, before = _last_leaf(hosts, keys[position - 1])
        existing = before_owner.ca.items.get(before)
        if existing and len(existing) > 2 and existing[2]:
            existing[2].value = existing[2].value.rstrip("\n") + "\n" + rest
        else:
            token.value = "\n" + rest
            before_owner.ca.items[before] = [None, None, token, None]
