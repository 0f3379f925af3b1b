# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""What a node has of NVIDIA: devices, driver, kernel modules, DKMS, Secure Boot and kernels.

Everything but the last part of this file turns text into values and reads nothing. The last part reads files below a root folder.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

MODULES = ("nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_drm", "nvidia_peermem", "nouveau", "nova_core")

# --- nvidia-smi -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gpu:
    """One GPU as ``nvidia-smi -q -x`` shows it.

    Attributes:
        address: PCI address as sysfs writes it.
        memory_mib: None where it cannot be read, or where the GPU has no memory of its own.
        mig: ``enabled``, ``disabled``, or empty where there is no such thing.
        mig_devices: MIG devices that exist now.
        processes: running compute processes; None where that is not known.
        errors: fields that hold an error instead of a value, as ``field: text``.
    """

    address: str
    uuid: str = ""
    name: str = ""
    memory_mib: int | None = None
    mig: str = ""
    mig_devices: int = 0
    compute_mode: str = ""
    persistence: bool | None = None
    processes: int | None = None
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Smi:
    """What ``nvidia-smi`` answered.

    Attributes:
        problem: empty, or ``mismatch``, ``no_devices``, ``no_driver``, ``fallen_off``, ``missing``, ``timeout``, ``other``.
        message: first line that is no part of the report; says the problem, or a warning.
        library_version: of the library that does not fit the loaded module, where it says so.
        lost: PCI addresses of the GPUs that are lost, where they are told.
        gpus: can be filled though there is a problem, when one of several GPUs is lost.
    """

    problem: str = ""
    message: str = ""
    rc: int | None = None
    driver_version: str = ""
    cuda_version: str = ""
    library_version: str = ""
    lost: list[str] = field(default_factory=list)
    gpus: list[Gpu] = field(default_factory=list)


_PROBLEMS = (
    ("mismatch", re.compile(r"Driver/library version mismatch", re.I)),
    ("no_driver", re.compile(r"couldn'?t communicate with the NVIDIA driver|Failed to initialize NVML: Driver Not Loaded", re.I)),
    ("fallen_off", re.compile(r"Unable to determine the device handle|GPU is lost|has fallen off the bus", re.I)),
    ("no_devices", re.compile(r"No devices were found|No supported GPUs were found", re.I)),
)
# The exit statuses that nvidia-smi(1) gives a meaning, for texts that are worded in another way.
_STATUSES = {9: "no_driver", 15: "fallen_off", 18: "mismatch"}
_ADDRESS = re.compile(r"^\s*(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})(?:\.([0-7]))?\s*$", re.I)
_LOST = re.compile(r"device handle for GPU\s*(?:\d+:\s*)?([0-9a-f]{4,8}:[0-9a-f]{1,2}:[0-9a-f]{1,2}\.[0-7])", re.I)
_ERROR = re.compile(r"^\[?(?:ERR!?|Unknown Error|GPU is lost|GPU (?:requires|needs) (?:a )?reset|Reset required)\]?\.?$", re.I)
_NOTHING = re.compile(
    r"^\[?(?:N/?A|Not (?:Available|Supported|Found|Active)|Insufficient Permissions|None|Requested functionality has been deprecated)?\]?$",
    re.I,
)
# Command lines of other people's processes and control characters are not always escaped; nothing here is wanted of them.
_NOISE = (
    re.compile(r"<process_name>.*?</process_name>", re.S),
    re.compile(r"<supported_clocks>.*?</supported_clocks>", re.S),
    re.compile(r"<!DOCTYPE[^<>\[]*>"),
    re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]"),
)


def pci_address(text: str) -> str:
    """Return a PCI address as sysfs writes it (``0000:01:00.0``); empty for a text that is none."""
    match = _ADDRESS.match(text)
    if not match:
        return ""
    domain, bus, device, function = match.groups()
    return f"{int(domain or '0', 16):04x}:{int(bus, 16):02x}:{int(device, 16):02x}.{function or '0'}"


def _value(element: ElementTree.Element, *paths: str) -> str:
    """Return the first of several fields that holds a value; neither N/A nor an error is one."""
    for path in paths:
        text = (element.findtext(path) or "").strip()
        if not _NOTHING.match(text) and not _ERROR.match(text):
            return text
    return ""


def _errors(gpu: ElementTree.Element) -> list[str]:
    found: dict[str, None] = {}
    for element in gpu.iter():
        text = (element.text or "").strip()
        if _ERROR.match(text):
            found[f"{element.tag}: {text}"] = None
    # The same fact is a field of its own: reset_required up to R570, gpu_recovery_action since.
    if _value(gpu, "gpu_reset_status/reset_required").lower() == "yes":
        found["reset_required: Yes"] = None
    action = _value(gpu, "gpu_recovery_action")
    if action:
        found[f"gpu_recovery_action: {action}"] = None
    return list(found)


def _processes(gpu: ElementTree.Element) -> int | None:
    element = gpu.find("processes")
    if element is None or (len(element) == 0 and (element.text or "").strip().lower() not in {"", "none"}):
        return None
    return sum("C" in (process.findtext("type") or "") for process in element.iter("process_info"))


def _gpu(element: ElementTree.Element) -> Gpu:
    memory = re.match(r"(\d{1,9})\s*Mi?B", _value(element, "fb_memory_usage/total"))
    mig = _value(element, "mig_mode/current_mig").lower()
    persistence = _value(element, "persistence_mode").lower()
    return Gpu(
        address=pci_address(_value(element, "pci/pci_bus_id") or element.get("id", "")),
        uuid=_value(element, "uuid"),
        name=_value(element, "product_name"),
        memory_mib=int(memory.group(1)) if memory else None,
        mig=mig if mig in {"enabled", "disabled"} else "",
        mig_devices=len(element.findall("mig_devices/mig_device")),
        compute_mode=_value(element, "compute_mode"),
        persistence={"enabled": True, "disabled": False}.get(persistence),
        processes=_processes(element),
        errors=_errors(element),
    )


def _report(text: str) -> ElementTree.Element | None:
    """Return the report inside what nvidia-smi wrote, or None where there is none that can be read."""
    for noise in _NOISE:
        text = noise.sub("", text)
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):
        return None
    return root if root.tag == "nvidia_smi_log" else None


def parse_smi(rc: int, stdout: str, stderr: str = "") -> Smi:
    """Read what ``nvidia-smi -q -x`` answered, be it a report, a complaint, or a complaint with the report on the other GPUs."""
    start = min((at for at in (stdout.find("<?xml"), stdout.find("<nvidia_smi_log")) if at >= 0), default=len(stdout))
    end = stdout.find("</nvidia_smi_log>", start)
    end = len(stdout) if end < 0 else end + len("</nvidia_smi_log>")
    said = "\n".join([stdout[:start], stdout[end:], stderr])
    report = _report(stdout[start:end]) if start < len(stdout) else None
    message = next((line.strip() for line in said.splitlines() if line.strip()), "")
    problem = next((name for name, pattern in _PROBLEMS if pattern.search(said)), _STATUSES.get(rc, ""))
    gpus = [] if report is None else [_gpu(element) for element in report.findall("gpu")]
    if not problem and report is not None and not gpus:
        problem = "no_devices"
    elif not problem and report is None:
        problem = "other"
        message = message or next(
            (line.strip() for line in stdout.splitlines() if line.strip()), f"nvidia-smi said nothing, exit status {rc}"
        )
    library = re.search(r"NVML library version:\s*([\d.]+)", said)
    return Smi(
        problem=problem,
        message=message[:500],
        rc=rc,
        driver_version="" if report is None else _value(report, "driver_version", "kmd_version"),
        cuda_version="" if report is None else _value(report, "cuda_version", "cuda_umd_version"),
        library_version=library.group(1) if library else "",
        lost=list(dict.fromkeys(pci_address(address) for address in _LOST.findall(said))),
        gpus=gpus,
    )


# --- Loaded kernel modules --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loaded:
    """The kernel modules in memory.

    Attributes:
        loaded: those of `MODULES` that are loaded.
        version: of the module ``nvidia`` that is loaded, not of the one on disk.
        flavour: of the same, ``open`` or ``proprietary``.
        nouveau: whether nouveau is loaded.
        nouveau_blacklisted: whether modprobe was told not to load nouveau.
    """

    loaded: list[str] = field(default_factory=list)
    version: str = ""
    flavour: str = ""
    nouveau: bool = False
    nouveau_blacklisted: bool = False


def parse_modules(text: str) -> dict[str, str]:
    """Read ``/proc/modules``: module -> letters of its taint, such as ``POE``."""
    modules = {}
    for line in text.splitlines():
        words = line.split()
        if words:
            taint = re.fullmatch(r"\(([A-Z+-]+)\)", words[-1])
            modules[words[0]] = taint.group(1) if taint else ""
    return modules


def parse_driver_version(text: str) -> tuple[str, str]:
    """Read ``/proc/driver/nvidia/version``: version and flavour of the module in memory, empty where they are not told."""
    match = re.search(r"NVRM version:\s*NVIDIA UNIX (Open )?.*?Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)", text)
    if not match:
        return "", ""
    return match.group(2), "open" if match.group(1) else "proprietary"


def loaded_modules(modules: str, version: str, driver: str, blacklisted: bool) -> Loaded:
    """Put together what ``/proc/modules``, ``/sys/module/nvidia/version`` and ``/proc/driver/nvidia/version`` say."""
    present = parse_modules(modules)
    told, flavour = parse_driver_version(driver)
    if "nvidia" in present and not flavour and present["nvidia"]:
        flavour = "proprietary" if "P" in present["nvidia"] else "open"  # the kernel marks a licence that is not free
    return Loaded(
        loaded=[name for name in MODULES if name in present],
        version=version.strip() or told,
        flavour=flavour,
        nouveau="nouveau" in present,
        nouveau_blacklisted=blacklisted,
    )


def is_blacklisted(module: str, configurations: Iterable[str], command_line: str = "") -> bool:
    """Return whether modprobe leaves a module alone, after the texts of its configuration and the kernel's command line.

    ``install`` with anything but ``false`` or ``true`` still loads the module.
    """
    for text in configurations:
        for line in text.replace("\\\n", " ").splitlines():
            words = line.split("#", 1)[0].split()
            if words[:2] == ["blacklist", module]:
                return True
            if words[:2] == ["install", module] and len(words) > 2 and words[2].rsplit("/", 1)[-1] in {"false", "true"}:
                return True
    for word in command_line.split():
        key, _equals, value = word.partition("=")
        if key in {"modprobe.blacklist", "module_blacklist"} and module in value.split(","):
            return True
    return False


# --- DKMS -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dkms:
    """A line of ``dkms status``.

    Attributes:
        kernel: empty for a module that was only added, or is broken.
        state: ``added``, ``built``, ``installed`` or ``broken``.
        weak: installed by a link to the module of another kernel.
        intact: false where what is installed is not what was built, or a part of it is missing.
        note: what stands behind the state.
    """

    module: str
    version: str
    kernel: str = ""
    arch: str = ""
    state: str = ""
    weak: bool = False
    intact: bool = True
    note: str = ""


_DKMS = re.compile(
    r"^(?P<module>[^\s,/:]+)(?:/|,\s*)(?P<version>[^\s,/]+?)"
    r"(?:,\s*(?P<kernel>[^\s,]+),\s*(?P<arch>[^\s,:]+))?:\s*"
    r"(?P<state>added|built|installed|broken)(?P<weak>-weak)?(?P<note>(?![\w-]).*|Error!.*)?$"
)
_DKMS_GONE = re.compile(r"/dkms/(?P<module>[^/\s]+)/(?P<version>[^/\s]+)/source/dkms\.conf does not exist")


def parse_dkms(text: str) -> list[Dkms]:
    """Read ``dkms status`` of old (``nvidia, 470.82.01, ...``) and new (``nvidia/470.82.01, ...``) releases; errors may be mixed in."""
    entries = []
    for line in text.splitlines():
        match = _DKMS.match(line.strip())
        if match:
            note = (match["note"] or "").strip()
            entries.append(
                Dkms(
                    module=match["module"],
                    version=match["version"],
                    kernel=match["kernel"] or "",
                    arch=match["arch"] or "",
                    state=match["state"],
                    weak=bool(match["weak"]),
                    intact=match["state"] != "broken" and not re.search(r"\b(?:diff|missing\b)", note, re.I),
                    note=note,
                )
            )
        gone = _DKMS_GONE.search(line)  # releases before 3.0.12 know no word for it
        if gone:
            entries.append(Dkms(module=gone["module"], version=gone["version"], state="broken", intact=False, note=line.strip()))
    return entries


# --- Secure Boot ------------------------------------------------------------------------------------------------------


def secure_boot(efi: bool, variables: Mapping[str, bytes] | None) -> tuple[str, bool]:
    """Return the state of Secure Boot as the kernel judges it, and whether the firmware is in setup mode.

    Args:
        efi: whether the machine was started by UEFI.
        variables: EFI variable -> its file, four bytes of attributes and the value; None where they cannot be read.

    Returns:
        ``enabled``, ``disabled``, ``unsupported`` (also for legacy BIOS) or ``unknown``; setup mode.
    """
    if not efi:
        return "unsupported", False
    if variables is None:
        return "unknown", False
    setup_mode = variables.get("SetupMode", b"")[4:5] == b"\x01"
    if "SecureBoot" not in variables:
        return "unsupported", setup_mode
    content = variables["SecureBoot"]
    if len(content) != 5 or content[4] > 1:
        return "unknown", setup_mode
    insecure_shim = variables.get("MokSBStateRT", b"")
    # The shim's switch counts unless it is a variable that anybody could have written to stay (attribute 1, non-volatile).
    ignored = len(insecure_shim) == 5 and insecure_shim[4] == 1 and not insecure_shim[0] & 1
    return ("enabled" if content[4] == 1 and not setup_mode and not ignored else "disabled"), setup_mode


# --- Kernels ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kernel:
    """A kernel that is on disk.

    Attributes:
        image: whether it can be started; without it only modules or headers are there.
        headers: whether modules can be built for it.
        nvidia_module: path of the module ``nvidia`` for it, or empty.
    """

    version: str
    image: bool = False
    headers: bool = False
    nvidia_module: str = ""
    nvidia_module_version: str = ""
    nvidia_module_flavour: str = ""


@dataclass(frozen=True)
class Kernels:
    """The kernels of a node.

    Attributes:
        next: the one that the next boot takes.
        next_from: how that is known: ``grub``, ``symlink`` or ``newest``, which is a guess.
        installed: oldest first.
    """

    running: str = ""
    next: str = ""
    next_from: str = ""
    installed: list[Kernel] = field(default_factory=list)


_IMAGE = re.compile(r"(?:^|/)vmlinu[xz]-([^\s'\"/]+)")


def version_key(version: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts kernels by age, release candidates before their release."""
    key = []
    for token in re.findall(r"[0-9]+|[A-Za-z]+|~", version):
        if token[0] in "0123456789":
            key.append((3, int(token[:18]), ""))
        else:
            key.append((0 if token in {"rc", "~"} else 2, 0, token))
    return [*key, (1, 0, "")]


def kernel_of_image(path: str) -> str:
    """Return the version in the path of a kernel image, empty for the rescue image and for what is none."""
    match = _IMAGE.search(path.strip())
    return match.group(1) if match and "rescue" not in match.group(1) else ""


@dataclass
class _Entry:
    names: tuple[str, ...]
    kernel: str = ""
    children: list[_Entry] | None = None


_MENU = re.compile(r"^(menuentry|submenu)\s+(?:'([^']*)'|\"([^\"]*)\"|(\S+))")
_MENU_ID = re.compile(r"(?:\$menuentry_id_option|--id)[\s=]+(?:'([^']*)'|\"([^\"]*)\"|([^\s{]+))")


def _menu(text: str) -> list[_Entry]:
    """Return the menu of a grub.cfg, as a tree."""
    top: list[_Entry] = []
    lists = [top]
    open_entry: _Entry | None = None
    for raw in text.splitlines():
        line = raw.strip()
        head = _MENU.match(line)
        if head and line.endswith("{"):
            title = next((part for part in head.groups()[1:] if part is not None), "")
            marked = _MENU_ID.search(line)
            mark = next((part for part in marked.groups() if part is not None), "") if marked else ""
            entry = _Entry(names=tuple(name for name in (mark, title) if name))
            lists[-1].append(entry)
            if head.group(1) == "submenu":
                entry.children = []
                lists.append(entry.children)
            else:
                open_entry = entry
        elif line == "}":
            if open_entry is not None:
                open_entry = None
            elif len(lists) > 1:
                lists.pop()
        elif open_entry is not None and re.match(r"linux(16|efi)?\s", line) and not open_entry.kernel:
            open_entry.kernel = kernel_of_image(line.split()[1])
    return top


def parse_grub_environment(text: str) -> dict[str, str]:
    """Read a ``grubenv`` block."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.partition("=")[::2] for line in lines if "=" in line)


def grub_default(configuration: str, environment: Mapping[str, str], boot_entries: Mapping[str, str] | None = None) -> str:
    """Return the kernel that GRUB takes next; empty where that cannot be told.

    Args:
        configuration: text of grub.cfg.
        environment: variables that GRUB saved.
        boot_entries: name -> text of the files in ``/boot/loader/entries``, where Red Hat keeps the menu.
    """
    settings = re.findall(r"^\s*set default=(?:\"([^\"]*)\"|'([^']*)'|(\S*))", configuration, re.M)
    last = next((part for part in settings[-1] if part), "0") if settings else "0"  # the ones before it are for next_entry
    wish = environment.get("next_entry") or last
    if wish == "${saved_entry}":
        wish = environment.get("saved_entry") or "0"
    images = {name: re.search(r"^linux\s+(\S+)", text, re.M) for name, text in (boot_entries or {}).items()}
    listed = {name: kernel_of_image(image.group(1)) for name, image in images.items() if image}
    if wish in listed:
        return listed[wish]
    entries: list[_Entry] | None = _menu(configuration)
    if not entries:  # Red Hat's menu is made at boot, newest first
        entries = [_Entry((), kernel) for kernel in sorted(filter(None, listed.values()), key=version_key, reverse=True)]
    chosen: _Entry | None = None
    # A title may hold a ">" of its own, written twice.
    for part in re.split(r"(?<!>)>(?!>)", wish):
        name = part.replace(">>", ">")
        chosen = next((entry for entry in entries or [] if name in entry.names), None)
        if chosen is None and re.fullmatch(r"[0-9]{1,4}", name) and int(name) < len(entries or []):
            chosen = (entries or [])[int(name)]
        if chosen is None:
            return ""
        entries = chosen.children
    while chosen is not None and chosen.children:
        chosen = chosen.children[0]
    return chosen.kernel if chosen is not None else ""


def next_kernel(kernels: Sequence[Kernel], candidates: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """Return the kernel that boots next and how that is known.

    Args:
        kernels: those on disk.
        candidates: (how it is known, version), the most reliable first; one without an image is passed over.
    """
    bootable = [kernel.version for kernel in kernels if kernel.image]
    for source, version in candidates:
        if version and version in bootable:
            return version, source
    newest = max(bootable, key=version_key, default="")
    return newest, "newest" if newest else ""


_MODULE_FILE = re.compile(r"^nvidia(?:-[a-z0-9.-]+)?\.ko(?:\.(?:xz|zst|gz))?$")
_OTHER_MODULE = re.compile(r"-(?:uvm|drm|modeset|peermem|vgpu-vfio|wmi-ec-backlight)\.ko")


def is_nvidia_module(name: str) -> bool:
    """Return whether a file is the driver's main module: not its companions, and not the kernel's own ``nvidiafb``."""
    return bool(_MODULE_FILE.match(name)) and not _OTHER_MODULE.search(name)


def parse_modinfo(text: str) -> dict[str, tuple[str, str]]:
    """Read ``modinfo`` of several files: path -> version and flavour (``open``, ``proprietary`` or empty)."""
    found: dict[str, tuple[str, str]] = {}
    path = ""
    for line in text.splitlines():
        key, _colon, rest = line.partition(":")
        value = rest.strip()
        if key == "filename":
            path = value
            found[path] = ("", "")
        elif path and key == "version":
            found[path] = (value, found[path][1])
        elif path and key == "license":
            found[path] = (found[path][0], "proprietary" if value == "NVIDIA" else "open" if "GPL" in value else "")
    return found


# --- PCI --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pci:
    """An NVIDIA display or 3D controller.

    Attributes:
        device: the id that tells the model, such as ``1db4``.
        class_code: six hexadecimal digits, such as ``030200``.
        driver: the kernel driver bound to it, or empty.
        virtual_function: a slice of a GPU made by SR-IOV, which ``nvidia-smi`` does not list.
        responding: false when its configuration space reads as ones: it has fallen off the bus. The kernel remembers its ids.
    """

    address: str
    device: str
    class_code: str
    subsystem_vendor: str = ""
    subsystem_device: str = ""
    driver: str = ""
    virtual_function: bool = False
    responding: bool = True


def _hex(text: str) -> str:
    value = text.strip().lower()
    return value[2:] if value.startswith("0x") else value


def pci_device(address: str, attributes: Mapping[str, str], driver: str, virtual_function: bool, config: bytes) -> Pci | None:
    """Return the device that sysfs describes, or None if it is no GPU of NVIDIA's."""
    class_code = _hex(attributes.get("class", ""))
    if _hex(attributes.get("vendor", "")) != "10de" or not class_code.startswith("03"):
        return None
    return Pci(
        address=address,
        device=_hex(attributes.get("device", "")),
        class_code=class_code,
        subsystem_vendor=_hex(attributes.get("subsystem_vendor", "")),
        subsystem_device=_hex(attributes.get("subsystem_device", "")),
        driver=driver,
        virtual_function=virtual_function,
        responding=config[:4] != b"\xff\xff\xff\xff",
    )


# --- Reading ----------------------------------------------------------------------------------------------------------

_PCI_ATTRIBUTES = ("vendor", "device", "class", "subsystem_vendor", "subsystem_device")
_EFI_GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
_EFI_SHIM = "605dab50-e046-4300-abb6-3dd810dd8b23"
# The same name in an earlier folder hides the file in a later one, as modprobe.d(5) has it.
_MODPROBE = ("etc/modprobe.d", "run/modprobe.d", "usr/local/lib/modprobe.d", "usr/lib/modprobe.d", "lib/modprobe.d")
# Where distributions, DKMS and NVIDIA's installer put modules; looking through the whole tree takes seconds on a slow disk.
_MODULE_FOLDERS = (
    "updates/dkms",
    "updates",
    "extra",
    "extra/nvidia*",
    "weak-updates",
    "weak-updates/nvidia*",
    "kernel/nvidia-*",
    "kernel/drivers/video",
    "kernel/drivers/video/nvidia",
    "misc",
)


class Node:
    """Reads the files of a node; a root other than ``/`` makes it read a tree that was put there."""

    def __init__(self, root: str = "/") -> None:
        self.root = root

    def path(self, *parts: str) -> str:
        """Return where a path of the node lies."""
        return os.path.join(self.root, *(part.lstrip("/") for part in parts))

    def text(self, *parts: str) -> str:
        """Return a file's text, empty if it cannot be read."""
        return self.content(*parts).decode("utf-8", "replace")

    def content(self, *parts: str, limit: int = -1) -> bytes:
        """Return a file's first bytes, none if it cannot be read."""
        try:
            with open(self.path(*parts), "rb") as file:
                return file.read(limit)
        except OSError:
            return b""

    def names(self, *parts: str) -> list[str]:
        """Return what is in a folder, sorted; nothing if it cannot be read."""
        try:
            return sorted(os.listdir(self.path(*parts)))
        except OSError:
            return []

    def link(self, *parts: str) -> str:
        """Return where a link points, empty if it is none."""
        try:
            return os.readlink(self.path(*parts))
        except OSError:
            return ""

    def target(self, *parts: str) -> str:
        """Return a path with a link at its end followed, inside the root also when it is an absolute one."""
        to = self.link(*parts)
        return self.path(to) if to.startswith("/") else self.path(*parts)

    def pci(self) -> list[Pci]:
        """Return the GPUs on the bus."""
        folder = "sys/bus/pci/devices"
        devices = []
        for address in self.names(folder):
            attributes = {name: self.text(folder, address, name) for name in _PCI_ATTRIBUTES}
            device = pci_device(
                address,
                attributes,
                os.path.basename(self.link(folder, address, "driver")),
                os.path.lexists(self.path(folder, address, "physfn")),
                # Reading wakes a sleeping device, so only those are asked that matter.
                self.content(folder, address, "config", limit=4) if _hex(attributes["vendor"]) == "10de" else b"",
            )
            if device:
                devices.append(device)
        return devices

    def modprobe(self) -> list[str]:
        """Return the texts of modprobe's configuration that count."""
        files: dict[str, str] = {}
        for folder in _MODPROBE:
            for name in self.names(folder):
                if name.endswith(".conf"):
                    files.setdefault(name, self.target(folder, name))
        texts = []
        for path in files.values():
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    texts.append(file.read())
            except OSError:
                continue
        return texts

    def modules(self) -> Loaded:
        """Return the loaded modules."""
        return loaded_modules(
            self.text("proc/modules"),
            self.text("sys/module/nvidia/version"),
            self.text("proc/driver/nvidia/version"),
            is_blacklisted("nouveau", self.modprobe(), self.text("proc/cmdline")),
        )

    def secure_boot(self) -> tuple[str, bool]:
        """Return the state of Secure Boot and whether the firmware is in setup mode."""
        folder = "sys/firmware/efi/efivars"
        files = {"SecureBoot": _EFI_GLOBAL, "SetupMode": _EFI_GLOBAL, "MokSBStateRT": _EFI_SHIM}
        present = self.names(folder)  # nothing at all: the file system is not mounted, as in a container
        variables = {name: self.content(folder, f"{name}-{guid}") for name, guid in files.items() if f"{name}-{guid}" in present}
        return secure_boot(os.path.isdir(self.path("sys/firmware/efi")), variables if present else None)

    def nvidia_module(self, version: str) -> str:
        """Return the path of the module for a kernel, as the node sees it; empty if there is none."""
        for folder in _MODULE_FOLDERS:
            for path in sorted(glob.glob(os.path.join(glob.escape(self.path("lib/modules", version)), folder))):
                names = sorted(name for name in self.names(os.path.relpath(path, self.root)) if is_nvidia_module(name))
                for name in names:
                    inside = os.path.relpath(os.path.join(path, name), self.root)
                    if os.path.exists(self.target(inside)):  # a weak update can point to a kernel that was removed
                        return f"/{inside}"
        return ""

    def headers(self, version: str) -> bool:
        """Return whether the headers of a kernel are there; a folder that a removed package left behind is not enough."""
        folders = (self.target("lib/modules", version, "build"), self.path("usr/src", f"linux-headers-{version}"))
        return any(os.path.isfile(os.path.join(folder, "Makefile")) for folder in folders)

    def kernels(self) -> Kernels:
        """Return the kernels; what ``modinfo`` knows of their modules is not among it."""
        images = {kernel_of_image(name) for name in self.names("boot")} - {""}
        folders = [name for name in self.names("lib/modules") if os.path.isdir(self.path("lib/modules", name))]
        kernels = [
            Kernel(
                version=version,
                image=version in images or os.path.isfile(self.path("lib/modules", version, "vmlinuz")),
                headers=self.headers(version),
                nvidia_module=self.nvidia_module(version),
            )
            for version in sorted({*images, *folders}, key=version_key)
        ]
        version, source = next_kernel(kernels, self._next())
        return Kernels(running=self.text("proc/sys/kernel/osrelease").strip(), next=version, next_from=source, installed=kernels)

    def _next(self) -> list[tuple[str, str]]:
        candidates = []
        for folder in ("boot/grub", "boot/grub2"):
            configuration = self.text(folder, "grub.cfg")
            if configuration:
                entries = {
                    name[: -len(".conf")]: self.text("boot/loader/entries", name)
                    for name in self.names("boot/loader/entries")
                    if name.endswith(".conf")
                }
                candidates.append(("grub", grub_default(configuration, parse_grub_environment(self.text(folder, "grubenv")), entries)))
        candidates += [("symlink", kernel_of_image(self.link(path))) for path in ("vmlinuz", "boot/vmlinuz")]
        return candidates


def as_result(
    node: Node,
    kernels: Kernels,
    smi: Smi,
    dkms: list[Dkms] | None,
    dkms_problem: str = "",
    modinfo: Mapping[str, tuple[str, str]] | None = None,
) -> dict[str, Any]:
    """Put everything together as plain values; ``dkms`` is None where DKMS is not installed."""
    known = modinfo or {}
    installed = [
        dataclasses.replace(
            kernel,
            nvidia_module_version=known.get(node.path(kernel.nvidia_module), ("", ""))[0],
            nvidia_module_flavour=known.get(node.path(kernel.nvidia_module), ("", ""))[1],
        )
        if kernel.nvidia_module
        else kernel
        for kernel in kernels.installed
    ]
    state, setup_mode = node.secure_boot()
    return {
        "pci": [dataclasses.asdict(device) for device in node.pci()],
        "nvidia_smi": dataclasses.asdict(smi),
        "modules": dataclasses.asdict(node.modules()),
        "dkms": {
            "present": dkms is not None,
            "problem": dkms_problem,
            "entries": [dataclasses.asdict(entry) for entry in dkms or []],
        },
        "secure_boot": state,
        "secure_boot_setup_mode": setup_mode,
        "kernels": dataclasses.asdict(dataclasses.replace(kernels, installed=installed)),
    }
