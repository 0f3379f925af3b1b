"""What sshd is like under the cis profile, with deviations."""

import pytest


@pytest.fixture
def rules(host):
    output = host.check_output("/usr/sbin/sshd -T -C user=admin,host=,addr=192.0.2.1,laddr=192.0.2.2,lport=22,rdomain=")
    return dict(line.split(" ", 1) for line in output.splitlines() if " " in line)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("clientalivecountmax", "3"),
        ("clientaliveinterval", "15"),
        ("gssapiauthentication", "no"),
        ("hostbasedauthentication", "no"),
        ("ignorerhosts", "yes"),
        ("kbdinteractiveauthentication", "no"),
        ("logingracetime", "60"),
        ("loglevel", "VERBOSE"),
        ("maxauthtries", "4"),
        ("maxsessions", "10"),
        ("maxstartups", "10:30:60"),
        ("passwordauthentication", "no"),
        ("permitemptypasswords", "no"),
        ("permitrootlogin", "no"),
        ("permituserenvironment", "no"),
        ("usepam", "yes"),
        ("x11forwarding", "no"),
    ],
)
def test_the_benchmarks_values_are_in_force(rules, keyword, value):
    assert rules[keyword] == value


@pytest.mark.parametrize("weak", ["chacha20", "cbc", "3des"])
def test_no_cipher_that_the_benchmark_calls_weak(rules, weak):
    assert weak not in rules["ciphers"]


def test_no_code_that_the_benchmark_calls_weak(rules):
    assert set(rules["macs"].split(",")) == {"hmac-sha2-512-etm@openssh.com", "hmac-sha2-256-etm@openssh.com"}


def test_deviations_win_over_the_profile(rules):
    assert rules["banner"] == "/etc/issue"
    assert rules["allowgroups"] == "sudo"


def test_tunnels_to_the_notebook_stay_open(rules):
    assert rules["allowtcpforwarding"] == "local"
