"""The command line: `diffii <command>`. It parses, starts what is needed, and turns errors into one clear line."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from cluster import commands, jobs
from cluster.show import (
    print_cost,
    print_estimate,
    print_json,
    print_status,
    print_verification,
    say,
    tell,
)
from diffii import __version__
from diffii.dataset import layout
from diffii.errors import DiffiiError
from engine.defaults import with_values
from engine.settings import load_config

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(commands.app, name="cluster")
app.command()(commands.doctor)

Source = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help="Labelled images: class folders, Parquet, tars, a list, a hub id; any URL."),
]
Out = Annotated[str, typer.Argument(metavar="OUT", help="The expanded data set; any fsspec URL.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting; may be repeated.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Actors = Annotated[int | None, typer.Option("--actors", min=1, help="How many actors work at once.")]
Address = Annotated[
    jobs.Address, typer.Option(help="auto: work on the Ray cluster that this machine is part of, as jobs do.")
]
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
    jobs.expand(load_config(defaults=DEMO, overrides=overrides), verbose, estimated=True)
    jobs.report(str(out))


@app.command()
def plan(
    source: Source,
    config: ConfigFile = None,
    sets: Sets = None,
    actors: Actors = None,
    price: Annotated[float | None, typer.Option(min=0.0, help="An hour of a machine like this, on demand.")] = None,
    spot_price: Annotated[float | None, typer.Option(min=0.0, help="The same of one that may be taken away.")] = None,
    actors_per_machine: Annotated[int, typer.Option(min=1, help="1 makes the prices those of a GPU.")] = 1,
    preemptions: Annotated[
        float | None, typer.Option(min=0.0, help="How often a spot machine is taken away, an hour; by default 0.1.")
    ] = None,
    machine_seconds: Annotated[
        float | None, typer.Option(min=0.0, help="Paid for before a new machine's actors start; by default 180.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what an expansion will make and cost; measures speed for a few seconds, writes nothing."""
    from engine import cost as costs
    from engine.estimate import estimate

    settings = load_config(config, sets or (), overrides={"source.url": source, **_actors(actors)})
    found = estimate(settings, jobs.actors(settings), jobs.device())
    prices = costs.Prices(
        on_demand=price,
        spot=spot_price,
        actors_per_machine=actors_per_machine,
        preemptions=costs.PREEMPTIONS_PER_HOUR if preemptions is None else preemptions,
        machine_seconds=costs.MACHINE_SECONDS if machine_seconds is None else machine_seconds,
    )
    priced = price is not None or spot_price is not None
    cost = dataclasses.asdict(costs.cost(found, prices)) if priced else None
    if as_json:
        print_json(dataclasses.asdict(found) | ({"cost": cost} if cost else {}))
        return
    print_estimate(dataclasses.asdict(found))
    if cost:
        print_cost(cost)


@app.command()
def expand(
    source: Annotated[str | None, typer.Argument(metavar="SOURCE", help="Labelled images; any fsspec URL.")] = None,
    out: Annotated[str | None, typer.Argument(metavar="OUT", help="The expanded data set; any fsspec URL.")] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    actors: Actors = None,
    fork: Annotated[
        str | None,
        typer.Option(metavar="NEW_OUT", help="Begin anew in NEW_OUT with what of OUT still fits."),
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="Keep the run's counters in this file, in Prometheus' text format.")
    ] = None,
    log_json: Annotated[
        str, typer.Option("--log-json", metavar="FILE", help="Append what happens, as lines of JSON; - is stderr.")
    ] = "",
    address: Address = jobs.LOCAL,
    verbose: Verbose = False,
) -> None:
    """Expand labelled images into committed shards. The same command again goes on where it stopped."""
    given = {key: value for key, value in (("source.url", source), ("output.url", out)) if value}
    settings = load_config(config, sets or (), overrides={**given, **_actors(actors)})
    for key, value in (("SOURCE", settings.source.url), ("OUT", settings.output.url)):
        if not value:
            _fail(f"{key} is missing: diffii expand SOURCE OUT, or {'source' if key == 'SOURCE' else 'output'}.url")
    old = ""
    if fork is not None:
        old, settings = settings.output.url, with_values(settings, {"output.url": fork})
    jobs.expand(settings, verbose, forked=old, metrics=metrics, address=address, log_json=log_json)


@app.command()
def learn(
    source: Source,
    out: Out,
    config: ConfigFile = None,
    sets: Sets = None,
    actors: Actors = None,
    address: Address = jobs.LOCAL,
    verbose: Verbose = False,
) -> None:
    """Learn a concept for every class (tokens and a LoRA), for OUT to be expanded with. `expand` does it too."""
    settings = load_config(config, sets or (), overrides={"source.url": source, "output.url": out, **_actors(actors)})
    learned = jobs.prepare(settings, verbose, address=address)
    if not learned.concepts:
        say("learn.concepts is off: classes are named by words")
        return
    tell(f"{out}/{layout.CONCEPTS}/{learned.concepts[:32]}")


@app.command()
def caption(
    source: Source,
    out: Out,
    config: ConfigFile = None,
    sets: Sets = None,
    actors: Actors = None,
    address: Address = jobs.LOCAL,
    verbose: Verbose = False,
) -> None:
    """Find what the images show besides their subjects, for OUT's prompts to end with. `expand` does it too."""
    overrides = {"source.url": source, "output.url": out, **_actors(actors)}
    settings = load_config(config, sets or (), overrides=overrides)
    learned = jobs.prepare(settings, verbose, learn=False, address=address)
    for suffix, count in Counter(learned.suffixes).most_common():
        tell(f"{suffix}  ({count} images)" if count > 1 else suffix)


@app.command()
def status(
    out: Out,
    watched: Annotated[
        bool, typer.Option("--watch", help="Look again every few seconds, until it is complete; Ctrl-C leaves it be.")
    ] = False,
    as_json: Json = False,
) -> None:
    """How far an expansion is, and how fast it gets on, from its output alone: from any machine, without Ray."""
    from engine.status import status as read_status

    def read() -> dict[str, Any]:
        return dataclasses.asdict(read_status(out))

    if watched:
        from cluster.watch import watch

        watch(read, as_json)
    elif as_json:
        print_json(read())
    else:
        print_status(read())


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
        print_json(fields)
    else:
        print_verification(fields)
    raise typer.Exit(0 if found.ok else 1)


@app.command()
def report(
    out: Out,
    to: Annotated[Path | None, typer.Option(help="Write the page here (and .json beside it), not into OUT.")] = None,
    source: Annotated[str, typer.Option(help="Where the real images are, if not where they were.")] = "",
    embedder: Annotated[str, typer.Option(help="Measure in this vision model's features: a hub id or path.")] = "",
    clip: Annotated[str, typer.Option(help="Also CLIPScore, by this transformers CLIP: a hub id or path.")] = "",
    images: Annotated[int, typer.Option(min=2, help="Synthetic and real images measured, at most.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Another seed measures other images.")] = 0,
    as_json: Json = False,
) -> None:
    """How good the images are: one page with pictures, angles, losses and figures, and the figures as JSON."""
    options = {"source": source, "embedder": embedder, "clip": clip, "images": images, "seed": seed}
    figures = jobs.report(out, to, not as_json, **options)
    if as_json:
        print_json(figures)


@app.command()
def export(
    out: Out,
    destination: Annotated[str, typer.Argument(metavar="DEST", help="An empty or new place, or an earlier export.")],
    format: Annotated[
        str, typer.Option("--format", help="webdataset, mds, imagefolder or parquet; several by commas.")
    ] = "webdataset",
    encoding: Annotated[str, typer.Option(help="png, webp or jpeg, if not as the images are.")] = "",
    quality: Annotated[int | None, typer.Option(help="Of jpeg (95), or of webp, which is lossless without.")] = None,
    include_real: Annotated[bool, typer.Option("--include-real", help="Put the real images in too.")] = False,
    source: Annotated[str, typer.Option(help="Where the real images are, if not where they were.")] = "",
    as_json: Json = False,
) -> None:
    """Write a finished or growing data set in another format. Again: only what is new since."""
    options = {"encoding": encoding, "quality": quality, "include_real": include_real, "source": source}
    made = jobs.export(out, destination, _names(format), **options)
    if as_json:
        print_json({"exports": [dataclasses.asdict(copy) for copy in made]})
        return
    for copy in made:
        say(f"{copy.new_rows} of {copy.rows} images are new")
        tell(copy.usage)


@app.command()
def evaluate(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Where results and sets are kept; any fsspec URL.")],
    protocol: Annotated[str, typer.Option(help="A task by name: garments-fewshot, garments-lt, ...")] = "",
    shots: Annotated[int, typer.Option(min=1, help="Training images a class, of a few-shot task.")] = 5,
    imbalance: Annotated[int, typer.Option(min=1, help="Head's share of the tail's, of a long tail.")] = 100,
    data: Annotated[str, typer.Option(help="Where the protocol's data set is unpacked, if it is not garments.")] = "",
    source: Annotated[str, typer.Option(help="Your own images to train on, in place of a protocol.")] = "",
    test: Annotated[str, typer.Option(help="Your own images to measure on.")] = "",
    validation: Annotated[str, typer.Option(help="Your own images to choose settings on.")] = "",
    arms: Annotated[
        str, typer.Option(help="real, mixup, cutmix, and how rows begin: see arm.name.")
    ] = "real,noise,diff-ii",
    classifier: Annotated[
        str, typer.Option(help="scratch, lite0, or transformers models; several by commas.")
    ] = "scratch",
    seeds: Annotated[int, typer.Option(min=1, help="Draws, generations and trainings that are reported.")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them; 1000 explores: on validation images.")] = 0,
    trainings: Annotated[int, typer.Option(min=1, help="Networks per arm and seed, averaged.")] = 1,
    tuning_seeds: Annotated[
        int, typer.Option(min=0, help="Seeds to choose p and learning rate on; 0: usual ones.")
    ] = 2,
    p: Annotated[float | None, typer.Option(help="Mixing probability, instead of choosing it.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate, instead of choosing it.")] = None,
    factor: Annotated[float | None, typer.Option(help="Synthetic images per real one.")] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    actors: Actors = None,
    verbose: Verbose = False,
) -> None:
    """Measure what expansion does for a classifier, against controls. What is measured already is kept."""
    from engine.evaluate import Questions, Study

    more = {} if factor is None else {"expansion.factor": factor}
    asked = Study(
        url=study,
        questions=Questions(
            protocol=protocol,
            shots=shots,
            imbalance=imbalance,
            root=data,
            source=source,
            test=test,
            validation=validation,
        ),
        arms=_names(arms),
        classifiers=_names(classifier),
        seeds=seeds,
        first_seed=first_seed,
        trainings=trainings,
        tuning_seeds=tuning_seeds,
        p=p,
        lr=lr,
        config=load_config(config, sets or (), overrides={**_actors(actors), **more}),
    )
    jobs.evaluate(asked, verbose)


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


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
        print_json({name: value for name, value in fields.items() if name != "image"})
    else:
        said = "identical to the bit" if found.identical else "not the published image"
        said = said if found.published_sha256 else "it was never published"
        trouble = f" ({found.reason})" if found.reason else ""
        tell(f"{found.class_name} {found.ordinal}: {found.outcome}{trouble}, {said}")
        tell(found.recipe)
    raise typer.Exit(0 if found.identical else 1)


def main() -> None:
    """Entry point of the console script: user errors are one line on standard error and exit status 2."""
    try:
        app()
    except DiffiiError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        say("\nstopped; the same command goes on from here")
        sys.exit(130)


def _actors(count: int | None) -> dict[str, Any]:
    return {} if count is None else {"actors.min": count, "actors.max": count}


def _fail(message: str) -> NoReturn:
    say(f"error: {message}")
    sys.exit(2)


if __name__ == "__main__":
    main()
