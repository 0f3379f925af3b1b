#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Components of the distribution that the system's own sources leave out."""

from __future__ import annotations

DOCUMENTATION = r"""
module: package_components
short_description: Takes further components of the distribution from where the node takes its packages already
version_added: 0.1.0
description:
  - Writes a source file of its own for components such as V(non-free) that the node's sources leave out, with the same archives and keys,
    be they the distribution's servers, a mirror or a snapshot. Asks apt what the sources are, and never changes a file of somebody else.
  - Writes none where nothing is lacking.
options:
  owner:
    description: Who wants them, such as the name of a role. The file is C(/etc/apt/sources.list.d/trainyard-OWNER.sources).
    type: str
    required: true
  components:
    description: Components that are wanted.
    type: list
    elements: str
    default: []
  origin:
    description: The distribution, as its archives call themselves.
    type: str
    default: Debian
  codename:
    description: The release's code name.
    type: str
    default: ''
  packages:
    description:
      - Packages of which RV(offered) tells whether apt could install them. The lists are fetched anew before that where the file changed.
      - In check mode, where the file would change, it is not known, and all of them are told.
    type: list
    elements: str
    default: []
  state:
    description: Whether the components are wanted, or the file is to be gone.
    type: str
    choices: [present, absent]
    default: present
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would change and does nothing.
  diff_mode:
    support: full
    description: Shows the source file before and after.
"""

EXAMPLES = r"""
- name: Take Debian's non-free packages, too
  trainyard.core.package_components:
    owner: nvidia_driver
    components: [contrib, non-free, non-free-firmware]
    codename: bookworm
"""

RETURN = r"""
archives:
  description: URLs of the distribution's archives that the node takes packages from.
  returned: always
  type: list
  elements: str
offered:
  description: Those of O(packages) that apt could install.
  returned: always
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _apt as apt
from ansible_collections.trainyard.core.plugins.module_utils import _apt_sources as sources

ENVIRONMENT = {"LC_ALL": "C.UTF-8"}
PATIENCE = 600  # seconds to wait for another apt


def ask(module: AnsibleModule) -> list[sources.Index]:
    """Ask apt where packages come from; archives whose lists are not there are told without their names for themselves."""
    found = []
    for words in ([], ["--no-release-info"]):
        command = ["apt-get", "indextargets", *words, "--format", sources.INDEX_FORMAT, "Created-By: Packages"]
        rc, output, errors = module.run_command(command, environ_update=ENVIRONMENT)
        if rc:
            module.fail_json(msg=f"apt cannot read the node's package sources: {(errors or output).strip()[-1000:]}")
        found.append(sources.parse_indexes(output))
    return sources.complete(*found)


def update(module: AnsibleModule) -> None:
    """Fetch the package lists. Whether all could be fetched is seen when packages are."""
    apt.wait_for_locks(PATIENCE)
    module.run_command(["apt-get", "-q", "update"], environ_update=ENVIRONMENT)


def offers(module: AnsibleModule, pending: bool) -> list[str]:
    """Return which of the packages apt could install, all of them where the file is yet to be written."""
    names = module.params["packages"]
    if not names or pending:
        return list(names)
    known = apt.parse_candidates(module.run_command(["apt-cache", "policy", *names], environ_update=ENVIRONMENT)[1])
    return [name for name in names if name in known]


def key(index: sources.Index) -> str:
    """Return what an archive has to be signed with after the file that names it."""
    return sources.signed_by(Path(index.file).read_text(errors="replace"), index.file.endswith(".sources"), index.uri, index.suite)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "owner": {"type": "str", "required": True},
            "components": {"type": "list", "elements": "str", "default": []},
            "origin": {"type": "str", "default": "Debian"},
            "codename": {"type": "str", "default": ""},
            "packages": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ["codename"])],
        supports_check_mode=True,
    )
    file = Path(f"/etc/apt/sources.list.d/trainyard-{module.params['owner'].replace('_', '-')}.sources")
    before = file.read_text() if file.is_file() else ""
    after = ""
    archives: list[str] = []
    if module.params["state"] == "present":
        origin, codename = module.params["origin"], module.params["codename"]
        indexes = ask(module)
        if not module.check_mode and any(not index.origin for index in indexes):
            update(module)  # whose an archive is stands in its lists
            indexes = ask(module)
        found = sources.lacking(indexes, origin, codename, module.params["components"], str(file))
        if not found:
            module.fail_json(
                msg=f"The node takes no packages from an archive of {origin} {codename}: nothing in /etc/apt/sources.list or "
                "/etc/apt/sources.list.d names its component main. Add one, or set base_package_mirror."
            )
        archives = list(dict.fromkeys(index.uri for index, _components in found))
        signed = [(index, parts, key(index)) for index, parts in found]
        after = sources.source_file(signed, f"Made by Trainyard ({module.params['owner']}): what the system's own sources leave out.")
    if before != after and not module.check_mode:
        if after:
            beside = file.with_name(file.name + ".new")  # apt reads no file with this ending
            beside.write_text(after)
            beside.chmod(0o644)
            beside.rename(file)
        else:
            file.unlink()
        if module.params["packages"]:
            update(module)
    module.exit_json(
        changed=before != after,
        archives=archives,
        offered=offers(module, pending=before != after and module.check_mode),
        diff={"before_header": str(file), "after_header": str(file), "before": before, "after": after},
    )


if __name__ == "__main__":
    main()
