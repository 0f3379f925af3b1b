"""The cluster works: what every attack in this folder is measured against."""

from __future__ import annotations

import pytest

from tests.security.conftest import USERS, House

pytestmark = pytest.mark.security


@pytest.mark.parametrize("name", USERS)
def test_a_user_logs_in_and_computes_on_both_nodes(house: House, name: str) -> None:
    assert house.ssh(name).returncode == 0
    status, printed = house.user(name, "srun --immediate=60 -N2 hostname | sort")
    assert (status, printed.splitlines()) == (0, ["node1", "node2"])


def test_nodes_have_ipv6_on_loopback_as_real_machines_do(house: House) -> None:
    assert "::1/128" in house.root("head", "ip -6 addr show lo")
