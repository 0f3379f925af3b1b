#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The system's package sources, or a mirror in their place."""

from __future__ import annotations

DOCUMENTATION = r"""
module: package_mirror
short_description: Takes the distribution's packages from a mirror, or from where the system took them before
version_added: 0.1.0
description:
  - With a URL, writes one source file for the mirror and sets the system's own aside under the ending C(.trainyard-saved).
  - Without one, brings the system's own back. Sources of third parties are never touched.
options:
  url:
    description: URL of the mirror's archive; '' for the system's own sources.
    type: str
    required: true
  security_url:
    description:
      - URL of its security archive. Where it is empty, that is O(url) for Ubuntu, and O(url) with C(-security) after it for Debian,
        as mirrors of the whole archive have it.
    type: str
    default: ''
  distribution:
    description: The distribution, in lower case.
    type: str
    choices: [debian, ubuntu]
    required: true
  codename:
    description: The release's code name.
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
    description: Shows the source file before and after.
extends_documentation_fragment: []
"""

EXAMPLES = r"""
- name: Take packages from the campus
  trainyard.core.package_mirror:
    url: https://mirror.example.edu/debian
    distribution: debian
    codename: bookworm
"""

RETURN = r"""
saved:
  description: The system's own source files that are set aside.
  returned: always
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _base as base
from ansible_collections.trainyard.core.plugins.module_utils._host import locks

ETC = Path("/etc/apt")
OURS = ETC / "sources.list.d" / "trainyard.sources"


@locks.turn("package_mirror")
def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "security_url": {"type": "str", "default": ""},
            "distribution": {"type": "str", "choices": ["debian", "ubuntu"], "required": True},
            "codename": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    url, distribution = module.params["url"], module.params["distribution"]
    system = [ETC / "sources.list", ETC / "sources.list.d" / f"{distribution}.sources"]
    there = [path for path in system if path.is_file() and path.read_text().strip()]
    saved = [path for path in system if _aside(path).is_file()]
    before = OURS.read_text() if OURS.is_file() else ""
    after = ""
    if url:
        security = module.params["security_url"] or base.security_archive(distribution, url)
        parts = base.components([path.read_text() for path in there] + [_aside(path).read_text() for path in saved])
        after = base.mirror_sources(distribution, module.params["codename"], url, security, parts)
    changed = before != after or bool(there if url else saved)
    if changed and not module.check_mode:
        if url:
            beside = OURS.with_name(OURS.name + ".new")  # apt reads no file with this ending
            beside.write_text(after)
            beside.chmod(0o644)
            beside.rename(OURS)
            for path in there:
                path.rename(_aside(path))
        else:
            for path in saved:
                _aside(path).rename(path)
            OURS.unlink(missing_ok=True)
    module.exit_json(
        changed=changed,
        saved=[str(path) for path in (system if url else []) if path in there or path in saved],
        diff={"before_header": str(OURS), "after_header": str(OURS), "before": before, "after": after},
    )


def _aside(path: Path) -> Path:
    return path.with_name(path.name + base.SAVED_SUFFIX)


if __name__ == "__main__":
    main()
