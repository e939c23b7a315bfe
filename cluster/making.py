"""The commands that make a data set: what each is told, and what it starts."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from cluster import jobs
from cluster.arguments import Actors, Address, ConfigFile, Json, Out, Sets, Source, Verbose, settings_of
from cluster.show import print_cost, print_estimate, print_json, say, tell
from diffii.dataset import layout
from diffii.errors import ConfigError
from engine.defaults import with_values
from engine.settings import load_config


def demo(
    out: Annotated[Path, typer.Option(help="Where the expanded data set goes.")] = Path("diffii-demo"),
    actors: Actors = None,
    verbose: Verbose = False,
) -> None:
    """Expand the embedded data set with the embedded model: offline, on a laptop's CPU."""
    from cluster.demo import DEMO, demo_source

    source = demo_source(out)
    overrides = {"source.url": str(source), "output.url": str(out), **settings_of(actors)}
    jobs.expand(load_config(defaults=DEMO, overrides=overrides), verbose, estimated=True)
    jobs.report(str(out))


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

    settings = load_config(config, sets or (), overrides={"source.url": source, **settings_of(actors)})
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
    settings = load_config(config, sets or (), overrides={**given, **settings_of(actors)})
    for key, value in (("SOURCE", settings.source.url), ("OUT", settings.output.url)):
        if not value:
            setting = "source.url" if key == "SOURCE" else "output.url"
            raise ConfigError(f"{key} is missing: diffii expand SOURCE OUT, or {setting}")
    old = ""
    if fork is not None:
        old, settings = settings.output.url, with_values(settings, {"output.url": fork})
    jobs.expand(settings, verbose, forked=old, metrics=metrics, address=address, log_json=log_json)


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
    settings = load_config(
        config, sets or (), overrides={"source.url": source, "output.url": out, **settings_of(actors)}
    )
    learned = jobs.prepare(settings, verbose, address=address)
    if not learned.concepts:
        say("learn.concepts is off: classes are named by words")
        return
    tell(f"{out}/{layout.CONCEPTS}/{learned.concepts[:32]}")


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
    overrides = {"source.url": source, "output.url": out, **settings_of(actors)}
    settings = load_config(config, sets or (), overrides=overrides)
    learned = jobs.prepare(settings, verbose, learn=False, address=address)
    for suffix, count in Counter(learned.suffixes).most_common():
        tell(f"{suffix}  ({count} images)" if count > 1 else suffix)
