"""Diffusion captioning with the embedded model: right contexts, the same for an image whatever its mates."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffii.backbone import Backbone
from diffii.contexts.candidates import GENERAL, default_candidates
from diffii.contexts.diffusion import Choice, DiffusionSettings, choose_contexts, rows_per_image
from diffii.garments.catalog import COARSE_OF, CONTEXTS, caption
from diffii.garments.data import export_pool
from diffii.hashing import seed64
from diffii.weights import EMBEDDED

FIVE = tuple(CONTEXTS.values())


@cache
def backbone() -> Backbone:
    return Backbone.load(EMBEDDED, device="cpu")


class Photos:
    def __init__(self, folder: Path, shots: int) -> None:
        export_pool(folder, shots, seed=5)
        files = sorted(folder.rglob("*.png"))
        self.images = np.stack([np.asarray(Image.open(file)) for file in files])
        self.prompts = [caption(COARSE_OF[file.parent.name], None) for file in files]
        self.right = [CONTEXTS[file.stem.split("-", 1)[1]] for file in files]
        self.seeds = [seed64(file.name) for file in files]

    def choose(self, rows: list[int], settings: DiffusionSettings, candidates: tuple[str, ...] = FIVE) -> list[Choice]:
        prompts, seeds = [self.prompts[row] for row in rows], [self.seeds[row] for row in rows]
        return choose_contexts(backbone(), self.images[rows], prompts, seeds, candidates, settings)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    return Photos(tmp_path_factory.mktemp("photos"), shots=3)


def test_four_of_five_contexts_are_found(photos: Photos) -> None:
    found = photos.choose(list(range(30)), DiffusionSettings())
    assert sum(choice.context == right for choice, right in zip(found, photos.right, strict=True)) >= 24
    assert all(choice.score < 1.0 and choice.margin >= 0.0 for choice in found)


def test_neighbours_order_and_number_of_images_change_nothing(photos: Photos) -> None:
    settings = DiffusionSettings(micro_batch=7)
    together = photos.choose([0, 1, 2, 3], settings)
    assert photos.choose([2, 3, 0, 1], settings) == [together[row] for row in (2, 3, 0, 1)]
    assert photos.choose([3], settings) == together[3:]


def test_another_seed_is_another_noise(photos: Photos) -> None:
    settings = DiffusionSettings(levels=(0.9,))
    first = photos.choose([0], settings)
    photos.seeds[0] += 1
    second = photos.choose([0], settings)
    photos.seeds[0] -= 1
    assert first[0].score != second[0].score


def test_rows_are_what_is_promised_in_batches_of_one_shape(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    real = Backbone.epsilon

    def counted(self: Backbone, x: torch.Tensor, timestep: int, alpha: float, text: torch.Tensor) -> torch.Tensor:
        calls.append((len(x), timestep))
        return real(self, x, timestep, alpha, text)

    monkeypatch.setattr(Backbone, "epsilon", counted)
    settings = DiffusionSettings(levels=(0.95, 0.85, 0.7), keep=0.5, micro_batch=4)
    photos.choose([0, 1, 2, 3], settings)
    assert [size for size, _ in calls] == [4] * rows_per_image(5, settings)
    assert [timestep for _, timestep in calls] == [950] * 5 + [850] * 3 + [700] * 2
    assert rows_per_image(5, settings) == 5 + 3 + 2
    assert rows_per_image(5, DiffusionSettings(keep=1.0)) == 10


def test_the_noise_and_the_image_are_the_same_for_all_candidates(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    real = Backbone.epsilon

    def watched(self: Backbone, x: torch.Tensor, timestep: int, alpha: float, text: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        return real(self, x, timestep, alpha, text)

    monkeypatch.setattr(Backbone, "epsilon", watched)
    photos.choose([0], DiffusionSettings(levels=(0.9,), micro_batch=5))
    assert len(seen) == 1 and bool((seen[0] == seen[0][0]).all())


def test_a_long_list_still_finds_the_right_ones(photos: Photos) -> None:
    found = photos.choose(list(range(8)), DiffusionSettings(), (*FIVE, "in a showroom", "under water", "by a window"))
    assert sum(choice.context == right for choice, right in zip(found, photos.right, strict=False)) >= 5


def test_no_images_are_no_choices(photos: Photos) -> None:
    assert photos.choose([], DiffusionSettings()) == []


def test_one_candidate_is_taken_without_asking(photos: Photos) -> None:
    assert photos.choose([0, 1], DiffusionSettings(), ("on grass",)) == [Choice("on grass", 1.0, 0.0)] * 2
    assert rows_per_image(1, DiffusionSettings()) == 0


def test_the_general_list_serves_models_other_than_the_embedded() -> None:
    assert default_candidates(EMBEDDED) == FIVE
    assert default_candidates("some/model") == GENERAL
    assert len(set(GENERAL)) == len(GENERAL) >= 40


@pytest.mark.parametrize("candidates", [(), ("on grass", "on grass")])
def test_no_or_repeated_candidates_are_refused(photos: Photos, candidates: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="different candidate contexts"):
        photos.choose([0], DiffusionSettings(), candidates)


@pytest.mark.parametrize(
    "wrong", [{"levels": ()}, {"levels": (1.0,)}, {"levels": (0.0,)}, {"keep": 0.0}, {"keep": 1.5}, {"micro_batch": 0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).replace("micro_batch", "micro-batch")):
        DiffusionSettings(**wrong)  # type: ignore[arg-type]
