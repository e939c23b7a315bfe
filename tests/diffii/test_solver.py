"""DPM-Solver++ 2M against diffusers' own, and both directions of it on a distribution whose score is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from diffii.kinds import Solver
from diffii.schedule import Grid, ddim_move, make_grid
from diffii.solver import path

TRAIN = 1000
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, TRAIN, dtype=torch.float64) ** 2
ALPHAS = torch.cumprod(1.0 - BETAS, 0).numpy()
Model = Callable[[torch.Tensor, int, float], torch.Tensor]


def a_model(x: torch.Tensor, timestep: int, alpha: float) -> torch.Tensor:
    """Something that answers like a model: smooth in x, another at every timestep."""
    return torch.tanh(x * (0.3 + timestep / TRAIN)) * 0.9 + 0.05 * math.sin(timestep)


def gaussian_score(mean: float, std: float) -> Model:
    """The exact noise in x when the data are Gaussian."""

    def epsilon(x: torch.Tensor, timestep: int, alpha: float) -> torch.Tensor:
        variance = alpha * std**2 + 1.0 - alpha
        return (1.0 - alpha) ** 0.5 * (x - alpha**0.5 * mean) / variance

    return epsilon


def descend(x: torch.Tensor, grid: Grid, model: Model, solver: Solver) -> torch.Tensor:
    way = path(solver)
    for index in reversed(range(grid.steps)):
        alpha = grid.alphas[index]
        x = way.move(x, model(x, grid.timesteps[index], alpha), alpha, grid.below(index))
    return x


def climb(x: torch.Tensor, grid: Grid, model: Model, solver: Solver, first: int) -> torch.Tensor:
    way = path(solver)
    for index in range(first, grid.steps):
        below = grid.below(index)
        x = way.move(x, model(x, grid.timesteps[index], below), below, grid.alphas[index])
    return x


@pytest.mark.parametrize("steps", [2, 5, 12, 25])
def test_it_is_what_diffusers_computes(steps: int) -> None:
    theirs = DPMSolverMultistepScheduler(
        num_train_timesteps=TRAIN,
        trained_betas=BETAS.numpy(),
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
        final_sigmas_type="zero",
    )
    grid = make_grid(ALPHAS, 1.0, steps, "matched")
    theirs.set_timesteps(timesteps=list(reversed(grid.timesteps)))
    start = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    x = start.clone()
    for timestep in theirs.timesteps:
        answer: Any = theirs.step(a_model(x, int(timestep), 0.0), timestep, x, return_dict=False)
        x = answer[0]
    ours = descend(start, grid, a_model, "dpm++")
    torch.testing.assert_close(ours, x, rtol=2e-4, atol=2e-4)


def test_without_a_step_before_it_is_ddim() -> None:
    x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    epsilon = a_model(x, 500, 0.0)
    for here, there in ((0.2, 0.5), (0.5, 0.2), (1.0, 0.9), (0.9, 1.0)):
        torch.testing.assert_close(path("dpm++").move(x, epsilon, here, there), ddim_move(x, epsilon, here, there))


@given(place=st.integers(0, 10), rows=st.integers(1, 4))
@settings(max_examples=25)
def test_a_row_that_begins_later_goes_as_if_it_were_alone(place: int, rows: int) -> None:
    """Until its first step a row waits beside mates that are on their way; nothing of theirs reaches it."""
    grid = make_grid(ALPHAS, 1.0, 11, "matched")
    start = torch.randn(rows + 1, 1, 4, 4, generator=torch.Generator().manual_seed(place))
    begins = torch.tensor([grid.steps] * rows + [place + 1]).view(-1, 1, 1, 1)
    way, x = path("dpm++"), start
    for index in reversed(range(grid.steps)):
        alpha = grid.alphas[index]
        moved = way.move(x, a_model(x, grid.timesteps[index], alpha), alpha, grid.below(index), begins == index + 1)
        x = torch.where(begins > index, moved, x)
    alone = Grid(grid.timesteps[: place + 1], grid.alphas[: place + 1], 1.0, TRAIN)
    torch.testing.assert_close(x[-1:], descend(start[-1:], alone, a_model, "dpm++"))


@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
def test_both_directions_know_a_gaussian(solver: Solver) -> None:
    """Where the score is known exactly, the way up makes noise of the right length, and the way down makes data."""
    mean, std = 0.7, 0.4
    model = gaussian_score(mean, std)
    grid = make_grid(ALPHAS, 1.0, 100, "matched")
    noise = torch.randn(4000, 1, 1, 1, generator=torch.Generator().manual_seed(3))
    data = descend(noise, grid, model, solver)
    assert float(data.mean()) == pytest.approx(mean, abs=0.03)
    assert float(data.std()) == pytest.approx(std, abs=0.03)
    up = climb(mean + std * noise, grid, model, solver, 0)
    assert float(up.std()) == pytest.approx(1.0, abs=0.05)
    assert np.corrcoef(up.flatten(), noise.flatten())[0, 1] > 0.999


def test_in_as_many_steps_it_comes_closer_than_ddim() -> None:
    model = gaussian_score(0.7, 0.4)
    noise = torch.randn(500, 1, 1, 1, generator=torch.Generator().manual_seed(4))
    exact = descend(noise, make_grid(ALPHAS, 1.0, 1000, "matched"), model, "ddim")

    def error(solver: Solver, steps: int) -> float:
        return float((descend(noise, make_grid(ALPHAS, 1.0, steps, "matched"), model, solver) - exact).abs().mean())

    for steps in (8, 12, 25):
        assert error("dpm++", steps) < error("ddim", steps)
