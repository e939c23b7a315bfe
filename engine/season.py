"""A new season: what the source has gained is captioned and learned, and the log says so.

Known tokens and the LoRA stay as they are, to the bit; a class that had no image before learns its tokens beside them.
"""

from __future__ import annotations

from dataclasses import replace

from diffii.dataset import log
from engine.caption_stage import caption_images, suffixes_of
from engine.concept_stage import learn_more
from engine.config import OFF
from engine.progress import Progress
from engine.run import Run
from engine.seasons import news
from engine.stream import Pool

_NAMED = 5


def tell_growth(run: Run, progress: Progress) -> None:
    """Say what a grown source will lead to, before anything is done."""
    if run.grown is None:
        return
    new, begun = news(run.source, run.grown)
    told = f"{run.grown.url} has grown by {len(new)} image{'s' if len(new) > 1 else ''}"
    if begun:
        names = ", ".join(begun[:_NAMED]) + (f" and {len(begun) - _NAMED} more" if len(begun) > _NAMED else "")
        told += f", {len(begun)} new class{'es' if len(begun) > 1 else ''} among them: {names}"
    progress.note(f"{told}. What there is stays as it is; {coming(run)} images will be made of what is new")


def coming(run: Run) -> int:
    """Images that the grown source calls for, beyond those that the known one does."""
    return run.plan_ahead().row_count(run.plan_ahead().beyond(run.plan.targets()))


def begin_season(run: Run, pool: Pool, progress: Progress) -> None:
    """Caption and learn what is new, and open the season; the waves known before are decided.

    Raises ModelError, SourceError or OutputError.
    """
    assert run.grown is not None
    ahead = replace(run, source=run.grown)
    _, begun = news(run.source, run.grown)
    contexts = caption_images(ahead, pool, progress)
    suffixes = suffixes_of(ahead, contexts, progress)
    learned = run.plan.learned
    digest, names = learned.concepts, dict(learned.names)
    if begun and run.config.learn.concepts != OFF:
        spoken = [context.context for context in contexts] if run.config.learn.contexts else []
        concepts = learn_more(ahead, digest, begun, pool, progress, spoken)
        digest = concepts.digest
        names = {name: concepts.name_of(name) for name in run.grown.classes}
    run.begin_season(
        log.GrowthEntry(
            source=run.grown.digest,
            before=len(run.source.images),
            waves=len(run.waves),
            shards=len(run.history.shards),
            classes=list(run.grown.classes),
            origin=run.grown.url,
            concepts=digest,
            learned=list(begun) if digest != learned.concepts else [],
            names=names,
            suffixes=list(suffixes),
        )
    )
