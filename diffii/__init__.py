"""Diff-II: a small labelled image data set becomes a larger one. The method, and the data set it leaves behind."""

from diffii.dataset.mix import Mixed, mix
from diffii.dataset.snapshot import Snapshot
from diffii.dataset.snapshot import open_snapshot as open
from diffii.errors import DiffiiError

__all__ = ["DiffiiError", "Mixed", "Snapshot", "mix", "open"]
__version__ = "0.1.0"
