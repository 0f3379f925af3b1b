"""The locks fit the catalogue, name no host, and the tool that makes them says when they no longer do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _package_lock

from tools import lock_envs

LOCKS = sorted(lock_envs.LOCKS.glob("*.txt"))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what the tool reads and writes."""
    for name in ("CATALOG", "CUDA_CATALOG", "LOCKS", "OWN_LOCK", "OWN_PROJECT"):
        source: Path = getattr(lock_envs, name)
        target = tmp_path / source.relative_to(lock_envs.REPOSITORY)
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        monkeypatch.setattr(lock_envs, name, target)
    monkeypatch.setattr(lock_envs, "REPOSITORY", tmp_path)
    monkeypatch.setattr(lock_envs, "UV", "/nowhere/uv")  # --check asks nobody
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_all_locks_fit(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lock_envs.main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        (
            "roles/catalog/vars/main/environments.yml",
            "jax[cpu]==0.10.2",
            "jax[cpu]==0.10.3",
            "jax-cpu-cp311-x86_64.txt: jax is 0.10.2, wanted is jax[cpu]==0.10.3",
        ),
        ("roles/catalog/vars/main/environments.yml", "  - fire\n", "  - fire\n  - sympy\n", "jax-cpu-cp313-x86_64.txt: sympy is missing"),
        ("roles/catalog/vars/main/environments.yml", "uv==0.13.8", "uv==0.13.9", "installer.txt: uv is 0.13.8, wanted is uv==0.13.9"),
        ("roles/catalog/vars/main/environments.yml", "  - fire\n", "", "made for other requirements"),
        (
            "roles/catalog/vars/main/environments.yml",
            "[tensorflow==1.6.0]",
            "[tensorflow==1.6.1]",
            "tensorflow-cpu-1.6.0-cp27-x86_64.txt: tensorflow is 1.6.0, wanted is tensorflow==1.6.1",
        ),
        (
            "roles/catalog/vars/main/environments.yml",
            "nltk==3.4.5",
            "nltk==3.4.4",
            "keras-cpu-2.1.5-cp27-x86_64.txt: nltk is 3.4.5, wanted is",
        ),
        (
            "roles/catalog/vars/main/environments.yml",
            "        without: [tensorflow]\n",
            "",
            "tensorflow-cpu-cp311-x86_64.txt: it was made without tensorflow",
        ),
        ("roles/catalog/files/locks/jax-cpu-cp311-x86_64.txt", "fire==0.7.1 --hash=", "fire==0.7.1 --hush=", "fire==0.7.1 has no checksum"),
        ("pyproject.toml", '"mitogen==0.3.54"', '"mitogen==0.3.55"', "requirements.lock: mitogen is 0.3.54, wanted is mitogen==0.3.55"),
    ],
)
def test_a_misfit_is_found_and_named(
    repository: Path, capsys: pytest.CaptureFixture[str], *, file: str, old: str, new: str, says: str
) -> None:
    edit(repository / file, old, new)
    assert lock_envs.main(["--check"]) == 1
    assert says in capsys.readouterr().out


def test_missing_and_orphaned_locks_are_found(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    locks = lock_envs.LOCKS
    (locks / "jax-cpu-cp311-x86_64.txt").rename(locks / "caffe-cpu-cp311-x86_64.txt")
    assert lock_envs.main(["--check"]) == 1
    said = capsys.readouterr().out
    assert "jax-cpu-cp311-x86_64.txt: there is no lock" in said
    assert "caffe-cpu-cp311-x86_64.txt: nothing in the catalogue asks for it" in said


def test_an_unknown_environment_is_refused_with_those_that_are_known(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        lock_envs.main(["tensorflw"])
    assert "unknown: tensorflw; known are conda-tools, cuda, installer, jax, jupyterlab, keras" in capsys.readouterr().err


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_a_lock_is_what_the_node_reads(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text, "no host, no path"
    assert not [word for word in text.split() if word.startswith("/")]
    pins = _package_lock.parse_lock(text)
    assert pins
    assert all(pin.size > 0 for pin in pins.values()), "the room it takes is judged before an installation"


def test_the_installer_is_the_one_of_this_repository() -> None:
    own = lock_envs.pins(lock_envs.OWN_LOCK.read_text())
    assert lock_envs.pins((lock_envs.LOCKS / "installer.txt").read_text()) == {"uv": own["uv"]}


def test_keras_and_tensorflow_share_their_wheels() -> None:
    keras, tensorflow, jax = (
        lock_envs.pins((lock_envs.LOCKS / f"{name}-cpu-cp311-x86_64.txt").read_text()) for name in ("keras", "tensorflow", "jax")
    )
    assert {*keras.items()} - {*tensorflow.items()} == {("jax", jax["jax"]), ("jaxlib", jax["jaxlib"])}, (
        "its second backend, shared as well"
    )
    assert {*tensorflow} - {*keras} == {"tf-keras"}
    assert "tensorflow" not in tensorflow, "tensorflow-cpu is in its place"


def test_a_renewal_that_is_not_needed_asks_nobody(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lock_envs.main([]) == 0
    assert capsys.readouterr().out == ""
