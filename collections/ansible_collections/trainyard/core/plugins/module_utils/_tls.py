# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""TLS certificates with their keys: what they are good for, and the making of one's own.

Certificates are read by a handshake with oneself, in memory: what it says is what a browser would find.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import re
import socket
import ssl
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from ansible_collections.trainyard.core.plugins.module_utils._host import reported

MAKER = "Trainyard self-made"  # the organization that our own certificates name, by which they are known again
PARTIAL_CHAIN = 0x80000  # X509_V_FLAG_PARTIAL_CHAIN: the certificate itself is trusted, whoever signed it
EXPIRED, NOT_YET_VALID = 10, 9  # X509_V_ERR_*
BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----\s.+?-----END CERTIFICATE-----", re.DOTALL)


class TlsError(Exception):
    """A certificate and a key that no server could use; the message completes "certificate and key cannot be used: "."""


@dataclass(frozen=True)
class Certificate:
    """What matters of a certificate.

    Attributes:
        names: host names, and IP addresses in their shortest form.
        expires: seconds since 1970.
        self_made: whether :func:`request` asked for it.
        pem: the certificate alone, without chain and key.
    """

    names: frozenset[str]
    expires: float
    self_made: bool
    pem: str

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 fingerprint as browsers show it."""
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.pem)).hexdigest().upper()
        return ":".join(digest[index : index + 2] for index in range(0, len(digest), 2))


def normal(name: str) -> str:
    """Return a host name in lower case, an IP address in its shortest form."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()


def inspect(certificate: str, key: str) -> Certificate:
    """Read a certificate (with its chain, if it has one) and check that the key belongs to it.

    Args:
        certificate: PEM text.
        key: PEM text; may be the same text, holding both.

    Raises:
        TlsError: not PEM, not a pair, protected by a passphrase, expired, not for servers.
    """
    found = BLOCK.search(certificate)
    if not found:
        raise TlsError("the certificate is not PEM text (-----BEGIN CERTIFICATE-----)")
    if "PRIVATE KEY-----" not in key:
        raise TlsError("the key is not PEM text (-----BEGIN PRIVATE KEY-----)")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with _file(certificate) as certificate_path, _file(key) as key_path:
        try:
            server.load_cert_chain(certificate_path, key_path, password=_no_passphrase)
        except ssl.SSLError as error:
            reason = error.reason or str(error)
            if "MISMATCH" in reason:
                raise TlsError("the key does not belong to the certificate") from None
            raise TlsError(f"OpenSSL refuses them: {reason.replace('_', ' ').lower()}") from None
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= PARTIAL_CHAIN
    client.load_verify_locations(cadata=found.group())
    try:
        peer = _shake_hands(server, client)
    except ssl.SSLCertVerificationError as error:
        words = {EXPIRED: "the certificate has expired", NOT_YET_VALID: "the certificate is not valid yet"}
        raise TlsError(words.get(error.verify_code, f"the certificate is refused: {error.verify_message}")) from None
    subject = {key: value for rdn in peer["subject"] for key, value in rdn}
    return Certificate(
        names=frozenset(normal(value) for kind, value in peer.get("subjectAltName", ()) if kind in {"DNS", "IP Address"}),
        expires=ssl.cert_time_to_seconds(peer["notAfter"]),
        self_made=peer["subject"] == peer["issuer"] and subject.get("organizationName") == MAKER,
        pem=found.group() + "\n",
    )


def _no_passphrase() -> str:
    raise TlsError("the key is protected by a passphrase, which a service that starts by itself could not type")


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> dict:  # type: ignore[type-arg]  # as ssl types it
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)]
    shaking = list(ends)
    while shaking:
        for end in list(shaking):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
                shaking.remove(end)
    return ends[0].getpeercert() or {}


@contextlib.contextmanager
def _file(text: str) -> Iterator[str]:
    """Give a text a path, in memory where the system can do that: the ssl library reads keys from files only."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pem")
        try:
            os.write(descriptor, text.encode())
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # mode 0600, gone afterwards
            file.write(text)
            file.flush()
            yield file.name


def own_address() -> str:
    """Return the IPv4 address that packets to far away carry as their sender's; '' where no route leads there. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation, RFC 5737
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def request(names: Iterable[str]) -> str:
    """Return the configuration by which ``openssl req -x509`` makes a server certificate for host names and IP addresses.

    Raises:
        ReportedError: a name would be read as more than that.
    """
    wanted = sorted({normal(reported.one_line("a certificate's names", name, comments=",;#$\\ ")) for name in names})
    alternatives = ", ".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in wanted)
    return (
        "[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = extensions\n"
        f"[name]\nO = {MAKER}\nCN = {next((name for name in wanted if len(name) <= 64), 'trainyard')}\n"
        "[extensions]\nbasicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature\nextendedKeyUsage = serverAuth\n"
        f"subjectAltName = {alternatives}\n"
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def why_new(bundle: str, names: Collection[str], now: float, renew_days: int) -> str:
    """Return why a self-made certificate has to be made anew, or an empty string.

    Args:
        bundle: text of the file, key and certificate; empty where there is none.
        names: what the certificate has to be good for.
        now: seconds since 1970.
        renew_days: a certificate with less time left than this is replaced.
    """
    if not bundle:
        return "there is none"
    try:
        found = inspect(bundle, bundle)
    except TlsError as error:
        return str(error)
    if not found.self_made:
        return "the one there is not self-made"
    missing = sorted({normal(name) for name in names} - found.names)
    if missing:
        return f"it does not name {', '.join(missing)}"
    if found.expires - now < renew_days * 86400:
        return f"it expires within {renew_days} days"
    return ""


def bundle_of(certificate: str, key: str) -> str:
    """Return the text of one file that holds both, the key first, so that they can only change together."""
    return f"{key.strip()}\n{certificate.strip()}\n"
