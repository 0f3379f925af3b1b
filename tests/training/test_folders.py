"""Folders and files that others made, or may write, are refused; one's own are used, also below a folder that a group shares."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, strategies
from trainyard_training import batch, folders, job, node, run_one, sweep, watch
from trainyard_training.errors import NOT_OWN, NOT_SEEN, RefusedError
from trainyard_training.folders import NotOwnError

from tests.training.test_job import wish

NOBODY = 65534
SETTINGS = {"environments": "/envs"}


@pytest.fixture(autouse=True)
def no_groups_are_remembered() -> None:
    folders._private.cache_clear()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir(mode=0o755)
    return folder


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o711, 0o2755, 0o750])
def test_ones_own_folder_is_used_by_a_path_that_leads_there_whatever_is_renamed(own: Path, mode: int) -> None:
    own.chmod(mode)
    (own / "a").write_text("mine")
    with folders.opened(own) as place:
        own.rename(own.with_name("moved"))
        own.mkdir()
        (own / "a").write_text("somebody else's")
        assert (place / "a").read_text() == "mine"
    assert not place.exists()


def test_a_group_of_ones_own_may_write_and_no_other(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own.chmod(0o775)
    members: list[str] = []
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: SimpleNamespace(pw_gid=0, pw_name="ada"))
    monkeypatch.setattr(grp, "getgrgid", lambda gid: SimpleNamespace(gr_name={0: "ada", 100: "users"}[gid], gr_mem=members))
    folders.check(own)
    folders._private.cache_clear()
    members.append("bob")
    with pytest.raises(NotOwnError, match="the group ada may write there"):
        folders.check(own)
    os.chown(own, -1, 100)
    with pytest.raises(NotOwnError, match=r"the group users may write there.*its mode 0775. If that is your own work: chmod -R go-w"):
        folders.check(own)


def test_what_is_anothers_is_refused_with_owner_mode_and_what_to_do(own: Path) -> None:
    os.chown(own, NOBODY, NOBODY)
    own.chmod(0o777)
    with pytest.raises(NotOwnError) as refused, folders.opened(own):
        pass
    assert refused.value.status == NOT_OWN
    for part in (str(own), "it belongs to nobody", "Its owner is nobody", "its mode 0777", "a folder of your own"):
        assert part in str(refused.value)


def test_everybody_may_write_is_refused_even_in_ones_own(own: Path) -> None:
    own.chmod(0o1777)
    with pytest.raises(NotOwnError, match="everybody may write there"):
        folders.check(own)


def test_roots_things_are_used_only_where_that_makes_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert folders.problem(0, 0, 0o40755) == "it belongs to root"
    assert folders.problem(0, 0, 0o40755, root=True) == ""
    assert folders.problem(0, 0, 0o41777, root=True) == "everybody may write there"


def test_links_and_files_are_no_folders_and_what_is_missing_is_said(own: Path) -> None:
    (own / "link").symlink_to(own)
    (own / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(NotOwnError, match="it is a symbolic link or a file"), folders.opened(own / name):
            pass
    with pytest.raises(NotOwnError, match="it is a symbolic link"):
        folders.check(own / "link")
    with pytest.raises(RefusedError, match="There is no folder") as refused, folders.opened(own / "nowhere"):
        pass
    assert refused.value.status == NOT_SEEN


@pytest.mark.parametrize("mode, fine", [(0o777, False), (0o1777, True), (0o3775, True), (0o755, True)])
def test_not_everybody_may_rename_what_is_above(own: Path, mode: int, fine: bool) -> None:
    below = own / "mine"
    below.mkdir(mode=0o700)
    own.chmod(mode)
    if not fine:
        with pytest.raises(NotOwnError, match=r"everybody may rename what is in .*own \(mode 0777\).*chmod \+t"), folders.opened(below):
            pass
        return
    with folders.opened(below):
        pass


@given(uid=strategies.integers(0, 2**32 - 1), gid=strategies.integers(0, 2**32 - 1), mode=strategies.integers(0, 0o177777))
def test_nothing_is_trusted_that_another_could_change(uid: int, gid: int, mode: int) -> None:
    trusted = not folders.problem(uid, gid, mode)
    if uid != os.geteuid() or mode & stat.S_IWOTH:
        assert not trusted
    if not mode & (stat.S_IWOTH | stat.S_IWGRP) and uid == os.geteuid():
        assert trusted


def test_files_are_read_and_written_where_they_are_ones_own(own: Path) -> None:
    (own / "a").write_text("one")
    (own / "a").chmod(0o644)
    assert folders.read(own / "a") == b"one"
    with open(folders.write(own / "a"), "w") as file:
        file.write("2")
    with open(folders.write(own / "a", append=True), "w") as file:
        file.write("3")
    assert (own / "a").read_text() == "23"
    with pytest.raises(FileNotFoundError):
        folders.read(own / "none")


@pytest.mark.parametrize("how", ["link", "dangling", "anothers", "open", "pipe"])
def test_files_that_others_planted_are_neither_read_nor_written(own: Path, how: str) -> None:
    target, precious = own / "runs.json", own / "precious"
    precious.write_text("precious")
    if how in {"link", "dangling"}:
        target.symlink_to(precious if how == "link" else own / "new")
    elif how == "pipe":
        os.mkfifo(target)
    else:
        target.write_text("{}")
        os.chown(target, NOBODY if how == "anothers" else 0, -1)
        target.chmod(0o666 if how == "open" else 0o644)
    before = target.read_text() if how in {"anothers", "open"} else ""
    with pytest.raises(NotOwnError):
        folders.read(target)
    with pytest.raises((NotOwnError, OSError)):  # nobody reads a pipe: the system says so first
        os.close(folders.write(target))
    assert precious.read_text() == "precious"
    assert not (own / "new").exists()
    if before:
        assert target.read_text() == before


# --- the tools -------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(own: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (own / "train.py").write_text("print('accuracy=1')")
    monkeypatch.chdir(own)
    return own


def planted(folder: Path, program: Path) -> None:
    """Make a sweep's folder whose runs are somebody else's program."""
    folder.mkdir(mode=0o777)
    (folder / "runs.json").write_text(json.dumps({"script": str(program), "python": sys.executable, "runs": [{"lr": "1"}], "job": "7"}))
    for path in (folder, folder / "runs.json"):
        path.chmod(0o777)
        os.chown(path, NOBODY, NOBODY)


def test_a_sweeps_folder_that_somebody_made_before_is_refused_and_nothing_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = project / "evil.py"
    evil.write_text(f"open({str(project / 'ran')!r}, 'w')")
    planted(project / "sweep-train", evil)
    monkeypatch.setenv("PATH", str(project))  # no squeue, no sbatch: nothing gets that far
    with pytest.raises(NotOwnError, match="sweep-train is not used, since it belongs to nobody"):
        sweep.main(["train.py", "--lr", "1"], Path("/run"), SETTINGS)
    with pytest.raises(NotOwnError):
        sweep.one(project / "sweep-train", 0)
    assert not (project / "ran").exists()


def test_a_runs_file_that_somebody_else_left_is_refused_in_ones_own_folder_too(project: Path) -> None:
    planted(project / "sweep-train", project / "train.py")
    os.chown(project / "sweep-train", 0, 0)
    (project / "sweep-train").chmod(0o755)
    with pytest.raises(NotOwnError, match=r"runs\.json is not used"):
        sweep.one(project / "sweep-train", 0)


def test_a_sweep_of_ones_own_runs_and_shows_its_table(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    programs = project / "programs"  # a stand-in for Slurm's commands
    programs.mkdir()
    sinfo = "printf 'main|1:00:00|2|4|(null)|up|main*\\n'"
    for name, script in (("sinfo", sinfo), ("sbatch", 'echo "$@" >>words; echo 7'), ("squeue", "true")):
        (programs / name).write_text(f"#!/bin/sh\n{script}")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin")
    assert sweep.main(["train.py", "--lr", "1,2"], Path("/run"), SETTINGS) == 0
    assert f"--wrap=exec /run sweep-run {project}/sweep-train" in (project / "words").read_text()
    assert [sweep.one(project / "sweep-train", number) for number in (0, 1)] == [0, 0]
    assert sweep.main(["train.py", "--lr", "1,2"], Path("/run"), SETTINGS) == 0
    said = capsys.readouterr()
    assert f"Logs: {project}/sweep-train/log_*.txt" in said.out
    assert f'"table": "{project}/sweep-train/table.csv"' in said.err
    assert (project / "sweep-train" / "log_lr1.txt").read_text() == "accuracy=1\n"
    assert (project / "sweep-train").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["train.py", "."])
def test_a_script_that_others_can_change_or_add_modules_to_is_not_swept(project: Path, name: str) -> None:
    script = project / "scripts" / "train.py"
    script.parent.mkdir()
    script.write_text(f"open({str(project / 'ran')!r}, 'w')")
    folder = project / "sweep-train"
    folder.mkdir(mode=0o700)
    job.write_json(folder / "runs.json", {"script": str(script), "python": sys.executable, "runs": [{"lr": "1"}]})
    (script.parent / name).chmod(0o777)
    with pytest.raises(NotOwnError, match="everybody may write there"):
        sweep.main(["scripts/train.py", "--lr", "1"], Path("/run"), SETTINGS)
    with pytest.raises(NotOwnError, match="everybody may write there"):
        sweep.one(folder, 0)
    script.unlink()
    script.parent.chmod(0o755)
    with pytest.raises(RefusedError, match="cannot be read on") as refused:
        sweep.one(folder, 0)
    assert refused.value.status == NOT_SEEN
    assert not (project / "ran").exists()


def test_a_sweeps_log_that_leads_elsewhere_is_not_written(project: Path) -> None:
    folder = project / "sweep-train"
    folder.mkdir(mode=0o700)
    job.write_json(folder / "runs.json", {"script": str(project / "train.py"), "python": sys.executable, "runs": [{"lr": "1"}]})
    (project / "precious").write_text("precious")
    (folder / "log_lr1.txt").symlink_to(project / "precious")
    with pytest.raises(NotOwnError):
        sweep.one(folder, 0)
    assert (project / "precious").read_text() == "precious"


@pytest.mark.parametrize(
    "name, mode, owner, said",
    [
        ("before_hook.sh", 0o644, NOBODY, "before_hook.sh is not used, since it belongs to nobody"),
        ("lib/torch/__init__.py", 0o666, 0, r"__init__.py is not used, since everybody may write there"),
        ("lib", 0o777, 0, r"lib is not used, since everybody may write there"),
        (".", 0o1777, 0, r"own is not used, since everybody may write there"),
        (".", 0o755, NOBODY, r"own is not used, since it belongs to nobody"),
    ],
)
@pytest.mark.parametrize("part", ["workspace", "thirdparty"])
def test_what_others_may_have_put_into_what_is_shipped_is_refused(
    own: Path, tmp_path: Path, part: str, name: str, mode: int, owner: int, said: str
) -> None:
    (own / "lib" / "torch").mkdir(parents=True)
    (own / "lib" / "torch" / "__init__.py").touch()
    (own / "before_hook.sh").touch()
    (own / name).chmod(mode)
    os.chown(own / name, owner, -1)
    (tmp_path / "empty").mkdir()
    wanted = wish(own) if part == "workspace" else wish(tmp_path / "empty", thirdparty=own)
    with pytest.raises(NotOwnError, match=said):
        job.fill(job.new_folder("it", tmp_path), wanted, {})


def test_what_is_not_shipped_is_not_asked_about(own: Path, tmp_path: Path) -> None:
    (own / ".git").mkdir(mode=0o777)
    (own / ".git").chmod(0o777)
    (own / "data").symlink_to("/tmp")
    job.fill(job.new_folder("it", tmp_path), wish(own), {})


def test_a_job_is_not_put_where_everybody_could_replace_it(own: Path) -> None:
    own.chmod(0o777)
    with pytest.raises(NotOwnError, match=r"everybody may rename what is in"):
        job.new_folder("it", own)
    own.chmod(0o1777)
    assert job.new_folder("it", own).stat().st_mode & 0o777 == 0o700


def test_a_name_that_somebody_took_is_passed_over(own: Path) -> None:
    (own / "it-1").mkdir(mode=0o777)
    (own / "it-2").symlink_to("/tmp")
    assert job.new_folder("it", own) == own / "it-3"


@pytest.mark.parametrize("how", ["folder", "logs", "wish"])
def test_a_node_does_not_lead_a_job_from_a_folder_of_others(tmp_path: Path, own: Path, how: str) -> None:
    folder = job.new_folder("it", tmp_path)
    job.fill(folder, wish(own), {"cores_per_node": 1})
    os.chown({"folder": folder, "logs": folder / "logs", "wish": folder / job.WISH}[how], NOBODY, -1)
    with pytest.raises(NotOwnError):
        batch.main(folder, Path("/run"), here=True)
    assert list((folder / "logs").iterdir()) == []


def test_a_node_that_sees_somebody_elses_folder_of_the_same_name_keeps_away_from_it(tmp_path: Path) -> None:
    folder, scratch = tmp_path / "it-1", tmp_path / "scratch"
    for place in (folder, scratch):
        place.mkdir(mode=0o700)
        (place / job.WISH).write_text("{}")  # what is wished is easy to guess
        (place / job.WISH).chmod(0o644)
    assert node._seen(folder, scratch)
    for path, mode in ((folder, 0o777), (folder, 0o700), (folder / job.WISH, 0o666)):
        before = path.stat().st_mode
        path.chmod(mode)
        os.chown(path, NOBODY if mode == 0o700 else 0, -1)
        assert not node._seen(folder, scratch)
        path.chmod(before)
        os.chown(path, 0, -1)
    assert node._seen(folder, scratch)


def test_tensorboards_folder_that_leads_elsewhere_is_not_used(tmp_path: Path) -> None:
    logs, results, home = tmp_path / "logs", tmp_path / "results", tmp_path / "home"
    logs.mkdir(mode=0o1777)
    home.mkdir()
    (logs / "ada-train-1").symlink_to(home)  # and it is the user's own, where it leads
    assert node.tensorboard(logs, "ada-train-1", results) == results / "tensorboard"


@pytest.mark.parametrize("how", ["anothers", "pipe", "link"])
def test_a_lock_that_is_somebody_elses_is_refused(tmp_path: Path, how: str) -> None:
    lock = tmp_path / "lock"
    if how == "pipe":
        os.mkfifo(lock)
    elif how == "link":
        lock.symlink_to("/etc/passwd")
    else:
        lock.touch()
        os.chown(lock, NOBODY, -1)
    with pytest.raises(RefusedError, match="lock"):
        run_one.main(["true"], lock)


def test_a_job_speaks_into_its_own_log_alone(own: Path) -> None:
    (own / "precious").write_text("precious")
    (own / "job.log").symlink_to(own / "precious")
    with pytest.raises(NotOwnError):
        batch._speak_into(own / "job.log")
    (own / "job.log").unlink()
    (own / "job.log").write_text("before\n")
    reader = os.fork()
    if not reader:
        with contextlib.suppress(BaseException):
            batch._speak_into(own / "job.log")
            os.write(1, b"said\n")
            os.write(2, b"wrong\n")
        os._exit(0)
    os.waitpid(reader, 0)
    assert (own / "job.log").read_text() == "before\nsaid\nwrong\n"
    assert (own / "precious").read_text() == "precious"


@pytest.mark.parametrize(
    "code, said", [(NOT_OWN, "on node7 its folder, or what is in it, is somebody else's"), (NOT_SEEN, "node7 does not see its folder")]
)
def test_a_job_that_was_refused_on_its_node_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int, said: str) -> None:
    assert watch.ended("7", tmp_path, {"JobState": "FAILED", "ExitCode": f"{code}:0", "BatchHost": "node7"}) == code
    assert said in capsys.readouterr().out
