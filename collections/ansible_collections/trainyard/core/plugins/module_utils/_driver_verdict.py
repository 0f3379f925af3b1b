# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Whether the NVIDIA driver of a node is as wanted and works, from what the module gpu_info found; and whether a node may be rebooted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Found = Mapping[str, Any]
"""What the module gpu_info returns."""


@dataclass(frozen=True)
class Wanted:
    """What the plan says.

    Attributes:
        branch: branch of the driver; 0 for any.
        release: exact version, where one is planned; empty for any of the branch.
        modules: flavour of the kernel modules, ``open`` or ``proprietary``; empty for either.
    """

    branch: int = 0
    release: str = ""
    modules: str = ""

    def has(self, version: str) -> bool:
        """Return whether a driver's version is as planned."""
        return version == self.release if self.release else not self.branch or _branch(version) == self.branch

    def __str__(self) -> str:
        return f"version {self.release}" if self.release else f"branch {self.branch}"


@dataclass(frozen=True)
class Problem:
    """Something that is not right, as one sentence or two: what it is, and what to do.

    Attributes:
        reboot: whether booting the next kernel is the cure.
        blocks: whether the node would be worse off after a reboot.
    """

    text: str
    reboot: bool = False
    blocks: bool = False


def verdict(found: Found, wanted: Wanted) -> dict[str, Any]:
    """Judge a node's driver.

    Args:
        found: what gpu_info found.
        wanted: what the plan says.

    Returns:
        ``problems``: a sentence for each; ``reboot``: whether a reboot cures one of them and nothing speaks against it; ``warnings``; and
        ``not_judged``: what could not be looked at, and why.
    """
    problems = _on_disk(found, wanted)
    not_judged = []
    if found["pci"]:
        problems += _running(found, wanted)
    else:
        not_judged.append(
            "No NVIDIA GPU is on the bus: whether the driver loads, which version answers, Secure Boot and nouveau were not judged."
        )
    kernels = found["kernels"]
    if not kernels["next"]:
        not_judged.append(
            "No kernel that could be booted is installed, as in a container: the modules are judged by the headers that are there."
        )
    return {
        "problems": [problem.text for problem in problems],
        "reboot": any(problem.reboot for problem in problems) and not any(problem.blocks for problem in problems),
        "warnings": _warnings(found),
        "not_judged": not_judged,
    }


def _on_disk(found: Found, wanted: Wanted) -> list[Problem]:
    problems = []
    kernels = found["kernels"]
    if found["nvidia_smi"]["problem"] == "missing":
        problems.append(
            Problem("nvidia-smi is not installed: the driver's packages are incomplete. Run the role again, and look at what apt says.")
        )
    if found["dkms"]["problem"]:
        problems.append(Problem(f"dkms status did not answer properly ({found['dkms']['problem']}): run it by hand and mend what it says."))
    for entry in found["dkms"]["entries"]:
        if entry["module"].startswith("nvidia") and not entry["intact"]:
            kernel = f" for the kernel {entry['kernel']}" if entry["kernel"] else ""
            problems.append(
                Problem(
                    f"What DKMS has of {entry['module']}/{entry['version']}{kernel} is not what it built "
                    f"({entry['note'] or entry['state']}). Build it again: "
                    f"dkms remove {entry['module']}/{entry['version']} --all, then dkms autoinstall.",
                    blocks=entry["kernel"] in {"", kernels["next"]},
                )
            )
    for kernel in kernels["installed"]:
        following = kernel["version"] == kernels["next"]
        # Headers alone get a module where DKMS builds them; modules that come built are there for kernels that can be started.
        if following or (kernel["headers"] and (found["dkms"]["present"] or kernel["image"])):
            problems += _of_kernel(kernel, following, wanted, found["dkms"]["present"])
    return problems


def _of_kernel(kernel: Mapping[str, Any], following: bool, wanted: Wanted, dkms: bool) -> list[Problem]:
    name = f"the kernel {kernel['version']}" + (", which boots next," if following else "")
    if not kernel["nvidia_module"] and not dkms:
        return [
            Problem(
                f"There is no NVIDIA module for {name} and no DKMS that would build one. "
                "Run the role again: it brings the distribution's own, or DKMS where that has none.",
                blocks=following,
            )
        ]
    if not kernel["nvidia_module"] and not kernel["headers"]:
        return [
            Problem(
                f"There is no NVIDIA module for {name} because its headers are not there, and the package sources no longer have them. "
                "Bring the kernel up to date (apt-get install linux-image-amd64, on Ubuntu linux-image-generic), and run the role again.",
                blocks=following,
            )
        ]
    if not kernel["nvidia_module"]:
        return [
            Problem(
                f"There is no NVIDIA module for {name} although its headers are there: the build failed or was never made. "
                f"Try dkms autoinstall -k {kernel['version']}; /var/lib/dkms/*/*/build/make.log says why it fails.",
                blocks=following,
            )
        ]
    problems = []
    version, flavour = kernel["nvidia_module_version"], kernel["nvidia_module_flavour"]
    if version and not wanted.has(version):
        problems.append(
            Problem(
                f"The module for {name} is of version {version}, and the plan says {wanted}. "
                "Look for a driver from another source (dpkg -S, dkms status), and remove it.",
                blocks=following,
            )
        )
    if wanted.modules and flavour and flavour != wanted.modules:
        problems.append(
            Problem(
                f"The module for {name} is the {flavour} one, and the plan says {wanted.modules}. Remove the other one.", blocks=following
            )
        )
    return problems


def _running(found: Found, wanted: Wanted) -> list[Problem]:
    problems = []
    loaded = found["modules"]
    smi = found["nvidia_smi"]
    if loaded["nouveau"]:
        keeps = (
            "It is blacklisted now, so that a reboot gets rid of it"
            if loaded["nouveau_blacklisted"]
            else "Nothing keeps it from being loaded: the file in /etc/modprobe.d is missing or overridden; run the role again, then reboot"
        )
        problems.append(Problem(f"nouveau is loaded and has the GPUs. {keeps}.", reboot=loaded["nouveau_blacklisted"]))
    if smi["problem"] and smi["problem"] != "missing":
        problems += _silent(found)
    elif not smi["problem"]:
        on_disk = _kernel(found, found["kernels"]["running"]).get("nvidia_module_version", "")
        if smi["driver_version"] and not wanted.has(smi["driver_version"]):
            problems.append(
                Problem(
                    f"nvidia-smi answers with version {smi['driver_version']}, and the plan says {wanted}. "
                    "The new one runs after a reboot, or once nothing uses the GPUs and the modules are loaded anew.",
                    reboot=True,
                )
            )
        elif on_disk and loaded["version"] and on_disk != loaded["version"]:
            problems.append(
                Problem(
                    f"The module in memory is of version {loaded['version']}, the one on disk of {on_disk}. A reboot loads it.", reboot=True
                )
            )
    return problems + _of_devices(found)


def _silent(found: Found) -> list[Problem]:
    """Say why nvidia-smi does not answer."""
    loaded, smi, kernels = found["modules"], found["nvidia_smi"], found["kernels"]
    said = f"nvidia-smi says: {smi['message'].rstrip('.')}." if smi["message"] else "nvidia-smi does not answer."
    kind = smi["problem"]
    if kind == "mismatch":
        library = smi["library_version"] or "another version"
        return [
            Problem(
                f"The module in memory is of version {loaded['version'] or 'unknown'}, the library of {library}: "
                "they do not fit together. A reboot loads the module that was installed with the library.",
                reboot=True,
            )
        ]
    if kind == "no_driver":
        return _not_loaded(found, said)
    if kind == "no_devices":
        flavour = f"the {loaded['flavour']} modules" if loaded["flavour"] else "the modules"
        return [
            Problem(
                f"The driver is loaded and finds no GPU of its own among the {len(found['pci'])} on the bus. {said} Either {flavour} of "
                f"version {loaded['version'] or 'unknown'} do not drive these GPUs "
                "(open ones need Turing or newer, Blackwell needs open ones), or another driver has them; journalctl -k says which."
            )
        ]
    if kind == "fallen_off":
        if smi["lost"] or not all(device["responding"] for device in found["pci"]):
            return []  # each is named
        return [
            Problem(f"A GPU has fallen off the bus. {said} Power the node off and on; if it comes again, look at power, slot and cooling.")
        ]
    if kind == "timeout":
        return [Problem(f"{said} A GPU hangs: look for Xid in journalctl -k, and power the node off and on.")]
    return [Problem(f"{said} The kernel {kernels['running']} runs; look at journalctl -k.")]


def _not_loaded(found: Found, said: str) -> list[Problem]:
    loaded, kernels = found["modules"], found["kernels"]
    if loaded["nouveau"]:
        return []  # said already
    running = _kernel(found, kernels["running"])
    if not running.get("nvidia_module"):
        text = f"There is no NVIDIA module for the kernel {kernels['running']}, which runs."
        if kernels["next"] and kernels["next"] != kernels["running"] and _kernel(found, kernels["next"]).get("nvidia_module"):
            return [Problem(f"{text} There is one for {kernels['next']}, which boots next: reboot.", reboot=True)]
        return [Problem(f"{text} Install its headers (linux-headers-{kernels['running']}), and run the role again.")]
    if found["secure_boot"] == "enabled" and "nvidia" not in loaded["loaded"]:
        if "/updates/" not in running["nvidia_module"] and not found["dkms"]["present"]:
            return [
                Problem(
                    "Secure Boot is on and the kernel did not take the NVIDIA module, which came built and signed. "
                    f"Look who signed it and whose keys the kernel takes (modinfo -F signer {running['nvidia_module']}; keyctl show "
                    "%:.builtin_trusted_keys): module and kernel have to be the distribution's own."
                )
            ]
        return [
            Problem(
                "Secure Boot is on and the kernel did not take the NVIDIA module: it is not signed, or its key is not enrolled. "
                "Enrol the key that DKMS signs with (mokutil --import /var/lib/dkms/mok.pub), reboot and confirm on the console, "
                "or switch Secure Boot off in the firmware."
            )
        ]
    return [
        Problem(
            f"The NVIDIA module for the kernel {kernels['running']} is there and is not loaded. {said} "
            "Try modprobe nvidia; journalctl -k says why it fails."
        )
    ]


def _of_devices(found: Found) -> list[Problem]:
    problems = []
    smi = found["nvidia_smi"]
    listed = {gpu["address"] for gpu in smi["gpus"]}
    lost = set(smi["lost"])
    for device in found["pci"]:
        address = device["address"]
        if not device["responding"] or address in lost:
            problems.append(
                Problem(
                    f"The GPU {address} has fallen off the bus. "
                    "Power the node off and on; if it comes again, look at power, slot and cooling."
                )
            )
        elif smi["gpus"] and address not in listed and not device["virtual_function"]:
            holder = f"the driver {device['driver']} has it" if device["driver"] not in {"", "nvidia"} else "the driver did not start it"
            problems.append(
                Problem(
                    f"The GPU {address} (device {device['device']}) is on the bus and nvidia-smi does not list it: {holder}. "
                    "It may need the other flavour of modules or a newer branch; journalctl -k says why."
                )
            )
    return problems


def _warnings(found: Found) -> list[str]:
    smi = found["nvidia_smi"]
    warnings = [f"The GPU {gpu['address']} reports {', '.join(gpu['errors'])}." for gpu in smi["gpus"] if gpu["errors"]]
    for kernel in found["kernels"]["installed"]:
        if kernel["image"] and not kernel["headers"] and not kernel["nvidia_module"] and kernel["version"] != found["kernels"]["next"]:
            warnings.append(f"The kernel {kernel['version']} has no headers and no NVIDIA module; it does not boot next.")
    return warnings


def _kernel(found: Found, version: str) -> Mapping[str, Any]:
    return next((kernel for kernel in found["kernels"]["installed"] if kernel["version"] == version), {})


def _branch(version: str) -> int:
    first = version.partition(".")[0]
    return int(first) if first.isdigit() else 0


FIRST_PERSON, LAST_PERSON = 1000, 60000
"""Numbers of accounts that belong to people on Debian; services have others."""


def busy(found: Found, processes: Iterable[str], own: str) -> list[str]:
    """Return why a node is not idle; empty when nobody would notice a reboot.

    Args:
        found: what gpu_info found.
        processes: lines with the number and the name of each process's account, as ``ps -eo uid=,user:64=`` prints them.
        own: the account that the play logs in with.
    """
    reasons = []
    people = set()
    for line in processes:
        number, _space, name = line.strip().partition(" ")
        if number.isdigit() and FIRST_PERSON <= int(number) < LAST_PERSON and name.strip() != own:
            people.add(name.strip())
    if people:
        reasons.append(f"processes of {', '.join(sorted(people))} run")
    smi = found["nvidia_smi"]
    for gpu in smi["gpus"]:
        if gpu["processes"] is None:
            reasons.append(f"the GPU {gpu['address']} does not say whether it computes")
        elif gpu["processes"]:
            reasons.append(f"the GPU {gpu['address']} computes for {gpu['processes']} processes")
    if smi["problem"] and "nvidia" in found["modules"]["loaded"]:
        reasons.append("a driver is loaded and nvidia-smi cannot tell whether a GPU computes")
    return reasons
