"""``trainyard resolve``: what fits a machine that need not be there: its driver, CUDA, cuDNN, Python and wheels, and why."""

from __future__ import annotations

import argparse
from typing import Any

from ansible_collections.trainyard.core.plugins.plugin_utils._plan import DEVICES, POLICIES, SOURCES
from ansible_collections.trainyard.core.plugins.plugin_utils._words import answer, node_of

from trainyard import answers, catalog
from trainyard.errors import UsageError

EXAMPLES = """\
examples:
  ./trainyard resolve --gpu "Tesla V100" --os ubuntu-24.04 --framework pytorch --framework tensorflow
  ./trainyard resolve --gpu "RTX 4090" --gpu "RTX 4090" --os debian-12 --framework pytorch --pin cuda=12.6
  ./trainyard resolve --gpu a100 --os debian-12 --framework pytorch+tensorflow     both in one environment
  ./trainyard resolve --os debian-12 --framework caffe                              a machine without a GPU
  ./trainyard resolve --os debian-12 --profile qingcloud-1.1                        a published set of old versions

exit status: 0 with the set; 2 where wishes clash, which is explained; 64 for words that mean nothing
"""


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "resolve",
        help="what fits a machine: driver, CUDA, cuDNN, Python and wheels, and why",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument(
        "--gpu", action="append", default=[], metavar="NAME", help="a GPU of the machine: name, PCI id or sm_70; once for each"
    )
    verb.add_argument("--os", required=True, metavar="OS", help="its operating system, such as debian-12 or ubuntu-24.04")
    verb.add_argument(
        "--framework", action="append", default=[], metavar="NAME", help="a framework, NAME==VERSION, or several with + for one environment"
    )
    verb.add_argument("--pin", action="append", default=[], metavar="NAME=VERSION", help="hold cuda, cudnn, driver, python or a framework")
    verb.add_argument("--profile", default="", metavar="NAME[:VARIANT]", help="a version profile of the catalogue")
    verb.add_argument("--device", default="", choices=DEVICES, metavar="gpu|cpu|any", help="default: the GPU where there is one")
    verb.add_argument("--driver", default="", metavar="VERSION", help="the driver that is installed")
    verb.add_argument("--kernel", default="", metavar="VERSION", help="the kernel that it boots; default: the operating system's own")
    verb.add_argument("--secure-boot", action="store_true", help="it boots signed kernel modules only")
    verb.add_argument("--driver-policy", default="if_needed", choices=POLICIES, help="when an installed driver may be changed")
    verb.add_argument("--driver-modules", default="", metavar="open|proprietary", help="flavour of the kernel module")
    verb.add_argument(
        "--driver-source",
        action="append",
        default=[],
        choices=SOURCES,
        help="where drivers and toolkits may come from; default: the distribution and NVIDIA's repository",
    )
    answers.add_arguments(verb)
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Answer, and return the exit status."""
    rows = catalog.load()
    try:
        node = node_of(rows, "this machine", arguments.os, arguments.gpu, arguments.driver, arguments.secure_boot, arguments.kernel)
        found = answer(rows, [node], _words(arguments), answers.today())
    except ValueError as error:
        raise UsageError(str(error)) from error
    return answers.show(rows, found, arguments)


def _words(arguments: argparse.Namespace) -> dict[str, Any]:
    pins = {}
    for pin in arguments.pin:
        name, found, wanted = pin.partition("=")
        if not found or not wanted.strip("="):
            raise UsageError(f"--pin: '{pin}' is no NAME=VERSION such as cuda=12.6.")
        pins[name] = wanted.lstrip("=")
    return {
        "environments": arguments.framework,
        "pins": pins,
        "profile": arguments.profile,
        "device": arguments.device,
        "driver_policy": arguments.driver_policy,
        "driver_modules": arguments.driver_modules,
        "driver_sources": arguments.driver_source,
    }
