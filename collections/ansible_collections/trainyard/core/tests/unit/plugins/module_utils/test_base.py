"""Wishes for a node's base that are refused, and the words for it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _base as base

MIRRORS = {"tuna": {}, "ustc": {}, "aliyun": {}}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real public key."""
    path = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "alice", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text().strip()


def test_a_real_key_passes_with_and_without_options(key: str) -> None:
    assert base.key_problem(key) == ""
    assert base.key_problem(f'from="10.0.0.0/8",no-agent-forwarding {key}') == ""


@pytest.mark.parametrize(
    "line,says",
    [
        ("", "is no public key"),
        ("alice@laptop", "is no public key"),
        ("ssh-dss AAAAB3NzaC1kc3M= bob", "is a DSA key, which sshd no longer accepts"),
        ("ssh-ed25519 AAAAC3Nza", "not base64"),
        ("ssh-ed25519 AAAAB3NzaC1yc2EAAAADAQABAAAAgQ==", "is damaged"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "is a private key"),
    ],
)
def test_what_is_no_key_is_said(line: str, says: str) -> None:
    assert says in base.key_problem(line)


def test_a_mirror_that_is_none_is_refused_with_the_nearest_name() -> None:
    assert base.mirror_problem("tunna", MIRRORS) == (
        "base_package_mirror: 'tunna' is no mirror that is known. Did you mean tuna? "
        "Allowed: '' (the system's own), tuna, ustc, aliyun, or a URL that begins with http:// or https://."
    )
    for fine in ("", "ustc", "https://mirror.example.edu/debian"):
        assert base.mirror_problem(fine, MIRRORS) == ""


def test_certificates_are_looked_at_before_they_are_trusted(tmp_path: Path) -> None:
    def problem(text: str) -> str:
        return base.certificate_problem("ca.pem", lambda _path: text)

    one = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
    assert problem(one) == ""
    assert "exactly one certificate" in problem(one + one)
    assert "exactly one certificate" in problem("hello")
    assert "holds a private key" in problem(one + "-----BEGIN RSA PRIVATE KEY-----")
    assert "cannot be read on the controller" in base.certificate_problem("gone.pem", lambda path: (tmp_path / path).read_text())


def test_components_are_read_from_both_formats() -> None:
    assert base.components(["deb http://x/debian bookworm main contrib # non-free\n"]) == ["main", "contrib"]
    assert base.components(["deb [arch=amd64 signed-by=/k.gpg] http://x bookworm main non-free-firmware"]) == ["main", "non-free-firmware"]
    assert base.components(["Types: deb\nComponents: universe main\n"]) == ["main", "universe"]
    assert base.components([]) == ["main"]


def test_security_updates_lie_where_mirrors_have_them() -> None:
    assert base.security_archive("debian", "https://m/debian/") == "https://m/debian-security"
    assert base.security_archive("ubuntu", "https://m/ubuntu") == "https://m/ubuntu"


def test_a_mirror_with_a_password_is_refused_without_showing_it() -> None:
    said = base.mirror_problem("https://alice:tweet@m/debian", {})
    assert said.startswith("base_package_mirror: a URL with a password")
    assert "tweet" not in said


def test_the_mirrors_file_names_archive_security_suites_and_keyring() -> None:
    text = base.mirror_sources("debian", "bookworm", "http://m/debian", "http://m/debian-security", ["main", "contrib"])
    assert "URIs: http://m/debian\nSuites: bookworm bookworm-updates\nComponents: main contrib\n" in text
    assert "URIs: http://m/debian-security\nSuites: bookworm-security\n" in text
    assert text.count("Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg") == 2
