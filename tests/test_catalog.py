"""The catalogue is plain data that fits together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

CATALOG = Path(__file__).resolve().parents[1] / "roles" / "catalog"
DATA: dict[str, Any] = {}
for _path in sorted((CATALOG / "vars" / "main").glob("*.yml")):
    DATA.update(yaml.safe_load(_path.read_text()))
ENVIRONMENTS = DATA["catalog_environments"]


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in strings(part)]
    return [value] if isinstance(value, str) else []


def test_it_holds_no_expression() -> None:
    assert not [text for text in strings(DATA) if "{{" in text or "{%" in text]


def test_all_variables_carry_its_name() -> None:
    assert not [name for name in DATA if not name.startswith("catalog_")]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment_is_complete(name: str) -> None:
    environment = ENVIRONMENTS[name]
    assert environment["title"]
    assert environment["kind"] in {"framework", "service"}
    assert ("proof" in environment) == (environment["kind"] == "framework")
    for variant in environment["variants"].values():
        if "frozen" in variant:
            own = {"requirements", "common", "proof"} if "requirements" in variant else set()
            assert set(variant) == {"device", "pythons", "frozen", "system_packages", *own}
            assert set(variant["frozen"]) == {"suite", "packages", "programs", "commands", "size_mb", *(["python"] if own else [])}
            assert {"python", *variant["frozen"]["commands"]} <= set(variant["frozen"]["programs"])
            assert variant["common"] if own else "python3-ipykernel" in variant["frozen"]["packages"]
            continue
        if "conda" in variant:
            assert set(variant) == {"device", "pythons", "conda"}
            assert set(variant["conda"]) == {"channels", "packages", "size_mb"}
            assert [f"python={python}" for python in variant["pythons"]] == variant["conda"]["packages"][:1]
            assert "ipykernel" in variant["conda"]["packages"]
            continue
        assert set(variant) <= {"device", "common", "requirements", "without", "pythons", "index", "index_packages", "system_packages"}
        assert variant["device"] in {"cpu", "gpu"}
        assert variant["requirements"]
        assert variant["pythons"]
        assert ("index" in variant) == ("index_packages" in variant)
        assert variant.get("index") in {None, *DATA["catalog_python_indexes"]}


def test_a_framework_is_pinned_to_one_version() -> None:
    for name, environment in ENVIRONMENTS.items():
        if environment["kind"] == "framework":
            locked = [variant for variant in environment["variants"].values() if "requirements" in variant]
            assert all("==" in variant["requirements"][0] for variant in locked), name


def test_no_name_means_two_things() -> None:
    names = [name for key, data in ENVIRONMENTS.items() for name in (key, *data.get("aliases", []))]
    assert len(names) == len(set(names))


def test_the_defaults_exist() -> None:
    assert [name for name in DATA["catalog_default_environments"] if ENVIRONMENTS[name]["kind"] != "framework"] == []


def test_every_framework_has_its_proof() -> None:
    proofs = CATALOG.parent / "verification" / "files" / "proofs"
    for environment in ENVIRONMENTS.values():
        if environment["kind"] == "framework":
            named = {variant.get("proof", environment["proof"]) for variant in environment["variants"].values()}
            assert [proof for proof in named if not (proofs / f"train_{proof}.py").is_file()] == []


def test_mirrors_are_whole_and_encrypted() -> None:
    for mirror in DATA["catalog_mirrors"].values():
        assert set(mirror) == {"title", "debian", "debian_security", "ubuntu", "python"}
        assert all(mirror[key].startswith("https://") for key in mirror if key != "title")


def test_platforms_name_their_release() -> None:
    assert {"Debian_12", "Debian_13"} <= set(DATA["catalog_platforms"])
    for platform in DATA["catalog_platforms"].values():
        assert set(platform) == {"title", "codename", "python", "tested"}
