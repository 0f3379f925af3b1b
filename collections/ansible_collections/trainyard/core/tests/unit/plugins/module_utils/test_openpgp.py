"""Public keys in files; two that gpg 2.2 made for these tests."""

from __future__ import annotations

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _openpgp as openpgp

ONE, TWO = "E250FF67D8116BB511661A086A08130E3ECA81FB", "613FC19EE37D26074827B30D6A50059BCBC2690C"
ARMOURED_ONE = b"""-----BEGIN PGP PUBLIC KEY BLOCK-----
Version: a header, as older releases write it

mDMEawFqQxYJKwYBBAHaRw8BAQdAQpvWOo6i71jx6IdpE+aQx0W0mgjg8w1OdjF+
+d035Yq0FW9uZSA8b25lQGV4YW1wbGUub3JnPoiQBBMWCAA4FiEE4lD/Z9gRa7UR
ZhoIaggTDj7KgfsFAmsBakMCGwMFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQ
aggTDj7KgfvHAgD/WakNZwHxBpbEi8PYSmF7ctTFnNvjekYY18/3K+HmeWIBAM0W
7sEWcaAsd8tOg+1Q8hTVOGikfQ5XcXK+zYxsKQMK
=jPh0
-----END PGP PUBLIC KEY BLOCK-----
"""
ARMOURED_TWO = b"""-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawFqQxYJKwYBBAHaRw8BAQdAX9XgrRK0ZLE9Deyvq6nltQcFVUtDtsPw4vL3
LgCssHa0FXR3byA8dHdvQGV4YW1wbGUub3JnPoiQBBMWCAA4FiEEYT/BnuN9JgdI
J7MNalAFm8vCaQwFAmsBakMCGwMFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQ
alAFm8vCaQzZMgD/bl72FgAiQVAnVy9YKrtsQFnSA3J46U4x5CZPY/7iUf0A/2B0
IYLRIwYF8TrZYTq35pwX1zUHEpimzNwI603F4akP
=pi9M
-----END PGP PUBLIC KEY BLOCK-----
"""
BINARY = b"".join(one.content for one in openpgp.certificates(ARMOURED_ONE + ARMOURED_TWO))


@pytest.mark.parametrize(
    "content, fingerprints",
    [
        (ARMOURED_ONE, [ONE]),
        (ARMOURED_TWO.replace(b"\n", b"\r\n"), [TWO]),
        (ARMOURED_ONE + b"\n" + ARMOURED_TWO, [ONE, TWO]),
        (BINARY, [ONE, TWO]),
    ],
)
def test_the_fingerprints_are_those_that_gpg_shows(content: bytes, fingerprints: list[str]) -> None:
    assert [one.fingerprint for one in openpgp.certificates(content)] == fingerprints


@pytest.mark.parametrize("revoked", [[ONE], [ONE[-16:]], [ONE[-8:].lower()], ["E250 FF67 D811 6BB5 1166  1A08 6A08 130E 3ECA 81FB"]])
def test_a_key_is_taken_out_by_fingerprint_or_id_and_the_others_stay(revoked: list[str]) -> None:
    rest = openpgp.without(BINARY, revoked)
    assert rest
    assert [one.fingerprint for one in openpgp.certificates(rest)] == [TWO]


def test_nothing_is_taken_out_where_the_key_is_not_there_and_all_where_it_is_the_only_one() -> None:
    assert openpgp.without(ARMOURED_ONE, [TWO]) is None
    assert openpgp.without(ARMOURED_ONE, []) is None
    assert openpgp.without(ARMOURED_ONE, [ONE]) == b""


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404</html>", BINARY[:-10], BINARY[:20], BINARY + b"\x99", ARMOURED_ONE.replace(b"aggTDj7K", b"!!!!!!!!"), b"\xb0\x01x"],
)
def test_what_is_no_file_of_keys_is_refused(content: bytes) -> None:
    with pytest.raises(openpgp.NoKeyError):
        openpgp.certificates(content)
