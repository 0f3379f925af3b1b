"""Folders that two nodes share, with the kernel's own NFS: owners, locks, power cuts, and boots in any order.

The nodes are virtual machines with a network between them alone, beside the one by which they are reached. The tests build on each other,
in order.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.slow.pair import ADDRESSES, Pair, fails, says
from tests.slow.vm import Machine
from tests.support import Play

pytestmark = pytest.mark.slow

VARIABLES = {"shared_storage_folders": [{"path": "/srv/shared", "mode": "1777"}, {"path": "/home"}]}
# Lines that are on the server's disk, one after the other; it stops by itself at the first error.
WRITE = """
import itertools, os, sys, time
with open(sys.argv[1], "a") as file:
    for number in itertools.count():
        file.write(f"{number}\\n")
        file.flush()
        os.fsync(file.fileno())
        time.sleep(0.2)
"""
# Takes a lock, says so, and holds it for some seconds; exit status 11 where somebody else has it.
LOCK = """
import fcntl, sys, time
with open("/srv/shared/lock", "a") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(11)
    print("held", flush=True)
    time.sleep(float(sys.argv[1]))
"""


def share(pair: Pair, *words: str, **more: Any) -> Play:
    """Run the role as the cluster's playbook does."""
    return pair.apply("cluster.yml", "--tags", "shared_storage", *words, **more)


def listening(machine: Machine) -> set[str]:
    """Return what answers the network, beside logins and what asks for an address."""
    lines = [line.split() for line in machine.ask("ss -Hltun").splitlines()]
    found = {f"{words[0]} {words[4]}" for words in lines}
    return {each for each in found if not each.endswith((":22", ":68", ":546")) and "127.0.0." not in each and "[::1]" not in each}


def test_what_lies_there_is_never_hidden(pair: Pair) -> None:
    refused = pair.apply("preflight.yml")
    assert (
        "shared_storage_folders: /home on node1 is not empty (admin, student), and what lies there would be hidden." in refused.failures()
    )
    assert refused.changed == {"head": 0, "node1": 0}
    # The account that administers the node gets a home that is the node's own.
    pair.node1.ask("cp -a /home/admin /var/lib/admin && sed -i s,:/home/admin:,:/var/lib/admin:, /etc/passwd && rm -r /home/admin")
    pair.node1.ask("userdel --remove student")


def test_check_mode_on_bare_nodes(pair: Pair) -> None:
    checked = share(pair, "--check")
    assert checked.status == 0, checked.failures() or checked.text[-3000:]
    assert min(checked.changed.values()) > 0
    for machine in pair.machines.values():
        machine.ask("! test -e /usr/sbin/exportfs && ! test -e /sbin/mount.nfs && ! test -e /etc/nfs.conf.d && ! test -e /srv/shared")


def test_the_folders_are_shared_and_a_second_run_changes_nothing(pair: Pair) -> None:
    based = pair.apply("base.yml")
    assert based.status == 0, based.failures() or based.text[-3000:]
    assert pair.node1.ask("ls -A /home") == ""
    done = share(pair)
    assert done.status == 0, done.failures() or done.text[-3000:]
    assert share(pair).changed == {"head": 0, "node1": 0}
    assert share(pair, "--check").changed == {"head": 0, "node1": 0}
    assert pair.apply("base.yml").changed == {"head": 0, "node1": 0}
    mounted = pair.node1.ask("findmnt -rno TARGET,SOURCE,FSTYPE,OPTIONS -t nfs4").splitlines()
    assert [line.split()[:3] for line in mounted] == [
        ["/srv/shared", "192.0.2.1:/srv/shared", "nfs4"],
        ["/home", "192.0.2.1:/home", "nfs4"],
    ]
    assert all({"hard", "nosuid", "nodev", "vers=4.2"} <= set(line.split()[3].split(",")) for line in mounted)


def test_only_nfs_4_answers_on_the_clusters_network_alone(pair: Pair) -> None:
    assert listening(pair.head) == {"tcp 192.0.2.1:2049"}
    assert listening(pair.node1) == set()
    assert {line.partition("(")[0] for line in pair.head.ask("exportfs -s").splitlines()} == {"/srv/shared  192.0.2.2", "/home  192.0.2.2"}
    assert {"-3", "+4"} <= set(pair.head.ask("cat /proc/fs/nfsd/versions").split())


def test_a_file_has_the_same_owner_on_both(pair: Pair) -> None:
    says(pair.node1, "ada", "echo from node1 > /srv/shared/ada && chmod 600 /srv/shared/ada")
    assert pair.head.ask("stat -c '%u %g %U' /srv/shared/ada && cat /srv/shared/ada").splitlines() == ["2000 2000 ada", "from node1"]
    says(pair.head, "bob", "echo from head > /srv/shared/bob")
    assert says(pair.node1, "ada", "stat -c '%u %U' /srv/shared/bob && cat /srv/shared/bob").splitlines() == ["2001 bob", "from head"]
    # Her home is one, and so is the key that lets her in.
    assert says(pair.node1, "ada", "pwd && echo mine > note && stat -c %u note").splitlines() == ["/home/ada", "2000"]
    assert says(pair.head, "ada", "cat note") == "mine"


def test_nobody_gets_more_than_is_his(pair: Pair) -> None:
    says(pair.head, "ada", "mkdir -m 700 /srv/shared/private && echo secret > /srv/shared/private/file")
    for person, file in (("bob", "private/file"), ("root", "private/file"), ("root", "ada")):
        script = f"cat /srv/shared/{file}"
        assert "Permission denied" in fails(pair.node1, person, script), (person, script)
    # Root of another node is nobody here, and no owner's name takes him further.
    assert pair.node1.ask("touch /srv/shared/roots && stat -c %U /srv/shared/roots") == "nobody"
    assert "Operation not permitted" in fails(pair.node1, "root", "chown ada /srv/shared/roots")


@pytest.mark.parametrize("first, second", [("head", "node1"), ("node1", "head")])
def test_a_lock_on_one_holds_on_the_other(pair: Pair, first: str, second: str) -> None:
    here, there = pair.machines[first], pair.machines[second]
    here.ask(f"systemd-run --quiet --uid=ada --unit=lock python3 -c '{LOCK}' 3600")
    here.wait_for("journalctl --unit lock --output=cat | grep -qx held", "the lock was not given", seconds=120)
    assert there.attempt(f"python3 -c '{LOCK}' 0", person="ada").returncode == 11
    here.ask("systemctl stop lock")
    assert says(there, "ada", f"python3 -c '{LOCK}' 0") == "held"


@pytest.mark.parametrize("how", ["a power cut", "a reboot"])
def test_what_is_written_while_the_server_is_away_goes_on(pair: Pair, how: str) -> None:
    file = f"/srv/shared/{how.replace(' ', '-')}"
    pair.node1.ask(f"systemd-run --quiet --uid=ada --unit=write python3 -c '{WRITE}' {file}")
    pair.node1.wait_for(f"test -s {file}", "nothing is written", seconds=60)
    if how == "a reboot":
        pair.head.reboot()
    else:
        pair.head.cut_power()
        time.sleep(5)
        pair.node1.ask("systemctl is-active write")
        pair.head.switch_on()
    before = int(pair.head.ask(f"tail -n 1 {file}"))
    pair.head.wait_for(f"test $(tail -n 1 {file}) -gt {before + 5}", "it does not go on", seconds=300)
    pair.node1.ask("systemctl is-active write && systemctl stop write")
    lines = pair.head.ask(f"cat {file}").splitlines()
    assert lines == [str(number) for number in range(len(lines))]


def test_a_node_boots_without_the_server_and_has_the_folders_when_it_is_back(pair: Pair) -> None:
    pair.head.cut_power()
    pair.node1.cut_power()
    pair.node1.switch_on()  # and lets the administrator in
    # The distribution looks at /home itself while it boots, which is all that fails.
    pair.node1.ask("systemctl is-system-running --wait || true")
    failed = pair.node1.ask("systemctl --failed --plain --no-legend")
    assert {line.split()[0] for line in failed.splitlines()} <= {"home.mount"}
    assert "No such device" in fails(pair.node1, "root", "timeout 120 ls /srv/shared")
    assert pair.node1.ask("systemctl is-active srv-shared.automount home.automount").split() == ["active", "active"]
    pair.head.switch_on()
    pair.node1.wait_for("timeout 120 ls /srv/shared/ada", "the folder did not come back", seconds=300)
    assert says(pair.node1, "ada", "cat note") == "mine"
    assert share(pair).changed == {"head": 0, "node1": 0}


def test_a_node_that_is_gone_has_nothing_any_more(pair: Pair) -> None:
    done = share(pair, nodes=("head",))
    assert done.status == 0, done.failures() or done.text[-3000:]
    assert pair.head.ask("exportfs -s") == ""
    fails(pair.node1, "root", "runuser -u bob -- cat /srv/shared/bob")
    back = share(pair)
    assert back.status == 0, back.failures() or back.text[-3000:]
    assert says(pair.node1, "ada", "cat /srv/shared/bob") == "from head"


def test_what_somebody_holds_is_not_taken_away(pair: Pair) -> None:
    pair.node1.ask("systemd-run --quiet --uid=ada --unit=hold --working-directory=/srv/shared sleep infinity")
    refused = share(pair, trainyard_state="absent")
    assert "/srv/shared is in use by sleep (" in refused.failures()
    assert refused.changed == {"head": 0, "node1": 0}
    assert says(pair.node1, "bob", "cat /srv/shared/bob") == "from head"
    pair.node1.ask("systemctl stop hold")


def test_undo_takes_off_what_came_and_no_file(pair: Pair) -> None:
    checked = share(pair, "--check", trainyard_state="absent")
    assert checked.status == 0, checked.failures()
    assert says(pair.node1, "ada", "cat note") == "mine"
    pair.node1.attempt("loginctl terminate-user ada")
    undone = share(pair, trainyard_state="absent")
    assert undone.status == 0, undone.failures() or undone.text[-3000:]
    assert pair.head.ask("cat /srv/shared/ada /srv/shared/bob /home/ada/note").splitlines() == ["from node1", "from head", "mine"]
    assert pair.node1.ask("! test -e /srv/shared && ls -A /home && findmnt -rno TARGET -t nfs4,autofs | grep -v binfmt || true") == ""
    for machine in pair.machines.values():
        assert listening(machine) == set()
        machine.ask("! test -e /usr/sbin/exportfs && ! test -e /sbin/rpcbind && ! grep -rqs Trainyard /etc")
        assert machine.ask("dpkg --audit; systemctl --failed --no-legend") == ""
    again = share(pair, trainyard_state="absent")
    assert (again.status, again.changed) == (0, {"head": 0, "node1": 0})


def test_the_export_of_a_file_server_is_mounted_and_the_server_left_alone(pair: Pair) -> None:
    pair.head.ask("DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends nfs-kernel-server")
    pair.head.ask("mkdir -m 1777 /export && echo '/export 192.0.2.0/24(rw,no_subtree_check)' > /etc/exports && systemctl start nfs-server")
    before = pair.head.ask("sha256sum /etc/exports && systemctl show -P ExecMainStartTimestampMonotonic nfs-server && exportfs -s")
    wish = [{"path": "/srv/archive", "source": f"{ADDRESSES['head']}:/export", "options": ["nosuid"]}]
    done = share(pair, shared_storage_folders=wish)
    assert done.status == 0, done.failures() or done.text[-3000:]
    pair.node1.ask("runuser -u ada -- sh -c 'echo theirs > /srv/archive/file'")  # her home went with the undo, and her key with it
    assert pair.node1.ask("stat -c '%u %U' /srv/archive/file") == "2000 ada"
    assert pair.head.ask("cat /export/file /srv/archive/file && stat -c %u /export/file").splitlines() == ["theirs", "theirs", "2000"]
    assert share(pair, shared_storage_folders=wish).changed == {"head": 0, "node1": 0}
    undone = share(pair, shared_storage_folders=wish, trainyard_state="absent")
    assert undone.status == 0, undone.failures() or undone.text[-3000:]
    pair.node1.ask("! test -e /srv/archive && ! test -e /sbin/mount.nfs")
    assert pair.head.ask("cat /export/file") == "theirs"
    assert pair.head.ask("sha256sum /etc/exports && systemctl show -P ExecMainStartTimestampMonotonic nfs-server && exportfs -s") == before
