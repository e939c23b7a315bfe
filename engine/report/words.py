"""What each figure says, in plain words, and which way is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.report.measure import Figures


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the report. `value` and `real` write a figure, and what real images score themselves."""

    name: str
    better: str
    value: Callable[[Figures], str]
    real: Callable[[Figures], str]
    words: str
    short: str
    """Heading of its column in the table of classes."""


NONE = "–"


def percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.0f} %"


def number(value: float | None, digits: int = 2) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _nothing(_: Figures) -> str:
    return NONE


METRICS: tuple[Metric, ...] = (
    Metric(
        "Right by the judge",
        "higher",
        lambda f: percent(f.judged),
        lambda f: percent(f.judged_real),
        "Share of images in which a network trained on real photos of all classes sees the class they were made for.",
        "judge",
    ),
    Metric(
        "Nearest to its own class",
        "higher",
        lambda f: percent(f.nearest),
        lambda f: percent(f.nearest_real),
        "Share whose features are nearest to the mean of their own class's real images. Real images are held out of "
        "that mean one at a time.",
        "own class",
    ),
    Metric(
        "CLIPScore",
        "higher",
        lambda f: number(f.clip, 1),
        lambda f: number(f.clip_real, 1),
        "How well the image fits the words it was asked for, context included, by the CLIP named below. Real images "
        "are held against the words of their class.",
        "CLIP",
    ),
    Metric(
        "Cosine to its class",
        "higher, up to real",
        lambda f: number(f.cosine),
        lambda f: number(f.cosine_real),
        "Likeness to the mean of the class's real images, 1 at most. Far above what real images score: all alike.",
        "cosine",
    ),
    Metric(
        "Distance within a class",
        "higher, up to real",
        lambda f: number(f.distance),
        lambda f: number(f.distance_real),
        "How much two images of a class differ on average (1 - cosine): 0 for one image repeated.",
        "distance",
    ),
    Metric(
        "Vendi score",
        "higher",
        lambda f: NONE if f.vendi is None else f"{f.vendi:.1f} of {f.vendi_of:.0f}",
        _nothing,
        "How many wholly different images a class amounts to, out of how many it has: 1 for one image repeated.",
        "Vendi",
    ),
    Metric(
        "KID",
        "lower",
        lambda f: NONE if f.kid is None else f"{f.kid:.3f}" + (f" ± {f.kid_std:.3f}" if f.kid_std else ""),
        _nothing,
        "Distance between the synthetic and the real images as distributions: about 0 if they could be one set. "
        "Compares only between data sets measured with the same features.",
        "KID",
    ),
    Metric(
        "Precision",
        "higher",
        lambda f: percent(f.precision),
        _nothing,
        "Share of synthetic images that lie among the real ones: not farther from some real image than its third "
        "neighbour is.",
        "precision",
    ),
    Metric(
        "Recall",
        "higher",
        lambda f: percent(f.recall),
        _nothing,
        "Share of real images that lie among the synthetic ones in the same sense: what real images show is not lost.",
        "recall",
    ),
    Metric(
        "Density",
        "higher, 1 is real",
        lambda f: number(f.density),
        _nothing,
        "Precision that counts how many real images a synthetic one lies close to, so that one odd real image cannot "
        "make it good.",
        "density",
    ),
    Metric(
        "Coverage",
        "higher",
        lambda f: percent(f.coverage),
        _nothing,
        "Share of real images that have a synthetic one close by: recall that outliers cannot make good.",
        "coverage",
    ),
    Metric(
        "Memorisation",
        "not above real",
        lambda f: percent(f.memorised),
        lambda f: percent(f.memorised_real),
        "Share closer to a real image than any other real image is. Beside it what a real image scores that is held "
        "out: fresh photos are sometimes that close as well.",
        "memorised",
    ),
)
