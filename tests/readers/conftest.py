"""One data set, and a copy of it in every format, with and without the real images."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.export.export import export
from engine.formats.catalog import FORMATS
from engine.run import Run
from tests.readers.made import expanded, real_images


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("made")
    return expanded(str(place / "out"), real_images(place / "source"))


@pytest.fixture(scope="session")
def copies(made: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("copies")
    for name in FORMATS:
        export(made.storage.url, str(place / name), name)
        export(made.storage.url, str(place / f"{name}-real"), name, include_real=True)
    return {folder.name: folder for folder in place.iterdir()}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
