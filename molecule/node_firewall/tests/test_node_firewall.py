"""What the kernel has, and what a reload of nftables.service leaves of it."""

import re

import pytest

TABLE = "nft --stateless list table inet trainyard"
LOAD = "nft --file /etc/trainyard/firewall.nft"


def test_the_kernel_has_the_rules(host):
    rules = host.check_output(TABLE)
    chain = rules[rules.index("chain input") :]
    assert re.search(r"set ssh \{[^}]*elements = \{ 22 \}", rules)
    assert re.search(r"set open_tcp \{[^}]*elements = \{ 8080, 9000-9010 \}", rules)
    assert re.search(r"set open_udp \{[^}]*elements = \{ 51820 \}", rules)
    assert "192.0.2.0/28" in rules
    assert "2001:db8::/64" in rules
    assert "policy accept" in chain
    assert chain.index("tcp dport @ssh accept") < chain.index("drop"), "SSH comes first"


def test_the_node_admits_its_own_cluster(host):
    rules = host.check_output(TABLE)
    assert host.check_output("hostname -I").split()[0] in rules


@pytest.mark.parametrize("verb", ["start", "reload", "restart", "stop"])
def test_the_rules_outlive_what_the_systems_own_service_flushes(host, verb):
    before = host.check_output(TABLE)
    if verb == "reload":
        assert host.run("systemctl start nftables").rc == 0
    assert host.run(f"systemctl {verb} nftables").rc == 0
    try:
        assert host.check_output(TABLE) == before
    finally:
        host.run("systemctl stop nftables")


def test_the_rules_come_back_at_boot(host):
    assert host.check_output("systemctl is-enabled trainyard-firewall") == "enabled"
    before = host.check_output(TABLE)
    assert host.run("systemctl stop trainyard-firewall").rc == 0
    assert host.run(TABLE).rc != 0
    assert host.run("systemctl start trainyard-firewall").rc == 0
    assert host.check_output(TABLE) == before


def test_loading_twice_changes_nothing(host):
    before = host.check_output(TABLE)
    assert host.run(LOAD).rc == 0
    assert host.check_output(TABLE) == before


def test_nothing_is_left_waiting_to_go_back(host):
    assert not host.file("/var/lib/trainyard/node_firewall").exists
    assert host.check_output("systemctl list-units --all --plain --no-legend 'trainyard-firewall-rollback*'") == ""
