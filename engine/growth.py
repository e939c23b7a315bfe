"""A source that grows: which of its rows a class can have only since new images came.

A data set's plan has *seasons*. The first is that of the images it was begun with; each time that images are added, a
new season begins. Rows that exist keep their bytes. A class with new images goes on where it stood: first come rows
that begin with a new image, until the new ones have begun as many as the old ones had; then all take turns again. A
class without new images does not notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Growth:
    """The end of a season: per class, in the order of labels, the images it had and the ordinals that were tried.

    Classes that came later are not in it.
    """

    images: tuple[int, ...]
    tried: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """The rows of a class from ordinal `begin` on, over `images` images of which `old` were there before.

    The old ones had begun `passes` rows each.
    """

    begin: int
    images: int
    old: int = 0
    passes: int = 0

    @property
    def behind(self) -> int:
        """Rows that the new images begin before all take turns."""
        return (self.images - self.old) * self.passes

    def place(self, ordinal: int) -> tuple[int, int]:
        """(number, old) of a row as `diffii.arms` wants them."""
        number = ordinal - self.begin
        if number < self.behind:
            return number, self.old
        return self.passes * self.images + number - self.behind, 0

    def passes_after(self, tried: int) -> int:
        """Rows that each image has begun once `tried` ordinals of the class are; the last pass counts as whole."""
        number = tried - self.begin
        if number < self.behind or not self.images:
            return self.passes
        return self.passes - (-(number - self.behind) // self.images)


def last_turn(growths: Sequence[Growth], images: Sequence[int], label: int) -> Turn:
    """The turn that a class is in after some growths; `images` are those that classes have now."""
    sizes = [_of(growth.images, label) for growth in growths] + [images[label]]
    turn = Turn(0, sizes[0])
    for growth, size in zip(growths, sizes[1:], strict=True):
        if size > turn.images:
            tried = _of(growth.tried, label)
            turn = Turn(tried, size, turn.images, turn.passes_after(tried))
    return turn


def _of(values: Sequence[int], label: int) -> int:
    return values[label] if label < len(values) else 0
