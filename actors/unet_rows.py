"""How many rows an actor's U-Net has computed: the unit in which the method costs, whatever the card."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


class UnetRows:
    """Counts the rows of every call: those that pad a batch, and those of a batch that is tried again, too."""

    def __init__(self) -> None:
        self._lock, self._rows = threading.Lock(), 0

    def counting(self, epsilon: Callable[P, R]) -> Callable[P, R]:
        """`Backbone.epsilon`, whose first argument (B, C, H, W) says how many rows there are."""

        @functools.wraps(epsilon)
        def counted(*args: P.args, **kwargs: P.kwargs) -> R:
            latents = args[0]
            assert isinstance(latents, Tensor)
            with self._lock:
                self._rows += len(latents)
            return epsilon(*args, **kwargs)

        return counted

    def read(self) -> int:
        """Rows since the last reading."""
        with self._lock:
            rows, self._rows = self._rows, 0
        return rows
