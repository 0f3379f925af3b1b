"""Who listens on a port."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from ansible_collections.trainyard.core.plugins.module_utils._host import ports

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
ROW = "   {n}: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0 100 0 0 10 0\n"


def table(*rows: tuple[str, str, str]) -> str:
    return HEAD + "".join(ROW.format(n=n, local=local, state=state, inode=inode) for n, (local, state, inode) in enumerate(rows))


def test_only_sockets_that_listen_on_that_port_and_address_count() -> None:
    text = table(("0100007F:1AA1", "0A", "11"), ("00000000:1AA1", "0A", "12"), ("0100007F:1AA1", "01", "13"), ("0100007F:1AA2", "0A", "14"))
    assert ports.sockets(text, 6817) == {"11", "12"}
    assert ports.sockets(text, 6817, ["192.0.2.1"]) == {"12"}
    assert ports.sockets(text, 6817, ["127.0.0.1"]) == {"11", "12"}
    mapped = table(("0000000000000000FFFF00000100007F:1AA1", "0A", "15"), ("00000000000000000000000001000000:1AA1", "0A", "16"))
    assert ports.sockets(mapped, 6817, ["127.0.0.1"]) == {"15"}
    assert ports.sockets(mapped, 6817, ["::1"]) == {"16"}


def node(proc: Path, unit: str) -> None:
    """Make a /proc with one process that listens on 6817."""
    (proc / "net").mkdir(parents=True)
    (proc / "net" / "tcp").write_text(table(("00000000:1AA1", "0A", "12")))
    (proc / "77" / "fd").mkdir(parents=True)
    (proc / "77" / "fd" / "3").symlink_to("socket:[12]")
    (proc / "77" / "comm").write_text("nginx\n")
    (proc / "77" / "cgroup").write_text(f"0::/system.slice/{unit}\n")


@pytest.mark.parametrize("unit, name", [("nginx.service", "nginx"), ("slurmctld.service", None)])
def test_a_unit_may_hold_its_own_port(tmp_path: Path, unit: str, name: str | None) -> None:
    node(tmp_path / "proc", unit)
    found = ports.stranger(ports.holders(6817, proc=str(tmp_path / "proc")), ["slurmctld.service"])
    assert (found.name if found else None) == name


def test_this_process_is_found_by_its_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        (found,) = ports.holders(server.getsockname()[1], ["127.0.0.1"])
        assert found.process == os.getpid()
        assert ports.holders(server.getsockname()[1], ["127.0.0.2"]) == []
