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

import functools
import gc
import os
import pathlib
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.strategy.linear import StrategyModule as LinearStrategy
from ansible.release import __version__
from ansible.utils.display import Display
from ansible_collections.trainyard.core.plugins.plugin_utils._kept import Kept

try:
    import ansible.collections.list
    import mitogen.master
    import mitogen.minify
    from ansible import constants
    from ansible._internal._task import TaskContext
    from ansible._internal._templating._jinja_bits import _TEMPLATE_OVERRIDE_FIELD_NAMES, AnsibleEnvironment, _TemplateCompileContext
    from ansible.executor.task_executor import TaskExecutor
    from ansible.executor.task_result import _RawTaskResult
    from ansible.plugins import loader
    from ansible.utils.fqcn import add_internal_fqcns
    from ansible_mitogen import affinity, connection, module_finder
    from ansible_mitogen.strategy import StrategyMixin
except (ImportError, AttributeError, AnsibleError) as error:
    if find_spec("ansible_mitogen"):
        reason = " ".join(str(error).split()).partition(" (/")[0][:160]
        Display().display(
            f"Mitogen is not used, since it does not fit ansible-core {__version__} ({reason}). Runs are slower, and otherwise the same."
        )

    class StrategyModule(LinearStrategy):
        """Ansible's linear strategy, unchanged."""

else:
    # These do little, and nothing on the node: a process for each would cost more than they do.
    _SMALL = frozenset(constants._ACTION_ALL_INCLUDES + add_internal_fqcns(("assert", "debug", "fail", "validate_argument_spec")))
    _compile_template = AnsibleEnvironment.compile
    _stack_from_spec = connection.Connection._stack_from_spec
    _minimize_source = mitogen.minify.minimize_source
    _templates: dict[Any, Any] = {}
    _kept = Kept(pathlib.Path(constants.config.get_config_value("ANSIBLE_HOME")) / "trainyard")

    @functools.cache
    def _compiled(source: str, mode: str) -> Any:
        return _kept.get(mode, source, lambda text: compile(text, "<module>", mode))

    def _minimized(source: str) -> Any:
        return _kept.get("minimized", source, _minimize_source)

    def _compile(source: str, name: str, mode: str, *more: Any, **options: Any) -> Any:
        return compile(source, name, mode, *more, **options) if more or options else _compiled(source, mode)

    def _template_code(self: Any, source: Any, *more: Any, **options: Any) -> Any:
        if more or options or not isinstance(source, str):  # jinja's own includes, and trees that are parsed already
            return _compile_template(self, source, *more, **options)
        delimiters = tuple(getattr(self, name) for name in _TEMPLATE_OVERRIDE_FIELD_NAMES)
        key = (str(source), delimiters, _TemplateCompileContext.current().escape_backslashes)
        if key not in _templates:
            _templates[key] = _compile_template(self, source)
        return _templates[key]

    def _one_hop(self: Any, spec: Any, *more: Any, **options: Any) -> Any:
        stack = _stack_from_spec(self, spec, *more, **options)
        if [hop["method"] for hop in stack] != ["ssh", "sudo"] or stack[1]["kwargs"]["password"]:  # Mitogen can tell sudo a password
            return stack
        ssh, sudo = (hop["kwargs"] for hop in stack)
        python = [sudo["sudo_path"] or "sudo", "-n", *sudo["sudo_args"], "-u", sudo["username"] or "root", "--", *sudo["python_path"]]
        return ({**stack[0], "kwargs": {**ssh, "python_path": python}},)

    class StrategyModule(StrategyMixin, LinearStrategy):  # type: ignore[no-redef]
        """Ansible's linear strategy with Mitogen's transport.

        Ansible forks a process for each task of each node. What every one of them would do again is done here once, before, and tasks
        that are done on the controller in less time than a fork takes are done without one; benchmarks/second_run.py measures what
        it brings.
        """

        def run(self, iterator: Any, play_context: Any, result: int = 0) -> Any:
            """Run a play."""
            # To see what a module needs, Mitogen compiles it and all that it imports, most of which is the same for all modules and runs.
            module_finder.compile = mitogen.master.compile = _compile
            mitogen.minify.minimize_source = _minimized
            # It starts a Python as the login's user to start another one by sudo from there; sudo can do so at once, as with Ansible's own.
            connection.Connection._stack_from_spec = _one_hop
            # A template is compiled anew for each node and each task, though its text is the same.
            AnsibleEnvironment.compile = _template_code
            # For each task it lists, and so imports, all installed collections, though Ansible's own finder knows them.
            ansible.collections.list.list_collection_dirs = lambda *_words, **_options: ()
            # It gives a core to its multiplexer and leaves the rest to all other processes: of two cores that is one.
            if (os.cpu_count() or 1) < 4:
                affinity.policy = affinity.Policy()
            loader.filter_loader.get("trainyard.core.environments")  # loads all filters, each process would
            # Python looks for garbage after every 700 new objects; templating makes thousands, and nearly all of it is no garbage.
            gc.set_threshold(100_000, 20, 100)
            gc.freeze()  # else the garbage collector makes each process copy the memory of this one
            return super().run(iterator, play_context, result)

        def _queue_task(self, host: Any, task: Any, task_vars: Mapping[str, Any], play_context: Any) -> None:
            """Have a task done: in a process of its own, or here and now where it is a small one."""
            if task.action not in _SMALL or task.delegate_to or task.async_val or task.throttle or task.timeout or task.retries:
                super()._queue_task(host, task, task_vars, play_context)
                return
            self._queued_task_cache[(host.name, task._uuid)] = {
                "host": host,
                "task": task,
                "task_vars": task_vars,
                "play_context": play_context,
            }
            self._tqm.send_callback("v2_runner_on_start", host, task)
            mine = task.copy(exclude_parent=True)  # a task is templated in place, and the play needs it as it was
            mine._parent = task._parent
            with TaskContext(mine):
                done = TaskExecutor(
                    host,
                    mine,
                    dict(task_vars),
                    play_context.copy(),
                    self._loader,
                    loader.get_plugin_loader_namespace(),
                    self._final_q,
                    self._variable_manager,
                ).run()
            self._final_q.send_task_result(_RawTaskResult(host=host, task=task, return_data=done, task_fields=mine.dump_attrs()))
            self._pending_results += 1
