# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Whether a script that has returned knew of the other trainers, as far as the frameworks that it imported show.

Read by trainer.py with whatever Python the environment has (3.8 or newer); it imports nothing of ours, and no framework.
"""

from types import ModuleType
from typing import Callable, Dict, Mapping, Optional

OTHERS = ("horovod", "mpi4py", "byteps", "ray", "dask")
"""Other ways to train together; whoever imports one is not asked further."""

LINE = "No trainer made a process group: unless the script shares its data out, each of the {trainers} trained on all of it."
"""The line at the end of a job whose trainers were all alone."""


def taken_alone(modules: Mapping[str, ModuleType]) -> bool:
    """Whether a trainer surely made no process group; False where that cannot be told.

    It makes sense only where there are several trainers, and where they did not share a file list (TRAINYARD_TRAIN_LIST).

    Args:
        modules: `sys.modules` when the script has returned.
    """
    if any(name in modules for name in OTHERS):
        return False
    found = [joined(modules) for name, joined in JOINED.items() if name in modules]
    return bool(found) and all(each is False for each in found)


def _torch(modules: Mapping[str, ModuleType]) -> Optional[bool]:
    """Whether torch made a process group: it leaves its own excepthook behind, even where the group was destroyed."""
    distributed = modules.get("torch.distributed")
    version = str(getattr(modules["torch"], "__version__", "")).split(".")
    if distributed is None or not getattr(distributed, "is_available", bool)():
        return False
    if getattr(distributed, "is_initialized", bool)() or getattr(modules.get("torch.distributed.rpc.api"), "_ALL_WORKER_NAMES", None):
        return True
    if not (version[0].isdigit() and version[1:] and version[1].isdigit()) or (int(version[0]), int(version[1])) < (2, 1):
        return None  # it leaves nothing behind
    system = modules["sys"]
    return False if system.excepthook is system.__excepthook__ else None if _foreign(system.excepthook) else True


def _foreign(hook: Callable[..., object]) -> bool:
    return getattr(hook, "__module__", "") != "torch.distributed.distributed_c10d"


def _tensorflow(modules: Mapping[str, ModuleType]) -> Optional[bool]:
    """Whether TensorFlow's context knows a cluster, as MultiWorkerMirroredStrategy and ParameterServerStrategy leave it behind."""
    if "tensorflow.python.eager.context" not in modules:
        return None
    context = getattr(modules["tensorflow.python.eager.context"], "_context", None)
    return any(getattr(context, name, None) is not None for name in ("_server_def", "_collective_ops_server_def"))


def _jax(modules: Mapping[str, ModuleType]) -> Optional[bool]:
    """Whether `jax.distributed.initialize` was called; the coordinator's address stays when it is shut down."""
    state = getattr(modules.get("jax._src.distributed"), "global_state", None)
    return getattr(state, "coordinator_address", None) is not None if hasattr(state, "coordinator_address") else None


def _paddle(modules: Mapping[str, ModuleType]) -> Optional[bool]:
    """Whether `paddle.distributed.init_parallel_env` was called, which `fleet.init` does as well."""
    helper = modules.get("paddle.distributed.parallel_helper")
    name = "__parallel_ctx__clz__"
    return getattr(helper, name) is not None if hasattr(helper, name) else None


JOINED: Dict[str, Callable[[Mapping[str, ModuleType]], Optional[bool]]] = {
    "torch": _torch,
    "tensorflow": _tensorflow,
    "jax": _jax,
    "paddle": _paddle,
}
"""What knows of a framework, by the module that the script imported, whether trainers joined; None where it cannot tell."""
