"""The captioner actor: with a real small BLIP, with the embedded model, and through a real Ray Data stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from actors import failures
from actors.captioner import TASK_SCHEMA, CaptionerActor, CaptionerSpec, Diffusion, ImageToText
from actors.model import ModelSpec
from diffii.contexts.diffusion import DiffusionSettings
from diffii.contexts.files import ImageContext, context_key, read_context
from diffii.contexts.subject import SubjectWords, context_of
from diffii.dataset.storage import Storage
from diffii.errors import ModelError, SourceError
from diffii.garments.catalog import COARSE_OF, CONTEXTS, caption
from diffii.hashing import sha256
from diffii.weights import EMBEDDED
from tests.diffii import captioners
from tests.engine.sources import garments

MODEL = ModelSpec(model=EMBEDDED, dtype="auto", attention="auto", threads=1)
DIFFUSION = Diffusion(model=MODEL, candidates=tuple(CONTEXTS.values()), settings=DiffusionSettings(micro_batch=4))
SUBJECTS = SubjectWords.of(["bird", "car"])


class Ended(Exception):
    """The process is gone."""


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return garments(tmp_path / "source", shots=1)


def task(source: Path) -> dict[str, Any]:
    files = sorted(source.rglob("*.png"))
    digests = [sha256(file.read_bytes()) for file in files]
    return {
        "url": str(source),
        "key": [context_key(digest, "", {}) for digest in digests],
        "where": [file.relative_to(source).as_posix() for file in files],
        "sha256": digests,
        "prompt": [caption(COARSE_OF[file.parent.name], None) for file in files],
    }


def table(*tasks: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(tasks), schema=TASK_SCHEMA)


def test_diffusion_captions_every_image_once(source: Path, tmp_path: Path) -> None:
    actor, work = CaptionerActor(CaptionerSpec(output_url=str(tmp_path / "out"), method=DIFFUSION)), task(source)
    assert actor(table(work)).to_pylist() == [{"images": 4, "written": 4, "empty": 0}]
    assert actor(table(work)).to_pylist() == [{"images": 4, "written": 0, "empty": 0}]
    found = [read_context(Storage(str(tmp_path / "out")), key) for key in work["key"]]
    assert [context.sha256 for context in found] == work["sha256"]
    assert {context.context for context in found} <= set(CONTEXTS.values())
    right = sum(
        context.context == CONTEXTS[Path(where).stem.split("-", 1)[1]]
        for context, where in zip(found, work["where"], strict=True)
    )
    assert right >= 3
    assert all(context.method == "diffusion" and context.margin is not None for context in found)
    assert found[0].caption == f"{work['prompt'][0]} {found[0].context}"


def test_a_captioner_leaves_the_caption_and_its_context(source: Path, tmp_path: Path) -> None:
    method = ImageToText(
        model=str(captioners.blip(tmp_path / "blip")),
        micro_batch=3,
        beams=2,
        max_tokens=8,
        subjects=SUBJECTS,
        threads=1,
    )
    actor, work = CaptionerActor(CaptionerSpec(output_url=str(tmp_path / "out"), method=method)), task(source)
    counts = actor(table(work)).to_pylist()[0]
    found = [read_context(Storage(str(tmp_path / "out")), key) for key in work["key"]]
    assert counts == {"images": 4, "written": 4, "empty": sum(not context.context for context in found)}
    for context in found:
        assert context.caption and context.context == context_of(context.caption, SUBJECTS)
        assert (context.method, context.score, context.margin) == ("captioner", None, None)


def test_the_result_does_not_depend_on_how_images_are_dealt(source: Path, tmp_path: Path) -> None:
    work, outs = task(source), [tmp_path / "one", tmp_path / "other"]
    single = [{name: values if name == "url" else [values[i]] for name, values in work.items()} for i in range(4)]
    for out, tasks in zip(outs, ([work], single[::-1]), strict=True):
        actor = CaptionerActor(CaptionerSpec(output_url=str(out), method=DIFFUSION))
        for one in tasks:
            actor(table(one))
    first, second = ([read_context(Storage(str(out)), key) for key in work["key"]] for out in outs)
    assert first == second


def test_an_image_that_changed_or_went_is_named(source: Path, tmp_path: Path) -> None:
    actor, work = CaptionerActor(CaptionerSpec(output_url=str(tmp_path / "out"), method=DIFFUSION)), task(source)
    first = source / work["where"][0]
    first.write_bytes(b"something else")
    with pytest.raises(SourceError, match=f"{first.name} has changed"):
        actor(table(work))
    first.unlink()
    with pytest.raises(SourceError, match=f"{first.name} was readable when it was planned"):
        actor(table(work))
    first.write_bytes(b"no image")
    work["sha256"][0] = sha256(b"no image")
    with pytest.raises(SourceError, match=f"{first.name} was readable when it was planned"):
        actor(table(work))


def test_a_full_memory_is_tried_once_more_and_then_told(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor, work = CaptionerActor(CaptionerSpec(output_url=str(tmp_path / "out"), method=DIFFUSION)), task(source)
    real, calls = actor._contexts, iter([True, False, True, True])

    def full(data: list[bytes], told: dict[str, Any]) -> list[ImageContext]:
        if next(calls):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(data, told)

    monkeypatch.setattr(actor, "_contexts", full)
    assert actor(table(work)).to_pylist() == [{"images": 4, "written": 4, "empty": 0}]
    with pytest.raises(ModelError, match=r"inversion\.micro_batch: 4 images at a time do not fit"):
        actor(table(work))


def test_a_lost_cuda_context_ends_the_process_with_the_reason(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray starts another, which the task is given to: what this one has written stays."""
    actor, work = CaptionerActor(CaptionerSpec(output_url=str(tmp_path / "out"), method=DIFFUSION)), task(source)
    heard: list[str] = []

    def asserts(*_: Any) -> list[ImageContext]:
        raise RuntimeError("CUDA error: device-side assert triggered")

    def end() -> None:
        raise Ended

    monkeypatch.setattr(actor, "_contexts", asserts)
    monkeypatch.setattr(actor._desk, "last_words", heard.append)
    monkeypatch.setattr(failures, "leave", end)
    with pytest.raises(RuntimeError, match="device-side assert"):
        actor(table(work))
    monkeypatch.setattr(failures, "device_lost", lambda device: True)
    with pytest.raises(Ended):
        actor(table(work))
    assert heard == ["RuntimeError: CUDA error: device-side assert triggered"]


def test_a_model_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    method = ImageToText(
        model=str(tmp_path / "none"), micro_batch=2, beams=1, max_tokens=8, subjects=SUBJECTS, threads=1
    )
    with pytest.raises(ModelError, match=r"captions\.model"):
        CaptionerActor(CaptionerSpec(output_url=str(tmp_path), method=method))


@pytest.mark.usefixtures("ray_here")
@pytest.mark.slow
def test_it_runs_in_the_stream(source: Path, tmp_path: Path) -> None:
    from engine.stream import Pool, stream

    work, spec = task(source), CaptionerSpec(output_url=str(tmp_path / "out"), method=DIFFUSION)
    results = list(stream(table(work), CaptionerActor, spec, Pool(min=1, max=1, gpus=0), overlap=1))
    assert results == [{"images": 4, "written": 4, "empty": 0}]
