# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a proxy may be, and what programs are told of it."""

from __future__ import annotations

import pytest
from ansible_collections.trainyard.core.plugins.plugin_utils import proxy


@pytest.mark.parametrize("url", ["", "http://proxy.example:3128", "http://192.0.2.1:8080/", "http://[2001:db8::1]:3128", "http://proxy"])
def test_what_a_proxy_may_be(url: str) -> None:
    assert proxy.problems(url, ["localhost", ".lab.example", "192.0.2.7", "10.0.0.0/8", "2001:db8::/32"]) == []


@pytest.mark.parametrize(
    "url",
    [
        "proxy:3128",
        "https://proxy:3128",
        "socks5h://proxy:1080",
        "http://",
        "http://proxy:x",
        "http://proxy/path",
        "http://a b:1",
        'http://a";x',
        3128,
    ],
)
def test_what_is_no_proxy(url: object) -> None:
    (problem,) = proxy.problems(url, [])
    assert problem.startswith("base_proxy: ")
    assert proxy.environment(url, []) == {}


def test_a_password_is_refused_and_not_shown() -> None:
    (problem,) = proxy.problems("http://alice:tweet@proxy.example:3128", [])
    assert problem.startswith("base_proxy has a user or a password in it")
    assert "tweet" not in problem
    assert proxy.environment("http://alice:tweet@proxy.example:3128", []) == {}


@pytest.mark.parametrize("host", ["a b", "*", "http://mirror.example", '"; x', "10.0.0.1/8", ""])
def test_what_is_no_host(host: str) -> None:
    (problem,) = proxy.problems("http://proxy:3128", [host])
    assert problem.startswith("base_no_proxy: ")


def test_what_programs_are_told() -> None:
    found = proxy.environment("http://proxy:3128", ["mirror.example", "head"], ["head", "node1"])
    assert found["no_proxy"] == found["NO_PROXY"] == "localhost,127.0.0.1,::1,mirror.example,head,node1"
    assert {found[name] for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")} == {"http://proxy:3128"}
    assert proxy.environment("", ["x"], ["head"]) == {}
