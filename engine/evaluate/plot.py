"""A plot of a study: a panel per classifier, an arm per row, a dot per seed, mean and 95 % interval."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence

from diffii.errors import ConfigError
from engine.evaluate.statistics import Line

_INK, _SOFT, _OURS, _SEED = "#1c1c1c", "#8a8a8a", "#c9873a", "#b9c4cf"


def plot(lines: Sequence[Line], figure: str, title: str) -> bytes:
    """A PNG of one figure. Raises ConfigError naming the extra to install where matplotlib is missing."""
    try:
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise ConfigError("a plot needs matplotlib: pip install 'diffii[report]'") from error
    shown = [line for line in lines if line.figure == figure]
    classifiers = list(dict.fromkeys(line.classifier for line in shown))
    # The order of the study, which one classifier alone may not know whole: cutmix has no meaning on features.
    arms = list(dict.fromkeys(line.arm for name in _longest_first(shown) for line in shown if line.classifier == name))
    size = (1.2 + 4.2 * len(classifiers), 1.1 + 0.42 * len(arms))
    canvas, panels = pyplot.subplots(
        1, len(classifiers), figsize=size, squeeze=False, layout="constrained", sharey=True
    )
    for panel, name in zip(panels[0], classifiers, strict=True):
        for line in (line for line in shown if line.classifier == name):
            place = arms.index(line.arm)
            panel.scatter(list(line.by_seed.values()), [place] * len(line.by_seed), s=14, color=_SEED, zorder=1)
            half = 0.0 if math.isnan(line.value.half) else line.value.half
            colour = _OURS if line.arm == "diff-ii" else _INK
            panel.errorbar(line.value.mean, place, xerr=half, fmt="o", ms=5, lw=1.6, capsize=3, color=colour, zorder=2)
        panel.set_xlabel(f"{figure.replace('_', ' ')}, %", color=_SOFT)
        panel.set_title(name, fontsize=10, color=_INK)
        panel.grid(axis="x", color="#ececec")
        panel.set_axisbelow(True)
        for edge in ("top", "right", "left"):
            panel.spines[edge].set_visible(False)
        panel.tick_params(axis="y", length=0)
    # One row per arm in all panels, so that the eye can go across.
    panels[0][0].set_yticks(range(len(arms)), arms)
    panels[0][0].set_ylim(len(arms) - 0.5, -0.5)
    canvas.suptitle(title, fontsize=11)
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", dpi=150)
    pyplot.close(canvas)
    return buffer.getvalue()


def _longest_first(lines: Sequence[Line]) -> list[str]:
    """The classifiers, the one with most arms first."""
    return [name for name, _ in Counter(line.classifier for line in lines).most_common()]
