# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""A distribution of conda: downloads that go on, sums, installers that fail, upgrades under a running program. The installer is made up."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _conda_distribution as core

INSTALLER = """#!/bin/sh
# version @VERSION@
[ "$1 $2" = "-b -p" ] && [ ! -e "$3" ] || exit 1
mkdir -p "$3/bin" && env >"$3/environment" && umask >"$3/umask"
@HALFWAY@
printf '#!/bin/sh\\n[ ! -e %s.broken ] && echo conda @VERSION@\\n' "$3" >"$3/bin/conda"
cp "$(command -v sleep)" "$3/bin/python"
chmod 775 "$3/bin/conda"; echo channels >"$3/.condarc"; ln -s nowhere "$3/link"
"""


@dataclass
class Server:
    """A server of files in memory, which may misbehave.

    Attributes:
        files: content by path.
        asked: path and Range of each request.
        statuses: answers to be given before the right ones.
        cut: bytes after which the connection breaks, for so many requests.
        whole: whether it ignores Range.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    whole: bool = False
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on loopback."""
    here = Server()

    class Files(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            span = self.headers.get("Range", "")
            here.asked.append((self.path, span))
            here.logins.append(self.headers.get("Authorization", ""))
            if here.statuses:
                self.send_error(here.statuses.pop(0))
                return
            if self.path not in here.files:
                self.send_error(404)
                return
            data = here.files[self.path]
            first, _dash, last = ("" if here.whole else span).removeprefix("bytes=").partition("-")
            start = int(first or 0)
            if start >= len(data):
                self.send_error(416)
                return
            part = data[start : int(last) + 1 if last else None]
            self.send_response(206 if first else 200)
            if first:
                self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part[: here.cut.pop(0)] if here.cut else part)

        def log_message(self, *_words: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    here.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield here
    http.shutdown()
    http.server_close()


@pytest.fixture(autouse=True)
def _own_proxy_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(core.os, "sync", lambda: None)


@pytest.fixture
def places(tmp_path: Path) -> core.Places:
    """Empty places, whose store no other process of the tests has the name of: what is in use is known by it."""
    return core.Places(tmp_path / "conda", tmp_path / f"store-{os.getpid()}")


def wanted(places: core.Places, version: str = "1.0", halfway: str = "", **options: Any) -> core.Wanted:
    """Return a wish, whose installer lies in a file beside the places."""
    data = INSTALLER.replace("@VERSION@", version).replace("@HALFWAY@", halfway).encode()
    path = places.link.parent / f"Installer-{version}.sh"
    path.write_bytes(data)
    wish = core.Wanted("miniforge", version, path.name, hashlib.sha256(data).hexdigest(), (str(path),), len(data), 1000)
    return replace(wish, **options)


def served(places: core.Places, server: Server, **options: Any) -> core.Wanted:
    """Return a wish whose installer is on the server."""
    wish = wanted(places)
    server.files[f"/{wish.file}"] = Path(wish.sources[0]).read_bytes()
    return replace(wish, **{"sources": (f"{server.url}/{wish.file}",), **options})


def never(_seconds: float) -> None:
    """Do not wait."""


# --- Installing -------------------------------------------------------------------------------------------------------


def test_it_is_installed_and_then_nothing_is_to_be_done(places: core.Places) -> None:
    wish = wanted(places)
    assert core.actions(wish, places) == ["install miniforge-1.0", f"lead {places.link} to {places.prefix(wish)}"]
    core.apply(wish, places)
    assert core.actions(wish, places) == []
    assert os.readlink(places.link) == str(places.store / "miniforge-1.0")
    assert sorted(path.name for path in places.store.iterdir()) == [".lock", "miniforge-1.0"]
    assert json.loads((places.link / ".trainyard-conda.json").read_text()) == {
        "distribution": "miniforge",
        "version": "1.0",
        "sha256": wish.sha256,
    }


def test_nobody_else_may_write_to_it_and_its_own_settings_go(places: core.Places) -> None:
    core.apply(wanted(places), places)
    assert not list(places.store.rglob(".condarc"))
    assert (places.link / "bin" / "conda").stat().st_mode & 0o777 == 0o755
    assert (places.link / "umask").read_text() == "0022\n"


def test_the_installer_gets_a_home_of_its_own_and_nobodys_settings(places: core.Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDA_PKGS_DIRS", "/elsewhere")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    core.apply(wanted(places), places)
    environment = (places.link / "environment").read_text()
    assert "/elsewhere" not in environment
    assert f"HOME={places.downloads}/home\n" in environment


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_that_an_archive_gave_to_others_are_roots(places: core.Places) -> None:
    core.apply(wanted(places, halfway='touch "$3/given" && chown 4321:4321 "$3/given" && chmod 4777 "$3/given"'), places)
    state = (places.link / "given").stat()
    assert (state.st_uid, state.st_gid, state.st_mode & 0o777) == (0, 0, 0o755)


def test_an_installer_that_fails_says_why_and_leaves_nothing(places: core.Places) -> None:
    with pytest.raises(core.CondaDistributionError, match=r"^The installer of miniforge-1.0 failed with the exit status 3: ERROR: old$"):
        core.apply(wanted(places, halfway="echo 'ERROR: old' >&2; exit 3"), places)
    assert not places.link.is_symlink()
    assert core.versions(places) == []


def test_an_installer_that_is_killed_is_run_again(places: core.Places) -> None:
    killed = wanted(places, halfway='[ -e "$3/../was" ] || { touch "$3/../was"; kill -9 $$; }')
    with pytest.raises(core.CondaDistributionError, match="was killed by signal 9"):
        core.apply(killed, places)
    core.apply(killed, places)
    assert core.actions(killed, places) == []


@pytest.mark.parametrize("sabotage", ["rm {}/bin/conda", "touch {}.broken"])
def test_what_does_not_run_is_not_taken(places: core.Places, sabotage: str) -> None:
    wish = wanted(places)
    with open(wish.sources[0], "a", encoding="utf-8") as file:
        file.write(sabotage.format('"$3"') + "\n")
    wish = replace(wish, sha256=core.sha256_of(Path(wish.sources[0])))
    with pytest.raises(core.CondaDistributionError, match=r"left no bin/conda|conda of miniforge-1.0 failed with the exit status 1"):
        core.apply(wish, places)
    assert not places.link.is_symlink()


def test_what_has_no_seal_is_made_again(places: core.Places) -> None:
    wish = wanted(places)
    core.apply(wish, places)
    (places.link / core.SEAL).unlink()
    (places.link / "left").touch()
    assert core.actions(wish, places) == ["install miniforge-1.0 anew: it is not whole"]
    core.apply(wish, places)
    assert not (places.link / "left").exists()
    assert core.actions(wish, places) == []


def test_one_of_another_installer_is_made_again_unless_it_is_in_use(places: core.Places, monkeypatch: pytest.MonkeyPatch) -> None:
    core.apply(wanted(places), places)
    other = wanted(places, halfway="true")
    assert core.actions(other, places) == ["install miniforge-1.0 anew: it was made by another installer"]
    monkeypatch.setattr(core, "in_use", lambda _prefix: True)
    with pytest.raises(core.CondaDistributionError, match="programs run in it"):
        core.apply(other, places)
    assert (places.link / "bin" / "conda").exists()


def test_an_installer_dies_with_whoever_started_it(places: core.Places, tmp_path: Path) -> None:
    wish = wanted(places, halfway='mkfifo "$3/never"; echo $$ >"$3/../pid"; read -r line <>"$3/never"')
    parent = os.fork()
    if not parent:
        core.apply(wish, places)
        os._exit(0)
    pid = places.store / "pid"
    deadline = time.monotonic() + 20
    while not (pid.exists() and pid.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(parent, 9)
    os.waitpid(parent, 0)
    with core._alone(places.store, never):
        assert not Path("/proc", pid.read_text().strip(), "exe").exists()
    assert core.actions(wish, places)[0] == "install miniforge-1.0 anew: it is not whole"


# --- Upgrading and taking away ----------------------------------------------------------------------------------------


def test_an_upgrade_leaves_what_somebody_runs_and_removes_it_later(places: core.Places) -> None:
    core.apply(wanted(places), places)
    old, new = places.store / "miniforge-1.0", wanted(places, "2.0")
    with subprocess.Popen([str(places.link / "bin" / "python"), "60"]) as program:
        core.apply(new, places)
        assert os.readlink(places.link) == str(places.store / "miniforge-2.0")
        assert core.is_whole(old)
        assert core.actions(new, places) == []
        program.kill()
    assert core.actions(new, places) == [f"remove {old}, which is used no more"]
    core.apply(new, places)
    assert core.versions(places) == [places.store / "miniforge-2.0"]


def test_a_program_of_a_process_that_may_not_be_looked_at_is_in_use(places: core.Places, monkeypatch: pytest.MonkeyPatch) -> None:
    core.apply(wanted(places), places)
    prefix = places.store / "miniforge-1.0"
    monkeypatch.setattr(core, "_works_in", lambda _prefix, _process: False)
    with subprocess.Popen([str(prefix / "bin" / "python"), "60"]) as program:
        assert core.in_use(prefix)
        program.kill()
    assert not core.in_use(prefix)


def test_what_a_shell_has_activated_is_in_use(places: core.Places) -> None:
    core.apply(wanted(places), places)
    prefix = places.store / "miniforge-1.0"
    assert not core.in_use(prefix)
    with subprocess.Popen(["sleep", "60"], env={**os.environ, "CONDA_PREFIX": str(prefix)}) as shell:
        assert core.in_use(prefix)
        assert not core.in_use(prefix.with_name("miniforge-1"))
        shell.kill()


def test_an_interrupted_removal_leaves_nothing_that_looks_whole(places: core.Places, monkeypatch: pytest.MonkeyPatch) -> None:
    core.apply(wanted(places), places)

    def interrupt(*_words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", interrupt)
    with pytest.raises(KeyboardInterrupt):
        core.remove_version(places.store / "miniforge-1.0")
    assert core.actions(wanted(places), places) == ["install miniforge-1.0 anew: it is not whole"]


def test_all_is_taken_away_but_what_is_somebody_elses(places: core.Places, tmp_path: Path) -> None:
    core.apply(wanted(places), places)
    core.apply(wanted(places, "2.0"), places)
    (tmp_path / "conda.d" / "conda").mkdir(parents=True)
    ours, theirs = tmp_path / "conda.d" / "conda" / ".condarc", tmp_path / "other"
    ours.write_text("# Written by the role anaconda. ...\n")
    theirs.write_text("# mine\n")
    assert core.what_is_there(places, [ours, theirs]) == [
        f"remove {path}" for path in (places.link, places.store / "miniforge-2.0", places.store / ".lock", ours)
    ]
    core.remove(places, [ours, theirs])
    assert core.what_is_there(places, [ours, theirs]) == []
    assert not os.path.lexists(places.link)
    assert not places.store.exists()
    assert not ours.parent.exists()
    assert theirs.exists()


def test_another_folder_in_the_store_stays(places: core.Places) -> None:
    core.apply(wanted(places), places)
    (places.store / "mine").mkdir()
    core.remove(places)
    assert [path.name for path in places.store.iterdir()] == ["mine"]


def test_two_runs_wait_for_each_other(places: core.Places) -> None:
    order = []
    with core._alone(places.store):

        def second() -> None:
            with core._alone(places.store, lambda _seconds: time.sleep(0.01)):
                order.append("second")

        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.1)
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_one_that_never_ends_is_said(places: core.Places) -> None:
    said = pytest.raises(core.CondaDistributionError, match="Another run, or an installer that it left behind")
    with core._alone(places.store), said, core._alone(places.store, never):
        pass


# --- What is refused --------------------------------------------------------------------------------------------------


def test_what_is_somebody_elses_is_named(places: core.Places, tmp_path: Path) -> None:
    assert core.owner_problem(places) == ""
    places.link.mkdir()
    assert core.owner_problem(places).startswith(f"{places.link} is there already and is somebody else's. Nothing was done. Move it away,")
    places.link.rmdir()
    places.link.symlink_to(tmp_path)
    assert "leads elsewhere" in core.owner_problem(places)
    places.link.unlink()
    places.link.symlink_to(places.store / "miniforge-0.9")
    assert core.owner_problem(places) == "", "ours, though what it led to is gone"
    settings = tmp_path / ".condarc"
    settings.write_text("channels: [defaults]\n")
    assert "was not written by Trainyard" in core.owner_problem(places, [settings])
    settings.write_text("# Written by the role anaconda.\n")
    assert core.owner_problem(places, [settings]) == ""


def test_room_is_looked_at_before(places: core.Places) -> None:
    wish = wanted(places, installed=10**15, size=10**13)
    assert "GB free, but miniforge-1.0 takes 1000000.00 GB and its installer 10000.00 GB more" in core.room_problem(wish, places)
    assert core.room_problem(wanted(places), places) == ""
    core.apply(wanted(places), places)
    assert core.room_problem(wish, places) == "", "it is there already"


def test_a_source_is_asked_before(places: core.Places, server: Server) -> None:
    wish = served(places, server)
    assert core.source_problem(wish, places, never) == ""
    assert server.asked == [(f"/{wish.file}", "bytes=0-0")]
    server.statuses += [503, 503]
    assert core.source_problem(wish, places, never) == "", "it is up again"
    down = replace(wish, sources=("http://127.0.0.1:9/x.sh",))
    said = core.source_problem(down, places, never)
    assert said.startswith("The installer of miniforge-1.0 cannot be had. http://127.0.0.1:9/x.sh: Connection refused.")
    assert "anaconda_source" in said


def test_one_that_does_not_have_it_is_asked_once(places: core.Places, server: Server) -> None:
    wish = served(places, server, sources=(f"{server.url}/other.sh",))
    assert "other.sh: the server answered 404 Not Found" in core.source_problem(wish, places, never)
    assert len(server.asked) == 1


def test_a_wrong_sum_of_a_file_on_the_node_is_told_before(places: core.Places) -> None:
    wish = wanted(places, sha256="0" * 64)
    assert f"it has the SHA-256 {core.sha256_of(Path(wish.sources[0]))}, and {'0' * 64} is wanted" in core.source_problem(wish, places)
    assert "No such file" in core.source_problem(wanted(places, sources=("/nowhere/x.sh",)), places)
    core.apply(wanted(places), places)
    assert core.source_problem(replace(wanted(places), sources=("/nowhere/x.sh",)), places) == "", "it is not needed any more"


# --- Downloading ------------------------------------------------------------------------------------------------------


def test_a_download_goes_on_where_it_broke_off(places: core.Places, server: Server) -> None:
    wish = served(places, server)
    server.cut += [100, 50]
    assert core.fetch(wish, places, never).name == wish.file
    assert [span for _path, span in server.asked] == ["", "bytes=100-", "bytes=150-"]


def test_a_part_of_an_earlier_run_is_used(places: core.Places, server: Server) -> None:
    wish = served(places, server)
    places.downloads.mkdir(parents=True)
    part = places.downloads / f"{wish.file}.part"
    part.write_bytes(server.files[f"/{wish.file}"][:200])
    core.fetch(wish, places, never)
    assert server.asked == [(f"/{wish.file}", "bytes=200-")]
    assert not part.exists()


def test_a_part_that_is_the_whole_is_known_by_its_sum(places: core.Places, server: Server) -> None:
    wish = served(places, server)
    places.downloads.mkdir(parents=True)
    part = places.downloads / f"{wish.file}.part"
    part.write_bytes(server.files[f"/{wish.file}"])
    assert core.fetch(wish, places, never).read_bytes() == server.files[f"/{wish.file}"]


def test_a_spoilt_part_is_thrown_away(places: core.Places, server: Server) -> None:
    wish = served(places, server)
    places.downloads.mkdir(parents=True)
    for spoilt in (b"x" * 200, b"x" * 100_000):
        (places.downloads / f"{wish.file}.part").write_bytes(spoilt)
        core.fetch(wish, places, never).unlink()
    assert [span for _path, span in server.asked] == ["bytes=200-", "", "bytes=100000-", ""]


def test_a_server_that_knows_no_parts_is_read_from_the_start(places: core.Places, server: Server) -> None:
    wish = served(places, server)
    server.whole = True
    server.cut += [100]
    core.fetch(wish, places, never)
    assert [span for _path, span in server.asked] == ["", "bytes=100-"]


def test_a_wrong_sum_is_said_with_both_and_the_file_is_deleted(places: core.Places, server: Server) -> None:
    wish = served(places, server, sha256="1" * 64)
    right = hashlib.sha256(server.files[f"/{wish.file}"]).hexdigest()
    with pytest.raises(core.CondaDistributionError) as caught:
        core.apply(replace(wish, sources=(wish.sources[0].replace("//", "//user:secret@"),)), places)
    for part in (right, "1" * 64, f"{server.url}/{wish.file}", "anaconda_source", "anaconda_installer", "not run"):
        assert part in str(caught.value)
    assert "secret" not in str(caught.value)
    assert list(places.downloads.iterdir()) == []
    assert core.versions(places) == []


def test_the_next_source_is_asked_and_the_first_again(places: core.Places, server: Server) -> None:
    wish = served(places, server)
    two = replace(wish, sources=(f"{server.url}/no.sh", wish.sources[0]))
    server.statuses += [500, 500]
    core.fetch(two, places, never)
    assert [path for path, _span in server.asked] == ["/no.sh", f"/{wish.file}", "/no.sh", f"/{wish.file}"]


def test_a_source_that_stays_down_is_said_and_what_came_is_kept(places: core.Places, server: Server) -> None:
    wish = served(places, server)
    server.cut += [100]
    server.files["/x"] = b""
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        server.statuses += [503]

    with pytest.raises(core.CondaDistributionError, match=r"the server answered 503 .* the next run goes on from there"):
        core.fetch(wish, places, wait)
    assert waits == [2, 4, 8]
    assert (places.downloads / f"{wish.file}.part").stat().st_size == 100


def test_a_user_and_password_go_to_their_server_alone(places: core.Places, server: Server) -> None:
    wish = served(places, server)
    core.fetch(replace(wish, sources=(wish.sources[0].replace("//", "//user:secret@"),)), places, never)
    assert server.logins == ["Basic dXNlcjpzZWNyZXQ="]


def test_a_proxy_is_asked(places: core.Places, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    wish = served(places, server)
    server.files[f"http://files.example.org/{wish.file}"] = server.files[f"/{wish.file}"]
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    core.fetch(replace(wish, sources=(f"http://files.example.org/{wish.file}",)), places, never)
    assert server.asked == [(f"http://files.example.org/{wish.file}", "")]


def test_a_full_disk_is_said(places: core.Places, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_words: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(core, "_receive", full)
    with pytest.raises(core.CondaDistributionError, match=r"is full. Make room there, or set anaconda_store"):
        core.fetch(served(places, server), places, never)


def test_an_installer_that_was_fetched_is_looked_at_again(places: core.Places, server: Server) -> None:
    wish = served(places, server)
    core.fetch(wish, places, never)
    core.fetch(wish, places, never)
    assert len(server.asked) == 1
    (places.downloads / wish.file).write_text("altered")
    core.fetch(wish, places, never)
    assert len(server.asked) == 2
