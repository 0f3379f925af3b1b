"""The cache of packages on the head, from a machine that is not of the cluster, and from users of its nodes."""

from __future__ import annotations

import pytest

from tests.security.conftest import OUTSIDER, House

pytestmark = pytest.mark.security

ASK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], 3142), 3) as connection:
        connection.settimeout(3)
        connection.sendall(f"{sys.argv[2]} HTTP/1.0\\r\\nHost: cache\\r\\n\\r\\n".encode())
        print(connection.makefile("rb").readline().decode().strip().partition(" ")[2])
except OSError:
    print("no answer")
"""


def ask(house: House, node: str, request: str, user: str = "bob") -> str:
    """Send a request to the cache as an ordinary user, or as root of a machine without users, and return its first line."""
    command = f"python3 -c '{ASK}' {house.lab.address('head')} '{request}'"
    return house.root(node, command) if node == OUTSIDER else house.user(user, command, node)[1]


def test_a_machine_that_is_not_of_the_cluster_gets_no_answer(house: House) -> None:
    for request in ("GET /acng-report.html", "GET http://example.org/", "GET /trainyard/mirrors"):
        assert ask(house, OUTSIDER, request) == "no answer"


def test_a_user_neither_maintains_the_cache_nor_reaches_other_machines_through_it(house: House) -> None:
    mirror = house.root("head", "cat /etc/trainyard/package_cache/public/mirrors").split()[0]
    for request in (
        "GET /acng-report.html?doExpire=Start+Expiration",
        "GET http://example.org/debian/dists/bookworm/InRelease",
        "GET http://127.0.0.1:6817/debian/dists/bookworm/InRelease",
        f"GET http://{mirror}:22/debian/dists/bookworm/InRelease",
        "CONNECT example.org:443",
    ):
        assert ask(house, "node1", request).startswith("403 "), request
    assert ask(house, "node1", f"GET http://{mirror}/debian/dists/bookworm/InRelease") == "200 OK"


def test_a_node_still_draws_its_packages_from_it(house: House) -> None:
    house.root("node1", "cd /tmp; apt-get -qq update; apt-get -qq download hello; rm hello_*.deb")
    assert house.root("head", "find /var/cache/apt-cacher-ng -name 'hello_*.deb'") != ""
