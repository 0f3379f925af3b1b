# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Tests of what an environment file and an explicit lock ask for, and of what is at a prefix; nothing is installed here."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _conda_worker
from ansible_collections.trainyard.core.plugins.module_utils._conda_env import (
    MARKER,
    Channels,
    CondaEnvError,
    Environment,
    Request,
    Settings,
    exported,
    from_environment,
    from_explicit,
)

SHA, MD5 = "ab" * 32, "cd" * 16
URL = "https://conda.anaconda.org/conda-forge/linux-64/libfoo-bar-1.2.3-h1_4.conda"


@pytest.mark.parametrize(
    ("names", "urls"),
    [
        (["conda-forge"], ["https://conda.anaconda.org/conda-forge"]),
        ([], ["https://conda.anaconda.org/conda-forge"]),
        (["pytorch", "nodefaults"], ["https://mirror.example.org/cloud/pytorch"]),
        (["defaults"], ["https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r"]),
        (["https://example.org/x/", "/srv/channel"], ["https://example.org/x", "file:///srv/channel"]),
    ],
)
def test_where_channels_lie(names, urls):
    """A name leads where conda would look for it."""
    assert Channels(custom={"pytorch": "https://mirror.example.org/cloud/"}).urls(names) == urls


def test_defaults_are_refused_where_nobody_accepted_their_terms():
    """The message says how they can be had."""
    with pytest.raises(CondaEnvError, match="anaconda_accept_terms"):
        from_environment({"channels": ["defaults"], "dependencies": ["python"]}, Channels(defaults=()), exact=False)


def test_an_environment_file():
    """All its parts are taken."""
    said = {
        "name": "paper",
        "channels": ["conda-forge"],
        "dependencies": ["python=3.12", " numpy >=2 ", {"pip": ["requests==2.32.5"]}],
        "variables": {"THREADS": 4},
        "prefix": "/home/alice/paper",
    }
    request = from_environment(said, Channels(), exact=True)
    assert request.specs == ("python=3.12", "numpy >=2")
    assert request.pip == ("requests==2.32.5",)
    assert request.variables == {"THREADS": "4"}
    assert request.exact
    # Its name and where it was are nothing that makes it another one.
    assert request.digest == from_environment({**said, "name": "x", "prefix": "/x"}, Channels(), exact=True).digest
    assert request.digest != from_environment(said, Channels(), exact=False).digest
    assert request.digest != from_environment(said, Channels(alias="https://mirror.example.org"), exact=True).digest


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"dependancies": ["x"]}, ["dependancies", "dependencies"]),
        ({}, ["dependencies has to be a list"]),
        ({"dependencies": []}, ["dependencies is empty"]),
        ({"dependencies": "python"}, ["dependencies has to be a list"]),
        ({"dependencies": [3.11]}, ["3.11", "dependencies"]),
        ({"dependencies": [{"npm": ["x"]}]}, ["npm"]),
        ({"dependencies": ["python"], "channels": "conda-forge"}, ["channels has to be a list"]),
        ({"dependencies": ["python", {"pip": ["-r more.txt"]}]}, ["-r more.txt", "no options"]),
        ({"dependencies": ["python", {"pip": ["./here"]}]}, ["./here"]),
        ({"dependencies": [{"pip": ["requests"]}]}, ["no python"]),
        ({"dependencies": ["python-dateutil", {"pip": ["requests"]}]}, ["no python"]),
        ({"dependencies": ["python"], "variables": ["A=1"]}, ["variables"]),
    ],
)
def test_what_no_environment_file_is(said, words):
    """The message names the key and what would be right."""
    with pytest.raises(CondaEnvError) as refused:
        from_environment(said, Channels(), exact=False)
    assert all(word in str(refused.value) for word in ["environment", *words])


@pytest.mark.parametrize("spec", ["python", "python=3.12", "python >=3.10", "conda-forge::python=3.12"])
def test_a_python_for_pip_is_known_however_it_is_written(spec):
    """Where pip has a part, Python has to be in the environment."""
    assert from_environment({"dependencies": [spec, {"pip": ["x"]}]}, Channels(), exact=False).pip == ("x",)


def test_an_explicit_lock():
    """Sums of both kinds are taken."""
    text = f"# created by conda\n# platform: linux-64\n@EXPLICIT\n{URL}#{MD5}\n{URL}#sha256:{SHA}\n\n{URL}#{SHA}\n"
    sums = [(entry["sha256"], entry["md5"]) for entry in from_explicit(text, exact=True).explicit]
    assert sums == [("", MD5), (SHA, ""), (SHA, "")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{URL}#{SHA}", ["@EXPLICIT"]),
        ("@EXPLICIT\n", ["no package"]),
        ("@EXPLICIT\nhttps://user:secret@example.org/x.zip#" + SHA, ["https://example.org/x.zip", "no URL"]),
        (f"@EXPLICIT\n{URL}", ["no checksum"]),
        (f"@EXPLICIT\n{URL}#1234", ["no checksum"]),
    ],
)
def test_what_no_explicit_lock_is(text, words):
    """The message names the line, without a password that may be in it."""
    with pytest.raises(CondaEnvError) as refused:
        from_explicit(text, exact=False)
    assert all(word in str(refused.value) for word in ["explicit", *words])
    assert "secret" not in str(refused.value)


def test_the_parts_of_a_packages_url():
    """Names may have hyphens."""
    assert _conda_worker.split(URL)[1:] == ("linux-64", "libfoo-bar-1.2.3-h1_4.conda", "libfoo-bar", "1.2.3", "h1_4")


@pytest.mark.parametrize(
    ("text", "kind"),
    [("failed: No space left on device (os error 28)", "disk"), ("hash mismatch: expected 1", "package"), ("whatever", "other")],
)
def test_kinds_of_trouble(text, kind):
    """What a person can do depends on it."""
    assert _conda_worker.kind_of(RuntimeError(text)) == kind


def settings(**more):
    """Return settings without tools."""
    return Settings(tools="/nonexistent", cache="/nonexistent", **more)


def prefix_with(folder, content=b"text"):
    """Make a prefix of one package."""
    (folder / "conda-meta").mkdir(parents=True)
    (folder / "conda-meta" / "history").touch()
    (folder / "share").mkdir()
    (folder / "share" / "x").write_bytes(content)
    paths = [{"_path": "share/x", "path_type": "hardlink", "sha256": hashlib.sha256(b"text").hexdigest()}]
    record = {"name": "foo", "version": "1", "build": "0", "channel": "https://example.org/c/", "url": URL, "sha256": SHA}
    (folder / "conda-meta" / "foo-1-0.json").write_text(json.dumps({**record, "paths_data": {"paths": paths}}))
    return folder


def test_where_an_environment_may_be_made(tmp_path):
    """A free place, ours, or one that is taken over on purpose."""
    assert Environment(str(tmp_path / "new"), settings()).problem() == ""
    (tmp_path / "empty").mkdir()
    assert Environment(str(tmp_path / "empty"), settings()).problem() == ""
    (tmp_path / "file").write_text("")
    assert "no folder" in Environment(str(tmp_path / "file"), settings()).problem()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("")
    assert "no conda environment" in Environment(str(tmp_path / "folder"), settings()).problem()
    users = prefix_with(tmp_path / "users")
    assert "adopt" in Environment(str(users), settings()).problem()
    assert Environment(str(users), settings(adopt=True)).problem() == ""
    (users / MARKER).write_text('{"owner": "framework_env", "complete": true}')
    assert "another kind" in Environment(str(users), settings(adopt=True)).problem()


def test_variables_of_somebody_elses_stay_unless_it_has_to_be_exact(tmp_path):
    """As packages do."""
    prefix = prefix_with(tmp_path / "paper")
    (prefix / "conda-meta" / "state").write_text('{"version": 1, "env_vars": {"THEIRS": "1", "OURS": "old"}}')
    environment = Environment(str(prefix), settings())
    wanted = {"variables": {"OURS": "new"}}
    assert environment._variables_wanted(Request(**wanted)) == {"THEIRS": "1", "OURS": "new"}
    assert environment._variables_wanted(Request(**wanted, exact=True)) == {"OURS": "new"}


def test_damage_is_found(tmp_path):
    """By contents; a file that is gone counts too."""
    assert Environment(str(prefix_with(tmp_path / "sound")), settings()).damaged() == []
    assert Environment(str(prefix_with(tmp_path / "changed", b"other")), settings()).damaged() == ["foo"]
    (prefix_with(tmp_path / "gone") / "share" / "x").unlink()
    assert Environment(str(tmp_path / "gone"), settings()).damaged() == ["foo"]


def test_only_what_is_ours_is_removed(tmp_path):
    """Check mode removes nothing."""
    users = prefix_with(tmp_path / "users")
    with pytest.raises(CondaEnvError, match="stays"):
        Environment(str(users), settings()).remove(dry=False)
    (users / MARKER).write_text('{"owner": "conda_env", "complete": true}')
    assert Environment(str(users), settings()).remove(dry=True) == ["remove it"]
    assert users.is_dir()


def test_without_the_tools_little_can_be_said(tmp_path):
    """They come later in the same run; channels and disks are looked at all the same."""
    new = str(tmp_path / "new")
    assert Environment(new, settings()).check(Request(specs=("python",))) == ["create it"]
    with pytest.raises(CondaEnvError, match=r"new will take about 1000000\.0 GB\. Make room there"):
        Environment(new, settings(size=10**15)).check(Request(specs=("python",)))
    channel = tmp_path / "channel" / "noarch"
    channel.mkdir(parents=True)
    (channel / "repodata.json").write_text('{"packages": {"caffe-1.0-0.tar.bz2": {"name": "caffe"}}}')
    wish = Request(specs=("caffe=1.0",), channels=(f"file://{channel.parent}",))
    assert Environment(new, settings()).check(wish) == ["create it"]
    with pytest.raises(CondaEnvError, match=r"channel has no python\. Other channels, or a mirror, may be named by some_mirror\."):
        Environment(new, settings(places="some_mirror")).check(Request(("caffe", "python=3.6"), wish.channels))


def test_owners_leave_each_others_alone(tmp_path):
    """A role's undo and another role's wishes."""
    prefix = prefix_with(tmp_path / "paper")
    (prefix / MARKER).write_text('{"owner": "conda_env", "role": "anaconda", "complete": true}')
    other = Environment(str(prefix), settings(owner="framework_env"))
    assert "kept by anaconda" in other.problem()
    assert other.remove(dry=False) == []
    assert Environment(str(prefix), settings(owner="anaconda")).problem() == ""
    (prefix / MARKER).write_text('{"owner": "frozen_root", "complete": true}')
    assert Environment(str(prefix), settings(owner="anaconda")).remove(dry=False) == []
    assert "state: absent" in Environment(str(prefix), settings()).problem()


SHELLS = [shell for shell in ("bash", "dash", "zsh") if shutil.which(shell)]


@pytest.mark.parametrize("shell", SHELLS)
def test_it_is_activated_and_left_as_a_venv_is(tmp_path, shell):
    """Scripts of its packages are run, variables are set; afterwards all is as before, also what was active before."""
    prefix = prefix_with(tmp_path / "pa per")
    for kind, word in (("activate", "in"), ("deactivate", "out")):
        scripts = prefix / "etc" / "conda" / f"{kind}.d"
        scripts.mkdir(parents=True)
        for name in ("one", "two"):
            (scripts / f"{name}.sh").write_text(f'echo "{word} {name} $CONDA_DEFAULT_ENV"\n')
    (prefix / "conda-meta" / "state").write_text('{"version": 1, "env_vars": {"PAPER": "a b"}}')
    (prefix / "bin").mkdir()
    script = tmp_path / "activate"
    script.write_text(Environment(str(prefix), settings(about={"kind": "framework"}))._activation())
    told = 'echo "$PATH|$CONDA_PREFIX|${PAPER-none}"'
    words = f". '{script}'; {told}; . '{script}'; {told}; deactivate; {told}; command -v deactivate || echo gone"
    before = {"PATH": "/usr/bin:/bin", "CONDA_PREFIX": "/base"}
    done = subprocess.run([shell, "-euc", words], env=before, capture_output=True, text=True, check=False)
    within = f"{prefix}/bin:/usr/bin:/bin|{prefix}|a b"
    come, go = ["in one pa per", "in two pa per"], ["out two pa per", "out one pa per"]
    assert done.stderr == ""
    assert done.stdout.splitlines() == [*come, within, *go, *come, within, *go, "/usr/bin:/bin|/base|none", "gone"]


def test_an_export(tmp_path):
    """What no conda environment is has none."""
    told = exported(str(prefix_with(tmp_path / "paper")))
    assert told["environment"] == "name: paper\nchannels:\n  - https://example.org/c\ndependencies:\n  - foo=1=0\n"
    assert told["explicit"] == f"@EXPLICIT\n{URL}#{SHA}\n"
    with pytest.raises(CondaEnvError, match="no conda environment"):
        exported(str(tmp_path))
