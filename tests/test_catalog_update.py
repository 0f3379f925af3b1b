"""The tool that writes the GPU tables: one form, nothing lost, new facts from lists, and lists refused that are not what they should be.

The lists in ``fixtures/catalog`` are written by hand in the documented formats.
"""

from __future__ import annotations

import copy
import datetime
import http.server
import ipaddress
import json
import shutil
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tools import catalog_form as form
from tools import catalog_schema as schema
from tools import catalog_update

FIXTURES = Path(__file__).parent / "fixtures" / "catalog"
REAL = catalog_update.CATALOG
WHOLE = catalog_update.merged(catalog_update.load()[0])


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files that the tool reads and writes."""
    folder = tmp_path / "stack"
    shutil.copytree(REAL, folder)
    monkeypatch.setattr(catalog_update, "CATALOG", folder)
    return folder


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def table(folder: Path, name: str) -> Any:
    file = folder / schema.FILE_OF[name]
    return yaml.safe_load(file.read_text())[name]


def branches(folder: Path) -> dict[int, dict[str, Any]]:
    return {row["branch"]: row for row in table(folder, "catalog_driver_branches")}


def refused(*words: str) -> str:
    """Return with which words the tool ends."""
    with pytest.raises(SystemExit) as ended:
        catalog_update.main(list(words))
    assert isinstance(ended.value.code, str), "words, and with them exit status 1"
    return ended.value.code


# --- the form


def test_all_files_are_whole_in_order_and_in_their_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert catalog_update.main(["--check"]) == 0, capsys.readouterr().out


def test_there_is_nothing_to_write_where_all_is_well(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = texts(rows)
    assert catalog_update.main([]) == 0
    assert capsys.readouterr().out == "Nothing to change.\n"
    assert texts(rows) == before


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("drivers.yml", "designation: long_term, end_of_life", 'designation: "long_term", end_of_life', "drivers.yml: 580: line"),
        ("drivers.yml", "{branch: 580, designation: long_term, ", "{designation: long_term, branch: 580, ", "drivers.yml: 580: line"),
        ("cuda.yml", "\n\n# The least", "\n# The least", "cuda.yml: 7.0.28: line"),
        ("frameworks.yml", "    aliases: [tf]", "    aliases: [ tf ]", "frameworks.yml: tensorflow: line"),
        ("pythons.yml", "---\n", "", "pythons.yml: head: line 1 is not as tools/catalog_update.py writes it, wanted is: ---"),
    ],
)
def test_another_form_is_named_with_its_row_and_mended(
    rows: Path, capsys: pytest.CaptureFixture[str], *, file: str, old: str, new: str, says: str
) -> None:
    before = texts(rows)
    edit(rows / file, old, new)
    assert catalog_update.main(["--check"]) == 1
    [line] = capsys.readouterr().out.splitlines()
    assert says in line
    assert catalog_update.main([]) == 0
    assert capsys.readouterr().out == f"{file}\n  ~ the form alone\n"
    assert texts(rows) == before


def test_rows_out_of_order_are_named_and_put_in_order(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = texts(rows)
    path = rows / "nccl.yml"
    lines = path.read_text().splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if line.startswith("  - "))
    end = next(number for number, line in enumerate(lines) if number > first and line.startswith("  - "))
    path.write_text("".join([*lines[:first], *lines[end:], *lines[first:end]]))
    assert catalog_update.main(["--check"]) == 1
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("nccl.yml: ")
    assert "(newest first)" in line
    assert catalog_update.main([]) == 0
    assert texts(rows) == before


def test_what_is_wrong_with_a_row_is_one_line(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(rows / "drivers.yml", "trust: mirror", "trust: hearsay")
    before = texts(rows)
    assert catalog_update.main(["--check"]) == 1
    [line] = capsys.readouterr().out.splitlines()
    assert "trust is 'hearsay'" in line
    assert "trust is 'hearsay'" in refused()
    assert texts(rows) == before


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("drivers.yml", "  - {branch: 580", "  # why\n  - {branch: 580", "a comment beside or between rows is lost"),
        ("pythons.yml", '"2.7"]', '"2.7"]  # the last', "pythons.yml:3: a comment beside or between rows is lost"),
        ("pythons.yml", '"2.7"]\n', '"2.7"]\n# the end\n', "a comment that no table follows is lost"),
        ("gpu_chips.yml", "  GV100:\n", "  GP100:\n", "GP100 stands there twice"),
        ("pythons.yml", '"2.7"]', '"2.7"', "pythons.yml:4: it is no YAML"),
    ],
)
def test_what_rewriting_would_lose_is_refused(
    rows: Path, capsys: pytest.CaptureFixture[str], *, file: str, old: str, new: str, says: str
) -> None:
    edit(rows / file, old, new)
    before = texts(rows)
    assert catalog_update.main(["--check"]) == 1
    assert says in capsys.readouterr().out
    assert says in refused()
    assert texts(rows) == before


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "two words",
        "",
        "true",
        "null",
        "12.6",
        "1e3",
        "a: b",
        "a #b",
        "#b",
        'say "x"',
        "back\\slash",
        "comma, bracket] brace}",
        "Größe",
        " blanks ",
        "two  blanks " * 30,
        "word " * 60 + "end",
        'quote "and, comma" ' * 20,
        "x" * 400,
    ],
)
def test_no_text_changes_by_being_written(text: str) -> None:
    row = {**WHOLE["catalog_driver_branches"][0], "source": text}
    data = {"catalog_driver_branches": [row]}
    written = form.render("drivers", data, {"catalog_driver_branches": ["# a comment"]})
    assert yaml.safe_load(written) == data
    assert all(len(line) <= form.WIDTH for line in written.splitlines()) or "x" * 400 in written


def test_keys_that_nobody_knows_are_kept() -> None:
    row = {**WHOLE["catalog_driver_branches"][0], "colour": "green"}
    assert "colour: green" in form.render("drivers", {"catalog_driver_branches": [row]}, {})


# --- devices


def test_new_devices_of_known_chips_are_taken_in(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = table(rows, "catalog_gpu_chips")
    assert catalog_update.main(["--pci-ids", str(FIXTURES / "pci.ids"), "--seen", "2099-01"]) == 0
    said = capsys.readouterr().out
    assert "  ~ GV100 1db4: device Tesla V100 PCIe 16GB -> Tesla V100 PCIe 16GB, renamed\n" in said
    assert "  + GV100 1dff: device Tesla V999\n" in said
    assert "gpu_chips.yml: 2e12 is GB20B here and GB202 [Of another chip now] in the list; left as it is\n" in said
    assert "the list no longer has" in said
    after = table(rows, "catalog_gpu_chips")
    new = {name: set(after[name]["devices"].splitlines()) - set(chip["devices"].splitlines()) for name, chip in before.items()}
    assert {name: lines for name, lines in new.items() if lines} == {
        "GV100": {"1db4 Tesla V100 PCIe 16GB, renamed", "1dff Tesla V999", "1dfe Tesla V998", "1dfd GV100", "1dfc Engineering Sample"}
    }
    ids = {line[:4] for chip in before.values() for line in chip["devices"].splitlines()}
    assert ids < {line[:4] for chip in after.values() for line in chip["devices"].splitlines()}, "nothing is deleted"
    assert table(rows, "catalog_gpu_chips_about") == {"source": "pci.ids 2099.01.02", "seen": "2099-01", "trust": "measured"}
    assert catalog_update.main(["--check"]) == 0, capsys.readouterr().out


def test_chips_that_are_not_known_are_named(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert catalog_update.main(["--pci-ids", str(FIXTURES / "pci.ids"), "--dry-run"]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "is a chip that is not known here" in line]
    assert told == [
        "gpu_chips.yml: XY123 is a chip that is not known here (2 in the list); a row with its compute capability adds it",
    ]


def test_a_list_is_taken_in_once(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--pci-ids", str(FIXTURES / "pci.ids"), "--driver-releases", str(FIXTURES / "releases.json"), "--seen", "2026-12"]
    assert catalog_update.main(words) == 0
    before = texts(rows)
    capsys.readouterr()
    assert catalog_update.main(words) == 0
    assert not [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert texts(rows) == before


def test_an_older_list_is_refused(rows: Path, tmp_path: Path) -> None:
    before = texts(rows)
    older = tmp_path / "older.ids"
    older.write_text((FIXTURES / "pci.ids").read_text().replace("2099.01.02", "2020.01.02"))
    assert "it is of 2020.01.02, older than the one of " in refused("--pci-ids", str(older))
    assert texts(rows) == before


# --- branches of the driver


def test_new_branches_and_releases_are_taken_in(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = branches(rows)
    assert catalog_update.main(["--driver-releases", str(FIXTURES / "releases.json"), "--seen", "2026-12"]) == 0
    said, after = capsys.readouterr().out, branches(rows)
    copy_of = f"{catalog_update.RELEASES_URL} (a copy)"
    assert after[999] == {
        "branch": 999,
        "designation": "production",
        "end_of_life": "",
        "newest": "999.20.01",
        "modules": ["open"],
        "source": f"{copy_of}; the rest (inferred): modules as 616",
        "seen": "2026-12",
        "trust": "mirror",
    }
    assert "  + 999: designation production, newest 999.20.01" in said
    assert after[595] == {
        **before[595],
        "designation": "long_term",
        "newest": "595.999.01",
        "source": f"{copy_of}; the rest ({before[595]['trust']}): {before[595]['source']}",
        "seen": "2026-12",
        "trust": "mirror",
    }
    assert f"  ~ 595: designation production -> long_term, newest {before[595]['newest']} -> 595.999.01" in said
    assert after[595]["end_of_life"], "the list says nothing of an end, so that it stays"
    assert catalog_update.main(["--check"]) == 0, capsys.readouterr().out


def test_what_is_out_of_support_stays_so(rows: Path) -> None:
    assert catalog_update.main(["--driver-releases", str(FIXTURES / "releases.json"), "--seen", "2026-12"]) == 0
    after = branches(rows)
    assert (after[570]["designation"], after[570]["newest"]) == ("legacy", "570.999.01")
    assert after[505]["designation"] == "legacy", "three years after its first release"
    assert after[505]["modules"] == ["proprietary"], "as the one before it"


def test_what_the_list_does_not_settle_is_said_and_left(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = branches(rows)
    assert catalog_update.main(["--driver-releases", str(FIXTURES / "releases.json"), "--seen", "2026-12"]) == 0
    said = capsys.readouterr().out
    assert f"drivers.yml: 580: the list has nothing newer than 580.65.06, here is {before[580]['newest']}, which stays\n" in said
    assert "drivers.yml: 998: the list calls it 'beta branch', which is none of production branch, lts branch" in said
    after = branches(rows)
    assert after[580] == before[580]
    assert not {997, 998} & set(after)


def test_a_dry_run_changes_nothing(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = texts(rows)
    assert catalog_update.main(["--driver-releases", str(FIXTURES / "releases.json"), "--dry-run"]) == 0
    assert "+ 999: " in capsys.readouterr().out
    assert texts(rows) == before


# --- refusals


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    def damage(data: dict[str, Any]) -> Any:
        data["999"]["driver_info"][0].pop(key, None)
        data["999"].pop(key, None)
        return data

    return damage


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: [data], "wanted is"),
        (lambda data: {}, "wanted is"),
        (lambda data: {"latest": data["999"]}, "'latest' is otherwise"),
        (lambda data: {"999": []}, "'999' is otherwise"),
        (lambda data: {"997": data["997"]}, "there is no release in it"),
        (without("type"), "'999' is otherwise"),
        (without("driver_info"), "'999' is otherwise"),
        (without("release_version"), "'999' has the release None"),
        (
            lambda data: {"999": {**data["999"], "driver_info": [{"release_version": "999.1", "release_date": "soon"}]}},
            "a release of 'soon'",
        ),
    ],
)
def test_a_list_of_releases_in_another_form_is_refused(rows: Path, tmp_path: Path, damage: Callable[[Any], Any], says: str) -> None:
    before = texts(rows)
    path = tmp_path / "releases.json"
    path.write_text(json.dumps(damage(json.loads((FIXTURES / "releases.json").read_text()))))
    said = refused("--driver-releases", str(path))
    assert f"Nothing was changed. {path}: not in the form of releases.json: wanted is " in said
    assert says in said
    assert texts(rows) == before


def test_a_list_that_is_malformed_leaves_also_the_other_one_out(rows: Path) -> None:
    before = texts(rows)
    said = refused("--pci-ids", str(FIXTURES / "pci.ids"), "--driver-releases", str(FIXTURES / "releases_malformed.json"))
    assert "'570' has the release '580.95.05'" in said
    assert texts(rows) == before


@pytest.mark.parametrize("line", ["#	Version: 2099.01.02\n", "10de  NVIDIA Corporation\n"])
def test_a_list_of_devices_in_another_form_is_refused(rows: Path, tmp_path: Path, line: str) -> None:
    before = texts(rows)
    path = tmp_path / "pci.ids"
    text = (FIXTURES / "pci.ids").read_text()
    assert line in text
    path.write_text(text.replace(line, ""))
    assert "not in the form of pci.ids: wanted are a comment '# Version: 2026.10.24'" in refused("--pci-ids", str(path))
    path.write_bytes(b"\xff\xfe")
    assert "it is no text in UTF-8" in refused("--pci-ids", str(path))
    assert "No such file" in refused("--pci-ids", str(tmp_path / "nowhere"))
    assert texts(rows) == before


def test_a_list_that_would_leave_a_contradiction_is_refused(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalog_update.DESIGNATIONS, "production branch", "wonderful")
    monkeypatch.setitem(catalog_update.YEARS, "wonderful", 1)
    before = texts(rows)
    said = refused("--driver-releases", str(FIXTURES / "releases.json"), "--seen", "2026-12")
    assert "The catalogue would contradict itself:\ndrivers.yml: 999: designation is 'wonderful'" in said
    assert texts(rows) == before


def test_a_failure_while_writing_changes_no_file(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = texts(rows)
    real = Path.write_text

    def full(path: Path, text: str) -> int:
        if path.name.startswith(".drivers"):
            raise OSError(28, "No space left on device")
        return real(path, text)

    monkeypatch.setattr(Path, "write_text", full)
    said = refused("--pci-ids", str(FIXTURES / "pci.ids"), "--driver-releases", str(FIXTURES / "releases.json"))
    assert "Nothing was changed. [Errno 28] No space left on device" in said
    assert texts(rows) == before, "and nothing is left beside them"


@pytest.mark.parametrize("words", [["--seen", "November"], ["--check", "--pci-ids", "x"], ["drivers"]])
def test_words_that_mean_nothing_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        catalog_update.main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err


# --- addresses


@contextmanager
def served(certificate: Path | None, redirect: str = "") -> Iterator[tuple[str, list[str]]]:
    """Serve the fixtures on the loopback, with https where there is a certificate, and yield address and the paths that were asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            file = FIXTURES / self.path.strip("/")
            self.send_response(302 if redirect else 200 if file.is_file() else 404)
            if redirect:
                self.send_header("Location", redirect)
            self.end_headers()
            if not redirect and file.is_file():
                self.wfile.write(file.read_bytes())

        def log_message(self, *_words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of the loopback, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(tz=datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("certificate") / "loopback.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return certificate


def test_http_is_refused_before_anything_is_asked(rows: Path) -> None:
    before = texts(rows)
    with served(None) as (address, asked):
        said = refused("--driver-releases", f"{address}/releases.json")
    assert "lists are fetched by https only" in said
    assert asked == []
    assert texts(rows) == before
    assert "lists are fetched by https only" in refused("--pci-ids", f"file://{FIXTURES}/pci.ids")


def test_a_list_is_fetched_by_https(rows: Path, trusted: Path) -> None:
    with served(trusted) as (address, asked):
        assert catalog_update.main(["--pci-ids", f"{address}/pci.ids", "--driver-releases", f"{address}/releases.json"]) == 0
        assert asked == ["/pci.ids", "/releases.json"]
        row = branches(rows)[999]
        assert row["source"] == f"{address}/releases.json; the rest (inferred): modules as 616"
        assert row["trust"] == "mirror", "whoever that is, it is not NVIDIA"
        assert table(rows, "catalog_gpu_chips_about")["source"] == f"pci.ids 2099.01.02 ({address}/pci.ids)"


def test_nvidias_own_list_is_primary() -> None:
    data = copy.deepcopy(WHOLE)
    notes = catalog_update.add_branches(data, (FIXTURES / "releases.json").read_text(), catalog_update.RELEASES_URL, "2026-12")
    assert list(notes)
    row = next(row for row in data["catalog_driver_branches"] if row["branch"] == 999)
    assert (row["trust"], row["source"]) == ("primary", f"{catalog_update.RELEASES_URL}; the rest (inferred): modules as 616")
    before = copy.deepcopy(data)
    assert list(catalog_update.add_branches(data, (FIXTURES / "releases.json").read_text(), "", "2027-01"))
    assert data == before, "a copy that says the same does not make a row less trusted"


def test_https_that_leads_on_to_http_is_refused(rows: Path, trusted: Path) -> None:
    before = texts(rows)
    with served(None) as (plain, asked), served(trusted, redirect=f"{plain}/releases.json") as (address, _asked):
        said = refused("--driver-releases", f"{address}/releases.json")
    assert "No connection adapters were found" in said
    assert asked == []
    assert texts(rows) == before


def test_failures_on_the_way_are_named(rows: Path, trusted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(trusted) as (address, _asked):
        assert "404 Client Error" in refused("--pci-ids", f"{address}/nowhere")
        monkeypatch.setattr(catalog_update, "SIZE_LIMIT", 10)
        assert "it took more than 60 seconds or 0 MiB" in refused("--pci-ids", f"{address}/pci.ids")
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        assert "CERTIFICATE_VERIFY_FAILED" in refused("--pci-ids", f"{address}/pci.ids")
    assert f"{address}/pci.ids: " in refused("--pci-ids", f"{address}/pci.ids"), "nobody answers any more"
