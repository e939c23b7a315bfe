"""Invert and denoise with the embedded model: the round trip, the two stages, and law 5."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from diffii.backbone import Backbone
from diffii.circle import gaussian
from diffii.denoise import denoise
from diffii.garments.catalog import CONTEXTS
from diffii.garments.data import pool
from diffii.garments.scene import compose
from diffii.invert import fixed_batches, invert
from diffii.schedule import steps_within


@pytest.fixture(scope="module")
def backbone() -> Iterator[Backbone]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Backbone.load("garments", device="cpu")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    photos = pool().pixels[::250]
    return np.stack([compose(photo, list(CONTEXTS)[k % 5], k) for k, photo in enumerate(photos)])


def noise(backbone: Backbone, rows: int, first: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.stack([gaussian(first + k, backbone.latent_shape) for k in range(rows)]))


def test_round_trip_at_guidance_one(backbone: Backbone, images: np.ndarray) -> None:
    prompts = ["a photo of a top"] * len(images)
    latents = backbone.encode(images)
    grid = backbone.grid(50, "matched")
    inversions = invert(backbone, latents, prompts, grid)
    back = denoise(backbone, inversions, prompts, prompts, grid, 1.0, 1.0)
    error = float((back - latents).square().mean().sqrt() / latents.std())
    assert error < 0.1
    shown = np.abs(np.clip(backbone.decode(back), 0, 1) * 255 - images).mean()
    print(f"round trip: latent error {error:.3f}, {shown:.1f} of 255, inversion std {float(inversions.std()):.3f}")
    assert shown < 12, "the autoencoder's own error included"


def test_inversions_are_close_to_gaussian_and_differ_by_image(backbone: Backbone, images: np.ndarray) -> None:
    latents = backbone.encode(images)
    inversions = invert(backbone, latents, ["a photo of a top"] * len(images), backbone.grid(50, "matched"))
    assert 0.6 < float(inversions.std()) < 1.2
    flat = torch.nn.functional.normalize(inversions.flatten(1), dim=1)
    cosines = (flat @ flat.T)[~torch.eye(len(images), dtype=torch.bool)]
    assert float(cosines.abs().max()) < 0.6


def test_diffusing_the_first_steps_makes_inversions_as_long_as_noise(backbone: Backbone, images: np.ndarray) -> None:
    prompts, grid = ["a photo of a top"] * len(images), backbone.grid(50, "matched")
    latents, fresh = backbone.encode(images), noise(backbone, len(images))
    inverted = float(invert(backbone, latents, prompts, grid).std())
    diffused = steps_within(grid, 0.04)
    assert diffused == 2
    partly = invert(backbone, latents, prompts, grid, diffused, fresh)
    assert inverted < 0.9 < float(partly.std()) < 1.1
    back = denoise(backbone, partly, prompts, prompts, grid, 1.0, 1.0)
    assert float((back - latents).square().mean().sqrt() / latents.std()) < 0.2, "it still is an inversion of the image"
    level = grid.alphas[-1]
    whole = invert(backbone, latents, prompts, grid, grid.steps, fresh)
    assert torch.equal(whole, level**0.5 * latents + (1 - level) ** 0.5 * fresh)


def test_the_suffix_is_seen_in_the_first_stage_only(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, bool]] = []
    suffix = backbone.prompt("a photo of a shoe on grass")
    real = backbone.epsilon

    def watch(x: torch.Tensor, timestep: int, alpha: float, text: torch.Tensor) -> torch.Tensor:
        seen.append((timestep, any(torch.equal(row, suffix) for row in text)))
        return real(x, timestep, alpha, text)

    monkeypatch.setattr(backbone, "epsilon", watch)
    start = noise(backbone, 2)
    for guidance in (1.0, 3.0):
        seen.clear()
        denoise(backbone, start, ["a photo of a shoe"] * 2, ["a photo of a shoe on grass"] * 2,
                backbone.grid(10, "matched"), 0.3, guidance)  # fmt: skip
        assert seen == [(t, t >= 700) for t in (999, 899, 799, 699, 599, 499, 399, 299, 199, 99)]


def test_split_one_and_zero_are_one_stage(backbone: Backbone) -> None:
    start, grid = noise(backbone, 4), backbone.grid(8, "matched")
    plain, suffixed = ["a photo of a bag"] * 4, ["a photo of a bag on water"] * 4
    every = denoise(backbone, start, plain, suffixed, grid, 1.0, 3.0)
    assert torch.equal(every, denoise(backbone, start, suffixed, suffixed, grid, 0.5, 3.0))
    none = denoise(backbone, start, plain, suffixed, grid, 0.0, 3.0)
    assert torch.equal(none, denoise(backbone, start, plain, plain, grid, 0.5, 3.0))
    assert not torch.equal(every, none)


def test_guidance_one_is_the_prompt_alone(backbone: Backbone) -> None:
    start, grid, prompts = noise(backbone, 2), backbone.grid(4, "matched"), ["a photo of a dress"] * 2
    once = denoise(backbone, start, prompts, prompts, grid, 1.0, 1.0)
    twice = denoise(backbone, start, prompts, prompts, grid, 1.0, 1.0 + 1e-7)
    torch.testing.assert_close(once, twice, rtol=1e-3, atol=1e-3)


class TestLaw5:
    """A row's bits depend on the row and the batch's shape: not on neighbours, position or padding.

    The number of threads does change them, which is why it is fixed by the run and part of the fingerprint.
    """

    def make(self, backbone: Backbone, rows: list[int]) -> np.ndarray:
        start = torch.cat([noise(backbone, 1, first=100 + row) for row in rows])
        prompts = [f"a photo of a {'shoe' if row % 2 else 'bag'}" for row in rows]
        suffixed = [f"{prompt} on sand" for prompt in prompts]
        latents = denoise(backbone, start, prompts, suffixed, backbone.grid(6, "matched"), 0.3, 3.0)
        return backbone.decode(latents)

    def test_other_neighbours_and_positions(self, backbone: Backbone) -> None:
        alone = self.make(backbone, [0, 1, 2, 3])
        other = self.make(backbone, [9, 8, 0, 7])
        assert alone[0].tobytes() == other[2].tobytes()

    def test_padding_by_repetition(self, backbone: Backbone) -> None:
        full = self.make(backbone, [0, 1, 2, 3])
        ((places, real),) = fixed_batches(2, 4)
        assert (places, real) == ([0, 1, 1, 1], 2)
        padded = self.make(backbone, places)
        assert full[:2].tobytes() == padded[:2].tobytes()

    def test_inversion(self, backbone: Backbone, images: np.ndarray) -> None:
        grid = backbone.grid(5, "matched")
        first = invert(backbone, backbone.encode(images[:4]), ["a photo of a top"] * 4, grid)
        mixed = images[[3, 2, 0, 1]]
        second = invert(backbone, backbone.encode(mixed), ["a photo of a bag"] * 2 + ["a photo of a top"] * 2, grid)
        assert torch.equal(first[0], second[2])


@pytest.mark.parametrize(("rows", "size"), [(0, 4), (1, 4), (4, 4), (5, 4), (9, 4)])
def test_fixed_batches_cover_every_row_once(rows: int, size: int) -> None:
    batches = list(fixed_batches(rows, size))
    assert all(len(places) == size for places, _ in batches)
    assert [place for places, real in batches for place in places[:real]] == list(range(rows))
