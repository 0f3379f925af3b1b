"""A virtual machine that boots by its own boot loader, for what no container shows: kernels, the initramfs, reboots and power cuts."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from trainyard.paths import REPOSITORY, STATE
from trainyard.system import install

SETUP = REPOSITORY / "images" / "vm" / "setup"
STAND_IN = Path(__file__).with_name("gpu_stand_in.py")
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
# The kernel is the one of the release, which security updates have left behind: there is something to upgrade to.
PACKAGES = (
    "systemd,systemd-sysv,dbus,udev,kmod,python3,sudo,openssh-server,ca-certificates,iproute2,procps,initramfs-tools,"
    "grub2-common,grub-pc-bin,linux-image-amd64/{release}"
)
BYTES, START = 12 << 30, 1 << 20  # of the disk; nearly all of it is a hole
BOOT_SECONDS = 600


def accelerator() -> str:
    """Return what QEMU is to run on: ``kvm`` where the processor virtualizes and we may use that, else ``tcg``, some ten times slower.

    A kernel can have /dev/kvm without such a processor, by a way (kvm_pvm) that starts only kernels made for it.
    """
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "").split()
    return "kvm" if {"vmx", "svm"} & set(flags) and os.access("/dev/kvm", os.R_OK | os.W_OK) else "tcg"


@dataclass(frozen=True)
class Disk:
    """A disk of Debian with GRUB, one partition, and the accounts admin, who may do all, and student; made once for each recipe."""

    release: str = "bookworm"

    @property
    def packages(self) -> str:
        """Return what is installed."""
        return PACKAGES.format(release=self.release)

    @property
    def folder(self) -> Path:
        """Return the folder with the disk, the key that it lets in and the key that it shows."""
        recipe = f"{self.release} {self.packages} {BYTES}".encode() + SETUP.read_bytes()
        return STATE / "vm" / hashlib.sha256(recipe).hexdigest()[:12]

    def ensure(self) -> Path:
        """Make it unless it is there, and return its folder."""
        install(PROGRAMS)
        self.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.folder.is_dir():
                self._make(self.folder.with_suffix(".new"))
        return self.folder

    def _make(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "trainyard tests", "-f", str(folder / "id_ed25519")],
            check=True,
            stdin=subprocess.DEVNULL,
        )
        disk = folder / "disk.img"
        with disk.open("wb") as file:
            file.truncate(BYTES)
        hook = f"--customize-hook={SETUP} $1 {folder}"
        words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={self.packages}", hook, self.release, "/dev/null"]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        # The first sector: GRUB's first stage, one bootable Linux partition, and the mark of a sector that boots. The second stage follows
        # it, where the first looks unless told otherwise.
        sector = bytearray((folder / "boot.img").read_bytes()[:440].ljust(512, b"\0"))
        anywhere = b"\xfe\xff\xff"  # in cylinders, which nobody counts in any more
        struct.pack_into("<B3sB3sII", sector, 446, 0x80, anywhere, 0x83, anywhere, START // 512, (BYTES - START) // 512)
        sector[510:] = b"\x55\xaa"
        with disk.open("r+b") as file:
            file.write(sector + (folder / "core.img").read_bytes())
        folder.rename(self.folder)


def cable() -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the two ends of a network between two machines."""
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as two:
        for end in (one, two):
            end.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], two.getsockname()[1]
    return ports, ports[::-1]


@dataclass
class Machine:
    """A virtual machine with a disk of its own.

    Attributes:
        folder: for its disk, its console's text and the SSH files.
        disk: what its disk is at first.
        gpu: whether the stand-in for a GPU is on its bus.
        share: a folder of this machine that it may mount, by the tag ``dkms``.
        nodes: its name in the inventory.
        memory: in MiB.
        cable: UDP ports of this machine for a network with one other virtual machine: its own, and the other's.
        boots: how often it was switched on.
    """

    folder: Path
    disk: Disk = field(default_factory=Disk)
    gpu: bool = False
    share: Path | None = None
    nodes: tuple[str] = ("gpu",)
    memory: int = 4096
    cable: tuple[int, int] | None = None
    boots: int = 0

    def __post_init__(self) -> None:
        made = self.disk.ensure()
        self.accelerator = accelerator()
        self._qemu: subprocess.Popen[bytes] | None = None
        subprocess.run(["cp", "--sparse=always", str(made / "disk.img"), str(self.folder / "disk.img")], check=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        (name,) = self.nodes
        kind, key = (made / "ssh_host_ed25519_key.pub").read_text().split()[:2]
        known = self.folder / "known_hosts"
        known.write_text(f"{name} {kind} {key}\n")
        self.ssh_config.write_text(
            f"Host {name}\n  HostName 127.0.0.1\n  Port {self._port}\n  HostKeyAlias {name}\n  User admin\n"
            f"  IdentityFile {made / 'id_ed25519'}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
        )

    @property
    def ssh_config(self) -> Path:
        """Return the path of the ssh_config that reaches it by name."""
        return self.folder / "ssh_config"

    @property
    def console(self) -> str:
        """Return what its kernels said on the console, since the last time that it was switched on."""
        return (self.folder / "console.log").read_text(errors="replace")

    def switch_on(self) -> None:
        """Boot it, and wait until it lets somebody in."""
        words = ["qemu-system-x86_64", "-machine", "pc,memory-backend=memory", "-smp", "2", "-m", str(self.memory)]
        words += ["-accel", "kvm" if self.accelerator == "kvm" else "tcg,thread=multi", "-cpu", "max", "-vga", "none", "-display", "none"]
        words += ["-object", f"memory-backend-memfd,id=memory,size={self.memory}M,share=on"]  # shared, as the stand-in's protocol wants it
        words += ["-serial", f"file:{self.folder / 'console.log'}"]
        # What QEMU took is on the disk even when QEMU is killed, so that nothing is gained by waiting for this machine's own disk.
        words += ["-drive", f"file={self.folder / 'disk.img'},if=virtio,format=raw,cache=unsafe"]
        words += ["-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self._port}-:22", "-device", "virtio-net-pci,netdev=net,romfile="]
        if self.cable:
            # Datagrams find the other machine again after either was switched off. Two machines need two hardware addresses.
            own, other = self.cable
            words += ["-netdev", f"socket,id=cable,udp=127.0.0.1:{other},localaddr=127.0.0.1:{own}"]
            words += ["-device", f"virtio-net-pci,netdev=cable,romfile=,mac=52:54:00:01:{own >> 8:02x}:{own & 255:02x}"]
        if self.share:
            words += ["-virtfs", f"local,path={self.share},mount_tag=dkms,security_model=passthrough"]
        ours, theirs = socket.socketpair()
        with ours, theirs, (self.folder / "qemu.log").open("wb") as log:
            if self.gpu:
                words += ["-device", f"x-pci-proxy-dev,fd={theirs.fileno()}"]
                python = [sys.executable, str(STAND_IN), str(ours.fileno())]
                subprocess.Popen(python, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[ours.fileno()])
            self._qemu = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[theirs.fileno()])
        self.boots += 1
        self.wait_for("true", "it did not boot", seconds=BOOT_SECONDS)

    def cut_power(self) -> None:
        """Stop it at once; what it had not yet handed to its disk is lost."""
        if self._qemu:
            self._qemu.kill()
            self._qemu.wait()
            self._qemu = None

    def attempt(self, script: str, person: str = "root", seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a shell script on it; its exit status is 255 where the machine cannot be reached."""
        words = ["ssh", "-F", str(self.ssh_config), "-o", "BatchMode=yes", "-o", "ConnectTimeout=30", "-o", "LogLevel=ERROR"]
        words += ["-o", "ServerAliveInterval=20", "-o", "ServerAliveCountMax=6"]  # a machine that goes down meanwhile never answers
        command = f"{'sudo ' if person == 'root' else ''}sh -c {shlex.quote(script)}"
        login = "admin" if person == "root" else person
        return subprocess.run(
            [*words, "-l", login, *self.nodes, command],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def ask(self, script: str, seconds: float = 600) -> str:
        """Run a shell script as root, which has to succeed, and return what it printed."""
        done = self.attempt(script, seconds=seconds)
        assert done.returncode == 0, f"{script}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout.strip()

    def wait_for(self, script: str, otherwise: str, seconds: float) -> None:
        """Wait until a shell script succeeds on it; each attempt costs it a login."""
        deadline = time.monotonic() + seconds
        while self.attempt(script).returncode:
            if not self._qemu or self._qemu.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{otherwise}: {(self.folder / 'qemu.log').read_text()[-1000:]}{self.console[-3000:]}")
            time.sleep(1)

    def reboot(self) -> None:
        """Reboot it in good order, and wait until it is back."""
        before = self.boot_id()
        self.attempt("systemctl reboot")
        self.wait_for(f"test $(cat /proc/sys/kernel/random/boot_id) != {before}", "it did not come back", seconds=BOOT_SECONDS)

    def boot_id(self) -> str:
        """Return what is another value after each boot."""
        return self.ask("cat /proc/sys/kernel/random/boot_id")

    @contextmanager
    def session(self, person: str) -> Iterator[None]:
        """Let somebody be logged in."""
        words = ["ssh", "-F", str(self.ssh_config), "-o", "BatchMode=yes", "-tt", "-l", person, *self.nodes, "sleep infinity"]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self.wait_for(f"pgrep -u {person} -x sleep", f"{person} did not get in", seconds=120)
            yield
        finally:
            process.kill()
            process.wait()
            self.attempt(f"pkill -u {person}")
