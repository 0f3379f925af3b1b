# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Mitogen's linear strategy where Mitogen is installed, Ansible's own where it is not."""

from __future__ import annotations

DOCUMENTATION = r"""
name: mitogen_if_present
short_description: The linear strategy, through Mitogen where that is installed
version_added: 0.1.0
description:
  - Tasks run in the order of the linear strategy.
  - Where the controller's Python can import C(ansible_mitogen), Mitogen carries them, which is several times faster;
    otherwise Ansible's own transport does, and nothing else changes.
author: Trainyard contributors (@trainyard)
"""

from ansible.plugins.strategy.linear import StrategyModule as LinearStrategy

try:
    from ansible_mitogen.strategy import StrategyMixin
except ImportError:

    class StrategyModule(LinearStrategy):
        """Ansible's linear strategy, unchanged."""

else:

    class StrategyModule(StrategyMixin, LinearStrategy):  # type: ignore[no-redef]
        """Ansible's linear strategy with Mitogen's transport."""
