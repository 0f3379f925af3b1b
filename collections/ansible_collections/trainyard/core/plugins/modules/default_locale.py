#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The locale of logins."""

from __future__ import annotations

DOCUMENTATION = r"""
module: default_locale
short_description: Sets the locale of logins where nobody has set one
version_added: 0.1.0
description:
  - Debian's logins (SSH, console, C(su), cron) read C(/etc/default/locale). Without it their locale is C(POSIX), in which programs
    refuse to print letters outside ASCII.
  - Adds C(LANG) there, under a comment by which it is known again. A C(LANG) or C(LC_ALL) that somebody set there, in
    C(/etc/locale.conf) or in C(/etc/environment) is never overridden.
options:
  locale:
    description: The locale, which the node must have, such as C(C.UTF-8); '' removes the one that this module set.
    type: str
    required: true
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would change and does nothing.
  diff_mode:
    support: full
    description: Shows the file before and after.
"""

EXAMPLES = r"""
- name: Set the locale of logins
  trainyard.core.default_locale:
    locale: C.UTF-8
"""

RETURN = r"""
path:
  description: The file, links resolved.
  returned: always
  type: str
"""

import locale as system_locale
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _locale
from ansible_collections.trainyard.core.plugins.module_utils import _secret_file as secret_file
from ansible_collections.trainyard.core.plugins.module_utils._host import files, locks

PATH = "/etc/default/locale"
OTHERS = ("/etc/locale.conf", "/etc/environment")


def exists(name: str) -> bool:
    """Return whether the node has a locale."""
    try:
        system_locale.setlocale(system_locale.LC_CTYPE, name)
    except (system_locale.Error, ValueError):
        return False
    return True


@locks.turn("default_locale")
def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={"locale": {"type": "str", "required": True}}, supports_check_mode=True)
    wanted = module.params["locale"]
    if wanted and not exists(wanted) and not module.check_mode:  # in check mode it may be yet to come
        module.fail_json(
            msg=f"base_locale: this node has no locale '{wanted}'. `locale -a` there lists those that it has, C.UTF-8 among them. "
            "Debian's package locales makes others."
        )
    path = os.path.realpath(PATH)  # Debian 13 has a link to /etc/locale.conf there
    before = secret_file.read(path)
    others = [secret_file.read(other) for other in OTHERS if os.path.realpath(other) != path]
    after = _locale.renewed(before, others, wanted)
    if after != before and not module.check_mode:
        if after:
            files.write(path, after, 0o644)
        else:
            os.unlink(path)
    module.exit_json(
        changed=after != before,
        path=path,
        diff={"before_header": path, "after_header": path, "before": before, "after": after},
    )


if __name__ == "__main__":
    main()
