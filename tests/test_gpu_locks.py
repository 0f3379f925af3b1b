"""The locks of GPU variants hold what the catalogue's rows say of those builds, and drive every GPU that the build has code for."""

from __future__ import annotations

import pytest
from ansible_collections.trainyard.core.plugins.plugin_utils._gpu_catalog import fits
from ansible_collections.trainyard.core.plugins.plugin_utils._search import knows

from tests.test_catalog import CATALOG, ENVIRONMENTS
from tools.lock_envs import pins
from trainyard import catalog

ROWS = catalog.load()
VARIANTS = [
    (name, key, python)
    for name, environment in ENVIRONMENTS.items()
    for key, variant in environment["variants"].items()
    if variant["device"] == "gpu" and "conda" not in variant
    for python in variant["pythons"]
]


@pytest.mark.parametrize("name,key,python", VARIANTS)
def test_a_gpu_lock_is_the_build_that_its_variant_is_named_after(name: str, key: str, python: str) -> None:
    pinned = pins((CATALOG / "files" / "locks" / f"{name}-{key}-cp{python.replace('.', '')}-x86_64.txt").read_text())
    owner = "tensorflow" if name == "keras" else name  # Keras computes with it
    package = {"pytorch": "torch", "paddle": "paddlepaddle-gpu"}.get(owner, owner)
    release = next(release for release in ROWS.frameworks[owner].releases if release.version == pinned[package])
    build = next(build for build in release.builds if build.name == key)
    assert fits(python, release.python)
    if not build.bundled:
        assert not any(package.startswith("nvidia-") for package in pinned), "it uses the node's own CUDA"
        return
    runtime = next(version for package, version in pinned.items() if package.startswith("nvidia-cuda-runtime"))
    assert fits(".".join(runtime.split(".")[:2]), build.cuda)
    cudnn = ".".join(next(version for package, version in pinned.items() if package.startswith("nvidia-cudnn")).split(".")[:3])
    assert fits(cudnn, build.cudnn)
    rows = [row for row in ROWS.cudnns if row.version == cudnn]
    for capability in build.sass | build.ptx:
        assert any(knows(row, capability) for row in rows), f"cuDNN {cudnn} does not drive {capability}"


BY_CONDA = [
    (name, key) for name, environment in ENVIRONMENTS.items() for key, variant in environment["variants"].items() if "conda" in variant
]


@pytest.mark.parametrize("name,key", BY_CONDA)
def test_what_comes_by_conda_is_the_build_that_its_variant_is_named_after(name: str, key: str) -> None:
    variant = ENVIRONMENTS[name]["variants"][key]
    release, build = next(
        (release, build)
        for release in ROWS.frameworks[name].releases
        for build in release.builds
        if build.name == key and build.origin == "conda"
    )
    assert build.requirement in variant["conda"]["packages"]
    assert build.device == variant["device"]
    assert all(fits(python, release.python) for python in variant["pythons"])


def test_there_are_some() -> None:
    assert {name for name, _key in BY_CONDA} == {"caffe"}
    assert {name for name, _key, _python in VARIANTS} == {"tensorflow", "pytorch", "keras", "jax", "paddle"}
