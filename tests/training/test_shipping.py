"""What is shipped is described before it is packed, is no more than wanted, lies on the disk once, and is gone when the job has ended."""

from __future__ import annotations

import os
import pty
import subprocess
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from trainyard_training import commands, job, packing
from trainyard_training.errors import INTERRUPTED, NOT_SEEN, RefusedError

from tests.training.test_job import wish

SETTINGS = {"environments": "/nowhere/envs", "tensorboard": "/srv/tensorboard", "samples": "/s", "lock": "/l", "shared": "/"}
WORDS = ["--framework", "keras", "--config", "train.py"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace, which is the present folder, and stand-ins for Slurm's commands, which note that they were called."""
    folder, programs = tmp_path / "work", tmp_path / "programs"
    folder.mkdir()
    programs.mkdir()
    (folder / "train.py").write_text("print(1)")
    for name, script in {
        "sinfo": "printf 'main|1:00:00|2|4|(null)|up|main*\\n'",
        "sbatch": "echo 7",
        "squeue": "echo 7",
        "srun": "echo welcome; echo trainyard: keras; echo trainyard: pytorch",
    }.items():
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/called\n{script}\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.chdir(folder)
    return folder


def cluster_train(*words: str) -> int:
    return commands.main(["cluster_train", *WORDS, *words], Path("/run"), SETTINGS)


def made(work: Path, files: str) -> None:
    for name in files.split():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text("x")


def shipped(work: Path) -> set[str]:
    return {path for path in packing.scan("workspace", work, job.is_results).members if not (work / path).is_dir()}


def test_the_defaults_leave_environments_and_results_out_and_a_pattern_brings_one_back(work: Path) -> None:
    made(
        work,
        "venv/a .venv/a env/pyvenv.cfg env/a outputs/a wandb/a checkpoints/a __pycache__/a .git/a pkg/outputs/a pkg/checkpoints/a b.ckpt",
    )
    assert shipped(work) == {"train.py", "pkg/outputs/a", "pkg/checkpoints/a", "b.ckpt"}
    assert packing.scan("workspace", work, job.is_results).left_out == ("checkpoints/", "env/", "outputs/", "venv/", "wandb/")
    (work / ".trainyardignore").write_text("*.ckpt\n!outputs/\n!env/\npkg\n")
    found = packing.scan("workspace", work, job.is_results)
    assert {*found.members} >= {"outputs/a", "env/a"}
    assert not {*found.members} & {"b.ckpt", "pkg", "pkg/outputs/a"}
    assert found.left_out == ("checkpoints/", "venv/", "wandb/"), "what the user's own file leaves out is no surprise"


def test_a_third_party_folder_is_shipped_but_for_caches(work: Path) -> None:
    made(work, "venv/a checkpoints/a __pycache__/a .git/a")
    members = packing.scan("thirdparty", work, job.is_results).members
    assert {"venv/a", "checkpoints/a"} < {*members}
    assert not {"__pycache__", ".git"} & {*members}


def test_results_of_jobs_and_sweeps_are_not_shipped(work: Path) -> None:
    made(work, "it-1/job.json it-1/checkpoints/a sweep-train/runs.json sweep-train/log_a.txt sweep-mine/a.py")
    assert shipped(work) == {"train.py", "sweep-mine/a.py"}


def test_number_and_size_are_described_and_above_a_gigabyte_the_largest_folders(work: Path) -> None:
    made(work, "lib/a data/b")
    assert packing.scan("workspace", work, job.is_results).lines() == [f"Ships {work}: 3 files, 10 bytes"]
    for name, size in (("lib/a", 5_300_000_000), ("data/b", 100_000_000)):
        os.truncate(work / name, size)
    (line,) = packing.scan("workspace", work, job.is_results).lines()
    assert line == f"Ships {work}: 3 files, 5.4 GB: lib/ 5.3 GB, data/ 100 MB"


def test_a_dry_run_describes_it_all_and_leaves_nothing(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(work, "venv/a")
    (work / "data").symlink_to("../elsewhere")
    assert cluster_train("--dry-run") == 0
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        f"Ships {work}: 2 files, 8 bytes",
        f"Left out: venv/. To ship one, write !venv/ into {work}/.trainyardignore.",
        f"Links that lead out of it: data -> {work.parent}/elsewhere. Each node needs what they lead to, at the same path.",
    ]
    assert said.out.startswith("sbatch ")
    assert not list(work.glob("train-*"))


def test_links_lead_where_they_led_before(work: Path, tmp_path: Path) -> None:
    made(work, "d/a")
    os.link(work / "d" / "a", work / "d" / "same")
    for name, target in {"out": "../x", "d/out": "../../y", "d/absolute": "/srv/data", "inside": f"{work}/d/a", "d/near": "a"}.items():
        (work / name).symlink_to(target)
    folder = job.new_folder("it", tmp_path)
    job.fill(folder, wish(work), {})
    subprocess.run(["tar", "-xf", folder / "workspace.tar", "-C", folder / "logs"], check=True)
    got = {path: str((folder / "logs" / path).readlink()) for path in ("out", "d/out", "d/absolute", "inside", "d/near")}
    assert got == {"out": f"{tmp_path}/x", "d/out": f"{tmp_path}/y", "d/absolute": "/srv/data", "inside": "d/a", "d/near": "a"}
    assert (folder / "logs/d/same").read_text() == "x", "a second name of the same file"


def test_a_script_that_is_left_out_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(work, "outputs/late.py")
    assert cluster_train("--config", "outputs/late.py") == 64
    assert f"write into {work}/.trainyardignore: !outputs" in capsys.readouterr().err


@pytest.mark.parametrize("name, status", [("kears", 64), ("pytorch", 0), ("keras", 0)])
def test_an_unknown_environment_is_refused_before_anything_is_shipped(
    work: Path, capsys: pytest.CaptureFixture[str], name: str, status: int
) -> None:
    assert cluster_train("--environment", name) == status
    said = capsys.readouterr().err
    if status:
        assert "--environment: the nodes have no environment 'kears'. Did you mean 'keras'? They have: keras, pytorch." in said
        assert "Ships" not in said
    assert len(list(work.glob("train-*"))) == (not status)


def test_where_no_node_is_free_to_answer_the_job_is_submitted(work: Path) -> None:
    (work.parent / "programs" / "srun").write_text("#!/bin/sh\nexit 1")
    assert cluster_train("--environment", "other") == 0
    (work.parent / "called").unlink()
    assert cluster_train() == 0
    assert "srun" not in (work.parent / "called").read_text(), "nobody is asked about the framework's own environment"


def test_a_third_party_folder_lies_on_the_disk_once_for_all_jobs_and_then_no_more(work: Path) -> None:
    made(work, "lib/a")
    third = ("--thirdparty", "lib", "--job-name", "it")
    assert [cluster_train(*third), cluster_train(*third)] == [0, 0]
    tars = [work / f"it-{number}" / "thirdparty.tar" for number in (1, 2, 3)]
    assert tars[0].samefile(tars[1])
    assert tars[0].stat().st_mode & 0o777 == 0o600
    (work / "lib" / "a").write_text("y")
    assert cluster_train(*third) == 0
    assert not tars[0].samefile(tars[2])
    job.discard(work / "it-1")
    with tarfile.open(tars[1]) as archive:
        assert archive.getnames() == [".", "./a"]
    job.discard(work / "it-2")
    job.discard(work / "it-3")
    assert not list(work.glob("*/*.tar"))


def test_a_third_party_folder_in_the_workspace_is_shipped_once_and_is_found_in_both_places(work: Path, tmp_path: Path) -> None:
    made(work, "deep/lib/a deep/b")
    folder, node = job.new_folder("it", tmp_path), tmp_path / "node"
    job.fill(folder, wish(work, thirdparty=work / "deep" / "lib"), {})
    for name in job.PARTS:
        (node / name).mkdir(parents=True)
        subprocess.run(["tar", "-xf", folder / f"{name}.tar", "-C", node / name], check=True)
    assert (node / "workspace/deep/lib").readlink() == Path("../../thirdparty")
    assert (node / "workspace/deep/lib/a").read_text() == "x"
    assert [path.name for path in node.rglob("a")] == ["a"], "one copy"


def test_an_archive_that_somebody_else_could_change_is_not_shared(work: Path, tmp_path: Path) -> None:
    for how in ("folder", "file"):
        first, second = job.new_folder(how, tmp_path), job.new_folder(how, tmp_path)
        job.fill(first, wish(work), {})
        os.chown(first if how == "folder" else first / "workspace.tar", 65534, -1)
        job.fill(second, wish(work), {})
        assert not (first / "workspace.tar").samefile(second / "workspace.tar")


def test_what_a_job_shipped_that_never_began_goes_with_the_next_one(work: Path) -> None:
    for number in ("5", "7"):
        (work.parent / "programs" / "sbatch").write_text(f"#!/bin/sh\necho {number}")
        assert cluster_train("--job-name", f"it{number}") == 0
    assert cluster_train() == 0  # squeue knows job 7 alone
    assert sorted(path.parent.name for path in work.glob("*/workspace.tar")) == ["it7-1", "train-1"]
    (work.parent / "programs" / "squeue").write_text("#!/bin/sh\nexit 1")
    assert cluster_train() == 0
    assert len(list(work.glob("*/workspace.tar"))) == 3, "nobody knows what has ended"


def test_a_job_that_starts_after_its_end_says_what_is_missing(work: Path) -> None:
    folder = job.new_folder("it", work)
    job.fill(folder, wish(work), {"cores_per_node": 1})
    job.discard(folder)
    with pytest.raises(RefusedError, match="Submit it again") as refused:
        job.snapshot(folder)
    assert refused.value.status == NOT_SEEN


def test_no_room_is_said_before_the_disk_is_full(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    os.truncate(work / "train.py", 10**12)
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=2 * 10**9))
    assert cluster_train() == 64
    assert f"1 TB are to be shipped, and {work} has 2 GB free. Leave something out with .trainyardignore" in capsys.readouterr().err
    assert not list(work.glob("train-*"))


def test_an_interrupted_submission_leaves_nothing(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_words: object, **_more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tarfile.TarFile.add", interrupted)
    assert cluster_train() == INTERRUPTED
    assert "cluster_train: interrupted" in capsys.readouterr().err
    assert not list(work.glob("train-*"))
    assert "sbatch" not in (work.parent / "called").read_text()


def test_progress_is_for_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PERIOD", 0)
    ours, theirs = pty.openpty()
    with open(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        progress = packing.Progress(4_000_000_000)
        progress.show(1_000_000_000)
        progress.before = 4_000_000_000
        progress.show(10_000)
        progress.end()
        assert os.read(ours, 1000) == b"\rPacked 1 GB of 4 GB (25 %) \rPacked 4 GB of 4 GB (100 %) \r\x1b[K"
    os.close(ours)


@pytest.mark.parametrize(
    "size, words", [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (999_999, "1000 kB"), (5_432_100_000, "5.43 GB")]
)
def test_sizes_are_readable(size: int, words: str) -> None:
    assert packing.amount(size) == words
