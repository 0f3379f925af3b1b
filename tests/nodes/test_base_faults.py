"""Packages, mirrors and certificate authorities on a real node, interrupted ones among them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support import Play, play
from trainyard.containers import Lab

pytestmark = pytest.mark.nodes

REDIRECT = """
import http.server, sys
class Mirror(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open("/tmp/asked", "a") as log: log.write(self.path + "\\n")
        self.send_response(302)
        self.send_header("Location", sys.argv[1] + self.path)
        self.end_headers()
    do_HEAD = do_GET
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8099), Mirror).serve_forever()
"""


def packages(node: Lab, folder: Path, names: list[str], words: tuple[str, ...] = (), **more: object) -> Play:
    return play(node, folder, [{"name": "packages", "trainyard.core.packages": {"name": names, **more}}], words)


def test_a_dpkg_killed_half_way_is_finished(node: Lab, tmp_path: Path) -> None:
    first = packages(node, tmp_path, ["tmux"])
    assert first.changed == {"head": 1}, first.text
    # Killed while it configures: stand-in for a power cut, by the package's own script killing dpkg.
    node.execute("head", ["sh", "-c", "cd /tmp && apt-get -qq download screen && dpkg --unpack /tmp/screen_*.deb"])
    assert "U" in node.execute("head", ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}", "screen"])
    done = packages(node, tmp_path, ["tmux"])
    assert done.status == 0, done.text
    assert done.results["packages", "head"]["healed"] == ["screen"]
    assert node.execute("head", ["dpkg", "--audit"]) == ""
    assert packages(node, tmp_path, ["tmux"]).changed == {"head": 0}


def test_dpkg_killed_by_a_signal_in_the_middle_of_an_installation_is_finished(node: Lab, tmp_path: Path) -> None:
    script = """
        apt-get -qq -y --no-install-recommends install python3-numpy >/tmp/install.log 2>&1 &
        for i in $(seq 1200); do
            dpkg-query -W -f '${db:Status-Abbrev}\n' | grep -q '^iU' && break
            sleep 0.02
        done
        pkill -KILL -x apt-get; pkill -KILL -x dpkg; wait"""
    node.execute("head", ["sh", "-c", script], check=False)
    broken = node.execute("head", ["sh", "-c", "dpkg-query -W -f '${db:Status-Abbrev}\\n' | grep -vc '^ii '"], check=False).strip()
    assert int(broken) > 0, "dpkg was not caught in the middle"
    done = packages(node, tmp_path, ["python3-numpy"])
    assert done.status == 0, done.text
    assert node.execute("head", ["dpkg", "--audit"]) == ""
    assert "ii" in node.execute("head", ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}", "python3-numpy"])


@pytest.mark.parametrize(
    "lock,package",
    [
        ("/var/lib/dpkg/lock-frontend", "sl"),
        ("/var/lib/dpkg/lock", "figlet"),
        ("/var/lib/apt/lists/lock", "cowsay"),
        ("/var/cache/apt/archives/lock", "rolldice"),
    ],
)
def test_each_lock_is_waited_for(node: Lab, tmp_path: Path, lock: str, package: str) -> None:
    hold(node, lock, 8)
    done = packages(node, tmp_path, [package], wait=60)
    assert done.status == 0, done.text
    assert done.changed == {"head": 1}
    assert "released" in node.execute("head", ["ls", "/tmp"]), "the package was installed while the lock was held"


def test_a_lock_that_is_never_let_go_is_named(node: Lab, tmp_path: Path) -> None:
    hold(node, "/var/lib/dpkg/lock-frontend", 12)
    refused = packages(node, tmp_path, ["fortune-mod"], wait=1)
    assert "Another process held /var/lib/dpkg/lock-frontend for all of the 1 seconds that were waited." in refused.failures()
    node.execute("head", ["sh", "-c", "for i in $(seq 200); do [ -e /tmp/released ] && break; sleep 0.1; done"])


def hold(node: Lab, lock: str, seconds: int) -> None:
    """Hold a lock in the node as apt does, and return once it is held; /tmp/released tells when it is let go."""
    script = f"import fcntl, pathlib, time; f = open({lock!r}, 'w'); fcntl.lockf(f, fcntl.LOCK_EX); pathlib.Path('/tmp/held').touch(); "
    script += f"time.sleep({seconds}); pathlib.Path('/tmp/released').touch()"
    node.execute("head", ["rm", "-f", "/tmp/held", "/tmp/released"])
    node.execute(
        "head",
        [
            "sh",
            "-c",
            f'setsid python3 -c "{script}" >/dev/null 2>&1 & for i in $(seq 100); do [ -e /tmp/held ] && exit; sleep 0.1; done; exit 1',
        ],
    )


def test_only_packages_that_were_installed_for_an_owner_are_removed_for_it(node: Lab, tmp_path: Path) -> None:
    node.execute("head", ["apt-get", "-qq", "-y", "install", "bc"])
    assert packages(node, tmp_path, ["bc", "dc"], owner="demo").results["packages", "head"]["installed"] == ["dc"]
    assert packages(node, tmp_path, ["bc", "dc"], ("--check",), owner="demo", state="absent").results["packages", "head"]["removed"] == [
        "dc"
    ]
    assert packages(node, tmp_path, ["bc", "dc"], owner="demo", state="absent").changed == {"head": 1}
    assert "ii" in node.execute("head", ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}", "bc"])
    assert packages(node, tmp_path, ["bc", "dc"], owner="demo", state="absent").changed == {"head": 0}


def test_what_came_along_with_a_package_goes_with_it_unless_somebody_wants_it_by_now(node: Lab, tmp_path: Path) -> None:
    listing = ["dpkg-query", "-W", "-f", "${binary:Package} ${db:Status-Abbrev}\n"]
    before = set(node.execute("head", listing).splitlines())
    own = {"owner": "demo", "dependencies": True}
    assert packages(node, tmp_path, ["w3m", "lynx"], **own).changed == {"head": 1}
    along = {line.split(":")[0].split()[0] for line in set(node.execute("head", listing).splitlines()) - before} - {"w3m", "lynx"}
    assert {"libgpm2", "lynx-common"} <= along
    assert packages(node, tmp_path, ["w3m", "lynx"], **own).changed == {"head": 0}
    # Another role wants one of them.
    assert packages(node, tmp_path, ["libgpm2"], owner="other").changed == {"head": 0}
    gone = packages(node, tmp_path, [], state="absent", **own)
    assert gone.status == 0, gone.text
    assert {line.split(":")[0].split()[0] for line in set(node.execute("head", listing).splitlines()) - before} == {"libgpm2"}
    assert packages(node, tmp_path, [], state="absent", **own).changed == {"head": 0}
    assert packages(node, tmp_path, ["libgpm2"], state="absent", owner="other").changed == {"head": 1}


def test_a_package_takes_anothers_place_and_nobody_elses(node: Lab, tmp_path: Path) -> None:
    node.execute("head", ["apt-get", "-qq", "-y", "--no-install-recommends", "install", "lynx"])
    own = {"owner": "demo", "dependencies": True}
    # What stands on it was built from the same source, and goes with it.
    done = packages(node, tmp_path, ["w3m"], replaces=["lynx-common"], **own)
    assert done.status == 0, done.text
    assert not node.execute("head", ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}", "lynx"], check=False).startswith("ii")
    # Python is somebody else's, so it must not go with what it stands on.
    refused = packages(node, tmp_path, ["w3m"], replaces=["libexpat1"], **own)
    assert "python3" in refused.failures()
    assert "which nobody asked for. Nothing was done." in refused.failures()
    assert packages(node, tmp_path, [], state="absent", **own).status == 0


def test_holds_are_put_and_taken_off_for_an_owner_and_others_stay(node: Lab, tmp_path: Path) -> None:
    def holds(names: list[str], words: tuple[str, ...] = ()) -> Play:
        return play(node, tmp_path, [{"name": "holds", "trainyard.core.package_holds": {"name": names, "owner": "demo"}}], words)

    node.execute("head", ["apt-mark", "hold", "grep"])
    assert holds(["grep", "sed", "no-such-package"], ("--check",)).results["holds", "head"]["held"] == ["sed"]
    assert holds(["grep", "sed", "no-such-package"]).results["holds", "head"]["held"] == ["sed"]
    assert holds(["grep", "sed"]).changed == {"head": 0}
    assert holds(["grep"]).results["holds", "head"]["let_go"] == ["sed"]
    assert holds([]).changed == {"head": 0}
    assert node.execute("head", ["apt-mark", "showhold"]).split() == ["grep"]
    node.execute("head", ["apt-mark", "unhold", "grep"])


def test_a_package_that_does_not_exist_is_said(node: Lab, tmp_path: Path) -> None:
    done = packages(node, tmp_path, ["no-such-package-anywhere"])
    assert "Unable to locate package no-such-package-anywhere" in done.failures()


def test_packages_come_from_the_mirror_and_the_systems_own_sources_come_back(node: Lab, tmp_path: Path) -> None:
    before = node.execute("head", ["sh", "-c", "cat /etc/apt/sources.list"])
    url = next(word for word in before.split() if word.startswith("http"))
    origin = url.split("/")[0] + "//" + url.split("/")[2]
    node.execute(
        "head", ["sh", "-c", f"cat >/tmp/mirror.py <<'END'\n{REDIRECT}\nEND\nsetsid python3 /tmp/mirror.py {origin} >/dev/null 2>&1 &"]
    )
    mirror = {"url": "http://127.0.0.1:8099/debian", "security_url": "http://127.0.0.1:8099/debian-security"}
    task = [{"name": "mirror", "trainyard.core.package_mirror": {**mirror, "distribution": "debian", "codename": "bookworm"}}]

    checked = play(node, tmp_path, task, ("--check", "--diff"))
    assert checked.changed == {"head": 1}
    assert node.execute("head", ["cat", "/etc/apt/sources.list"]) == before
    assert play(node, tmp_path, task).changed == {"head": 1}
    assert play(node, tmp_path, task).changed == {"head": 0}
    done = packages(node, tmp_path, ["toilet"])
    assert done.status == 0, done.text
    assert "toilet" in node.execute("head", ["cat", "/tmp/asked"])

    back = [{"name": "mirror", "trainyard.core.package_mirror": {"url": "", "distribution": "debian", "codename": "bookworm"}}]
    assert play(node, tmp_path, back).changed == {"head": 1}
    assert node.execute("head", ["cat", "/etc/apt/sources.list"]) == before
    assert "trainyard" not in node.execute("head", ["ls", "/etc/apt/sources.list.d"])


def test_a_bundle_that_an_interrupted_run_did_not_renew_is_renewed(node: Lab, tmp_path: Path) -> None:
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=Test CA",
            "-days",
            "2",
            "-keyout",
            tmp_path / "k",
            "-out",
            tmp_path / "c",
        ],
        check=True,
        capture_output=True,
    )
    pem = (tmp_path / "c").read_text()
    play(node, tmp_path, [{"name": "p", "trainyard.core.packages": {"name": ["ca-certificates"]}}])
    # The file is there, the bundle is not made: where a killed run would have stopped.
    node.execute("head", ["sh", "-c", f"cat >/usr/local/share/ca-certificates/trainyard-test.crt <<'END'\n{pem}END"])
    task = [{"name": "trust", "trainyard.core.trusted_authorities": {"certificates": {"test.crt": pem}}}]
    assert play(node, tmp_path, task).changed == {"head": 1}
    assert pem.split()[3] in node.execute("head", ["cat", "/etc/ssl/certs/ca-certificates.crt"])
    assert play(node, tmp_path, task).changed == {"head": 0}
    gone = [{"name": "trust", "trainyard.core.trusted_authorities": {"certificates": {}}}]
    assert play(node, tmp_path, gone).changed == {"head": 1}
    assert pem.split()[3] not in node.execute("head", ["cat", "/etc/ssl/certs/ca-certificates.crt"])
    assert play(node, tmp_path, gone).changed == {"head": 0}


def test_a_service_that_missed_its_restart_is_restarted_once(node: Lab, tmp_path: Path) -> None:
    unit = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
    node.execute("head", ["sh", "-c", f"printf '{unit}' >/etc/systemd/system/demo.service; echo 1 >/etc/demo.conf".replace("\n", "\\n")])
    task = [{"name": "service", "trainyard.core.service_current": {"name": "demo.service", "files": ["/etc/demo.conf"]}}]
    assert play(node, tmp_path, task, ("--check",)).results["service", "head"]["changed"]
    assert "inactive" in node.execute("head", ["systemctl", "is-active", "demo.service"], check=False)
    first = play(node, tmp_path, task)
    assert first.results["service", "head"]["actions"][-2:] == ["enable", "start"]
    assert play(node, tmp_path, task).changed == {"head": 0}
    node.execute("head", ["sh", "-c", "sleep 0.05; echo 2 >/etc/demo.conf"])
    again = play(node, tmp_path, task).results["service", "head"]
    assert (again["actions"], again["reasons"]) == (["restart"], ["/etc/demo.conf"])
    node.execute("head", ["sh", "-c", "sleep 0.05; sed -i s/infinity/9999/ /etc/systemd/system/demo.service"])
    assert play(node, tmp_path, task).results["service", "head"]["actions"] == ["daemon-reload", "restart"]
    assert "9999" in node.execute("head", ["sh", "-c", "cat /proc/$(systemctl show -P MainPID demo.service)/cmdline"])
    assert play(node, tmp_path, task).changed == {"head": 0}
