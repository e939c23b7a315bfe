"""The actors themselves, with the embedded model and without Ray: what they stage, and what a bad row costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from actors.generator import Generator
from actors.inverter import Inverter, read_inversion
from diffii.dataset import layout, staged
from diffii.dataset.log import WaveEntry
from diffii.denoise import denoise
from diffii.errors import SourceError
from engine.inversions import missing_tasks, task_table
from engine.next_wave import first_wave
from engine.prepare import prepare
from engine.run import Run
from engine.settings import from_flat
from engine.specs import generator_spec, inverter_spec
from tests.actors.generating import SETTINGS, generate, invert, read, vars_of
from tests.engine.sources import garments

pytest_plugins = ["tests.actors.generating"]


def test_a_chunk_is_staged_in_plan_order_with_its_recipes(run: tuple[Run, WaveEntry], generator: Generator) -> None:
    plan, wave = run[0].plan, run[1]
    rows = generate(generator, plan, wave)
    planned = plan.chunk(wave, 0)
    assert [row["sample_id"] for row in rows] == [row.sample_id for row in planned]
    assert {row["outcome"] for row in rows} == {staged.KEPT}
    assert len({row["image_sha256"] for row in rows}) == len(rows)
    assert [row["phi"] for row in rows] == [row.phi for row in planned]
    assert all(0 < row["theta"] < np.pi for row in rows)
    table, fingerprint = staged.read_signature(generator._storage, layout.staged_chunk(0, 0))
    assert table.column_names == staged.SIGNATURE
    assert fingerprint.startswith("cpu float32 sdpa threads-1 torch-")
    assert fingerprint.endswith("batch-4")


def test_a_class_of_one_image_is_expanded(run: tuple[Run, WaveEntry], generator: Generator) -> None:
    plan, wave = run[0].plan, run[1]
    bag = run[0].source.classes.index("Bag")
    rows = [row for chunk in range(plan.chunk_count(wave)) for row in generate(generator, plan, wave, chunk)]
    bags = [row for row in rows if row["label"] == bag]
    assert len(bags) == 3
    assert len({row["image_sha256"] for row in bags}) == 3
    assert {row["outcome"] for row in bags} == {staged.KEPT}


def test_the_first_writer_of_a_chunk_wins(run: tuple[Run, WaveEntry], generator: Generator) -> None:
    task = run[0].plan.table(run[1], [0])
    assert generator(task).to_pylist()[0]["first"] is True
    before = read(generator)
    assert generator(task).to_pylist()[0]["first"] is False
    assert read(generator) == before


def test_inversions_are_cached_by_content_and_the_same_twice(run: tuple[Run, WaveEntry]) -> None:
    prepared, key = run[0], run[0].plan.inversions()[0].key
    latent, inversion = read_inversion(prepared.storage, key)
    assert latent.shape == inversion.shape == (4, 16, 16)
    assert latent.dtype == np.float32
    prepared.storage.remove(layout.inversion(key))
    invert(prepared)
    assert read_inversion(prepared.storage, key)[1].tobytes() == inversion.tobytes()


def test_what_is_stored_of_an_image_is_that_image(run: tuple[Run, WaveEntry], generator: Generator) -> None:
    """Number by number: the autoencoder hands its latents over with channels last in memory."""
    prepared, backbone = run[0], generator._backbone
    grid, prompts = backbone.grid(SETTINGS["inversion.steps"], "matched"), []
    stored, shown = [], []
    for item, image in zip(prepared.plan.inversions(), prepared.source.images, strict=True):
        stored.append(read_inversion(prepared.storage, item.key))
        shown.append(np.asarray(Image.open(f"{prepared.source.url}/{image.where}").convert("RGB"), dtype=np.float32))
        prompts.append(item.prompt)
    latents, inversions = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*stored, strict=True))
    seen = np.clip(backbone.decode(latents), 0, 1) * 255
    assert np.abs(seen - shown).mean() < 12
    back = denoise(backbone, inversions, prompts, prompts, grid, 1.0, 1.0)
    near = np.abs((np.clip(backbone.decode(back), 0, 1) * 255)[:, None] - np.stack(shown)[None]).mean((2, 3, 4))
    assert (near.argmin(1) == np.arange(len(shown))).all(), "an inversion leads back to its own image"


def test_a_source_image_that_changed_is_named(run: tuple[Run, WaveEntry], tmp_path: Path) -> None:
    source = garments(tmp_path / "source", shots=1, classes=1)
    prepared = prepare(from_flat({**SETTINGS, "source.url": str(source), "output.url": str(tmp_path / "out")}))
    victim = next(source.rglob("*.png"))
    victim.write_bytes(victim.read_bytes() + b"x")
    with pytest.raises(SourceError, match=f"{victim.name} has changed since it was planned"):
        invert(prepared)


def test_specs_follow_the_resolved_configuration(run: tuple[Run, WaveEntry], tmp_path: Path) -> None:
    settings = {"inversion.preset": "reference", "source.url": run[0].source.url, "output.url": str(tmp_path / "out")}
    spec = generator_spec(prepare(from_flat(settings)))
    assert (spec.spacing, spec.steps, spec.guidance) == ("leading", 25, 7.5)


def test_edits_begin_part_of_the_way_and_no_bit_follows_from_their_mates(
    run: tuple[Run, WaveEntry], tmp_path: Path
) -> None:
    config = {**SETTINGS, "arm.name": "diff-mix", "arm.strength": [0.3, 1.0], "output.url": str(tmp_path)}
    edits = prepare(from_flat({**config, "source.url": run[0].source.url}))
    wave = first_wave(edits.plan)
    assert wave is not None
    images = missing_tasks(edits)
    assert len({image.key for image in images}) == len(images)
    Inverter(inverter_spec(edits))(task_table(images, 100))
    latent, inversion = read_inversion(edits.storage, images[0].key)
    assert (latent.shape, inversion.size) == ((4, 16, 16), 0), "encoded, and not inverted"
    generator = Generator(generator_spec(edits))
    rows, planned = generate(generator, edits.plan, wave), edits.plan.chunk(wave, 0)
    assert {row["strength"] for row in rows} == {0.3, 1.0}
    for row, plan_row in zip(rows, planned, strict=True):
        assert (row["source_label"], row["label_weight"]) == (plan_row.source_label, plan_row.strength**0.5)
        assert row["source_label"] != row["label"]
        alone = generator.make_row(vars_of(plan_row))
        assert alone["image_sha256"] == row["image_sha256"], "its batch mates begin elsewhere"
