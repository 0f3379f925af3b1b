"""Package sources as apt tells them, and what they leave out."""

from __future__ import annotations

from ansible_collections.trainyard.core.plugins.module_utils import _apt_sources as sources

WANTED = ["contrib", "non-free", "non-free-firmware"]
OURS = "/etc/apt/sources.list.d/ours.sources"


def told(*records: tuple[str, str, str, str, str, str]) -> list[sources.Index]:
    """Read records as apt-get prints them, one on each line."""
    return sources.parse_indexes("".join("\x1f".join(record) + "\x1e\n" for record in records))


DEBIAN = ("/etc/apt/sources.list:1", "http://mirror/debian/", "bookworm", "main", "Debian", "bookworm")
SECURITY = ("/etc/apt/sources.list:3", "http://mirror/security/", "bookworm-security", "main", "Debian", "bookworm-security")
THIRD = ("/etc/apt/sources.list.d/x.list:1", "https://x.example/debian/", "bookworm", "main", "X Inc.", "bookworm")
BACKPORTS = ("/etc/apt/sources.list:4", "http://mirror/debian/", "bookworm-backports", "main", "Debian Backports", "bookworm-backports")


def test_the_distributions_archives_get_what_they_lack_and_nobody_elses() -> None:
    found = sources.lacking(told(DEBIAN, SECURITY, THIRD, BACKPORTS), "Debian", "bookworm", WANTED, OURS)
    assert [(index.uri, index.suite, parts) for index, parts in found] == [
        ("http://mirror/debian/", "bookworm", WANTED),
        ("http://mirror/security/", "bookworm-security", WANTED),
    ]
    assert sources.source_file([(*found[0], ""), (*found[1], "/k.gpg")], "Ours.") == (
        "# Ours.\nTypes: deb\nURIs: http://mirror/debian/\nSuites: bookworm\nComponents: contrib non-free non-free-firmware\n"
        "\nTypes: deb\nURIs: http://mirror/security/\nSuites: bookworm-security\nComponents: contrib non-free non-free-firmware\n"
        "Signed-By: /k.gpg\n"
    )


def test_what_our_own_file_brings_does_not_count_and_what_others_bring_is_not_brought_twice() -> None:
    ours = (f"{OURS}:2", *DEBIAN[1:3], "contrib", *DEBIAN[4:])
    theirs = ("/etc/apt/sources.list:1", *DEBIAN[1:3], "non-free", *DEBIAN[4:])
    ((_index, parts),) = sources.lacking(told(DEBIAN, ours, theirs), "Debian", "bookworm", WANTED, OURS)
    assert parts == ["contrib", "non-free-firmware"]


def test_no_file_where_nothing_is_lacking() -> None:
    everything = [(*DEBIAN[:3], part, *DEBIAN[4:]) for part in ("main", *WANTED)]
    found = sources.lacking(told(*everything), "Debian", "bookworm", WANTED, OURS)
    assert sources.source_file([(index, parts, "") for index, parts in found], "Ours.") == ""


def test_a_suite_that_is_named_by_its_role_counts_by_its_code_name() -> None:
    stable = (*DEBIAN[:2], "oldstable", *DEBIAN[3:])
    ((index, _parts),) = sources.lacking(told(stable), "Debian", "bookworm", WANTED, OURS)
    assert index.suite == "oldstable"


def test_backports_do_not_belong_to_a_release_whose_code_name_they_say() -> None:
    noble = ("/etc/apt/sources.list.d/ubuntu.sources:1", "http://mirror/ubuntu/", "noble", "main", "Ubuntu", "noble")
    suites = ["noble", "noble-updates", "noble-backports", "noble-proposed", "noble-security"]
    found = sources.lacking(told(*((*noble[:2], suite, *noble[3:]) for suite in suites)), "Ubuntu", "noble", ["restricted"], OURS)
    assert [index.suite for index, _parts in found] == ["noble", "noble-updates", "noble-security"]


def test_archives_without_lists_are_told_by_what_the_source_says() -> None:
    bare = (*DEBIAN[:4], "$(ORIGIN)", "$(CODENAME)")
    assert sources.complete([], told(bare)) == told(bare)
    assert sources.complete(told(DEBIAN), told(bare, SECURITY)) == told(DEBIAN, SECURITY)
    assert len(sources.lacking(told(bare), "Debian", "bookworm", WANTED, OURS)) == 1


KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n.\nmDME\n-----END PGP PUBLIC KEY BLOCK-----"
NEWER = f"""# a comment
Types: deb
URIs: http://mirror/debian
# between
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://other/ http://mirror/security
Suites: bookworm-security
Components: main
Signed-By:
{"".join(f" {line}" + chr(10) for line in KEY.splitlines())}"""
OLDER = """# deb [signed-by=/no.gpg] http://mirror/debian bookworm main
deb-src [signed-by=/no.gpg] http://mirror/debian bookworm main
deb [ arch=amd64 signed-by=/yes.gpg ] http://mirror/debian bookworm main
deb http://mirror/security bookworm-security main
"""


def test_the_key_that_a_source_demands_is_read_in_both_formats() -> None:
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    assert sources.signed_by(NEWER, True, "http://mirror/debian/", "bookworm-updates") == keyring
    assert sources.signed_by(NEWER, True, "http://mirror/security/", "bookworm-security") == KEY
    assert sources.signed_by(NEWER, True, "http://mirror/debian/", "sid") == ""
    assert sources.signed_by(OLDER, False, "http://mirror/debian/", "bookworm") == "/yes.gpg"
    assert sources.signed_by(OLDER, False, "http://mirror/security/", "bookworm-security") == ""


def test_a_key_that_stands_in_the_source_is_taken_over_whole() -> None:
    ((index, parts),) = sources.lacking(told(DEBIAN), "Debian", "bookworm", WANTED, OURS)
    text = sources.source_file([(index, parts, KEY)], "Ours.")
    assert sources.signed_by(text, True, index.uri, index.suite) == KEY
    assert "Signed-By:\n -----BEGIN" in text


def test_the_release_files_that_an_update_fetches() -> None:
    uris = (
        "'http://mirror.example/debian/dists/bookworm/InRelease' mirror.example_debian_dists_bookworm_InRelease 0 \n"
        "'http://mirror.example/debian/dists/bookworm/main/binary-amd64/Packages.xz' x 0 \n"
        "'https://vendor.example/cuda/./InRelease' y 0 \n"
        "'http://127.0.0.1:8000/./InRelease' z 0 \n"
        "'file:/srv/own/./InRelease' z 0 \n"
    )
    found = sources.release_files(uris)
    assert list(found) == [
        "http://mirror.example/debian/dists/bookworm/InRelease",
        "https://vendor.example/cuda/./InRelease",
        "http://127.0.0.1:8000/./InRelease",
    ]
    first = "http://mirror.example/debian/dists/bookworm"
    packages = f"{first}/main/binary-amd64/Packages"
    assert found[f"{first}/InRelease"] == [f"{first}/Release", packages, f"{packages}.xz", f"{packages}.gz"]
    assert found["https://vendor.example/cuda/./InRelease"] == ["https://vendor.example/cuda/./Release"]


def test_what_the_helper_complains_of() -> None:
    output = (
        "Err:1 http://127.0.0.1:9/x/InRelease\n  Could not connect to 127.0.0.1:9 (127.0.0.1). - connect (111: Connection refused)\n"
        "E: Failed to fetch http://127.0.0.1:9/x/InRelease  Could not connect to 127.0.0.1:9 (127.0.0.1).\nE: Download Failed\n"
    )
    output += "Err:1 http://127.0.0.1:9/x/InRelease\n"
    assert sources.complaint(output) == "Failed to fetch http://127.0.0.1:9/x/InRelease  Could not connect to 127.0.0.1:9 (127.0.0.1)."
    assert sources.complaint("") == "no message"
