"""What the caption stage asks for, and what it has asked for already."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from diffii.contexts.files import ImageContext
from diffii.errors import SourceError
from engine.caption_stage import by_diffusion, caption_images, from_source, suffixes_of
from engine.prepare import prepare
from engine.progress import Silent
from engine.run import Run
from engine.settings import from_flat
from engine.stream import Pool
from tests.diffii.test_contexts_endpoint import Service, service
from tests.engine.sources import garments

__all__ = ["service"]


def test_a_service_that_costs_money_is_asked_once(tmp_path: Path, service: Service) -> None:
    settings = {
        "source.url": str(garments(tmp_path / "source", shots=1, classes=2)),
        "output.url": str(tmp_path / "out"),
        "captions.condense": "endpoint",
        "captions.endpoint": service.url,
        "captions.endpoint_model": "small",
    }
    service.says(json.dumps(["on a branch"])).says(json.dumps(["over water"]))
    seen = [
        ImageContext(sha256=str(number), caption=f"a bird number {number}", context="here", method="captioner")
        for number in range(3)
    ]
    for _ in range(2):
        assert suffixes_of(prepare(from_flat(settings)), seen, Silent()) == ("on a branch",)
    assert len(service.requests) == 1
    assert suffixes_of(prepare(from_flat(settings)), seen[:2], Silent()) == ("over water",), "other captions"


# --- what the source says of its images itself


def told(tmp_path: Path, words: dict[str, list[str]], **settings: Any) -> Run:
    """A run of four images with such captions or contexts."""
    images = garments(tmp_path / "images", shots=2, classes=2)
    rows = [(str(path.relative_to(images)), path.parent.name) for path in sorted(images.rglob("*.png"))]
    lines = ["\t".join(("path", "class", *words))]
    lines += ["\t".join((*row, *more)) for row, *more in zip(rows, *words.values(), strict=True)]
    (images / "list.tsv").write_text("\n".join(lines))
    values = {"source.url": str(images / "list.tsv"), "output.url": str(tmp_path / "out"), **settings}
    return prepare(from_flat(values))


CAPTIONS = ["a photo of a bag on a table", "a bag in the snow", "a boot on a table", "a boot"]


def contexts(run: Run) -> list[str]:
    found = caption_images(run, Pool(min=1, max=1, gpus=0), Silent())
    assert [context.sha256 for context in found] == [image.sha256 for image in run.source.images]
    return sorted(context.context for context in found)


def test_captions_of_the_source_take_the_place_of_captioning(tmp_path: Path) -> None:
    run = told(tmp_path, {"caption": CAPTIONS})
    assert from_source(run.config, run.source) and not by_diffusion(run.config, run.source)
    # Without a Ray and a model: nothing is captioned.
    assert contexts(run) == ["", "in the snow", "on a table", "on a table"]
    found = caption_images(run, Pool(min=1, max=1, gpus=0), Silent())
    assert set(suffixes_of(run, found, Silent())) == {"on a table", "in the snow"}


def test_a_context_of_the_source_stands_as_it_is(tmp_path: Path) -> None:
    words = {"caption": CAPTIONS, "context": ["by a lake", "", "Under Water", ""]}
    assert contexts(told(tmp_path, words)) == ["", "Under Water", "by a lake", "in the snow"]


def test_auto_wants_a_caption_for_every_image(tmp_path: Path) -> None:
    some = {"caption": [CAPTIONS[0], *[""] * 3]}
    run = told(tmp_path, some)
    assert not from_source(run.config, run.source) and by_diffusion(run.config, run.source)
    assert contexts(told(tmp_path / "own", some, **{"captions.method": "source"})) == ["", "", "", "on a table"]


def test_another_method_may_be_told_to_do_it(tmp_path: Path) -> None:
    run = told(tmp_path, {"caption": CAPTIONS}, **{"captions.method": "diffusion"})
    assert by_diffusion(run.config, run.source) and not from_source(run.config, run.source)


def test_captions_that_are_not_there_are_missed(tmp_path: Path) -> None:
    run = told(tmp_path, {}, **{"captions.method": "source"})
    with pytest.raises(SourceError, match=r"captions\.method=source: .* brings no captions"):
        contexts(run)


def test_the_manifest_keeps_what_the_source_says(tmp_path: Path) -> None:
    source = told(tmp_path, {"caption": CAPTIONS}).source
    again = type(source).from_parquet(source.url, source.classes, source.to_parquet())
    assert again == source
    silent = dataclasses.replace(source, images=tuple(dataclasses.replace(i, caption="") for i in source.images))
    assert silent.digest == source.digest and len(silent.to_parquet()) < len(source.to_parquet())
