# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Certificates made by the real openssl, and what is found in them."""

from __future__ import annotations

import datetime
import socket
import ssl
import subprocess
import time

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _tls as tls
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

DAY = 86400.0


def openssl(*words: str, stdin: str = "") -> str:
    return subprocess.run(["openssl", *words], input=stdin, capture_output=True, text=True, check=True).stdout


def self_made(*names: str, days: int = 825) -> str:
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", str(days)]
    return openssl(*words, "-config", "/dev/stdin", "-keyout", "/dev/stdout", stdin=tls.request(names))


@pytest.fixture(scope="module")
def bundle() -> str:
    return self_made("localhost", "127.0.0.1", "0:0:0:0:0:0:0:1", "GPU1.lab.example")


def test_a_self_made_certificate_says_what_was_asked_for(bundle: str) -> None:
    found = tls.inspect(bundle, bundle)
    assert found.names == {"localhost", "127.0.0.1", "::1", "gpu1.lab.example"}
    assert found.self_made
    assert found.expires == pytest.approx(time.time() + 825 * DAY, abs=120)
    assert "PRIVATE" not in found.pem
    shown = openssl("x509", "-noout", "-fingerprint", "-sha256", stdin=found.pem)
    assert found.fingerprint == shown.strip().split("=")[1]


def test_a_client_that_trusts_it_and_checks_names_is_content(bundle: str) -> None:
    found = tls.inspect(bundle, bundle)
    client = ssl.create_default_context(cadata=found.pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tls._file(bundle) as path:
        server.load_cert_chain(path)
    for name in ("localhost", "gpu1.lab.example", "127.0.0.1"):
        left, right = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [client.wrap_bio(left, right, server_hostname=name), server.wrap_bio(right, left, server_side=True)]
        for _round in range(3):
            for end in ends:
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        assert ends[0].version() == "TLSv1.3"


@pytest.mark.parametrize(
    "certificate, key, message",
    [
        ("nothing", None, "the certificate is not PEM text"),
        (None, "nothing", "the key is not PEM text"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", None, "OpenSSL refuses them"),
    ],
)
def test_what_is_no_certificate_is_refused(bundle: str, certificate: str | None, key: str | None, message: str) -> None:
    with pytest.raises(tls.TlsError, match=message):
        tls.inspect(certificate or bundle, key or bundle)


def test_a_key_of_another_certificate_is_refused(bundle: str) -> None:
    with pytest.raises(tls.TlsError, match="the key does not belong to the certificate"):
        tls.inspect(bundle, self_made("other"))


def test_a_key_with_a_passphrase_is_refused(bundle: str) -> None:
    locked = openssl("pkcs8", "-topk8", "-passout", "pass:abcdef", stdin=bundle)
    with pytest.raises(tls.TlsError, match="protected by a passphrase"):
        tls.inspect(bundle, locked)


def dated(start: datetime.timedelta, end: datetime.timedelta) -> str:
    """Return key and certificate that are valid between two moments, counted from now."""
    key, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now + start, now + end)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return pem + builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("start, end, message", [(-9, -1, "the certificate has expired"), (1, 9, "the certificate is not valid yet")])
def test_a_certificate_out_of_its_time_is_refused(start: int, end: int, message: str) -> None:
    text = dated(datetime.timedelta(days=start), datetime.timedelta(days=end))
    with pytest.raises(tls.TlsError, match=message):
        tls.inspect(text, text)


def test_somebody_elses_certificate_is_not_self_made() -> None:
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x"]
    text = openssl(*words, "-addext", "subjectAltName=DNS:x", "-keyout", "/dev/stdout")
    assert not tls.inspect(text, text).self_made
    assert tls.why_new(text, ["x"], time.time(), 90) == "the one there is not self-made"


def test_when_a_new_one_is_due(bundle: str) -> None:
    now = time.time()
    assert tls.why_new(bundle, ["localhost", "::1", "GPU1.lab.example"], now, 90) == ""
    assert tls.why_new("", ["localhost"], now, 90) == "there is none"
    assert tls.why_new(bundle, ["localhost", "gpu2"], now, 90) == "it does not name gpu2"
    assert tls.why_new(bundle, ["localhost"], now + 736 * DAY, 90) == "it expires within 90 days"
    assert tls.why_new(bundle, ["localhost"], now + 734 * DAY, 90) == ""
    assert "PEM" in tls.why_new(bundle[: len(bundle) // 2], ["localhost"], now, 90)


def test_a_common_name_has_room_for_64_letters_only() -> None:
    long = "a" * 60 + ".example.org"
    assert f"CN = {long}" not in tls.request([long])
    text = self_made(long)
    assert tls.inspect(text, text).names == {long}


def test_key_and_certificate_stand_in_one_text(bundle: str) -> None:
    found = tls.inspect(bundle, bundle)
    key = bundle[: bundle.index("-----BEGIN CERTIFICATE")]
    both = tls.bundle_of(found.pem + "\n", key + "\n\n")
    assert tls.inspect(both, both) == found
    assert both.startswith("-----BEGIN PRIVATE KEY-----\n")


def test_own_address_is_one_of_this_machine_and_none_without_a_route(monkeypatch: pytest.MonkeyPatch) -> None:
    address = tls.own_address()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))  # refused for an address that is not this machine's; '' is any

    def no_route(_self: socket.socket, _address: tuple[str, int]) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(tls.socket, "socket", type("Unrouted", (socket.socket,), {"connect": no_route}))
    assert tls.own_address() == ""
