#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Check that apt's sources answer, where package lists have to be fetched."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_sources_check
short_description: Check that apt's sources answer, where package lists have to be fetched
version_added: 0.1.0
description:
  - Fetches the release file of each of apt's sources to a temporary folder, by apt's own programs and settings, and fails where one of them
    cannot be had. That is known before anything changes.
  - Asks nobody where the packages are installed, or the lists that are there offer them.
  - A source that is trusted without a signature may have no release file; then its index of packages has to be there.
  - Changes nothing.
options:
  packages:
    description: The packages that will be installed.
    type: list
    elements: str
    required: true
  https:
    description: Whether sources by https are asked too. Their authority may be yet to come.
    type: bool
    default: true
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: The module only looks.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Check that apt's sources answer
  trainyard.core.apt_sources_check:
    packages: [tmux, screen]
"""

RETURN = r"""
# nothing but what every module returns
"""

import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _apt as apt
from ansible_collections.trainyard.core.plugins.module_utils import _apt_sources as sources

HELPER = "/usr/lib/apt/apt-helper"
PATIENCE = ["-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20", "-o", "Acquire::Retries=1"]


def problem(urls: list[str]) -> str:
    """Return why none of a repository's files can be fetched, '' where one can."""
    said = ""
    with tempfile.TemporaryDirectory(prefix="trainyard-sources-") as folder:
        for url in urls:
            done = subprocess.run(
                [HELPER, *PATIENCE, "download-file", url, os.path.join(folder, "file")],
                capture_output=True, text=True, errors="replace", check=False, env={**os.environ, "LC_ALL": "C.UTF-8"},
            )  # fmt: skip
            if done.returncode == 0:
                return ""
            said = said or sources.complaint(done.stderr + done.stdout)
            if "404" not in said:  # it does not answer at all
                break
    return said


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "required": True},
            "https": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )

    def ask(*words: str) -> str:
        return str(module.run_command(list(words), environ_update={"LC_ALL": "C.UTF-8"})[1])

    if not os.path.exists(HELPER):
        module.exit_json(changed=False)
    status = apt.parse_status(ask("dpkg-query", "--show", "--showformat", "${binary:Package}\\t${db:Status-Abbrev}\\n"))
    missing = {name for name in module.params["packages"] if not apt.is_installed(status.get(name, ""))}
    if not missing or missing <= apt.parse_candidates(ask("apt-cache", "policy", *sorted(missing))):
        module.exit_json(changed=False)
    asked = sources.release_files(ask("apt-get", "update", "--print-uris"))
    asked = {url: others for url, others in asked.items() if module.params["https"] or not url.startswith("https:")}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(problem, [[url, *others] for url, others in asked.items()]))
    wrong = [f"{url} ({why})" for url, why in zip(asked, answers) if why]  # noqa: B905  # Python 3.9 has no strict
    if wrong:
        module.fail_json(
            msg=f"apt cannot fetch {'; '.join(wrong)}. See that the node reaches it, by base_proxy where a proxy is the only way out. "
            "Correct or remove the source where it is named (grep -r in /etc/apt), or set base_package_mirror."
        )
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
