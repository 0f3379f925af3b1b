"""What is installed against what is locked, on made-up environments; captured words of uv and pip."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _python_env as core
from ansible_collections.trainyard.core.plugins.module_utils._package_lock import PythonEnvError, parse_lock

HASH = "--hash=sha256:" + "0" * 64
VERSION = "3.11"
Make = Callable[..., Path]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An empty folder of packages."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    return folder


def install(site: Path, name: str, version: str, files: dict[str, str] | None = None) -> Path:
    """Put a package in place as an installer does, and return its dist-info folder."""
    files = files if files is not None else {f"{name}/__init__.py": f"# {name} {version}\n"}
    info = f"{name}-{version}.dist-info"
    record = []
    for path, content in {**files, f"{info}/METADATA": f"Name: {name}\nVersion: {version}\n"}.items():
        target = site / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        shown = f'"{path}"' if "," in path else path
        record.append(f"{shown},sha256={digest},{len(content.encode())}")
    record.append(f"{info}/RECORD,,")
    (site / info / "RECORD").write_text("\n".join(record) + "\n")
    return site / info


def lock(*pins: str) -> str:
    return "".join(f"{pin} {HASH} # 1000\n" for pin in pins)


def differences(site: Path, text: str, since_ns: int | None = None) -> list[str]:
    found, strays = core.scan(str(site), time.time_ns() if since_ns is None else since_ns)
    return core.compare(parse_lock(text), found, strays).lines()


class TestLock:
    def test_a_line_gives_name_version_and_size(self) -> None:
        pins = parse_lock(f"# a comment\nScikit_Learn==1.9.1 {HASH} # 1234\n\ntorch==2.13.0+cpu {HASH}\n")
        assert [(pin.name, pin.version, pin.size) for pin in pins.values()] == [("scikit-learn", "1.9.1", 1234), ("torch", "2.13.0+cpu", 0)]
        assert pins["scikit-learn"].line == f"Scikit_Learn==1.9.1 {HASH}"
        assert pins["torch"].exact == f"torch===2.13.0+cpu {HASH}"

    def test_pips_own_form_over_several_lines_is_read_too(self) -> None:
        assert parse_lock(f"six==1.17.0 \\\n    {HASH} \\\n    {HASH}\n")["six"].version == "1.17.0"

    @pytest.mark.parametrize(
        "line", ["six", "six>=1", "six==1.17.0", f"six==1.17.0 ; python_version<'3' {HASH}", "-e .", "--index-url http://x"]
    )
    def test_what_is_not_exact_is_refused(self, line: str) -> None:
        with pytest.raises(PythonEnvError, match=r"is not of the form name==version --hash=sha256:"):
            parse_lock(line)


class TestScan:
    def test_as_locked(self, site: Path) -> None:
        install(site, "six", "1.17.0", {"six.py": "x = 1\n"})
        install(site, "scikit_learn", "1.9.1", {"sklearn/__init__.py": "", "sklearn/a,b.py": "1\n", "../bin/tool": "#!\n"})
        (site / "__pycache__").mkdir()
        assert differences(site, lock("six==1.17.0", "scikit-learn==1.9.1")) == []

    def test_versions_with_a_local_part_are_the_same_however_a_folder_spells_them(self, site: Path) -> None:
        install(site, "torch", "2.13.0+cpu")
        install(site, "other", "1.0+a_b")
        assert differences(site, lock("torch==2.13.0+cpu", "other==1.0+a.b")) == []

    def test_a_stray_package_goes(self, site: Path) -> None:
        install(site, "six", "1.17.0")
        install(site, "left_pad", "0.1")
        assert differences(site, lock("six==1.17.0")) == ["remove left-pad 0.1"]

    def test_a_missing_package_comes(self, site: Path) -> None:
        assert differences(site, lock("six==1.17.0")) == ["add six 1.17.0"]

    def test_another_version_is_changed(self, site: Path) -> None:
        install(site, "six", "1.16.0")
        assert differences(site, lock("six==1.17.0")) == ["change six 1.16.0 to 1.17.0"]

    def test_a_missing_file_is_repaired(self, site: Path) -> None:
        install(site, "six", "1.17.0", {"six.py": "x\n", "six_b.py": "y\n"})
        (site / "six.py").unlink()
        (site / "six_b.py").unlink()
        assert differences(site, lock("six==1.17.0")) == ["repair six: six.py is missing, and 1 more"]

    def test_a_cut_file_is_repaired(self, site: Path) -> None:
        install(site, "six", "1.17.0", {"six.py": "x = 1\n"})
        (site / "six.py").write_text("")
        assert differences(site, lock("six==1.17.0")) == ["repair six: six.py has 0 bytes instead of 6"]

    def test_a_file_of_the_same_size_is_read_only_where_it_is_younger(self, site: Path) -> None:
        install(site, "six", "1.17.0", {"six.py": "x = 1\n"})
        (site / "six.py").write_text("x = 2\n")
        assert differences(site, lock("six==1.17.0"), since_ns=0) == ["repair six: six.py has another content"]
        assert differences(site, lock("six==1.17.0"), since_ns=time.time_ns() + 10**9) == []

    def test_a_younger_file_with_the_recorded_content_is_sound(self, site: Path) -> None:
        install(site, "six", "1.17.0", {"six.py": "x = 1\n"})
        assert differences(site, lock("six==1.17.0"), since_ns=0) == []

    def test_a_package_whose_list_of_files_is_gone_is_repaired(self, site: Path) -> None:
        (install(site, "six", "1.17.0", {"six.py": "x\n"}) / "RECORD").unlink()
        found, strays = core.scan(str(site), time.time_ns())
        plan = core.compare(parse_lock(lock("six==1.17.0")), found, strays)
        assert plan.repair == {"six": "its list of files is gone"}
        assert (plan.leftovers, plan.strays) == (["six-1.17.0.dist-info"], ["six.py"])

    def test_half_a_package_without_its_info_belongs_to_nobody(self, site: Path) -> None:
        (site / "numpy").mkdir()
        (site / "~umpy").mkdir()
        assert differences(site, "") == ["remove numpy, which belongs to no package", "remove ~umpy, which belongs to no package"]

    def test_a_package_that_is_there_twice_is_repaired(self, site: Path) -> None:
        install(site, "six", "1.16.0")
        install(site, "six", "1.17.0")
        assert differences(site, lock("six==1.17.0")) == ["repair six: it is installed twice, as 1.16.0 and 1.17.0"]

    @pytest.mark.parametrize(
        "done, said",
        [
            ("nothing", []),
            ("removed", ["repair six: a/six.py is missing"]),
            ("replaced", ["repair six: a/six.py has another content"]),
            ("copied", []),
            ("cut in both", ["repair six: a/six.py has 1 bytes instead of 6"]),
            ("folder removed", ["repair six: a/more.py is missing, and 1 more"]),
        ],
    )
    def test_files_that_were_sound_in_another_environment_are_known_by_their_inodes(
        self, tmp_path: Path, done: str, said: list[str]
    ) -> None:
        one, other = tmp_path / "one", tmp_path / "other"
        install(one, "six", "1.17.0", {"a/six.py": "x = 1\n", "a/more.py": "", "top.py": ""})
        shutil.copytree(one, other, copy_function=os.link)
        module = other / "a" / "six.py"
        if done == "folder removed":
            shutil.rmtree(module.parent)
        elif done == "cut in both":
            module.write_text("x")
        elif done != "nothing":
            module.unlink()
            if done != "removed":
                module.write_text("x = 2\n" if done == "replaced" else "x = 1\n")
        sound: dict[str, core._Sound] = {}
        pins = parse_lock(lock("six==1.17.0"))
        first = core.compare(pins, *core.scan(str(one), 0, sound)).lines()
        assert first == (said if done == "cut in both" else [])
        assert core.compare(pins, *core.scan(str(other), 0, sound)).lines() == said

    def test_compiled_modules_are_not_looked_at(self, site: Path) -> None:
        info = install(site, "six", "1.17.0")
        with (info / "RECORD").open("a") as record:
            record.write("six/__pycache__/x.cpython-311.pyc,,\nsix/__pycache__/y.cpython-311.pyc,sha256=zz,12\n")
        assert differences(site, lock("six==1.17.0")) == []

    def test_no_folder_is_an_empty_one(self, tmp_path: Path) -> None:
        assert core.scan(str(tmp_path / "nowhere"), 0) == ([], [])


WORDS = {
    "hash": (
        """error: Failed to download `six==1.17.0`
  cause: Hash mismatch for `six==1.17.0`

         Expected:
           sha256:0721
           sha256:0f70

         Computed:
           sha256:4721
""",
        "Wrong checksum: six==1.17.0 was locked as sha256:0721 or sha256:0f70, but what came is sha256:4721. It was not installed. "
        "It came from /srv/wheels or https://index.example/simple: put the right file there, or choose another source by "
        "x_index_url (an index of your own, or a mirror) and x_wheelhouse (a folder of wheels).",
    ),
    "hash by pip": (
        """ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated the package versions, please
    six==1.17.0 from https://index.example/six-1.17.0.tar.gz#sha256=4721 (from -r /tmp/trainyard/lock.txt (line 1)):
        Expected sha256 0721
        Expected     or 0f70
             Got        4721
""",
        "Wrong checksum: six==1.17.0 was locked as 0721 or 0f70, but what came is 4721. It was not installed. "
        "It came from /srv/wheels or https://index.example/simple: put the right file there, or choose another source by "
        "x_index_url (an index of your own, or a mirror) and x_wheelhouse (a folder of wheels).",
    ),
    "down": (
        """error: Request failed after 3 retries in 6.7s
  cause: Failed to fetch: https://alice:secret@index.example/simple/idna/
  cause: error sending request for url (https://alice:secret@index.example/simple/idna/)
  cause: tcp connect error
  cause: Connection refused (os error 111)
""",
        "The Python index does not answer: https://index.example/simple/idna/ was tried 4 times. See that the node reaches it, "
        "by base_proxy where a proxy is the only way out, or choose "
        "another source by x_index_url (an index of your own, or a mirror) and x_wheelhouse (a folder of wheels). The installer said: "
        "error: Request failed after 3 retries in 6.7s cause: Failed to fetch: https://index.example/simple/idna/ "
        "cause: error sending request for url "
        "(https://index.example/simple/idna/) cause: tcp connect error cause: Connection refused (os error 111)",
    ),
    "missing": (
        """error: No solution found when resolving dependencies
  cause: Because there is no version of torch==2.13.0+cpu and you require torch==2.13.0+cpu, we can conclude that your requirements are
         unsatisfiable.
""",
        "torch==2.13.0+cpu is nowhere to be had: not in /srv/wheels and not in https://index.example/simple. Give a source that has it by "
        "x_index_url (an index of your own, or a mirror) and x_wheelhouse (a folder of wheels).",
    ),
    "unknown": (
        """error: No solution found when resolving dependencies
  cause: Because idna was not found in the package registry and you require idna==3.10, we can conclude that your requirements are
         unsatisfiable.
""",
        "idna is nowhere to be had: not in /srv/wheels and not in https://index.example/simple. Give a source that has it by "
        "x_index_url (an index of your own, or a mirror) and x_wheelhouse (a folder of wheels).",
    ),
    "pip, missing": (
        "ERROR: Could not find a version that satisfies the requirement uv==0.13.8 (from versions: none)\n"
        "ERROR: No matching distribution found for uv==0.13.8\n",
        "uv==0.13.8 is nowhere to be had: not in /srv/wheels and not in https://index.example/simple. Give a source that has it by "
        "x_index_url (an index of your own, or a mirror) and x_wheelhouse (a folder of wheels).",
    ),
    "pip, down": (
        "WARNING: Retrying (Retry(total=2, connect=None, read=None, redirect=None, status=None)) after connection broken\n"
        "ERROR: No matching distribution found for uv==0.13.8\n",
        "The Python index does not answer: https://index.example/simple was tried 4 times. See that the node reaches it, "
        "by base_proxy where a proxy is the only way out, or choose "
        "another source by x_index_url (an index of your own, or a mirror) and x_wheelhouse (a folder of wheels). The installer said: "
        "WARNING: Retrying (Retry(total=2, connect=None, read=None, redirect=None, status=None)) after connection broken "
        "ERROR: No matching distribution found for uv==0.13.8",
    ),
    "full": (
        "error: Failed to write to the client cache\n  cause: No space left on device (os error 28)\n",
        "The disk is full. Make room, or put the environments on a bigger disk by x_path.",
    ),
    "certificate": (
        "error: Request failed after 3 retries\n  cause: Failed to fetch: https://index.example/simple/six/\n"
        "  cause: invalid peer certificate: UnknownIssuer\n",
        "The node does not trust the certificate of https://index.example/simple/six/. Add the authority that signed it to "
        "base_ca_certificates. The installer said: error: Request failed after 3 retries "
        "cause: Failed to fetch: https://index.example/simple/six/ cause: invalid peer certificate: UnknownIssuer",
    ),
    "else": ("error: something\n  new\n", "The installer failed: error: something new"),
}


@pytest.mark.parametrize("case", WORDS)
def test_an_installers_words_are_explained(case: str) -> None:
    output, says = WORDS[case]
    assert core.explain(output, "x", "https://alice:secret@index.example/simple", "/srv/wheels") == says


def test_without_an_index_the_variable_is_named() -> None:
    said = core.explain(WORDS["unknown"][0], "x", "none", "")
    assert said.startswith("idna is nowhere to be had: not in any index, since x_index_url is none. Give a source")


class FakeUv(core.Environments):
    """Environments whose commands are recorded; `uv pip sync` installs what the lock says, into the folder that it is told."""

    def __init__(self, settings: core.Settings) -> None:
        super().__init__(settings)
        self.commands: list[list[str]] = []
        self.fail: dict[str, str] = {}

    def _run(self, words: Sequence[str], environment: object = None, **_more: bool) -> subprocess.CompletedProcess[str]:
        self.commands.append([*words])
        text = " ".join(words)
        for part, output in self.fail.items():
            if part in text:
                return subprocess.CompletedProcess([*words], 1, output, "")
        output = ""
        if "version_info" in text:
            output = VERSION
        elif "sys.prefix" in text:
            output = str(Path(words[0]).parent.parent) if Path(words[0]).exists() else ""
        elif text.endswith("--version"):
            output = "uv 0.13.8"
        elif words[1:2] == ["venv"]:
            self._venv(Path(words[-1]))
        elif words[1:3] == ["pip", "sync"]:
            self._sync_packages(Path(words[-1]))
        return subprocess.CompletedProcess([*words], 0 if output or "sys.prefix" not in text else 1, output, "")

    @staticmethod
    def _venv(folder: Path) -> None:
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        for name in ("python", "activate"):
            (folder / "bin" / name).write_text("")
        (folder / "pyvenv.cfg").write_text(f"version_info = {VERSION}.2\ninclude-system-site-packages = false\n")
        (folder / "lib" / f"python{VERSION}" / "site-packages").mkdir(parents=True, exist_ok=True)

    def _sync_packages(self, requirements: Path) -> None:
        site = Path(self.site(requirements.parent))
        pins = parse_lock(requirements.read_text().replace("===", "=="))
        for package in core.installed(str(site)):
            if package.name not in pins or pins[package.name].version != package.version:
                for path in (site / package.folder).iterdir():
                    path.unlink()
                (site / package.folder).rmdir()
        for pin in pins.values():
            install(site, pin.name, pin.version)


@pytest.fixture
def envs(tmp_path: Path) -> FakeUv:
    """A folder for environments, with a uv that installs made-up packages."""
    settings = core.Settings(
        path=str(tmp_path / "envs"), owner="x", compile=False, installer_requirements=f"uv==0.13.8 {HASH}", spare=0, patience=0.3
    )
    return FakeUv(settings)


def wanted(name: str = "one", *pins: str, **kwargs: object) -> core.Wanted:
    return core.Wanted(name, lock(*(pins or ("six==1.17.0",))), **kwargs)  # type: ignore[arg-type]


def actions(envs: FakeUv, wish: core.Wanted, dry: bool = False) -> list[str]:
    return envs.apply([wish], dry=dry)[0].actions


class TestApply:
    def test_made_once(self, envs: FakeUv) -> None:
        assert actions(envs, wanted()) == ["create it", "add six 1.17.0"]
        envs.commands.clear()
        assert actions(envs, wanted()) == []
        assert not [words for words in envs.commands if words[0].endswith("/uv")], "nothing to do, nothing started"
        marker = json.loads((envs.base / "one" / core.MARKER).read_text())
        assert (marker["owner"], marker["complete"]) == ("x", True)
        assert (envs.base / "one").stat().st_mode & 0o777 == 0o755

    def test_a_dry_run_says_it_and_leaves_no_trace(self, envs: FakeUv) -> None:
        assert actions(envs, wanted(), dry=True) == ["create it", "add six 1.17.0"]
        assert not envs.base.exists()

    def test_the_index_is_no_argument_of_a_process(self, envs: FakeUv) -> None:
        envs.settings = core.Settings(**{**envs.settings.__dict__, "index_url": "https://alice:secret@index.example/simple"})
        actions(envs, wanted())
        assert not [words for words in envs.commands if "secret" in " ".join(words)]

    def test_an_interruption_leaves_an_open_marker_that_the_next_run_closes(self, envs: FakeUv) -> None:
        envs.fail["pip sync"] = "killed"
        with pytest.raises(PythonEnvError, match="The installer failed: killed"):
            actions(envs, wanted())
        assert core.read_marker(envs.base / "one")["complete"] is False
        envs.fail.clear()
        assert actions(envs, wanted(), dry=True) == ["finish what was interrupted", "add six 1.17.0"]
        assert actions(envs, wanted()) == ["finish what was interrupted", "add six 1.17.0"]
        assert actions(envs, wanted()) == []

    def test_after_a_power_cut_the_environment_and_the_cache_are_made_anew(self, envs: FakeUv) -> None:
        actions(envs, wanted())
        marker = envs.base / "one" / core.MARKER
        marker.write_text(json.dumps({**json.loads(marker.read_text()), "complete": False, "boot": "another"}))
        kept = envs.base / "one" / "something"
        kept.write_text("")
        (envs.base / core.CACHE).mkdir()
        assert actions(envs, wanted()) == ["make it anew: the machine went down while it was being made", "add six 1.17.0"]
        assert not kept.exists()
        assert not (envs.base / core.CACHE).exists()
        assert actions(envs, wanted()) == []

    @pytest.mark.parametrize("content", ["", "\0\0\0", "[]", "{}"])
    def test_a_damaged_marker_counts_as_a_power_cut(self, envs: FakeUv, content: str) -> None:
        actions(envs, wanted())
        marker = envs.base / "one" / core.MARKER
        marker.write_text(content)
        assert actions(envs, wanted())[0] == "make it anew: the machine went down while it was being made"
        assert actions(envs, wanted()) == []

    def test_a_broken_interpreter_is_put_in_place(self, envs: FakeUv) -> None:
        actions(envs, wanted())
        (envs.base / "one" / "pyvenv.cfg").unlink()
        assert actions(envs, wanted()) == ["put its interpreter in place: pyvenv.cfg is missing or damaged"]
        assert actions(envs, wanted()) == []

    def test_another_python_makes_it_anew(self, envs: FakeUv) -> None:
        actions(envs, wanted())
        config = envs.base / "one" / "pyvenv.cfg"
        config.write_text(config.read_text().replace("3.11", "3.9"))
        assert actions(envs, wanted()) == ["make it anew: it has Python 3.9, wanted is 3.11", "add six 1.17.0"]

    def test_an_environment_that_reads_the_systems_packages_is_put_right(self, envs: FakeUv) -> None:
        actions(envs, wanted())
        config = envs.base / "one" / "pyvenv.cfg"
        config.write_text(config.read_text().replace("false", "true"))
        assert actions(envs, wanted()) == ["put its interpreter in place: it reads the system's packages too"]

    def test_uv_is_never_let_loose_on_the_systems_python(self, envs: FakeUv) -> None:
        actions(envs, wanted())
        envs.fail["sys.prefix"] = "/usr"
        envs.commands.clear()
        with pytest.raises(PythonEnvError, match=r"one/bin/python does not run, or is not the environment's own"):
            actions(envs, wanted())
        assert not [words for words in envs.commands if "sync" in words]

    def test_a_damaged_package_is_taken_out_of_the_cache_first(self, envs: FakeUv) -> None:
        actions(envs, wanted())
        (Path(envs.site(envs.base / "one")) / "six" / "__init__.py").unlink()
        envs.commands.clear()
        assert actions(envs, wanted()) == ["repair six: six/__init__.py is missing"]
        steps = [" ".join(words[1:4]) for words in envs.commands if words[0].endswith("/uv")]
        assert steps == ["--version", "cache clean --quiet", "pip sync --quiet"]
        assert "--reinstall-package six" in " ".join(envs.commands[-1])

    def test_another_description_is_written_down(self, envs: FakeUv) -> None:
        actions(envs, wanted())
        assert actions(envs, wanted(about={"title": "One"})) == ["describe it anew"]
        assert core.read_marker(envs.base / "one")["about"] == {"title": "One"}
        assert actions(envs, wanted(about={"title": "One"})) == []

    def test_a_package_that_does_not_become_as_recorded_is_said(self, envs: FakeUv, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(envs, "_sync_packages", lambda _requirements: None)
        with pytest.raises(PythonEnvError, match=r"one is not as its lock says after its installation: add six 1\.17\.0\."):
            actions(envs, wanted())

    def test_the_special_index_is_asked_only_for_its_packages_and_only_when_needed(self, envs: FakeUv) -> None:
        wish = wanted("one", "torch==2.13.0+cpu", "six==1.17.0", index_url="https://special.example", index_packages=("torch",))
        actions(envs, wish)
        assert not [words for words in envs.commands if "--no-deps" in words], "all found without it"
        actions(envs, core.Wanted("one", present=False))
        asked = []

        def run(words: Sequence[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
            if "sync" in words and not asked:
                return subprocess.CompletedProcess([*words], 1, WORDS["missing"][0].replace("error:", "error:"), "")
            if "--no-deps" in words:
                asked.append((Path(words[-1]).read_text(), (environment or {}).get("UV_DEFAULT_INDEX")))
            return FakeUv._run(envs, words, environment)

        envs._run = run  # type: ignore[assignment,method-assign]
        actions(envs, wish)
        assert asked == [(f"torch===2.13.0+cpu {HASH}\n", "https://special.example")]

    def test_a_wheelhouse_that_is_none_is_said(self, envs: FakeUv) -> None:
        envs.settings = core.Settings(**{**envs.settings.__dict__, "wheelhouse": "/nowhere"})
        with pytest.raises(PythonEnvError, match="x_wheelhouse: /nowhere is no folder on this node"):
            actions(envs, wanted())

    def test_a_second_run_waits_and_says_so(self, envs: FakeUv) -> None:
        with (
            FakeUv(envs.settings)._alone(),
            pytest.raises(PythonEnvError, match=r"envs: Another run has been at work for 0 seconds: "),
        ):
            actions(envs, wanted())
        assert actions(envs, wanted()) == ["create it", "add six 1.17.0"]


class TwoMachines(FakeUv):
    """A machine that fetches from another one: rsync is stood in for by a copy of that one's folder."""

    def __init__(self, settings: core.Settings, head: Path) -> None:
        super().__init__(settings)
        self.head = head

    def _run(self, words: Sequence[str], environment: object = None, **_more: bool) -> subprocess.CompletedProcess[str]:
        done = super()._run(words, environment)
        if words[0] == "rsync" and not done.returncode:
            shutil.copytree(self.head / Path(words[-2]).name, words[-1], symlinks=True, dirs_exist_ok=True)
        return subprocess.CompletedProcess(done.args, done.returncode, f"{VERSION}.2" if done.stdout == VERSION else done.stdout, "")

    @staticmethod
    def _venv(folder: Path) -> None:
        FakeUv._venv(folder)
        (folder / "bin" / "python").unlink()
        (folder / "bin" / "python").symlink_to("/usr/bin/python3")


class TestTravel:
    @pytest.fixture
    def head(self, envs: FakeUv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TwoMachines:
        """The first machine, with an environment; its server answers."""
        monkeypatch.setattr(core, "silent", lambda _url: "")
        found = TwoMachines(envs.settings, tmp_path)
        assert found.apply([wanted()], dry=False)[0].source == "index"
        return found

    def second(self, head: TwoMachines, tmp_path: Path, **changes: object) -> TwoMachines:
        """Return the second machine, which is told what the first one offers; the folder has the same name on both."""
        offers = {"url": "rsync://192.0.2.1:8730/environments", "environments": head.offers([("one", wanted().digest)])}
        offers["environments"]["one"].update(changes)
        if not (tmp_path / "head").exists():
            head.base.rename(tmp_path / "head")
        return TwoMachines(core.Settings(**{**head.settings.__dict__, "offers": offers}), tmp_path / "head")

    def test_what_the_head_has_is_not_made_again(self, head: TwoMachines, tmp_path: Path) -> None:
        envs = self.second(head, tmp_path)
        assert envs.lacking([wanted()]) == [("one", wanted().digest)]
        (said,) = envs.apply([wanted()], dry=True)
        assert (said.source, envs.base.exists()) == ("head", False)
        (done,) = envs.apply([wanted()], dry=False)
        assert (done.source, done.actions, envs.warnings) == ("head", ["create it", "add six 1.17.0"], [])
        assert not [words for words in envs.commands if words[0].endswith("/uv")]
        (again,) = envs.apply([wanted()], dry=False)
        assert (again.source, again.changed, envs.lacking([wanted()])) == ("head", False, [])

    @pytest.mark.parametrize(
        "changes",
        [{"lock": "0" * 64}, {"platform": {"release": "debian 99"}}],
    )
    def test_what_does_not_fit_is_no_offer(self, head: TwoMachines, tmp_path: Path, changes: dict[str, object]) -> None:
        envs = self.second(head, tmp_path, **changes)
        (done,) = envs.apply([wanted()], dry=False)
        assert (done.source, envs.warnings) == ("index", [])
        assert not [words for words in envs.commands if words[0] == "rsync"]

    def test_another_digest_is_thrown_away_and_said(self, head: TwoMachines, tmp_path: Path) -> None:
        envs = self.second(head, tmp_path)
        (tmp_path / "head" / "one" / "bin" / "activate").write_text("something else")
        (done,) = envs.apply([wanted()], dry=False)
        assert done.source == "index"
        assert (envs.base / "one" / "bin" / "activate").read_text() == ""
        assert envs.warnings == [
            "one does not come from the head, and is made from the index: what came has another digest than what is there."
        ]
        assert actions(envs, wanted()) == []

    def test_a_fetch_that_failed_is_said(self, head: TwoMachines, tmp_path: Path) -> None:
        envs = self.second(head, tmp_path)
        envs.fail["rsync"] = "@ERROR: access denied"
        (done,) = envs.apply([wanted()], dry=False)
        assert (done.source, envs.warnings[0].endswith("index: @ERROR: access denied.")) == ("index", True)

    def test_a_head_that_does_not_answer_is_said_once(self, head: TwoMachines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        envs = self.second(head, tmp_path)
        monkeypatch.setattr(core, "silent", lambda _url: "192.0.2.1:8730 does not answer (timed out)")
        (done,) = envs.apply([wanted()], dry=False)
        assert done.source == "index"
        assert envs.warnings == [
            "Environments are made from the index, since the head cannot be asked: 192.0.2.1:8730 does not answer (timed out)."
        ]

    def test_what_was_cut_off_on_its_way_is_thrown_away(self, head: TwoMachines, tmp_path: Path) -> None:
        envs = self.second(head, tmp_path)
        left = envs.base / f"{core.FETCHED}1"
        left.mkdir(parents=True)
        (left / "half").write_text("")
        assert actions(envs, wanted()) == ["create it", "add six 1.17.0"]
        assert sorted(os.listdir(envs.base)) == [core.GUARD, "one"]

    @pytest.mark.parametrize("fails, source", [({}, "head"), ({"rsync": "cut off"}, "index")])
    def test_another_lock_takes_the_place_of_what_is_there(
        self, head: TwoMachines, tmp_path: Path, fails: dict[str, str], source: str
    ) -> None:
        envs = self.second(head, tmp_path)
        offers, envs.settings = envs.settings, head.settings
        envs.apply([wanted("one", "six==1.16.0")], dry=False)
        (envs.base / "one" / "kept").write_text("")
        envs.settings, envs.fail = offers, fails
        (done,) = envs.apply([wanted()], dry=False)
        assert (done.source, done.actions) == (source, ["change six 1.16.0 to 1.17.0"])
        assert (envs.base / "one" / "kept").exists() == (source == "index"), "without the head it is changed in its place"
        assert actions(envs, wanted()) == []

    def test_what_is_only_damaged_is_mended_here(self, head: TwoMachines, tmp_path: Path) -> None:
        envs = self.second(head, tmp_path)
        envs.apply([wanted()], dry=False)
        (Path(envs.site(envs.base / "one")) / "six" / "__init__.py").unlink()
        envs.commands.clear()
        assert actions(envs, wanted()) == ["repair six: six/__init__.py is missing"]
        assert not [words for words in envs.commands if words[0] == "rsync"]

    def test_what_is_unfinished_of_another_lock_or_not_as_locked_is_not_offered(self, head: TwoMachines) -> None:
        assert head.offers([("one", "0" * 64), ("two", wanted().digest)]) == {}
        (Path(head.site(head.base / "one")) / "six" / "__init__.py").write_text("changed")
        assert head.offers([("one", wanted().digest)]) == {}
        assert "is not offered to others, since it is not as its lock says: repair six:" in head.warnings[0]
        head.fail["pip sync"] = "killed"
        with pytest.raises(PythonEnvError):
            actions(head, wanted())
        head.warnings.clear()
        assert (head.offers([("one", wanted().digest)]), head.warnings) == ({}, [])


class TestOwnership:
    def test_what_somebody_else_put_there_is_left_alone(self, envs: FakeUv) -> None:
        (envs.base / "one").mkdir(parents=True)
        (envs.base / "one" / "thesis.txt").write_text("years of work")
        with pytest.raises(PythonEnvError, match=r"/envs/one is there already and was not made by x\. Move it away, or choose"):
            actions(envs, wanted())
        assert envs.apply([core.Wanted("one", present=False)], dry=False)[0].changed is False
        assert envs.remove_all(dry=False) == []
        assert (envs.base / "one" / "thesis.txt").read_text() == "years of work"

    def test_anothers_environment_is_refused(self, envs: FakeUv) -> None:
        actions(envs, wanted())
        other = FakeUv(core.Settings(**{**envs.settings.__dict__, "owner": "y"}))
        with pytest.raises(PythonEnvError, match=r"belongs to x\. Choose another name, or another y_path\."):
            actions(other, wanted())
        (gone,) = other.apply([core.Wanted("one", present=False)], dry=False)
        assert (gone.changed, gone.actions) == (False, [])
        assert other.remove_all(dry=False) == []
        assert actions(other, core.Wanted("one", present=False)) == []
        assert (envs.base / "one").is_dir()

    def test_removing_one(self, envs: FakeUv) -> None:
        envs.apply([wanted("one"), wanted("two")], dry=False)
        assert actions(envs, core.Wanted("one", present=False)) == ["remove it"]
        assert actions(envs, core.Wanted("one", present=False)) == []
        assert [folder.name for folder, _marker in envs.marked()] == ["two"]

    def test_removing_all_leaves_nothing_and_a_neighbour_in_peace(self, envs: FakeUv) -> None:
        envs.apply([wanted("one"), wanted("two")], dry=False)
        (envs.base / core.CACHE).mkdir()
        (envs.base / "mine").mkdir()
        (envs.base / "mine" / "file").write_text("")
        assert [result.name for result in envs.remove_all(dry=True)] == ["one", "two"]
        assert [result.name for result in envs.remove_all(dry=False)] == ["one", "two"]
        assert sorted(os.listdir(envs.base)) == ["mine"]
        assert envs.remove_all(dry=False) == []

    def test_the_empty_folder_goes_too(self, envs: FakeUv) -> None:
        actions(envs, wanted())
        envs.remove_all(dry=False)
        assert not envs.base.exists()


class TestRoom:
    def test_too_little_room_is_said_before_anything_is_done(self, envs: FakeUv, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(core, "_free", lambda _folder: 300_000_000)
        big = core.Wanted("big", f"tensorflow==2.21.0 {HASH} # 1650000000\n")
        says = (
            f"The disk of {envs.base} has 300 MB free, but big will take 2.0 GB, and 1 MB should stay free. "
            "Make room, or put the environments on a bigger disk by x_path."
        )
        for attempt in (lambda: envs.check([big]), lambda: envs.apply([big], dry=True), lambda: envs.apply([big], dry=False)):
            with pytest.raises(PythonEnvError) as refused:
                attempt()
            assert str(refused.value) == says
        assert not envs.base.exists()

    def test_wheels_that_environments_share_count_once(self, envs: FakeUv) -> None:
        assert envs.check([wanted("one", "six==1.17.0"), wanted("two", "six==1.17.0", "idna==3.10")]) == int(2000 * core.BYTECODE_FACTOR)

    def test_what_is_there_counts_no_more(self, envs: FakeUv) -> None:
        actions(envs, wanted())
        (envs.base / core.CACHE).mkdir()
        assert envs.check([wanted()]) == 0
        assert envs.check([wanted(), wanted("two", "six==1.17.0", "idna==3.10")]) == int(1000 * core.BYTECODE_FACTOR)


class TestCheck:
    def test_the_interpreter_has_to_be_there(self, envs: FakeUv) -> None:
        envs.fail["version_info"] = "not found"
        with pytest.raises(PythonEnvError, match=r"x_python: /usr/bin/python3 is no Python on this node\."):
            envs.check([wanted()])

    def test_the_interpreter_has_to_fit_the_lock(self, envs: FakeUv) -> None:
        with pytest.raises(PythonEnvError, match=r"x_python: /usr/bin/python3 is Python 3\.11, but one is locked for 3\.13\."):
            envs.check([wanted(python_version="3.13")])


class TestCompiled:
    def test_a_module_that_two_environments_share_is_compiled_once(self, tmp_path: Path) -> None:
        sites = [tmp_path / name / "lib" / "python3.11" / "site-packages" for name in ("one", "two")]
        for site in sites:
            (site / "pkg" / "tests").mkdir(parents=True)
        (sites[0] / "pkg" / "a.py").write_text("a = 1\n")
        (sites[0] / "pkg" / "tests" / "test_a.py").write_text("")
        os.link(sites[0] / "pkg" / "a.py", sites[1] / "pkg" / "a.py")
        (sites[1] / "pkg" / "b.py").write_text("b = 1\n")
        done = Path(core.cached(str(sites[0] / "pkg" / "a.py"), "3.11"))
        assert done.name == "a.cpython-311.pyc"
        done.parent.mkdir()
        done.write_text("compiled")
        known = core.compiled([str(sites[0])])
        assert [known.get(inode) for _source, inode in sorted(core.sources(str(sites[1])))] == [str(done), None]
        assert [Path(source).name for source, _inode in core.sources(str(sites[0]))] == ["a.py"], "tests are left out"


def test_an_index_that_nobody_serves_is_named_before_anything_is_installed(envs: FakeUv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    envs.settings = core.Settings(**{**envs.settings.__dict__, "index_url": "http://alice:tweet@127.0.0.1:9/simple"})
    with pytest.raises(PythonEnvError, match=r"x_index_url: http://127.0.0.1:9/simple does not answer: .*refused.* \(4 tries\)"):
        envs.check([wanted()])
    envs.settings = core.Settings(**{**envs.settings.__dict__, "index_url": ""})
    actions(envs, wanted())
    envs.settings = core.Settings(**{**envs.settings.__dict__, "index_url": "http://127.0.0.1:9/simple"})
    assert envs.check([wanted()]) == 0, "where all is there nobody is asked"


def test_the_usual_index_is_asked_before_anything_is_installed(envs: FakeUv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    envs.settings = core.Settings(**{**envs.settings.__dict__, "index_url": "", "default_index": "http://127.0.0.1:9/simple"})
    with pytest.raises(PythonEnvError, match=r"x_index_url: the usual index http://127.0.0.1:9/simple does not answer: .* base_proxy"):
        envs.check([wanted()])


def test_a_wrong_checksum_is_named_before_anything_is_installed(envs: FakeUv, tmp_path: Path) -> None:
    house = tmp_path / "wheels"
    house.mkdir()
    (house / "six-1.17.0-py2.py3-none-any.whl").write_bytes(b"another one")
    envs.settings = core.Settings(**{**envs.settings.__dict__, "index_url": "none", "wheelhouse": str(house)})
    with pytest.raises(
        PythonEnvError, match=r"Wrong checksum: six==1\.17\.0 was locked as .*six-1\.17\.0.* x_index_url .* and x_wheelhouse"
    ):
        envs.check([wanted()])
    envs.settings = core.Settings(**{**envs.settings.__dict__, "index_url": ""})
    envs.check([wanted()])  # the usual index has it as it was locked
    with pytest.raises(PythonEnvError, match="Wrong checksum: six"):
        envs.check([wanted(index_packages=("six",))])  # which that index does not have
