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

import functools
import gc
import os

import ansible.collections.list
from ansible.plugins import loader
from ansible.plugins.strategy.linear import StrategyModule as LinearStrategy

try:
    import mitogen.master
    from ansible_mitogen import affinity, module_finder
    from ansible_mitogen.strategy import StrategyMixin
except ImportError:

    class StrategyModule(LinearStrategy):
        """Ansible's linear strategy, unchanged."""

else:

    @functools.cache
    def _compiled(source, mode):
        return compile(source, "<module>", mode)

    def _compile(source, name, mode, *more, **options):
        return compile(source, name, mode, *more, **options) if more or options else _compiled(source, mode)

    class StrategyModule(StrategyMixin, LinearStrategy):  # type: ignore[no-redef]
        """Ansible's linear strategy with Mitogen's transport.

        Ansible forks a process for each task of each node. What every one of them would do again is done here once, before;
        benchmarks/second_run.py measures what it brings.
        """

        def run(self, iterator, play_context, result=0):
            """Run a play."""
            # To see what a module needs, Mitogen compiles it and all that it imports, most of which is the same for all modules.
            module_finder.compile = mitogen.master.compile = _compile
            # For each task it lists, and so imports, all installed collections, though Ansible's own finder knows them.
            ansible.collections.list.list_collection_dirs = lambda *_words, **_options: ()
            # It gives a core to its multiplexer and leaves the rest to all other processes: of two cores that is one.
            if (os.cpu_count() or 1) < 4:
                affinity.policy = affinity.Policy()
            loader.filter_loader.get("trainyard.core.environments")  # loads all filters, each process would
            gc.freeze()  # else the garbage collector makes each process copy the memory of this one
            return super().run(iterator, play_context, result)
