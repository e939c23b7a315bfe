"""To a run, from a configuration or from a URL alone; what does not fit together is refused before anything is written.

`prepare` looks at source and output, before anything is loaded; `load_run` opens what is there, for status and verify.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from diffii.dataset import layout
from diffii.dataset.history import read_log
from diffii.dataset.storage import TEMPORARY, Storage
from diffii.embedder_weights import embedder_digest
from diffii.errors import OutputError
from diffii.weights import locate, weights_digest
from engine.append import LogWriter
from engine.config import OFF, UNSAID, Config
from engine.defaults import resolve, with_values
from engine.licences import licence_at
from engine.micro_batches import as_begun
from engine.plan import Plan
from engine.run import DIGESTS, EMBEDDER, LATENTS, WEIGHTS, Run, known_source, plan_of
from engine.scan import LookAt, Reading, read_source
from engine.settings import from_flat
from engine.source import Source

_UNNAMED = {LATENTS: 1, **UNSAID, **{key: value for key, value in Config().flat().items() if key.startswith("arm.")}}
"""What an identity means by what it does not name (`Config.identity`)."""

_MAY_STAND_THERE = frozenset({layout.OWN, layout.DEMO_SOURCE})
"""What an output may hold before its first entry: our own beginnings, and the demo's exported source."""


def prepare(config: Config, source: Source | None = None, elsewhere: LookAt | None = None) -> Run:
    """Read the source, find the model, open the output, and check that they belong together. Writes nothing.

    `elsewhere` looks at the images of a large source (`engine.scan.read_source`).
    Raises SourceError, ModelError, ConfigError or OutputError.
    """
    plan = make_plan(config, source, elsewhere)
    storage = Storage(config.output.url)
    history = read_log(storage)
    plan = as_begun(plan, history)
    run = Run(storage, plan.config, plan.source, plan, history)
    _check(run)
    return run


def refresh(run: Run) -> None:
    """Read the log again: another driver may have gone on since. Raises OutputError or ConfigError."""
    run.history = read_log(run.storage)
    run.plan = as_begun(run.plan, run.history)
    run.config = run.plan.config
    run.writer = LogWriter(run.storage, run.history, secrets.token_hex(8))
    _check(run)


def make_plan(config: Config, source: Source | None = None, elsewhere: LookAt | None = None) -> Plan:
    """Scan the source, settle what `auto` means, and find the model. Raises SourceError, ModelError or ConfigError."""
    source = source or read_source(config.source.url, Reading.of(config.source), elsewhere=elsewhere)
    resolved = resolve(config, source.classes)
    if not resolved.source.license:
        resolved = with_values(resolved, {"source.license": licence_at(source.url)})
    embedder = "" if resolved.dedup.embedder == OFF else embedder_digest(resolved.dedup.embedder)
    return Plan(resolved, source, weights_digest(locate(resolved.backbone.model)), embedder)


def load_run(url: str) -> Run:
    """Open a finished or growing data set by its URL alone. Raises OutputError when there is none."""
    storage = Storage(url)
    history = read_log(storage)
    first = history.opening
    if first is None:
        raise OutputError(f"{url} holds no data set of diffii (no {layout.LOG} in it)")
    source = known_source(storage, history)
    settings = {key: value for key, value in first.identity.items() if key not in DIGESTS}
    config = from_flat({**UNSAID, **settings, "output.url": url, "backbone.model": first.model})
    plan = Plan(config, source, first.identity[WEIGHTS], first.identity.get(EMBEDDER, ""))
    return Run(storage, config, source, plan_of(plan, history, source), history)


def _check(run: Run) -> None:
    """Refuse an output that is not this run's to go on with. Raises OutputError or ConfigError."""
    if run.history.version < 0:
        _check_free(run.storage)
    else:
        _check_same(run)
    run.follow_log(run.grown or run.source)
    run.next_wave()


def _check_free(storage: Storage) -> None:
    if storage.is_local:
        path = Path(storage.root)
        there = next(place for place in (path, *path.parents) if storage.fs.exists(str(place)))
        if not storage.fs.isdir(str(there)):
            raise OutputError(f"{there} is a file, so no data set can be written to {storage.url}; choose a folder")
    # A run writes its card before the log's first entry, and may have died between the two.
    begun = any(name.startswith("source-") for name in storage.names(layout.OWN))
    ours = _MAY_STAND_THERE | ({layout.CARD} if begun else set())
    foreign = [name for name in storage.names() if name not in ours and not name.startswith(TEMPORARY)]
    if foreign:
        raise OutputError(
            f"{storage.url} holds something else ({', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}); "
            "choose an empty or new output, so that nothing of it can be lost"
        )


def _check_same(run: Run) -> None:
    first = run.history.opening
    if first is None:
        raise OutputError(f"{run.storage.url}: log entry 0 does not open a data set; restore it from a copy")
    there, now = ({**_UNNAMED, **identity} for identity in (first.identity, run.identity))
    if there["arm.name"] != now["arm.name"]:
        now[LATENTS] = there[LATENTS]  # another arm may store none, which is no further change
    changes = [
        f"{key}: {there.get(key)!r} there, {now.get(key)!r} now"
        for key in {**there, **now}
        if there.get(key) != now.get(key)
    ]
    if changes:
        raise OutputError(
            f"{run.storage.url} was begun with other settings; repeat them, or begin anew elsewhere with "
            f"--fork NEW_OUT, which takes along what still fits. " + "; ".join(changes)
        )
