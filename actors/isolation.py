"""Which rows to try together after processes have died over them, and which to blame: pure functions of the deaths.

Rows are numbers within their chunk. A death names the rows that were being tried; the next process tries parts of
them, so that each further death is about fewer rows, down to one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from actors.failures import STATED_DEATHS


@dataclass(frozen=True, slots=True)
class Death:
    """A process that ended while it tried `rows`; `cause` is what it said before, empty when it could not."""

    rows: frozenset[int]
    cause: str = ""


def groups(rows: int, deaths: Iterable[Death], micro_batch: int) -> list[list[int]]:
    """Rows 0..rows-1 cut into groups to try one after another, the latest suspects first.

    They come first because, should the process die again, nothing made before would be of use.
    """
    pieces = [list(range(rows))]
    for death in deaths:
        suspects: list[list[int]] = []
        others: list[list[int]] = []
        for piece in pieces:
            suspects += _split([row for row in piece if row in death.rows], micro_batch)
            others.append([row for row in piece if row not in death.rows])
        pieces = suspects + [piece for piece in others if piece]
    return pieces


def _split(rows: list[int], micro_batch: int) -> list[list[int]]:
    """Micro-batches of a longer list, halves of a shorter one."""
    part = micro_batch if len(rows) > micro_batch else max(1, (len(rows) + 1) // 2)
    return [rows[start : start + part] for start in range(0, len(rows), part)]


def blamed(deaths: Sequence[Death], attempts: int) -> dict[int, str]:
    """Row -> reason, for the rows that enough processes died over.

    A row is blamed when it was alone in a try that died, and `attempts` deaths held it (fewer if the causes are
    known). Deaths that a row already blamed explains do not count against its mates.
    """
    guilty: dict[int, str] = {}
    for index, death in enumerate(deaths):
        if len(death.rows) != 1:
            continue
        (row,) = death.rows
        held = [d for d in deaths[: index + 1] if row in d.rows and not d.rows & guilty.keys()]
        stated = [d.cause for d in held if d.cause]
        if row in guilty:
            continue
        if len(stated) >= min(STATED_DEATHS, attempts) and death.cause:
            guilty[row] = stated[-1]
        elif len(held) >= attempts:
            guilty[row] = (
                f"ended its process {len(held)} times without a word (segmentation fault, kill, or out of host memory)"
            )
    return guilty
