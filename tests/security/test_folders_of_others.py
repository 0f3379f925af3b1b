"""Bob makes folders before alice does, or tries to put his in the place of hers: nothing of his runs in her name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from tests.security.conftest import CLUSTER, USERS, House

pytestmark = pytest.mark.security

RUN = "/usr/local/lib/trainyard/training/run"
ENVIRONMENT = "/opt/trainyard/envs/stand-in"
REFUSED = 77


def member(house: House, name: str, script: str, node: str = "head") -> tuple[int, str]:
    """Run a script as a user who is in the group of the data folder."""
    words = f"{{ {script}\n}} 2>&1 && echo rc 0 || echo rc $?"
    *lines, status = house.root(node, f"runuser -u {name} -G users -- bash -c {shlex.quote(words)}").splitlines()
    return int(status.removeprefix("rc ")), "\n".join(lines)


def write(house: House, node: str, name: str, path: str, text: str, mode: str = "0644") -> None:
    house.root(node, f"runuser -u {name} -G users -- tee {path} >/dev/null <<'END'\n{text}\nEND\nchmod {mode} {path}")


@pytest.fixture
def data(house: House) -> Iterator[str]:
    """The data folder, in which both work; and a stand-in for an environment on the nodes, since frameworks have their own tests."""
    for node in CLUSTER:
        house.root(node, f"mkdir -p {ENVIRONMENT}/bin; ln -sfn /usr/bin/python3 {ENVIRONMENT}/bin/python")
    yield "/srv/data"
    for node in CLUSTER:
        house.root(node, f"rm -rf {ENVIRONMENT} /srv/data/* /tmp/planted /tmp/work /tmp/ran; runuser -l alice -c 'rm -rf sweeps'")


def test_a_sweeps_folder_that_bob_made_is_refused_where_it_is_typed_and_where_it_would_run(house: House, data: str) -> None:
    write(house, "head", "alice", f"{data}/train.py", "print('accuracy=1')")
    runs = f'{{"script": "{data}/evil.sh", "python": "/bin/sh", "runs": [{{"lr": "1"}}]}}'
    for node in ("head", "node2"):
        member(house, "bob", f"umask 0; mkdir {data}/sweep-train", node)
        write(house, node, "bob", f"{data}/evil.sh", "id >/tmp/ran", "0777")
        write(house, node, "bob", f"{data}/sweep-train/runs.json", runs, "0666")
    status, printed = member(house, "alice", f"cd {data}; sweep train.py --lr 1")
    assert status == REFUSED
    for part in (f"{data}/sweep-train is not used, since it belongs to bob", "mode 2777", "a folder of your own"):
        assert part in printed
    # On the node where the run would be, the folder may be another one than where the command was typed.
    status, printed = member(house, "alice", f"SLURM_ARRAY_TASK_ID=0 {RUN} sweep-run {data}/sweep-train", "node2")
    assert (status, "belongs to bob" in printed) == (REFUSED, True)
    for node in CLUSTER:
        assert house.root(node, "ls /tmp/ran 2>&1 || true").endswith("No such file or directory")
    assert house.root("head", "squeue -h") == ""


def test_a_sweep_of_alices_own_runs(house: House, data: str) -> None:
    write(house, "node1", "alice", f"{data}/train.py", "import sys; print('accuracy=0.' + sys.argv[1][-1])")
    own = f"mkdir -p {data}/alice; cd {data}/alice; mv {data}/train.py ."
    status, printed = member(house, "alice", f"{own}; sweep train.py --lr 1,2 --serial --watch", "node1")
    assert status == 0, printed
    assert re.search(r"1 +2 +0.2 +done", printed)
    assert house.root("node1", f"stat -c '%U %a' {data}/alice/sweep-train").split() == ["alice", "2700"]


def test_a_hook_that_bob_left_where_alice_works_is_not_shipped(house: House, data: str) -> None:
    write(house, "node1", "alice", f"{data}/train.py", "print('trained')")
    write(house, "node1", "bob", f"{data}/before_hook.sh", "private_script() { id >/tmp/ran; }", "0755")
    words = f"cd {data}; cluster_train --framework keras --environment stand-in --config train.py --watch"
    status, printed = member(house, "alice", words, "node1")
    assert status == REFUSED, printed
    assert f"{data} is not used, since the group users may write there" in printed
    # In a folder of her own below it, it goes.
    status, printed = member(
        house, "alice", f"mkdir {data}/alice; cp {data}/train.py {data}/alice; {words.replace(data, data + '/alice')}", "node1"
    )
    assert (status, "trained" in printed) == (0, True), printed
    assert house.root("node1", "ls /tmp/ran 2>&1 || true").endswith("No such file or directory")


def test_a_jobs_folder_that_bob_made_on_another_node_is_not_used_there(house: House, data: str) -> None:
    script = "import os; print('sees', sorted(os.listdir(os.environ['TRAINYARD_CHECKPOINTS'])))"
    member(house, "alice", "mkdir /tmp/work", "node1")
    write(house, "node1", "alice", "/tmp/work/train.py", script)
    for node in ("node1", "node2"):
        house.root(node, "touch /tmp/planted")
    # What a job asks for is easy to guess; that bob has guessed it to the letter is shown with a dry run of the same job.
    words = "cd /tmp/work; cluster_train --framework keras --environment stand-in --config train.py --num-nodes 2 --watch"
    status, printed = member(house, "alice", words, "node1")
    assert status == 0, printed
    wish = house.root("node1", "cat /tmp/work/train-1/job.json; rm -r /tmp/work/train-1")
    member(
        house,
        "bob",
        "umask 0; mkdir -p /tmp/work/train-1/logs /tmp/work/train-1/checkpoints; touch /tmp/work/train-1/checkpoints/evil.pt",
        "node2",
    )
    write(house, "node2", "bob", "/tmp/work/train-1/job.json", wish, "0666")
    status, printed = member(house, "alice", words, "node1")
    assert status == 0, printed
    assert house.root("node1", "cmp /tmp/work/train-1/job.json - <<'END' && echo same\n" + wish + "\nEND") == "same"
    assert "[node2] sees []" in printed
    assert house.root("node2", "find /tmp/work/train-1 -user alice") == ""


def test_bob_neither_removes_nor_replaces_what_is_alices_in_the_data_folder(house: House, data: str) -> None:
    assert house.root("head", f"stat -c %a {data}") == "3775"
    assert member(house, "alice", f"mkdir {data}/alice; echo hers >{data}/alice/weights; echo hers >{data}/notes")[0] == 0
    for script in (f"mv {data}/alice {data}/away", f"rm -rf {data}/alice", f"rm -f {data}/notes", f"mv {data}/notes {data}/away"):
        status, printed = member(house, "bob", script)
        assert status != 0, script
        assert "Operation not permitted" in printed or "Permission denied" in printed
    assert house.root("head", f"cat {data}/alice/weights {data}/notes").split() == ["hers", "hers"]
    # Both go on working there, and what they make belongs to the group.
    assert member(house, "bob", f"mkdir {data}/bob; mv {data}/bob {data}/bobs")[0] == 0
    assert member(house, "alice", f"mv {data}/alice {data}/alices")[0] == 0
    assert house.root("head", f"stat -c %G {data}/bobs") == "users"


@pytest.mark.parametrize("node", CLUSTER)
def test_homes_are_their_owners(house: House, node: str) -> None:
    for name in USERS:
        assert house.root(node, f"stat -c '%U %G %a' /home/{name}") == f"{name} {name} 750"
    status, printed = house.user("bob", "ls ~alice", node)
    assert (status != 0, "Permission denied" in printed) == (True, True)
    assert house.user("alice", "touch ~/x && rm ~/x", node)[0] == 0
    assert house.user("bob", "cat ~alice/.ssh/authorized_keys", node)[0] != 0
