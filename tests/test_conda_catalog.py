"""The catalogue's installers of conda's distributions: each row whole, newest first, one of each version for each architecture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DATA: dict[str, Any] = yaml.safe_load((ROOT / "roles/catalog/vars/main/conda.yml").read_text())
DISTRIBUTIONS = DATA["catalog_conda_distributions"]
MIRRORS = DATA["catalog_conda_channel_mirrors"]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_distribution_is_complete(name: str) -> None:
    entry = DISTRIBUTIONS[name]
    assert set(entry) == {"title", "url", "mirrors", "channels", "terms", "size_mb", "installed_mb", "installers"}
    assert set(entry["mirrors"]) <= set(MIRRORS)
    for url in (entry["url"], *entry["mirrors"].values()):
        assert url.startswith("https://")
        assert url.endswith("/{file}")
    assert bool(entry["terms"]) == (entry["channels"] == ["defaults"]), "Anaconda's channels stand under Anaconda's terms"


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_an_installer_has_its_sum_and_its_source(name: str) -> None:
    rows = DISTRIBUTIONS[name]["installers"]
    for row in rows:
        assert set(row) == {"version", "architecture", "file", "sha256", "source", "seen", "trust"}
        assert isinstance(row["version"], str)
        assert row["version"] in row["file"]
        assert row["file"].endswith(f"-Linux-{row['architecture']}.sh")
        assert re.fullmatch("[0-9a-f]{64}", row["sha256"])
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", row["seen"])
        assert row["trust"] in {"primary", "secondary", "inferred"}
        assert row["source"]
    assert len({row["sha256"] for row in rows}) == len(rows)
    for architecture in ("x86_64", "aarch64"):
        versions = [row["version"] for row in rows if row["architecture"] == architecture]
        numbers = [[int(number) for number in re.findall(r"\d+", version.rpartition("_")[2])] for version in versions]
        assert numbers == sorted(numbers, reverse=True)
        assert len(set(versions)) == len(versions) > 0


def test_mirrors_of_channels_say_where_that_is_known_from() -> None:
    for mirror in MIRRORS.values():
        assert set(mirror) == {"url", "cloud", "defaults", "source", "seen", "trust"}
        assert mirror["url"].startswith("https://")
        assert "conda-forge" in mirror["cloud"]
        assert mirror["trust"] in {"primary", "secondary", "inferred"}


def test_the_role_and_the_module_know_the_same_distributions() -> None:
    options = yaml.safe_load((ROOT / "roles/anaconda/meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    assert options["anaconda_distribution"]["choices"] == list(DISTRIBUTIONS)
    module = (ROOT / "collections/ansible_collections/trainyard/core/plugins/modules/conda_distribution.py").read_text()
    assert f"choices: [{', '.join(DISTRIBUTIONS)}]" in module
