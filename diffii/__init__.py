"""Diff-II: a small labelled image data set becomes a larger one. The method, and the data set it leaves behind."""

from diffii.dataset.follow import Follower, follow
from diffii.dataset.mix import Mixed, mix
from diffii.dataset.snapshot import Snapshot
from diffii.dataset.snapshot import open_snapshot as open
from diffii.errors import DiffiiError

__all__ = ["DiffiiError", "Follower", "Mixed", "Snapshot", "follow", "mix", "open"]
__version__ = "0.1.0"
