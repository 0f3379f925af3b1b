# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Frozen environments: built beside their place, repaired, replaced without disturbing anybody. What builds a root is made up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _frozen_root as core
from ansible_collections.trainyard.core.plugins.module_utils._package_lock import PythonEnvError

BUILDER = """#!/bin/sh
for word; do case $word in *.new) last=$word ;; esac; done
printf '%s\\n' "$*" >>"$SAID"
mkdir -p "$last/usr/bin" "$last/etc" "$last/var/lib/apt/lists" || exit
[ ! -e "$FAIL" ] || { echo "E: no such package" >&2; exit 25; }
echo program >"$last/usr/bin/caffe"
ln -s /usr/share/zoneinfo/Etc/UTC "$last/etc/localtime"
"""


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> core.Places:
    """Empty places, and a stand-in for mmdebstrap on the PATH."""
    (tmp_path / "bin").mkdir()
    builder = tmp_path / "bin" / "mmdebstrap"
    builder.write_text(BUILDER)
    builder.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SAID", str(tmp_path / "said"))
    monkeypatch.setenv("FAIL", str(tmp_path / "fail"))
    (tmp_path / "commands").mkdir()
    return core.Places(tmp_path / "envs", tmp_path / "store", tmp_path / "commands")


def wanted(**options: object) -> core.Wanted:
    """Return a wish for Caffe."""
    wish = core.Wanted("caffe", True, "bullseye", ("caffe", "python3-caffe"), ("python", "caffe"), ("caffe",), 1000, {"kind": "framework"})
    return replace(wish, **options)  # type: ignore[arg-type]


def built(places: core.Places) -> list[str]:
    """Return what the builder was called with."""
    said = places.store.parent / "said"
    return said.read_text().splitlines() if said.exists() else []


def test_it_is_made_and_then_nothing_is_to_be_done(places: core.Places) -> None:
    assert core.actions(wanted(), places)[0] == "build it"
    core.apply(wanted(), places)
    assert core.actions(wanted(), places) == []
    (words,) = built(places)
    assert words.startswith("--quiet --variant=minbase --include=caffe,python3-caffe bullseye ")
    folder = places.environments / "caffe"
    assert json.loads((folder / ".trainyard-env.json").read_text())["about"] == {"kind": "framework"}
    assert (folder / "root" / "usr/bin/caffe").read_text() == "program\n"
    assert not (folder / "root" / "etc/localtime").is_symlink(), "the node's own covers it"
    assert os.readlink(places.commands / "caffe") == f"{folder}/bin/caffe"


def test_a_mirror_is_handed_over(places: core.Places) -> None:
    core.apply(wanted(), places, "https://mirror.example.org/debian")
    assert built(places)[0].endswith(".new https://mirror.example.org/debian")


def test_a_build_that_fails_says_why_and_leaves_nothing(places: core.Places) -> None:
    (places.store.parent / "fail").touch()
    with pytest.raises(core.FrozenRootError, match=r"The system of caffe could not be built: E: no such package"):
        core.apply(wanted(), places)
    assert [path.name for path in places.store.iterdir()] == [".lock"]
    (places.store.parent / "fail").unlink()
    core.apply(wanted(), places)
    assert core.actions(wanted(), places) == []


def test_what_an_interrupted_build_left_is_built_anew(places: core.Places) -> None:
    root = places.root(wanted())
    for left in (root, root.with_name(f".{root.name}.new")):
        (left / "usr").mkdir(parents=True)
    assert core.actions(wanted(), places)[0] == "build it anew: it is not whole"
    core.apply(wanted(), places)
    assert core.actions(wanted(), places) == []
    assert sorted(path.name for path in places.store.iterdir()) == [".lock", root.name]


def test_a_changed_file_makes_it_anew(places: core.Places) -> None:
    core.apply(wanted(), places)
    (places.root(wanted()) / "usr/bin/caffe").write_text("another")
    assert core.actions(wanted(), places) == ["build it anew: its files were changed"]
    core.apply(wanted(), places)
    assert core.actions(wanted(), places) == []
    assert (places.root(wanted()) / "usr/bin/caffe").read_text() == "program\n"


def test_another_recipe_makes_another_root_and_the_old_one_goes_when_nobody_uses_it(
    places: core.Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    core.apply(wanted(), places)
    other = wanted(packages=("caffe", "python3-scipy"))
    monkeypatch.setattr(core, "in_use", lambda root: root == places.root(wanted()))
    core.apply(other, places)
    assert places.root(wanted()).is_dir(), "somebody is at work in it"
    assert os.readlink(places.environments / "caffe" / "root") == str(places.root(other))
    assert core.actions(other, places) == []
    monkeypatch.undo()
    monkeypatch.setenv("PATH", os.environ["PATH"])
    assert core.actions(other, places) == [f"remove {places.root(wanted())}, which is used no more"]
    core.apply(other, places)
    assert not places.root(wanted()).exists()


def test_a_mounted_root_is_in_use() -> None:
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    longest = max((line.split()[4] for line in mounts), key=len)
    assert core.in_use(Path(longest).parent)
    assert not core.in_use(Path("/nowhere/at-all"))


def test_what_is_somebody_elses_is_left_alone(places: core.Places) -> None:
    assert core.owner_problem(wanted(), places) == ""
    (places.commands / "caffe").write_text("mine")
    assert core.owner_problem(wanted(), places) == f"{places.commands / 'caffe'} is there already and is somebody else's. Move it away."
    (places.commands / "caffe").unlink()
    (places.environments / "caffe" / "mine").mkdir(parents=True)
    assert "is there already and is no frozen environment" in core.owner_problem(wanted(), places)


def test_room_is_looked_at_before(places: core.Places) -> None:
    assert core.room_problem([wanted()], places) == ""
    assert "caffe will take 1000000.0 GB. Make room there." in core.room_problem([wanted(size=10**15)], places)
    core.apply(wanted(), places)
    assert core.room_problem([wanted(size=10**15)], places) == "", "it is there already"


def test_all_are_removed(places: core.Places) -> None:
    core.apply(wanted(), places)
    core.apply(wanted(name="old", commands=()), places)
    shutil.rmtree(places.environments / "old")  # an interruption left its root
    (places.environments / "torch").mkdir()
    (places.commands / "other").symlink_to("/usr/bin/true")
    assert [wish.name for wish in core.of_ours(places)] == ["caffe", "old"]
    for wish in core.of_ours(places):
        assert core.actions(wish, places) == ["remove it"]
        core.apply(wish, places)
    assert core.of_ours(places) == []
    assert [path.name for path in places.environments.iterdir()] == ["torch"]
    assert [path.name for path in places.commands.iterdir()] == ["other"]
    assert core.tidy(places, dry=True)
    assert places.store.is_dir()
    assert core.tidy(places, dry=False)
    assert not places.store.exists()
    assert not core.tidy(places, dry=False), "it is gone already"


def test_the_folder_of_the_roots_stays_while_there_is_one_but_not_for_one_that_was_only_begun(places: core.Places) -> None:
    core.apply(wanted(), places)
    assert not core.tidy(places, dry=False)
    core.apply(wanted(present=False), places)
    (places.store / ".caffe-0123456789ab.new").mkdir()
    assert core.tidy(places, dry=False)
    assert not places.store.exists()


def test_a_program_that_the_recipe_has_no_more_goes(places: core.Places) -> None:
    core.apply(wanted(), places)
    fewer = wanted(programs=("python",), commands=())
    program = places.environments / "caffe" / "bin" / "caffe"
    assert core.actions(fewer, places) == [
        f"remove {program}, which is wanted no more",
        f"remove {places.commands / 'caffe'}, which is wanted no more",
    ]
    core.apply(fewer, places)
    assert core.actions(fewer, places) == []
    assert not os.path.lexists(program)
    assert not os.path.lexists(places.commands / "caffe")


LOCK = f"six==1.17.0 --hash=sha256:{'0' * 64} # 1000\n"


def test_locked_packages_make_another_root_and_count_for_the_room(places: core.Places) -> None:
    with_packages = wanted(requirements=LOCK)
    assert with_packages.digest != wanted().digest
    assert with_packages.digest == wanted(requirements=LOCK.replace("# 1000", "# 2000")).digest, "what it takes is no part of it"
    assert with_packages.digest != wanted(requirements=LOCK.replace("1.17.0", "1.16.0")).digest
    assert with_packages.room == 1000 + 1000 * 1.2


def test_packages_that_cannot_be_had_leave_no_root(places: core.Places, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(root: Path, python: str, lock: str, sources: core.Sources) -> None:
        raise PythonEnvError(f"{root.name} {python} {sources.index_url}")

    monkeypatch.setattr(core, "install", fail)
    old = wanted(requirements=LOCK, python="python2.7")
    with pytest.raises(PythonEnvError, match=rf"^\.{places.root(old).name}\.new python2\.7 none$"):
        core.apply(old, places, sources=core.Sources(index_url="none"))
    assert [path.name for path in places.store.iterdir()] == [".lock"]


def test_sources_are_asked_only_for_roots_that_are_yet_to_be_built(places: core.Places, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = core.Sources(wheelhouse="/nowhere")
    old = wanted(requirements=LOCK)
    assert core.sources_problem([wanted()], places, nowhere) == ""
    assert core.sources_problem([old], places, nowhere) == "framework_env_wheelhouse: /nowhere is no folder on this node."
    monkeypatch.setattr(core, "install", lambda *_words: None)
    core.apply(old, places)
    assert core.sources_problem([old], places, nowhere) == ""


@pytest.mark.parametrize("text", [core.ENTER, core.ACTIVATE])
def test_the_scripts_are_ones_for_any_shell(text: str) -> None:
    script = text.format(name="caffe", environment="/opt/trainyard/envs/caffe", inside=core.INSIDE, libraries=core.LIBRARIES)
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0


def test_an_environment_that_was_begun_is_finished(places: core.Places, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_words: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(core, "texts", interrupt)
        with pytest.raises(KeyboardInterrupt):
            core.apply(wanted(), places)
    assert core.owner_problem(wanted(), places) == ""
    core.apply(wanted(), places)
    assert core.actions(wanted(), places) == []


def test_a_changed_root_that_is_in_use_is_left(places: core.Places, monkeypatch: pytest.MonkeyPatch) -> None:
    core.apply(wanted(), places)
    (places.root(wanted()) / "usr/bin/caffe").write_text("another")
    monkeypatch.setattr(core, "in_use", lambda _root: True)
    with pytest.raises(core.FrozenRootError, match="programs run in it"):
        core.apply(wanted(), places)
    assert (places.root(wanted()) / "usr/bin/caffe").exists()
