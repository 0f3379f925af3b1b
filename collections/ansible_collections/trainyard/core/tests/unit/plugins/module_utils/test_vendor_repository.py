"""A vendor's repository as one source with one key."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _vendor_repository as repository

URL = "https://vendor.example/compute/cuda/repos/debian12/x86_64/"
MARK = "# Set aside: "
WISH: dict[str, Any] = {
    "name": "nvidia",
    "owner": "nvidia_driver",
    "url": URL,
    "suite": "/",
    "components": [],
    "fingerprints": ["EB69 3B30 35CD 5710 E231  E123 A4B4 6996 3BF8 63CC"],
    "key_sha256": "",
    "revoked": ["7fa2af80"],
    "pins": [{"packages": ["src:nvidia-driver", "*nvidia*", "libcuda1"], "version": "580.*"}],
    "state": "present",
}


def test_a_sound_wish_has_no_problem() -> None:
    assert repository.problems(WISH) == []
    assert repository.problems({**WISH, "state": "absent", "url": "", "fingerprints": []}) == []


@pytest.mark.parametrize(
    "change, words",
    [
        ({"name": "../x"}, "name: '../x'"),
        ({"owner": "a b"}, "owner: 'a b'"),
        ({"url": "vendor.example"}, "url: 'vendor.example'"),
        ({"url": "https://x/ [trusted=yes]"}, "url:"),
        ({"suite": "stable"}, "components: the suite 'stable' needs some"),
        ({"fingerprints": []}, "fingerprints: there is none"),
        ({"fingerprints": ["3BF863CC"]}, "fingerprints: '3BF863CC'"),
        ({"revoked": ["xyz"]}, "revoked: 'xyz'"),
        ({"key_sha256": "1234"}, "key_sha256: '1234'"),
        ({"pins": [{"packages": [], "version": "1"}]}, "pins: nothing cannot name packages"),
        ({"pins": [{"packages": ["a\nPin: x"], "version": "1"}]}, "cannot name packages"),
        ({"pins": [{"packages": ["a"], "version": "1\n2"}]}, "is no version"),
    ],
)
def test_a_wish_that_cannot_be_meant_names_the_parameter(change: dict[str, Any], words: str) -> None:
    (said,) = repository.problems({**WISH, **change})
    assert words in said


@pytest.mark.parametrize(
    "uri",
    [
        URL,
        URL.rstrip("/"),
        "http://vendor.example/compute/cuda/repos/debian12/x86_64",
        "http://vendor.example:80//compute/cuda/repos/debian12/x86_64/",
        "https://user:word@VENDOR.example/compute/cuda/repos/debian12/x86_64/",
        "tor+https://vendor.example/compute/cuda/repos/debian12/x86_64/",
        "https://vendor.example/compute/cuda/repos/debian12/x86_64/more",
    ],
)
def test_a_repository_is_known_by_whichever_address(uri: str) -> None:
    assert repository.is_one_of(uri, [URL])


@pytest.mark.parametrize(
    "uri",
    [
        "https://vendor.example/compute/cuda/repos/debian12/x86_64-old",
        "https://other.example/compute/cuda/repos/debian12/x86_64/",
        "file:/x",
    ],
)
def test_another_one_is_not_taken_for_it(uri: str) -> None:
    assert not repository.is_one_of(uri, [URL])


def test_local_repositories_are_known_by_the_beginning_of_their_name() -> None:
    assert repository.is_one_of("file:///var/cuda-repo-debian12-12-2-local", ["file:/var/cuda-repo-"])
    assert not repository.is_one_of("file:///var/other", ["file:/var/cuda-repo-"])


INVALID = "W: GPG error: http://v ./ InRelease: The following signatures"
LINES = f"""# mine
deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg] {URL} /
deb-src {URL} /
#deb {URL} /
deb http://debian.example/debian bookworm main
  deb\thttp://vendor.example/compute/cuda/repos/debian12/x86_64 /"""
STANZAS = f"""# mine
Types: deb
URIs: {URL}
Suites: /
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://debian.example/debian
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: {URL}
Suites: /
"""


def test_lines_are_set_aside_and_come_back_as_they_were() -> None:
    text, uris = repository.set_aside(LINES, False, [URL], MARK)
    assert uris == [URL, URL, "http://vendor.example/compute/cuda/repos/debian12/x86_64"]
    assert [line for line in text.splitlines() if line.lstrip().startswith("deb")] == ["deb http://debian.example/debian bookworm main"]
    assert repository.put_back(text, MARK) == LINES
    assert repository.set_aside(text, False, [URL], MARK) == (text, [])


def test_stanzas_are_set_aside_and_come_back_as_they_were() -> None:
    text, uris = repository.set_aside(STANZAS, True, [URL], MARK)
    assert uris == [URL]
    assert text.splitlines()[:8] == [MARK + line for line in STANZAS.splitlines()[:8]]
    assert text.splitlines()[8:] == STANZAS.splitlines()[8:]
    assert repository.put_back(text, MARK) == STANZAS
    assert repository.set_aside(text, True, [URL], MARK) == (text, [])


def test_an_entry_for_several_repositories_at_once_is_refused() -> None:
    with pytest.raises(repository.MixedSourceError, match=r"http://debian\.example/debian"):
        repository.set_aside(f"Types: deb\nURIs: {URL}\n http://debian.example/debian\nSuites: /\n", True, [URL], MARK)


def test_a_repository_is_pinned_by_what_it_calls_itself_or_else_by_its_server() -> None:
    head = "Origin: NVIDIA\nLabel: NVIDIA CUDA\nDate: Sat, 21 Nov 2026 09:50:39 UTC\nSHA256:\n x\n"
    assert repository.pin_of(repository.release_fields(head), "x") == "release o=NVIDIA,l=NVIDIA CUDA"
    assert repository.pin_of({"label": "a, b"}, "vendor.example") == 'origin "vendor.example"'
    text = repository.preferences("Made.", [(["*"], "release o=NVIDIA", 50)])
    assert text == "# Made.\nPackage: *\nPin: release o=NVIDIA\nPin-Priority: 50\n"
    assert repository.read_pin(text) == "release o=NVIDIA"
    assert repository.preferences("Made.", []) == ""


@pytest.mark.parametrize(
    "output, words",
    [
        # As apt 2.6 and, where it says so, apt 3.0 print it.
        ("E: Conflicting values set for option Signed-By regarding source https://v/ /: a != b", "demands another key"),
        (f"{INVALID} couldn't be verified because the public key is not available: NO_PUBKEY A4B469963BF863CC", "another key than the one"),
        (f"{INVALID} were invalid: BADSIG 0BEB16A19BE418B6 S <s@example.org>", "signature is wrong"),
        (f"{INVALID} were invalid: EXPKEYSIG 0BEB16A19BE418B6 S <s@example.org>", "has expired"),
        ("  Sub-process /usr/bin/sqv returned an error code (1), error message is: Missing key 40EE, which is needed", "another key"),
        ("E: Release file for file:/s/InRelease is expired (invalid since 2514d 9h). Updates will not be applied.", "too old"),
        ("E: The repository 'http://v  Release' does not have a Release file.", "no signed repository"),
        ("E: Failed to fetch http://v/InRelease  Could not connect to v:80 (192.0.2.1). - connect (111: refused)", "cannot be reached"),
        ("E: Failed to fetch https://v/InRelease  Certificate verification failed: The certificate is NOT trusted.", "TLS certificate"),
        ("E: something new", "apt says: E: something new"),
    ],
)
def test_apts_complaints_are_explained(output: str, words: str) -> None:
    assert words in repository.complaint(output)
