"""Arms: the ways in which a row of the plan can begin. Diff-II is one; the others are what it is measured against.

An arm is a small file: which real images a row begins from (`draw`, before any model loads), where its denoising begins
(`start`, in the actor), and which of its prompts name the suffix. All else (concepts, suffixes, seeds, guidance,
near-copies, waves, commit) is the engine's and the same for all, so that two arms differ in the beginning alone.
"""

from diffii.arms.circle import Circle, DiffII, Slerp
from diffii.arms.edit import DiffAug, DiffMix
from diffii.arms.interface import Arm, Draw, Knobs, Parent, Start
from diffii.arms.noise import Noise

DIFF_II = DiffII.name
ARMS: dict[str, Arm] = {arm.name: arm for arm in (DiffII(), Noise(), Slerp(), Circle(), DiffAug(), DiffMix())}
"""By name. A new arm is a file beside this one and an entry here."""

__all__ = ["ARMS", "DIFF_II", "Arm", "Draw", "Knobs", "Parent", "Start"]
