"""A large source looked at by tasks of Ray: the same source, and what kills a process costs one image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diffii.errors import SourceError
from diffii.images import Limits
from diffii.sources import Reader, open_source
from engine import scan, scan_tasks
from engine.scan import Look, look, read_source
from engine.scan_tasks import KILLER, look_in_ray
from tests.diffii.sources.layouts import folder, png, webdataset

pytestmark = pytest.mark.usefixtures("ray_here")

ROWS = [(png(number, 2), number % 3) for number in range(70)]
NAMES = ["a", "b", "c"]


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "LARGE", 10)
    monkeypatch.setattr(scan_tasks, "_PLACES", 16)


def eye_that_dies(reader: Reader, where: str, limits: Limits) -> Look:
    """What a decoder with a bug does to the process, for one of the images."""
    if where.endswith("/7.png"):
        os._exit(1)
    return look(reader, where, limits)


def eye_that_fails(reader: Reader, where: str, limits: Limits) -> Look:
    raise SourceError(f"{where}: the file is gone")


@pytest.mark.parametrize("layout", [folder, webdataset])
def test_the_source_is_the_same_whoever_looks(tmp_path: Path, layout: type) -> None:
    url = layout(tmp_path / "set", NAMES, [*ROWS, (b"<html>", 0), (ROWS[0][0], 0), (ROWS[4][0], 2)])
    here = read_source(url)
    asked: list[int] = []

    def elsewhere(url: str, images: str, places: list[str], limits: Limits) -> list[Look]:
        asked.append(len(places))
        return list(look_in_ray(url, images, places, limits))

    assert read_source(url, elsewhere=elsewhere) == here
    assert asked == [73] and len(here.skipped) == 4


@pytest.mark.slow
def test_an_image_that_ends_the_process_is_found_and_skipped(tmp_path: Path) -> None:
    url = folder(tmp_path / "set", NAMES, ROWS[:20])
    places = [entry.where for entry in open_source(url).listing().entries]
    looks = dict(zip(places, look_in_ray(url, "", places, Limits(), eye_that_dies), strict=True))
    killers = {where for where, seen in looks.items() if seen.reason == KILLER}
    assert killers == {"b/7.png"}
    assert all(seen.sha256 for where, seen in looks.items() if where not in killers)


def test_an_error_of_ours_arrives_as_it_was_raised(tmp_path: Path) -> None:
    url = folder(tmp_path / "set", NAMES, ROWS[:20])
    with pytest.raises(SourceError, match=r"^a/0\.png: the file is gone$"):
        list(look_in_ray(url, "", ["a/0.png"] * 20, Limits(), eye_that_fails))
