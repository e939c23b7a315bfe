"""`evaluate`: does expansion make classifiers better? Tasks, arms, trainings, and what they come to."""

from engine.evaluate.study import CUTMIX, MIXUP, REAL, Study
from engine.evaluate.tasks import Questions

__all__ = ["CUTMIX", "MIXUP", "REAL", "Questions", "Study"]
