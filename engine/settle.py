"""Before the plan: caption the images and learn their concepts, once per data set.

What comes of it is written into the log's first entry; from there on it is part of what the data set is.
"""

from __future__ import annotations

from diffii.concepts.files import open_concepts
from diffii.errors import ModelError, OutputError
from engine.caption_stage import caption_images, suffixes_of
from engine.concept_stage import learn_concepts
from engine.learned import Learned
from engine.progress import Progress
from engine.run import GIVEN, Run, concepts_from
from engine.stream import Pool


def settle(run: Run, pool: Pool, progress: Progress, learn: bool = True) -> None:
    """Learn what a new run needs to have a plan; nothing to do for one whose log is begun.

    Without `learn` it captions only. Raises ModelError, SourceError or OutputError.
    """
    if run.history.version >= 0:
        _same_concepts(run, progress)
        return
    contexts = caption_images(run, pool, progress)
    suffixes = suffixes_of(run, contexts, progress)
    spoken = [context.context for context in contexts] if run.config.learn.contexts else []
    concepts = learn_concepts(run, pool, progress, spoken) if learn else None
    if concepts is None:
        run.learn(Learned(suffixes=suffixes))
    else:
        names = {name: concepts.name_of(name) for name in run.source.classes}
        run.learn(Learned(concepts=concepts.digest, names=names, suffixes=suffixes))


def _same_concepts(run: Run, progress: Progress) -> None:
    """Refuse other concepts than the run was begun with; those have been copied into it, so they need not be there."""
    if concepts_from(run.config) != GIVEN:
        return
    url = run.config.learn.concepts
    try:
        found = open_concepts(url).digest
    except ModelError as error:
        progress.note(f"learn.concepts: {error}. The data set goes on with its own copy")
        return
    # Concepts that know more classes are what a source that has grown needs (`engine.concept_stage.learn_more`).
    if found != run.plan.learned.concepts and run.grown is None:
        raise OutputError(
            f"learn.concepts: {run.storage.url} was begun with other concepts than those at {url}; give those, or "
            "begin anew elsewhere with --fork NEW_OUT"
        )
