#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A TLS certificate with its key."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_certificate
short_description: Keeps a TLS certificate and its key in one file, given or self-made
version_added: 0.1.0
description:
  - Writes key and certificate into one file of root's with mode 0600, as servers read it, so that the two can only change together.
  - Without O(certificate), makes a certificate of its own, once, and a new one when it is about to expire, when a name is missing in it, or
    when the file is damaged.
  - With O(certificate) and O(private_key), checks that they belong together and have not expired, before the file is replaced.
  - Needs the program C(openssl) on the node for self-made certificates and nothing beside Python for given ones.
options:
  path:
    description: File for key and certificate; folders above it that are missing are made with mode 0755.
    type: path
    required: true
  names:
    description: Host names and IP addresses that a self-made certificate is for.
    type: list
    elements: str
    default: [localhost]
  own_address:
    description: Whether a self-made certificate is also for the address that the node has on the way to its default gateway, if it has one.
    type: bool
    default: false
  days:
    description: How long a self-made certificate is valid. Some browsers refuse more than 825.
    type: int
    default: 825
  renew_days:
    description: A self-made certificate is replaced when it has fewer days left.
    type: int
    default: 90
  certificate:
    description: Text of a certificate of one's own (PEM), followed by its chain.
    type: str
  private_key:
    description: Text of the certificate's key (PEM), without a passphrase.
    type: str
  service:
    description: The service that shows the certificate. It is returned with the fingerprint, which the report tells people to compare.
    type: dict
    suboptions:
      name:
        description: Its name, as people call it.
        type: str
        required: true
      port:
        description: Its port.
        type: int
        required: true
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would be done and does nothing.
  diff_mode:
    support: full
    description: Shows names, end and fingerprint of the certificates, never a key.
"""

EXAMPLES = r"""
- name: Have a certificate for the notebook
  trainyard.core.tls_certificate:
    path: /etc/trainyard/jupyter/tls.pem
    names: [localhost, 127.0.0.1, gpu1.lab.example.org]

- name: Install the certificate that the computing centre gave
  trainyard.core.tls_certificate:
    path: /etc/trainyard/jupyter/tls.pem
    certificate: "{{ lookup('ansible.builtin.file', 'files/gpu1.pem') }}"
    private_key: "{{ lookup('ansible.builtin.file', 'files/gpu1.key') }}"
"""

RETURN = r"""
reason:
  description: Why the file was, or in check mode would be, written; empty when it was right.
  returned: always
  type: str
  sample: it expires within 90 days
certificate:
  description: The certificate that is in the file (PEM, public), for those who want to trust it; empty when there is none yet.
  returned: always
  type: str
fingerprint:
  description: SHA-256 fingerprint of the certificate, as browsers show it; empty when there is none yet.
  returned: always
  type: str
not_after:
  description: When the certificate expires, in UTC; empty when there is none yet.
  returned: always
  type: str
  sample: "2028-11-20T10:00:00Z"
web_service:
  description: The service with its name, its port, and the certificate's fingerprint.
  returned: when I(service) is given and there is a certificate
  type: dict
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _secret_file as secret_file
from ansible_collections.trainyard.core.plugins.module_utils import _tls as tls
from ansible_collections.trainyard.core.plugins.module_utils._host import locks
from ansible_collections.trainyard.core.plugins.module_utils._host.reported import ReportedError


def moment(seconds: float) -> str:
    """Return a time in UTC as people and machines read it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def look(bundle: str) -> tls.Certificate | None:
    """Return what is in a file, or None where nothing usable is."""
    try:
        return tls.inspect(bundle, bundle)
    except tls.TlsError:
        return None


def shown(found: tls.Certificate | None) -> str:
    """Return a certificate for a diff."""
    if not found:
        return ""
    return f"names: {' '.join(sorted(found.names))}\nexpires: {moment(found.expires)}\nfingerprint: {found.fingerprint}\n"


def make(module: AnsibleModule, names: list[str]) -> str:
    """Return the text of a new self-made certificate with its key; both come through a pipe, no temporary file holds the key."""
    openssl = module.get_bin_path("openssl")
    if not openssl:
        module.fail_json(msg="A self-made certificate needs the program openssl. Install it with: apt-get install openssl")
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-sha256"]
    command += ["-days", str(module.params["days"]), "-config", "/dev/stdin", "-keyout", "/dev/stdout"]
    try:
        asked = tls.request(names)
    except ReportedError as error:
        module.fail_json(msg=str(error))
    status, output, errors = module.run_command(command, data=asked)
    if status:
        module.fail_json(msg=f"openssl could not make a certificate for {', '.join(names)}: {errors.strip()}")
    return str(output)


@locks.turn("tls_certificate")
def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "names": {"type": "list", "elements": "str", "default": ["localhost"]},
            "own_address": {"type": "bool", "default": False},
            "days": {"type": "int", "default": 825},
            "renew_days": {"type": "int", "default": 90},
            "certificate": {"type": "str"},
            "private_key": {"type": "str", "no_log": True},
            "service": {
                "type": "dict",
                "options": {"name": {"type": "str", "required": True}, "port": {"type": "int", "required": True}},
            },
        },
        required_together=[("certificate", "private_key")],
        supports_check_mode=True,
    )
    params = module.params
    path = params["path"]
    names = params["names"] + ([tls.own_address()] if params["own_address"] and tls.own_address() else [])
    present = secret_file.read(path)
    if params["certificate"]:
        try:
            tls.inspect(params["certificate"], params["private_key"])
        except tls.TlsError as error:
            module.fail_json(msg=f"certificate and private_key cannot be used: {error}.")
        wanted = tls.bundle_of(params["certificate"], params["private_key"])
        reason = "" if present == wanted else "it is not the one given"
    else:
        wanted = ""
        reason = tls.why_new(present, names, time.time(), params["renew_days"])
    before = after = look(present) if present else None
    coming = ""
    if not reason and not secret_file.is_private(path):
        wanted, reason = present, "others than root may read it"
    if reason and not module.check_mode:
        secret_file.write(path, wanted or make(module, names))
        after = look(secret_file.read(path))
    elif reason and wanted:
        after = look(wanted)
    elif reason:
        coming = f"names: {' '.join(sorted(set(names)))}\n"
    shown_by = {"web_service": {**params["service"], "fingerprint": after.fingerprint}} if params["service"] and after else {}
    module.exit_json(
        changed=bool(reason),
        reason=reason,
        **shown_by,
        certificate=after.pem if after else "",
        fingerprint=after.fingerprint if after else "",
        not_after=moment(after.expires) if after else "",
        diff={"before": shown(before), "after": coming or shown(after)},
    )


if __name__ == "__main__":
    main()
