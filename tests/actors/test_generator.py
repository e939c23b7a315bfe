"""The actors themselves, with the embedded model and without Ray: what they stage, and what a bad row costs."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from actors import failures, shield
from actors.attempts import Journal, Process, of_chunk
from actors.failures import deaths_to_isolate
from actors.generator import Generator
from actors.inverter import Inverter, InverterSpec, read_inversion
from diffii.dataset import layout, staged
from diffii.dataset.log import WaveEntry
from diffii.dataset.patience import patiently
from diffii.denoise import denoise
from diffii.errors import ModelError, OutputError, SourceError
from engine.inversions import missing_tasks, task_table
from engine.next_wave import first_wave
from engine.plan import Plan
from engine.prepare import prepare
from engine.row import CHUNK_SCHEMA
from engine.run import Run
from engine.settings import from_flat
from engine.specs import generator_spec, inverter_spec, model_spec
from tests.engine.sources import PLAIN, garments

SETTINGS = {
    **PLAIN,
    "inversion.steps": 3,
    "inversion.micro_batch": 4,
    "generation.steps": 3,
    "generation.micro_batch": 4,
    "commit.chunk_size": 6,
    "expansion.factor": 3,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, WaveEntry]]:
    """A planned run of four classes whose images are inverted."""
    threads = torch.get_num_threads()
    base = tmp_path_factory.mktemp("run")
    source = garments(base / "source", shots=2)
    for file in sorted((source / "Bag").iterdir())[1:]:
        file.unlink()  # a class of one image
    prepared = prepare(from_flat({**SETTINGS, "source.url": str(source), "output.url": str(base / "out")}))
    wave = first_wave(prepared.plan)
    assert wave is not None
    invert(prepared)
    yield prepared, wave
    torch.set_num_threads(threads)


def inverter(run: Run) -> Inverter:
    spec = InverterSpec(
        model=model_spec(run.config),
        output_url=run.storage.url,
        steps=3,
        spacing="matched",
        micro_batch=4,
    )
    return Inverter(spec)


def invert(run: Run) -> None:
    images = missing_tasks(run)
    (told,) = inverter(run)(task_table(images, 100)).to_pylist()
    calls = -(-len(images) // 4) * 3  # of three steps, none of them diffused
    assert told == {"images": len(images), "set_aside": [], "unet_rows": 4 * calls}


def generate(generator: Generator, plan: Plan, wave: WaveEntry, chunk: int = 0) -> list[dict[str, Any]]:
    generator(plan.table(wave, [chunk]))
    return read(generator, chunk)


def read(generator: Generator, chunk: int = 0) -> list[dict[str, Any]]:
    storage = generator._storage
    return staged.read_rows(storage, layout.staged_chunk(0, chunk)).to_pylist()


@pytest.fixture
def generator(run: tuple[Run, WaveEntry], tmp_path: Path) -> Generator:
    """A generator that reads the run's inversions and stages into a folder of its own."""
    (tmp_path / layout.OWN).mkdir()
    (tmp_path / layout.INVERSIONS).symlink_to(Path(run[0].storage.root) / layout.INVERSIONS)
    return Generator(replace(generator_spec(run[0]), output_url=str(tmp_path)))


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


def test_a_row_whose_inversion_is_gone_costs_only_itself(run: tuple[Run, WaveEntry], generator: Generator) -> None:
    plan, wave = run[0].plan, run[1]
    task = plan.table(wave, [0]).to_pylist()
    task[0]["inversion_a"][2] = "00" * 20
    generator(pa.Table.from_pylist(task, schema=CHUNK_SCHEMA))
    rows = read(generator)
    assert [row["outcome"] for row in rows] == ["kept", "kept", "poisoned", "kept", "kept", "kept"]
    assert "FileNotFoundError" in rows[2]["reason"]


@pytest.mark.parametrize("call", ["read", "put_once"])
def test_storage_that_fails_stops_the_run_and_poisons_no_row(
    run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    storage = generator._storage
    name = layout.INVERSIONS if call == "read" else layout.STAGING

    def fails(wanted: str, action: Callable[[], Any]) -> Any:
        def no_room() -> Any:
            raise OSError(errno.ENOSPC, "no room")

        return patiently(f"{storage.url}/{wanted}", False, no_room if wanted.startswith(name) else action)

    monkeypatch.setattr(storage, "patiently", fails)
    with pytest.raises(OutputError, match=rf"{name}/.*: storage fails: no room; nothing is lost"):
        generate(generator, run[0].plan, run[1])
    assert not Path(storage.path(layout.STAGING)).exists()


def test_a_row_that_breaks_the_model_costs_only_itself(
    run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its mates have the bits they have without it: the batch keeps its shape."""
    plan, wave = run[0].plan, run[1]
    healthy = generate(generator, plan, wave)
    generator._storage.remove(layout.staged_chunk(0, 0))
    backbone = generator._backbone
    real = backbone.epsilon
    start = torch.from_numpy(generator._start(vars_of(plan.chunk(wave, 0)[1])).at.noise)

    def breaks(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        if any(torch.equal(row, start) for row in x):
            raise RuntimeError("a kernel asserts")
        return real(x, *rest)

    monkeypatch.setattr(backbone, "epsilon", breaks)
    rows = generate(generator, plan, wave)
    assert [row["outcome"] for row in rows] == ["kept", "poisoned", "kept", "kept", "kept", "kept"]
    assert rows[1]["reason"] == "RuntimeError: a kernel asserts"
    assert [row for k, row in enumerate(rows) if k != 1] == [row for k, row in enumerate(healthy) if k != 1]


def vars_of(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}


def test_an_image_that_is_not_finite_is_rejected(
    run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = generator._backbone
    real = backbone.decode

    def nan_first(latents: torch.Tensor) -> np.ndarray:
        images = real(latents)
        images[0, 0, 0, 0] = np.nan
        return images

    monkeypatch.setattr(backbone, "decode", nan_first)
    rows = generate(generator, run[0].plan, run[1])
    assert [row["outcome"] for row in rows] == ["rejected", "kept", "kept", "kept", "rejected", "kept"]
    assert rows[0]["reason"] == "non-finite"


class Ended(BaseException):
    """Stands for the end of a process."""


class Mortal:
    """Processes of one actor, one after another: rows of a chunk end it, and the next one starts where it left."""

    def __init__(self, generator: Generator, killers: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.generator, self.deaths, self.calls = generator, 0, 0
        model = generator._model

        def ends(rows: list[dict[str, Any]], starts: list[Any], batch: list[int]) -> np.ndarray:
            self.calls += 1
            if any(rows[index]["sample_id"] in killers for index in batch):
                raise Ended
            return model(rows, starts, batch)

        monkeypatch.setattr(generator, "_model", ends)

    def live(self, task: pa.Table) -> None:
        while True:
            self.generator._process = Process(self.generator._spec.run)
            try:
                self.generator(task)
            except Ended:
                self.deaths += 1
            else:
                return


def test_rows_that_end_their_process_cost_only_themselves(
    run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, wave = run[0].plan, run[1]
    healthy = generate(generator, plan, wave)
    generator._storage.remove(layout.staged_chunk(0, 0))
    killers = {healthy[2]["sample_id"], healthy[5]["sample_id"]}
    mortal = Mortal(generator, killers, monkeypatch)
    mortal.live(plan.table(wave, [0]))
    rows = read(generator)
    assert [row["outcome"] for row in rows] == ["kept", "kept", "poisoned", "kept", "kept", "poisoned"]
    assert "ended its process 4 times without a word" in rows[2]["reason"]
    assert [row for row in rows if row["outcome"] == "kept"] == [
        row for row in healthy if row["sample_id"] not in killers
    ]
    assert mortal.deaths <= 2 * deaths_to_isolate(6, 4)
    assert generator._storage.names(layout.attempts_wave(0)) == []


def test_a_batch_is_bisected_not_taken_apart_row_by_row(
    run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, wave = run[0].plan, run[1]
    bad = plan.chunk(wave, 0)[1].sample_id
    sizes: list[int] = []
    model = generator._model

    def raises(rows: list[dict[str, Any]], starts: list[Any], batch: list[int]) -> np.ndarray:
        sizes.append(len(batch))
        if any(rows[index]["sample_id"] == bad for index in batch):
            raise RuntimeError("a kernel asserts")
        return model(rows, starts, batch)

    monkeypatch.setattr(generator, "_model", raises)
    rows = generate(generator, plan, wave)
    assert [row["outcome"] for row in rows].count("poisoned") == 1
    assert sizes == [4] * 6, "two batches, and 2 + 2 calls for the halves of the first; always the same shape"


def test_an_error_of_every_row_is_a_bug_and_shows_a_recipe(
    run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> torch.Tensor:
        raise TypeError("unexpected keyword")

    monkeypatch.setattr(generator._backbone, "epsilon", broken)
    with pytest.raises(RuntimeError, match=r'all 6 rows .* TypeError: unexpected keyword.*"kind": "diff-ii"'):
        generator(run[0].plan.table(run[1], [0]))
    assert generator._storage.names(layout.staged_wave(0)) == []


class TestOutOfMemory:
    """Not a row's fault: once more, then the actor ends; when all do, the key is named."""

    @pytest.fixture(autouse=True)
    def no_exit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def end() -> None:
            raise Ended

        monkeypatch.setattr(failures, "leave", end)

    @staticmethod
    def fill(generator: Generator, monkeypatch: pytest.MonkeyPatch, times: float) -> list[int]:
        model, calls = generator._model, [0]

        def full(rows: list[dict[str, Any]], starts: list[Any], batch: list[int]) -> np.ndarray:
            calls[0] += 1
            if calls[0] <= times:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return model(rows, starts, batch)

        monkeypatch.setattr(generator, "_model", full)
        return calls

    def test_once_is_overcome(
        self, run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.fill(generator, monkeypatch, 1)
        rows = generate(generator, run[0].plan, run[1])
        assert {row["outcome"] for row in rows} == {"kept"}

    def test_for_ever_names_the_key(
        self, run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = self.fill(generator, monkeypatch, float("inf"))
        task = run[0].plan.table(run[1], [0])
        for actor in range(failures.OUT_OF_MEMORY_TRIES):
            generator._process = Process(generator._spec.run)
            with pytest.raises(Ended):
                generator(task)
            assert calls[0] == 2 * (actor + 1)
        with pytest.raises(ModelError, match=r"generation\.micro_batch: 4 images at a time"):
            generator(task)
        assert generator._storage.names(layout.staged_wave(0)) == []


def test_a_lost_cuda_context_ends_the_process_with_the_reason(
    run: tuple[Run, WaveEntry], generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bisecting in a process that can compute nothing any more would poison every row."""

    def end() -> None:
        raise Ended

    def asserts(*_: Any) -> np.ndarray:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(failures, "leave", end)
    monkeypatch.setattr(shield, "device_lost", lambda device: True)
    monkeypatch.setattr(generator, "_model", asserts)
    with pytest.raises(Ended):
        generator(run[0].plan.table(run[1], [0]))
    journal = Journal(generator._storage, of_chunk(0, 0), Process(generator._spec.run), set)
    (death,) = journal.deaths
    assert (death.rows, death.cause) == (set(range(6)), "RuntimeError: CUDA error: device-side assert triggered")


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
