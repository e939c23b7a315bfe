"""What an estimated run costs at a price, on machines that stay and on spot machines that are taken away meanwhile."""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffii.errors import ConfigError
from engine.estimate import Estimate

CHUNKS_LOST = 1.5
"""Chunks' worth of GPU time that an actor loses with its machine, at most on average: half of the chunk that is being
computed, and the whole of one that is encoded or staged behind it. A machine that is told of its end in time, and
drops nothing, loses less."""
PREEMPTIONS_PER_HOUR = 0.1
"""Of a spot machine. Not measured: providers publish from some percent a month to some an hour, by kind and place."""
MACHINE_SECONDS = 180.0
"""Paid for before a new machine's actors begin to start: its boot and the image. Not measured either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Of an hour of one machine. For prices per GPU, a machine has one actor."""

    on_demand: float | None = None
    spot: float | None = None
    actors_per_machine: int = 1
    preemptions: float = PREEMPTIONS_PER_HOUR
    """A machine-hour, on spot."""
    machine_seconds: float = MACHINE_SECONDS
    """From a machine's start, when paying for it begins, until its actors begin to start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of the workers; a head that is a machine of its own, disks, storage and traffic come on top."""

    machines: int
    machine_hours: float
    """On machines that stay, booting included."""
    on_demand: float | None
    """In the currency of the prices; None where there was no such price."""
    spot_hours: float
    """The same on spot machines, with what they lose."""
    spot: float | None
    preemptions: float
    """Expected in all."""
    lost_seconds: float
    """Of a machine, by each of them: chunks that are made again, a boot, and the actors' start."""
    overhead: float
    """Share of the spot hours that is lost to it."""


def cost(found: Estimate, prices: Prices) -> Cost:
    """Raises ConfigError when machines are taken away faster than they get on."""
    machines = math.ceil(found.actors / prices.actors_per_machine)
    machine_hours = machines * (found.seconds + prices.machine_seconds) / 3600 if found.seconds else 0.0
    lost_seconds = CHUNKS_LOST * found.chunk_seconds + prices.machine_seconds + found.start_seconds
    overhead = prices.preemptions * lost_seconds / 3600
    if overhead >= 1.0:
        raise ConfigError(
            f"{prices.preemptions:g} preemptions an hour, each of which costs a machine {lost_seconds:.0f} s, leave no "
            "time for work: take machines that stay longer, or a smaller commit.chunk_size"
        )
    # Of each hour on spot only what is not lost gets the run on.
    spot_hours = machine_hours / (1.0 - overhead)
    return Cost(
        machines=machines,
        machine_hours=machine_hours,
        on_demand=None if prices.on_demand is None else prices.on_demand * machine_hours,
        spot_hours=spot_hours,
        spot=None if prices.spot is None else prices.spot * spot_hours,
        preemptions=prices.preemptions * spot_hours,
        lost_seconds=lost_seconds,
        overhead=overhead,
    )
