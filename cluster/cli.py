"""The command line: `diffii <command>`. It parses, starts what is needed, and turns errors into one clear line."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from diffii import __version__
from diffii.dataset import layout
from diffii.errors import DiffiiError
from engine.config import Config
from engine.defaults import with_values
from engine.learned import Learned
from engine.settings import load_config

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
console = Console(stderr=True)
"""Progress and messages; standard output is for results."""
output = Console()

Source = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help="Labelled images: a folder of class folders, or Parquet; any fsspec URL."),
]
Out = Annotated[str, typer.Argument(metavar="OUT", help="The expanded data set; any fsspec URL.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting; may be repeated.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Actors = Annotated[int | None, typer.Option("--actors", min=1, help="How many actors work at once.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show what Ray says.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the expanded data set goes.")] = Path("diffii-demo"),
    actors: Actors = None,
    verbose: Verbose = False,
) -> None:
    """Expand the embedded data set with the embedded model: offline, on a laptop's CPU."""
    from cluster.demo import DEMO, demo_source

    source = demo_source(out)
    overrides = {"source.url": str(source), "output.url": str(out), **_actors(actors)}
    _expand(load_config(defaults=DEMO, overrides=overrides), verbose, estimated=True)


@app.command()
def plan(
    source: Source,
    config: ConfigFile = None,
    sets: Sets = None,
    actors: Actors = None,
    as_json: Json = False,
) -> None:
    """Say what an expansion will make and cost; measures speed for a few seconds, writes nothing."""
    from cluster.local import cores
    from engine.estimate import estimate

    settings = load_config(config, sets or (), overrides={"source.url": source, **_actors(actors)})
    device = _device()
    count = settings.actors.max or (cores() if device == "cpu" else _gpus())
    found = estimate(settings, count, device)
    if as_json:
        _print_json(dataclasses.asdict(found))
    else:
        _print_estimate(dataclasses.asdict(found))


@app.command()
def expand(
    source: Annotated[str | None, typer.Argument(metavar="SOURCE", help="Labelled images; any fsspec URL.")] = None,
    out: Annotated[str | None, typer.Argument(metavar="OUT", help="The expanded data set; any fsspec URL.")] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    actors: Actors = None,
    fork: Annotated[
        str | None,
        typer.Option(metavar="NEW_OUT", help="Begin anew in NEW_OUT with what of OUT still fits (inversions)."),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Expand labelled images into committed shards. The same command again goes on where it stopped."""
    given = {key: value for key, value in (("source.url", source), ("output.url", out)) if value}
    settings = load_config(config, sets or (), overrides={**given, **_actors(actors)})
    for key, value in (("SOURCE", settings.source.url), ("OUT", settings.output.url)):
        if not value:
            _fail(f"{key} is missing: diffii expand SOURCE OUT, or {'source' if key == 'SOURCE' else 'output'}.url")
    old = None
    if fork is not None:
        old, settings = settings.output.url, with_values(settings, {"output.url": fork})
    _expand(settings, verbose, forked=old)


@app.command()
def learn(
    source: Source,
    out: Out,
    config: ConfigFile = None,
    sets: Sets = None,
    actors: Actors = None,
    verbose: Verbose = False,
) -> None:
    """Learn a concept for every class (tokens and a LoRA), for OUT to be expanded with. `expand` does it too."""
    settings = load_config(config, sets or (), overrides={"source.url": source, "output.url": out, **_actors(actors)})
    learned = _prepare_data_set(settings, verbose)
    if not learned.concepts:
        console.print("learn.concepts is off: classes are named by words")
        return
    output.print(f"{out}/{layout.CONCEPTS}/{learned.concepts[:32]}", highlight=False, soft_wrap=True)


@app.command()
def caption(
    source: Source,
    out: Out,
    config: ConfigFile = None,
    sets: Sets = None,
    actors: Actors = None,
    verbose: Verbose = False,
) -> None:
    """Find what the images show besides their subjects, for OUT's prompts to end with. `expand` does it too."""
    overrides = {"source.url": source, "output.url": out, **_actors(actors)}
    settings = load_config(config, sets or (), overrides=overrides)
    learned = _prepare_data_set(settings, verbose, learn=False)
    for suffix, count in Counter(learned.suffixes).most_common():
        output.print(f"{suffix}  ({count} images)" if count > 1 else suffix, highlight=False, markup=False)


@app.command()
def status(out: Out, as_json: Json = False) -> None:
    """How far an expansion is, from its output alone."""
    from engine.status import status as read_status

    found = dataclasses.asdict(read_status(out))
    if as_json:
        _print_json(found)
        return
    done = 100 * found["decided"] / found["planned"] if found["planned"] else 0
    output.print(f"{found['url']}: {found['state']}, {done:.0f} % of {found['planned']} rows decided", soft_wrap=True)
    output.print(
        f"{found['kept']} kept in {found['shards']} shards ({_bytes(found['bytes'])}), "
        f"{found['rejected']} rejected, {found['poisoned']} poisoned, {found['staged']} waiting to be committed",
        soft_wrap=True,
    )
    if found["driver"]:
        output.print(f"{found['driver']} is at work", highlight=False, soft_wrap=True)
    table = Table("class", "kept", "wanted", box=None, pad_edge=False)
    for name, kept in found["classes"].items():
        table.add_row(name, str(kept), str(found["targets"][name]))
    output.print(table)
    for name, why in found["short"].items():
        output.print(f"{name} is short: {why}", highlight=False, markup=False, soft_wrap=True)
    for reason, count in found["reasons"].items():
        output.print(f"{count:6} {reason}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def verify(
    out: Out,
    repair: Annotated[bool, typer.Option("--repair", help="Remove files that belong to nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Check that every planned row is decided and every published byte is right; exit status 0 if so."""
    from engine.verify import verify as check

    found = check(out, mend=repair)
    fields = dataclasses.asdict(found)
    if as_json:
        _print_json(fields)
    else:
        problems = fields.pop("problems")
        for name, value in fields.items():
            output.print(
                f"{name:14} {', '.join(value) or 'none' if isinstance(value, list) else value}",
                highlight=False,
                soft_wrap=True,
            )
        for problem in problems:
            console.print(f"wrong: {problem}", highlight=False, soft_wrap=True)
    raise typer.Exit(0 if found.ok else 1)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Turn a small labelled image data set into a larger one (Diff-II)."""


@app.command()
def replay(
    out: Out,
    sample_id: Annotated[str, typer.Argument(metavar="SAMPLE_ID", help="The column sample_id of a row.")],
    model: Annotated[str | None, typer.Option(help="Where the model is, if not where it was.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the new image here.")] = None,
    as_json: Json = False,
) -> None:
    """Make one sample again from its recipe; exit status 0 if it is the published image to the bit."""
    from engine.replay import replay as make_again

    found = make_again(out, sample_id, model)
    if save is not None:
        save.write_bytes(found.image)
    if as_json:
        fields = dataclasses.asdict(found) | {"identical": found.identical}
        _print_json({name: value for name, value in fields.items() if name != "image"})
    else:
        said = "identical to the bit" if found.identical else "not the published image"
        said = said if found.published_sha256 else "it was never published"
        trouble = f" ({found.reason})" if found.reason else ""
        output.print(f"{found.class_name} {found.ordinal}: {found.outcome}{trouble}, {said}", highlight=False)
        output.print(found.recipe, highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(0 if found.identical else 1)


def main() -> None:
    """Entry point of the console script: user errors are one line on standard error and exit status 2."""
    try:
        app()
    except DiffiiError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        console.print("\nstopped; the same command goes on from here")
        sys.exit(130)


def _expand(config: Config, verbose: bool, estimated: bool = False, forked: str | None = None) -> None:
    from cluster.local import cores, local_ray
    from cluster.progress import ProgressLine
    from engine.expand import expand as run_expand
    from engine.fork import take_along
    from engine.publish import publish_missing
    from engine.run import prepare

    began = time.monotonic()
    run = prepare(config)  # what cannot work is said before Ray takes its seconds to start
    if forked is not None:
        console.print(f"{take_along(run, forked)} files taken along from {forked}", highlight=False, soft_wrap=True)
    if run.complete and not config.dedup.holdout:
        publish_missing(run)
        console.print(f"{run.storage.url} is complete: nothing to do", highlight=False, soft_wrap=True)
        _print_sheet(run.storage.url)
        return
    actors = config.actors.max or (max(cores(), config.actors.min) if _device() == "cpu" else _gpus())
    if estimated:
        from engine.estimate import estimate

        _print_estimate(dataclasses.asdict(estimate(config, actors, _device(), run)))
        began = time.monotonic()
    with local_ray(actors, verbose), ProgressLine(console) as progress:
        run_expand(run, progress)
    history = run.history
    kept, lost = history.kept, history.rows - history.kept
    console.print(
        f"{kept} images in {len(history.shards)} shards"
        + (f", {lost} lost (diffii status says why)" if lost else "")
        + f", {_duration(time.monotonic() - began)}",
        highlight=False,
    )
    _print_sheet(run.storage.url)


def _prepare_data_set(config: Config, verbose: bool, learn: bool = True) -> Learned:
    """What comes before the plan, alone: captions, and concepts if `learn`."""
    from cluster.local import cores, local_ray
    from cluster.progress import ProgressLine
    from engine.expand import prepare_data_set
    from engine.run import prepare

    run = prepare(config)
    if run.history.version >= 0:
        console.print(f"{run.storage.url} is begun: what it was begun with stays", highlight=False, soft_wrap=True)
        return run.plan.learned
    actors = config.actors.max or (max(cores(), config.actors.min) if _device() == "cpu" else _gpus())
    with local_ray(actors, verbose), ProgressLine(console) as progress:
        return prepare_data_set(run, progress, learn)


def _print_sheet(url: str) -> None:
    output.print(f"{url}/{layout.CONTACT_SHEET}", highlight=False, soft_wrap=True)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _gpus() -> int:
    import torch

    return max(1, torch.cuda.device_count())


def _actors(count: int | None) -> dict[str, Any]:
    return {} if count is None else {"actors.min": count, "actors.max": count}


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False))


def _print_estimate(found: dict[str, Any]) -> None:
    rate = f"{found['images_per_second']:.1f} images/s on {found['actors']} {found['device']} actors"
    output.print(
        f"plan: {found['synthetic_images']} images from {found['real_images']} of {found['classes']} classes, "
        f"{found['unet_rows']} U-Net rows; about {_duration(found['seconds'])} at {rate}, "
        f"{_bytes(found['disk_bytes'])} of disk"
        + (f"; {_duration(found['learn_seconds'])} of it to learn the concepts" if found["learn_seconds"] else ""),
        highlight=False,
        soft_wrap=True,
    )
    if found["skipped"]:
        output.print(f"{found['skipped']} files are skipped; diffii expand names them", highlight=False)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _fail(message: str) -> NoReturn:
    console.print(f"error: {message}", highlight=False, markup=False, soft_wrap=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
