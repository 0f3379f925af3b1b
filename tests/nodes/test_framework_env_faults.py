"""Environments on a real node, with a real uv: drift, interruptions, bad sources and full disks are put right, or said.

Packages and the index that serves them are made in the node, so that they can be bent; uv itself comes from where it always does.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import Play, play, put_module_utils
from trainyard.containers import Lab
from trainyard.paths import REPOSITORY

pytestmark = pytest.mark.nodes

BASE = "/opt/trainyard/envs"
INDEX = "http://127.0.0.1:8098/simple"
AUTHORITIES = Path("/usr/local/share/ca-certificates")
INSTALLER = (REPOSITORY / "roles" / "catalog" / "files" / "locks" / "installer.txt").read_text()

MAKE_WHEELS = r"""
import base64, hashlib, json, os, pathlib, random, zipfile
folder = pathlib.Path("/srv/index"); folder.mkdir(parents=True, exist_ok=True)
random.seed(1)
locks = {}
packages = [
    ("alpha", "1.0", 0), ("alpha", "2.0", 0), ("alpha", "2.0+other", 0),
    ("beta", "1.0", 0), ("big", "1.0", 30_000_000), ("special", "1.0+cpu", 0),
]
for name, version, size in packages:
    files = {f"{name}/__init__.py": f"version = '{version}'\n".encode(), f"{name}/tests/__init__.py": b""}
    if size:
        files[f"{name}/data.bin"] = random.randbytes(size)
    info = f"{name}-{version}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    digest = lambda data: base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    rows = [f"{path},sha256={digest(data)},{len(data)}" for path, data in files.items()] + [f"{info}/RECORD,,"]
    files[f"{info}/RECORD"] = ("\n".join(rows) + "\n").encode()
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    locks[f"{name}=={version}"] = f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()} # {size or 1000}"
print(json.dumps(locks))
"""

SERVE = r"""
import hashlib, http.server, os, pathlib, time
folder = pathlib.Path("/srv/index")
class Index(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open("/srv/asked", "a") as log: log.write(self.path + "\n")
        mode = pathlib.Path("/srv/mode").read_text() if os.path.exists("/srv/mode") else ""
        parts = self.path.strip("/").split("/")
        if mode == "broken":
            return self.answer(503, b"")
        if parts[0] in ("simple", "special"):
            name = parts[1] if len(parts) > 1 else ""
            wheels = [w for w in folder.glob(f"{name}-*.whl") if (name == "special") == (parts[0] == "special")]
            sums = {w: "#sha256=" + hashlib.sha256(w.read_bytes()).hexdigest() if mode == "sums" else "" for w in wheels}
            page = "".join(f'<a href="/files/{w.name}{sums[w]}">{w.name}</a>' for w in wheels).encode()
            return self.answer(200 if wheels else 404, page)
        data = (folder / parts[1].replace("%2B", "+")).read_bytes()
        self.answer(200, data, slow=mode == "slow")
    do_HEAD = do_GET
    def answer(self, status, data, slow=False):
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if data[:2] == b"<a" else "application/octet-stream")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        for start in range(0, len(data), 100_000):
            self.wfile.write(data[start:start + 100_000])
            if slow: time.sleep(0.03)
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8098), Index).serve_forever()
"""


DRIVE = """
import json, sys
sys.path.insert(0, "/srv")
from ansible_collections.trainyard.core.plugins.module_utils import _python_env as core
call = json.load(sys.stdin)
wishes = []
for entry in call.pop("environments"):
    present = entry.pop("state", "present") == "present"
    wishes.append(core.Wanted(present=present, index_packages=tuple(entry.pop("index_packages", ())), **entry))
state, dry = call.pop("state", "present"), call.pop("dry", False)
envs = core.Environments(core.Settings(**call))
results = []
try:
    if state == "checked":
        envs.check(wishes)
    else:
        results = envs.remove_all(dry=dry) if state == "absent" else envs.apply(wishes, dry=dry)
    print(json.dumps({"failed": "", "actions": {result.name: result.actions for result in results}}))
except core.PythonEnvError as error:
    print(json.dumps({"failed": str(error), "actions": {}}))
"""


@dataclass(frozen=True)
class Done:
    """What the module's core did: why it gave up, '' where it did not, and what it did to each environment."""

    failed: str
    actions: dict[str, list[str]]


def encoded(text: str) -> str:
    """Return a text in letters that need no quotes."""
    return base64.b64encode(text.encode()).decode()


@dataclass
class Site:
    """The node, its made-up index, and the module at work there."""

    lab: Lab
    folder: Path
    locks: dict[str, str]

    def root(self, script: str, *, check: bool = True) -> str:
        """Run a shell script as root in the node."""
        return self.lab.execute("head", ["sh", "-ec", script], check=check)

    def lock(self, *pins: str) -> str:
        """Return a lock of made-up packages."""
        return "".join(self.locks[pin] + "\n" for pin in pins)

    def envs(self, environments: list[dict[str, Any]], **options: Any) -> Done:
        """Run the module's core in the node, without Ansible around it, which takes some seconds each time."""
        call = {**self.arguments(options), "environments": environments}
        return Done(**json.loads(self.root(f"echo {encoded(json.dumps(call))} | base64 -d | python3 /srv/drive.py")))

    def ansible(self, environments: list[dict[str, Any]], *words: str, **options: Any) -> Play:
        """Run the module by Ansible."""
        task = {"name": "envs", "trainyard.core.python_env": {**self.arguments(options), "environments": environments}}
        return play(self.lab, self.folder, [task], words)

    def arguments(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the module's usual options, and those that are given."""
        return {"path": BASE, "owner": "framework_env", "installer_requirements": INSTALLER, "index_url": INDEX, **options}

    def one(self, *pins: str, name: str = "one", **options: Any) -> dict[str, Any]:
        """Return a wish for one environment."""
        return {"name": name, "requirements": self.lock(*pins), **options}

    def says(self) -> list[str]:
        """Bring `one` to its usual state and return what was done; a second run must do nothing."""
        done = self.envs([self.one("alpha==2.0", "beta==1.0")])
        assert not done.failed, done.failed
        assert self.envs([self.one("alpha==2.0", "beta==1.0")]).actions == {"one": []}
        return done.actions["one"]

    def imports(self, name: str = "one") -> str:
        """Import the packages as an ordinary user and return their versions."""
        code = "import alpha, beta; print(alpha.version, beta.version)"
        return self.root(f"su nobody -s /bin/sh -c '{BASE}/{name}/bin/python -c \"{code}\"'").strip()

    def mode(self, mode: str) -> None:
        """Have the index misbehave: broken, slow, or '' for well."""
        self.root(f"printf '%s' '{mode}' >/srv/mode; : >/srv/asked")

    def serve(self) -> None:
        """Start the index."""
        self.root("systemctl is-active -q index || systemd-run -q --collect --unit index python3 /srv/serve.py")
        self.root(
            "for i in $(seq 100); do python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8098))' && break; sleep 0.1; done"
        )

    def uv(self) -> list[str]:
        """Return the process ids of uv in the node."""
        return self.root("pgrep -x uv", check=False).split()


@pytest.fixture(scope="module")
def site(node: Lab, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A node with the index, and the environment `one` made."""
    for path in sorted(AUTHORITIES.glob("*.crt")):
        node.execute("head", ["sh", "-c", f"echo {encoded(path.read_text())} | base64 -d >{AUTHORITIES}/{path.name}"])
    node.execute(
        "head", ["sh", "-ec", "update-ca-certificates; apt-get -qq update; apt-get -qq install --no-install-recommends python3-venv"]
    )
    for name, text in {"make.py": MAKE_WHEELS, "serve.py": SERVE, "drive.py": DRIVE}.items():
        node.execute("head", ["sh", "-c", f"echo {encoded(text)} | base64 -d >/srv/{name}"])
    put_module_utils(node.execute, "head", "_p*.py")
    locks = json.loads(node.execute("head", ["python3", "/srv/make.py"]))
    here = Site(node, tmp_path_factory.mktemp("site"), locks)
    here.serve()
    first = here.ansible([here.one("alpha==2.0", "beta==1.0")], index_url="", wheelhouse="/srv/index")
    assert first.status == 0, first.failures() or first.text
    assert first.changed == {"head": 1}
    return here


@pytest.fixture(autouse=True)
def well(site: Site) -> None:
    """Before each test: the index behaves, and `one` is as usual."""
    site.serve()
    site.mode("")
    site.says()


def test_as_locked_importable_by_everybody_compiled_and_not_writable(site: Site) -> None:
    assert site.imports() == "2.0 1.0"
    packages = f"{BASE}/one/lib/python3.11/site-packages"
    assert site.root(f"ls {packages}/alpha/__pycache__").split() == ["__init__.cpython-311.pyc"]
    assert site.root(f"find {BASE}/one -perm /022 -not -type l") == ""
    assert "Read-only" in site.root(f"su nobody -s /bin/sh -c 'touch {packages}/x || echo Read-only'")


def test_check_mode_says_it_and_does_nothing(site: Site) -> None:
    packages = f"{BASE}/one/lib/python3.11/site-packages"
    site.root(f"rm {packages}/alpha/__init__.py")
    done = site.ansible([site.one("alpha==2.0", "beta==1.0"), site.one("alpha==1.0", name="two")], "--check", "--diff")
    assert done.changed == {"head": 1}
    result = done.results["envs", "head"]
    assert [entry["actions"] for entry in result["environments"]] == [
        ["repair alpha: alpha/__init__.py is missing"],
        ["create it", "add alpha 1.0"],
    ]
    assert [part["after"] for part in result["diff"]] == ["alpha 2.0\nbeta 1.0\n", "alpha 1.0\n"]
    assert site.root(f"ls -A {BASE}").split() == [".cache", ".lock", ".uv", "one"]
    assert site.root(f"ls {packages}/alpha").split() == ["__pycache__", "tests"]


def test_a_stray_pip_install_is_undone(site: Site) -> None:
    python = f"{BASE}/one/bin/python"
    site.root(f"{python} -m ensurepip >/dev/null; {python} -m pip install -q --index-url {INDEX} big==1.0 alpha==1.0")
    actions = site.says()
    pip = next(line for line in actions if line.startswith("remove pip "))
    assert sorted(set(actions) - {pip} - {line for line in actions if line.startswith("remove setuptools ")}) == [
        "change alpha 1.0 to 2.0",
        "remove big 1.0",
    ]
    assert site.imports() == "2.0 1.0"


@pytest.mark.parametrize(
    ("damage", "action"),
    [
        ("rm -r $P/alpha", "repair alpha: alpha/__init__.py is missing, and 1 more"),
        (": >$P/alpha/__init__.py", "repair alpha: alpha/__init__.py has 0 bytes instead of 16"),
        ("sed -i s/2.0/9.9/ $P/alpha/__init__.py", "repair alpha: alpha/__init__.py has another content"),
        (
            "printf 9 | dd of=$P/alpha/__init__.py bs=1 seek=12 conv=notrunc status=none",
            "repair alpha: alpha/__init__.py has another content",
        ),
        ("rm $P/alpha-2.0.dist-info/RECORD", "repair alpha: its list of files is gone"),
        ("rm -r $P/alpha-2.0.dist-info", "add alpha 2.0"),
        ("rm -r $P/alpha $P/alpha-2.0.dist-info", "add alpha 2.0"),
        ("mkdir $P/~lpha", "remove ~lpha, which belongs to no package"),
        ("cp -r $P/alpha-2.0.dist-info $P/alpha-1.5.dist-info", "repair alpha: it is installed twice, as 1.5 and 2.0"),
        ("rm $E/pyvenv.cfg", "put its interpreter in place: pyvenv.cfg is missing or damaged"),
        ("ln -sf /nowhere $E/bin/python", "put its interpreter in place: bin/python does not run"),
        ("rm -r $E/bin", "put its interpreter in place: bin/activate is missing"),
        ("sed -i s/false/true/ $E/pyvenv.cfg", "put its interpreter in place: it reads the system's packages too"),
        (
            "sed -i s/3[.]11[.][0-9]*/3.9.1/ $E/pyvenv.cfg",
            "make it anew: it has Python 3.9, wanted is 3.11",
        ),
    ],
)
def test_damage_is_found_named_and_repaired(site: Site, damage: str, action: str) -> None:
    site.root(f"E={BASE}/one; P=$E/lib/python3.11/site-packages; {damage}")
    actions = site.says()
    assert action in actions, actions
    assert site.imports() == "2.0 1.0"


def test_damage_to_a_file_that_environments_and_cache_share_is_repaired_everywhere(site: Site) -> None:
    both = [site.one("alpha==2.0", "beta==1.0"), site.one("alpha==2.0", "beta==1.0", name="twin")]
    assert not site.envs(both).failed
    module = "lib/python3.11/site-packages/alpha/__init__.py"
    inodes = site.root(f"stat -c %i {BASE}/one/{module} {BASE}/twin/{module}").split()
    assert inodes[0] == inodes[1], "not shared"
    site.root(f"printf 9 | dd of={BASE}/one/{module} bs=1 seek=12 conv=notrunc status=none")
    done = site.envs(both)
    assert list(done.actions.values()) == [["repair alpha: alpha/__init__.py has another content"]] * 2
    assert (site.imports("one"), site.imports("twin")) == ("2.0 1.0", "2.0 1.0")
    assert site.envs(both).actions == {"one": [], "twin": []}
    assert site.envs([site.one(name="twin", state="absent")]).actions == {"twin": ["remove it"]}


@pytest.mark.parametrize("victims", ["uv", "uv and the module"])
def test_a_download_killed_half_way_is_healed_by_the_next_run(site: Site, victims: str) -> None:
    wish = site.one("big==1.0", "alpha==2.0", name="half")
    site.root(f"rm -rf {BASE}/half {BASE}/.cache")
    site.mode("slow")
    plays: list[Play] = []
    runner = threading.Thread(target=lambda: plays.append(site.ansible([wish])))
    runner.start()
    deadline = time.monotonic() + 60
    while not (site.uv() and "big-1.0" in site.root("cat /srv/asked")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    uv = site.uv()
    assert uv, "uv was not caught at work"
    parent = site.root(f"ps -o ppid= -p {uv[0]}").strip()
    site.root(f"kill -KILL {parent if victims != 'uv' else ''} {uv[0]}")
    runner.join(120)
    assert plays[0].status != 0
    assert site.root(f"grep complete {BASE}/half/.trainyard-env.json").split() == ['"complete":', "false,"]
    site.mode("")
    done = site.envs([wish])
    assert not done.failed, done.failed
    assert done.actions["half"] == ["finish what was interrupted", "add alpha 2.0", "add big 1.0"]
    assert site.envs([wish]).actions == {wish["name"]: []}
    assert site.root(
        f"{BASE}/half/bin/python -c 'import big, pathlib; print(pathlib.Path(big.__file__).with_name(\"data.bin\").stat().st_size)'"
    ) == ("30000000\n")
    site.envs([site.one(name="half", state="absent")])


def test_an_installation_killed_while_it_links_is_healed(site: Site) -> None:
    """What is on the disk then: packages without their info, info without its list, an open marker."""
    packages = f"{BASE}/one/lib/python3.11/site-packages"
    site.root(
        f'sed -i \'s/"complete": true/"complete": false/\' {BASE}/one/.trainyard-env.json; '
        f"rm -r {packages}/beta-1.0.dist-info; rm {packages}/alpha-2.0.dist-info/RECORD"
    )
    assert site.says() == [
        "finish what was interrupted",
        "add beta 1.0",
        "repair alpha: its list of files is gone",
        "remove alpha, which belongs to no package",
        "remove beta, which belongs to no package",
    ]
    assert site.imports() == "2.0 1.0"


def test_what_a_power_cut_left_is_not_trusted(site: Site) -> None:
    packages = f"{BASE}/one/lib/python3.11/site-packages"
    site.root(
        f'sed -i \'s/"complete": true/"complete": false/; s/"boot": ".*"/"boot": "before"/\' {BASE}/one/.trainyard-env.json; '
        f": >{packages}/alpha/__init__.py"  # the cache has this very file
    )
    assert site.says()[0] == "make it anew: the machine went down while it was being made"
    assert site.imports() == "2.0 1.0"


def test_half_an_installer_is_made_anew(site: Site) -> None:
    site.root(f"rm -rf {BASE}/one; : >{BASE}/.uv/bin/uv")
    done = site.envs([site.one("alpha==2.0", "beta==1.0")], index_url="", wheelhouse="/srv/index")
    assert not done.failed, done.failed
    assert site.root(f"{BASE}/.uv/bin/uv --version").startswith("uv ")


def test_two_runs_wait_for_each_other(site: Site) -> None:
    site.root(f"systemd-run -q --collect --unit holder flock {BASE}/.lock sleep 5")
    time.sleep(0.5)
    started = time.monotonic()
    done = site.envs([site.one("alpha==2.0", name="two")])
    assert not done.failed, done.failed
    assert time.monotonic() - started > 3
    site.root(f"systemd-run -q --collect --unit holder flock {BASE}/.lock sleep 8")
    time.sleep(0.5)
    refused = site.envs([site.one("alpha==1.0", name="two")], patience=1)
    assert refused.failed.startswith(f"{BASE}: Another run has been at work for 1 seconds: ")
    assert refused.failed.endswith(f"Run this again when it has ended. On the node, `fuser -v {BASE}/.lock` shows its processes.")
    site.root("while systemctl is-active -q holder; do sleep 0.2; done")
    site.envs([site.one(name="two", state="absent")])


def test_a_wrong_checksum_is_named_and_not_installed(site: Site) -> None:
    right = site.lock("alpha==1.0")
    digest = right.partition("sha256:")[2][:64]
    wrong = "0" * 64
    wish = {"name": "wrong", "requirements": right.replace(digest, wrong)}
    assert site.envs([wish], state="checked").failed == "", "this index tells no sums"
    site.mode("sums")
    refused = site.envs([wish], state="checked")
    assert refused.failed == (
        f"Wrong checksum: alpha==1.0 was locked as sha256:{wrong}, but alpha-1.0-py3-none-any.whl is sha256:{digest}. "
        "Put the right files there, or choose another source by framework_env_index_url "
        "(an index of your own, or a mirror) and framework_env_wheelhouse (a folder of wheels)."
    )
    assert site.envs([{**wish, "requirements": right}], state="checked").failed == ""
    assert site.root(f"test -e {BASE}/wrong || echo nothing").strip() == "nothing"
    site.mode("")
    refused = site.envs([wish])
    assert refused.failed == (
        f"Wrong checksum: alpha==1.0 was locked as sha256:{wrong}, but what came is sha256:{digest}. It was not installed. "
        f"It came from {INDEX}: put the right file there, or choose another source by framework_env_index_url "
        "(an index of your own, or a mirror) and framework_env_wheelhouse (a folder of wheels)."
    )
    assert site.root(f"ls {BASE}/wrong/lib/python3.11/site-packages") == ""
    healed = site.envs([{"name": "wrong", "requirements": right}])
    assert not healed.failed, healed.failed
    site.envs([site.one(name="wrong", state="absent")])


def test_an_index_that_is_down_is_tried_again_and_then_said(site: Site) -> None:
    site.mode("broken")
    site.root(f"rm -rf {BASE}/.cache")
    refused = site.envs([site.one("alpha==1.0", name="down")])
    assert refused.failed.startswith(
        f"The Python index does not answer: {INDEX}/alpha/ was tried 4 times. See that the node reaches it, by base_proxy where a proxy "
        "is the only way out, or choose another source by framework_env_index_url (an index of your own, or a mirror) and "
        "framework_env_wheelhouse (a folder of wheels). The installer said: "
    )
    assert site.root("cat /srv/asked").split() == ["/simple/alpha/"] * 4
    site.root("systemctl stop index")
    refused = site.envs([site.one("alpha==1.0", name="down")])
    assert "Connection refused" in refused.failed
    assert "framework_env_index_url" in refused.failed
    site.serve()
    site.mode("")
    healed = site.envs([site.one("alpha==1.0", name="down")])
    assert healed.actions["down"] == ["finish what was interrupted", "add alpha 1.0"]
    site.envs([site.one(name="down", state="absent")])


def test_an_index_that_fails_for_a_moment_goes_unnoticed(site: Site) -> None:
    site.mode("broken")
    mend = "while ! grep -q alpha /srv/asked; do sleep 0.1; done; : >/srv/mode"
    site.root(f"rm -rf {BASE}/.cache; systemd-run -q --collect --unit mend sh -c '{mend}'")
    done = site.envs([site.one("alpha==1.0", name="moment")])
    assert not done.failed, done.failed
    site.envs([site.one(name="moment", state="absent")])


def test_a_package_that_is_nowhere_is_named(site: Site) -> None:
    refused = site.envs([{"name": "none", "requirements": site.lock("alpha==1.0").replace("==1.0", "==7.0")}])
    assert refused.failed.startswith(
        f"alpha==7.0 is nowhere to be had: not in {INDEX}. Give a source that has it by framework_env_index_url"
    )
    site.envs([site.one(name="none", state="absent")])


def test_too_little_room_is_said_before_anything_is_written(site: Site) -> None:
    small = "/mnt/small/envs"
    site.root("mkdir -p /mnt/small && mount -t tmpfs -o size=300m tmpfs /mnt/small")
    try:
        wish = {"name": "tensorflow", "requirements": site.lock("alpha==1.0").replace("# 1000", "# 1650000000")}
        says = (
            f"The disk of {small} has 315 MB free, but tensorflow will take 2.0 GB, and 200 MB should stay free. "
            "Make room, or put the environments on a bigger disk by framework_env_path."
        )
        assert site.envs([wish], path=small, state="checked").failed == says
        assert site.envs([wish], path=small).failed == says
        assert site.envs([wish], dry=True, path=small).failed == says
        assert site.root("ls -A /mnt/small") == ""
    finally:
        site.root("umount /mnt/small")


def test_a_disk_that_fills_up_on_the_way_is_said_and_healed(site: Site) -> None:
    small = "/mnt/small/envs"
    site.root("mkdir -p /mnt/small && mount -t tmpfs -o size=90m tmpfs /mnt/small")
    try:
        site.root(f"mkdir {small}; cp -a {BASE}/.uv {small}/.uv; sed -i 's,{BASE},{small},' {small}/.uv/pyvenv.cfg")
        site.root("head -c 20M /dev/zero >/mnt/small/ballast; df -h /mnt/small")
        wish = {"name": "big", "requirements": site.lock("big==1.0").replace("# 30000000", "# 1000")}
        assert site.envs([wish], path=small, spare=0).failed == (
            "The disk is full. Make room, or put the environments on a bigger disk by framework_env_path."
        )
        site.root("rm /mnt/small/ballast")
        done = site.envs([wish], path=small, spare=0)
        assert not done.failed, done.failed
        assert site.envs([wish], path=small, spare=0).actions == {"big": []}
    finally:
        site.root("umount /mnt/small")


def test_a_special_index_is_asked_only_where_nothing_else_has_the_package(site: Site) -> None:
    closed = "http://127.0.0.1:9/simple"
    wish = site.one("special==1.0+cpu", "alpha==1.0", name="special", index_url=closed, index_packages=["special"])
    done = site.envs([wish], wheelhouse="/srv/index")
    assert not done.failed, done.failed
    site.root(f"rm -rf {BASE}/special {BASE}/.cache; : >/srv/asked")
    done = site.envs([{**wish, "index_url": "http://127.0.0.1:8098/special"}])
    assert not done.failed, done.failed
    asked = site.root("cat /srv/asked").split()
    assert {path for path in asked if path.startswith("/special/")} == {"/special/special/"}
    site.root(f"rm -rf {BASE}/special {BASE}/.cache")
    refused = site.envs([wish])
    assert refused.failed.startswith(f"The Python index does not answer: {closed}/special/ was tried 4 times.")
    site.envs([site.one(name="special", state="absent")])


def test_a_password_in_the_index_is_in_no_output_and_in_no_process(site: Site) -> None:
    canary = "canary-d41d8cd9"
    site.root(f"rm -rf {BASE}/.cache")
    site.mode("slow")
    url = INDEX.replace("//", f"//alice:{canary}@")
    plays: list[Play] = []
    wish = site.one("big==1.0", name="secret")
    runner = threading.Thread(target=lambda: plays.append(site.ansible([wish], "-vvv", "--diff", index_url=url)))
    runner.start()
    deadline = time.monotonic() + 60
    while not site.uv() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert canary not in site.root("cat /proc/[0-9]*/cmdline | tr '\\0' ' '", check=False)
    runner.join(120)
    assert plays[0].status == 0, plays[0].failures()
    assert canary not in plays[0].text
    site.mode("broken")
    refused = site.ansible([site.one("alpha==1.0", name="secret2")], "-vvv", index_url=url)
    assert refused.status != 0
    assert canary not in refused.text
    assert site.root(f"grep -rl {canary} {BASE} /tmp /var/log /var/tmp; journalctl --no-pager | grep {canary}", check=False) == ""
    site.envs([site.one(name="secret", state="absent"), site.one(name="secret2", state="absent")])


def test_others_folders_and_the_systems_python_stay_as_they_are(site: Site) -> None:
    system = "find /usr/lib/python3* /usr/local/lib/python3* -not -name '*.pyc' -not -name __pycache__ 2>/dev/null | sort | sha256sum"
    before = site.root(system)
    site.root(f"mkdir {BASE}/thesis; echo years >{BASE}/thesis/work.txt")
    refused = site.envs([site.one("alpha==1.0", name="thesis")])
    assert refused.failed == (
        f"{BASE}/thesis is there already and was not made by framework_env. "
        "Move it away, or choose another name for this environment, or another framework_env_path."
    )
    assert site.envs([], owner="jupyter", state="absent").actions == {}
    assert site.envs([], state="absent").actions == {"one": ["remove it"]}
    assert site.root(f"find {BASE}").split() == [BASE, f"{BASE}/thesis", f"{BASE}/thesis/work.txt"]
    assert site.envs([], state="absent").actions == {}
    site.root(f"rm -r {BASE}/thesis")
    again = site.envs([site.one("alpha==2.0", "beta==1.0")], index_url="", wheelhouse="/srv/index")
    assert not again.failed, again.failed
    assert site.root(system) == before


def test_the_node_has_no_python_of_that_name(site: Site) -> None:
    refused = site.envs([site.one("alpha==1.0", name="other")], python="/usr/bin/python2", state="checked")
    assert refused.failed == "framework_env_python: /usr/bin/python2 is no Python on this node."
    refused = site.envs([site.one("alpha==1.0", name="other", python_version="3.13")], state="checked")
    assert refused.failed == "framework_env_python: /usr/bin/python3 is Python 3.11, but other is locked for 3.13."
