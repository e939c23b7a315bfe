"""Where each row's denoising begins: inversions read from storage, and the arm's geometry on the CPU in float32."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.failures import RowFault, describe
from actors.inverter import read_inversion
from actors.set_aside import read_set_aside
from diffii.arms import Parent, Start
from diffii.arms.interface import Arm, Moment
from diffii.circle import Norm
from diffii.dataset import layout
from diffii.dataset.storage import Storage

CACHED_INVERSIONS = 2_000
"""Inversions kept in memory: 2000 of SD-1.5's are 260 MB, and a chunk of many classes shares few parents."""


@dataclass(frozen=True, slots=True)
class RowStart:
    """Where a row's denoising begins, or why it cannot."""

    at: Start
    fault: str | None = None


_NOWHERE = Start(noise=np.empty(0), steps=0)


class _NoParent(Exception):
    """The image that a row is to be made from was set aside."""


class Starts:
    """Finds the starts of an arm's rows in what `storage` keeps of their parents.

    `shape` is that of a latent (C, H, W), `alphas` the grid's from the clean end on.
    """

    def __init__(
        self, storage: Storage, arm: Arm, shape: tuple[int, ...], alphas: tuple[float, ...], norm: Norm
    ) -> None:
        self._storage, self._arm, self._shape, self._alphas = storage, arm, shape, alphas
        self._norm: Norm = norm
        self._inversions: OrderedDict[str, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def of(self, row: dict[str, Any]) -> RowStart:
        """A plan row's start. What is wrong with its parents is the start's fault; storage that fails is raised."""
        try:
            keys = dict.fromkeys(key for key in (row["inversion_a"], row["inversion_b"]) if key)
            found = [self._inversion(key) for key in keys]
            parents = [Parent(latent=latent, inversion=inversion) for latent, inversion in found]
            moment = Moment(
                shape=self._shape,
                seed=row["seed"],
                phi=row["phi"],
                strength=row["strength"],
                alphas=self._alphas,
                norm=self._norm,
            )
            return RowStart(self._arm.start(parents, moment))
        except _NoParent as error:
            return RowStart(_NOWHERE, str(error))
        except RowFault as error:
            return RowStart(_NOWHERE, describe(error))

    def _inversion(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        found = self._inversions.get(key)
        if found is None:
            try:
                found = read_inversion(self._storage, key)
            except FileNotFoundError:
                aside = read_set_aside(self._storage, layout.set_aside(layout.inversion(key)))
                if aside is None:
                    raise
                raise _NoParent(f"its parent {aside}") from None
            self._inversions[key] = found
            if len(self._inversions) > CACHED_INVERSIONS:
                self._inversions.popitem(last=False)
        return found
