"""The data folder on a disk of its own: a loop device, with a real file system, on a node that is made for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import Play, ansible_playbook, inventory_of
from trainyard.containers import Lab
from trainyard.paths import CHECKOUT, REPOSITORY

pytestmark = pytest.mark.nodes

# A free loop device, with its file in the node; two file systems, so that a wrong one can be asked for.
MAKE = """
[ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
for i in $(seq 0 63); do [ -e /dev/loop$i ] || mknod /dev/loop$i b 7 $i; done
truncate -s 32M /disk && mkfs.ext4 -q /disk && losetup --find --show /disk
"""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, str]]:
    """A node and the disk in it."""
    lab = Lab(
        f"test-data-disk-{CHECKOUT}",
        ["head"],
        tmp_path_factory.mktemp("lab"),
        devices=["b 7:* rmw", "c 10:237 rmw"],
        say=lambda _text: None,
    )
    lab.down()
    lab.up()
    device = ""
    try:
        device = lab.execute("head", ["sh", "-ec", MAKE]).strip()
        yield lab, device
    finally:
        lab.execute("head", ["sh", "-c", f"umount /srv/data; losetup --detach {device}"], check=False)
        lab.down()


def base(lab: Lab, folder: Path, *words: str, **variables: Any) -> Play:
    """Run the playbook of the role."""
    wishes = {"base_packages": [], "base_users": [], **variables}
    return ansible_playbook(REPOSITORY / "playbooks" / "base.yml", inventory_of(lab, folder, wishes), words)


def mounted(lab: Lab) -> str:
    return lab.execute("head", ["findmnt", "-no", "SOURCE,FSTYPE", "/srv/data"], check=False).strip()


def test_a_disk_without_the_named_file_system_is_refused_and_never_formatted(disk: tuple[Lab, str], tmp_path: Path) -> None:
    lab, device = disk
    for wishes in ({"base_data_device": "/dev/sdz9"}, {"base_data_device": device, "base_data_filesystem": "xfs"}):
        refused = base(lab, tmp_path, **wishes)
        assert refused.status != 0
        assert "base : Look at the disk for the data" in [task for (task, _node), result in refused.results.items() if result.get("failed")]
        assert refused.changed == {"head": 0}
    assert lab.execute("head", ["blkid", "--match-tag", "TYPE", "--output", "value", device]).strip() == "ext4"


def test_it_is_mounted_stays_so_and_goes_with_its_data_kept(disk: tuple[Lab, str], tmp_path: Path) -> None:
    lab, device = disk
    checked = base(lab, tmp_path, "--check", base_data_device=device)
    assert checked.status == 0, checked.failures()
    assert mounted(lab) == ""
    done = base(lab, tmp_path, base_data_device=device)
    assert done.status == 0, done.failures()
    assert mounted(lab) == f"{device} ext4"
    assert "nofail" in lab.execute("head", ["grep", "/srv/data", "/etc/fstab"])
    lab.execute("head", ["sh", "-c", "echo kept >/srv/data/file"])
    assert base(lab, tmp_path, base_data_device=device).changed == {"head": 0}
    undone = base(lab, tmp_path, base_data_device=device, trainyard_state="absent")
    assert undone.status == 0, undone.failures()
    assert mounted(lab) == ""
    assert "/srv/data" not in lab.execute("head", ["cat", "/etc/fstab"])
    assert lab.execute("head", ["sh", "-c", f"mount {device} /mnt && cat /mnt/file; umount /mnt"]).strip() == "kept"
