"""What a run costs follows from what is estimated and the prices, and on spot from what is made again."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from diffii.errors import ConfigError
from engine.cost import CHUNKS_LOST, Prices, cost
from engine.estimate import Estimate

FOUND = Estimate(
    classes=4,
    real_images=40,
    skipped=0,
    synthetic_images=16_000,
    chunks=250,
    unet_calls=1,
    unet_rows=1,
    actors=8,
    device="cuda",
    images_per_second=1.0,
    chunk_seconds=60.0,
    start_seconds=30.0,
    seconds=36_000.0 - 180.0,
    caption_seconds=0.0,
    learn_seconds=0.0,
    disk_bytes=1,
)


def test_machines_that_stay_cost_their_hours() -> None:
    found = cost(FOUND, Prices(on_demand=2.5))
    assert (found.machines, found.machine_hours, found.on_demand, found.spot) == (8, 80.0, 200.0, None)
    assert cost(FOUND, Prices(on_demand=2.5, actors_per_machine=4)).on_demand == 50.0
    assert cost(FOUND, Prices(on_demand=2.5, actors_per_machine=3)).machines == 3
    assert cost(replace(FOUND, seconds=0.0), Prices(on_demand=2.5)).on_demand == 0.0


def test_spot_pays_for_what_is_made_again_and_for_new_machines() -> None:
    found = cost(FOUND, Prices(spot=1.0, preemptions=0.5))
    assert found.lost_seconds == CHUNKS_LOST * 60 + 180 + 30 == 300
    assert found.overhead == pytest.approx(0.5 * 300 / 3600)
    assert found.spot_hours == pytest.approx(80 / (1 - 150 / 3600))
    assert found.preemptions == pytest.approx(0.5 * found.spot_hours)
    # What is paid is the work and what each preemption costs.
    assert found.spot_hours * 3600 == pytest.approx(80 * 3600 + found.preemptions * 300)
    assert cost(FOUND, Prices(spot=1.0, preemptions=0.0)).spot == 80.0


def test_it_is_what_happens_on_average() -> None:
    """Machines that are taken away at random, played hour by hour until the work is done."""
    prices, draw = Prices(spot=1.0, preemptions=2.0), random.Random(0)
    hours = 0.0
    for _ in range(400):
        left = 10.0
        while left > 0:
            lives = draw.expovariate(2.0)
            hours += min(lives, left)
            left -= lives
            if left > 0:
                hours += 300 / 3600
    # Nothing is taken away here while a machine boots, so that there is a little less of it.
    assert hours / 400 == pytest.approx(10 / (1 - cost(FOUND, prices).overhead), rel=0.04)


def test_machines_that_get_nothing_done_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"12 preemptions an hour, each of which costs a machine 300 s, leave no time"
    ):
        cost(FOUND, Prices(spot=1.0, preemptions=12.0))
