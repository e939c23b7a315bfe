"""How many synthetic images each class is to get: growth by a factor, a number for all, or a levelled long tail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from diffii.errors import ConfigError
from engine.config import BALANCED, FACTOR, ExpansionConfig


def targets(expansion: ExpansionConfig, real: Sequence[int], earlier: Sequence[Sequence[int]] = ()) -> list[int]:
    """Synthetic rows wanted per class, from its number of real images; none for a class without any.

    `earlier` are the numbers that a source which has grown had before: what was wanted then still is, though a class
    with more real images may call for fewer. Raises ConfigError when no class is wanted to grow.
    """
    wanted = _of_real(expansion, real)
    for counts in earlier:
        before = _of_real(expansion, counts)
        wanted[: len(before)] = map(max, wanted, before)
    if not any(wanted):
        raise ConfigError(
            f"expansion.target={expansion.target}: no class has fewer real images, so nothing would be made; give more"
        )
    return wanted


def limits(expansion: ExpansionConfig, wanted: Sequence[int]) -> list[int]:
    """Rows per class that may be tried: `expansion.max_attempts` per row wanted, rounded up."""
    # As written: in binary ten times 1.1 is more than 11.
    attempts = Fraction(repr(expansion.max_attempts))
    return [math.ceil(number * attempts) for number in wanted]


def _of_real(expansion: ExpansionConfig, real: Sequence[int]) -> list[int]:
    return [number if count else 0 for number, count in zip(_wanted(expansion, real), real, strict=True)]


def _wanted(expansion: ExpansionConfig, real: Sequence[int]) -> list[int]:
    if expansion.per_class is not None:
        return [expansion.per_class] * len(real)
    if expansion.target == FACTOR:
        return [_grown(expansion, count) for count in real]
    if expansion.target == BALANCED:
        largest = max(real)
        # Added, not multiplied: rounded once, as for `factor`, so that going over to balanced shrinks no class.
        total = largest + _grown(expansion, largest)
    else:
        total = int(expansion.target)
    return [max(0, total - count) for count in real]


def _grown(expansion: ExpansionConfig, count: int) -> int:
    return max(1, round(count * expansion.factor))
