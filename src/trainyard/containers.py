"""Containers as lab nodes: systemd and sshd inside, reached over SSH like real servers.

The only file that imports docker. Every object made here carries the label ``trainyard.lab=NAME``; removal goes by that
label, so nothing else on the machine is ever touched.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.models.networks import Network
from docker.types import Mount

from trainyard.errors import TrainyardError
from trainyard.paths import REPOSITORY
from trainyard.system import install

LABEL = "trainyard.lab"
ADMIN = "admin"
RECIPE = REPOSITORY / "images" / "node" / "Dockerfile"
DAEMON_LOG = Path("/var/log/trainyard-dockerd.log")
BOOT_SECONDS = 90
SYSTEMD = Path("/run/systemd/system")
APPARMOR = Path("/sys/module/apparmor/parameters/enabled")
INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_WANTED = 1024  # each systemd takes several; the kernel's default of 128 stops at about 22 containers

PRINTED = "/run"
"""Folder on a node for what commands print."""
ASKED = 8
"""Times that what a command printed is asked for, a second later each."""

CONTROLLERS = ("memory", "pids", "cpu", "cpuacct", "cpu,cpuacct")
"""Folders of cgroups' version 1 in which systemd sets limits on memory, tasks and CPU; machines have the last two as one, or apart."""

Say = Callable[[str], None]


def connect() -> docker.DockerClient:
    """Return a client of a running Docker daemon, starting the daemon when root may.

    Raises:
        TrainyardError: no daemon answers and none could be started; says which command helps.
    """
    client = _answering_client()
    if client:
        return client
    if os.geteuid() != 0 and shutil.which("dockerd"):
        raise TrainyardError(
            "The Docker daemon does not answer. Start it with `sudo systemctl start docker`, and join its group with "
            "`sudo usermod -aG docker $USER`, then log in anew."
        )
    install({"dockerd": "docker.io", "iptables": "iptables", **({"apparmor_parser": "apparmor"} if _apparmor_is_on() else {})})
    if not SYSTEMD.is_dir() or subprocess.run(["systemctl", "start", "docker"], check=False, capture_output=True).returncode:
        with DAEMON_LOG.open("ab") as log:
            subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        client = _answering_client()
        if client:
            return client
        time.sleep(0.5)
    raise TrainyardError(
        f"The Docker daemon was started but does not answer within a minute; its log is {DAEMON_LOG} or `journalctl -u docker`."
    )


def _apparmor_is_on() -> bool:
    """Say whether the kernel uses AppArmor: Docker then starts no container without its parser, which its package only recommends."""
    try:
        return APPARMOR.read_text().strip() == "Y"
    except OSError:
        return False


def _answering_client() -> docker.DockerClient | None:
    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except (DockerException, OSError):
        return None
    return client


@dataclass(frozen=True)
class Image:
    """A node image, named by the digest of what it is made from, so that a changed recipe makes a new one."""

    release: str = "bookworm"

    @property
    def tag(self) -> str:
        """Return the image's name and tag."""
        digest = hashlib.sha256(RECIPE.read_bytes() + self.release.encode() + self.from_registry.encode()).hexdigest()[:12]
        return f"trainyard/node:{self.release}-{digest}"

    def ensure(self, client: docker.DockerClient, say: Say = print) -> str:
        """Build the image unless it is there, and return its tag.

        The base layer comes from the distribution's archive by mmdebstrap, or from the registry that Docker knows.

        Raises:
            TrainyardError: the base layer could not be made, or the recipe failed; carries the end of its output.
        """
        try:
            client.images.get(self.tag)
        except ImageNotFound:
            base = self.from_registry or self.bootstrap(client, say)
            say(f"building the node image {self.tag}")
            try:
                client.images.build(path=str(RECIPE.parent), tag=self.tag, buildargs={"BASE": base}, rm=True, forcerm=True)
            except docker.errors.BuildError as error:
                tail = "".join(str(line.get("stream", "")) for line in error.build_log)[-1500:]
                raise TrainyardError(f"The node image could not be built: {error}\n{tail}") from error
        return self.tag

    @property
    def from_registry(self) -> str:
        """Return the registry's image to start from, such as debian:bookworm where ``TRAINYARD_BASE_IMAGE`` is debian; '' without it."""
        image = os.environ.get("TRAINYARD_BASE_IMAGE", "")
        return image and f"{image}:{self.release}"

    @property
    def base(self) -> str:
        """Return the name and tag of the base layer that is made here."""
        return f"trainyard/base:{self.release}"

    def bootstrap(self, client: docker.DockerClient, say: Say = print) -> str:
        """Make the base layer from the distribution's archive unless it is there, and return its name and tag.

        Raises:
            TrainyardError: it could not be made; carries the end of what was said.
        """
        try:
            client.images.get(self.base)
        except ImageNotFound:
            install({"mmdebstrap": "mmdebstrap"})
            say(f"making the base layer of {self.release} from the distribution's archive")
            maker = subprocess.Popen(
                ["mmdebstrap", "--quiet", "--variant=minbase", self.release, "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            output, errors = maker.communicate()
            if maker.returncode:
                raise TrainyardError(f"mmdebstrap could not make a base layer of {self.release}:\n{errors.decode()[-1500:]}") from None
            client.api.import_image_from_data(output, repository="trainyard/base", tag=self.release)
        return self.base


def systemd_arguments(name: str, cgroup_root: Path = Path("/sys/fs/cgroup")) -> dict[str, Any]:
    """Return what `docker run` needs so that systemd is PID 1 in the container of that name, for the cgroup version of this host.

    Each container has a part of the cgroup tree of its own, which it sees as the whole tree: with version 2 Docker's, with version 1
    /trainyard/NAME. Without that, the systemds of all containers would share the host's: one that shuts down takes the others' along.
    With version 1 each controller has a tree of its own: those for memory, tasks and CPU are a node's own, too, as on a real machine.
    """
    version_2 = (cgroup_root / "cgroup.controllers").exists()
    hierarchies = [each for each in CONTROLLERS if (cgroup_root / each / "tasks").exists() and not (cgroup_root / each).is_symlink()]
    return {
        "cap_add": ["SYS_ADMIN", "NET_ADMIN", "SYS_NICE"],
        "security_opt": ["seccomp=unconfined", "apparmor=unconfined"],
        "tmpfs": {"/run": "", "/run/lock": ""},
        "sysctls": {"net.ipv6.conf.lo.disable_ipv6": "0"},  # Docker switches IPv6 off, on loopback too; real machines have it there
        "stop_signal": "SIGRTMIN+3",
        "cgroupns": "private",
        "volumes": []
        if version_2
        else [f"/sys/fs/cgroup/{each}/trainyard/{name}:/sys/fs/cgroup/{each}:rw" for each in (*hierarchies, "systemd")],
    }


def _remove_cgroup(name: str) -> None:
    """Remove what a container's systemd made in the trees of version 1; the kernel refuses to remove what is still in use."""
    for top in Path("/sys/fs/cgroup").glob(f"*/trainyard/{name}"):
        for folder in [*sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True), top]:
            with suppress(OSError):
                folder.rmdir()


@dataclass
class Lab:
    """Some node containers on a network of their own, with the SSH files that reach them.

    Attributes:
        name: label and prefix of everything made; two labs of different names do not meet.
        nodes: host names, which are also the names in the inventory.
        state: folder for the key pair, the known host keys and the ssh_config; made with mode 0700.
        mounts: read-only folders, path on this machine -> path in every node.
        shared: folders that every node may write, as of a file server; path on this machine -> path in every node.
        volumes: paths in every node that are one volume of Docker's: what a node writes there, all have. What the image has there
            is in it from the start.
        devices: kinds of devices that the nodes may use, such as ``b 7:* rmw`` for loop devices.
    """

    name: str
    nodes: Sequence[str]
    state: Path
    image: Image = field(default_factory=Image)
    mounts: Mapping[Path, str] = field(default_factory=dict)
    shared: Mapping[Path, str] = field(default_factory=dict)
    volumes: Sequence[str] = ()
    devices: Sequence[str] = ()
    say: Say = print

    @cached_property
    def client(self) -> docker.DockerClient:
        """Return a client of the daemon, which is installed and started when it is first asked for."""
        return connect()

    @property
    def key(self) -> Path:
        """Return the private key's path."""
        return self.state / "id_ed25519"

    @property
    def ssh_config(self) -> Path:
        """Return the path of the ssh_config that reaches the nodes by name."""
        return self.state / "ssh_config"

    def up(self) -> None:
        """Boot the nodes that are not running and write the SSH files; safe to interrupt and to repeat."""
        install({"ssh": "openssh-client"})
        self._allow_inotify()
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_key()
        tag = self.image.ensure(self.client, self.say)
        network = self._network()
        for node in self.nodes:
            self._boot(node, tag, network)
        self._write_ssh_files()

    def down(self, *, images: bool = False) -> None:
        """Remove the containers, network and volumes, our files in the state folder and, where asked, the images that nobody else uses.

        Where there is no Docker, none is installed for it; what somebody put into a folder that the nodes see stays.
        """
        if shutil.which("dockerd") or _answering_client():
            self._remove_objects(images)
        for entry in self.state.iterdir() if self.state.is_dir() else ():
            if entry.resolve() in {source.resolve() for source in self.mounts}:
                with suppress(OSError):
                    entry.rmdir()
                    continue
                self.say(f"{entry} is not empty and stays")
            elif entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        with suppress(OSError):
            self.state.rmdir()

    def _remove_objects(self, images: bool) -> None:
        for container in self._containers():
            container.remove(force=True, v=True)
            _remove_cgroup(str(container.name))
        for network in self.client.networks.list(filters={"label": f"{LABEL}={self.name}"}):
            network.remove()
        for volume in self.client.volumes.list(filters={"label": f"{LABEL}={self.name}"}):
            volume.remove()
        if images:
            older = [tag for image in self.client.images.list(name="trainyard/node") for tag in image.tags]
            for tag in (*(tag for tag in older if tag.startswith(f"trainyard/node:{self.image.release}-")), self.image.base):
                with suppress(ImageNotFound, APIError):  # another lab may still run on it
                    self.client.images.remove(tag)

    def execute(self, node: str, command: Sequence[str], *, check: bool = True) -> str:
        """Run a command as root in a node, beside SSH, and return what it printed.

        Raises:
            TrainyardError: it failed and ``check`` is set.
        """
        output, status = _run(self._container(node), command)
        if check and status != 0:  # None where Docker does not know how it ended
            raise TrainyardError(f"{' '.join(command)} failed on {node} ({status}):\n{output}")
        return output

    def address(self, node: str) -> str:
        """Return a node's IP address on the lab's network."""
        container = self._container(node)
        container.reload()
        return str(container.attrs["NetworkSettings"]["Networks"][self._network_name]["IPAddress"])

    def kill(self, node: str) -> None:
        """Stop a node at once, as a power cut would."""
        self._container(node).kill()

    def start(self, node: str) -> None:
        """Start a stopped node and wait for its sshd."""
        self._container(node).start()
        self._wait(node)
        self._write_ssh_files()

    def restart(self, node: str) -> None:
        """Restart a node in good order, as a reboot would."""
        self._container(node).restart(timeout=60)
        self._wait(node)
        self._write_ssh_files()

    @property
    def _network_name(self) -> str:
        return f"trainyard-{self.name}"

    def _container_name(self, node: str) -> str:
        return f"trainyard-{self.name}-{node}"

    def _container(self, node: str) -> Container:
        try:
            return self.client.containers.get(self._container_name(node))
        except NotFound as error:
            raise TrainyardError(f"There is no node {node} in the lab {self.name}. Bring it up with: ./trainyard up") from error

    def _containers(self) -> Iterable[Container]:
        return self.client.containers.list(all=True, filters={"label": f"{LABEL}={self.name}"})  # type: ignore[no-any-return]

    def _network(self) -> Network:
        found = self.client.networks.list(names=[self._network_name], filters={"label": f"{LABEL}={self.name}"})
        return found[0] if found else self.client.networks.create(self._network_name, labels={LABEL: self.name})

    def _volume(self, path: str) -> str:
        """Return the name of a volume, which is made unless it is there."""
        name = f"{self._network_name}{path.replace('/', '-')}"
        self.client.volumes.create(name, labels={LABEL: self.name})
        return name

    def _allow_inotify(self) -> None:
        try:
            if int(INOTIFY_INSTANCES.read_text()) < INOTIFY_WANTED:
                INOTIFY_INSTANCES.write_text(str(INOTIFY_WANTED))
        except OSError:
            pass  # not root, or read-only: three nodes fit into the default

    def _make_key(self) -> None:
        if self.key.exists() and self.key.with_suffix(".pub").exists():
            return
        self.key.unlink(missing_ok=True)  # half a pair, left by an interruption
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"trainyard lab {self.name}", "-f", str(self.key)],
            check=True,
            stdin=subprocess.DEVNULL,
        )

    def _boot(self, node: str, tag: str, network: Network) -> None:
        name = self._container_name(node)
        try:
            container = self.client.containers.get(name)
            if container.attrs["Config"]["Image"] != tag and container.status == "created":
                container.remove(force=True, v=True)  # never started, and of an older recipe
                raise NotFound(name)
            lacking = {*self.volumes} - {mount["Destination"] for mount in container.attrs["Mounts"]}
            if lacking:
                raise TrainyardError(
                    f"An older version of Trainyard made the node {node}, which lacks the shared {' and '.join(sorted(lacking))}. "
                    "Make the lab again: ./trainyard down, then ./trainyard up"
                )
        except NotFound:
            self.say(f"booting {node}")
            arguments = systemd_arguments(name)
            volumes = [*arguments.pop("volumes"), *(f"{source}:{target}:ro" for source, target in self.mounts.items())]
            volumes += [f"{source}:{target}" for source, target in self.shared.items()]
            volumes += [f"{self._volume(path)}:{path}" for path in self.volumes]
            container = self.client.containers.create(
                tag,
                name=name,
                hostname=node,
                labels={LABEL: self.name},
                network=network.name,
                networking_config={network.name: self.client.api.create_endpoint_config(aliases=[node])},
                volumes=volumes,
                mounts=[Mount("/opt", source=None, type="volume")],  # on a plain file system, as on a server: an overlay is slower
                device_cgroup_rules=list(self.devices),
                **arguments,
            )
        if container.status != "running":
            try:
                container.start()
            except APIError as error:
                raise TrainyardError(f"The node {node} could not be started: {error.explanation}") from error
        self._wait(node)

    def _wait(self, node: str) -> None:
        """Wait until systemd has started sshd, then let our key in."""
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            with suppress(APIError):  # it stopped just now
                if "active" in self.execute(node, ["systemctl", "is-active", "ssh.service", "ssh.socket"], check=False).split():
                    break
            container = self._container(node)
            if container.status != "running" or time.monotonic() > deadline:
                log = container.logs(tail=20).decode(errors="replace")
                raise TrainyardError(
                    f"The node {node} did not boot within {BOOT_SECONDS} seconds: "
                    f"its container is {container.status}. To make all nodes anew: ./trainyard down, then up. Its last words:\n{log}"
                )
            time.sleep(0.3)
        # Containers of an older recipe, which does not do it as they boot: without it no service of theirs gets its credentials.
        self.execute(node, ["mount", "--make-rshared", "/"])
        self._authorize(node)

    def _authorize(self, node: str) -> None:
        public = self.key.with_suffix(".pub").read_text()
        home = f"/home/{ADMIN}"
        if public in self.execute(node, ["cat", f"{home}/.ssh/authorized_keys"], check=False):
            return
        # Both: the copy of the image's homes into a volume may have been interrupted.
        self.execute(node, ["install", "-d", "-m", "0700", "-o", ADMIN, "-g", ADMIN, home, f"{home}/.ssh"])
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo("authorized_keys")
            entry.size, entry.mode = len(public.encode()), 0o600
            tar.addfile(entry, io.BytesIO(public.encode()))
        self._container(node).put_archive(f"{home}/.ssh", archive.getvalue())
        self.execute(node, ["chown", f"{ADMIN}:{ADMIN}", f"{home}/.ssh/authorized_keys"])

    def _write_ssh_files(self) -> None:
        """Write ssh_config and known_hosts; the host keys are read inside the nodes, not taken off the network."""
        hosts, config = [], []
        known = (self.state / "known_hosts").resolve()
        for node in self.nodes:
            for line in self.execute(node, ["sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub"]).splitlines():
                kind, key = line.split()[:2]
                hosts.append(f"{node} {kind} {key}\n")
            config.append(
                f"Host {node}\n  HostName {self.address(node)}\n  HostKeyAlias {node}\n  User {ADMIN}\n"
                f'  IdentityFile "{self.key.resolve()}"\n  IdentitiesOnly yes\n'
                f'  UserKnownHostsFile "{known}"\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n'
            )
        _write(self.state / "known_hosts", "".join(hosts))
        _write(self.ssh_config, "".join(config))


def _write(path: Path, text: str) -> None:
    """Replace a file's content in one step, so that an interruption leaves the old or the new one."""
    if path.exists() and path.read_text() == text:
        return
    beside = path.with_name(path.name + ".new")
    beside.write_text(text)
    beside.chmod(0o600)
    beside.rename(path)


def _run(container: Container, command: Sequence[str]) -> tuple[str, int | None]:
    """Run a command as root, and return what it printed and its exit status; None where the container was stopped meanwhile.

    On a busy machine Docker gives up what a command that has ended printed, without a word, or does not know its status. So the node keeps
    both for some minutes, and they are asked for again where their end is missing.
    """
    mark = secrets.token_hex(8)
    kept = f"{PRINTED}/trainyard-exec.{mark}"
    tidy = f"find {PRINTED} -maxdepth 1 -name 'trainyard-exec.*' -mmin +5 -delete"
    script = f'{tidy}; (umask 077; : >{kept}); "$@" >>{kept} 2>&1; echo "{mark} $?" >>{kept}; cat {kept}'
    output, words = "", ["sh", "-c", script, "sh", *command]
    for again in range(ASKED):
        time.sleep(again)
        try:
            output = (container.exec_run(words, user="root").output or b"").decode(errors="replace")
        except APIError:
            if not again:
                raise
            break
        printed, found, status = output.rpartition(f"{mark} ")
        if found:
            return printed, int(status)
        words = ["cat", kept]
    return output, None
