"""A card is kept busy: no call of the model has empty rows, and between two calls nobody asks what the first gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from actors.generator import Generator
from actors.inverter import Inverter
from diffii.backbone import Backbone
from diffii.dataset import layout, staged
from diffii.denoise import denoise
from diffii.invert import invert
from diffii.kinds import Solver
from engine.inversions import missing_tasks, task_table
from engine.next_wave import first_wave
from engine.prepare import prepare
from engine.settings import from_flat
from engine.specs import generator_spec, inverter_spec
from tests.engine.sources import PLAIN, garments


class NoQuestions(TorchDispatchMode):
    """Refuses every operation whose answer has to come from the card before Python can go on."""

    ASKING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "item", "masked_select", "unique")

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in self.ASKING, f"{func} waits for the card"
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone.load("garments")


def test_the_check_sees_a_question() -> None:
    with torch.inference_mode(), pytest.raises(AssertionError, match="waits for the card"), NoQuestions():
        float(torch.ones(2).max())


@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
@pytest.mark.parametrize("steps", [None, [3, 2]], ids=["whole", "edited"])
def test_denoising_asks_nothing_until_its_end(backbone: Backbone, solver: Solver, steps: list[int] | None) -> None:
    x = torch.randn(2, *backbone.latent_shape)
    plain, suffixed = ["a photo of a bag", "a photo of a coat"], ["a photo of a bag at sea", "a photo of a coat at sea"]
    backbone.prompts([*plain, *suffixed, ""])  # kept from then on
    with NoQuestions():
        denoise(
            backbone,
            x,
            plain,
            suffixed,
            backbone.grid(3, "matched"),
            0.3,
            3.0,
            steps,
            interval=(0.2, 0.7),
            solver=solver,
        )


@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
def test_inversion_asks_nothing_until_its_end(backbone: Backbone, solver: Solver) -> None:
    x, noise = torch.randn(2, 2, *backbone.latent_shape)
    prompts = ["a photo of a bag", "a photo of a coat"]
    backbone.prompts(prompts)
    with NoQuestions():
        invert(backbone, x, prompts, backbone.grid(4, "matched"), diffused=1, noise_BCHW=noise, solver=solver)


def test_rows_of_many_small_classes_share_a_call(tmp_path: Path) -> None:
    """Two rows for each of ten classes are five full calls of four, not ten half-empty ones."""
    source = garments(tmp_path / "source", shots=2, classes=10)
    settings = {
        **PLAIN,
        "inversion.steps": 2,
        "generation.steps": 2,
        "inversion.micro_batch": 4,
        "generation.micro_batch": 4,
        "commit.chunk_size": 20,
        "expansion.factor": 1,
    }
    run = prepare(from_flat({**settings, "source.url": str(source), "output.url": str(tmp_path / "out")}))
    wave = first_wave(run.plan)
    assert wave is not None
    images = missing_tasks(run)
    (told,) = Inverter(inverter_spec(run))(task_table(images, 100)).to_pylist()
    assert (told["images"], told["unet_rows"]) == (20, 20 * 2)
    generator = Generator(replace(generator_spec(run), interval=(0.0, 1.0)))
    (made,) = generator(run.plan.table(wave, [0])).to_pylist()
    rows = staged.read_rows(run.storage, layout.staged_chunk(0, 0)).to_pylist()
    assert len({row["label"] for row in rows}) == 10
    assert (made["rows"], made["lost"]) == (20, 0)
    assert made["unet_rows"] == 20 * 2 * 2  # of two steps, each asked twice
