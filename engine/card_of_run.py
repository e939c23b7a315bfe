"""What a run tells its data set card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffii.dataset import layout
from diffii.hashing import digest
from engine.card import Counts, Origin, Shape, data_set_card
from engine.formats.parquet import Parquet, card_features
from engine.licences import licences

if TYPE_CHECKING:
    from engine.run import Run

CONTEXTS_TOLD = 20
"""Contexts that a card names, at most."""


def write_card(run: Run) -> None:
    """Bring the data set card up to the log; each commit does, see `engine.card`."""
    real = run.config.output.include_real
    patterns = [pattern for origin, pattern in Parquet.patterns.items() if origin == "data" or real]
    shape = Shape(patterns=patterns, include_real=real, features=features_of(run))
    card = data_set_card(run.source.classes, run.config, counts(run), origin_of(run), shape)
    run.storage.put(layout.CARD, card.encode())


def features_of(run: Run) -> list[dict[str, Any]]:
    """What a card tells of the columns: nothing, unless classes came while the data set grew."""
    if not run.history.growths or run.history.classes_of_shard(0) == run.source.classes:
        return []
    return card_features(run.source.classes, run.plan.arm.takes == "latents")


def counts(run: Run) -> Counts:
    """What the log has committed, for a card."""
    shards = run.history.shards
    return Counts(
        rows=run.history.kept,
        real=len(run.source.images),
        shards=len(shards),
        content=digest(run.identity, run.source.digest, shards.digest)[:16],
        complete=run.complete,
        per_class=dict(zip(run.source.classes, run.kept(), strict=True)),
    )


def origin_of(run: Run) -> Origin:
    """What the images of a run come from, for a card."""
    history, learned = run.history, run.plan.learned
    newest = history.growths[-1] if history.growths else history.opening
    where = newest.origin if newest is not None and newest.origin else run.source.url
    return Origin(
        sources={
            "real images": f"{len(run.source.images)} from {where}" if where else len(run.source.images),
            "real images, digest": run.source.digest,
            "model": run.config.backbone.model,
            "model weights, SHA-256": run.plan.weights,
            "concepts, SHA-256": learned.concepts,
            "contexts": list(dict.fromkeys(learned.suffixes))[:CONTEXTS_TOLD],
            "computed by": sorted(run.history.fingerprints),
        },
        licences=licences(run),
    )
