"""The module package_trees, killed before each of its changes to the disk: the next run finishes, and the undo leaves nothing.

apt and dpkg are left out here; the tests on nodes have the real ones.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.trainyard.core.plugins.modules import package_trees

SHOWN = """Package: toolkit-1
Version: {version}
Depends: part-1, driver
Filename: ./t
Size: 1

Package: part-1
Version: 7
Filename: ./p
Size: 1
"""
Run = Callable[..., dict[str, Any]]


class KilledError(BaseException):
    """As by a power cut: nothing of the module runs after it."""


def wish(path: Path, version: str = "1.0") -> dict[str, Any]:
    return {"path": str(path), "owner": "one", "trees": [{"name": "1", "package": "toolkit-1", "version": version, "follow": ["*-1"]}]}


def command(_module: AnsibleModule, words: list[str], cwd: str = "", **_more: Any) -> tuple[int, str, str]:
    """Do what apt and dpkg would: an archive is its own name, and unpacking writes a file that tells it."""
    if words[0] == "apt-cache":
        return 0, SHOWN.format(version="2.0") + "\n" + SHOWN.format(version="1.0"), ""
    if words[0] == "apt-get":
        for name, _equals, version in (word.partition("=") for word in words[3:]):
            Path(cwd, f"{name}_{version}_all.deb").write_text(version)
    if words[0] == "dpkg-deb":
        archive = Path(words[2])
        Path(words[3], archive.name.partition("_")[0]).write_text(archive.read_text())
    return 0, "", ""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the module, killed before a change of the disk where its number is given."""

    def start(wanted: dict[str, Any], killed_at: int | None = None, check: bool = False) -> dict[str, Any]:
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

            for name in ("rename", "mkdir", "write_text", "rmdir"):
                patched.setattr(Path, name, counted(getattr(Path, name)))
            patched.setattr(shutil, "rmtree", counted(shutil.rmtree))
            patched.setattr(package_trees, "exchange", counted(package_trees.exchange))
            patched.setattr(AnsibleModule, "run_command", command)
            with patch_module_args({**wanted, "_ansible_check_mode": check}), pytest.raises(SystemExit):
                package_trees.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert not result.get("failed"), result["msg"]
        return {**result, "changes": made}

    return start


def tree(path: Path) -> dict[str, str]:
    """Return the files of the trees, without what tells them from altered ones."""
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file() and file.name[0] != "."}


def test_it_lays_out_what_fits_and_only_once(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "trees"
    assert run(wish(path), check=True)["changed"]
    assert not path.exists()
    (made,) = run(wish(path))["trees"]
    assert made["packages"] == {"toolkit-1": "1.0", "part-1": "7"}
    assert tree(path) == {"1/toolkit-1": "1.0", "1/part-1": "7"}
    assert not run(wish(path))["changed"]
    (path / "1/part-1").write_text("77")
    assert run(wish(path))["trees"][0]["actions"] == ["mend part-1"]
    assert tree(path) == {"1/toolkit-1": "1.0", "1/part-1": "7"}
    gone = {**wish(path), "trees": [{"name": "1", "state": "absent"}]}
    assert run(gone, check=True)["changed"]
    assert run(gone)["changed"]
    assert not run(gone)["changed"]
    assert tree(path) == {}


@pytest.mark.parametrize("swaps", [True, False])
def test_killed_anywhere_the_next_run_finishes_and_the_undo_leaves_nothing(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, swaps: bool
) -> None:
    if not swaps:
        monkeypatch.setattr(package_trees, "exchange", lambda _one, _other: False)
    path = tmp_path / "trees"
    undo = {"path": str(path), "owner": "one", "state": "absent"}
    run(wish(path))
    changes = run(wish(path, "2.0"))["changes"]
    assert changes >= 5
    back = run(undo)["changes"]
    assert not path.exists()
    for number in range(changes):
        run(wish(path))
        with pytest.raises(KilledError):
            run(wish(path, "2.0"), number)
        run(wish(path, "2.0"))
        assert tree(path) == {"1/toolkit-1": "2.0", "1/part-1": "7"}
        assert sorted(one.name for one in path.iterdir()) == ["1"]
        run(undo)
        assert not path.exists()
    for number in range(back):
        run(wish(path))
        with pytest.raises(KilledError):
            run(undo, number)
        run(undo)
        assert not path.exists()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, run: Run) -> None:
    (tmp_path / "1").mkdir()
    with pytest.raises(AssertionError, match="is there already and was not made by Trainyard"):
        run(wish(tmp_path))
    assert not run({**wish(tmp_path), "state": "absent"})["changed"]
    assert (tmp_path / "1").is_dir()
