"""The inverter without Ray: signing and inverting are apart, from any source, and one image costs only its own step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.inverter import Inverter
from actors.set_aside import SetAside, read_set_aside
from diffii.dataset import layout
from engine.inversions import SignTask, missing_tasks, task_table
from engine.prepare import prepare
from engine.run import Run
from engine.settings import from_flat
from engine.specs import inverter_spec
from tests.engine.sources import garments


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Inverter]]:
    """A source of four images, and an inverter that signs."""
    threads = torch.get_num_threads()
    base = tmp_path_factory.mktemp("inverter")
    source = garments(base / "source", shots=1)
    run = prepared(source, base / "out")
    yield source, Inverter(inverter_spec(run))
    torch.set_num_threads(threads)


def prepared(source: Path, out: Path) -> Run:
    settings: dict[str, Any] = {"inversion.steps": 2, "inversion.micro_batch": 4, "dedup.embedder": "lite0"}
    return prepare(from_flat({**settings, "source.url": str(source), "output.url": str(out)}))


@pytest.fixture
def run(shared: tuple[Path, Inverter], tmp_path: Path) -> Run:
    return prepared(shared[0], tmp_path / "out")


@pytest.fixture
def inverter(shared: tuple[Path, Inverter], run: Run, monkeypatch: pytest.MonkeyPatch) -> Inverter:
    """The shared inverter, writing into this test's output."""
    inverter = shared[1]
    monkeypatch.setattr(inverter, "_storage", run.storage)
    monkeypatch.setattr(inverter, "_spec", replace(inverter._spec, output_url=run.storage.url))
    return inverter


def work(inverter: Inverter, run: Run, extra: list[SignTask] | None = None) -> list[dict[str, Any]]:
    """What it tells of its tasks, but for how much they cost."""
    told = inverter(task_table(missing_tasks(run, extra or []), 4)).to_pylist()
    return [{key: value for key, value in task.items() if key != "unet_rows"} for task in told]


def files(run: Run, folder: str) -> dict[str, bytes]:
    return {name: run.storage.read(name) for name, _ in run.storage.find(folder)}


def test_every_image_is_signed_and_inverted_once(run: Run, inverter: Inverter) -> None:
    assert work(inverter, run) == [{"images": 4, "set_aside": []}]
    assert len(files(run, layout.INVERSIONS)) == len(files(run, layout.SIGNATURES)) == 4
    assert {len(data) for data in files(run, layout.SIGNATURES).values()} == {8 + 64}
    assert missing_tasks(run) == []
    assert run.storage.find(layout.ATTEMPTS) == []


def test_what_is_made_anew_has_the_bytes_it_had(run: Run, inverter: Inverter) -> None:
    work(inverter, run)
    before = files(run, layout.INVERSIONS) | files(run, layout.SIGNATURES)
    image = run.source.images[1]
    run.storage.remove(layout.inversion(run.plan.inversion_key(image)))
    run.storage.remove(layout.signature(run.plan.signature_key(run.source.images[2])))
    work(inverter, run)
    assert files(run, layout.INVERSIONS) | files(run, layout.SIGNATURES) == before


def test_a_held_out_image_of_another_source_is_only_signed(run: Run, inverter: Inverter, tmp_path: Path) -> None:
    other = garments(tmp_path / "other", shots=2, classes=1)
    heldout = prepared(other, tmp_path / "unused").source
    keys = [run.plan.signature_key(image) for image in heldout.images]
    extra = [SignTask(heldout.url, i.where, i.sha256, key) for i, key in zip(heldout.images, keys, strict=True)]
    known = {run.plan.signature_key(image) for image in run.source.images}
    new = sorted(set(keys) - known)
    assert new
    assert work(inverter, run, extra) == [{"images": 4, "set_aside": []}, {"images": len(new), "set_aside": []}]
    assert len(files(run, layout.INVERSIONS)) == 4
    assert all(run.storage.read_or_none(layout.signature(key)) for key in new)


def test_an_image_that_cannot_be_signed_is_inverted_all_the_same(
    run: Run, inverter: Inverter, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = inverter._embedder
    assert embedder is not None
    bad = run.source.images[2]
    real = embedder.signatures
    pixels = inverter._read(lambda where: (Path(run.source.url) / where).read_bytes(), "", bad.where, bad.sha256)

    def refuses(images: np.ndarray) -> np.ndarray:
        if any(np.array_equal(image, pixels) for image in images):
            raise ValueError("features are not finite or all zero")
        return real(images)

    monkeypatch.setattr(embedder, "signatures", refuses)
    place = layout.set_aside(layout.signature(run.plan.signature_key(bad)))
    assert work(inverter, run) == [{"images": 4, "set_aside": [place]}]
    reason = "ValueError: features are not finite or all zero"
    assert read_set_aside(run.storage, place) == SetAside(f"{run.source.url}/{bad.where}", bad.sha256, "signed", reason)
    assert len(files(run, layout.INVERSIONS)) == 4
    assert len(files(run, layout.SIGNATURES)) == 4, "three, and the reason"
    assert missing_tasks(run) == []


def test_an_error_of_every_image_is_a_bug(run: Run, inverter: Inverter, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> torch.Tensor:
        raise TypeError("unexpected keyword")

    monkeypatch.setattr(inverter._backbone, "epsilon", broken)
    with pytest.raises(RuntimeError, match=r"all 4 rows of a task fail in the model.*TypeError: unexpected keyword"):
        work(inverter, run)
    assert files(run, layout.INVERSIONS) == {}
