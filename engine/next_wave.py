"""Which wave comes next: a function of configuration and log."""

from __future__ import annotations

from collections.abc import Sequence

from diffii.dataset.log import WaveEntry
from diffii.errors import ConfigError
from engine.plan import Plan


def next_wave(
    plan: Plan,
    waves: Sequence[WaveEntry],
    kept: Sequence[int],
    targets: Sequence[int],
    limits: Sequence[int],
    season: bool = False,
) -> WaveEntry | None:
    """The wave that comes after `waves`, all decided, with `kept` rows per class; None when there is nothing to make.

    A `season` has a first wave in any case, so that the log tells what it was to come to.

    It is exactly what each class is short of its target, up to the ordinal of its limit: a function of configuration
    and log. A class ends at the ordinal where its target is reached, or at its limit; so growing in steps ends where
    one step to the last target and limit would, a class that was short on the way included. Raises ConfigError when
    a target or a limit is below an earlier one: rows that exist are not taken back.
    """
    # Classes that came since the last wave have no row yet.
    starts = [*waves[-1].stops, *[0] * (len(targets) - len(waves[-1].stops))] if waves else [0] * len(targets)
    if waves:
        _refuse_shrinking(plan, waves[-1], targets, limits)
    room = (max(0, limit - start) for limit, start in zip(limits, starts, strict=True))
    short = (max(0, target - have) for target, have in zip(targets, kept, strict=True))
    stops = [start + min(want, left) for start, want, left in zip(starts, short, room, strict=True)]
    if stops == starts and not season:
        return None
    return WaveEntry(wave=len(waves), starts=starts, stops=stops, targets=list(targets), limits=list(limits))


def first_wave(plan: Plan) -> WaveEntry | None:
    """Wave 0: every class up to its target."""
    return next_wave(plan, [], [0] * len(plan.source.classes), plan.targets(), plan.limits())


def _refuse_shrinking(plan: Plan, before: WaveEntry, targets: Sequence[int], limits: Sequence[int]) -> None:
    for label, name in enumerate(plan.source.classes[: len(before.targets)]):
        if targets[label] < before.targets[label]:
            raise ConfigError(
                f"expansion: class {name!r} was planned for {before.targets[label]} images and now for "
                f"{targets[label]}; a data set only grows, so give at least the earlier factor, per_class or target"
            )
        if limits[label] < before.limits[label]:
            raise ConfigError(
                f"expansion: class {name!r} could be tried {before.limits[label]} times and now {limits[label]}; "
                "a data set only grows, so give at least the earlier max_attempts"
            )
