# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Mitogen's linear strategy where Mitogen works with this ansible-core, Ansible's own where it does not."""

from __future__ import annotations

DOCUMENTATION = r"""
name: mitogen_if_present
short_description: The linear strategy, through Mitogen where that is installed
version_added: 0.1.0
description:
  - Tasks run in the order of the linear strategy.
  - Where the controller's Python can import C(ansible_mitogen), Mitogen carries them, which is several times faster;
    otherwise Ansible's own transport does, and nothing else changes.
  - Both Mitogen and this strategy use internals of ansible-core, which differ between its releases. With a release that does not fit,
    Ansible's own strategy runs, and one line says so.
author: Trainyard contributors (@trainyard)
"""

from importlib.util import find_spec

from ansible.errors import AnsibleError
from ansible.plugins.strategy.linear import StrategyModule as LinearStrategy
from ansible.release import __version__
from ansible.utils.display import Display

if find_spec("ansible_mitogen") is None:
    StrategyModule = LinearStrategy
else:
    try:
        from ansible_collections.trainyard.core.plugins.plugin_utils._mitogen_strategy import StrategyModule
    except (ImportError, AttributeError, AnsibleError) as error:
        reason = " ".join(str(error).split()).partition(" (/")[0][:160]
        Display().display(
            f"Mitogen is not used, since it does not fit ansible-core {__version__} ({reason}). Runs are slower, and otherwise the same."
        )
        StrategyModule = LinearStrategy
