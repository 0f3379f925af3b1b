"""The module vendor_repository, killed before each of its changes to the disk: the next run finishes, and the undo leaves what was there.

apt itself, which reads the repository, is left out here; the tests on nodes have the real one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.trainyard.core.plugins.module_utils import _openpgp as openpgp
from ansible_collections.trainyard.core.plugins.modules import vendor_repository

FINGERPRINTS = ["E250FF67D8116BB511661A086A08130E3ECA81FB", "613FC19EE37D26074827B30D6A50059BCBC2690C"]
URL = "https://vendor.example/repos/debian12/"
ARMOUR = re.compile(rb"-----BEGIN PGP PUBLIC KEY BLOCK-----.*?-----END PGP PUBLIC KEY BLOCK-----\n", re.S)
KEY, REVOKED = ARMOUR.findall((Path(__file__).parents[1] / "module_utils/test_openpgp.py").read_bytes())
WISH = {
    "name": "vendor",
    "owner": "one",
    "url": URL,
    "key": KEY.decode(),
    "fingerprints": FINGERPRINTS[:1],
    "revoked": FINGERPRINTS[1:],
    "pins": [{"packages": ["*vendor*"], "version": "1.*"}],
}
GONE = {"name": "vendor", "owner": "one", "state": "absent"}
Tree = dict[str, bytes]
Run = Callable[..., dict[str, Any]]


class KilledError(BaseException):
    """As by a power cut: nothing of the module runs after it."""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node's folders, with two sources of the repository and keyrings with a key that was revoked."""
    etc, share = tmp_path / "etc/apt", tmp_path / "usr/share/keyrings"
    for folder in (etc / "sources.list.d", etc / "preferences.d", etc / "keyrings", etc / "trusted.gpg.d", share):
        folder.mkdir(parents=True)
    (etc / "sources.list").write_text(f"deb http://debian.example bookworm main\ndeb {URL} /\n")
    (etc / "sources.list.d/vendor.sources").write_text(f"Types: deb\nURIs: {URL}\nSuites: /\n")
    (etc / "trusted.gpg.d/both.gpg").write_bytes(b"".join(one.content for one in openpgp.certificates(KEY + REVOKED)))
    (etc / "trusted.gpg.d/old.asc").write_bytes(REVOKED)
    monkeypatch.setattr(vendor_repository, "APT", etc)
    monkeypatch.setattr(vendor_repository, "SOURCES", etc / "sources.list.d")
    monkeypatch.setattr(vendor_repository, "PREFERENCES", etc / "preferences.d")
    monkeypatch.setattr(vendor_repository, "KEYS", etc / "keyrings")
    monkeypatch.setattr(vendor_repository, "KEYRINGS", (etc / "trusted.gpg.d", etc / "keyrings", share))
    monkeypatch.setattr(vendor_repository, "OWNERS", tmp_path / "var/repositories")
    monkeypatch.setattr(vendor_repository.Repository, "read", lambda self, key, source: "release o=Vendor")
    monkeypatch.setattr(vendor_repository.Repository, "fetch", lambda self, words, *options: None)
    return tmp_path


@pytest.fixture
def run(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the module, killed before a change of the disk where its number is given."""

    def start(wish: dict[str, Any], killed_at: int | None = None, check: bool = False) -> dict[str, Any]:
        made = 0
        with monkeypatch.context() as patched:

            def counted(real: Callable[..., Any]) -> Callable[..., Any]:
                def change(*words: Any, **more: Any) -> Any:
                    nonlocal made
                    if made == killed_at:
                        raise KilledError
                    made += 1
                    return real(*words, **more)

                return change

            for name in ("replace", "unlink", "rename"):
                patched.setattr(Path, name, counted(getattr(Path, name)))
            with patch_module_args({**wish, "_ansible_check_mode": check}), pytest.raises(SystemExit):
                vendor_repository.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert not result.get("failed"), result
        return {**result, "changes": made}

    return start


def tree(root: Path) -> Tree:
    """Return every file that apt could read, and what we know of them; folders of ours that are empty do not count."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def kill(run: Run, wish: dict[str, Any], number: int) -> None:
    with pytest.raises(KilledError):
        run(wish, number)


@pytest.fixture
def whole(root: Path, run: Run) -> tuple[Tree, Tree, int, int]:
    """The trees before and after, and how many changes there and back take."""
    before = tree(root)
    there = run(WISH)["changes"]
    after = tree(root)
    back = run(GONE)["changes"]
    assert tree(root) == before
    return before, after, there, back


def test_it_writes_what_is_wanted_once(root: Path, run: Run) -> None:
    before = tree(root)
    assert run(WISH, check=True)["changed"]
    assert tree(root) == before
    result = run(WISH)
    assert result["changed"]
    assert len(result["set_aside"]) == 2
    assert sorted(Path(path).name for path in result["revoked"]) == ["both.gpg", "old.asc"]
    text = (root / "etc/apt/sources.list").read_text()
    assert text == f"deb http://debian.example bookworm main\n# Set aside by Trainyard (vendor): deb {URL} /\n"
    assert [one.fingerprint for one in openpgp.certificates((root / "etc/apt/trusted.gpg.d/both.gpg").read_bytes())] == FINGERPRINTS[:1]
    assert "Pin: release o=Vendor\nPin-Priority: 50" in (root / "etc/apt/preferences.d/trainyard-vendor.pref").read_text()
    assert "Pin: version 1.*\nPin-Priority: 1001" in (root / "etc/apt/preferences.d/trainyard-vendor-one.pref").read_text()
    assert not run(WISH)["changed"]
    assert not run(WISH, check=True)["changed"]


def test_killed_anywhere_the_next_run_finishes_and_the_undo_leaves_what_was_there(
    root: Path, run: Run, whole: tuple[Tree, Tree, int, int]
) -> None:
    before, after, there, back = whole
    assert there >= 8
    for number in range(there):
        kill(run, WISH, number)
        run(WISH)
        assert tree(root) == after, f"killed before change {number}"
        run(GONE)
        assert tree(root) == before, f"killed before change {number}, then undone"
        kill(run, WISH, number)
        run(GONE)
        assert tree(root) == before, f"undone after it was killed before change {number}"
    for number in range(back):
        run(WISH)
        kill(run, GONE, number)
        run(GONE)
        assert tree(root) == before, f"undo killed before change {number}"


def test_a_keyring_that_somebody_changed_since_is_left_and_told(root: Path, run: Run) -> None:
    run(WISH)
    (root / "etc/apt/trusted.gpg.d/old.asc").write_bytes(KEY)
    result = run(GONE)
    assert [Path(path).name for path in result["left"]] == ["old.asc.trainyard-vendor.save"]
    assert (root / "etc/apt/trusted.gpg.d/old.asc").read_bytes() == KEY
