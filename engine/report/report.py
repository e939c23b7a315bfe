"""Make a report: sample, look, measure, and write the page and the figures."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from diffii.dataset import layout
from diffii.embedder_weights import KEY, LITE0, embedder_digest
from diffii.errors import OutputError
from engine.config import OFF
from engine.licences import licences, stated_licences
from engine.origin import source_url
from engine.prepare import load_run
from engine.report.angles import outcomes
from engine.report.look import look
from engine.report.measure import figures
from engine.report.page import Facts, render
from engine.report.pictures import sheets
from engine.report.provenance import provenance
from engine.report.sample import IMAGES, draw
from engine.run import Run


@dataclass(frozen=True)
class Report:
    page: str
    """HTML, whole in itself."""
    figures: dict[str, Any]
    """What `report.json` holds."""


def report(
    run: Run,
    *,
    images: int = IMAGES,
    seed: int = 0,
    embedder: str = "",
    clip: str = "",
    source: str = "",
    device: str | None = None,
) -> Report:
    """Measure up to `images` synthetic and real images of a data set in the feature space of `embedder`.

    By default the features are those that near-copies were recognised by, and real images are read from where they
    were when the run began. `clip` names a model for CLIPScore, which is left out without one. Raises OutputError when
    nothing is kept yet, SourceError when a real image cannot be read, ModelError when a model cannot be loaded.
    """
    if images < 2:
        raise ValueError(f"a report measures at least two images, got {images}")
    run = replace(run, source=replace(run.source, url=source_url(run, source)))
    configured = run.config.dedup.embedder
    key = "--embedder" if embedder else KEY
    embedder = embedder or (LITE0 if configured == OFF else configured)
    sample = draw(run, images, seed)
    pictures = sheets(run, sample)
    every, each = figures(look(run, sample, embedder, key, clip, device), len(run.source.classes))
    facts = Facts(
        run=run,
        sample=sample,
        seed=seed,
        embedder=embedder,
        outcomes=outcomes(run, sample),
        sheets=pictures,
        every=every,
        each=each,
        provenance=provenance(run, embedder, embedder_digest(embedder, key), clip),
        licences=stated_licences(run.storage.read_or_none(layout.CARD)) or licences(run),
    )
    return Report(render(facts), _as_json(facts))


def write_report(made: Report, run: Run) -> str:
    """Put both files into the data set; returns the page's URL."""
    run.storage.put(layout.REPORT_FIGURES, _dump(made))
    run.storage.put(layout.REPORT_PAGE, made.page.encode())
    return f"{run.storage.url}/{layout.REPORT_PAGE}"


def save_report(made: Report, page: Path) -> None:
    """Write the page to a file and the figures beside it, with the ending .json. Raises OutputError."""
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(made.page, encoding="utf-8")
        page.with_suffix(".json").write_bytes(_dump(made))
    except OSError as error:
        raise OutputError(f"--to {page}: {error.strerror}; give a file that can be written") from error


def report_of(url: str, **options: Any) -> tuple[Run, Report]:
    """Open a data set by its URL and report on it. Raises as `load_run` and `report` do."""
    run = load_run(url)
    return run, report(run, **options)


def _dump(made: Report) -> bytes:
    return (json.dumps(made.figures, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode()


def _as_json(facts: Facts) -> dict[str, Any]:
    run, sample, told = facts.run, facts.sample, facts.outcomes
    return {
        "url": run.storage.url,
        "version": run.history.version,
        "features": facts.embedder,
        "seed": facts.seed,
        "measured": {"synthetic": len(sample.synthetic), "real": len(sample.real), "shards": sample.shards},
        "kept": run.history.kept,
        "lost": {f"{outcome}: {reason}": rows for (outcome, reason), rows in run.history.lost.most_common()},
        "all": asdict(facts.every),
        "classes": {
            name: {
                "target": target,
                "kept": outcome.kept,
                "lost": dict(outcome.lost.most_common()),
                **asdict(found),
            }
            for name, target, outcome, found in zip(
                run.source.classes, run.targets, told.classes, facts.each, strict=True
            )
        },
        "outcomes_of_rows": told.rows,
        "settings": run.identity,
        "provenance": facts.provenance,
    }
