"""What commands do on this machine: find out what it has, start a Ray of their own, work, and say what came of it.

Ray and torch are imported when they are needed: `diffii --help` answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cluster.show import console, duration, print_estimate, print_sheet, print_study, say, tell
from diffii.errors import ConfigError
from diffii.machine import cores
from engine.config import Config
from engine.defaults import with_values
from engine.learned import Learned

if TYPE_CHECKING:
    from diffii.images import Limits
    from engine.evaluate import Study
    from engine.events import Events
    from engine.export.export import Exported
    from engine.scan import Look, LookAt

Address = Literal["local", "auto"]
"""A Ray of this command's own on this machine, or the cluster's that this machine is part of."""
LOCAL: Address = "local"


def expand(
    config: Config,
    verbose: bool,
    estimated: bool = False,
    forked: str = "",
    metrics: Path | None = None,
    address: Address = LOCAL,
    log_json: str = "",
) -> None:
    """Expand, and say what came of it; nothing to do is said without a Ray. `forked`: an older output to take from.

    `log_json` is a file for `engine.events`; `-` is standard error, which then has nothing else.
    """
    from engine.events import written
    from engine.run_id import run_id

    if log_json == "-":
        console.quiet = True
    with written(run_id(config), log_json) as events:
        _expand(config, verbose, estimated, forked, metrics, address, events)


def _expand(
    config: Config,
    verbose: bool,
    estimated: bool,
    forked: str,
    metrics: Path | None,
    address: Address,
    events: Events,
) -> None:
    from cluster.progress import ProgressLine
    from engine.expand import expand as run_expand
    from engine.export.along import catch_up
    from engine.fork import Fork
    from engine.holdout import has_holdout
    from engine.prepare import prepare as prepare_run
    from engine.publish import publish_missing

    began = time.monotonic()
    with _ray_when_needed(config, verbose, address) as start:
        # What cannot work is said before Ray takes its seconds to start.
        run = prepare_run(config, elsewhere=_looking(start))
        if forked:
            Fork(run, forked)
        if run.complete and run.grown is None and not has_holdout(config):
            publish_missing(run)
            _copies(catch_up(run))
            say(f"{run.storage.url} is complete: nothing to do")
            print_sheet(run.storage.url)
            return
        if estimated:
            from engine.estimate import estimate

            print_estimate(dataclasses.asdict(estimate(config, actors(config), device(), run)))
            began = time.monotonic()
        start()
        with ProgressLine(console) as progress:
            run_expand(run, progress, [forked] if forked else (), metrics=metrics, events=events)
    history = run.history
    kept, lost = history.kept, history.rows - history.kept
    say(
        f"{kept} images in {len(history.shards)} shards"
        + (f", {lost} lost (diffii status says why)" if lost else "")
        + f", {duration(time.monotonic() - began)}"
    )
    print_sheet(run.storage.url)


def export(out: str, destination: str, formats: Sequence[str], **options: Any) -> list[Exported]:
    """Export to `destination`, of several formats each to a folder of its name there."""
    from cluster.progress import ProgressLine
    from engine.export.export import export as run_export
    from engine.formats.catalog import FORMATS

    if not formats:
        raise ConfigError(f"--format names none; choose from {', '.join(FORMATS)}")
    done: list[Exported] = []
    with ProgressLine(console) as progress:
        for name in formats:
            place = destination if len(formats) == 1 else f"{destination.rstrip('/')}/{name}"
            done.append(run_export(out, place, name, progress=progress, **options))
    return done


def _copies(made: Sequence[Exported]) -> None:
    for copy in made:
        say(f"{copy.url}: {copy.rows} images")


def report(out: str, to: Path | None = None, told: bool = True, **options: Any) -> dict[str, Any]:
    """Write the report into the data set or to `to`, and print where if `told`; gives its figures.

    `options` are those of `engine.report.report.report_of`, and what it raises is raised.
    """
    from engine.report.report import report_of, save_report, write_report

    run, made = report_of(out, **options)
    if to is not None:
        save_report(made, to)
    where = str(to) if to is not None else write_report(made, run)
    if told:
        tell(where)
    return made.figures


def prepare(config: Config, verbose: bool, learn: bool = True, address: Address = LOCAL) -> Learned:
    """What comes before the plan, alone: captions, and concepts if `learn`."""
    from cluster.progress import ProgressLine
    from engine.expand import prepare_data_set
    from engine.prepare import prepare as prepare_run

    with _ray_when_needed(config, verbose, address) as start:
        run = prepare_run(config, elsewhere=_looking(start))
        if run.history.version >= 0:
            say(f"{run.storage.url} is begun: what it was begun with stays")
            return run.plan.learned
        start()
        with ProgressLine(console) as progress:
            return prepare_data_set(run, progress, learn)


@contextlib.contextmanager
def _ray_when_needed(config: Config, verbose: bool, address: Address) -> Iterator[Callable[[], None]]:
    """Gives what starts a Ray for this command, or joins the one that is there, the first time that it is called."""
    from cluster.join import joined_ray
    from cluster.local import local_ray

    def ray_of_command() -> contextlib.AbstractContextManager[None]:
        return local_ray(actors(config), verbose) if address == LOCAL else joined_ray(verbose)

    with contextlib.ExitStack() as running:
        yield functools.cache(lambda: running.enter_context(ray_of_command()))


def _looking(start: Callable[[], None]) -> LookAt:
    """Looks at a large source's images in a Ray; a small one needs none."""

    def look(url: str, images: str, places: list[str], limits: Limits) -> Iterator[Look]:
        from engine.scan_tasks import look_in_ray

        start()
        return look_in_ray(url, images, places, limits)

    return look


def evaluate(study: Study, verbose: bool) -> None:
    """Measure what is not measured yet, and print the table."""
    from cluster.local import local_ray
    from cluster.progress import ProgressLine
    from engine.evaluate.measure import evaluate as measure
    from engine.evaluate.publish import publish
    from engine.evaluate.tasks import draw

    draw(study.questions, study.first_seed)  # what cannot be read is said before Ray takes its seconds to start
    count = actors(study.config)
    study = dataclasses.replace(study, config=with_values(study.config, {"actors.max": count}))
    # Trainings run beside the actors, on logical CPUs of their own.
    with local_ray(2 * count, verbose), ProgressLine(console) as progress:
        rows = measure(study, progress)
    print_study(publish(study, rows, say))


def actors(config: Config) -> int:
    """How many actors a run has here: as configured; else one per GPU or its share, or per core without any.

    `actors.min` at least.
    """
    share = config.actors.gpus
    here = cores() if device() == "cpu" or share == 0 else int(gpus() / (share or 1.0))
    return config.actors.max or max(here, config.actors.min, 1)


def device() -> str:
    """`cuda` or `cpu`, of this machine."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def gpus() -> int:
    """GPUs of this machine, at least 1: to be asked where `device` is `cuda`."""
    import torch

    return max(1, torch.cuda.device_count())
