"""Grids, the moment the prompt changes, and the DDIM step against diffusers' own schedulers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st

from diffii.schedule import Grid, ddim_move, first_stage, make_grid, steps_within, to_epsilon

SD = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def scheduler(prediction: str = "epsilon") -> DDIMScheduler:
    return DDIMScheduler(**SD, prediction_type=prediction)  # pyright: ignore[reportArgumentType]


def grid(steps: int, spacing: str = "matched") -> Grid:
    alphas = scheduler().alphas_cumprod.double().numpy()
    return make_grid(alphas, float(alphas[0]), steps, spacing)  # pyright: ignore[reportArgumentType]


@given(steps=st.integers(1, 1000))
def test_matched_grids_of_any_length_meet_at_the_top(steps: int) -> None:
    timesteps = grid(steps).timesteps
    assert timesteps[-1] == 999
    assert len(set(timesteps)) == steps
    assert list(timesteps) == sorted(timesteps)


def test_leading_grid_is_the_published_codes() -> None:
    assert grid(200, "leading").timesteps[-1] == 996
    assert grid(25, "leading").timesteps[-1] == 961
    ours = scheduler()
    ours.set_timesteps(25)
    assert list(grid(25, "leading").timesteps) == sorted(ours.timesteps.tolist())


def test_a_grid_needs_between_one_and_all_timesteps() -> None:
    for steps in (0, 1001):
        with pytest.raises(ValueError, match="between 1 and 1000"):
            grid(steps)


@pytest.mark.parametrize(("split", "count"), [(0.0, 0), (0.04, 1), (0.1, 3), (0.3, 8), (0.5, 13), (1.0, 25)])
def test_stage_boundary(split: float, count: int) -> None:
    # 25 steps at t = 39, 79, ..., 999: the first stage is t >= 1000 (1 - s).
    stage = first_stage(grid(25), split)
    assert sum(stage) == count
    assert stage == tuple(sorted(stage)), "the suffix rules the noisy end"


@given(hundredths=st.integers(0, 100))
def test_stage_boundary_is_exact_at_every_split(hundredths: int) -> None:
    every = Grid(tuple(range(1000)), tuple([0.5] * 1000), 1.0, 1000)
    first = 1000 - Fraction(hundredths, 100) * 1000
    assert first_stage(every, hundredths / 100) == tuple(t >= first for t in range(1000))


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.039, 0), (0.04, 1), (0.12, 3), (0.28, 7), (1.0, 25)])
def test_steps_within_a_share_of_the_path(share: float, count: int) -> None:
    assert steps_within(grid(25), share) == count


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_descending_is_diffusers_ddim(prediction: str) -> None:
    theirs = scheduler(prediction)
    theirs.set_timesteps(25)
    ours = grid(25, "leading")
    generator = torch.Generator().manual_seed(0)
    x = y = torch.randn(2, 4, 8, 8, generator=generator)
    for index in reversed(range(25)):
        out = torch.randn(2, 4, 8, 8, generator=generator)
        x = theirs.step(out, ours.timesteps[index], x).prev_sample  # pyright: ignore
        epsilon = to_epsilon(out, y, ours.alphas[index], prediction)
        y = ddim_move(y, epsilon, ours.alphas[index], ours.below(index))
    torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_climbing_is_diffusers_inverse_ddim(prediction: str) -> None:
    theirs = DDIMInverseScheduler(**SD, prediction_type=prediction)  # pyright: ignore[reportArgumentType]
    theirs.set_timesteps(50)
    ours = grid(50, "leading")
    assert theirs.timesteps.tolist() == list(ours.timesteps)
    generator = torch.Generator().manual_seed(1)
    x = y = torch.randn(2, 4, 8, 8, generator=generator)
    for index, timestep in enumerate(ours.timesteps):
        out = torch.randn(2, 4, 8, 8, generator=generator)
        x = theirs.step(out, timestep, x).prev_sample  # pyright: ignore
        epsilon = to_epsilon(out, y, ours.below(index), prediction)
        y = ddim_move(y, epsilon, ours.below(index), ours.alphas[index])
    torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


def test_climbing_then_descending_with_one_epsilon_is_the_identity() -> None:
    x, epsilon = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    there = ddim_move(x, epsilon, 0.9, 0.05)
    torch.testing.assert_close(ddim_move(there, epsilon, 0.05, 0.9), x, rtol=1e-3, atol=1e-4)


def test_an_unknown_prediction_type_is_refused() -> None:
    with pytest.raises(ValueError, match="sample"):
        to_epsilon(torch.zeros(1), torch.zeros(1), 0.5, "sample")


def test_alphas_come_from_the_schedule() -> None:
    np.testing.assert_allclose(grid(10).alphas[-1], float(scheduler().alphas_cumprod[999]), rtol=1e-6)
