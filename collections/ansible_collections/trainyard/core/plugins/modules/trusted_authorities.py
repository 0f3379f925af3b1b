#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The certificate authorities that a Debian system trusts beside the distribution's."""

from __future__ import annotations

DOCUMENTATION = r"""
module: trusted_authorities
short_description: Makes a Debian system trust exactly the given certificate authorities beside its own
version_added: 0.1.0
description:
  - Keeps files C(trainyard-NAME.crt) in C(/usr/local/share/ca-certificates) and the bundle in C(/etc/ssl/certs) in line with each other.
  - Whether the bundle has to be made anew is seen from its content, so a run that was killed in between is put right by the next one.
  - Certificates that others put there stay.
options:
  certificates:
    description: Name of a certificate -> its text in PEM form. Those that an earlier run added and that are no longer listed are removed.
    type: dict
    required: true
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would change and does nothing.
  diff_mode:
    support: full
    description: Lists the files before and after.
extends_documentation_fragment: []
"""

EXAMPLES = r"""
- name: Trust the campus
  trainyard.core.trusted_authorities:
    certificates:
      campus.crt: "{{ lookup('ansible.builtin.file', 'files/campus.crt') }}"
"""

RETURN = r"""
bundle_renewed:
  description: Whether the bundle was, or in check mode would be, made anew.
  returned: always
  type: bool
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._host import locks

FOLDER = Path("/usr/local/share/ca-certificates")
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
PREFIX = "trainyard-"


def _body(pem: str) -> str:
    return "".join(pem.split())


@locks.turn("trusted_authorities")
def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={"certificates": {"type": "dict", "required": True}}, supports_check_mode=True)
    wanted = {f"{PREFIX}{Path(name).stem}.crt": str(pem).strip() + "\n" for name, pem in module.params["certificates"].items()}
    have = {path.name: path.read_text() for path in FOLDER.glob(f"{PREFIX}*.crt")}

    write = {name: pem for name, pem in wanted.items() if have.get(name) != pem}
    remove = sorted(set(have) - set(wanted))
    bundle = _body(BUNDLE.read_text()) if BUNDLE.is_file() else ""
    gone = [link for link in BUNDLE.parent.glob(f"{PREFIX}*.pem") if not link.exists()]
    stale = bool(write or remove or gone) or any(_body(pem) not in bundle for pem in wanted.values())

    if stale and not module.check_mode:
        command = module.get_bin_path("update-ca-certificates")
        if not command:
            module.fail_json(msg="update-ca-certificates is not there: install the package ca-certificates first.")
        for name, pem in write.items():
            host_files.write(FOLDER / name, pem, 0o644)
        for name in remove:
            (FOLDER / name).unlink()
        module.run_command([command, "--fresh"] if remove or gone else [command], check_rc=True, umask=0o022)
    module.exit_json(
        changed=stale,
        bundle_renewed=stale,
        diff={"before": "".join(f"{name}\n" for name in sorted(have)), "after": "".join(f"{name}\n" for name in sorted(wanted))},
    )


if __name__ == "__main__":
    main()
