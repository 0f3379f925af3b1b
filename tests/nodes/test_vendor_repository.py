"""A vendor's repository on a real node, read by the real apt over HTTP; the repository is a stand-in that the test makes and signs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import vendor_stand_in
from tests.support import Play, play
from trainyard.containers import Lab
from trainyard.paths import CHECKOUT

pytestmark = pytest.mark.nodes

SERVER = "http://127.0.0.1:8123"
URL = f"{SERVER}/{vendor_stand_in.LAYOUT}/"
FOLDERS = "/etc/apt /usr/share/keyrings /var/lib/trainyard"
LEFT_BEHIND = {
    # Three ways in which a machine came to the same repository over the years, each with a key of its own.
    "/etc/apt/sources.list.d/cuda.list": f"# by hand, 2021\ndeb [arch=amd64 signed-by=/usr/share/keyrings/cuda-old.gpg] {URL} /\n",
    "/etc/apt/sources.list.d/vendor.sources": (
        f"# from a guide\nTypes: deb\nURIs: {URL.rstrip('/')}\nSuites: /\nSigned-By: /usr/share/keyrings/cuda-old.gpg\n\n"
        "Types: deb\nURIs: http://192.0.2.1/other\nSuites: /\nEnabled: no\n"
    ),
    "/etc/apt/sources.list.d/ml.list": "deb http://developer.download.nvidia.com/compute/machine-learning/repos/ubuntu1804/x86_64 /\n",
}


def ask(node: Lab, script: str) -> str:
    return node.execute("head", ["sh", "-c", script]).strip()


def files(node: Lab) -> str:
    """Return every file below the folders in question, with its content's digest."""
    return ask(node, f"find {FOLDERS} -type f 2>/dev/null | sort | xargs -r sha256sum")


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vendor")
    out.chmod(0o755)
    for parent in out.parents:
        if parent.stat().st_mode & 0o055 != 0o055 and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    vendor_stand_in.make(out)
    return out


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, stand_in: Path) -> Iterator[Lab]:
    """A node on which the stand-in is served, with what years of guides left behind."""
    name = f"{request.path.stem}-{CHECKOUT}".replace("_", "-")
    lab = Lab(name, ["head"], tmp_path_factory.mktemp("lab"), mounts={stand_in: "/srv/vendor"}, say=lambda _text: None)
    lab.down()
    lab.up()
    ask(lab, f"systemd-run -q --unit vendor python3 -m http.server {SERVER.rpartition(':')[2]} --bind 127.0.0.1 --directory /srv/vendor")
    for path, text in LEFT_BEHIND.items():
        lab.execute("head", ["sh", "-c", 'printf "%s" "$1" > "$2"', "sh", text, path])
    ask(lab, "cp /srv/vendor/revoked.gpg /usr/share/keyrings/cuda-old.gpg; cp /srv/vendor/revoked.asc /etc/apt/trusted.gpg.d/nvidia.asc")
    ask(lab, "cat /srv/vendor/revoked.gpg > /etc/apt/trusted.gpg")
    yield lab
    lab.down()


@pytest.fixture
def wish(stand_in: Path) -> dict[str, Any]:
    return {
        "name": "nvidia",
        "owner": "nvidia_driver",
        "url": URL,
        "key": f"{URL}{vendor_stand_in.KEY_NAME}",
        "fingerprints": [(stand_in / "fingerprint").read_text()],
        "revoked": [(stand_in / "revoked").read_text()[-8:]],
        "supersedes": ["https://developer.download.nvidia.com/compute/machine-learning/repos"],
        "pins": [{"packages": ["src:nvidia-driver", "*nvidia*"], "version": "580.*"}],
    }


Run = Callable[..., Play]


@pytest.fixture
def run(node: Lab, tmp_path: Path) -> Run:
    def start(wish: dict[str, Any], *words: str) -> Play:
        return play(node, tmp_path, [{"name": "repository", "trainyard.core.vendor_repository": wish}], words)

    return start


REFUSED = {
    "wrong fingerprint": ({"fingerprints": ["A" * 40]}, "It is another key than the one that was asked for"),
    "wrong digest": ({"key_sha256": "0" * 64}, "key_sha256: the key's file has the SHA-256"),
    "short fingerprint": ({"fingerprints": ["3BF863CC"]}, "a key id is too short to be safe"),
    "no key there": ({"key": f"{URL}nothing.pub"}, "cannot be read"),
    "no key in it": ({"key": f"{URL}Packages"}, "is no file of public keys"),
    "nothing there": ({"url": f"{SERVER}/nowhere/"}, "There is no signed repository at this address"),
    "no server": ({"url": "http://127.0.0.1:9/x/"}, "The server cannot be reached"),
    "no address": ({"url": "ftp://x/"}, "is no address of a repository"),
}
UNSOUND = {
    "bad": "The signature is wrong",
    "other": "signed by another key",
    "expired": "has expired",
    "stale": "too old",
}


def unsound(stand_in: Path, kind: str) -> dict[str, Any]:
    """Make a repository whose signature does not hold, and return what asks for it."""
    folder = stand_in / kind
    folder.mkdir()
    expired = kind == "expired"
    signer = vendor_stand_in.Signer(expires="1d" if expired else "0", faked_time="20200101T000000" if expired else "")
    other = vendor_stand_in.Signer()
    try:
        vendor_stand_in.publish(folder, signer, {"Valid-Until": "Wed, 01 Jan 2020 00:00:00 UTC"} if kind == "stale" else None)
        if kind == "bad":
            text = (folder / "InRelease").read_text()
            (folder / "InRelease").write_text(text.replace("NVIDIA CUDA", "NVIDIA CUBA"))
        elif kind == "other":
            (folder / vendor_stand_in.KEY_NAME).write_bytes(other.public)
        url = f"{SERVER}/{kind}/"
        fingerprint = other.fingerprint if kind == "other" else signer.fingerprint
        return {"url": url, "key": f"{url}{vendor_stand_in.KEY_NAME}", "fingerprints": [fingerprint]}
    finally:
        signer.close()
        other.close()


def test_what_cannot_be_trusted_or_read_is_refused_with_a_sentence_of_its_own_and_nothing_changes(
    node: Lab, tmp_path: Path, wish: dict[str, Any], stand_in: Path
) -> None:
    changes = {name: change for name, (change, _words) in REFUSED.items()} | {kind: unsound(stand_in, kind) for kind in UNSOUND}
    words = {name: said for name, (_change, said) in REFUSED.items()} | UNSOUND
    before = files(node)
    done = play(
        node,
        tmp_path,
        [{"name": name, "trainyard.core.vendor_repository": {**wish, **change}, "ignore_errors": True} for name, change in changes.items()],
    )
    for name, said in words.items():
        result = done.results[name, "head"]
        assert result["failed"], name
        assert said in result["msg"], name
    assert files(node) == before


def test_sources_that_clash_are_set_aside_and_revoked_keys_are_trusted_no_more(node: Lab, run: Run, wish: dict[str, Any]) -> None:
    before = files(node)
    checked = run(wish, "--check", "--diff")
    assert (checked.status, checked.changed) == (0, {"head": 1}), checked.text
    assert files(node) == before
    done = run(wish)
    assert (done.status, done.changed) == (0, {"head": 1}), done.text
    result = done.results["repository", "head"]
    assert set(result["set_aside"]) == set(LEFT_BEHIND)
    assert set(result["revoked"]) == {"/etc/apt/trusted.gpg", "/etc/apt/trusted.gpg.d/nvidia.asc", "/usr/share/keyrings/cuda-old.gpg"}
    assert checked.results["repository", "head"]["set_aside"] == result["set_aside"]
    assert (
        ask(node, "cat /etc/apt/sources.list.d/cuda.list").splitlines()[1].startswith("# Set aside by Trainyard (nvidia): deb [arch=amd64")
    )
    ask(node, "apt-get -q update --error-on=any")
    assert ask(node, "apt-get -q update 2>&1 | grep -iE 'conflict|configured multiple|invalid filename|W:' || true") == ""
    again = run(wish)
    assert (again.status, again.changed) == (0, {"head": 0})
    assert run(wish, "--check").changed == {"head": 0}


def candidate(node: Lab, name: str) -> str:
    return ask(node, f"apt-cache policy {name} | sed -n 's/ *Candidate: //p'")


def test_the_branch_is_taken_from_it_and_nothing_that_the_distribution_has(node: Lab) -> None:
    assert candidate(node, "nvidia-driver-cuda") == candidate(node, "libcuda1") == "580.105.08-1"
    assert not candidate(node, "tmux").startswith("99")
    assert "99.0-1 50" in ask(node, "apt-cache policy tmux")


def test_another_branch_is_pinned_by_a_second_run(node: Lab, run: Run, wish: dict[str, Any]) -> None:
    assert run({**wish, "pins": [{"packages": ["src:nvidia-driver"], "version": "575.57.08-*"}]}).changed == {"head": 1}
    assert candidate(node, "nvidia-driver-cuda") == "575.57.08-1"


def test_a_second_owner_keeps_it_until_he_wants_it_no_more_and_then_all_is_as_before(node: Lab, run: Run, wish: dict[str, Any]) -> None:
    second = {**wish, "owner": "cuda", "pins": []}
    assert run(second).changed == {"head": 1}
    assert run(second).changed == {"head": 0}
    first_gone = run({"name": "nvidia", "owner": "nvidia_driver", "state": "absent"})
    assert (first_gone.status, first_gone.changed) == (0, {"head": 1}), first_gone.text
    assert candidate(node, "nvidia-driver-cuda") == "590.44.01-1"
    ask(node, "echo '# mine' >> /etc/apt/sources.list.d/cuda.list")  # somebody edits what was set aside
    checked = run({"name": "nvidia", "owner": "cuda", "state": "absent"}, "--check")
    assert checked.changed == {"head": 1}
    gone = run({"name": "nvidia", "owner": "cuda", "state": "absent"})
    assert (gone.status, gone.changed) == (0, {"head": 1}), gone.text
    for path, text in LEFT_BEHIND.items():
        assert ask(node, f"cat {path}") == (text + "# mine" if path.endswith("cuda.list") else text.strip())
    assert (
        ask(node, "cmp /srv/vendor/revoked.gpg /etc/apt/trusted.gpg; cmp /srv/vendor/revoked.asc /etc/apt/trusted.gpg.d/nvidia.asc") == ""
    )
    assert ask(node, "find /etc/apt /usr/share/keyrings -name '*trainyard*' -not -name '*.list'") == ""
    assert run({"name": "nvidia", "owner": "cuda", "state": "absent"}).changed == {"head": 0}
