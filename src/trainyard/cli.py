"""The command line: one verb, one file in commands/."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ansible_collections.trainyard.core.plugins.module_utils._host.reported import printable

from trainyard import ansible_options, inventory
from trainyard.commands import add_node, apply, down, drain, init, plan, reboot, remove_node, resolve, resume, test, undo, up, verify
from trainyard.errors import TrainyardError, UsageError
from trainyard.paths import REPOSITORY

VERBS = (up, down, init, resolve, plan, apply, verify, add_node, remove_node, drain, resume, reboot, undo, test)
USAGE = 64  # EX_USAGE of sysexits.h

EXAMPLES = """\
examples:
  ./trainyard up                                a lab of three nodes on this machine, trained and proven
  ./trainyard init mylab                        an inventory of your own servers, by six questions
  ./trainyard resolve --gpu a100 --os debian-12 --framework pytorch
                                                what fits a machine, and why
  ./trainyard plan -i inventory/mylab           what fits your own servers, and why
  ./trainyard apply -i inventory/mylab --check  what would change on your own servers
  ./trainyard apply -i inventory/mylab          bring them there
  ./trainyard verify -i inventory/mylab         train every framework again and say what works
  ./trainyard add-node -i inventory/mylab gpu5 --address 192.0.2.15
                                                bring one more machine into the cluster, and prove it
  ./trainyard reboot -i inventory/mylab         reboot the nodes that compute one after another, each once its jobs have ended
  ./trainyard undo -i inventory/mylab --check   what an undo would remove from your own servers
  ./trainyard down                              take the lab on this machine away
"""


class Parser(argparse.ArgumentParser):
    """An argument parser that ends with 64 for unusable words, since 2 is an answer of the resolver."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and end."""
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


class Version(argparse.Action):
    """Prints the version, and the commit where the checkout has one."""

    def __call__(self, parser: argparse.ArgumentParser, *_found: object) -> NoReturn:
        """Print and end."""
        print(version())
        parser.exit()


def version() -> str:
    """Return the version that pyproject.toml has, with the commit of the checkout, and whether files differ from it."""
    number = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    commit = ""
    if (REPOSITORY / ".git").exists():
        command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--exclude=*"]
        try:
            commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):  # no git here, or a checkout of somebody else's
            commit = ""
    return f"trainyard {number}" + (f" (commit {commit})" if commit else "")


def parser() -> Parser:
    """Return the parser of all verbs."""
    top = Parser(
        prog="trainyard",
        description="Turns bare Linux machines into a deep-learning lab that provably trains.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=Version, nargs=0, help="print the version and the commit of this checkout")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS:
        verb.register(verbs)
    return top


def _denied(error: PermissionError) -> str:
    """Return which file may not be used, whose it is, and what to do."""
    path = Path(str(error.filename or "."))
    there = next((place for place in (path, *path.absolute().parents) if os.access(place, os.F_OK)), path)
    try:
        owner = there.owner()
    except (OSError, KeyError):
        owner = "somebody else"
    advice = "Use a checkout of your own: git clone it into your home." if REPOSITORY in path.absolute().parents else ""
    return f"{path}: {error.strerror}. {there} belongs to {owner}. {advice}".rstrip()


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status.

    Returns:
        0 when all went well; 1 when a node did not converge, a proof failed or something the user can mend is wrong; 2 when wishes clash;
        64 for unusable words; 130 when interrupted.
    """
    arguments = parser().parse_args(words)
    try:
        if getattr(arguments, "inventory", None):
            inventory.check(arguments.inventory)
        with ansible_options.in_force(arguments):
            return int(arguments.run(arguments))
    except UsageError as error:
        print(f"trainyard: {printable(error)}", file=sys.stderr)
        return USAGE
    except TrainyardError as error:
        print(f"trainyard: {printable(error)}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"trainyard: {_denied(error)}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("trainyard: interrupted; the same command again goes on from here.", file=sys.stderr)
        return 130
